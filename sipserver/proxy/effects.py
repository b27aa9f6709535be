"""What a response context asks for, and what it tells of calls: the effects of ``fork``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.proxy.plan import Target
from sipserver.proxy.redirect import Contact
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import Effect
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request
from sipserver.sip.uri import Uri

TRIED: Final = "tried"
"""The INVITE goes to a device, or cannot: then there is no ``flow``."""
RANG: Final = "rang"
"""A device sent 18x; once for each status and tag in a row, and whenever there is a body."""
ANSWERED: Final = "answered"
"""A device sent a 2xx; once for each tag in a row."""
BRANCH_FAILED: Final = "branch_failed"
"""A device refused or was not reached."""
FAILED: Final = "failed"
"""The caller is told a final response that is no 2xx; ``message`` is None where this server made it."""
CANCELLED: Final = "cancelled"
"""The caller gave up; ``message`` is the CANCEL."""
CHANGED: Final = "changed"
"""A re-INVITE, UPDATE or PRACK was accepted: ``request`` and ``message``."""
PROGRESSED: Final = "progressed"
"""An 18x with a body to a re-INVITE: ``request`` and ``message``."""
REFERRED: Final = "referred"
"""The same of a REFER."""
RETARGETED: Final = "retargeted"
"""The same of another request that names its sender's target anew (RFC 6665 §4.4.1)."""
ENDED: Final = "ended"
"""A BYE was accepted, or nobody is left who has the dialog; ``side`` sent it."""

TRYING: Final = "trying"
"""Timer of the whole context: a request other than INVITE has waited long enough for a 100."""
CANCELLING: Final = "cancelling"
"""Timer of a branch: its CANCEL should have ended it by now (RFC 3261 §9.1)."""
LINGER: Final = "linger"
"""Timer of a branch: no more 2xx are passed on."""
FAILOVER: Final = "failover"
"""Timer of a branch: there is another way, and nothing was heard on this one for long enough."""


@dataclass(slots=True)
class NeedFlow(Effect):
    """How is this next hop reached? Answered by ``on_flow`` or ``on_no_flow``, at once or later."""

    branch: int
    uri: Uri
    target: Target | None
    """The registered contact, None where the URI is all there is."""
    dialog: tuple[str, str] | None
    """Call key and the side to be reached, for ``DialogTable.flow_for``; None outside of a dialog."""
    reliable: bool
    """A stream is wanted, since the request is too large for a datagram."""
    after: int = -1
    """The branch that failed at one of this next hop's places: the next of them is wanted (RFC 3263 §4.3)."""


@dataclass(slots=True)
class Forward(Effect):
    """Send this request with a client transaction of its own."""

    branch: int
    request: OutgoingRequest
    flow: Flow


@dataclass(slots=True)
class Abandon(Effect):
    """Nothing was heard on this branch, and another takes its place: send its request no more."""

    branch: int
    request: OutgoingRequest
    flow: Flow
    target: Target


@dataclass(slots=True)
class NeedContacts(Effect):
    """Where are these, which a 3xx named? Answered by ``on_contacts`` with the bindings of each address of ours."""

    branch: int
    contacts: list[Contact]


@dataclass(slots=True)
class CancelBranch(Effect):
    """Send this CANCEL with a client transaction whose outcome does not matter."""

    branch: int
    request: OutgoingRequest
    flow: Flow


@dataclass(slots=True)
class Reply(Effect):
    """Answer the request. A ``durable`` answer waits until the event before it is on disk."""

    status: int
    data: bytes
    durable: bool


@dataclass(slots=True)
class SetBranchTimer(Effect):
    """Call ``on_timer(branch, timer)`` after so many seconds."""

    branch: int
    timer: str
    after: float


@dataclass(slots=True)
class Learn(Effect):
    """Call ``DialogTable.learn`` with these."""

    key: str
    side: str
    flow: Flow
    hop: str


@dataclass(slots=True)
class CallEvent(Effect):
    """Something to be written down. Only what concerns calls makes events."""

    kind: str
    branch: int = -1
    """The branch it happened on, -1 for the call as a whole."""
    message: Message | None = None
    side: str | None = None
    """Who sent the request, for CHANGED and ENDED."""
    status: int = 0
    cause: str | None = None
    """TIMED_OUT or UNREACHABLE where no response told the status."""
    request: Request | None = None
    """The request that was accepted, for CHANGED and ENDED."""
    target: Target | None = None
    """The device, for TRIED, RANG and ANSWERED."""
    flow: Flow | None = None
    """Over which the branch goes."""
    heard: bool = False
    """For BRANCH_FAILED: a CANCEL was sent, so the device had sent a provisional response, if only 100 (§9.1)."""
    followed: bool = False
    """For BRANCH_FAILED: it was redirected, and others are tried in its place."""


@dataclass(slots=True)
class Done(Effect):
    """Nothing more will come: forget the context."""
