"""What a response context learns of where the sides of a dialog are reached: connections worth remembering."""

from __future__ import annotations

from sipserver.proxy.branch import Branch
from sipserver.proxy.dialog import answerer_hop, sender_hop
from sipserver.proxy.effects import Learn
from sipserver.proxy.plan import Plan
from sipserver.proxy.record_route import CALLEE, other_side
from sipserver.sip.effects import Effect
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response


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
        learn_sender(request, flow_in, key, plan.dialog[1], out)
    if flow.reliable:
        hop = answerer_hop(response, plan.token)
        if hop != each.learned:
            each.learned = hop
            if hop is not None:
                out.append(Learn(key, side, flow, hop))


def learn_sender(request: Request, flow: Flow, key: str, side: str, out: list[Effect]) -> None:
    """Remember how the side is reached that sent this request."""
    # A datagram needs no connection to be kept for it.
    if flow.reliable:
        hop = sender_hop(request)
        if hop is not None:
            out.append(Learn(key, side, flow, hop))
