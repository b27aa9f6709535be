"""Flows that endpoints register (RFC 5626 §6), and since when the GRUUs of a device are good (RFC 5627 §5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sipserver.registrar.binding import Binding, Change
from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.values import Address

TAG: Final = "outbound"
"""The option tag of RFC 5626."""


def first_hop_has_flows(path: Sequence[str]) -> bool:
    """Whether the proxy that the endpoint talks to keeps its flow: it says so by ``ob`` in its Path.

    That is the last of several (RFC 3327 §5.2); no other may say it, so no more than that it is there is looked at.
    """
    return any(["ob" in Address.parse(each).uri.params for each in path])


def check_first_hop(request: Request) -> None:
    """RFC 5626 §6: an endpoint that wants its flow registered learns that the first hop keeps none. Raises
    SipError(439); one that only sends a reg-id has it ignored."""
    if request.has(names.SUPPORTED) and TAG in request.option_tags(names.SUPPORTED):
        raise SipError(439, "First Hop Lacks Outbound Support")


def is_registered(request: Request, changes: Sequence[Change]) -> bool:
    """Whether these changes register a flow of an endpoint that knows what that is."""
    if not any([change.after is not None and change.after.reg_id is not None for change in changes]):
        return False
    return request.has(names.SUPPORTED) and TAG in request.option_tags(names.SUPPORTED)


def flow_timer(request: Request, flow: Flow, timer: int, timer_udp: int) -> int:
    """How often this endpoint is to ping its flow, in seconds; 0 for what it likes.

    RFC 5626 §5.4: the last to forward the answer over the flow may say so. WebSocket has its own pings (RFC 7118 §6).
    """
    if len(request.vias) > 1 or flow.transport in ("WS", "WSS"):
        return 0
    return timer if flow.reliable else timer_udp


def gruu_since(instance: str, reg_id: int | None, call_id: str, current: Sequence[Binding], now: float) -> float:
    """From when on the temporary GRUUs of a device are good that registers now: as before, unless its contact, or that
    flow of it, comes with another Call-ID."""
    since = 0.0
    for binding in current:
        if binding.instance == instance:
            since = max(since, binding.gruu_since)
    if not since:
        return now
    for binding in current:
        # The latest first: of several contacts of a device that was restarted that one counts.
        if binding.instance == instance and (reg_id is None or binding.reg_id == reg_id):
            # The clock may have been set back.
            return max(now, since + 0.001) if binding.call_id != call_id else since
    return since
