"""A call's machine by hand: events go in, and the rows that come out are picked over."""

from __future__ import annotations

from typing import TypeVar

from sipserver.calls.events import Answered, Event, Placed, Rang, Tried
from sipserver.calls.machine import Call
from sipserver.calls.rows import OpenMedia, Row
from sipserver.sip.sdp import Description
from support.sdp import AUDIO, NO_VIDEO, VIDEO, description

T = 1_000_000
BOTH = description(AUDIO, VIDEO)
VOICE = description(AUDIO, NO_VIDEO)

Kind = TypeVar("Kind")


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
