"""A device with real sockets that does nothing by itself: a test sends and expects message by message."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from contextlib import ExitStack
from typing import Any, Self

from sipserver.sip.flow import Flow
from sipserver.sip.framing import PING, StreamFramer
from sipserver.sip.message import Limits, Message, Request, Response, parse
from support.pen import DOMAIN, Pen

PATIENCE = 10.0
"""Seconds after which an expected message is missed."""


class Phone(Pen):
    """One user's device. Use with ``with``. Over UDP it may listen on TCP at the same port, too.

    ``host`` is the server's address, and its own where no ``local`` is given. ``named`` is what it believes to
    be its own.
    """

    def __init__(
        self, server_port: int, user: str, transport: str = "UDP", host: str = "127.0.0.1", *, listens: bool = False,
        local: str = "", named: str = "",
    ) -> None:  # fmt: skip
        self.server = (host, server_port)
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_DGRAM if transport == "UDP" else socket.SOCK_STREAM
        self._socket = self._stack.enter_context(socket.socket(family, kind))
        # The server is at the device's own address, unless the test says otherwise.
        self._socket.bind((local or host, 0))
        self._socket.connect(self.server)
        port = self._socket.getsockname()[1]
        super().__init__(user, Flow(transport, named or local or host, port, "", transport != "UDP"))
        self._framers: dict[socket.socket, StreamFramer] = {}
        self._listener: socket.socket | None = None
        self._arrived: deque[tuple[Message, socket.socket]] = deque()
        self._seen: set[bytes] = set()
        self.came_by = transport
        """How the last message came."""
        self.answers_pings = False
        """Whether OPTIONS outside of dialogs are answered as they come, and not shown."""
        self.pings = 0
        """How many of these there were."""
        self._take(self._socket)
        if listens:
            self._listener = self._stack.enter_context(socket.create_server((host, port), family=family))
            self._selector.register(self._listener, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _take(self, sock: socket.socket) -> None:
        if sock.type == socket.SOCK_STREAM:
            self._framers[sock] = StreamFramer(Limits())
        self._selector.register(sock, selectors.EVENT_READ)

    def send(self, data: bytes, over: socket.socket | None = None) -> None:
        """Put a message on the wire."""
        (over or self._socket).sendall(data)

    def next(self, timeout: float = PATIENCE) -> Message:
        """The next message that is no retransmission."""
        deadline = time.monotonic() + timeout
        while not self._arrived:
            ready = self._selector.select(max(deadline - time.monotonic(), 0))
            assert ready or time.monotonic() < deadline, f"nothing came for {self.user}"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj)
        message, self._last = self._arrived.popleft()
        self.came_by = "TCP" if self._last.type == socket.SOCK_STREAM else "UDP"
        return message

    def _read(self, sock: socket.socket) -> None:
        if sock is self._listener:
            accepted, _ = sock.accept()
            self._take(self._stack.enter_context(accepted))
            return
        try:
            data = sock.recv(65_536)
        except ConnectionRefusedError:
            return
        framer = self._framers.get(sock)
        if framer is not None and not data:
            self._selector.unregister(sock)
            return
        for frame in framer.feed(data) if framer is not None else [data]:
            if frame is not PING and frame not in self._seen:
                self._seen.add(frame)
                self._arrive(parse(frame), sock)

    def _arrive(self, message: Message, sock: socket.socket) -> None:
        if self.answers_pings and isinstance(message, Request) and message.method == "OPTIONS" and not message.to_tag:
            self.pings += 1
            self.send(self.answer(message, 200), sock)
        else:
            self._arrived.append((message, sock))

    def idle(self, seconds: float) -> None:
        """Do nothing for a while but read what comes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj)

    def expect(self, what: int | str) -> Any:
        """The next message, which has to be a response with this status, or a request of this method."""
        message = self.next()
        assert isinstance(message, Request | Response)
        found = message.status if isinstance(message, Response) else message.method
        assert found == what, f"{self.user} expected {what} and got\n{message.to_bytes().decode('utf-8', 'replace')}"
        return message

    def respond(self, request: Request, status: int, *lines: str, **options: Any) -> None:
        """Answer the way the request came."""
        self.send(self.answer(request, status, *lines, **options), self._last)

    def exchange(self, method: str, uri: str, *lines: str, **options: Any) -> None:
        """Send a request, be challenged, and send it again with credentials; what comes then is for the test."""
        password = options.pop("password", "")
        first = next(self._numbers)
        branch = f"z9hG4bKc{self.user}{first}"
        self.send(self.write(method, uri, *lines, **options, cseq=first, branch=branch))
        challenge = self.expect(401 if method == "REGISTER" else 407)
        if method == "INVITE":
            to = challenge.header("to") or ""
            call_id = options.get("call_id", "call")
            self.send(self.write("ACK", uri, to=to, call_id=call_id, cseq=first, branch=branch))
        credentials = self.credentials(challenge, method, uri, password)
        self.send(self.write(method, uri, *lines, credentials, **options, cseq=first + 1))
        self.cseq = first + 1

    def register(self, *lines: str, **options: Any) -> Response:
        """REGISTER with credentials; the 200."""
        lines = lines or (f"Contact: <{self.contact}>",)
        self.exchange("REGISTER", f"sip:{DOMAIN}", *lines, **{"call_id": f"r{self.user}{self.hostport}", **options})
        answer: Response = self.expect(200)
        return answer
