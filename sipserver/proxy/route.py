"""Whether a request is let through, and to whom: RFC 3261 §16.3 to §16.5, read top to bottom in ``admit``.

``admit`` is a generator: it yields what it has to know (whose credentials, which targets), takes the
answer by ``send``, raises SipError for a refusal and returns the plan.

Nobody is believed who has not proved something. A request inside a dialog proves itself by the route
that this server minted for that dialog; one that claims an address of ours by its credentials;
everybody else is a stranger, and what strangers are told does not depend on whom they ask for.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from sipserver.proxy import ways
from sipserver.proxy.device import NeedOwner, find_device, is_gruu, is_temporary
from sipserver.proxy.device import check_contact as check_gruu
from sipserver.proxy.identity import (
    authenticate,
    check_identity,
    credentials_for,
    find_sender,
    is_question,
    may_come_in,
)
from sipserver.proxy.own import REPORTING, is_report, not_for_us, plan_answer, plan_collect
from sipserver.proxy.peers import Peer
from sipserver.proxy.plan import CallPlaced, Examined, NeedRoom, Plan, Settings, Target, TooMany, Unproven
from sipserver.proxy.privacy import NOBODY, OPTION, believed_identity, disclose
from sipserver.proxy.rate import retry_after
from sipserver.proxy.record_route import ROUTE_PARAM, Minter
from sipserver.proxy.secure import SIPS, check_contact
from sipserver.proxy.targets import address_of, allowed, find_targets, leads_on, names_us
from sipserver.sip import gruu, names
from sipserver.sip.digest import Authenticator
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

# RFC 3261 §16.6 step 4: a method that is not known may form a dialog, so only these go without Record-Route.
_NO_DIALOG: Final = frozenset(("ACK", "CANCEL", "BYE", "OPTIONS", "MESSAGE", "PUBLISH", "INFO", "PRACK"))
_GR: Final = f";{gruu.PARAM}"
_TOKEN: Final = f";{ROUTE_PARAM}="
_LOOP_HEADERS: Final = (names.ROUTE, names.PROXY_REQUIRE, names.PROXY_AUTHORIZATION)


def admit(
    request: Request, flow: Flow, settings: Settings, authenticator: Authenticator, minter: Minter, now: float
) -> Generator[Effect, Any, Plan]:
    """The plan for a request that is no REGISTER. ``now`` is UNIX time in seconds, for the credentials.

    Raises SipError with the answer; for an ACK that means to drop it.
    """
    examined = examine(request, settings, minter)
    if is_inside(request):
        return plan_inside(request, examined, settings)
    find_sender(request, examined, flow, settings)
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
    if uri.scheme == SIPS:
        plan.secure = True
        # Inside a dialog it is the other side that named a SIPS contact, whatever it was called by.
        if not is_inside(request):
            check_contact(request)
    return Examined(plan, uri, proof, last_hop)


def is_inside(request: Request) -> bool:
    """Whether a request belongs to a dialog."""
    return request.to_tag is not None or request.method in ("ACK", "CANCEL")


def plan_inside(request: Request, examined: Examined, settings: Settings) -> Plan:
    """The plan for a request inside a dialog. Raises SipError."""
    plan = examined.plan
    plan.dropped = credentials_for(request, settings.domains, None)
    uri = examined.uri
    if gruu.PARAM in uri.params and is_gruu(uri, settings):
        plan.gruu = uri
    for_us = plan.gruu is None and not plan.routes and names_us(uri, settings)
    plan_in_dialog(request, plan, examined.proof, for_us=for_us)
    if request.method in ("INVITE", "UPDATE"):
        plan.timing = settings.sessions.on_request(request)
    return plan


def admit_new(
    request: Request, examined: Examined, flow: Flow, settings: Settings, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, Plan]:
    """The plan for a request outside of any dialog, of which ``find_sender`` has told: who asks, and for whom."""
    plan, uri, method, peer = examined.plan, examined.uri, request.method, examined.peer
    if is_question(request, examined, settings):
        plan.dropped = credentials_for(request, settings.domains, None)
        return plan_answer(plan, settings)
    identity = yield from authenticate(request, examined, authenticator, now)
    plan.dropped = credentials_for(request, settings.domains, identity)
    for_us = uri.user is None and names_us(uri, settings)
    if identity is None and not may_come_in(request, peer, flow, settings):
        # The same answer after the same work, whoever was asked for: nothing was looked up.
        if method == "INVITE":
            yield CallPlaced(None, None)
        raise SipError(403, "Forbidden")
    plan.caller, plan.callee = identity, None if for_us else address_of(uri, settings, identity)
    instance: str | None = None
    if plan.callee is not None and gruu.PARAM in uri.params and is_temporary(uri):
        found = yield NeedOwner(uri)
        if found is not None:
            plan.callee, instance = found
    check_rate(method, identity, peer, settings, now)
    trusted = identity is None and peer is not None and peer.trusted
    vouched = believed_identity(request) if trusted else None
    if method == "INVITE":
        called = plan.callee if plan.callee is not None or for_us else uri.aor()
        yield CallPlaced(identity or vouched, called, leads_on(plan.callee, uri, identity, settings))
    check_identity(request, identity)
    if identity is not None and _GR in (request.header(names.CONTACT) or ""):
        yield from check_gruu(request, identity, settings)
    if method in REPORTING and (for_us or plan.callee is not None) and is_report(request, for_us):
        return plan_collect(plan)
    if for_us:
        raise not_for_us(method)
    plan.caller = identity or vouched
    if identity is None and peer is not None:
        yield from check_peer(peer, plan.callee, method)
    if method == "INVITE":
        plan.timing = settings.sessions.on_request(request)
    # A preloaded Route is a wish to be sent somewhere, like a foreign Request-URI.
    if plan.routes and not may_be_sent(plan.routes[0], identity, settings):
        raise SipError(403, "Route Not Allowed")
    plan.record_route = method not in _NO_DIALOG
    if plan.callee is not None and gruu.PARAM in uri.params:
        yield from find_device(plan, plan.callee, uri, instance, identity, settings)
    else:
        yield from find_targets(plan, uri, identity, settings)
    if settings.named:
        yield from check_ways(plan, method, now)
    if settings.asserted != NOBODY or request.has(names.PRIVACY):
        plan.trusted = trusted
        plan.disclosure = disclose(request, identity, trusted, settings.asserted, settings.dial_plan)
    return plan


def may_be_sent(route: str, identity: str | None, settings: Settings) -> bool:
    """Whether a subscriber may send requests by this route."""
    return allowed(identity, settings).has_domain(_route(route).host.removesuffix("."))


# How much, and by whom.


def check_rate(method: str, identity: str | None, peer: Peer | None, settings: Settings, now: float) -> None:
    """Nobody sends more than he may; a stranger without a name is bounded elsewhere. Raises TooMany."""
    if identity is not None:
        wait = settings.requests.take(identity, now)
        if not wait and method == "INVITE":
            wait = settings.calls.take(identity, now)
    elif peer is not None:
        peer.received += 1
        wait = peer.rate.take(peer.name, now)
    else:
        return
    if wait:
        raise TooMany(503, "Too Many Requests", retry_after(wait))


def check_peer(peer: Peer, callee: str | None, method: str) -> Generator[Effect, Any, None]:
    """A named peer calls whom it may, and has no more calls than it may. Raises SipError."""
    if callee is not None and not peer.may_call(callee):
        raise SipError(403, "Forbidden")
    if method == "INVITE" and peer.max_calls and not (yield NeedRoom(peer)):
        raise TooMany(503, "Too Many Calls", retry_after(0.0))


def check_ways(plan: Plan, method: str, now: float) -> Generator[Effect, Any, None]:
    """Of the ways to named peers those are left that have room. Raises TooMany where none is.

    Those that are only taken where others fail count for nothing.
    """
    for group in plan.groups:
        for target in group.copy():
            way: Target | None = target
            while way is not None and way.peer is not None and not (yield from _has_room(way.peer, method, now)):
                others = way.alternates
                way = others[0] if others else None
                if way is not None:
                    way.alternates = others[1:]
            if way is None:
                group.remove(target)
            elif way is not target:
                group[group.index(target)] = way
    plan.groups = [group for group in plan.groups if group]
    if not plan.groups:
        raise TooMany(503, "Too Many Calls", retry_after(0.0))


def _has_room(peer: Peer, method: str, now: float) -> Generator[Effect, Any, bool]:
    if peer.rate.take(peer.name, now):
        return False
    if method == "INVITE" and peer.max_calls and not (yield NeedRoom(peer)):
        return False
    peer.sent += 1
    return True


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
    decisive: list[str] = []
    for name in _LOOP_HEADERS:
        if request.has(name):
            decisive += request.headers(name)
    return minter.loop_hash(
        (
            request.uri_text, request.call_id, request.cseq[0], request.from_tag, request.to_tag, tuple(decisive),
        )
    )  # fmt: skip


def check_proxy_require(request: Request, settings: Settings) -> None:
    """§16.3 step 5."""
    if not request.has(names.PROXY_REQUIRE):
        return
    understood = (*settings.supported, OPTION)
    unknown = [tag for tag in request.option_tags(names.PROXY_REQUIRE) if tag not in understood]
    if unknown:
        raise SipError(420, "Bad Extension", (f"Unsupported: {', '.join(unknown)}",))


def _breadth(request: Request, settings: Settings) -> int:
    """RFC 5393 §5.3.3: the incoming Max-Breadth, bounded by ours.

    A small value makes branches wait for each other (``fork``), so only none at all is too little.
    """
    breadth = request.number(names.MAX_BREADTH) if request.has(names.MAX_BREADTH) else None
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
    if not request.has(names.ROUTE):
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
        route, token = _route_and_token(value)
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
        if found is not None and ways.FLOW_PARAM in route.params:
            plan.flow_token = route.params[ways.FLOW_PARAM] or ""
        # The last of them faces the side that the request goes to.
        plan.secure = route.scheme == SIPS
    plan.routes = routes[reached:]
    return uri, proof


def _route_and_token(value: str) -> tuple[Uri, str | None]:
    """The URI of a Route value and the token in it, where it has one."""
    at = value.find(_TOKEN)
    if at > 0 and value[0] == "<" and value[-1] == ">":
        token = value[at + len(_TOKEN) : -1]
        if token.isalnum():
            # As this server writes it. Without its token it is the same in all calls, and remembered.
            return _route(value[:at] + ">"), token
    route = _route(value)
    return route, route.params.get(ROUTE_PARAM)


def _route(value: str) -> Uri:
    try:
        uri = Address.parse(value).uri
    except SipError:
        raise SipError(400, "Bad Route") from None
    if not uri.is_sip:
        raise SipError(400, "Bad Route")
    return uri


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
