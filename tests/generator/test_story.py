"""What the wire tells of a call."""

from __future__ import annotations

import pytest

from support.generator.story import Story, tell
from support.generator.wire import Seen, Wire, read


def seen(*lines: str, run: int = 0) -> list[Seen]:
    """Messages, a second apart: ``> INVITE 2 c1 -`` or ``< 200 INVITE 2 c1 d1``; ``c1``, ``d1`` are the tags."""
    made = []
    for at, line in enumerate(lines):
        arrow, *words, number, from_tag, to_tag = line.split()
        status = int(words[0]) if words[0].isdigit() else 0
        branch = f"b{number}" if "INVITE" in words or "CANCEL" in words else f"x{number}{from_tag}"
        made.append(
            Seen(
                float(at), arrow == ">", run, "udp", status, words[-1], int(number), "call", from_tag,
                "" if to_tag == "-" else to_tag, branch,
            )
        )  # fmt: skip
    return made


def only(*lines: str) -> Story:
    (story,) = tell(seen(*lines), "c1")
    return story


ANSWERED = (
    "> INVITE 1 c1 -", "< 407 INVITE 1 c1 s", "> INVITE 2 c1 -", "< INVITE 2 c1 -", "> 180 INVITE 2 c1 d1",
    "> 200 INVITE 2 c1 d1", "< 200 INVITE 2 c1 d1", "> ACK 2 c1 d1",
)  # fmt: skip


def test_call_begins_with_the_invite_that_was_let_in() -> None:
    story = only(*ANSWERED)
    assert (story.started, story.ringing, story.answered, story.confirmed, story.end) == (2.0, 4.0, 5.0, 7.0, None)


def test_call_ends_when_its_bye_is_accepted() -> None:
    story = only(*ANSWERED, "> BYE 3 c1 d1", "> BYE 3 c1 d1", "> 200 BYE 3 c1 d1", "< 200 BYE 3 c1 d1")
    assert story.end is not None
    assert (story.end.at, story.end.asked_at, story.end.side, story.bye_passed) == (10.0, 8.0, "caller", 11.0)


def test_bye_that_is_refused_ends_nothing_and_one_that_nobody_knows_does() -> None:
    assert only(*ANSWERED, "> BYE 1 d1 c1", "> 403 BYE 1 d1 c1").end is None
    story = only(*ANSWERED, "> BYE 1 d1 c1", "> 481 BYE 1 d1 c1")
    assert story.end is not None
    assert story.end.side == "callee"


def test_bye_of_a_dialog_that_was_not_kept_ends_nothing() -> None:
    other = "> 200 INVITE 2 c1 d2", "> BYE 3 c1 d2", "> 200 BYE 3 c1 d2"
    story = only(*ANSWERED, *other, "> BYE 4 c1 d1", "> 200 BYE 4 c1 d1")
    assert story.kept == "d1"
    assert story.end is not None
    assert story.end.at == 12.0


TWO = (*ANSWERED, "> 200 INVITE 2 c1 d2", "> ACK 2 c1 d2")


@pytest.mark.parametrize(
    ("lines", "kept", "end"),
    [
        ((), "d1", None),
        (("> BYE 3 c1 d1", "> BYE 3 c1 d2", "> 200 BYE 3 c1 d2", "> 200 BYE 3 c1 d1"), "d2", 12.0),
        (("> BYE 3 c1 d2", "> BYE 3 c1 d1", "> 200 BYE 3 c1 d1", "> 200 BYE 3 c1 d2"), "d1", 12.0),
        (("> BYE 1 d1 c1", "> 200 BYE 1 d1 c1", "> BYE 3 c1 d2", "> 200 BYE 3 c1 d2"), "d1", 11.0),
        (("> BYE 3 c1 d1", "> 200 BYE 3 c1 d1", "> BYE 1 d2 c1", "> 200 BYE 1 d2 c1"), "d2", 13.0),
        (("> BYE 1 d1 c1", "> 200 BYE 1 d1 c1", "> BYE 1 d2 c1", "> 200 BYE 1 d2 c1"), "d2", 13.0),
        (("> BYE 1 d1 c1", "> 200 BYE 1 d1 c1"), "d2", None),
    ],
)
def test_which_of_two_devices_was_kept(lines: tuple[str, ...], kept: str, end: float | None) -> None:
    story = only(*TWO, *lines)
    assert (story.kept, story.end.at if story.end is not None else None) == (kept, end)


