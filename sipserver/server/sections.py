"""The sections of the configuration: what may be set, its unit, its bounds and its default.

``config/sipserver.toml`` shows each key with its default, and a test holds the two together. What a type cannot
say is in ``server.wrong``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALGORITHMS: Final = ("MD5", "SHA-256", "SHA-512-256")
TRANSPORTS: Final = ("udp", "tcp", "tls", "ws", "wss")
SECURE: Final = ("tls", "wss")
"""Those that need a certificate."""

_DOMAIN: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")

Algorithm = Literal["MD5", "SHA-256", "SHA-512-256"]
Clients = Literal["none", "optional", "required"]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Bytes = Annotated[int, Meta(ge=256, le=16_777_216)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Rate = Annotated[float, Meta(ge=0, le=100_000)]
Lifetime = Annotated[int, Meta(ge=1, le=31_536_000)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in here."""


class Listener(Section, frozen=True):
    """An entry of ``server.listen`` that is a table; what it leaves out is as in ``[authentication]`` and ``[tls]``."""

    address: str
    """``udp:HOST:PORT``, or tcp, tls, ws or wss instead of udp; IPv6 in brackets."""
    algorithms: tuple[Algorithm, ...] | None = None
    qop: bool | None = None
    clients: Clients | None = None
    name: str = ""
    """What this server calls itself in messages that go by here; empty for its address."""


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
    transactions: Count = 500_000
    """Server transactions at once; beyond them requests are answered 503. Over UDP each one stays for 64*T1, 32 s, so
    this is 15,600 requests a second."""
    calls: Count = 50_000
    """Calls that are remembered at once."""
    subscriber_calls: Rate = 20.0
    """Calls a second that one subscriber may place, ten times as many at once; 0 for no bound."""
    subscriber_requests: Rate = 100.0
    """The same for all requests outside of dialogs but REGISTER."""


class OverloadSection(Section, frozen=True):
    """``[overload]``"""

    enabled: bool = True
    """Whether new requests are refused while work waits too long."""
    delay_ms: Annotated[float, Meta(ge=1, le=2000)] = 50.0
    """How long work may wait without anything being refused."""
    retry_after: Annotated[int, Meta(ge=2, le=3600)] = 30
    """The longest time, in seconds, after which who is refused is told to come back."""


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


class NatSection(Section, frozen=True):
    """``[nat]``, seconds unless said otherwise."""

    ping: Literal["off", "crlf", "options"] = "options"
    """What is sent to endpoints behind NATs so that they stay reachable."""
    interval: Annotated[float, Meta(ge=1, le=3600)] = 25.0
    """The longest time between two of these."""
    misses: Annotated[int, Meta(ge=0, le=100)] = 3
    """OPTIONS in a row without an answer after which a binding is taken out of use; 0 for never."""
    flow_timer: Annotated[int, Meta(ge=0, le=86_400)] = 120
    """How often endpoints are to ping their connections (RFC 5626 Flow-Timer); 0 leaves it to them."""
    flow_timer_udp: Annotated[int, Meta(ge=0, le=86_400)] = 25
    """The same over UDP."""


class AuthenticationSection(Section, frozen=True):
    """``[authentication]``"""

    algorithms: tuple[Algorithm, ...] = ("MD5",)
    """Strongest first, one challenge each."""
    qop: bool = True
    """False offers the RFC 2069 form."""
    nonce_lifetime: Annotated[float, Meta(ge=5, le=86_400)] = 300.0
    replay_entries: Count = 100_000
    """Nonces whose use is remembered."""


