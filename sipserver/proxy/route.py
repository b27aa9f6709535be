"""Whether a request is let through, and to whom: RFC 3261 §16.3 to §16.5, read top to bottom in ``admit``.

``admit`` is a generator: it yields what it has to know (whose credentials, which targets), takes the
answer by ``send``, raises SipError for a refusal and returns the plan.

Nobody is believed who has not proved something. A request inside a dialog proves itself by the route
that this server minted for that dialog; one that claims an address of ours by its credentials;
everybody else is a stranger, and what strangers are told does not depend on whom they ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from sipserver.proxy.record_route import ROUTE_PARAM, Minter
from sipserver.proxy.session import NOTHING, SessionTimers, Timing
from sipserver.sip import names
from sipserver.sip.digest import AuthenticationRequired, Authenticator, parse_parameters
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.quality import EVENT as QUALITY_EVENT
from sipserver.sip.quality import MEDIA_TYPE as QUALITY_TYPE
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

FORWARD: Final = "forward"
"""``Plan.kind``: the request goes on to the targets."""
ANSWER: Final = "answer"
"""``Plan.kind``: this server is who was asked; it answers 200 with ``Plan.headers``."""
COLLECT: Final = "collect"
"""``Plan.kind``: a report of quality to this server (RFC 6035); ``Plan.caller`` sent it."""


class Unproven(SipError):
    """A request that claims to be inside a dialog, or to have come by here, and cannot prove it."""


ALLOW: Final = "Allow: NOTIFY, OPTIONS, PUBLISH, REGISTER"
"""What this server itself does, as opposed to what it passes on."""

_KNOWN_METHODS: Final = frozenset(
    ("INVITE", "BYE", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "INFO", "UPDATE", "REFER", "PRACK", "REGISTER")
)
# RFC 3261 §16.6 step 4: a method that is not known may form a dialog, so only these go without Record-Route.
_NO_DIALOG: Final = frozenset(("ACK", "CANCEL", "BYE", "OPTIONS", "MESSAGE", "PUBLISH", "INFO", "PRACK"))
_REPORTING: Final = frozenset(("PUBLISH", "NOTIFY"))
_LOOP_HEADERS: Final = frozenset((names.ROUTE, names.PROXY_REQUIRE, names.PROXY_AUTHORIZATION))


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
    supported: tuple[str, ...] = ("path",)
    """Option tags that this server understands, lower case."""
    max_targets: int = 30
    """Devices of one address that are tried."""
    size_limit: int = 1300
    """Bytes of a request above which UDP is left for a stream (RFC 3261 §18.1.1)."""
    linger: float = 32.0
    """Seconds, 64*T1: how long 2xx are passed on, and how long a cancelled branch may take to end."""
    trying_after: float = 3.5
    """Seconds without an answer after which a request other than INVITE is answered 100 (RFC 4320 §4.1)."""
    sessions: SessionTimers = field(default_factory=SessionTimers)
    """What is asked for in requests that begin or refresh a session."""


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
    timing: Timing = NOTHING
    """What is asked for of the session that this request begins or refreshes."""


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


@dataclass(slots=True)
class NeedTargets(Effect):
    """Where is this address now? Answered with a tuple of Targets, the newest first; an empty one where it is
    known and nowhere; None where there is no such address."""

    aor: str


@dataclass(slots=True)
class CallPlaced(Effect):
    """A call begins; whatever becomes of it is part of its record. Answered with None.

    ``caller`` is who proved to be calling; both are None for a stranger who is turned away.
    """

    caller: str | None
    callee: str | None


def admit(
    request: Request, flow: Flow, settings: Settings, authenticator: Authenticator, minter: Minter, now: float
) -> Generator[Effect, Any, Plan]:
    """The plan for a request that is no REGISTER. ``now`` is UNIX time in seconds, for the credentials.

    Raises SipError with the answer; for an ACK that means to drop it.
    """
    examined = examine(request, settings, minter)
    if is_inside(request):
        return plan_inside(request, examined, settings)
    plan: Plan = yield from admit_new(request, examined, flow, settings, authenticator, now)
    return plan


def examine(request: Request, settings: Settings, minter: Minter) -> Examined:
    """§16.3 and §16.4, which ask for nothing but the request. Raises SipError."""
    check_uri_scheme(request.uri)
    hops, last_hop = count_hops(request, settings)
    plan = Plan(request.uri_text, hops, _breadth(request, settings), loop_part(request, minter))
    check_loop(request, plan.loop)
    check_proxy_require(request, settings)
    uri, proof = preprocess_route(request, plan, settings, minter)
    return Examined(plan, uri, proof, last_hop)


def is_inside(request: Request) -> bool:
    """Whether a request belongs to a dialog."""
    return request.to_tag is not None or request.method in ("ACK", "CANCEL")


def plan_inside(request: Request, examined: Examined, settings: Settings) -> Plan:
    """The plan for a request inside a dialog. Raises SipError."""
    plan = examined.plan
    plan.dropped = _credentials_for(request, settings.domains, None)
    plan_in_dialog(request, plan, examined.proof, for_us=not plan.routes and names_us(examined.uri, settings))
    if request.method in ("INVITE", "UPDATE"):
        plan.timing = settings.sessions.on_request(request)
    return plan


def challenge(
    request: Request, settings: Settings, authenticator: Authenticator, now: float
) -> AuthenticationRequired | None:
    """What ``admit_new`` would raise for a request that claims one of our addresses and brings no credentials."""
    domain = _claimed_domain(request, settings)
    return authenticator.first_challenge(request, domain, now, proxy=True) if domain is not None else None


def admit_new(
    request: Request, examined: Examined, flow: Flow, settings: Settings, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, Plan]:
    """The plan for a request outside of any dialog: who asks, and for whom."""
    plan, uri, method = examined.plan, examined.uri, request.method
    identity = yield from authenticate(request, settings, authenticator, now)
    plan.dropped = _credentials_for(request, settings.domains, identity)
    for_us = uri.user is None and names_us(uri, settings)
    if method == "OPTIONS" and (for_us or examined.last_hop):
        return plan_answer(plan, settings)
    if identity is None and not may_come_in(request, flow, settings):
        # The same answer after the same work, whoever was asked for: nothing was looked up.
        if method == "INVITE":
            yield CallPlaced(None, None)
        raise SipError(403, "Forbidden")
    plan.caller, plan.callee = identity, None if for_us else address_of(uri, settings, identity)
    if method == "INVITE":
        yield CallPlaced(identity, plan.callee if plan.callee is not None or for_us else uri.aor())
    check_identity(request, identity)
    if method in _REPORTING and (for_us or plan.callee is not None) and is_report(request, for_us):
        return plan_collect(plan)
    if for_us:
        raise _not_for_us(method)
    if method == "INVITE":
        plan.timing = settings.sessions.on_request(request)
    relayed = identity is not None and settings.outbound
    # A preloaded Route is a wish to be sent somewhere, like a foreign Request-URI.
    if plan.routes and not relayed:
        raise SipError(403, "Route Not Allowed")
    plan.record_route = method not in _NO_DIALOG
    if plan.callee is None:
        # RFC 3261 §16.5: the target of a domain that is not ours is the Request-URI itself.
        if not relayed:
            raise SipError(403, "Relaying Not Allowed")
        plan.groups = [[Target(plan.uri_text)]]
        return plan
    targets = yield NeedTargets(plan.callee)
    plan.groups = group_targets(targets or (), uri, settings)
    plan.located = True
    if not plan.groups:
        # RFC 3261 §16.5: 404 for what does not exist, 480 for what is nowhere; to strangers both look the same.
        if targets is None and identity is not None:
            raise SipError(404, "Not Found")
        raise SipError(480, "Temporarily Unavailable")
    return plan


# RFC 3261 §16.3, request validation.


def check_uri_scheme(uri: Uri) -> None:
    """§16.3 step 2."""
    if not uri.is_sip and uri.scheme != "tel":
        raise SipError(416, "Unsupported URI Scheme")


def count_hops(request: Request, settings: Settings) -> tuple[int, bool]:
    """The Max-Forwards to go on with (§16.6 step 3), and whether this server is the last hop (§16.3 step 3).

    Only OPTIONS may end here that way, since that is how one asks who stands in between.
    """
    hops = request.number(names.MAX_FORWARDS)
    if hops is None:
        return settings.max_forwards_default, False
    if hops > 0:
        return hops - 1, False
    if request.method != "OPTIONS" or not names_us(request.uri, settings):
        raise SipError(483, "Too Many Hops")
    return 0, True


def check_loop(request: Request, loop: str) -> None:
    """§16.3 step 4 as RFC 5393 §4.2.2 has it: a request that was here before, with nothing changed, loops."""
    for via in request.vias:
        # The hash is seeded with a secret of this server, so it marks our own Via values better than a sent-by would.
        branch = via.branch
        if branch is not None and branch[-9:-8] == "." and branch[-8:] == loop:
            raise SipError(482, "Loop Detected")


def loop_part(request: Request, minter: Minter) -> str:
    """What of the request decides where it goes, as a hash (RFC 5393 §4.2.1); the method is no part of it."""
    lines, decisive = request.lines, []
    if not _LOOP_HEADERS.isdisjoint(request.names):
        decisive = [lines[i] for i, name in enumerate(request.names) if name in _LOOP_HEADERS]
    call = f"{request.uri_text}\n{request.call_id}\n{request.cseq[0]}\n{request.from_tag or ''}\n{request.to_tag or ''}"
    return minter.loop_hash("\n".join((call, *decisive)) if decisive else call)


def check_proxy_require(request: Request, settings: Settings) -> None:
    """§16.3 step 5."""
    if names.PROXY_REQUIRE not in request.names:
        return
    unknown = [tag for tag in request.option_tags(names.PROXY_REQUIRE) if tag not in settings.supported]
    if unknown:
        raise SipError(420, "Bad Extension", (f"Unsupported: {', '.join(unknown)}",))


def _breadth(request: Request, settings: Settings) -> int:
    """RFC 5393 §5.3.3: the incoming Max-Breadth, bounded by ours.

    A small value makes branches wait for each other (``fork``), so only none at all is too little.
    """
    breadth = request.number(names.MAX_BREADTH) if names.MAX_BREADTH in request.names else None
    if breadth is None:
        return settings.max_breadth
    if breadth == 0:
        raise SipError(440, "Max-Breadth Exceeded")
    return min(breadth, settings.max_breadth)


# RFC 3261 §16.4, route information.


def preprocess_route(
    request: Request, plan: Plan, settings: Settings, minter: Minter
) -> tuple[Uri, tuple[str, str] | None]:
    """The Request-URI to work with, and the call and side that a minted route proved. Fills ``plan.routes``."""
    uri = request.uri
    proof: tuple[str, str] | None = None
    if names.ROUTE not in request.names:
        return uri, proof
    routes = request.values(names.ROUTE)
    # A strict router before us put our own Record-Route into the Request-URI: the real one is the last Route.
    token = uri.params.get(ROUTE_PARAM)
    if token:
        proof = minter.verify(token, request)
        if proof is not None:
            last = _route(routes.pop())
            check_uri_scheme(last)
            uri, plan.uri_text = last, last.raw
    # Every Route at the top that names us has been reached; two where this server recorded both its sides.
    reached = 0
    for value in routes:
        route = _route(value)
        token = route.params.get(ROUTE_PARAM)
        found = minter.verify(token, request) if token else None
        if found is None:
            if not names_us(route, settings):
                break
            if token:
                raise Unproven(403, "Route Not Valid Here")
        elif proof is None:
            proof = found
        elif found[0] != proof[0]:
            # Another call's token: the request spiralled, and comes by once more for that one.
            break
        reached += 1
    plan.routes = routes[reached:]
    return uri, proof


def _route(value: str) -> Uri:
    try:
        uri = Address.parse(value).uri
    except SipError:
        raise SipError(400, "Bad Route") from None
    if not uri.is_sip:
        raise SipError(400, "Bad Route")
    return uri


def names_us(uri: Uri, settings: Settings) -> bool:
    """Whether a URI names one of our domains or listeners; the port counts only for the latter."""
    if not uri.is_sip:
        return False
    return uri.host.removesuffix(".") in settings.domains or settings.is_us(uri.host, uri.port)


def plan_in_dialog(request: Request, plan: Plan, proof: tuple[str, str] | None, *, for_us: bool) -> Plan:
    """A request inside a dialog follows the route that this server minted for that dialog, and no other."""
    if proof is None:
        raise Unproven(403, "Route Not Valid Here")
    # No dialog has this server at its end.
    if for_us:
        raise SipError(404, "Not Found")
    plan.dialog = proof
    plan.groups = [[Target(plan.uri_text)]]
    plan.record_route = request.method not in _NO_DIALOG
    return plan


# RFC 3261 §16.3 step 6 and §22.3, who is asking.


def authenticate(
    request: Request, settings: Settings, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, str | None]:
    """The address whose credentials came with a request that claims one of ours; None for a stranger's."""
    domain = _claimed_domain(request, settings)
    if domain is None:
        return None
    identity: str = yield from authenticator.authenticate(request, domain, now, proxy=True)
    return identity


