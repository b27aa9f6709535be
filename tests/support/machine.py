"""A call's machine by hand: events go in, and the rows that come out are picked over."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    ClockStepped,
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
    Seen,
    Tried,
)
from sipserver.calls.machine import Call
from sipserver.calls.places import Place
from sipserver.calls.rows import OpenMedia, Row
from sipserver.sip.sdp import UNREADABLE, Description
from support.sdp import AUDIO, NO_VIDEO, VIDEO, description

T = 1_000_000
BOTH = description(AUDIO, VIDEO)
VOICE = description(AUDIO, NO_VIDEO)

Kind = TypeVar("Kind")

TAGS = st.sampled_from([None, "a", "b", "c"])
SIDES = st.sampled_from([CALLER, CALLEE, SERVER])
BRANCHES = st.integers(0, 2)
STATUSES = st.sampled_from([404, 408, 486, 487, 603])
SAID = st.sampled_from([None, BOTH, VOICE, UNREADABLE])
METHODS = st.sampled_from(["INVITE", "UPDATE", "PRACK"])
NUMBERS = st.integers(0, 3)
ANYTHING = st.one_of(
    st.builds(Rang, st.just(0), BRANCHES, answer=SAID, tag=TAGS, reliable=st.booleans()),
    st.builds(Answered, st.just(0), BRANCHES, answer=SAID, tag=TAGS),
    st.builds(Confirmed, st.just(0), SAID, TAGS, SIDES, NUMBERS),
    st.builds(BranchFailed, st.just(0), BRANCHES, STATUSES),
    st.builds(Failed, st.just(0), STATUSES, SIDES),
    st.builds(Cancelled, st.just(0)),
    st.builds(Changed, st.just(0), SIDES, SAID, SAID, TAGS, METHODS, NUMBERS),
    st.builds(Progressed, st.just(0), SIDES, SAID, st.sampled_from([BOTH, VOICE]), TAGS, NUMBERS, st.booleans()),
    st.builds(Referred, st.just(0), SIDES),
    st.builds(Ended, st.just(0), SIDES, tag=TAGS),
    st.builds(HangingUp, st.just(0), TAGS),
    st.builds(Seen, st.just(0)),
    st.builds(ClockStepped, st.just(0), st.sampled_from([-3_600_000, 3_600_000])),
    st.builds(Located, st.just(Place("AT")), st.sampled_from([None, 0, 1, 2])),
)
"""Any event, whose time is to be put in."""


def placed(offer: Description | None = BOTH) -> Call:
    """A call to which alice was let in."""
    call = Call("id", Placed(T, "key", "abc@host", "p1", "p2", "baresip", "UDP", "192.0.2.0/24", offer))
    call.start()
    return call


def feed(call: Call, *events: Event) -> list[Row]:
    """The rows that the last of these events made."""
    rows: list[Row] = []
    for event in events:
        rows = call.handle(event)
    return rows


def of(kind: type[Kind], rows: list[Row]) -> list[Kind]:
    """The rows of one kind."""
    return [row for row in rows if isinstance(row, kind)]


def one(kind: type[Kind], rows: list[Row]) -> Kind:
    """The only row of one kind."""
    (row,) = of(kind, rows)
    return row


def ringing(offer: Description | None = BOTH) -> Call:
    """The same, and a device of the callee rings."""
    call = placed(offer)
    feed(call, Tried(T + 5, 0, "TCP", "198.51.100.0/24"), Rang(T + 100, 0, "phone"))
    return call


def answered(offer: Description | None = BOTH, answer: Description | None = BOTH) -> Call:
    """The same, and that device has answered."""
    call = ringing(offer)
    feed(call, Answered(T + 2_100, 0, 200, "phone", answer))
    return call


def kinds(rows: list[Row]) -> list[tuple[str, int]]:
    """Which streams open: kind, and whether it was accepted."""
    return [(row.stream.kind, row.stream.accepted) for row in of(OpenMedia, rows)]