def test_device_that_answers_after_the_caller_was_refused_has_no_call() -> None:
    story = only("> INVITE 2 c1 -", "< 408 INVITE 2 c1 p", "> 200 INVITE 2 c1 d1")
    assert (story.answers, story.answered) == ({}, None)


def test_ringing_that_is_overtaken_by_the_end_is_no_ringing() -> None:
    refused = "> INVITE 2 c1 -", "> 486 INVITE 2 c1 d1", "< 486 INVITE 2 c1 d1"
    assert only(*refused, "> 180 INVITE 2 c1 d1").ringing is None
    assert only("> INVITE 2 c1 -", "> 200 INVITE 2 c1 d1", "> 180 INVITE 2 c1 d2").ringing is None


def test_cancel_counts_until_the_answer() -> None:
    assert only("> INVITE 2 c1 -", "> CANCEL 2 c1 -", "> 200 INVITE 2 c1 d1").cancelled == 1.0
    assert only("> INVITE 2 c1 -", "> 200 INVITE 2 c1 d1", "> CANCEL 2 c1 -").cancelled is None


def test_change_counts_once_and_only_when_accepted() -> None:
    story = only(
        *ANSWERED, "> INVITE 3 c1 d1", "> 200 INVITE 3 c1 d1", "> 200 INVITE 3 c1 d1", "> UPDATE 1 d1 c1",
        "> 488 UPDATE 1 d1 c1",
    )  # fmt: skip
    assert story.changes == [(9.0, "c1", 3)]


def test_invite_after_a_restart_is_another_call() -> None:
    wire = [*seen("> INVITE 2 c1 -"), *seen("> INVITE 3 c1 -", run=1)]
    assert [story.run for story in tell(wire, "c1")] == [0, 1]


def test_invite_that_is_challenged_only_after_a_restart_began_a_call_before_it() -> None:
    wire = [*seen("> INVITE 2 c1 -"), *seen("> INVITE 2 c1 -", "< 407 INVITE 2 c1 s", run=1)]
    assert [story.run for story in tell(wire, "c1")] == [0]


def test_another_call_with_the_same_call_id_is_not_this_one() -> None:
    assert only(*ANSWERED, "> INVITE 2 c9 -", "> 200 INVITE 2 c9 d9").answered == 5.0


def test_message_is_read_from_its_bytes() -> None:
    data = (
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:1;branch=z9hG4bKone;rport\r\n"
        b"Via: SIP/2.0/UDP 192.0.2.2:2;branch=z9hG4bKtwo\r\nFrom: <sip:a@example.test>;tag=f\r\n"
        b"To: <sip:b@example.test>;tag=t\r\nCall-ID: id@host\r\nCSeq: 7 UPDATE\r\n\r\nTo: <sip:c@d>;tag=body"
    )
    wire = Wire()
    found = wire.note(data, 1.5, to_server=True, link="udp1")
    assert found is not None
    assert (found.status, found.method, found.number, found.call_id) == (200, "UPDATE", 7, "id@host")
    assert (found.from_tag, found.to_tag, found.branch) == ("f", "t", "z9hG4bKone")
    assert wire.calls["id@host"] == [found]
    assert read(b"\r\n\r\n", 0.0, True, 0, "udp1") is None


def test_early_media_are_agreed_by_a_prack() -> None:
    story = only(
        "> INVITE 2 c1 -", "> 183 INVITE 2 c1 d1", "< 183 INVITE 2 c1 d1", "> PRACK 3 c1 d1", "> 200 PRACK 3 c1 d1",
        "> 200 PRACK 3 c1 d1", "> 200 INVITE 2 c1 d1",
    )  # fmt: skip
    assert (story.ringing, story.pracked, story.answered) == (1.0, 4.0, 6.0)


def test_signs_of_life_are_what_each_side_says_first_and_what_shows_the_other() -> None:
    assert only(*ANSWERED).seen_of == {"caller": 7.0, "callee": 7.0}
    assert only(*ANSWERED, "> UPDATE 3 c1 d1").seen_of == {"caller": 8.0, "callee": 7.0}
    refreshed = "> UPDATE 3 c1 d1", "> 200 UPDATE 3 c1 d1", "> 200 UPDATE 3 c1 d1", "> UPDATE 3 c1 d1"
    assert only(*ANSWERED, *refreshed).seen_of == {"caller": 9.0, "callee": 9.0}
    assert only(*ANSWERED, "> NOTIFY 1 d1 c1", "> 481 NOTIFY 1 d1 c1").seen_of == {"caller": 7.0, "callee": 8.0}
