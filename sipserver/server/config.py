"""The configuration: what may be set, its defaults, and how a file of it is read.

The classes are the reference: ``config/sipserver.toml`` shows each key with its default, and a test
holds the two together. A wrong file is reported whole, not by its first fault: every fault names the
file, the key and what is allowed there.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sipserver.calls.places import country_code
from sipserver.server import tables

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALGORITHMS: Final = ("MD5", "SHA-256", "SHA-512-256")
TRANSPORTS: Final = ("udp", "tcp")

_DOMAIN: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")
_INTERFACE: Final = re.compile(r"[!-.0-~]{1,15}\Z")
"""Linux: at most 15 characters, no white space and no slash."""
_PRINTABLE: Final = re.compile(r"[ -~]{0,100}\Z")

Algorithm = Literal["MD5", "SHA-256", "SHA-512-256"]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Bytes = Annotated[int, Meta(ge=256, le=16_777_216)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Lifetime = Annotated[int, Meta(ge=1, le=31_536_000)]


class ConfigError(Exception):
    """A configuration that cannot be used: one sentence for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in here."""


class Listener(Section, frozen=True):
    """One entry of ``server.listen`` that is a table; what it leaves out is as in ``[authentication]``."""

    address: str
    """``udp:HOST:PORT`` or ``tcp:HOST:PORT``, IPv6 in brackets."""
    algorithms: tuple[Algorithm, ...] | None = None
    qop: bool | None = None


class ServerSection(Section, frozen=True):
    """``[server]``"""

    domains: tuple[str, ...] = ("example.test",)
    """The domains whose addresses live here."""
    listen: tuple[str | Listener, ...] = ("udp:127.0.0.1:5060", "tcp:127.0.0.1:5060")
    data_dir: str = "var"
    """Relative to the folder of the configuration file."""
    node: str = ""
    """Name of this machine in call records; empty for its host name."""
    agent: str = "sipserver"
    """The Server header of our own answers; empty for none."""
    shutdown_wait: Seconds = 5.0
    """How long a stop waits for what is in flight."""


class LimitsSection(Section, frozen=True):
    """``[limits]``"""

    message: Bytes = 65_535
    body: Bytes = 60_000
    headers: Annotated[int, Meta(ge=16, le=4096)] = 128
    line: Bytes = 8_192
    uri: Bytes = 1_024
    transactions: Count = 100_000
    """Server transactions at once; beyond them requests are answered 503."""
    calls: Count = 50_000
    """Calls that are remembered at once."""


class TimersSection(Section, frozen=True):
    """``[timers]``, seconds (RFC 3261 table 4)."""

    t1: Annotated[float, Meta(ge=0.01, le=10)] = 0.5
    t2: Annotated[float, Meta(ge=0.01, le=60)] = 4.0
    t4: Annotated[float, Meta(ge=0.01, le=60)] = 5.0
    c: Annotated[float, Meta(ge=1, le=3600)] = 185.0
    d: Annotated[float, Meta(ge=0.01, le=600)] = 32.0


class RegistrarSection(Section, frozen=True):
    """``[registrar]``, seconds."""

    min_expires: Lifetime = 60
    max_expires: Lifetime = 3600
    default_expires: Lifetime = 3600
    max_contacts: Annotated[int, Meta(ge=1, le=100)] = 10


class AuthenticationSection(Section, frozen=True):
    """``[authentication]``"""

    algorithms: tuple[Algorithm, ...] = ("MD5",)
    """Strongest first, one challenge each."""
    qop: bool = True
    """False offers the RFC 2069 form."""
    nonce_lifetime: Annotated[float, Meta(ge=5, le=86_400)] = 300.0
    replay_entries: Count = 100_000
    """Nonces whose use is remembered."""


class ProxySection(Section, frozen=True):
    """``[proxy]``"""

    inbound: Literal["nobody", "peers", "anyone"] = "nobody"
    """Which strangers may call our subscribers."""
    peers: tuple[str, ...] = ()
    """Addresses and networks that count as peers."""
    outbound: bool = False
    """Whether subscribers may call other domains."""
    max_forwards: Annotated[int, Meta(ge=1, le=255)] = 70
    max_breadth: Annotated[int, Meta(ge=1, le=1000)] = 60
    max_targets: Annotated[int, Meta(ge=1, le=100)] = 30
    datagram: Annotated[int, Meta(ge=512, le=65_000)] = 1300
    """Requests of more bytes go by TCP where the target allows."""


class SessionsSection(Section, frozen=True):
    """``[sessions]``, seconds unless said otherwise."""

    mode: Literal["insert", "observe", "off"] = "insert"
    """What this server does about session timers (RFC 4028)."""
    expires: Lifetime = 1800
    """The interval that is asked for."""
    min: Lifetime = 90
    """The shortest interval that endpoints may choose."""
    grace: Annotated[float, Meta(ge=0, le=3600)] = 32.0
    """How long a sign of life may come late."""
    probe: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """How long a side may be silent until it is asked; 0 for never."""
    max_hours: Annotated[float, Meta(gt=0, le=8760)] = 24.0
    """Hours that a call may go without a sign of life."""


class CallsSection(Section, frozen=True):
    """``[calls]``"""

    network: Literal["prefix", "exact", "none"] = "prefix"
    """How client addresses are kept in records."""
    prefix4: Annotated[int, Meta(ge=0, le=32)] = 24
    prefix6: Annotated[int, Meta(ge=0, le=128)] = 56


class SiteEntry(Section, frozen=True):
    """One entry of ``location.sites``: one of the first three, and at least one of the others."""

    network: str = ""
    """An IP address or network."""
    interface: str = ""
    """The interface that the kernel routes over to whoever is there."""
    access: str = ""
    """What ``P-Access-Network-Info`` of a peer begins with: ``dsl-location=vienna-``."""
    site: str = ""
    country: str = ""
    """ISO 3166-1, two letters."""
    region: str = ""
    city: str = ""


class LocationSection(Section, frozen=True):
    """``[location]``"""

    precision: Literal["none", "country", "region", "city"] = "region"
    """What is finer is not stored."""
    sites: tuple[SiteEntry, ...] = ()
    database: str = ""
    """An ``.mmdb`` file, relative to the folder of the configuration file; empty for none."""


class StorageSection(Section, frozen=True):
    """``[storage]``"""

    synchronous: Literal["NORMAL", "FULL", "EXTRA"] = "FULL"
    commit_interval_ms: Annotated[float, Meta(ge=0, le=1000)] = 10.0
    """The shortest time between two commits of one store."""
    queue_rows: Annotated[int, Meta(ge=100, le=10_000_000)] = 100_000
    """Rows that may wait for a store."""


class UdpSection(Section, frozen=True):
    """``[udp]``"""

    receive_buffer: Annotated[int, Meta(ge=4096, le=1_073_741_824)] = 4_194_304
    """Bytes the kernel is asked to hold for us."""


class TcpSection(Section, frozen=True):
    """``[tcp]``, seconds, connections and bytes."""

    idle: Seconds = 3605.0
    silent: Seconds = 10.0
    """Until the first whole message."""
    partial: Seconds = 10.0
    """From the first byte of a message to its last."""
    connect: Annotated[float, Meta(ge=0.1, le=60)] = 3.0
    connections: Count = 10_000
    connections_per_source: Count = 100
    write_buffer: Annotated[int, Meta(ge=65_536, le=1_073_741_824)] = 1_048_576
    """Bytes that may wait for a peer that does not read."""


class LogSection(Section, frozen=True):
    """``[log]``"""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    addresses: Literal["show", "party"] = "show"


class MetricsSection(Section, frozen=True):
    """``[metrics]``"""

    listen: str = ""
    """``HOST:PORT`` of the Prometheus page; empty for none."""


class Config(Section, frozen=True):
    """Everything that can be set, checked."""

    server: ServerSection = ServerSection()
    limits: LimitsSection = LimitsSection()
    timers: TimersSection = TimersSection()
    registrar: RegistrarSection = RegistrarSection()
    authentication: AuthenticationSection = AuthenticationSection()
    proxy: ProxySection = ProxySection()
    sessions: SessionsSection = SessionsSection()
    calls: CallsSection = CallsSection()
    location: LocationSection = LocationSection()
    storage: StorageSection = StorageSection()
    udp: UdpSection = UdpSection()
    tcp: TcpSection = TcpSection()
    log: LogSection = LogSection()
    metrics: MetricsSection = MetricsSection()

    @property
    def data_dir(self) -> Path:
        """The folder of the stores; absolute when it came from a file."""
        return Path(self.server.data_dir)

    @property
    def node(self) -> str:
        """The name of this machine in records."""
        return self.server.node or socket.gethostname()

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Every listener as a table, with nothing left out."""
        shared = self.authentication
        full = []
        for entry in self.server.listen:
            each = Listener(address=entry) if isinstance(entry, str) else entry
            algorithms = shared.algorithms if each.algorithms is None else each.algorithms
            qop = shared.qop if each.qop is None else each.qop
            full.append(Listener(address=each.address, algorithms=algorithms, qop=qop))
        return tuple(full)

    @property
    def peers(self) -> tuple[Network, ...]:
        """``proxy.peers`` as networks."""
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.proxy.peers)

    @property
    def location_database(self) -> Path | None:
        """The operator's database of networks, or None where there is none."""
        return Path(self.location.database) if self.location.database else None

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of the metrics page, or None where there is none."""
        return split_host_port(self.metrics.listen) if self.metrics.listen else None


def load(
    path: Path | None = None,
    *,
    domains: Sequence[str] = (),
    listen: Sequence[str] = (),
    data_dir: Path | None = None,
) -> Config:
    """The configuration of this file, or the defaults, with the given values in place of the file's.

    Raises ConfigError, which names every fault.
    """
    given: dict[str, Any] = {"domains": list(domains), "listen": list(listen)}
    if data_dir is not None:
        given["data_dir"] = str(data_dir)
    try:
        read = tables.read(path) if path is not None else {}
        config = tables.convert(_with_given(read, given), Config, str(path))
    except tables.TableError as error:
        raise ConfigError(error.problems) from None
    problems = [f"{_origin(fault, given, path)}: {fault}" for fault in _faults(config)]
    if problems:
        raise ConfigError(problems)
    server = config.server
    domains = tuple(dict.fromkeys(domain.lower() for domain in server.domains))
    # Relative to the file, so that the server and every command that reads it mean the same stores.
    folder = path.parent / server.data_dir if path is not None and data_dir is None else Path(server.data_dir)
    server = msgspec.structs.replace(server, domains=domains, data_dir=os.path.normpath(folder))
    location = config.location
    if path is not None and location.database:
        location = msgspec.structs.replace(location, database=os.path.normpath(path.parent / location.database))
    return msgspec.structs.replace(config, server=server, location=location)


def split_host_port(text: str) -> tuple[str, int] | None:
    """``HOST:PORT``, IPv6 in brackets, taken apart; None where it is something else."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        return str(ipaddress.IPv4Address(host)), int(port)
    except ValueError:
        return ("127.0.0.1", int(port)) if host.lower() == "localhost" else None


