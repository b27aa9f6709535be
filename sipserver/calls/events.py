"""What can happen to a call, as plain values: the language between the proxy's side and the record.

Every ``at`` is UNIX time in integer milliseconds. Durations are differences of these, so all events of one call are
told by the clock as it was set when the call was placed: a wall clock read once and a monotonic one from then on.

People appear as party ids only. A branch is the proxy's number for one device that was tried. A ``tag`` is the
callee's tag, which tells the dialogs of one call apart (RFC 3261 §12); None stands for the only one. ``number`` is the
CSeq number of the request that a message belongs to, 0 where nobody says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.calls.places import NOWHERE, Place
from sipserver.sip.sdp import Description

CALLER: Final = "caller"
CALLEE: Final = "callee"
SERVER: Final = "server"


@dataclass(slots=True)
class Placed:
    """An INVITE was accepted from a caller, before any device is tried: the first event of every call."""

    at: int
    key: str
    """The proxy's name for the call; the events that follow are handed over under it."""
    call_id: str
    """The SIP Call-ID as received; only a keyed hash of it is stored."""
    caller: str | None = None
    """Party id; None for a caller who is not authenticated."""
    callee: str | None = None
    """Party id; None for an address that is not ours."""
    agent: str | None = None
    transport: str | None = None
    """``UDP``, ``TCP``, …: how the INVITE came."""
    network: str | None = None
    """The network prefix it came from."""
    offer: Description | None = None
    """None where the INVITE carried no description."""
    tag: str | None = None
    """The caller's own."""
    number: int = 0
    place: Place = NOWHERE
    """Where the caller is."""


@dataclass(slots=True)
class Tried:
    """The INVITE was sent to a device."""

    at: int
    branch: int
    transport: str | None = None
    network: str | None = None
    agent: str | None = None
    """What the device said it is when it registered."""
    place: Place = NOWHERE
    """Where the device is."""


@dataclass(slots=True)
class Located:
    """Where the caller or a device is has become known only now."""

    place: Place
    branch: int | None = None
    """None for the caller."""


@dataclass(slots=True)
class Rang:
    """A device sent a provisional response other than 100."""

    at: int
    branch: int
    agent: str | None = None
    answer: Description | None = None
    """An answer may come early, and the 200 then has none (RFC 3262 §5)."""
    tag: str | None = None
    reliable: bool = False
    """It is acknowledged by PRACK (RFC 3262), so it may also carry an offer."""


@dataclass(slots=True)
class Answered:
    """A device sent a 2xx; once for each dialog that it makes."""

    at: int
    branch: int
    status: int = 200
    agent: str | None = None
    answer: Description | None = None
    """The answer, or the offer where the INVITE had none (RFC 3264 §5)."""
    tag: str | None = None


@dataclass(slots=True)
class Confirmed:
    """An ACK of a 2xx passed, of a re-INVITE's too."""

    at: int
    answer: Description | None = None
    tag: str | None = None
    side: str = CALLER
    number: int = 0


@dataclass(slots=True)
class BranchFailed:
    """A device refused with a final response, or never sent one."""

    at: int
    branch: int
    status: int
    cause: str | None = None
    """``timeout`` or ``transport`` where no final response came (``sip.effects``); None where one did."""
    agent: str | None = None
    heard: bool = False
    """It had sent a provisional response, if only 100: so it was reached."""
    followed: bool = False
    """It sent a 3xx, and others are tried in its place."""


@dataclass(slots=True)
class Failed:
    """The caller was sent a final response other than 2xx."""

    at: int
    status: int
    by: str
    """Whose response it was: CALLEE where a device's was passed on, SERVER where this server made it."""
    reason: str | None = None


@dataclass(slots=True)
class Cancelled:
    """The caller gave up (CANCEL); the final response follows as Failed, or as Answered where that was faster."""

    at: int
    reason: str | None = None


@dataclass(slots=True)
class Changed:
    """A re-INVITE, UPDATE or PRACK within the call was accepted; without descriptions it is a sign of life only."""

    at: int
    side: str
    """Who sent the request: CALLER or CALLEE."""
    offer: Description | None = None
    answer: Description | None = None
    """The answer; or the offer of the other side, where the request had none and the ACK brings the answer."""
    tag: str | None = None
    method: str = "INVITE"
    number: int = 0


@dataclass(slots=True)
class Progressed:
    """An 18x to a re-INVITE carries a description; nothing is accepted yet."""

    at: int
    side: str
    """Who sent the re-INVITE."""
    offer: Description | None
    answer: Description
    tag: str | None = None
    number: int = 0
    reliable: bool = False


@dataclass(slots=True)
class Referred:
    """A REFER within the call was accepted: one side shall call somebody else (RFC 3515)."""

    at: int
    side: str
    """Who sent the REFER."""
    attended: bool = False
    """Whether the new call is to replace another one (RFC 3891)."""


@dataclass(slots=True)
class Ended:
    """A BYE was accepted, or something else says that the call is over."""

    at: int
    side: str
    """Who ended it: CALLER, CALLEE or SERVER."""
    cause: str = "bye"
    """``bye``, ``session_expired``, ``connection_lost``, ``media_lost``, ``operator``, …"""
    reason: str | None = None
    uncertainty_ms: int | None = None
    """How long after ``at`` the call may really have ended; None where the end was observed. Of a BYE that nobody
    answered ``at`` is when it came, and this is how long it was waited for."""
    watched_until: int | None = None
    """Until when its end would have been seen, where it was not observed and this is known."""
    tag: str | None = None
    """Of the dialog that ended; None for the call as a whole."""
    asked_at: int = 0
    """When the BYE came; 0 where nobody says, which is taken for ``at``."""


@dataclass(slots=True)
class HangingUp:
    """A BYE of the caller for one of several dialogs has come, and is not answered yet."""

    at: int
    tag: str | None


@dataclass(slots=True)
class Seen:
    """Both sides have shown since the last event that the call is up."""

    at: int


@dataclass(slots=True)
class ClockStepped:
    """The machine's clock was set while the call went on; the times of the call go on as if it had not been."""

    at: int
    by_ms: int
    """How far it was set forward; negative for back."""


Event = (
    Tried
    | Located
    | Rang
    | Answered
    | Confirmed
    | BranchFailed
    | Failed
    | Cancelled
    | Changed
    | Progressed
    | Referred
    | Seen
    | ClockStepped
    | HangingUp
    | Ended
)
"""What follows Placed."""
