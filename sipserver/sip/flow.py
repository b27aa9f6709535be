"""Where a message came from, or goes to: a flow in the sense of RFC 5626 §3.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SECURED: Final = frozenset(("TLS", "WSS"))
"""The transports that a request by SIPS may take (RFC 3261 §26.2.2)."""


@dataclass(slots=True, eq=False)
class Flow:
    """One local socket and one remote address between which messages travel both ways."""

    transport: str
    """``UDP``, ``TCP``, ``TLS``, ``WS`` or ``WSS``, as it stands in a Via."""
    host: str
    """The remote IP address, without brackets."""
    port: int
    """The remote port."""
    sent_by: str
    """This server as that peer sees it, ``host:port`` with IPv6 in brackets: for Via and Record-Route."""
    reliable: bool
    """True for everything but UDP: no retransmissions, and replies go over the same connection."""
    connection: int = 0
    """Number of the connection, never reused while the process lives; 0 for UDP."""
    listener: int = 0
    """Index of the listener (configuration order) whose socket this is."""
    local_host: str = ""
    """The local IP address, where a wildcard listener learned it from the packet; else empty."""
    seen_at: float = 0.0
    """When it last carried a message from the peer (the driver's monotonic seconds)."""
    peer_names: tuple[str, ...] = ()
    """The domains that the peer's verified certificate names, in lower case; empty where there is none (RFC 5922 §7.1).
    Compare them whole: a wildcard in one means nothing (§7.2)."""

    @property
    def label(self) -> str:
        """``UDP 192.0.2.7:5060``, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport} {host}:{self.port}"
