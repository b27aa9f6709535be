"""The dialogs of a call by events and rows: forks whose caller chooses, tags that match and do not, early media."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls import machine
from sipserver.calls.dialogs import AT_ONCE_MS, MAX_DIALOGS
from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    Confirmed,
    Ended,
    Event,
    Failed,
    HangingUp,
    Located,
    Placed,
    Progressed,
    Rang,
    Referred,
    Tried,
)
from sipserver.calls.machine import Call
from sipserver.calls.places import Place
from sipserver.calls.rows import (
    CallAnswered,
    CallConfirmed,
    CallEnded,
    CallLocated,
    CallMedia,
    CloseMedia,
    DropMedia,
    InsertBranch,
    InsertEvent,
    OpenMedia,
    Row,
    UpdateBranch,
)
from sipserver.sip.sdp import UNREADABLE, Description
from support.machine import ANYTHING, BOTH, VOICE, T, answered, feed, kinds, of, one, placed, ringing


def forked(first: int = 2_100, second: int = 2_150) -> Call:
    """Both devices have answered, with voice and with video."""
    call = ringing()
    feed(
        call, Tried(T + 6, 1, "UDP", "203.0.113.0/24"), Rang(T + 100, 0, tag="a"), Rang(T + 120, 1, "other", tag="b"),
        Answered(T + first, 0, 200, "phone", VOICE, "a"), Answered(T + second, 1, 200, "other", BOTH, "b"),
    )  # fmt: skip
    return call


def bye(at: int, tag: str, side: str = CALLER) -> Ended:
    return Ended(T + at, side, tag=tag)


def test_dialog_that_is_not_kept_ends_without_the_call() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_200, tag="a"), Confirmed(T + 2_210, tag="b"), bye(2_220, "b"))
    assert rows == [
        UpdateBranch("id", 1, "also_answered", T + 2_220),
        InsertEvent("id", 5, T + 2_220, "dropped", CALLER, None, "bye"),
    ]
    assert feed(call, bye(2_230, "b")) == []
    assert one(CallEnded, feed(call, bye(9_100, "a"))).talk_ms == 7_000


def test_record_follows_the_dialog_that_is_kept() -> None:
    call = forked()
    feed(call, Confirmed(T + 2_200, tag="a"), Confirmed(T + 2_210, tag="b"))
    rows = feed(call, bye(2_220, "a"))
    assert one(CallAnswered, rows) == CallAnswered(
        "id", T + 2_150, 200, 100, 2_050, "other", "UDP", "203.0.113.0/24", 2, 1, 0, 0
    )
    assert one(CallConfirmed, rows) == CallConfirmed("id", T + 2_210)
    assert one(DropMedia, rows).before == 3
    assert [(row.number, row.stream.accepted, row.branch, row.from_at) for row in of(OpenMedia, rows)] == [
        (3, 1, 1, T + 2_150), (4, 1, 1, T + 2_150)
    ]  # fmt: skip
    assert of(UpdateBranch, rows) == [
        UpdateBranch("id", 1, "answered", None), UpdateBranch("id", 0, "also_answered", T + 2_220)
    ]  # fmt: skip
    assert call.state == machine.CONFIRMED
    row = one(CallEnded, feed(call, bye(9_150, "b", CALLEE)))
    assert (row.talk_ms, row.video_ms, row.ended_by) == (7_000, 7_000, CALLEE)


def test_place_follows_the_dialog_that_is_kept() -> None:
    call = placed()
    feed(
        call, Tried(T + 5, 0, place=Place("AT")), Tried(T + 6, 1, place=Place("CH")), Answered(T + 500, 0, tag="a"),
        Answered(T + 510, 1, tag="b"),
    )  # fmt: skip
    rows = feed(call, bye(600, "a"))
    assert one(CallAnswered, rows).place == Place("CH")
    # The other device's may have been written late, and that is written after answers.
    assert one(CallLocated, rows) == CallLocated("id", False, Place("CH"))
    assert feed(call, Located(Place("DE"), 0)) == []
    assert feed(call, Located(Place("DE"), 1)) == [CallLocated("id", False, Place("DE"))]


def test_late_place_of_a_device_that_also_answered_is_kept_for_its_dialogs() -> None:
    call = placed()
    feed(call, Tried(T, 0), Tried(T, 1), Answered(T + 500, 0, tag="a"), Answered(T + 510, 1, tag="b"))
    assert feed(call, Located(Place("CH"), 1)) == []
    assert one(CallAnswered, feed(call, bye(600, "a"))).place == Place("CH")


def test_second_dialog_of_a_device_is_where_the_first_is() -> None:
    call = placed()
    feed(call, Tried(T, 0, place=Place("AT")), Answered(T + 500, 0, tag="a"), Answered(T + 510, 0, tag="b"))
    rows = feed(call, bye(600, "a"))
    assert one(CallAnswered, rows).place == Place("AT")
    assert of(CallLocated, rows) == []


def test_dialog_that_is_kept_may_still_wait_for_its_ack() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_200, tag="a"), bye(2_220, "a"))
    assert one(CallConfirmed, rows).confirmed_at is None
    assert call.state == machine.ANSWERED
    assert one(CallConfirmed, feed(call, Confirmed(T + 2_300, tag="b"))).confirmed_at == T + 2_300


def test_setup_is_until_the_answer_that_is_kept_where_nobody_rang() -> None:
    call = placed()
    feed(call, Tried(T, 0), Tried(T, 1), Answered(T + 500, 0, tag="a"), Answered(T + 700, 1, tag="b"))
    assert one(CallAnswered, feed(call, bye(800, "a"))).setup_ms == 700


def test_dialog_that_was_kept_for_long_ends_the_call() -> None:
    call = forked()
    feed(call, Confirmed(T + 2_200, tag="a"), Confirmed(T + 2_210, tag="b"))
    end = 2_100 + AT_ONCE_MS + 1
    assert one(CallEnded, feed(call, bye(end, "a"))).talk_ms == AT_ONCE_MS + 1


def test_dialog_that_nobody_acknowledged_stands_no_longer_than_it_may() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_200, tag="a"), bye(2_150 + AT_ONCE_MS + 1, "a"))
    assert one(CallEnded, rows).ended_at == T + 2_150 + AT_ONCE_MS + 1


def test_timeline_has_the_ack_of_the_dialog_that_is_kept() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_210, tag="b"), bye(2_220, "a"))
    assert [(row.number, row.kind, row.at) for row in of(InsertEvent, rows)] == [
        (3, "answered", T + 2_100), (4, "confirmed", T + 2_210), (5, "dropped", T + 2_220)
    ]  # fmt: skip
    call = forked()
    feed(call, bye(2_200, "a"))
    assert [row.kind for row in of(InsertEvent, feed(call, Confirmed(T + 2_210, tag="b")))] == ["confirmed"]


def test_early_dialog_that_the_caller_ends_was_not_the_call() -> None:
    call = ringing()
    feed(
        call, Tried(T + 6, 1), Rang(T + 100, 0, tag="a"), Rang(T + 120, 1, tag="b"), Answered(T + 2_100, 0, tag="a"),
        HangingUp(T + 2_200, "a"),
    )  # fmt: skip
    assert [row.kind for row in of(InsertEvent, feed(call, bye(2_210, "b")))] == ["dropped"]
    assert one(CallEnded, feed(call, bye(2_230, "a"))).talk_ms == 130


def test_dialog_that_was_never_acknowledged_was_not_the_call() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_210, tag="b"), bye(62_150, "b"))
    row = one(CallEnded, rows)
    assert (row.talk_ms, row.video_ms) == (60_000, 60_000)
    assert one(CallAnswered, rows).agent == "other"
    assert of(UpdateBranch, rows)[0] == UpdateBranch("id", 1, "answered", None)


def test_unanswered_bye_tells_of_the_past_and_the_kept_dialogs_media_do_not() -> None:
    call = forked()
    feed(call, Confirmed(T + 2_200, tag="a"), Confirmed(T + 2_210, tag="b"))
    feed(call, Changed(T + 20_000, CALLER, VOICE, VOICE, tag="b", method="UPDATE"))
    # The BYE for the dialog that was not kept came long before it was given up.
    rows = feed(call, Ended(T + 3_000, CALLER, uncertainty_ms=32_000, tag="a"))
    assert [(row.stream.stream, row.stream.accepted, row.from_at) for row in of(OpenMedia, rows)] == [
        (0, 1, T + 2_150), (1, 1, T + 2_150)
    ]  # fmt: skip
    assert [row.to_at for row in of(CloseMedia, rows)] == [T + 20_000]
    assert of(UpdateBranch, rows)[1] == UpdateBranch("id", 0, "also_answered", T + 3_000)


def test_call_without_evidence_was_that_of_the_dialog_that_was_acknowledged() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_210, tag="b"), Ended(T + 2_210, SERVER, "probe_failed", uncertainty_ms=9_000))
    assert one(CallAnswered, rows).agent == "other"
    row = one(CallEnded, rows)
    assert (row.ended_at, row.end_uncertainty_ms, row.talk_ms) == (T + 2_210, 9_000, 60)
    assert of(UpdateBranch, rows) == [
        UpdateBranch("id", 1, "answered", None), UpdateBranch("id", 0, "also_answered", T + 2_210)
    ]  # fmt: skip


def test_dialog_whose_ack_was_lost_is_the_call_where_the_caller_parted_from_the_other() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_200, tag="b"), left(2_200, "b"), bye(2_230, "b"))
    assert of(CallEnded, rows) == []
    rows = feed(call, bye(2_450, "a", CALLEE))
    row = one(CallEnded, rows)
    assert (row.ended_by, row.ended_at, row.talk_ms) == (CALLEE, T + 2_450, 350)
    assert of(CallAnswered, rows) == []
    # The ACK is late, and so is the word of the other device.
    call = forked()
    feed(call, Confirmed(T + 2_200, tag="b"), bye(2_450, "a", CALLEE), left(2_460, "b"))
    row = one(CallEnded, feed(call, bye(2_500, "b")))
    assert (row.ended_by, row.ended_at, row.talk_ms) == (CALLEE, T + 2_450, 350)


def test_callee_that_waits_in_vain_for_the_ack_gives_up_its_own_dialog() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_210, tag="b"), bye(34_200, "a", CALLEE))
    assert one(CallAnswered, rows).answered_at == T + 2_150
    assert of(CallEnded, rows) == []


def test_caller_that_hangs_up_without_a_word_to_the_other_device_had_the_first() -> None:
    call = forked()
    rows = feed(call, Confirmed(T + 2_200, tag="a"), bye(7_100, "a"))
    # It may yet acknowledge the other one.
    assert of(CallEnded, rows) == []
    rows = feed(call, bye(34_150, "b", CALLEE))
    row = one(CallEnded, rows)
    assert (row.ended_at, row.talk_ms, row.ended_by, row.video_ms) == (T + 7_100, 5_000, CALLER, 0)
    assert one(CallAnswered, rows).agent == "phone"
    assert one(CallConfirmed, rows).confirmed_at == T + 2_200
    assert of(UpdateBranch, rows) == [
        UpdateBranch("id", 0, "answered", None), UpdateBranch("id", 1, "also_answered", T + 34_150)
    ]  # fmt: skip


# ---------------------------------------------------------------------- which dialog the caller kept: BYEs in any order


def talking() -> Call:
    """Both devices have answered, and the caller has acknowledged both."""
    call = forked()
    feed(call, Confirmed(T + 2_200, tag="a"), Confirmed(T + 2_210, tag="b"))
    return call


def ended(*events: Event) -> tuple[str | None, int, str, int | None]:
    """Whose call it was, when it ended by whom, and its talk time: after these events, the last of which ends it."""
    call = talking()
    rows: list[Row] = []
    for event in events:
        assert of(CallEnded, rows) == [], "the call has ended before"
        rows += call.handle(event)
    agent = [row.agent for row in of(CallAnswered, rows)]
    row = one(CallEnded, rows)
    return agent[-1] if agent else "phone", row.ended_at - T, row.ended_by, row.talk_ms


def left(at: int, tag: str) -> HangingUp:
    return HangingUp(T + at, tag)


def test_caller_parts_from_one_and_either_side_of_the_other_ends_the_call() -> None:
    assert ended(left(2_220, "b"), bye(2_230, "b"), left(3_000, "a"), bye(3_100, "a")) == (
        "phone",
        3_100,
        CALLER,
        1_000,
    )
    assert ended(left(2_220, "b"), bye(2_230, "b"), bye(3_100, "a", CALLEE)) == ("phone", 3_100, CALLEE, 1_000)
    assert ended(left(2_220, "a"), bye(2_230, "a"), left(3_000, "b"), bye(3_150, "b")) == (
        "other",
        3_150,
        CALLER,
        1_000,
    )
    assert ended(left(2_220, "a"), bye(2_230, "a"), bye(3_150, "b", CALLEE)) == ("other", 3_150, CALLEE, 1_000)


@given(
    kept=st.sampled_from(("a", "b")),
    by_caller=st.booleans(),
    waits=st.lists(st.integers(1, 900), min_size=3, max_size=3),
    acks=st.lists(st.one_of(st.none(), st.integers(2_160, 4_900)), min_size=2, max_size=2),
)
def test_what_the_caller_parts_from_first_was_not_the_call_whatever_became_of_acks(
    kept: str, by_caller: bool, waits: list[int], acks: list[int | None]
) -> None:
    dropped, call = "b" if kept == "a" else "a", forked()
    parted = 2_160 + waits[0]
    over = parted + waits[1]
    happened: list[tuple[int, Event]] = [(parted, left(parted, dropped))]
    happened.append((parted + waits[2], bye(parted + waits[2], dropped)))
    happened += [(at, Confirmed(T + at, tag=tag)) for at, tag in zip(acks, "ab", strict=True) if at is not None]
    if by_caller:
        happened += [(over, left(over, kept)), (over + 901, bye(over + 901, kept))]
    else:
        happened.append((over, bye(over, kept, CALLEE)))
    rows: list[Row] = []
    for _, event in sorted(happened, key=lambda each: each[0]):
        rows += call.handle(event)
    agent = [row.agent for row in of(CallAnswered, rows)]
    assert (agent[-1] if agent else "phone") == {"a": "phone", "b": "other"}[kept]
    row = one(CallEnded, rows)
    assert (row.ended_by, row.ended_at) == ((CALLER, T + over + 901) if by_caller else (CALLEE, T + over))


def test_answers_to_byes_may_overtake_each_other() -> None:
    # The BYE of the dialog that was not kept came first, and is answered after the call has ended or last of all.
    assert ended(left(2_220, "b"), left(2_400, "a"), bye(2_500, "a")) == ("phone", 2_500, CALLER, 400)
    assert ended(left(2_220, "a"), left(2_400, "b"), bye(2_500, "b")) == ("other", 2_500, CALLER, 350)
    assert ended(left(2_220, "b"), bye(2_500, "a", CALLEE)) == ("phone", 2_500, CALLEE, 400)
    assert ended(left(2_220, "a"), bye(2_500, "b", CALLEE)) == ("other", 2_500, CALLEE, 350)


def test_branch_that_is_still_to_answer_its_bye_has_no_end() -> None:
    call = talking()
    rows = feed(call, left(2_220, "a"), left(2_400, "b"), bye(2_500, "b"))
    assert of(UpdateBranch, rows) == [
        UpdateBranch("id", 1, "answered", None), UpdateBranch("id", 0, "also_answered", None)
    ]  # fmt: skip


def test_device_that_hangs_up_first_had_the_call_where_the_caller_wants_none_of_the_others() -> None:
    assert ended(bye(2_600, "a", CALLEE), left(2_650, "b"), bye(2_700, "b")) == ("phone", 2_600, CALLEE, 500)
    assert ended(bye(2_600, "b", CALLEE), left(2_650, "a"), bye(2_700, "a")) == ("other", 2_600, CALLEE, 450)


def test_device_that_hangs_up_while_the_caller_has_another_for_long_had_no_call() -> None:
    long = 2_150 + AT_ONCE_MS + 1
    assert ended(bye(2_600, "a", CALLEE), left(long, "b"), bye(long + 9, "b")) == (
        "other",
        long + 9,
        CALLER,
        long - 2_141,
    )
    assert ended(bye(2_600, "a", CALLEE), bye(9_150, "b", CALLEE)) == ("other", 9_150, CALLEE, 7_000)


def test_device_and_caller_that_hang_up_on_each_other_had_no_call_where_another_is_left() -> None:
    assert ended(bye(2_300, "a", CALLEE), left(2_310, "a"), left(9_000, "b"), bye(9_150, "b")) == (
        "other", 9_150, CALLER, 7_000
    )  # fmt: skip


def test_device_whose_answer_came_after_the_caller_had_hung_up_had_no_call() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Answered(T + 2_100, 0, tag="a"), Confirmed(T + 2_200, tag="a"))
    feed(call, Answered(T + 2_900, 1, tag="b"))
    rows = feed(call, Ended(T + 2_950, CALLER, tag="a", asked_at=T + 2_850))
    assert (one(CallEnded, rows).ended_at, of(CallAnswered, rows)) == (T + 2_950, [])


def test_of_three_devices_the_last_that_the_caller_parts_from_had_the_call() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Tried(T + 7, 2))
    for number, tag in enumerate("abc"):
        feed(call, Answered(T + 2_100 + number, number, agent=tag, tag=tag), Confirmed(T + 2_110, tag=tag))
    feed(call, left(2_200, "a"), left(2_201, "c"), left(2_900, "b"))
    assert of(CallEnded, feed(call, bye(2_910, "c"))) == []
    assert of(CallEnded, feed(call, bye(2_920, "a"))) == []
    rows = feed(call, bye(2_930, "b"))
    assert (one(CallEnded, rows).ended_at, one(CallEnded, rows).talk_ms) == (T + 2_930, 829)


def test_call_without_evidence_had_ended_where_nothing_was_heard_in_the_other_dialog_since() -> None:
    lost = Ended(T + 2_500, SERVER, "probe_failed", uncertainty_ms=9_000)
    assert ended(bye(2_600, "a", CALLEE), lost) == ("phone", 2_600, CALLEE, 500)
    lost = Ended(T + 2_700, SERVER, "probe_failed", uncertainty_ms=9_000)
    assert ended(bye(2_600, "a", CALLEE), lost) == ("other", 2_700, SERVER, 550)


def test_media_of_the_dialog_that_was_kept_are_all_there() -> None:
    call = talking()
    feed(call, Changed(T + 2_300, CALLER, BOTH, BOTH, "a", "UPDATE", 3))
    feed(call, Changed(T + 2_400, CALLER, BOTH, VOICE, "a", "UPDATE", 4), bye(2_600, "a", CALLEE), left(2_650, "b"))
    rows = feed(call, bye(2_700, "b"))
    opened = [(row.stream.stream, row.stream.accepted, row.from_at - T) for row in of(OpenMedia, rows)]
    assert opened == [(0, 1, 2_100), (1, 0, 2_100), (1, 1, 2_300), (1, 0, 2_400)]
    assert {row.to_at - T for row in of(CloseMedia, rows)} == {2_300, 2_400, 2_600}
    assert one(CallEnded, rows).video_ms == 100
    assert of(CallMedia, rows)[-1].video == 1


def test_what_long_dialogs_of_calls_that_are_not_forked_agreed_on_is_forgotten() -> None:
    call = answered()
    for at in range(9_000, 99_000, 9_000):
        feed(call, Changed(T + at, CALLER, BOTH, BOTH, method="UPDATE"))
    kept = call._dialogs.kept
    assert kept is not None
    assert len(kept.agreements) == 1


def test_bye_with_a_tag_of_no_dialog_ends_nothing() -> None:
    assert feed(forked(), bye(9_000, "c")) == []


def test_end_of_the_call_as_a_whole_needs_no_tag() -> None:
    assert one(CallEnded, feed(forked(), Ended(T + 9_000, SERVER, "operator"))).end_cause == "operator"


def test_callee_without_tags_has_one_dialog() -> None:
    call = answered()
    feed(call, Confirmed(T + 2_200, tag="whatever"))
    assert one(CallEnded, feed(call, bye(9_000, "whatever"))).talk_ms == 6_900


def test_two_dialogs_of_one_device() -> None:
    call = ringing()
    feed(call, Answered(T + 2_100, 0, tag="a", answer=VOICE))
    assert feed(call, Answered(T + 2_150, 0, tag="b", answer=BOTH)) == []
    rows = feed(call, Confirmed(T + 2_200, tag="b"), bye(2_220, "a"))
    assert of(UpdateBranch, rows) == []
    assert (one(CallAnswered, rows).agent, one(CallAnswered, rows).transport) == (None, "TCP")


def test_answer_of_a_device_that_is_unknown_is_only_remembered() -> None:
    call = answered()
    assert feed(call, Answered(T + 2_150, 7, tag="b")) == []
    assert call.has_dialog("b")


def test_dialogs_are_bounded_and_those_beyond_are_believed() -> None:
    call = ringing()
    for number in range(100):
        feed(call, Rang(T + 200, 0, tag=f"early{number}"))
    feed(call, Answered(T + 2_100, 0, tag="a"))
    assert call.has_dialog("anything")
    for number in range(MAX_DIALOGS):
        assert feed(call, Answered(T + 2_150, 0, tag=f"late{number}")) == []
    assert one(CallEnded, feed(call, bye(62_100, "a"))).talk_ms == 60_000


def test_dialogs_are_known_once_the_call_is_answered() -> None:
    call = ringing()
    assert call.has_dialog("anything")
    feed(call, Rang(T + 200, 0, tag="early"), Answered(T + 2_100, 0, tag="a"))
    assert [call.has_dialog(tag) for tag in ("a", "early", "b", None)] == [True, True, False, True]


def test_call_is_found_by_both_tags() -> None:
    call = Call("id", Placed(T, "key", "abc@host", tag="mine"))
    feed(call, Answered(T + 9, 0, tag="a"), Answered(T + 9, 0, tag="b"))
    assert call.is_between("mine", "a")
    assert call.is_between("b", "mine")
    assert not call.is_between("a", "b")
    feed(call, bye(20, "b"))
    assert not call.is_between("b", "mine")
    assert (call.caller, call.callee, call.call_id) == (None, None, "abc@host")


def test_media_of_another_dialog_are_not_the_calls() -> None:
    call = forked()
    assert feed(call, Changed(T + 3_000, CALLER, BOTH, BOTH, "b")) == []
    assert feed(call, Changed(T + 3_000, CALLER, BOTH, BOTH, "c")) == []
    assert feed(call, Confirmed(T + 3_000, BOTH, "c")) == []


def test_bye_on_one_of_two_early_dialogs_cancels_nothing() -> None:
    call = ringing()
    assert feed(call, Tried(T + 6, 1), Ended(T + 900, CALLER, tag="a")) == []


# ---------------------------------------------------------------------- early media, PRACK and UPDATE


def test_early_media_open_early_and_close_with_the_answer() -> None:
    call = placed()
    rows = feed(call, Tried(T, 0), Rang(T + 100, 0, None, BOTH, "a"))
    assert kinds(rows) == [("audio", 1), ("video", 1)]
    assert {(row.early, row.branch) for row in of(OpenMedia, rows)} == {(1, 0)}
    rows = feed(call, Answered(T + 2_100, 0, tag="a"))
    assert of(CloseMedia, rows) == [CloseMedia("id", 1, T + 2_100), CloseMedia("id", 2, T + 2_100)]
    assert [(row.number, row.early, row.from_at) for row in of(OpenMedia, rows)] == [
        (3, 0, T + 2_100), (4, 0, T + 2_100)
    ]  # fmt: skip


def test_early_media_are_over_once_the_caller_gives_up() -> None:
    call = placed()
    feed(call, Tried(T, 0), Rang(T + 100, 0, answer=BOTH, tag="a"))
    assert [(row.number, row.to_at) for row in of(CloseMedia, feed(call, Cancelled(T + 900)))] == [
        (1, T + 900), (2, T + 900)
    ]  # fmt: skip
    assert feed(call, Rang(T + 920, 0, answer=VOICE, tag="a")) == []
    assert of(CloseMedia, feed(call, Failed(T + 950, 487, CALLEE))) == []


def test_early_media_of_one_device_close_with_its_refusal() -> None:
    call = placed()
    feed(call, Tried(T, 0), Tried(T, 1), Rang(T + 100, 0, None, VOICE, "a"), Rang(T + 100, 1, None, BOTH, "b"))
    assert of(CloseMedia, feed(call, BranchFailed(T + 900, 1, 486))) == [
        CloseMedia("id", 3, T + 900), CloseMedia("id", 4, T + 900)
    ]  # fmt: skip
    rows = feed(call, Failed(T + 950, 486, CALLEE))
    assert of(CloseMedia, rows) == [CloseMedia("id", 1, T + 950), CloseMedia("id", 2, T + 950)]
    assert one(CallEnded, rows).video_ms is None


def test_update_before_the_answer_changes_early_media() -> None:
    call = placed()
    feed(call, Tried(T, 0), Rang(T + 100, 0, None, BOTH, "a"))
    rows = feed(call, Changed(T + 200, CALLER, VOICE, VOICE, "a", "UPDATE", 2))
    assert of(CloseMedia, rows) == [CloseMedia("id", 2, T + 200)]
    assert of(InsertEvent, rows) == []
    rows = feed(call, Answered(T + 2_100, 0, tag="a"))
    assert kinds(rows) == [("audio", 1)]


def test_prack_answers_the_offer_of_a_reliable_18x() -> None:
    call = placed(None)
    feed(call, Tried(T, 0), Rang(T + 100, 0, None, BOTH, "a", reliable=True))
    rows = feed(call, Changed(T + 200, CALLER, VOICE, None, "a", "PRACK", 2))
    assert kinds(rows) == [("audio", 1), ("video", 0)]
    assert kinds(feed(call, Answered(T + 2_100, 0, tag="a"))) == [("audio", 1), ("video", 0)]


def test_reinvite_that_is_answered_early_counts_once_it_is_accepted() -> None:
    call = answered(VOICE, VOICE)
    assert feed(call, Progressed(T + 3_000, CALLER, BOTH, BOTH, None, 5, reliable=True)) == []
    rows = feed(call, Changed(T + 3_500, CALLER, BOTH, None, None, "INVITE", 5))
    assert [row.from_at for row in of(OpenMedia, rows)] == [T + 3_500]


def test_early_answer_before_the_call_is_answered_is_none_of_a_reinvite() -> None:
    assert feed(ringing(), Progressed(T + 3_000, CALLER, BOTH, BOTH)) == []


def test_prack_is_no_line_of_the_timeline() -> None:
    assert feed(answered(), Changed(T + 3_000, CALLER, None, None, None, "PRACK", 5)) == []


def test_referred_is_on_the_timeline() -> None:
    rows = feed(answered(), Referred(T + 3_000, CALLEE, attended=True))
    assert rows == [InsertEvent("id", 4, T + 3_000, "referred", CALLEE, None, "attended")]


def test_refer_after_refer_is_bounded() -> None:
    call = forked()
    feed(call, *(Referred(T + 3_000, CALLER) for _ in range(machine.MAX_EVENTS)))
    assert feed(call, Referred(T + 3_000, CALLER)) == []
    assert feed(call, bye(3_100, "b")) == [UpdateBranch("id", 1, "also_answered", T + 3_100)]


# ---------------------------------------------------------------------- whatever happens


@given(st.sampled_from([None, BOTH, UNREADABLE]), st.lists(st.tuples(st.integers(0, 40_000), ANYTHING), max_size=30))
def test_whatever_happens_the_rows_make_sense(offer: Description | None, events: list[tuple[int, Event]]) -> None:
    call = placed(offer)
    rows: list[Row] = []
    feed(call, *(Tried(T, branch) for branch in range(3)))
    at = T
    for pause, event in [*events, (1, Ended(0, SERVER, "operator"))]:
        at += pause
        rows += call.handle(event if isinstance(event, Located) else replace(event, at=at))
    (end,) = of(CallEnded, rows)
    assert call.state == machine.ENDED
    assert (end.outcome == "answered") == (end.talk_ms is not None)
    assert end.video_ms is None or (end.talk_ms is not None and 0 <= end.video_ms <= end.talk_ms)
    numbers = [row.number for row in of(InsertEvent, rows)]
    assert len(numbers) == len(set(numbers))
    opened = {row.number for row in of(OpenMedia, rows)}
    assert len(opened) == len(of(OpenMedia, rows))
    dropped = max([row.before for row in of(DropMedia, rows)], default=0)
    closed = [row.number + more for row in of(CloseMedia, rows) for more in range(row.streams)]
    assert len(closed) == len(set(closed))
    assert opened - set(closed) <= set(range(dropped))
    # The device that the call was answered by is one and only one.
    state: dict[int, str | None] = {}
    for row in rows:
        if isinstance(row, InsertBranch | UpdateBranch):
            state[row.branch] = row.outcome
    assert list(state.values()).count("answered") == (end.outcome == "answered")


def test_an_end_that_lies_before_another_answer_is_none_of_that_dialog() -> None:
    # The caller is hanging up on the first one, and nothing was seen of the call since that answered.
    call = forked()
    feed(call, HangingUp(T + 2_120, "a"))
    ended = one(CallEnded, feed(call, Ended(T + 2_100, SERVER, "no_evidence", uncertainty_ms=90_000)))
    assert (ended.ended_at, ended.talk_ms) == (T + 2_100, 0)
