"""What is decided about a request, and what an operator decides about all of them: the values of ``route``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from sipserver.proxy.dialling import DialPlan
from sipserver.proxy.peers import Peer, PeerTable
from sipserver.proxy.privacy import NOBODY, Disclosure
from sipserver.proxy.rate import Meter, unlimited
from sipserver.proxy.session import NOTHING, SessionTimers, Timing
from sipserver.proxy.static_routes import Permissions, StaticRoutes
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri

FORWARD: Final = "forward"
"""``Plan.kind``: the request goes on to the targets."""
ANSWER: Final = "answer"
"""``Plan.kind``: this server is who was asked; it answers 200 with ``Plan.headers``."""
COLLECT: Final = "collect"
"""``Plan.kind``: a report of quality to this server (RFC 6035); ``Plan.caller`` sent it."""


class Unproven(SipError):
    """A request that claims to be inside a dialog, or to have come by here, and cannot prove it."""


class TooMany(SipError):
    """A request that may be sent again later: its sender, or the peer that it is for, has had as many as it may."""


@dataclass(slots=True)
class Settings:
    """What an operator decides about the proxy."""

    domains: frozenset[str]
    """The domains whose addresses are ours, canonical."""
    is_us: Callable[[str, int | None], bool]
    """Whether a host (no brackets) and port is one of our listeners."""
    max_forwards_default: int = 70
    """Written where a request has no Max-Forwards."""
    max_breadth: int = 60
    """Branches of one request that may be under way at a time, here and further on (RFC 5393 §5.3.3)."""
    inbound: str = "nobody"
    """Which strangers may reach subscribers: ``nobody``, ``peers`` or ``anyone``."""
    peers: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where strangers may come from when ``inbound`` is ``peers``."""
    outbound: bool = False
    """Whether subscribers may reach foreign domains through this server."""
    timer_c: float = 185.0
    """Seconds that a branch may ring (RFC 3261 §16.6 step 11)."""
    supported: tuple[str, ...] = ("path", "outbound", "gruu")
    """Option tags that this server understands, lower case."""
    max_targets: int = 30
    """Devices of one address that are tried."""
    size_limit: int = 1300
    """Bytes of a request above which UDP is left for a stream (RFC 3261 §18.1.1)."""
    failover_after: float = 5.0
    """Seconds without any response after which another way to the same target is tried, where there is one."""
    redirects: int = 0
    """Contacts of 3xx answers that are followed for one request; 0 passes 3xx on."""
    linger: float = 32.0
    """Seconds, 64*T1: how long 2xx are passed on, and how long a cancelled branch may take to end."""
    trying_after: float = 3.5
    """Seconds without an answer after which a request other than INVITE is answered 100 (RFC 4320 §4.1)."""
    sessions: SessionTimers = field(default_factory=SessionTimers)
    """What is asked for in requests that begin or refresh a session."""
    named: PeerTable = field(default_factory=PeerTable)
    """Peers that have a name, and rights of their own."""
    static: StaticRoutes = field(default_factory=StaticRoutes)
    """Where requests for foreign domains and numbers go, before DNS is asked."""
    permissions: Permissions = field(default_factory=Permissions)
    """Where single subscribers may send to, where ``outbound`` does not let all of them send anywhere."""
    dial_plan: DialPlan = field(default_factory=DialPlan)
    """Which addresses stand for others."""
    calls: Meter = field(default_factory=unlimited)
    """How many calls a subscriber may place."""
    requests: Meter = field(default_factory=unlimited)
    """How many requests outside of dialogs a subscriber may send."""
    asserted: str = NOBODY
    """Who is told the address that a caller has proved to have (RFC 3325): NOBODY, PEERS or ENDPOINTS."""


