"""What the transports and their user agree on: who receives, where to listen, and within which bounds."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, Protocol

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.flow import Flow
from sipserver.sip.message import Limits

DEFAULT_PORT: Final = 5060
DEFAULT_PORTS: Final = {"UDP": 5060, "TCP": 5060, "TLS": 5061, "WS": 80, "WSS": 443}
"""By transport; RFC 3261 §18.1.1 and RFC 7118 §5.3."""

_REMEMBERED: Final = 4_096
"""Hosts of which it is remembered what kind of address they are: reading one costs 4 us, and each message asks."""
_LONGEST: Final = 64
"""Characters of an IP address, with the name of an interface behind it."""


class Receiver(Protocol):
    """Who is handed what arrives; the transports call it on the event loop, one call at a time."""

    def on_message(self, data: bytes, flow: Flow) -> None:
        """A whole message: a datagram, or one frame of a stream."""

    def on_malformed(self, error: MalformedMessage, flow: Flow) -> None:
        """A stream that cannot go on; it ends after this call, so an answer is sent from within it."""

    def on_closed(self, flow: Flow) -> None:
        """A connection is gone; called once for each that carried, or could have carried, a message."""

    def on_unsent(self, data: bytes, flow: Flow) -> None:
        """A datagram that was held (``Transports.hold``) cannot be delivered, as the kernel says now."""

    def on_batch_end(self) -> None:
        """Everything that had arrived was handed over: the time to flush rows, log lines and timers."""


class HandshakeRefused(NamedTuple):
    """A connection that was refused before it could carry a message, and what is known of who asked for it."""

    host: str
    status: int
    """As it was answered: HTTP's."""
    reason: str
    """Of ours: names the fault, never echoes what the peer sent."""
    agent: str | None
    origin: str | None
    """The web page that asked, as it says."""


class Security(Protocol):
    """Who knows the certificates. Asked for each new connection, since certificates change while the server runs."""

    def accepting(self, listener: int) -> ssl.SSLContext:
        """What the listener at this position of the configuration shows and demands; SNI is looked after."""

    def connecting(self) -> ssl.SSLContext:
        """For connections of our own: verifies the chain. The name is compared by whoever connects (RFC 5922 §7.2)."""


class ListenError(Exception):
    """A listener could not be opened; the text is a sentence for the operator."""


@dataclass(slots=True)
class WebSocketSettings:
    """Bounds and time-outs of WebSocket (RFC 6455, 7118); times in seconds, sizes in bytes."""

    origins: tuple[str, ...] = ()
    """Web pages that may connect; none: those of ``domains`` and of the address that was connected to."""
    domains: tuple[str, ...] = ()
    """The domains that are served here, canonical."""
    path: str = ""
    """The path that clients have to ask for; empty for any."""
    handshake: float = 5.0
    """The handshake has to be over within this time."""
    handshake_size: int = 16_384
    """What a client may send before it is over."""
    half_open: int = 500
    """Connections whose handshake is not over; of more the oldest are dropped."""
    ping: float = 25.0
    """A peer from which nothing came for this long is asked whether it is there."""
    pong: float = 10.0
    """How long its answer may take."""
    fragments: int = 64
    """Frames that one message may come in."""
    control_frames: int = 100
    """Pings, pongs and keep-alives from one peer between two sweeps."""


