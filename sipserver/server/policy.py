"""From the configuration to what the proxy knows of peers, routes, permissions and addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from sipserver.proxy.dialling import DialPlan, NumberRule, compile_pattern
from sipserver.proxy.peers import Peer, PeerTable
from sipserver.proxy.privacy import ENDPOINTS, NOBODY
from sipserver.proxy.rate import Meter
from sipserver.proxy.static_routes import Destinations, Permissions, StaticRoute, StaticRoutes
from sipserver.server.sections import Config, Network, NumberEntry, PeerEntry
from sipserver.sip.grammar import bracketed
from sipserver.sip.uri import Uri, canonical_aor

BURST = 10
"""Seconds' worth of a rate that may come at once."""


def peers(config: Config) -> PeerTable:
    """The named peers."""
    return PeerTable([_peer(entry) for entry in config.proxy.named_peers])


def _peer(entry: PeerEntry) -> Peer:
    return Peer(
        entry.name,
        networks=tuple(ip_network(text, strict=False) for text in entry.networks),
        certificates=frozenset(name.lower() for name in entry.certificates),
        inbound=entry.direction != "out",
        callable=frozenset(canonical_aor(text) for text in entry.may_call),
        trusted=entry.trusted,
        target=hop_of(entry),
        rate=meter(entry.rate),
        max_calls=entry.calls,
    )


def meter(rate: float) -> Meter:
    """A meter for this rate a second."""
    return Meter(rate, rate * BURST)


def hop_of(entry: PeerEntry) -> Uri | None:
    """Where requests to a named peer are sent: its target, else its only address; None where neither is known."""
    if entry.target:
        return Uri.parse(entry.target)
    if len(entry.networks) != 1:
        return None
    network = ip_network(entry.networks[0], strict=False)
    return Uri.parse(f"sip:{bracketed(str(network.network_address))}") if network.num_addresses == 1 else None


def static_routes(config: Config, named: PeerTable) -> StaticRoutes:
    """The routes for other domains and for numbers."""
    made = []
    for entry in config.proxy.routes:
        peer = named.peers.get(entry.peer)
        hop = Uri.parse(entry.to) if peer is None else peer.target
        assert hop is not None, "the configuration was checked"
        made.append(StaticRoute(hop, entry.domain.lower(), entry.prefix, entry.priority, peer))
    return StaticRoutes(made)


def permissions(config: Config) -> Permissions:
    """Where subscribers may send to, where ``proxy.outbound`` is false."""
    given = config.proxy
    own = {canonical_aor(who): _destinations(entries) for who, entries in given.outbound_of.items()}
    return Permissions(_destinations(("*",) if given.outbound else given.outbound_to), own)


def _destinations(entries: tuple[str, ...]) -> Destinations:
    return Destinations((entry.lower() for entry in entries if entry != "*"), anywhere="*" in entries)


def dial_plan(config: Config) -> DialPlan:
    """The aliases, and the rules for numbers."""
    return DialPlan(aliases(config), [_rule(entry) for entry in config.addresses.numbers])


def aliases(config: Config) -> Mapping[str, tuple[str, ...]]:
    """``addresses.aliases`` with every address canonical."""
    return {
        canonical_aor(alias): tuple(
            canonical_aor(other) for other in ((stands_for,) if isinstance(stands_for, str) else stands_for)
        )
        for alias, stands_for in config.addresses.aliases.items()
    }


def _rule(entry: NumberEntry) -> NumberRule:
    user, at, domain = entry.to.rpartition("@")
    to = f"{user}@{domain.lower()}" if at else entry.to
    pattern = compile_pattern(entry.pattern) if entry.pattern else None
    return NumberRule(to, entry.prefix, pattern, entry.context)


def asserted(config: Config, named: PeerTable) -> str:
    """Who is told the address that a caller proved to have; NOBODY as well where there is nobody to tell."""
    chosen = config.proxy.asserted_identity
    if chosen == ENDPOINTS or any(peer.trusted for peer in named.peers.values()):
        return chosen
    return NOBODY


def trusted_networks(config: Config) -> tuple[Network, ...]:
    """Who is believed about access networks: plain peers, and named ones that are trusted."""
    named = [text for entry in config.proxy.named_peers if entry.trusted for text in entry.networks]
    return (*config.peers, *(ip_network(text, strict=False) for text in named))
