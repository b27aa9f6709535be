"""Ways back over UDP: which flow leads to a side of a dialog that can be reached over no other (RFC 5626 §5.3).

The dialog table remembers them. So that a dialog outlives that memory, and the process, both also stand in our
Record-Route, sealed and bound to the call: whoever gets to see them learns nothing, and can do nothing with them in
another call. Of a connection nothing is written, since it does not outlive the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.flow import Flow
from sipserver.sip.sealing import Sealer

FLOW_PARAM: Final = "fl"
"""The URI parameter that holds them."""


@dataclass(slots=True)
class Way:
    """A flow over UDP by its two ends."""

    host: str
    port: int
    local: str
    """``Flow.sent_by``."""


def seal(sealer: Sealer, call_key: str, caller: Flow | None, callee: Flow | None) -> str:
    """The ways to both sides as a URI parameter, its semicolon in front; None for a side that needs none."""
    ends = [f"{each.host} {each.port} {each.sent_by}" if each is not None else "" for each in (caller, callee)]
    content = "\n".join(ends)
    return f";{FLOW_PARAM}={sealer.seal(content.encode('ascii'), call_key.encode('ascii'))}"


def unseal(sealer: Sealer, call_key: str, token: str) -> dict[str, Way]:
    """The ways by side; none where the token was not made for this call."""
    content = sealer.open(token, call_key.encode("ascii"))
    found: dict[str, Way] = {}
    if content is not None:
        for side, text in zip((CALLER, CALLEE), content.decode("ascii").split("\n"), strict=True):
            if text:
                host, port, local = text.split(" ")
                found[side] = Way(host, int(port), local)
    return found
