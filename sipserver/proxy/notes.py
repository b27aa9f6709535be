"""What answers tell: of calls and their dialogs (events), and of where a side is reached: flows that no URI leads to.

Those are connections, and over UDP the flow of a side behind a NAT, or of one that asks for it (``ob``, RFC 5626 §4.3)
or names itself by a GRUU, which leads back here.
"""

from __future__ import annotations

from typing import Final

from sipserver.proxy.branch import Branch
from sipserver.proxy.dialog import answerer_hop, sender_hop
from sipserver.proxy.effects import ANSWERED, CHANGED, ENDED, REFERRED, RETARGETED, CallEvent, Learn
from sipserver.proxy.plan import Plan
from sipserver.proxy.record_route import CALLEE, other_side
from sipserver.sip import gruu, names
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response
from sipserver.sip.nat import NAME, is_behind_nat, scope
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

_ACCEPTED: Final = {
    "INVITE": CHANGED, "UPDATE": CHANGED, "PRACK": CHANGED, "BYE": ENDED, "REFER": REFERRED, "NOTIFY": RETARGETED,
    "SUBSCRIBE": RETARGETED,
}  # fmt: skip


def note_success(request: Request, plan: Plan, each: Branch, response: Response, out: list[Effect]) -> bool:
    """The event of a 2xx; True where the answer has to wait for it."""
    status, index = response.status, each.index
    if plan.dialog is None:
        if request.method == "INVITE":
            out.append(CallEvent(ANSWERED, index, response, status=status, target=each.target, flow=each.flow))
            return True
        # RFC 3515 §2.4: a REFER need not be inside the dialog that it is about.
        if request.method == "REFER":
            out.append(CallEvent(REFERRED, index, response, status=status, request=request, flow=each.flow))
        return False
    kind = _ACCEPTED.get(request.method)
    if kind is not None:
        out.append(CallEvent(kind, index, response, plan.dialog[1], status, request=request, flow=each.flow))
    return kind == ENDED


def learn_answerer(
    request: Request, plan: Plan, flow_in: Flow, key: str, each: Branch, response: Response, out: list[Effect]
) -> None:
    """Remember how both sides are reached that this response puts into a dialog, or whose target it refreshes."""
    flow = each.flow
    if not plan.record_route or flow is None or response.to_tag is None:
        return
    side = CALLEE
    if plan.dialog is not None:
        if response.status < 200:
            return
        side = other_side(plan.dialog[1])
        learn_sender(request, plan, flow_in, key, plan.dialog[1], out)
    if flow.reliable or each.target.flow_only or plan.dialog is not None:
        hop = answerer_hop(response, plan.token)
        if hop != each.learned and (flow.reliable or each.target.flow_only or _leads_elsewhere(hop, flow)):
            each.learned = hop
            if hop is not None:
                out.append(Learn(key, side, flow, hop))


def learn_sender(request: Request, plan: Plan, flow: Flow, key: str, side: str, out: list[Effect]) -> None:
    """Remember how the side is reached that sent this request."""
    if not flow.reliable:
        if not _needs_its_flow(request, flow):
            return
        plan.pinned = True
    hop = sender_hop(request)
    if hop is not None:
        out.append(Learn(key, side, flow, hop))


def _needs_its_flow(request: Request, flow: Flow) -> bool:
    """Whether who sent this over UDP is reached over that flow alone."""
    found = request.places
    if names.CONTACT not in found or names.RECORD_ROUTE in found or len(request.vias) > 1:
        return False
    try:
        uri = Address.parse(request.values(names.CONTACT)[0]).uri
    except (SipError, IndexError):
        return False
    if uri.host == flow.host:
        return "ob" in uri.params
    return "ob" in uri.params or gruu.PARAM in uri.params or is_behind_nat(uri, request.top_via.host, flow.host)


def _leads_elsewhere(hop: str | None, flow: Flow) -> bool:
    """Whether a side that was reached over this flow names another address as its own."""
    if hop is None:
        return False
    try:
        host = Uri.parse(hop).host
    except SipError:
        return False
    return host != flow.host and scope(host) != NAME
