"""Offer and answer, and which streams a call had when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls.media import MediaBook, agree, covered, shows_video
from sipserver.calls.negotiation import Agreement
from sipserver.calls.rows import Agreed, CloseMedia, OpenMedia, Row
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
    assert change(book, 9, sides[0], sides[1]) == [CloseMedia("id", 1, 9), CloseMedia("id", 2, 9)]
    assert (book.video, book.video_ms) == (1, None)
