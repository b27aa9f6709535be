"""What the machine wants written: one small object for each row or change of one. Times are milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

from sipserver.calls.places import NOWHERE, Place


@dataclass(slots=True)
class Agreed:
    """One stream as both sides agreed on it. Two that are equal mean that nothing changed."""

    stream: int
    """Its place in the description, from 0."""
    kind: str
    """``audio``, ``video``, ``content`` or another kind of the ``m=`` line."""
    accepted: int
    """0 where the answer refused it, and then everything below is None."""
    codec: str | None = None
    direction: str | None = None
    """As the caller sees it: ``sendonly`` means that only the caller sends."""
    bandwidth: int | None = None
    """Bits a second that the answering side is ready to receive; what the offering side said where it is silent."""
    resolution: str | None = None
    level: str | None = None
    max_pixels: int | None = None
    encrypted: int | None = None
    ice: int | None = None
    profile: str | None = None
    encryption: str | None = None
    """``sdes``, ``dtls`` or ``tls``."""
    held_by: str | None = None
    """``caller``, ``callee`` or ``both``: who received this stream before and does not want to for now."""


@dataclass(slots=True)
class InsertCall:
    """The row of a call; it is there from the INVITE on."""

    id: str
    call_id: str
    caller: str | None
    callee: str | None
    started_at: int
    agent: str | None
    transport: str | None
    network: str | None
    offered_video: int | None
    place: Place = NOWHERE


@dataclass(slots=True)
class CallRang:
    """The first sign of a device."""

    id: str
    ringing_at: int
    setup_ms: int | None


@dataclass(slots=True)
class CallAnswered:
    """The first 2xx; once more with that of another device where the caller kept that one."""

    id: str
    answered_at: int
    status: int
    setup_ms: int | None
    ring_ms: int | None
    agent: str | None
    transport: str | None
    network: str | None
    devices: int
    video: int | None
    content: int | None
    encrypted: int | None
    place: Place = NOWHERE


@dataclass(slots=True)
class CallLocated:
    """Where the caller is, or the device that answered, has become known after its row was written.

    Also that of a device that was kept instead of the one that had answered first.
    """

    id: str
    is_caller: bool
    place: Place


@dataclass(slots=True)
class CallConfirmed:
    """The first ACK; None where the dialog that was kept has none yet."""

    id: str
    confirmed_at: int | None


@dataclass(slots=True)
class CallMedia:
    """The media of an answered call are not what they were."""

    id: str
    video: int | None
    content: int | None
    encrypted: int | None


@dataclass(slots=True)
class CallEnded:
    """The end of a call, answered or not."""

    id: str
    ended_at: int
    outcome: str
    status: int | None
    reason: str | None
    ended_by: str
    end_cause: str
    end_uncertainty_ms: int | None
    setup_ms: int | None
    ring_ms: int | None
    talk_ms: int | None
    video_ms: int | None
    devices: int
    watched_until: int | None = None
    disconnect_ms: int | None = None


@dataclass(slots=True)
class OpenBranch:
    """A device is tried; once more when it rings, where the call's ``ringing_at`` may be another device's."""

    id: str
    branch: int
    tried_at: int
    ringing_at: int | None
    agent: str | None
    transport: str | None
    network: str | None


@dataclass(slots=True)
class InsertBranch:
    """One device that was tried, when its part is over; again where one that had been given up answers."""

    id: str
    branch: int
    tried_at: int
    ringing_at: int | None
    answered_at: int | None
    ended_at: int | None
    status: int | None
    outcome: str | None
    agent: str | None
    transport: str | None
    network: str | None


@dataclass(slots=True)
class UpdateBranch:
    """A device that answered is not, or no longer, the call's; or it is now."""

    id: str
    branch: int
    outcome: str
    ended_at: int | None


@dataclass(slots=True)
class OpenMedia:
    """A stream as it is agreed from now on."""

    id: str
    number: int
    stream: Agreed
    from_at: int
    branch: int | None = None
    """The device it is agreed with."""
    early: int = 0
    """1: before the answer."""


@dataclass(slots=True)
class CloseMedia:
    """A stream is no longer what this row says, or those that were opened with it are not."""

    id: str
    number: int
    to_at: int
    streams: int = 1
    """How many rows that is, numbered in a row."""


@dataclass(slots=True)
class DropMedia:
    """What was agreed after the answer until now is not the call's: the caller did not keep that device."""

    id: str
    before: int
    """The rows of the call with smaller numbers go."""


@dataclass(slots=True)
class InsertEvent:
    """A line of the call's timeline."""

    id: str
    number: int
    at: int
    kind: str
    side: str | None = None
    status: int | None = None
    detail: str | None = None


Row = (
    CallRang
    | CallAnswered
    | CallLocated
    | CallConfirmed
    | CallMedia
    | CallEnded
    | OpenBranch
    | InsertBranch
    | UpdateBranch
    | OpenMedia
    | CloseMedia
    | DropMedia
    | InsertEvent
)