class PeerEntry(Section, frozen=True):
    """One entry of ``proxy.named_peers``."""

    name: str
    networks: tuple[str, ...] = ()
    """Where it sends from."""
    certificates: tuple[str, ...] = ()
    """Names of which its certificate has to hold one. With ``networks`` as well, both have to fit."""
    direction: Literal["both", "in", "out"] = "both"
    may_call: tuple[str, ...] = ()
    """Domains and addresses of ours; empty for all."""
    trusted: bool = False
    """Whether it is believed about identities and access networks (RFC 3325, RFC 7315), and told identities."""
    target: str = ""
    """Where requests to it are sent; empty for the only address in ``networks``."""
    rate: Rate = 0.0
    """Requests outside of dialogs a second, in both directions, ten times as many at once; 0 for no bound."""
    calls: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Calls at once, in both directions; 0 for no bound."""


class RouteEntry(Section, frozen=True):
    """One entry of ``proxy.routes``: ``domain`` or ``prefix``, and ``peer`` or ``to``."""

    domain: str = ""
    """A domain that is not ours; ``*.example.org`` for those below it, ``*`` for every other."""
    prefix: str = ""
    """What numbers begin with; ``*`` for every other."""
    peer: str = ""
    """Name of the peer that requests go to."""
    to: str = ""
    """A URI that requests go to."""
    priority: int = 0
    """The lowest first, the others where it fails."""


class NumberEntry(Section, frozen=True):
    """One entry of ``addresses.numbers``: ``prefix`` or ``pattern``."""

    to: str
    """What stands in the place of it: digits, or an address; ``\\1`` is the first group of ``pattern``."""
    prefix: str = ""
    pattern: str = ""
    """A regular expression for the whole number (``proxy.dialling.compile_pattern``)."""
    context: str = ""
    """Only numbers that are local to this one: ``+43`` (``phone-context``)."""


class AddressesSection(Section, frozen=True):
    """``[addresses]``"""

    aliases: dict[str, str | tuple[str, ...]] = {}
    """Addresses, and the one or more that each stands for."""
    numbers: tuple[NumberEntry, ...] = ()
    """Gone through once, in order."""


class ProxySection(Section, frozen=True):
    """``[proxy]``"""

    inbound: Literal["nobody", "peers", "anyone"] = "nobody"
    """Which strangers may call our subscribers."""
    peers: tuple[str, ...] = ()
    """Addresses and networks that count as peers."""
    outbound: bool = False
    """Whether subscribers may call any other domain or number."""
    outbound_to: tuple[str, ...] = ()
    """Domains, and what numbers begin with, that they may call where ``outbound`` is false."""
    outbound_of: dict[str, tuple[str, ...]] = {}
    """The same of single addresses, or domains of ours, in the place of what all others may."""
    named_peers: tuple[PeerEntry, ...] = ()
    """Other servers, with what each may."""
    routes: tuple[RouteEntry, ...] = ()
    """Where requests for other domains and for numbers go, before DNS is asked."""
    asserted_identity: Literal["nobody", "peers", "endpoints"] = "peers"
    """Who is told the proved address of a caller (RFC 3325)."""
    max_forwards: Annotated[int, Meta(ge=1, le=255)] = 70
    max_breadth: Annotated[int, Meta(ge=1, le=1000)] = 60
    max_targets: Annotated[int, Meta(ge=1, le=100)] = 30
    datagram: Annotated[int, Meta(ge=512, le=65_000)] = 1300
    """Requests of more bytes go by TCP where the target allows."""
    failover_after: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    """Seconds without any response until the next server of a domain, or the next flow of an endpoint, is tried."""
    dead_for: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds for which a server that did not answer is tried last."""
    redirects: Annotated[int, Meta(ge=0, le=100)] = 5
    """Contacts of redirections that are followed for one request; 0 leaves them to the caller."""


class DnsSection(Section, frozen=True):
    """``[dns]``, seconds."""

    servers: tuple[str, ...] = ()
    """Name servers, ``ADDRESS`` or ``ADDRESS:PORT``; empty for the system's."""
    timeout: Annotated[float, Meta(ge=0.1, le=30)] = 2.0
    """How long one question may take."""
    ttl_min: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    ttl_max: Annotated[float, Meta(ge=0, le=604_800)] = 3600.0
    """How long records are remembered at least and at most."""
    negative_max: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long it is remembered at most that there are none."""


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
    call_commit_interval_ms: Annotated[float, Meta(ge=0, le=100)] = 30.0
    """The same for call records, which the answer of a call and that of its BYE wait for: half of the 200 ms that they
    wait at most."""
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


class WebSocketSection(Section, frozen=True):
    """``[websocket]``, seconds, bytes and connections; what is not here is as in ``[tcp]``."""

    origins: tuple[str, ...] = ()
    """Web pages that may connect; none for those of the served domains and of this server's own address."""
    path: str = ""
    """What clients have to ask for; empty for anything."""
    handshake: Seconds = 5.0
    handshake_size: Bytes = 16_384
    half_open: Count = 500
    """Connections whose handshake is not over."""
    ping: Seconds = 25.0
    """How long a peer may be silent until it is asked whether it is there."""
    pong: Seconds = 10.0
    """How long its answer may take."""