def _claimed_domain(request: Request, settings: Settings) -> str | None:
    """The domain of ours that From names."""
    claimed = request.from_.uri
    domain = claimed.host.removesuffix(".")
    return domain if claimed.is_sip and domain in settings.domains else None


def check_identity(request: Request, identity: str | None) -> None:
    """One may call as the address that one's credentials belong to, and as no other."""
    if identity is not None and request.from_.uri.aor() != identity:
        raise SipError(403, "From Does Not Match Credentials")


def may_come_in(request: Request, flow: Flow, settings: Settings) -> bool:
    """Whether a stranger's request may reach a subscriber."""
    claimed = request.from_.uri
    # From names this very server by its address: no such stranger exists.
    if claimed.is_sip and settings.is_us(claimed.host, claimed.port):
        return False
    if settings.inbound == "anyone":
        return True
    if settings.inbound != "peers":
        return False
    source = ip_address(flow.host)
    return any(source in network for network in settings.peers)


def _credentials_for(request: Request, domains: frozenset[str], identity: str | None) -> tuple[int, ...]:
    """§22.3: lines of Proxy-Authorization whose realm is ours are consumed; others are for proxies further on.

    One that cannot be read is of use to nobody, and is kept from the callee as well.
    """
    if names.PROXY_AUTHORIZATION not in request.names:
        return ()
    if identity is not None and request.names.count(names.PROXY_AUTHORIZATION) == 1:
        # These have just proved who is asking, so they were for us.
        return (request.names.index(names.PROXY_AUTHORIZATION),)
    consumed = []
    for i, name in enumerate(request.names):
        if name == names.PROXY_AUTHORIZATION:
            params = parse_parameters(request.value_at(i).partition(" ")[2])
            if params is None or params.get("realm", "").lower() in domains:
                consumed.append(i)
    return tuple(consumed)


