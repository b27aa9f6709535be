"""Once no other device can answer, a call keeps less, and its record says the same."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls.events import CALLEE, CALLER, Answered, Changed, Confirmed, Ended, Event, Rang, Tried
from sipserver.calls.machine import Call
from sipserver.calls.media import MAX_REMEMBERED, MediaBook, _stream, _together
from sipserver.calls.negotiation import Agreement
from sipserver.calls.rows import CallEnded, OpenMedia
from sipserver.sip.sdp import Description
from support.machine import (
    ANYTHING,
    BOTH,
    VOICE,
    T,
    answered,
    feed,
    of,
    one,
    placed,
)


def at(when: int, event: Event) -> Event:
    """The event at this time, where it has one."""
    if hasattr(event, "at"):
        event.at = when
    return event


@given(st.lists(ANYTHING, max_size=6), st.lists(ANYTHING, max_size=8), st.booleans())
def test_record_of_a_settled_call_is_that_of_one_that_remembers(
    before: list[Event], after: list[Event], forked: bool
) -> None:
    calls = placed(), placed()
    start: list[Event] = [Tried(T + 5, 0), Rang(T + 100, 0, tag="a"), Answered(T + 2_100, 0, answer=BOTH, tag="a")]
    if forked:
        start.append(Answered(T + 2_200, 0, answer=VOICE, tag="b"))
    for number, event in enumerate(before):
        start.append(at(T + 2_300 + number * 100, event))
    for call in calls:
        feed(call, *start)
    calls[0].settle()
    for number, event in enumerate(after):
        # Those that only the INVITE's own transaction can bring are over by then.
        if not isinstance(event, Rang | Answered | Tried):
            at(T + 40_000 + number * 7_000, event)
            assert calls[0].handle(event) == calls[1].handle(event)
            assert calls[0].agreed_at == calls[1].agreed_at


def kept(call: Call) -> tuple[object, object]:
    """What a call still remembers of its offers and answers."""
    dialog = call._dialogs.kept
    assert dialog is not None
    return dialog.agreements, dialog._negotiation


def test_settled_call_remembers_no_offers_and_answers_not_even_of_refreshes() -> None:
    call = answered()
    feed(call, Confirmed(T + 2_300))
    assert kept(call)[1] is not None
    call.settle()
    assert kept(call) == ((), None)
    for number in range(3):
        feed(call, Changed(T + 90_000 + number, CALLER, BOTH, BOTH, number=7 + number))
        assert kept(call) == ((), None)
    assert call.agreed_at == T + 90_002
    rows = feed(call, Ended(T + 99_000, CALLER))
    assert one(CallEnded, rows).video_ms == 96_900


def test_settled_call_waits_for_the_answer_that_the_ack_of_a_refresh_brings() -> None:
    call = answered(BOTH, BOTH)
    call.settle()
    feed(call, Changed(T + 90_000, CALLEE, None, BOTH, number=7))
    assert kept(call)[1] is not None, "the 2xx offered"
    rows = feed(call, Confirmed(T + 90_100, VOICE, side=CALLEE, number=7))
    assert [row.stream.accepted for row in of(OpenMedia, rows)] == [0]
    assert kept(call) == ((), None)


def test_call_with_several_dialogs_remembers_all_that_tells_which_was_kept() -> None:
    call = placed()
    feed(call, Tried(T + 5, 0), Answered(T + 100, 0, answer=BOTH, tag="a"), Answered(T + 200, 0, answer=VOICE, tag="b"))
    before = kept(call)
    call.settle()
    assert kept(call) == before
    assert before[0] != ()


def streams(book: MediaBook) -> list[object]:
    """The open streams of a call."""
    return [entry[1] for entry in book._open()]


def test_streams_that_calls_agree_on_alike_are_one_object() -> None:
    books = [MediaBook(), MediaBook()]
    for number, book in enumerate(books):
        book.change(f"c{number}", T + number, Agreement(described(), described(), by_caller=True))
    assert len(streams(books[0])) == 2
    assert books[0]._streams is books[1]._streams
    assert [entry[0] for entry in books[1]._open()] == [1, 2]
    assert {entry[2] for entry in books[1]._open()} == {T + 1}


def described() -> Description:
    """The same streams, each time as other objects."""
    return Description(tuple([replace(stream) for stream in BOTH.streams]))


def test_what_is_remembered_of_all_calls_is_bounded() -> None:
    for number in range(MAX_REMEMBERED + 10):
        offer = Description((replace(BOTH.streams[0], bandwidth=number), BOTH.streams[1]))
        MediaBook().change("c", T, Agreement(offer, offer, by_caller=True))
        assert len(_together) <= MAX_REMEMBERED
    assert _stream.cache_info().currsize <= MAX_REMEMBERED
