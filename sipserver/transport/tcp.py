"""TCP, and what travels over it: connections accepted and opened, both ways of one flow, each watched by one sweep.

With TLS (``transport.tls``) the bytes of a connection go through a session, and it is of use to nobody before the
handshake is over.

A connection ends when its peer closes it, when its stream cannot go on, or when the sweep finds
that it is idle, silent, stuck in the middle of a message, or does not read what it is sent. There
is no timer for each connection: the sweep looks at all of them, by default each second.

    SECURING (TLS) ── handshake done ──► OPEN, else gone
    OPEN ── fault in the stream ──► ENDING ── peer closes, or linger is over ──► gone
      └── peer closes, or a time-out ─────────────────────────────────────────► gone
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol, cast

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.flow import Flow
from sipserver.sip.framing import PING, PONG, StreamFramer
from sipserver.transport.contract import (
    ListenAddress,
    ListenError,
    Receiver,
    Settings,
    canonical_ip,
    hostport,
    is_wildcard,
)
from sipserver.transport.identity import comparable
from sipserver.transport.tls import PEER_CLOSED, TOO_MANY, TOO_SLOW, Handshakes, TlsSession

HIGH_WATER = 64 * 1024
"""Bytes that wait to be sent above which a peer counts as not reading."""
BACKLOG = 1024
"""Connections that wait in the kernel to be accepted."""
SPARE_FILES = 256
"""Descriptors kept for stores, logs and listeners."""

TIMED_OUT = "timed_out"
"""No whole message came in time."""
CUT_OFF = "cut_off"
"""The peer did not read what it was sent."""
REFUSED = "refused"
"""There were too many connections."""
DEAD = "dead"
"""The peer did not answer a ping."""
INSECURE = "insecure"
"""The TLS handshake failed."""


def _ignore(_why: str, _host: str, _detail: str) -> None:
    """Nobody wants to know yet."""


@dataclass(slots=True, eq=False)
class TcpListener:
    """A socket that accepts connections."""

    index: int
    """Position of the listener in the configuration."""
    host: str
    port: int
    transport: str
    """As in ``Flow``."""
    accepting: Callable[[], ssl.SSLContext] | None
    """What a connection that is accepted now is secured with; None for no TLS."""
    make: ConnectionMaker
    name: str = ""
    """What peers know this host by; empty for its address."""
    server: asyncio.Server | None = None

    @property
    def wildcard(self) -> bool:
        """Bound to every address of the machine."""
        return is_wildcard(self.host)

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def sent_by(self, local_host: str) -> str:
        """Where peers on this connection's network reach the listener."""
        return hostport(self.name or (local_host if self.wildcard else self.host), self.port)


