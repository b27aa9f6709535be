"""Other servers that the operator has named: who they are, what they may, and how much.

A peer is known by the address that it sends from, by the names in the certificate that it proved, or, where its entry
has both, by both. A named peer may do what its own entry says, whatever strangers in general may do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from sipserver.proxy.rate import Meter, unlimited
from sipserver.sip.flow import Flow
from sipserver.sip.uri import Uri

MAX_HOSTS: Final = 20_000
"""Hosts of which it is remembered which peer they are."""


@dataclass(slots=True, eq=False)
class Peer:
    """One named peer."""

    name: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    certificates: frozenset[str] = frozenset()
    """Names of which its certificate has to hold one, lower case."""
    inbound: bool = True
    """Whether it may call our addresses."""
    callable: frozenset[str] = frozenset()
    """The domains and addresses of ours that it may call; empty for all."""
    trusted: bool = False
    """Whether it belongs to our trust domain (RFC 3325 §2.3): believed about identities, and told them."""
    target: Uri | None = None
    """Where requests to it are sent."""
    rate: Meter = field(default_factory=unlimited)
    """Requests outside of dialogs, in both directions."""
    max_calls: int = 0
    """Calls at once, in both directions; 0 for as many as there are."""
    calls: set[str] = field(default_factory=set)
    """Keys of its calls, and of some that have ended; only kept where ``max_calls`` bounds them."""
    received: int = 0
    """Requests outside of dialogs that came from it."""
    sent: int = 0
    """Requests outside of dialogs of which it was the first way."""
    looked_at: float = 0.0
    """When calls that have ended were last put out of ``calls``."""

    def may_call(self, aor: str) -> bool:
        """Whether it may call this address of ours."""
        return not self.callable or aor in self.callable or aor.rpartition("@")[2] in self.callable

    def has_room(self, now: float, is_open: Callable[[str], bool]) -> bool:
        """Whether it may have one more call. Looks which have ended at most once a second; ``now`` in seconds."""
        if not self.max_calls or len(self.calls) < self.max_calls:
            return True
        # A clock that was set back is no reason to wait.
        if 0.0 <= now - self.looked_at < 1.0:
            return False
        self.looked_at = now
        self.calls = {key for key in self.calls if is_open(key)}
        return len(self.calls) < self.max_calls

    def began(self, key: str) -> None:
        """One more call of it, with this key."""
        if self.max_calls:
            self.calls.add(key)


class PeerTable:
    """The named peers, in the order of the configuration."""

    __slots__ = ("_by_certificate", "_by_host", "_by_network", "peers")

    def __init__(self, peers: Sequence[Peer] = ()) -> None:
        self.peers = {peer.name: peer for peer in peers}
        self._by_certificate: dict[str, list[Peer]] = {}
        for peer in peers:
            for name in peer.certificates:
                self._by_certificate.setdefault(name, []).append(peer)
        # The smallest network that fits counts.
        networks = [(network, peer) for peer in peers if not peer.certificates for network in peer.networks]
        self._by_network = sorted(networks, key=_width)
        self._by_host: dict[str, Peer | None] = {}

    def __bool__(self) -> bool:
        return bool(self.peers)

    def __len__(self) -> int:
        return len(self.peers)

    def at(self, host: str) -> Peer | None:
        """The peer that is known by sending from this IP address."""
        if not self._by_network:
            return None
        if host in self._by_host:
            return self._by_host[host]
        if len(self._by_host) >= MAX_HOSTS:
            self._by_host.clear()
        found: Peer | None = None
        for network, peer in self._by_network:
            if _is_in(host, (network,)):
                found = peer
                break
        self._by_host[host] = found
        return found

    def of(self, flow: Flow) -> Peer | None:
        """The peer at the other end of a flow."""
        for name in flow.peer_names:
            for peer in self._by_certificate.get(name, ()):
                if not peer.networks or _is_in(flow.host, peer.networks):
                    return peer
        return self.at(flow.host)

    def go_on_from(self, before: PeerTable) -> None:
        """After a reload: what was counted of a peer of the same name goes on to count."""
        for name, peer in self.peers.items():
            known = before.peers.get(name)
            if known is None:
                continue
            peer.received, peer.sent = known.received, known.sent
            if peer.max_calls:
                peer.calls = set(known.calls)


def _is_in(host: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    # A socket for both families shows IPv4 as ::ffff:192.0.2.7.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any([(mapped or address) in network for network in networks])


def _width(entry: tuple[IPv4Network | IPv6Network, Peer]) -> int:
    return -entry[0].prefixlen
