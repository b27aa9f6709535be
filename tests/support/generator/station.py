"""An endpoint's socket with the devices of several users behind it: transactions, dialogs, digest (RFC 3261).

The transactions are the machines of ``sipserver.sip``, so requests and refusals are repeated as they have to be; what
belongs to a transaction user is here: the 2xx that is repeated until its ACK comes, the ACK that answers each 2xx, the
CANCEL that waits for a provisional response, credentials, routes, and tags.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ClientUser, ServerTransaction, TransactionLayer
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.errors import MalformedMessage
from sipserver.sip.flow import Flow
from sipserver.sip.framing import PING, StreamFramer
from sipserver.sip.message import Limits, Request, Response, parse
from sipserver.sip.timers import Timers
from sipserver.sip.transaction import keys
from support.generator.plan import DevicePlan
from support.generator.relay import HOST, TcpRelay, UdpRelay
from support.pen import DOMAIN, Pen

T1: Final = 0.1
TIMERS: Final = Timers(t1=T1, t2=0.8, t4=1.0, c=60.0, d=64 * T1)
"""Those of the server under test, too: what fails by time-out then fails while the test runs."""
LONG: Final = 4 * 3600
"""Seconds of a registration: it outlasts what the clock is set by."""
GRACE: Final = 2.0
"""Seconds that a sign of life may come late at the server."""
SDP: Final = "Content-Type: application/sdp"


class Exchange:
    """A request that is no INVITE, until its final response or its failure."""

    def __init__(self) -> None:
        self.final: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        """None: no final response came."""

    def on_response(self, branch: int, response: Response) -> None:
        """From the transaction."""
        if response.status >= 200 and not self.final.done():
            self.final.set_result(response)

    def on_failed(self, branch: int, cause: str) -> None:
        """From the transaction."""
        if not self.final.done():
            self.final.set_result(None)


class Station:
    """A socket of endpoints. ``on_invite`` and ``in_dialog`` are called with the requests that come."""

    def __init__(self, name: str, relay: UdpRelay | TcpRelay, timers: TimerQueue) -> None:
        self.name = name
        self.relay = relay
        self.reliable = isinstance(relay, TcpRelay)
        self.transport = "TCP" if self.reliable else "UDP"
        self.layer = TransactionLayer(self, timers, TIMERS, 1_000_000)
        self.layer.on_ack = self._on_ack
        self.on_invite: Callable[[Station, Request, ServerTransaction], None]
        self.in_dialog: Callable[[Station, Request, ServerTransaction | None], None]
        self.silent: set[str] = set()
        """Devices that hear nothing."""
        self.connected = asyncio.Event()
        self.on_connected: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._count = 0

    async def open(self) -> None:
        """Begin to listen."""
        if isinstance(self.relay, UdpRelay):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
            self._socket.setblocking(False)
            self._socket.bind((HOST, 0))
            self._socket.connect(self.relay.inner)
            self._loop.add_reader(self._socket, self._readable)
            self.flow = Flow("UDP", *self.relay.inner, self.hostport, False)
            self.connected.set()
            return
        await self.relay.open()
        self._listener = await asyncio.start_server(self._accepted, HOST, 0)
        self.relay.endpoint = self._listener.sockets[0].getsockname()
        self._spawn(self._stay_connected())
        await self.connected.wait()

    async def close(self) -> None:
        """No more."""
        self._closing = True
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers.values():
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def vanish(self) -> None:
        """Break every connection, and never come back."""
        assert isinstance(self.relay, TcpRelay)
        self._closing = True
        if self._listener is not None:
            self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        self.relay.cut()

    # ------------------------------------------------------------------ what devices write

    @property
    def hostport(self) -> str:
        """Where the server reaches this socket."""
        host, port = self.relay.outer[:2]
        return f"{host}:{port}"

    def contact(self, device: str) -> str:
        """The Contact URI of a device."""
        return f"sip:{device}@{self.hostport}" + (";transport=tcp" if self.reliable else "")

    def write(self, method: str, uri: str, lines: list[str], body: bytes = b"", branch: str = "") -> OutgoingRequest:
        """A request with a Via of its own."""
        branch = branch or f"z9hG4bK{self.name}x{self.next()}"
        head = [f"Via: SIP/2.0/{self.transport} {self.hostport};branch={branch};rport", "Max-Forwards: 70", *lines]
        if body:
            head.append(SDP)
        return OutgoingRequest(method, uri, [*head, f"Content-Length: {len(body)}"], body, branch)

    def credentials(self, user: str, challenge: Response, method: str, uri: str) -> str:
        """The line that answers a challenge."""
        return Pen(user, self.flow).credentials(challenge, method, uri)

    def next(self) -> int:
        """A number that was never given before."""
        self._count += 1
        return self._count

    def ask(self, request: OutgoingRequest, user: ClientUser | None = None) -> Exchange:
        """Send a request; its final response can be waited for, unless another user is given."""
        exchange = Exchange()
        self.layer.request(request, self.flow, user or exchange)
        return exchange

    async def register(self, user: str, device: DevicePlan, expires: int = LONG) -> Response | None:
        """Bind a device, or for 0 seconds unbind it; the final response."""
        uri = f"sip:{DOMAIN}"
        aor = f"<sip:{user}@{DOMAIN}>"
        number = self.next()
        lines = [
            f"From: {aor};tag=r{self.name}{number}", f"To: {aor}", f"Call-ID: register-{device.name}-{number}",
            f"Contact: <{self.contact(device.name)}>", f"Expires: {expires}",
        ]  # fmt: skip
        extra: list[str] = []
        final: Response | None = None
        for cseq in range(1, 4):
            request = self.write("REGISTER", uri, [*lines, f"CSeq: {cseq} REGISTER", *extra])
            final = await self.ask(request).final
            if final is None or final.status != 401:
                break
            extra = [self.credentials(user, final, "REGISTER", uri)]
        return final

    # ------------------------------------------------------------------ the wire

    def send(self, flow: Flow, data: bytes) -> bool:
        """For the transactions: False where the connection is gone."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(data)
            return True
        writer = self._writers.get(flow.connection)
        if writer is None or writer.is_closing():
            return False
        writer.write(data)
        return True

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(100):
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                continue
            self._take(data, self.flow)

    def _take(self, data: bytes, flow: Flow) -> None:
        message = parse(data)
        if isinstance(message, Response):
            self.layer.receive_response(message)
            return
        key = keys.server_key(message)
        transaction = self.layer.find_server(key)
        if transaction is not None:
            self.layer.receive_again(transaction, message)
        elif message.method == "ACK":
            self._on_ack(message, flow)
        elif message.uri.user in self.silent:
            return
        elif message.method == "CANCEL":
            self._on_cancel(message, flow, key)
        elif message.method == "INVITE" and message.to_tag is None:
            self.on_invite(self, message, self.layer.serve(key, message, flow))
        else:
            self.in_dialog(self, message, self.layer.serve(key, message, flow))

    def _on_ack(self, ack: Request, _flow: Flow) -> None:
        self.in_dialog(self, ack, None)

    def _on_cancel(self, cancel: Request, flow: Flow, key: keys.Key) -> None:
        invite = self.layer.find_server(keys.invite_key_for_cancel(cancel))
        transaction = self.layer.serve(key, cancel, flow)
        status = 481 if invite is None else 200
        transaction.respond(status, reply(cancel, status, "cancel"))
        if invite is not None and invite.user is not None:
            invite.user.on_server_cancel(cancel)

    # ------------------------------------------------------------------ TCP

    async def _stay_connected(self) -> None:
        while not self._closing:
            try:
                reader, writer = await asyncio.open_connection(*self.relay.inner[:2])
            except OSError:
                await asyncio.sleep(0.1)
                continue
            self.flow = self._new_flow(writer)
            self.connected.set()
            began = self._loop.time()
            self.on_connected()
            await self._read(reader, self.flow)
            self.connected.clear()
            # A relay without a server behind it hangs up at once.
            await asyncio.sleep(0.02 if self._loop.time() - began > 1 else 0.2)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._read(reader, self._new_flow(writer)))

    def _new_flow(self, writer: asyncio.StreamWriter) -> Flow:
        number = self.next()
        self._writers[number] = writer
        host, port = self.relay.inner[:2]
        return Flow("TCP", host, port, self.hostport, True, connection=number)

    async def _read(self, reader: asyncio.StreamReader, flow: Flow) -> None:
        framer = StreamFramer(Limits())
        with suppress(OSError, MalformedMessage):
            while data := await reader.read(65_536):
                for frame in framer.feed(data):
                    if frame is not PING and len(frame) > 4:
                        self._take(frame, flow)
        writer = self._writers.pop(flow.connection, None)
        if writer is not None:
            writer.close()
        self.layer.flow_lost(flow)

    def _spawn(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def reply(request: Request, status: int, tag: str, *lines: str, body: bytes = b"") -> bytes:
    """A response of an endpoint."""
    copied = {"via", "from", "call-id", "cseq", "record-route"}
    head = [line for name, line in zip(request.names, request.lines, strict=True) if name in copied]
    head.append(f"To: {request.header('to')}" + ("" if request.to_tag else f";tag={tag}"))
    head += lines
    if body:
        head.append(SDP)
    head += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join((f"SIP/2.0 {status} Some Reason", *head)).encode("latin-1") + body