def _with_given(read: tables.Tables, given: dict[str, Any]) -> tables.Tables:
    server = read.get("server", {})
    if not isinstance(server, dict):
        return read
    return {**read, "server": {**server, **{key: value for key, value in given.items() if value}}}


def _origin(fault: str, given: dict[str, Any], path: Path | None) -> str:
    """Who set what is wrong."""
    key = fault.removeprefix("server.").partition(":")[0].partition("[")[0]
    return "command line" if path is None or given.get(key) else str(path)


def _faults(config: Config) -> Iterator[str]:
    """What the types cannot say."""
    yield from _server_faults(config.server)
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
        if not _is_network(peer):
            yield (
                f"proxy.peers[{position}]: {tables.shown(peer)} is not allowed; "
                'wanted is an IP address or a network such as "192.0.2.0/24"'
            )
    if config.proxy.inbound == "peers" and not config.proxy.peers:
        yield 'proxy.peers: is empty, but proxy.inbound is "peers"'
    for position, site in enumerate(config.location.sites, 1):
        for fault in _site_faults(site, config.location.sites[: position - 1]):
            yield f"location.sites[{position}]: {fault}"
    if config.metrics.listen and split_host_port(config.metrics.listen) is None:
        yield f"metrics.listen: {tables.shown(config.metrics.listen)} is not allowed; wanted is HOST:PORT"