class MediaSection(Section, frozen=True):
    """``[media]``"""

    relay: tuple[str, ...] = ()
    """``HOST:PORT`` of the ng ports of rtpengine; the first that answers is used."""
    policy: Literal["never", "nat", "always"] = "nat"
    """Which calls are relayed: none, those in which a side is behind NAT without ICE, or all."""
    bridge: bool = False
    """Whether calls between browsers and other endpoints are relayed, in a form that both understand."""
    failing: Literal["pass", "refuse"] = "pass"
    """What becomes of a call that needs a relay when there is none."""
    timeout_ms: Annotated[float, Meta(ge=50, le=5000)] = 500.0
    """How long a message waits for a relay at most."""
    sessions: Count = 10_000
    """Sessions at relays at once."""
    interfaces: tuple[str, ...] = ()
    """Names of rtpengine's interfaces: towards private addresses, and towards all others."""


class CertificateEntry(Section, frozen=True):
    """One entry of ``tls.certificates``: what is shown to clients that ask for one of these domains (SNI)."""

    domains: tuple[str, ...]
    certificate: str
    key: str


class TlsSection(Section, frozen=True):
    """``[tls]``; files are relative to the folder of the configuration file."""

    certificate: str = ""
    """A file with the server's certificate, and those between it and its root (PEM)."""
    key: str = ""
    """The file with its private key (PEM); may be the same."""
    certificates: tuple[CertificateEntry, ...] = ()
    """Others, by domain."""
    ca: str = ""
    """Whose certificates are believed when this server connects (PEM); empty for the system's."""
    client_ca: str = ""
    """Whose certificates are believed of those who connect (PEM)."""
    clients: Clients = "none"
    """Whether those who connect show a certificate."""
    minimum: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""
    handshake: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    """Seconds that a handshake may take."""
    handshakes: Count = 1_000
    """In progress at once, in all and of one address."""
    handshakes_per_source: Count = 50


class TurnSection(Section, frozen=True):
    """``[turn]``"""

    urls: tuple[str, ...] = ()
    """How clients reach the TURN server (RFC 7065)."""
    ttl: Annotated[int, Meta(ge=60, le=604_800)] = 86_400
    """Seconds that credentials are good for."""


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
    overload: OverloadSection = OverloadSection()
    timers: TimersSection = TimersSection()
    registrar: RegistrarSection = RegistrarSection()
    nat: NatSection = NatSection()
    authentication: AuthenticationSection = AuthenticationSection()
    proxy: ProxySection = ProxySection()
    dns: DnsSection = DnsSection()
    addresses: AddressesSection = AddressesSection()
    sessions: SessionsSection = SessionsSection()
    calls: CallsSection = CallsSection()
    location: LocationSection = LocationSection()
    storage: StorageSection = StorageSection()
    udp: UdpSection = UdpSection()
    tcp: TcpSection = TcpSection()
    websocket: WebSocketSection = WebSocketSection()
    tls: TlsSection = TlsSection()
    media: MediaSection = MediaSection()
    turn: TurnSection = TurnSection()
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
            clients = self.tls.clients if each.clients is None else each.clients
            full.append(msgspec.structs.replace(each, algorithms=algorithms, qop=qop, clients=clients))
        return tuple(full)

    @property
    def peers(self) -> tuple[Network, ...]:
        """``proxy.peers`` as networks."""
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.proxy.peers)

    @property
    def name_servers(self) -> list[tuple[str, int]]:
        """``dns.servers`` as addresses and ports."""
        return [place for place in map(name_server, self.dns.servers) if place is not None]

    @property
    def location_database(self) -> Path | None:
        """The operator's database of networks, or None where there is none."""
        return Path(self.location.database) if self.location.database else None

    @property
    def media_relays(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each media relay."""
        found = [split_host_port(text) for text in self.media.relay]
        return tuple(each for each in found if each is not None)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of the metrics page, or None where there is none."""
        return split_host_port(self.metrics.listen) if self.metrics.listen else None


def is_domain(text: str) -> bool:
    """Whether this is a domain name, or an IPv4 address."""
    return len(text) <= 253 and _DOMAIN.match(text) is not None


def is_network(text: str) -> bool:
    """Whether this is an IP address or a network."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


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


def name_server(text: str) -> tuple[str, int] | None:
    """``ADDRESS`` or ``ADDRESS:PORT``, IPv6 with a port in brackets; None where it is something else."""
    try:
        return str(ipaddress.ip_address(text)), 53
    except ValueError:
        place = split_host_port(text)
        return place if place is not None and place[1] else None