class Connection(asyncio.Protocol):
    """One connection: bytes in, messages to the receiver, and its own time stamps for the sweep."""

    __slots__ = (
        "_listener", "_transport", "accepted", "blocked_since", "ending_since", "flow", "framer", "heard_at", "made_at",
        "name", "opening", "owner", "partial_since", "patience", "proven", "ready", "refused", "secure", "source",
    )  # fmt: skip

    def __init__(self, owner: TcpConnections, listener: TcpListener, name: str | None = None) -> None:
        self.owner = owner
        self.accepted = name is None
        """Opened by the peer."""
        self.name = name or ""
        """Of a connection of our own: the domain that it is to lead to, where TLS can show that."""
        self.opening: asyncio.Future[bool] | None = None
        """Of a connection of our own: whether it came to be of use, once that is known."""
        self.secure: TlsSession | None = None
        """What decrypts and encrypts; None for no TLS."""
        self.refused = False
        """Closed at once, since a cap was reached."""
        self.proven = False
        """Has carried a whole message."""
        self.ready = False
        """Can carry messages: whatever has to be agreed on before that is."""
        self.source = ""
        """What the cap for each source counts."""
        self.flow = Flow(listener.transport, "", 0, "", reliable=True)
        self.framer = StreamFramer(owner.settings.limits)
        self.made_at = self.heard_at = owner.now
        self.partial_since = 0.0
        """When the message that is not complete began; 0 where there is none."""
        self.blocked_since = 0.0
        """Since when the peer has not read what it was sent; 0 where it reads."""
        self.patience = 0.0
        """Seconds that it may carry nothing; 0 for as long as any other."""
        self.ending_since = 0.0
        """When the stream was found not to go on; 0 while it goes on."""
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or close it at once where a cap is reached."""
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        peer, local = stream.get_extra_info("peername"), stream.get_extra_info("sockname")
        if not peer or not local or not self.owner.admit(self, canonical_ip(peer[0])):
            self.refused = True
            stream.abort()
            return
        local_host = canonical_ip(local[0])
        self.flow = Flow(
            self._listener.transport, canonical_ip(peer[0]), peer[1], self._listener.sent_by(local_host), True,
            connection=self.owner.next_number(), listener=self._listener.index, local_host=local_host,
        )  # fmt: skip
        stream.set_write_buffer_limits(high=HIGH_WATER)
        sock = stream.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.owner.add(self)
        self.secure = self.owner.secure(self, self._listener)
        if self.secure is None:
            self.opened()
        elif not self.secure.start():
            self.not_secured(TOO_MANY)

    def opened(self) -> None:
        """From now on messages pass."""
        self.ready = True
        self.owner.introduce(self)
        if self.opening is not None and not self.opening.done():
            self.opening.set_result(True)

    def secured(self, names: tuple[str, ...]) -> None:
        """The TLS handshake is over (``tls.Carrier``)."""
        self.flow.peer_names = names
        self.opened()
        self.data_received(b"")

    def not_secured(self, why: str) -> None:
        """The TLS handshake failed (``tls.Carrier``)."""
        self.ending_since = self.owner.now
        if not self.owner.closing:
            self.owner.on_dropped(INSECURE, self.flow.host, why)
        self.close()

    def data_received(self, data: bytes) -> None:
        """Bytes off the wire."""
        if self.ending_since or self.refused or self.owner.closing:
            return
        secure = self.secure
        if secure is None:
            self.read(data)
            return
        data = secure.received(data)
        if data:
            self.read(data)
        if secure.over:
            self.close()

    def read(self, data: bytes) -> None:
        """Hand over the messages that these bytes, decrypted by now, complete."""
        owner = self.owner
        try:
            self._hand_over(data)
        except MalformedMessage as fault:
            owner.malformed += 1
            owner.receiver.on_malformed(fault, self.flow)
            self._end()
        finally:
            owner.receiver.on_batch_end()

    def _hand_over(self, data: bytes) -> None:
        owner, framer, flow = self.owner, self.framer, self.flow
        self.heard_at = owner.now
        frames = framer.feed(data)
        if frames:
            flow.seen_at = owner.now
            for frame in frames:
                if frame is PING:
                    self.send(PONG)
                    continue
                self.proven = True
                owner.received += 1
                owner.receiver.on_message(frame, flow)
            if framer.fault is not None:
                raise framer.fault
        if not framer.pending:
            self.partial_since = 0.0
        elif frames or not self.partial_since:
            self.partial_since = owner.now

    def send(self, data: bytes) -> bool:
        """Send; False where the connection is closing, or is cut off because its peer does not read."""
        transport = self._transport
        if transport is None or self.ending_since or transport.is_closing():
            return False
        if self.blocked_since and transport.get_write_buffer_size() + len(data) > self.owner.settings.tcp_write_bound:
            self.owner.cut_off += 1
            self.owner.on_dropped(CUT_OFF, self.flow.host, "")
            transport.abort()
            return False
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        """Encrypt, where that has to be, and put on the wire."""
        self.write_raw(data if self.secure is None else self.secure.seal(data))

    def write_raw(self, data: bytes) -> None:
        """Put bytes on the wire as they are (``tls.Carrier``)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The peer does not read: from now on it is watched."""
        self.blocked_since = self.owner.now

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.blocked_since = 0.0

    def eof_received(self) -> bool:
        """The peer has finished; what waits to be sent still goes out, then the connection closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, unless it never heard of this connection or the server is closing."""
        self._transport = None
        if self.refused:
            self._give_up()
            return
        if self.secure is not None:
            self.secure.fail(PEER_CLOSED)
            self.secure.release()
        self._give_up()
        self.owner.remove(self)
        if self.owner.closing or not self.ready:
            return
        try:
            self.owner.receiver.on_closed(self.flow)
        finally:
            self.owner.receiver.on_batch_end()

    def _give_up(self) -> None:
        if self.opening is not None and not self.opening.done():
            self.opening.set_result(False)

    def overdue(self, now: float) -> bool:
        """Whether the sweep has to drop this connection."""
        settings = self.owner.settings
        if self.ending_since:
            return now - self.ending_since > settings.tcp_linger
        if self.secure is not None and not self.secure.ready:
            if now - self.made_at <= settings.handshake_timeout:
                return False
            self.secure.fail(TOO_SLOW)
            return True
        if self.blocked_since and now - self.blocked_since > settings.tcp_blocked:
            self.owner.cut_off += 1
            self.owner.on_dropped(CUT_OFF, self.flow.host, "")
            return True
        silent = self.accepted and not self.proven and now - self.made_at > settings.tcp_silent
        partial = self.partial_since and now - self.partial_since > settings.tcp_partial
        if silent or partial or now - self.heard_at > (self.patience or settings.tcp_idle):
            self.owner.timed_out += 1
            if silent or partial:
                # An idle connection has done nothing wrong.
                self.owner.on_dropped(TIMED_OUT, self.flow.host, "")
            return True
        return False

    def close(self) -> None:
        """Send what waits to be sent, then close."""
        if self._transport is not None:
            self._say_farewell()
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection now, with what waits to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        """Send what is there to send, then wait for the peer to close.

        Closing at once would make the kernel reset the connection when more of the peer's bytes are
        on their way, and the peer would lose the answer that names its fault.
        """
        self.ending_since = self.owner.now
        self.owner.retire(self)
        if self._transport is not None and not self._transport.is_closing():
            self._say_farewell()
            self._transport.write_eof()

    def _say_farewell(self) -> None:
        if self.secure is not None:
            self.write_raw(self.secure.farewell())


class ConnectionMaker(Protocol):
    """Makes what a listener accepts: ``Connection``, or a kind of it."""

    def __call__(self, owner: TcpConnections, listener: TcpListener, name: str | None = None, /) -> Connection:
        """A connection that is not open yet: one that we open to this domain, or one that is accepted."""


class TcpConnections:
    """Every listener and connection of the process over TCP, whatever is spoken over it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: Receiver, settings: Settings) -> None:
        self.receiver = receiver
        self.settings = settings
        self.listeners: list[TcpListener] = []
        self.now = loop.time()
        """The time of the last sweep: close enough for time-outs, and costs no call."""
        self.received = 0
        """Messages read."""
        self.sent = 0
        """Messages written."""
        self.send_errors = 0
        """Messages for a connection that was gone, or was cut off."""
        self.malformed = 0
        """Streams that could not go on."""
        self.accepted = 0
        """Connections accepted since the start."""
        self.refused_connections = 0
        """Connections closed at once, since a cap was reached."""
        self.timed_out = 0
        """Connections closed for being idle, silent or stuck in a message."""
        self.cut_off = 0
        """Connections dropped because their peer did not read."""
        self.on_dropped: Callable[[str, str, str], None] = _ignore
        """Who hears why a connection was dropped (TIMED_OUT, CUT_OFF, REFUSED, DEAD, INSECURE), of which host, and what
        else is to be said, in which there is nothing that a peer could choose."""
        self.connecting: Callable[[], ssl.SSLContext] | None = None
        """What a TLS connection of our own is secured with now."""
        self._loop = loop
        self._last_number = 0
        self._by_number: dict[int, Connection] = {}
        self._by_remote: dict[tuple[str, str, int, str], Connection] = {}
        self._by_source: dict[str, int] = {}
        self._open: set[Connection] = set()
        """Every connection that is not gone, those that are ending too."""
        self._all_gone = asyncio.Event()
        self.closing = False
        """Nothing more is handed to the receiver."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._cap = settings.tcp_connections
        if files != resource.RLIM_INFINITY:
            self._cap = min(self._cap, max(files - SPARE_FILES, 64))
        self.handshakes = Handshakes(loop, settings, self._cap)
        """TLS handshakes, with their counts."""
        self._sweep_handle = loop.call_later(settings.sweep_interval, self._sweep)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    async def listen(
        self,
        index: int,
        address: ListenAddress,
        accepting: Callable[[], ssl.SSLContext] | None = None,
        make: ConnectionMaker | None = None,
    ) -> TcpListener:
        """Accept connections on an IP address, each made by ``make``, with TLS where ``accepting`` says how.

        Raises ListenError.
        """
        host, port = address.host, address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
            listener = TcpListener(index, host, port, address.transport, accepting, make or Connection, address.name)
            listener.server = await self._loop.create_server(
                lambda: listener.make(self, listener), sock=sock, backlog=BACKLOG
            )
        except OSError as error:
            if sock is not None:
                sock.close()
            raise ListenError(f"Cannot listen on {address}: {error.strerror}.") from error
        self.listeners.append(listener)
        return listener

    async def open(self, host: str, port: int, listener: TcpListener, name: str = "") -> Connection | None:
        """A new connection to an IP address, from the listener's address and of its transport; None where it cannot be
        had. With TLS the peer's certificate has to be for ``name``, the domain that was asked for (RFC 5922 §7.3)."""
        if len(self._open) >= self._cap:
            self.refused_connections += 1
            return None
        local = None if listener.wildcard else (listener.host, 0)
        connection = listener.make(self, listener, name)
        connection.opening = self._loop.create_future()
        # An address in figures: nothing is looked up.
        await self._loop.create_connection(lambda: connection, host, port, local_addr=local, family=listener.family)
        try:
            is_open = await connection.opening
        except BaseException:
            connection.abort()
            raise
        return connection if is_open and connection.flow.connection in self._by_number else None

    def secure(self, connection: Connection, listener: TcpListener) -> TlsSession | None:
        """The TLS of a connection; None where its listener has none."""
        if listener.accepting is None:
            return None
        if connection.accepted:
            return TlsSession(connection, self.handshakes, listener.accepting(), source=connection.source)
        assert self.connecting is not None, "a listener with TLS, and nothing known of certificates"
        name = comparable(connection.name or connection.flow.host)
        return TlsSession(connection, self.handshakes, self.connecting(), name=name)

    def find(self, number: int) -> Connection | None:
        """The connection of this number, while it lives."""
        return self._by_number.get(number)

    def find_remote(self, transport: str, host: str, port: int, name: str = "") -> Connection | None:
        """A connection with this remote address, while it lives.

        With TLS one that we opened is found by the name that its peer proved: it leads there and to nobody else.
        """
        return self._by_remote.get((transport, host, port, name))

    def send(self, flow: Flow, data: bytes) -> bool:
        """Send on the flow's connection; False where it is gone."""
        connection = self._by_number.get(flow.connection)
        if connection is None or not connection.send(data):
            self.send_errors += 1
            return False
        self.sent += 1
        return True

    async def close(self) -> None:
        """Stop accepting, send what waits to be sent, and drop every connection without telling the receiver."""
        self.closing = True
        self._sweep_handle.cancel()
        for listener in self.listeners:
            if listener.server is not None:
                listener.server.close()
        for connection in list(self._open):
            connection.close()
        try:
            async with asyncio.timeout(self.settings.tcp_linger):
                await self._until_all_gone()
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
            await self._until_all_gone()
        self.handshakes.close()

    async def _until_all_gone(self) -> None:
        while self._open:
            self._all_gone.clear()
            await self._all_gone.wait()

    def admit(self, connection: Connection, host: str) -> bool:
        """Whether one more connection with this address is within the caps."""
        source = _source_of(host)
        if connection.accepted:
            of_source = self._by_source.get(source, 0)
            if len(self._open) >= self._cap or of_source >= self.settings.tcp_connections_per_source:
                self.refused_connections += 1
                self.on_dropped(REFUSED, host, "")
                return False
            self.accepted += 1
        connection.source = source
        return True

    def next_number(self) -> int:
        """A number that no connection of this process had."""
        self._last_number += 1
        return self._last_number

    def add(self, connection: Connection) -> None:
        """A connection is there."""
        self._open.add(connection)
        if connection.accepted:
            self._by_source[connection.source] = self._by_source.get(connection.source, 0) + 1

    def introduce(self, connection: Connection) -> None:
        """A connection may be used."""
        self._by_number[connection.flow.connection] = connection
        self._by_remote[_remote(connection)] = connection

    def retire(self, connection: Connection) -> None:
        """Nothing more is sent on this connection."""
        self._by_number.pop(connection.flow.connection, None)
        remote = _remote(connection)
        if self._by_remote.get(remote) is connection:
            del self._by_remote[remote]

    def remove(self, connection: Connection) -> None:
        """A connection is gone."""
        self.retire(connection)
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()
        if connection.accepted:
            left = self._by_source.get(connection.source, 0) - 1
            if left > 0:
                self._by_source[connection.source] = left
            else:
                self._by_source.pop(connection.source, None)

    def local_hosts(self) -> set[str]:
        """The addresses of this machine that connections lead from."""
        return {each.flow.local_host for each in self._by_number.values()}

    def drop_over(self, hosts: Collection[str]) -> None:
        """Drop the connections from these addresses, which the machine has lost: nobody else would tell."""
        if hosts:
            for connection in [each for each in self._by_number.values() if each.flow.local_host in hosts]:
                connection.abort()

    def _sweep(self) -> None:
        """Drop what is overdue."""
        self.now = now = self._loop.time()
        for connection in [each for each in self._open if each.overdue(now)]:
            connection.abort()
        self._sweep_handle = self._loop.call_later(self.settings.sweep_interval, self._sweep)


def _remote(connection: Connection) -> tuple[str, str, int, str]:
    """By which a connection is found. One name proves nothing for another, so with TLS it belongs to it."""
    flow = connection.flow
    return flow.transport, flow.host, flow.port, connection.name if connection.secure is not None else ""


def _source_of(host: str) -> str:
    """What the cap for each source counts: an IPv4 address, or the /64 that an IPv6 host may pick from freely."""
    return str(IPv6Address(host).packed[:8]) if ":" in host else host
