"""What is wrong with named peers, routes, permissions, aliases and rules for numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sipserver.proxy.dialling import MAX_NUMBER, DialPlan, compile_pattern, fits
from sipserver.proxy.static_routes import is_prefix
from sipserver.server import policy, tables
from sipserver.server.sections import Config, NumberEntry, PeerEntry, RouteEntry, is_domain, is_network
from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri, canonical_aor

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,40}\Z")
_CONTEXT: Final = re.compile(r"\+[0-9]{1,15}\Z")
_DIGITS: Final = re.compile(r"\+?[0-9*#]*\Z")
_GROUP: Final = re.compile(r"\\[1-9]")


def policy_faults(config: Config) -> Iterator[str]:
    """One sentence for each, which begins with the key."""
    domains = frozenset(domain.lower() for domain in config.server.domains)
    proxy = config.proxy
    for position, peer in enumerate(proxy.named_peers, 1):
        for fault in _peer_faults(peer, proxy.named_peers[: position - 1], domains):
            yield f"proxy.named_peers[{position}]: {fault}"
    for position, route in enumerate(proxy.routes, 1):
        for fault in _route_faults(route, config, domains):
            yield f"proxy.routes[{position}]: {fault}"
    for position, entry in enumerate(proxy.outbound_to, 1):
        if not _is_destination(entry):
            yield f"proxy.outbound_to[{position}]: {_no_destination(entry)}"
    for who, entries in proxy.outbound_of.items():
        if not _is_ours(who, domains):
            yield f"proxy.outbound_of: {tables.shown(who)} is not allowed; wanted is an address or a domain of ours"
        for entry in entries:
            if not _is_destination(entry):
                yield f"proxy.outbound_of.{tables.shown(who)}: {_no_destination(entry)}"
    yield from _alias_faults(config, domains)
    for position, rule in enumerate(config.addresses.numbers, 1):
        for fault in _number_faults(rule):
            yield f"addresses.numbers[{position}]: {fault}"


def _peer_faults(peer: PeerEntry, before: tuple[PeerEntry, ...], domains: frozenset[str]) -> Iterator[str]:
    if not _NAME.match(peer.name):
        yield f"name: {tables.shown(peer.name)} is not allowed; wanted are 1 to 40 letters, digits, '.', '_' and '-'"
    elif any(peer.name == other.name for other in before):
        yield f"name: {tables.shown(peer.name)} is there twice"
    if not peer.networks and not peer.certificates and peer.direction != "out":
        yield "wanted are networks or certificates, or who it is that calls cannot be told"
    for network in peer.networks:
        if not is_network(network):
            yield f'networks: {tables.shown(network)} is not allowed; wanted is a network such as "192.0.2.0/24"'
        elif any(network in other.networks for other in before):
            yield f"networks: {tables.shown(network)} is another peer's as well"
    for name in peer.certificates:
        if not is_domain(name):
            yield f'certificates: {tables.shown(name)} is not allowed; wanted is a name such as "sip.example.org"'
        elif any(name in other.certificates for other in before) and not peer.networks:
            yield f"certificates: {tables.shown(name)} is another peer's as well"
    for entry in peer.may_call:
        if not _is_ours(entry, domains):
            yield f"may_call: {tables.shown(entry)} is not allowed; wanted is an address or a domain of ours"
    if peer.target and not _is_hop(peer.target):
        yield f"target: {_no_hop(peer.target)}"


def _route_faults(route: RouteEntry, config: Config, domains: frozenset[str]) -> Iterator[str]:
    if bool(route.domain) == bool(route.prefix):
        yield "wanted is one of domain and prefix"
    if bool(route.peer) == bool(route.to):
        yield "wanted is one of peer and to"
    if route.domain and route.domain != "*" and not is_domain(route.domain.removeprefix("*.")):
        yield f'domain: {tables.shown(route.domain)} is not allowed; wanted is a domain, "*.example.org", or "*"'
    elif route.domain.lower() in domains:
        yield f"domain: {tables.shown(route.domain)} is ours, so nothing for it goes elsewhere"
    if route.prefix and route.prefix != "*" and not is_prefix(route.prefix):
        yield f'prefix: {tables.shown(route.prefix)} is not allowed; wanted are digits, such as "+43", or "*"'
    if route.to and not _is_hop(route.to):
        yield f"to: {_no_hop(route.to)}"
    if route.peer:
        peers = {peer.name: peer for peer in config.proxy.named_peers}
        peer = peers.get(route.peer)
        if peer is None:
            near = tables.nearest(route.peer, peers)
            yield f"peer: there is no peer {tables.shown(route.peer)} in proxy.named_peers{near}"
        elif peer.direction == "in":
            yield f'peer: {tables.shown(route.peer)} has the direction "in": nothing may be sent to it'
        elif policy.hop_of(peer) is None:
            yield f"peer: {tables.shown(route.peer)} has neither a target nor a single address in networks"


def _alias_faults(config: Config, domains: frozenset[str]) -> Iterator[str]:
    sound = True
    for alias, stands_for in config.addresses.aliases.items():
        if not _is_ours(alias, domains, numbers=True) or alias.lower() in domains:
            sound = False
            yield f"addresses.aliases: {tables.shown(alias)} is not allowed; wanted is an address of ours"
        for other in (stands_for,) if isinstance(stands_for, str) else stands_for:
            if not _is_address(other):
                sound = False
                yield (
                    f"addresses.aliases.{tables.shown(alias)}: {tables.shown(other)} is not allowed; "
                    'wanted is an address such as "alice@example.test"'
                )
    if sound:
        plan = DialPlan(policy.aliases(config))
        for alias in policy.aliases(config):
            if not plan.meant(alias):
                yield f"addresses.aliases.{tables.shown(alias)}: stands for nobody, or in the end for itself alone"


def _number_faults(rule: NumberEntry) -> Iterator[str]:
    if bool(rule.pattern) == bool(rule.prefix) and (rule.pattern or not rule.context):
        yield "wanted is one of prefix and pattern"
    if rule.prefix and not _DIGITS.match(rule.prefix):
        yield f"prefix: {tables.shown(rule.prefix)} is not allowed; wanted are digits, '*' and '#', after '+' or not"
    if rule.context and not _CONTEXT.match(rule.context):
        yield f'context: {tables.shown(rule.context)} is not allowed; wanted is the beginning of a number such as "+43"'
    if rule.pattern:
        pattern = compile_pattern(rule.pattern)
        if pattern is None:
            yield (
                f"pattern: {tables.shown(rule.pattern)} is not allowed; wanted are at most 100 characters of digits, "
                r"\d, ., \+, \*, # and [...], with at most three of ?, *, + and {m,n}, and groups that are not repeated"
            )
        elif not fits(pattern, rule.to):
            yield f"to: {tables.shown(rule.to)} names a group that the pattern has not"
    elif "\\" in rule.to:
        yield f"to: {tables.shown(rule.to)} names a group, but there is no pattern"
    plain = _GROUP.sub("0", rule.to)
    if not (_is_address(plain) and "@" in plain) and not (_DIGITS.match(plain) and len(plain) <= MAX_NUMBER):
        yield f"to: {tables.shown(rule.to)} is not allowed; wanted are digits, or an address"


def _is_address(text: str) -> bool:
    """Whether this is an address as people write it, or a global number."""
    try:
        aor = canonical_aor(text)
    except SipError:
        return False
    return "@" in aor or aor.startswith("+")


def _is_ours(text: str, domains: frozenset[str], *, numbers: bool = False) -> bool:
    """Whether this is a domain of ours or an address of one; with ``numbers``, a global number will do."""
    if text.lower() in domains:
        return True
    if not _is_address(text):
        return False
    aor = canonical_aor(text)
    return aor.rpartition("@")[2] in domains or (numbers and aor.startswith("+") and "@" not in aor)


def _is_destination(entry: str) -> bool:
    return entry == "*" or is_prefix(entry) or is_domain(entry.removeprefix("*."))


def _no_destination(entry: str) -> str:
    return f'{tables.shown(entry)} is not allowed; wanted is a domain, "*.example.org", digits such as "+43", or "*"'


def _is_hop(text: str) -> bool:
    """Whether requests can be sent to this URI."""
    try:
        uri = Uri.parse(text)
    except SipError:
        return False
    return uri.is_sip and bool(uri.host) and uri.user is None and not uri.headers


def _no_hop(text: str) -> str:
    return f'{tables.shown(text)} is not allowed; wanted is a URI such as "sip:192.0.2.9:5060;transport=tcp"'
