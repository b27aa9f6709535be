"""The request as it leaves: RFC 3261 §16.6 steps 1 to 9, on a list of lines.

What all branches share is made once and kept in the plan; each branch puts its own Via, Record-Route
and Route lines on top. Every other line, and the body, leaves byte for byte as it came.
"""

from __future__ import annotations

from typing import Final

from sipserver.proxy import ways
from sipserver.proxy.plan import Plan, Target
from sipserver.proxy.record_route import CALLER, Minter, record_route_lines
from sipserver.proxy.secure import uri_for
from sipserver.sip import names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import MAGIC_COOKIE, Address

# What is asserted of who asks, this server says itself, so neither header passes (RFC 3325 §5, §6).
# The access network of an endpoint is nobody's business outside of the trust domain (RFC 7315 §4.4.2.2, §6.4).
_TOUCHED: Final = frozenset(
    (
        names.MAX_FORWARDS, names.MAX_BREADTH, names.ROUTE, names.PROXY_AUTHORIZATION,
        names.P_ASSERTED_IDENTITY, names.P_PREFERRED_IDENTITY, names.P_ACCESS_NETWORK_INFO, names.SESSION_EXPIRES,
        names.MIN_SE,
    )
)  # fmt: skip

_NOTHING: Final[dict[int, str | None]] = {}
_RARELY_TOUCHED: Final = _TOUCHED - {names.MAX_FORWARDS, names.PROXY_AUTHORIZATION, names.ROUTE}


def next_hop(plan: Plan, target: Target) -> Uri:
    """The URI that says where the request goes next: the topmost Route, else the Request-URI (§16.6 step 7).

    A strict router at the top is that same URI, moved into the Request-URI. maddr is not followed, since it
    would let a contact send calls to any address. Raises SipError where the URI is broken.
    """
    if target.path:
        return _uri_of(target.path[0])
    if plan.routes:
        return _uri_of(plan.routes[0])
    if target.hop is not None:
        # The operator's word on where this is, as if it were a name server's: it leaves no trace in the request.
        return target.hop
    return Uri.parse(request_uri(target.uri_text))


def forward(
    request: Request,
    plan: Plan,
    target: Target,
    flow_in: Flow,
    flow_out: Flow,
    branch: str,
    minter: Minter,
    key: str,
    breadth: int | None = None,
) -> OutgoingRequest:
    """The request for one target. ``branch`` is the random part of the branch, ``key`` the call's key, ``breadth``
    this branch's share of Max-Breadth where there are several."""
    top: list[str] = []
    if plan.record_route:
        if not plan.token:
            plan.token = _mint(request, plan, minter, key)
        token = plan.token
        if plan.pinned or target.flow_only or plan.flow_token:
            token += _ways(plan, target, flow_in, flow_out, minter, key)
        top = record_route_lines(flow_out, flow_in, token, is_secure=plan.secure)
    return _assemble(request, plan, target, flow_out, branch, top, plan.breadth if breadth is None else breadth)


def stateless(request: Request, plan: Plan, flow_in: Flow, flow_out: Flow, branch: str) -> OutgoingRequest:
    """The ACK of a 2xx, which has no transaction of its own, for the plan's only target (§16.11)."""
    # Where it came from does not show in an ACK: it forms no dialog, so nothing is recorded.
    del flow_in
    return _assemble(request, plan, plan.groups[0][0], flow_out, branch, [], plan.breadth)


def request_uri(contact: str) -> str:
    """A contact without what is not allowed in a Request-URI: headers and method (§16.6 step 2, §19.1.1)."""
    if ";" not in contact and "?" not in contact:
        return contact
    start = contact.find("@") + 1
    mark = contact.find("?", start)
    if mark >= 0:
        contact = contact[:mark]
    if contact.lower().find(";method=", start) >= 0:
        kept = [part for part in contact[start:].split(";") if not part.lower().startswith("method=")]
        contact = contact[:start] + ";".join(kept)
    return contact


def _assemble(
    request: Request, plan: Plan, target: Target, flow_out: Flow, branch: str, top: list[str], breadth: int
) -> OutgoingRequest:
    branch = f"{MAGIC_COOKIE}{branch}.{plan.loop}"
    lines = [f"Via: SIP/2.0/{flow_out.transport} {flow_out.sent_by};branch={branch}", *top]
    uri_text = uri_for(request_uri(target.uri_text), plan.secure)
    if target.path or plan.routes:
        uri_text, routes = _route_lines(uri_text, target, plan)
        lines += routes
    shared = plan.lines
    if shared is None:
        shared = _shared_lines(request, plan)
    disclosure = plan.disclosure
    if disclosure is not None and disclosure.lines:
        peer = target.peer
        if disclosure.to_all or (peer is not None and peer.trusted):
            lines += disclosure.lines
    offset = len(lines)
    lines += shared
    if breadth != plan.breadth:
        lines[offset + plan.breadth_at] = f"Max-Breadth: {breadth}"
    # §16.6 step 9: on a stream nothing else tells where the message ends.
    if flow_out.reliable and not request.has(names.CONTENT_LENGTH):
        lines.append(f"Content-Length: {len(request.body)}")
    return OutgoingRequest(request.method, uri_text, lines, request.body, branch)