@dataclass(slots=True, eq=False)
class Target:
    """One place to send a request to; the defaults are those of a URI that nobody registered."""

    uri_text: str
    """The contact, as it was registered."""
    q: int = 1000
    """Preference in thousandths."""
    path: tuple[str, ...] = ()
    """The Path that its REGISTER came by (RFC 3327), nearest proxy first."""
    user_agent: str | None = None
    transport: str = ""
    """Where its REGISTER came from: transport, host, port."""
    host: str = ""
    port: int = 0
    connection: int = 0
    """Number of the connection that its REGISTER came over, 0 for none."""
    instance: str | None = None
    """Its +sip.instance."""
    aor: str = ""
    """The address of record that it was registered for."""
    alternates: tuple[Target, ...] = ()
    """Other ways to the same device, to be taken one after the other where this one fails (RFC 5626 §5.1)."""
    reg_id: int | None = None
    """Which of its device's flows it is (RFC 5626 §4.2)."""
    local: str = ""
    """This server's side of the flow that its REGISTER came over."""
    flow_only: bool = False
    """Whether that flow is the only way to it (RFC 5626 §7)."""
    hop: Uri | None = None
    """Where requests to it are sent, where the operator has said so; None where its URI says it."""
    peer: Peer | None = None
    """The named peer that it is."""


@dataclass(slots=True, eq=False)
class Plan:
    """What ``admit`` decided."""

    uri_text: str
    """The Request-URI, after §16.4."""
    max_forwards: int
    """The value to forward."""
    breadth: int
    """The Max-Breadth that all branches share."""
    loop: str
    """The second part of the branch (RFC 5393 §4.2.1)."""
    kind: str = FORWARD
    groups: list[list[Target]] = field(default_factory=list)
    """Targets by falling preference; those of one group are tried at once."""
    located: bool = False
    """Whether the targets are registered contacts."""
    routes: list[str] = field(default_factory=list)
    """Route values that are left, as written."""
    dialog: tuple[str, str] | None = None
    """Key of the call and the side that sent this, for a request inside a dialog."""
    caller: str | None = None
    """The address that proved to be the sender's."""
    callee: str | None = None
    """The address that was asked for."""
    record_route: bool = False
    """Whether this server stays on the path of what this request begins."""
    dropped: tuple[int, ...] = ()
    """Positions of lines that end here: credentials meant for us."""
    headers: tuple[str, ...] = ()
    """Header lines of the answer, where ``kind`` is ANSWER."""
    token: str = ""
    """The token in our Record-Route; minted with the first branch."""
    lines: list[str] | None = None
    """The header lines that all branches share; made with the first branch."""
    breadth_at: int = 0
    """Where Max-Breadth stands in ``lines``."""
    secure: bool = False
    """Whether it was asked for by SIPS (``proxy.secure``)."""
    trusted: bool = False
    """Whether the sender belongs to the trust domain (RFC 3325)."""
    disclosure: Disclosure | None = None
    """What is told of who asks; None for what is told of everybody: nothing."""
    timing: Timing = NOTHING
    """What is asked for of the session that this request begins or refreshes."""
    pinned: bool = False
    """Whether its sender is reached over UDP by the flow that it came over alone."""
    flow_token: str = ""
    """What our Record-Route says of such flows, for a request inside a dialog (``proxy.ways``)."""
    gruu: Uri | None = None
    """The GRUU of ours that a request inside a dialog names."""


@dataclass(slots=True, eq=False)
class Examined:
    """What the request alone tells."""

    plan: Plan
    uri: Uri
    """The Request-URI to work with, after §16.4."""
    proof: tuple[str, str] | None
    """The call and side that a minted route proved."""
    last_hop: bool
    """Whether Max-Forwards lets the request go no further."""
    peer: Peer | None = None
    """The named peer that sent it."""
    domain: str | None = None
    """The domain of ours whose credentials its sender has to have; None for a stranger."""


@dataclass(slots=True)
class NeedTargets(Effect):
    """Where is this address now? Answered with a tuple of Targets, the newest first; an empty one where it is
    known and nowhere; None where there is no such address."""

    aor: str


@dataclass(slots=True)
class CallPlaced(Effect):
    """A call begins; whatever becomes of it is part of its record. Answered with None.

    ``caller`` is who proved to be calling, or is vouched for; both are None for a stranger who is turned away.
    """

    caller: str | None
    callee: str | None
    leads_on: bool = False
    """Whether ``callee`` is an address of somebody though no subscriber has it."""


@dataclass(slots=True)
class NeedRoom(Effect):
    """May this peer have one more call? Answered with a bool; where it may, the call that was placed is its call."""

    peer: Peer
