"""Offer and answer, and which streams a call had when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls import media
from sipserver.calls.media import MediaBook, agree, covered, shows_video
from sipserver.calls.negotiation import Agreement
from sipserver.calls.rows import Agreed, CloseMedia, DropMedia, OpenMedia, Row
from sipserver.sip import sdp
from sipserver.sip.sdp import Description
from support.sdp import AUDIO, NO_VIDEO, SLIDES, VIDEO, description

SECURE = "m=audio 1 RTP/SAVP 0"


def change(book: MediaBook, at: int, offer: Description, answer: Description, by_caller: bool = True) -> list[Row]:
    return book.change("id", at, Agreement(offer, answer, by_caller), 0)


def test_agreed_stream_has_what_the_answer_says_and_else_the_offer() -> None:
    offer = description(VIDEO)
    answer = description("m=video 1 RTP/AVP 97\na=rtpmap:97 H264/90000\na=sendonly")
    (found,) = agree(offer, answer, offered_by_caller=True)
    assert found == Agreed(
        0, "video", 1, "H264", "recvonly", 1_024_000, None, "3.1", 921_600, 0, 0, "constrained baseline"
    )


def test_answers_bandwidth_is_preferred_even_when_it_is_zero() -> None:
    answer = description("m=video 1 RTP/AVP 97\nb=AS:0")
    assert agree(description(VIDEO), answer, offered_by_caller=True)[0].bandwidth == 0


def test_stream_that_the_answer_refuses_says_nothing_more() -> None:
    found = agree(description(AUDIO, VIDEO), description(AUDIO, NO_VIDEO), offered_by_caller=True)
    assert found[1] == Agreed(1, "video", 0)


def test_stream_that_the_answer_leaves_out_is_refused() -> None:
    assert agree(description(AUDIO, VIDEO), description(AUDIO), offered_by_caller=True)[1] == Agreed(1, "video", 0)


def test_stream_that_was_not_offered_is_none() -> None:
    assert len(agree(description(AUDIO), description(AUDIO, VIDEO), offered_by_caller=True)) == 1


def test_slides_need_to_be_marked_on_one_side_only() -> None:
    unmarked = SLIDES.replace("\na=content:slides", "")
    for offer, answer in ((SLIDES, unmarked), (unmarked, SLIDES)):
        assert agree(description(offer), description(answer), offered_by_caller=True)[0].kind == "content"


def test_encrypted_takes_both() -> None:
    keyed = f"{AUDIO}\na=crypto:1 x"
    assert agree(description(keyed), description(keyed), offered_by_caller=True)[0].encrypted == 1
    assert agree(description(keyed), description(AUDIO), offered_by_caller=True)[0].encrypted == 0


@pytest.mark.parametrize(
    ("kind", "accepted", "direction", "shows"),
    [
        ("video", 1, "sendrecv", True),
        ("video", 1, "recvonly", True),
        ("video", 1, "inactive", False),
        ("video", 0, None, False),
        ("audio", 1, "sendrecv", False),
        ("content", 1, "sendrecv", False),
    ],
)
def test_what_counts_as_video(kind: str, accepted: int, direction: str | None, shows: bool) -> None:
    assert shows_video(kind, accepted, direction) == shows


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_overlapping_spans_count_once(spans: list[tuple[int, int]]) -> None:
    assert covered(spans) == len({moment for start, end in spans for moment in range(start, end)})


def test_flags_are_unknown_before_anything_is_agreed() -> None:
    book = MediaBook()
    assert (book.video, book.content, book.encrypted, book.video_ms) == (None, None, None, None)


def test_flags_remember_what_there_was() -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO, SLIDES)
    change(book, 0, both, both)
    change(book, 1_000, description(AUDIO), description(AUDIO))
    assert (book.video, book.content, book.encrypted, book.video_ms) == (1, 1, 0, 1_000)


def test_one_stream_in_the_clear_makes_the_call_so() -> None:
    book = MediaBook()
    secure = description(SECURE)
    change(book, 0, secure, secure)
    assert book.encrypted == 1
    mixed = description(SECURE, VIDEO)
    change(book, 1, mixed, mixed)
    assert book.encrypted == 0


def test_a_data_channel_says_nothing_of_encryption() -> None:
    book = MediaBook()
    data = description("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
    change(book, 0, data, data)
    assert (book.video, book.encrypted) == (0, None)


def test_only_what_changes_is_closed_and_opened() -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO)
    assert len(change(book, 0, both, both)) == 2
    assert change(book, 5, both, both) == []
    held = description(AUDIO, f"{VIDEO}\na=inactive")
    closed, opened = change(book, 9, held, held)
    assert closed == CloseMedia("id", 2, 9)
    assert isinstance(opened, OpenMedia)
    assert (opened.number, opened.stream.direction, opened.from_at) == (3, "inactive", 9)


def test_time_on_hold_has_no_video() -> None:
    book = MediaBook()
    live, held = description(VIDEO), description(f"{VIDEO}\na=inactive")
    change(book, 0, live, live)
    change(book, 10_000, held, held)
    change(book, 40_000, live, live)
    book.close("id", 45_000)
    assert book.video_ms == 15_000


@pytest.mark.parametrize("unreadable_side", [0, 1])
def test_what_cannot_be_read_makes_the_media_unknown(unreadable_side: int) -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO)
    change(book, 0, both, both)
    sides = [both, both]
    sides[unreadable_side] = sdp.UNREADABLE
    assert change(book, 9, sides[0], sides[1]) == [CloseMedia("id", 1, 9, streams=2)]
    assert (book.video, book.video_ms) == (1, None)


# hold


def said(direction: str, kind: str = "audio") -> Description:
    return description(f"m={kind} 1 RTP/AVP 0\na={direction}")


@pytest.mark.parametrize(
    ("exchanges", "held_by", "direction"),
    [
        ([("caller", "sendonly", "recvonly")], "caller", "sendonly"),
        ([("callee", "sendonly", "recvonly")], "callee", "recvonly"),
        ([("caller", "inactive", "inactive")], "caller", "inactive"),
        ([("callee", "inactive", "inactive")], "callee", "inactive"),
        # An answer can hold as well.
        ([("caller", "sendrecv", "sendonly")], "callee", "recvonly"),
        ([("caller", "sendonly", "inactive")], "both", "inactive"),
        # Held by one side, then by the other too; each resumes on its own.
        ([("caller", "sendonly", "recvonly"), ("callee", "inactive", "inactive")], "both", "inactive"),
        ([("caller", "sendonly", "recvonly"), ("callee", "recvonly", "sendonly")], "caller", "sendonly"),
        ([("caller", "sendonly", "recvonly"), ("callee", "inactive", "inactive"),
          ("caller", "recvonly", "sendonly")], "callee", "recvonly"),
        ([("caller", "sendonly", "recvonly"), ("caller", "sendrecv", "sendrecv")], None, "sendrecv"),
        # A refresh that says the same again.
        ([("caller", "sendonly", "recvonly"), ("caller", "sendonly", "recvonly")], "caller", "sendonly"),
        # Who only takes what it is sent holds nothing.
        ([("caller", "recvonly", "sendonly")], None, "recvonly"),
        ([("caller", "recvonly", "sendonly"), ("callee", "sendonly", "recvonly")], None, "recvonly"),
    ],
)  # fmt: skip
def test_who_holds(exchanges: list[tuple[str, str, str]], held_by: str | None, direction: str) -> None:
    book = MediaBook()
    change(book, 0, said("sendrecv"), said("sendrecv"))
    found = None
    for at, (side, offer, answer) in enumerate(exchanges, start=1):
        for row in change(book, at, said(offer), said(answer), side == "caller"):
            if isinstance(row, OpenMedia):
                found = row.stream
    assert found is not None
    assert (found.held_by, found.direction) == (held_by, direction)


def test_stream_that_begins_one_way_is_not_on_hold() -> None:
    book = MediaBook()
    for at in (0, 1):
        rows = change(book, at, said("sendonly"), said("recvonly"))
        assert all(isinstance(row, OpenMedia) and row.stream.held_by is None for row in rows)


def test_slides_that_are_no_longer_shown_are_not_on_hold() -> None:
    book = MediaBook()
    shown = description(SLIDES)
    change(book, 0, shown, shown)
    rows = change(book, 1, description(f"{SLIDES}\na=inactive"), description(f"{SLIDES}\na=inactive"))
    assert [row.stream.held_by for row in rows if isinstance(row, OpenMedia)] == [None]


@pytest.mark.parametrize(
    ("offer", "answer", "caller_sees"),
    [
        ("sendonly", "sendrecv", "sendonly"), ("recvonly", "sendrecv", "recvonly"),
        ("sendrecv", "recvonly", "sendonly"), ("sendonly", "sendonly", "inactive"),
        ("inactive", "sendrecv", "inactive"),
    ],
)  # fmt: skip
def test_what_flows_is_what_one_side_sends_and_the_other_takes(offer: str, answer: str, caller_sees: str) -> None:
    assert agree(said(offer), said(answer), offered_by_caller=True)[0].direction == caller_sees


# other facts


def test_stream_that_the_offer_takes_out_of_use_is_none() -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO)
    change(book, 0, both, both)
    assert change(book, 9, description(AUDIO, NO_VIDEO), description(AUDIO, NO_VIDEO)) == [CloseMedia("id", 2, 9)]


def test_level_of_a_codec_that_was_not_chosen_does_not_count() -> None:
    answer = description("m=video 1 RTP/AVP 98\na=rtpmap:98 VP8/90000")
    (found,) = agree(description(VIDEO), answer, offered_by_caller=True)
    assert (found.codec, found.level, found.max_pixels, found.profile) == ("VP8", None, None, None)


def test_encryption_is_what_the_answer_chose() -> None:
    keyed = f"{AUDIO}\na=crypto:1 x"
    both = description(f"{keyed}\na=fingerprint:sha-256 00")
    assert agree(both, description(keyed), offered_by_caller=True)[0].encryption == "sdes"
    assert agree(both, both, offered_by_caller=True)[0].encryption == "dtls"
    assert agree(both, description(AUDIO), offered_by_caller=True)[0].encryption is None


# early media


def early(book: MediaBook, at: int, dialog: str, branch: int, offer: Description, answer: Description) -> list[Row]:
    return book.change_early("id", at, dialog, branch, Agreement(offer, answer, True))


def test_early_media_count_for_nothing() -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO)
    assert len(early(book, 0, "a", 0, both, both)) == 2
    assert early(book, 1, "a", 0, both, both) == []
    assert early(book, 5, "a", 0, sdp.UNREADABLE, both) == [CloseMedia("id", 1, 5), CloseMedia("id", 2, 5)]
    assert (book.video, book.video_ms) == (None, None)
    assert book.close("id", 9) == []


def test_early_media_are_bounded() -> None:
    book = MediaBook()
    voice = description(AUDIO)
    opened = [early(book, 0, f"d{number}", 0, voice, voice) for number in range(media.MAX_EARLY + 3)]
    assert [len(rows) for rows in opened] == [1] * media.MAX_EARLY + [0] * 3
    assert len(book.close("id", 9)) == media.MAX_EARLY


def test_what_is_dropped_is_forgotten() -> None:
    book = MediaBook()
    both = description(AUDIO, VIDEO)
    change(book, 0, both, both)
    change(book, 5, sdp.UNREADABLE, both)
    assert book.drop("id") == [DropMedia("id", 3)]
    assert (book.video, book.content, book.encrypted) == (None, None, None)
    change(book, 6, both, both)
    book.close("id", 10)
    assert book.video_ms == 4