def _shared_lines(request: Request, plan: Plan) -> list[str]:
    """The received lines with Max-Forwards and Max-Breadth as they go on, and without what ends here."""
    hops = f"Max-Forwards: {plan.max_forwards}"
    breadth = f"Max-Breadth: {plan.breadth}"
    found = request.names
    changed = plan.disclosure.changed if plan.disclosure is not None else _NOTHING
    if not changed and request.has(names.MAX_FORWARDS) and _RARELY_TOUCHED.isdisjoint(found):
        # Nearly every request: one line is written anew, routes and credentials for us go, Max-Breadth comes last.
        shared = request.lines.copy()
        shared[request.places[names.MAX_FORWARDS]] = hops
        ending = list(plan.dropped)
        if request.has(names.ROUTE):
            ending += [i for i, name in enumerate(found) if name == names.ROUTE]
            ending.sort()
        for i in reversed(ending):
            del shared[i]
        plan.lines, plan.breadth_at = shared, len(shared)
        shared.append(breadth)
        shared += plan.timing.added
        return shared
    shared = []
    hops_at = breadth_at = -1
    for i, (line, name) in enumerate(zip(request.lines, request.names, strict=True)):
        if i in changed:
            instead = changed[i]
            if instead is not None:
                shared.append(instead)
        elif name not in _TOUCHED:
            shared.append(line)
        elif name == names.MAX_FORWARDS:
            hops_at = len(shared)
            shared.append(hops)
        elif name == names.MAX_BREADTH:
            # RFC 5393 §5.3.3: a single value goes on.
            if breadth_at < 0:
                breadth_at = len(shared)
                shared.append(breadth)
        elif name == names.SESSION_EXPIRES:
            shared.append(plan.timing.session_expires or line)
        elif name == names.MIN_SE:
            shared.append(plan.timing.min_se or line)
        elif name == names.PROXY_AUTHORIZATION and i not in plan.dropped:
            shared.append(line)
    if hops_at < 0:
        shared.append(hops)
    if breadth_at < 0:
        breadth_at = len(shared)
        shared.append(breadth)
    shared += plan.timing.added
    plan.lines, plan.breadth_at = shared, breadth_at
    return shared


def _route_lines(uri_text: str, target: Target, plan: Plan) -> tuple[str, list[str]]:
    """The Request-URI and the Route lines: Path first (RFC 3327 §5.2), then what the sender's Route has left."""
    routes = [path if "<" in path else f"<{path}>" for path in target.path]
    routes += plan.routes
    first = _uri_of(routes[0])
    if "lr" not in first.params:
        # §16.6 step 6: a strict router finds itself in the Request-URI, and the real one at the end of Route.
        routes = [*routes[1:], f"<{uri_text}>"]
        uri_text = first.raw
    return uri_text, [f"Route: {route}" for route in routes]


def _mint(request: Request, plan: Plan, minter: Minter, key: str) -> str:
    """The token for this request's dialog: that of its own route, or a new one."""
    if plan.dialog is None:
        return minter.token(key, request.call_id, request.from_tag)
    dialog_key, side = plan.dialog
    return minter.token(dialog_key, request.call_id, request.from_tag if side == CALLER else request.to_tag)


def _ways(plan: Plan, target: Target, flow_in: Flow, flow_out: Flow, minter: Minter, key: str) -> str:
    """What our Record-Route says of flows over UDP that are the only way to a side."""
    if plan.dialog is not None:
        # Route sets do not change (RFC 3261 §12.2).
        return f";{ways.FLOW_PARAM}={plan.flow_token}" if plan.flow_token else ""
    caller = flow_in if plan.pinned else None
    callee = flow_out if target.flow_only and not flow_out.reliable else None
    return ways.seal(minter.sealer, key, caller, callee) if caller is not None or callee is not None else ""


def _uri_of(route: str) -> Uri:
    """The URI of a Route or Path value."""
    uri = Address.parse(route).uri
    if not uri.is_sip:
        raise SipError(400, "Bad Route")
    return uri
