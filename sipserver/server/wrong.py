"""What is wrong with a configuration beyond what its types can say: keys that do not go together, names, addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final

from sipserver.calls.places import country_code
from sipserver.server import tables
from sipserver.server.sections import (
    ALGORITHMS,
    SECURE,
    TRANSPORTS,
    Config,
    DnsSection,
    Listener,
    MediaSection,
    ServerSection,
    SiteEntry,
    TlsSection,
    TurnSection,
    WebSocketSection,
    is_domain,
    is_network,
    name_server,
    split_host_port,
)
from sipserver.server.wrong_policy import policy_faults

_INTERFACE: Final = re.compile(r"[!-.0-~]{1,15}\Z")
"""Linux: at most 15 characters, no white space and no slash."""
_ORIGIN: Final = re.compile(
    r"(\*|null|[A-Za-z][A-Za-z0-9+.-]*://(\*\.)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)\Z"
)
_PATH: Final = re.compile(r"/[!->@-~]{0,199}\Z")
"""No query: what stands behind a question mark is not looked at."""
_RELAY_INTERFACE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_TURN_URL: Final = re.compile(
    r"(turns?|stuns?):([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(\?transport=(udp|tcp))?\Z"
)
"""RFC 7065 §3.1, and RFC 7064 beside it."""
_PRINTABLE: Final = re.compile(r"[ -~]{0,100}\Z")


def faults_of(config: Config) -> Iterator[str]:
    """One sentence for each, which begins with the key: ``server.domains: is empty; ...``."""
    yield from _server_faults(config.server)
    yield from _tls_faults(config)
    registrar = config.registrar
    if not registrar.min_expires <= registrar.default_expires <= registrar.max_expires:
        yield "registrar: wanted is min_expires <= default_expires <= max_expires"
    if config.sessions.min > config.sessions.expires:
        yield "sessions: wanted is min <= expires"
    if config.timers.t1 > config.timers.t2:
        yield "timers: wanted is t1 <= t2"
    if config.limits.body > config.limits.message:
        yield "limits.body: a body cannot be longer than limits.message"
    yield from _algorithm_faults(config.authentication.algorithms, "authentication.algorithms")
    for position, peer in enumerate(config.proxy.peers, 1):
        if not is_network(peer):
            yield (
                f"proxy.peers[{position}]: {tables.shown(peer)} is not allowed; "
                'wanted is an IP address or a network such as "192.0.2.0/24"'
            )
    if config.proxy.inbound == "peers" and not config.proxy.peers:
        yield 'proxy.peers: is empty, but proxy.inbound is "peers"'
    yield from _dns_faults(config.dns)
    yield from policy_faults(config)
    for position, site in enumerate(config.location.sites, 1):
        for fault in _site_faults(site, config.location.sites[: position - 1]):
            yield f"location.sites[{position}]: {fault}"
    yield from _websocket_faults(config.websocket)
    yield from _media_faults(config.media)
    yield from _turn_faults(config.turn)
    if config.metrics.listen and split_host_port(config.metrics.listen) is None:
        yield f"metrics.listen: {tables.shown(config.metrics.listen)} is not allowed; wanted is HOST:PORT"


def _websocket_faults(websocket: WebSocketSection) -> Iterator[str]:
    for position, origin in enumerate(websocket.origins, 1):
        if not _ORIGIN.match(origin):
            yield (
                f"websocket.origins[{position}]: {tables.shown(origin)} is not allowed; wanted is an origin such as "
                '"https://phone.example.com", "https://*.example.com", "null" or "*"'
            )
    if websocket.path and not _PATH.match(websocket.path):
        yield f'websocket.path: {tables.shown(websocket.path)} is not allowed; wanted is a path such as "/sip"'


def _media_faults(media: MediaSection) -> Iterator[str]:
    for position, relay in enumerate(media.relay, 1):
        place = split_host_port(relay)
        if place is None or place[1] == 0:
            yield f"media.relay[{position}]: {tables.shown(relay)} is not allowed; wanted is HOST:PORT, by IP address"
        elif relay in media.relay[: position - 1]:
            yield f"media.relay[{position}]: {tables.shown(relay)} is there twice"
    if len(media.interfaces) not in (0, 2):
        yield "media.interfaces: wanted are two names, or none"
    for position, name in enumerate(media.interfaces, 1):
        if not _RELAY_INTERFACE.match(name):
            yield f"media.interfaces[{position}]: {tables.shown(name)} is not allowed; wanted is a name of rtpengine's"


def _dns_faults(dns: DnsSection) -> Iterator[str]:
    if dns.servers:
        yield from _name_server_faults(dns)
    if dns.ttl_min > dns.ttl_max:
        yield "dns: wanted is ttl_min <= ttl_max"


def _name_server_faults(dns: DnsSection) -> Iterator[str]:
    for position, server in enumerate(dns.servers, 1):
        if name_server(server) is None:
            yield (
                f"dns.servers[{position}]: {tables.shown(server)} is not allowed; "
                'wanted is an IP address such as "192.0.2.53", or "192.0.2.53:5353"'
            )
    # dnspython takes as long to import as all else that commands need of the configuration.
    from sipserver.transport.nameservers import MAX_SERVERS  # noqa: PLC0415

    if len(dns.servers) > MAX_SERVERS:
        yield f"dns.servers: {len(dns.servers)} are too many; wanted are at most {MAX_SERVERS}"


def _turn_faults(turn: TurnSection) -> Iterator[str]:
    for position, url in enumerate(turn.urls, 1):
        if not _TURN_URL.match(url):
            yield (
                f"turn.urls[{position}]: {tables.shown(url)} is not allowed; wanted is a URL such as "
                '"turn:turn.example.com:3478?transport=udp"'
            )


def _site_faults(site: SiteEntry, before: Sequence[SiteEntry]) -> Iterator[str]:
    keys = (site.network, site.interface, site.access)
    if sum(map(bool, keys)) != 1:
        yield "wanted is one of network, interface and access"
    elif site.network and not is_network(site.network):
        yield f'network: {tables.shown(site.network)} is not allowed; wanted is a network such as "192.0.2.0/24"'
    elif any(_same_place(site, other) for other in before):
        yield f"{tables.shown(''.join(keys))} is there twice"
    if site.interface and not _INTERFACE.match(site.interface):
        yield f'interface: {tables.shown(site.interface)} is not allowed; wanted is a name such as "eth0"'
    if not (site.site or site.country or site.region or site.city):
        yield "says nothing; wanted is at least one of site, country, region and city"
    if site.country and country_code(site.country) is None:
        yield f'country: {tables.shown(site.country)} is not allowed; wanted are two letters (ISO 3166-1) such as "AT"'
    for key, value in (("site", site.site), ("region", site.region), ("city", site.city), ("access", site.access)):
        if len(value) > 100 or not value.isprintable():
            yield f"{key}: {tables.shown(value)} is not allowed; wanted are at most 100 printable characters"


def _same_place(one: SiteEntry, other: SiteEntry) -> bool:
    if one.network and other.network:
        return is_network(other.network) and ipaddress.ip_network(one.network, strict=False) == ipaddress.ip_network(
            other.network, strict=False
        )
    return (one.network, one.interface, one.access) == (other.network, other.interface, other.access)


def _server_faults(server: ServerSection) -> Iterator[str]:
    if not server.domains:
        yield "server.domains: is empty; wanted is at least one domain"
    for position, domain in enumerate(server.domains, 1):
        if not is_domain(domain):
            yield (
                f"server.domains[{position}]: {tables.shown(domain)} is not allowed; "
                'wanted is a domain name such as "example.com", or an IPv4 address'
            )
    if not server.listen:
        yield "server.listen: is empty; wanted is at least one listener"
    addresses = [entry if isinstance(entry, str) else entry.address for entry in server.listen]
    for position, address in enumerate(addresses, 1):
        fault = _address_fault(address)
        if fault:
            yield f"server.listen[{position}]: {fault}"
        elif address in addresses[: position - 1] and not address.endswith(":0"):
            yield f"server.listen[{position}]: {tables.shown(address)} is there twice"
    for position, entry in enumerate(server.listen, 1):
        if isinstance(entry, Listener) and entry.algorithms is not None:
            yield from _algorithm_faults(entry.algorithms, f"server.listen[{position}].algorithms")
        if isinstance(entry, Listener) and entry.name:
            yield from _name_faults(entry, f"server.listen[{position}].name")
    if not server.data_dir:
        yield "server.data_dir: is empty; wanted is a folder"
    for key, value in (("node", server.node), ("agent", server.agent)):
        if not _PRINTABLE.match(value):
            yield f"server.{key}: {tables.shown(value)} is not allowed; wanted is at most 100 characters of ASCII"


def _name_faults(listener: Listener, at: str) -> Iterator[str]:
    if not is_domain(listener.name):
        yield f"{at}: {tables.shown(listener.name)} is not allowed; wanted is a host name"
    if listener.address.lower().startswith("udp:"):
        yield f"{at}: UDP is known by its address alone; wanted is a name for tcp, tls, ws or wss"


def _address_fault(text: str) -> str:
    transport, _, address = text.partition(":")
    if transport.lower() not in TRANSPORTS or split_host_port(address) is None:
        return (
            f"{tables.shown(text)} is not allowed; wanted is udp:HOST:PORT, or {', '.join(TRANSPORTS[1:])} for udp, "
            "HOST an IP address (IPv6 in brackets), PORT from 0 to 65535"
        )
    return ""


def _tls_faults(config: Config) -> Iterator[str]:
    tls = config.tls
    if bool(tls.certificate) != bool(tls.key):
        yield "tls: wanted are certificate and key, or neither"
    domains: set[str] = set()
    for position, entry in enumerate(tls.certificates, 1):
        at = f"tls.certificates[{position}]"
        if not (entry.domains and entry.certificate and entry.key):
            yield f"{at}: wanted are domains, certificate and key"
        for domain in entry.domains:
            if not is_domain(domain):
                yield f"{at}: {tables.shown(domain)} is not allowed; wanted is a domain name"
            if domain.lower() in domains:
                yield f"{at}: {tables.shown(domain)} is there twice"
            domains.add(domain.lower())
    for position, listener in enumerate(config.listeners, 1):
        yield from _secure_listener_faults(listener, tls, f"server.listen[{position}]")


def _secure_listener_faults(listener: Listener, tls: TlsSection, at: str) -> Iterator[str]:
    if listener.address.partition(":")[0].lower() not in SECURE:
        return
    if not tls.certificate:
        yield f"{at}: {tables.shown(listener.address)} needs tls.certificate and tls.key"
    if listener.clients != "none" and not tls.client_ca:
        yield f"{at}: whose certificates are believed of clients? wanted is tls.client_ca"


def _algorithm_faults(algorithms: Sequence[str], at: str) -> Iterator[str]:
    if not algorithms:
        yield f"{at}: is empty; wanted is at least one of {', '.join(ALGORITHMS)}"
    if len(set(algorithms)) < len(algorithms):
        yield f"{at}: an algorithm is there twice"
