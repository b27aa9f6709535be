"""WebSocket (RFC 7118 on RFC 6455): connections as ``transport.tcp`` has them, with a handshake before all messages.

    ACCEPTED ── 101 ──► OPEN ── close frame, or a fault ──► ENDING ── peer closes, or linger is over ──► gone
       └── refused, answered by HTTP ──────────────────────────┘

Each message of the WebSocket is one SIP message (§5), so nothing is framed by Content-Length. Text or binary, whichever
the peer uses, is what it is answered in. Its time-outs are the sweep's; a peer that is silent is pinged (§6), and
dropped where no answer comes: a browser that is gone says nothing.

The handshake and the frames are those of ``websockets.server.ServerProtocol``, which does no input or output.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from websockets.exceptions import SecurityError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from sipserver.sip.errors import MalformedMessage
from sipserver.transport.contract import HandshakeRefused, WebSocketSettings
from sipserver.transport.origins import may_connect
from sipserver.transport.tcp import DEAD, REFUSED, TIMED_OUT, Connection, TcpConnections, TcpListener

SIP: Final = Subprotocol("sip")
"""The subprotocol (RFC 7118 §4.1)."""

PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"
"""Keep-alives of RFC 5626 §3.5.1, which are of use here too (RFC 7118 §6)."""

_SLICE: Final = 4_096
"""Bytes that are taken apart at a time: a flood of tiny frames is noticed before it has cost much."""
_GRACE: Final = 0.1
"""Seconds that every handshake gets, however many there are: what a client sent at once has been read by then."""
_LONGEST: Final = 200
"""Characters of what a client says of itself that are passed on."""

_FAULTS: Final = {
    CloseCode.INVALID_DATA: (400, "Text frame is not UTF-8"),
    CloseCode.MESSAGE_TOO_BIG: (513, "Message Too Large"),
    CloseCode.POLICY_VIOLATION: (400, "Too many WebSocket frames"),
}
"""What a stream that cannot go on is called, by the code that it is closed with; other faults are the protocol's."""

_quiet = logging.getLogger("sipserver.websocket")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False
_quiet.setLevel(logging.CRITICAL)


def _ignore(_refused: HandshakeRefused) -> None:
    """Nobody wants to know yet."""


class WebSockets:
    """What the WebSocket connections of a process share: counts, and those whose handshake is not over."""

    def __init__(self) -> None:
        self.opened = 0
        """Handshakes that were completed."""
        self.refused = 0
        """Handshakes that were refused."""
        self.crowded_out = 0
        """Connections dropped in the middle of a handshake, since there were too many of them."""
        self.dead = 0
        """Connections dropped because a ping was not answered."""
        self.on_refused: Callable[[HandshakeRefused], None] = _ignore
        """Who hears of refused handshakes."""
        self.half_open: dict[WebSocketConnection, float] = {}
        """Since when (the loop's seconds), the oldest first."""
        self._trimming = False

    def connection(
        self, owner: TcpConnections, listener: TcpListener, name: str | None = None, /
    ) -> WebSocketConnection:
        """A ``tcp.ConnectionMaker``."""
        return WebSocketConnection(self, owner, listener, name)

    def begin(self, connection: WebSocketConnection) -> None:
        """One more handshake begins."""
        loop = asyncio.get_running_loop()
        self.half_open[connection] = loop.time()
        if len(self.half_open) > connection.bounds.half_open and not self._trimming:
            self._trimming = True
            loop.call_later(_GRACE, self._trim, loop)

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        """Where there are too many handshakes, drop those that had their time, the oldest first."""
        self._trimming = False
        before = loop.time() - _GRACE
        for connection, since in list(self.half_open.items()):
            if len(self.half_open) <= connection.bounds.half_open:
                return
            if since > before:
                self._trimming = True
                loop.call_later(_GRACE, self._trim, loop)
                return
            del self.half_open[connection]
            self.crowded_out += 1
            connection.owner.on_dropped(REFUSED, connection.flow.host, "")
            connection.abort()