# RFC 3261 §16.5, targets.


def address_of(uri: Uri, settings: Settings, identity: str | None) -> str | None:
    """The address of ours that a Request-URI names; None for a foreign domain.

    A tel URI is looked up as a number. A user at one of our IP addresses means that user of the
    caller's own domain, or of the only domain there is.
    """
    if uri.scheme == "tel":
        return uri.aor()
    if uri.host.removesuffix(".") in settings.domains:
        return uri.aor()
    if not settings.is_us(uri.host, uri.port):
        return None
    user = uri.aor().rpartition("@")[0]
    if identity is not None:
        return f"{user}@{identity.rpartition('@')[2]}"
    if len(settings.domains) == 1:
        return f"{user}@{next(iter(settings.domains))}"
    return uri.aor()


def group_targets(targets: Iterable[Target], uri: Uri, settings: Settings) -> list[list[Target]]:
    """Targets by falling q, equal ones together (§16.6); each URI and each device once (§16.5, RFC 5626 §5.1)."""
    seen: set[str] = set()
    chosen = []
    for target in targets:
        if target.uri_text in seen or target.instance in seen:
            continue
        # RFC 3261 §26.2.2: what was asked for by SIPS goes on by SIPS, or not at all.
        if uri.scheme == "sips" and target.uri_text[:5].lower() != "sips:":
            continue
        seen.add(target.uri_text)
        if target.instance:
            seen.add(target.instance)
        chosen.append(target)
    chosen.sort(key=_preference)
    groups: list[list[Target]] = []
    for target in chosen[: settings.max_targets]:
        if groups and groups[-1][0].q == target.q:
            groups[-1].append(target)
        else:
            groups.append([target])
    return groups