@dataclass(slots=True)
class Settings:
    """Bounds and time-outs of the transports; times in seconds, sizes in bytes."""

    limits: Limits = field(default_factory=Limits)
    """What a message may measure."""
    udp_receive_buffer: int = 4 * 1024 * 1024
    """Kernel buffer for datagrams that wait to be read, for each listener."""
    udp_send_queue: int = 1_000
    """Datagrams that wait for room in the kernel's send buffer; more are dropped and counted."""
    udp_flows: int = 20_000
    """Remote addresses remembered for each listener; each costs a few hundred bytes."""
    tcp_connections: int = 10_000
    """Connections at most; lowered to what the process may open."""
    tcp_connections_per_source: int = 100
    """Connections from one IPv4 address, or one IPv6 /64."""
    ping_grace: float = 10.0
    """How late an announced ping may come, besides half of its interval."""
    tcp_idle: float = 3605.0
    """A connection that carried nothing for this long is closed; longer than a registration lasts."""
    tcp_silent: float = 10.0
    """An accepted connection has to carry its first whole message within this time."""
    tcp_partial: float = 10.0
    """A message has to be complete this long after its first byte."""
    tcp_blocked: float = 10.0
    """A peer that lets what we send pile up for this long is cut off."""
    tcp_write_bound: int = 1024 * 1024
    """A peer for which more than this piles up is cut off at once."""
    tcp_linger: float = 2.0
    """After a fault in a stream: how long the answer has to reach the peer before the connection is dropped."""
    handshakes: int = 1_000
    """TLS handshakes in progress on accepted connections; the oldest gives way to one more."""
    handshakes_per_source: int = 50
    """Those from one IPv4 address, or one IPv6 /64; more are refused."""
    handshake_timeout: float = 5.0
    """A handshake has to be over this long after its connection was accepted."""
    sweep_interval: float = 1.0
    """How often the time-outs of connections are looked at; also how exact they are."""
    connects: int = 64
    """Connections being opened at the same time; more are refused."""
    connect_waiters: int = 1_000
    """Requests that wait for connections being opened."""
    connect_timeout: float = 3.0
    """How long opening a connection may take."""
    connect_retry_after: float = 10.0
    """A destination that could not be connected to is not tried again for this long."""
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)


@dataclass(slots=True, frozen=True)
class ListenAddress:
    """Where to listen: transport, host and port as configured."""

    transport: str
    """``UDP``, ``TCP``, ``TLS``, ``WS`` or ``WSS``."""
    host: str
    """An IP address without brackets (``0.0.0.0`` and ``::`` for all), or a host name."""
    port: int
    """0 lets the system choose."""
    name: str = ""
    """What peers are told instead of the address, for Via and Record-Route; not for UDP."""

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """``udp:127.0.0.1:5060``, ``tls:[::1]:5061``; the port may be missing. Raises ValueError with a sentence."""
        scheme, _, rest = text.strip().partition(":")
        transport = scheme.upper()
        if transport not in DEFAULT_PORTS:
            raise ValueError(f"'{text}' is no address to listen on; write udp:HOST:PORT, or tcp, tls, ws, wss for udp")
        host, port = _split_host(rest, text, str(DEFAULT_PORTS[transport]))
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"'{text}': the port has to be a number from 0 to 65535")
        return cls(transport, host, int(port))

    def __str__(self) -> str:
        return f"{self.transport.lower()}:{hostport(self.host, self.port)}"


def _split_host(rest: str, text: str, default_port: str) -> tuple[str, str]:
    """Host and port of ``HOST``, ``HOST:PORT`` and ``[IPV6]:PORT``."""
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket or (after and not after.startswith(":")) or not is_ip(host) or ":" not in host:
            raise ValueError(f"'{text}': an IPv6 address is written in brackets, as in [::1]:5060")
        return canonical_ip(host), after[1:] if after else default_port
    host, colon, port = rest.partition(":")
    if ":" in port:
        raise ValueError(f"'{text}': an IPv6 address is written in brackets, as in [::1]:5060")
    if not host or not all(each.isalnum() or each in ".-_" for each in host):
        raise ValueError(f"'{text}': there is no host to listen on; 0.0.0.0 is every IPv4 address, [::] every IPv6 one")
    return host.lower(), port if colon else default_port


def hostport(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Whether this is an IP address in figures."""
    return len(host) <= _LONGEST and _read(host) is not None


def is_wildcard(host: str) -> bool:
    """Whether an IP address to listen on means every address of the machine."""
    return is_ip(host) and ip_address(host).is_unspecified


def canonical_ip(host: str) -> str:
    """An IP address as the kernel writes it, without a scope; anything else as it is."""
    bare = host.partition("%")[0] if "%" in host else host
    found = _read(bare) if len(bare) <= _LONGEST else None
    return host if found is None else found[1]


def is_unicast(host: str) -> bool:
    """Whether this is the IP address of one machine: neither multicast, nor broadcast, nor unspecified."""
    found = _read(host) if len(host) <= _LONGEST else None
    if found is None:
        return False
    address = found[0]
    return not (address.is_multicast or address.is_unspecified or host == "255.255.255.255")


@lru_cache(_REMEMBERED)
def _read(host: str) -> tuple[IPv4Address | IPv6Address, str] | None:
    """An IP address and its shortest text, None for what is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address, str(address)