class WebSocketConnection(Connection):
    """One WebSocket connection, accepted by us."""

    __slots__ = (
        "_binary", "_controls", "_parts", "_pinged_at", "_protocol", "_shared", "_spoken_at", "_text", "_unread"
    )  # fmt: skip

    def __init__(
        self, shared: WebSockets, owner: TcpConnections, listener: TcpListener, name: str | None = None
    ) -> None:
        super().__init__(owner, listener, name)
        self._shared = shared
        self._protocol = ServerProtocol(subprotocols=[SIP], max_size=owner.settings.limits.message, logger=_quiet)
        self._binary = False
        """The kind of the last message of the peer, and so of ours."""
        self._text = False
        """The kind of the message that comes in fragments."""
        self._parts: list[bytes] = []
        """The fragments of a message that is not complete."""
        self._unread = 0
        """Bytes of the handshake, or of a frame that is not complete."""
        self._controls = 0
        """Control frames and keep-alives since the last sweep."""
        self._spoken_at = owner.now
        """When a whole frame came last, be it a pong."""
        self._pinged_at = 0.0
        """Since when an answer to a ping is waited for; 0 where none is."""

    @property
    def bounds(self) -> WebSocketSettings:
        """Its own part of the settings."""
        return self.owner.settings.websocket

    def opened(self) -> None:
        """The stream is there, and secured where it has to be; the handshake comes first."""
        self._shared.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As every connection; what the protocol holds of itself is let go, since no collector runs."""
        self._shared.half_open.pop(self, None)
        protocol = self._protocol
        protocol.parser.close()
        _let_go(protocol.parser_exc)
        protocol.parser_exc = None
        self._parts.clear()
        super().connection_lost(exc)

    # ---- what arrives

    def _hand_over(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            if self.ending_since or self._transport is None or self._transport.is_closing():
                return
            part = data[start : start + _SLICE]
            self._unread += len(part)
            if self.ready:
                self._take(part)
            else:
                self._shake_hands(part)

    def _shake_hands(self, data: bytes) -> None:
        """RFC 6455 §4.2, RFC 7118 §4.1: one HTTP request, which is answered 101 or refused."""
        protocol = self._protocol
        if self._unread > self.bounds.handshake_size:
            self._refuse(431, "Handshake Too Large")
            return
        protocol.receive_data(data)
        fault = protocol.handshake_exc
        if fault is not None:
            _let_go(fault)
            if isinstance(fault, SecurityError):
                self._refuse(431, "Handshake Too Large")
            else:
                self._refuse(400, "No WebSocket Handshake")
            return
        events = protocol.events_received()
        if not events:
            return
        request = events[0]
        assert isinstance(request, Request), "the first event of a connection is its handshake"
        # RFC 6455 §4.1: a client sends nothing else before it has its answer.
        if len(events) > 1 or protocol.parser_exc is not None:
            self._refuse(400, "Bytes After The Handshake", request)
            return
        self._answer(request)

    def _answer(self, request: Request) -> None:
        settings, protocol = self.bounds, self._protocol
        if settings.path and request.path.partition("?")[0] != settings.path:
            self._refuse(404, "No Such Path", request)
            return
        response = protocol.accept(request)
        if response.status_code != 101:
            _let_go(protocol.handshake_exc)
            reasons = {405: "Method Not Allowed", 426: "No Upgrade To WebSocket", 505: "HTTP Version Not Supported"}
            offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
            lacking = SIP not in [each.strip() for each in offered.split(",")]
            reason = "No Subprotocol sip" if lacking else "Bad WebSocket Handshake"
            self._refuse(response.status_code, reasons.get(response.status_code, reason), request)
            return
        # A second Origin was refused by now.
        if not may_connect(protocol.origin, settings.origins, settings.domains, self.flow.local_host):
            self._refuse(403, "Origin Not Allowed", request)
            return
        protocol.send_response(response)
        self._unread = 0
        self._shared.half_open.pop(self, None)
        self._shared.opened += 1
        # Who asked for SIP has said as much as a first message would; whether it is still there is asked by pings.
        self.proven = True
        super().opened()
        self.heard_at = self._spoken_at = self.owner.now
        self._flush()

    def _refuse(self, status: int, reason: str, request: Request | None = None) -> None:
        """Answer by HTTP, note it, and end."""
        self._shared.half_open.pop(self, None)
        self._shared.refused += 1
        agent, origin = _said(request, "User-Agent"), _said(request, "Origin")
        self._shared.on_refused(HandshakeRefused(self.flow.host, status, reason, agent, origin))
        response = self._protocol.reject(status, f"{reason}.\n")
        if status == 426:
            response.headers["Upgrade"] = "websocket"
        elif status == 405:
            response.headers["Allow"] = "GET"
        self.write(response.serialize())
        self._end()

    def _take(self, data: bytes) -> None:
        """Hand over the messages that these bytes complete."""
        protocol, owner = self._protocol, self.owner
        protocol.receive_data(data)
        completed = False
        for event in protocol.events_received():
            assert isinstance(event, Frame), "after its handshake a connection carries frames"
            self._unread -= _wire_size(event)
            self._spoken_at = self.flow.seen_at = owner.now
            self._pinged_at = 0.0
            message = self._on_frame(event)
            if message is not None:
                completed = True
                owner.received += 1
                owner.receiver.on_message(message, self.flow)
                if self._transport is None or self._transport.is_closing():
                    return
        # Pongs, and the close frame of a fault or in answer to the peer's.
        self._flush()
        if protocol.parser_exc is not None:
            assert protocol.close_sent is not None, "a fault in the stream is told to the peer"
            raise _fault(protocol.close_sent.code)
        if protocol.close_rcvd is not None:
            self._end()
        elif not self._unread and not self._parts:
            self.partial_since = 0.0
        elif completed or not self.partial_since:
            self.partial_since = owner.now

    def _on_frame(self, frame: Frame) -> bytes | None:
        """The message that this frame completes, if one. Raises MalformedMessage."""
        opcode = frame.opcode
        if opcode is not Opcode.PONG:
            self.heard_at = self.owner.now
        if opcode in (Opcode.PING, Opcode.PONG):
            self._count_control()
            return None
        if opcode is Opcode.CLOSE:
            return None
        if opcode is not Opcode.CONT:
            self._text = opcode is Opcode.TEXT
        data = bytes(frame.data)
        if not frame.fin or self._parts:
            self._parts.append(data)
            if len(self._parts) > self.bounds.fragments:
                self._fail(CloseCode.POLICY_VIOLATION)
            if not frame.fin:
                return None
            data = b"".join(self._parts)
            self._parts.clear()
        if self._text and not _is_text(data):
            self._fail(CloseCode.INVALID_DATA)
        self._binary = not self._text
        return self._without_keepalive(data)

    def _without_keepalive(self, data: bytes) -> bytes | None:
        """The message after leading CRLFs (RFC 3261 §7.5), None where there is nothing else."""
        message = data.lstrip(b"\r\n")
        if message:
            return message
        self._count_control()
        if data.startswith(PING):
            self.send(PONG)
        return None

    def _count_control(self) -> None:
        self._controls += 1
        if self._controls > self.bounds.control_frames:
            self._fail(CloseCode.POLICY_VIOLATION)

    def _fail(self, code: CloseCode) -> None:
        """RFC 6455 §7.1.7: tell the peer why, and read no further."""
        self._protocol.fail(code, _fault(code).reason)
        self._flush()
        raise _fault(code)

    # ---- what is sent

    def send(self, data: bytes) -> bool:
        """Send a message; False where the connection is closing, or is cut off because its peer does not read."""
        protocol = self._protocol
        if self._transport is None or protocol.state is not State.OPEN:
            return False
        # RFC 7118 §4.2: what is no UTF-8 goes into a binary frame whatever the peer prefers.
        if self._binary or not _is_text(data):
            protocol.send_binary(data)
        else:
            protocol.send_text(data)
        return self._flush()

    def _flush(self) -> bool:
        """Write what the protocol wants written; that nothing follows it is told by ``_end``."""
        return all([super(WebSocketConnection, self).send(each) for each in self._protocol.data_to_send() if each])

    def close(self) -> None:
        """Say that this server goes away, and close."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.GOING_AWAY)
            self._flush()
        super().close()

    # ---- the sweep

    def overdue(self, now: float) -> bool:
        """Whether the sweep has to drop this connection; asks a silent peer whether it is there."""
        self._controls = 0
        settings = self.bounds
        begun = self._shared.half_open.get(self)
        if begun is not None and now - begun > settings.handshake:
            # Before it is gone it might be found to be one of too many, and count twice.
            del self._shared.half_open[self]
            self.owner.timed_out += 1
            self.owner.on_dropped(TIMED_OUT, self.flow.host, "")
            return True
        if super().overdue(now):
            return True
        if self.ending_since or not self.ready:
            return False
        if self._pinged_at:
            if now - self._pinged_at <= settings.pong:
                return False
            self._shared.dead += 1
            self.owner.on_dropped(DEAD, self.flow.host, "")
            return True
        if now - self._spoken_at > settings.ping and self._protocol.state is State.OPEN:
            self._pinged_at = now
            self._protocol.send_ping(b"")
            self._flush()
        return False


def _let_go(fault: BaseException | None) -> None:
    """Of an exception that is kept, forget the frames that it came through: they lead back to who keeps it."""
    while fault is not None:
        fault.__traceback__ = None
        fault = fault.__cause__ or fault.__context__


def _fault(code: int) -> MalformedMessage:
    return MalformedMessage(*_FAULTS.get(CloseCode(code), (400, "WebSocket Protocol Error")))


def _is_text(data: bytes) -> bool:
    """Whether this is UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wire_size(frame: Frame) -> int:
    """Bytes that a frame of a client took (RFC 6455 §5.2)."""
    size = len(frame.data)
    return 6 + size + (0 if size < 126 else 2 if size < 65_536 else 8)


def _said(request: Request | None, name: str) -> str | None:
    """What a client says of itself, as far as it is of interest."""
    values = request.headers.get_all(name) if request is not None else []
    return values[0][:_LONGEST] if values else None