def _preference(target: Target) -> int:
    return -target.q


def plan_answer(plan: Plan, settings: Settings) -> Plan:
    """RFC 3261 §11.2: what this server says of itself when it is asked."""
    plan.kind = ANSWER
    plan.headers = (
        ALLOW, f"Allow-Events: {QUALITY_EVENT}", f"Accept: application/sdp, {QUALITY_TYPE}",
        f"Supported: {', '.join(settings.supported)}",
    )  # fmt: skip
    return plan


def is_report(request: Request, for_us: bool) -> bool:
    """Whether a PUBLISH or NOTIFY brings a report of quality: that ends here, whichever of our addresses it names.

    Raises SipError(489) for another event that is published to this server itself (RFC 3903 §6 step 2).
    """
    event = (request.header(names.EVENT) or "").partition(";")[0].strip().lower()
    if event == QUALITY_EVENT:
        return True
    if for_us and request.method == "PUBLISH":
        raise SipError(489, "Bad Event", (f"Allow-Events: {QUALITY_EVENT}",))
    return False


def plan_collect(plan: Plan) -> Plan:
    """RFC 6035 §6: reports are taken from whom one knows. No Route leads past this server."""
    if plan.caller is None or plan.routes:
        raise SipError(403, "Forbidden")
    plan.kind = COLLECT
    return plan


def _not_for_us(method: str) -> SipError:
    """RFC 3261 §8.2.1 and §21.5.2: 405 for a method that is known, 501 for one that is not."""
    if method in _KNOWN_METHODS:
        return SipError(405, "Method Not Allowed", (ALLOW,))
    return SipError(501, "Not Implemented")