def _site_faults(site: SiteEntry, before: Sequence[SiteEntry]) -> Iterator[str]:
    keys = (site.network, site.interface, site.access)
    if sum(map(bool, keys)) != 1:
        yield "wanted is one of network, interface and access"
    elif site.network and not _is_network(site.network):
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
        return _is_network(other.network) and ipaddress.ip_network(one.network, strict=False) == ipaddress.ip_network(
            other.network, strict=False
        )
    return (one.network, one.interface, one.access) == (other.network, other.interface, other.access)


def _server_faults(server: ServerSection) -> Iterator[str]:
    if not server.domains:
        yield "server.domains: is empty; wanted is at least one domain"
    for position, domain in enumerate(server.domains, 1):
        if len(domain) > 253 or not _DOMAIN.match(domain):
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
    if not server.data_dir:
        yield "server.data_dir: is empty; wanted is a folder"
    for key, value in (("node", server.node), ("agent", server.agent)):
        if not _PRINTABLE.match(value):
            yield f"server.{key}: {tables.shown(value)} is not allowed; wanted is at most 100 characters of ASCII"


def _address_fault(text: str) -> str:
    transport, _, address = text.partition(":")
    if transport.lower() in ("tls", "ws", "wss"):
        return f"{transport.lower()} is not available in this version; allowed are udp and tcp"
    if transport.lower() not in TRANSPORTS or split_host_port(address) is None:
        return (
            f"{tables.shown(text)} is not allowed; wanted is udp:HOST:PORT or tcp:HOST:PORT, "
            "HOST an IP address (IPv6 in brackets), PORT from 0 to 65535"
        )
    return ""


def _algorithm_faults(algorithms: Sequence[str], at: str) -> Iterator[str]:
    if not algorithms:
        yield f"{at}: is empty; wanted is at least one of {', '.join(ALGORITHMS)}"
    if len(set(algorithms)) < len(algorithms):
        yield f"{at}: an algorithm is there twice"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
