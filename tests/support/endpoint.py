"""A small SIP endpoint for tests: many users behind one UDP or TCP port, with digest and retransmission.

It does what an endpoint has to, plainly: registers, calls, answers every call at once, hangs up. What it
sends can be looked at and bent, which a real endpoint does not allow.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sipserver.sip import digest
from sipserver.sip.framing import PING, StreamFramer
from sipserver.sip.grammar import bracketed
from sipserver.sip.message import Limits, Request, Response, parse

T1 = 0.5
_CHALLENGE = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


class NoResponseError(Exception):
    """No final response came in time."""


@dataclass(slots=True)
class Dialog:
    """A call that was answered."""

    call_id: str
    caller: str
    local: str
    """From, with its tag."""
    remote: str
    """To, with its tag."""
    target: str
    routes: list[str]
    cseq: int


@dataclass(slots=True)
class _Waiting:
    """A request that waits for its final response."""

    final: asyncio.Future[Response]
    provisional: list[int] = field(default_factory=list)


class Endpoint(asyncio.DatagramProtocol):
    """Every user of a domain at one address. Use with ``async with``."""

    def __init__(
        self, server_port: int, *, domain: str = "example.test", transport: str = "UDP", host: str = "127.0.0.1",
        security: ssl.SSLContext | None = None, scheme: str = "sip",
    ) -> None:  # fmt: skip
        """``security`` is for TLS, whose server has to prove the domain; ``scheme`` is that of all its URIs."""
        self.domain = domain
        self.scheme = scheme
        self.security = security
        self.host = host
        """Where it is, and the server as well."""
        self.server = (host, server_port)
        self.transport = transport
        self.received: list[Request] = []
        """Requests that arrived, retransmissions included."""
        self.final: tuple[int, str] | None = (200, "OK")
        """How calls are answered after they rang; None lets them ring."""
        self.rings = True
        """Whether calls ring before they are answered."""
        self.passwords: dict[str, str] = {}
        """By user, where it is not ``pw`` and the user's name."""
        self.patience = 8.0
        """Seconds that a final response is waited for."""
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._answered: dict[tuple[str, str], list[bytes]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._cseq = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self.transport == "UDP":
            self._datagrams, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 0))
            self.port = int(self._datagrams.get_extra_info("sockname")[1])
        else:
            name = self.domain if self.security is not None else None
            reader, self._writer = await asyncio.open_connection(
                *self.server, ssl=self.security, server_hostname=name, local_addr=(self.host, 0)
            )
            self.port = int(self._writer.get_extra_info("sockname")[1])
            self._reading = loop.create_task(self._read(reader))
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    # ---- what it can do

    def contact(self, user: str) -> str:
        """Where this user is reached."""
        plain = self.transport == "UDP" or self.scheme == "sips"
        suffix = "" if plain else f";transport={self.transport.lower()}"
        return f"<{self.scheme}:{user}@{bracketed(self.host)}:{self.port}{suffix}>"

    async def register(self, user: str, expires: int = 3600) -> Response:
        """REGISTER with the user's password; the final response."""
        address = f"{self.scheme}:{user}@{self.domain}"
        lines = [
            f"From: <{address}>;tag={_token()}", f"To: <{address}>", f"Call-ID: {_token()}",
            f"Contact: {self.contact(user)}", f"Expires: {expires}",
        ]  # fmt: skip
        return await self.authenticated("REGISTER", f"{self.scheme}:{self.domain}", user, lines)

    async def invite(self, caller: str, callee: str, body: bytes = b"") -> tuple[Response, Dialog]:
        """INVITE, and the ACK of what comes; the final response and the dialog that it made.

        ``callee`` is a user of the same domain, or a whole address.
        """
        call_id, local = _token(), f"<{self.scheme}:{caller}@{self.domain}>;tag={_token()}"
        target = f"{self.scheme}:{callee}" if "@" in callee else f"{self.scheme}:{callee}@{self.domain}"
        lines = [f"From: {local}", f"To: <{target}>", f"Call-ID: {call_id}", f"Contact: {self.contact(caller)}"]
        if body:
            lines.append("Content-Type: application/sdp")
        final = await self.authenticated("INVITE", target, caller, lines, body)
        contacts = final.addresses("contact")
        dialog = Dialog(
            call_id, caller, local, final.header("to") or "", contacts[0].uri_text if contacts else target,
            [f"<{route.uri_text}>" for route in reversed(final.addresses("record-route"))], final.cseq[0],
        )  # fmt: skip
        if final.status < 300:
            self._send_in_dialog("ACK", dialog, final.cseq[0])
        return final, dialog

    async def bye(self, dialog: Dialog) -> Response:
        """End the call; the final response."""
        dialog.cseq += 1
        return await self._final(*self._in_dialog("BYE", dialog, dialog.cseq))

    async def authenticated(
        self, method: str, uri: str, user: str, lines: Sequence[str], body: bytes = b""
    ) -> Response:
        """Send a request, answer one challenge, and return the final response."""
        final = await self.request(method, uri, lines, body)
        if final.status in (401, 407):
            authorization = self._authorization(final, method, uri, user)
            final = await self.request(method, uri, [*lines, authorization], body)
        return final

    async def request(self, method: str, uri: str, lines: Sequence[str], body: bytes = b"") -> Response:
        """Send a request with these lines (Via, CSeq and Max-Forwards are added) and return the final response."""
        self._cseq += 1
        branch = f"z9hG4bK{_token()}"
        data = self._build(method, uri, branch, [f"CSeq: {self._cseq} {method}", *lines], body)
        final = await self._final(data, branch, method)
        if method == "INVITE" and final.status >= 300:
            copied = [line for line in lines if line.startswith(("From:", "Call-ID:"))]
            ack = [f"CSeq: {self._cseq} ACK", *copied, f"To: {final.header('to')}"]
            self.send(self._build("ACK", uri, branch, ack))
        return final

    def send(self, data: bytes) -> None:
        """Put bytes on the wire."""
        if self._datagrams is not None:
            self._datagrams.sendto(data, self.server)
        elif self._writer is not None:
            self._writer.write(data)

    # ---- requests of its own

    def _build(self, method: str, uri: str, branch: str, lines: Sequence[str], body: bytes = b"") -> bytes:
        via = f"SIP/2.0/{self.transport} {bracketed(self.host)}:{self.port};branch={branch};rport"
        head = [
            f"{method} {uri} SIP/2.0", f"Via: {via}",
            "Max-Forwards: 70", "User-Agent: test endpoint", *lines, f"Content-Length: {len(body)}",
        ]  # fmt: skip
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body

    def _in_dialog(self, method: str, dialog: Dialog, cseq: int) -> tuple[bytes, str, str]:
        branch = f"z9hG4bK{_token()}"
        lines = [
            *(f"Route: {route}" for route in dialog.routes), f"From: {dialog.local}", f"To: {dialog.remote}",
            f"Call-ID: {dialog.call_id}", f"CSeq: {cseq} {method}",
        ]  # fmt: skip
        return self._build(method, dialog.target, branch, lines), branch, method

    def _send_in_dialog(self, method: str, dialog: Dialog, cseq: int) -> None:
        self.send(self._in_dialog(method, dialog, cseq)[0])

    async def _final(self, data: bytes, branch: str, method: str) -> Response:
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        self._waiting[branch, method] = waiting
        pause = T1 if self.transport == "UDP" else self.patience
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    if not (method == "INVITE" and waiting.provisional):
                        self.send(data)
                    done, _ = await asyncio.wait([waiting.final], timeout=pause)
                    if done:
                        return waiting.final.result()
                    pause = min(2 * pause, 4.0)
        except TimeoutError:
            raise NoResponseError(method) from None
        finally:
            del self._waiting[branch, method]

    def _authorization(self, challenge: Response, method: str, uri: str, user: str) -> str:
        proxy = challenge.status == 407
        value = challenge.header("proxy-authenticate" if proxy else "www-authenticate") or ""
        found = {name.lower(): quoted or plain for name, quoted, plain in _CHALLENGE.findall(value)}
        realm, nonce, algorithm = found["realm"], found["nonce"], found.get("algorithm", "MD5")
        count, cnonce = "00000001", _token()
        answer = digest.response(
            digest.ha1(user, realm, self.passwords.get(user, f"pw{user}"), algorithm), nonce, method, uri,
            algorithm=algorithm, qop="auth", nc=count, cnonce=cnonce,
        )  # fmt: skip
        return (
            f'{"Proxy-" if proxy else ""}Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", '
            f'uri="{uri}", response="{answer}", algorithm={algorithm}, qop=auth, nc={count}, cnonce="{cnonce}"'
        )

    # ---- what arrives

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram."""
        self._take(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        framer = StreamFramer(Limits())
        while data := await reader.read(65_536):
            for frame in framer.feed(data):
                if frame is not PING:
                    self._take(frame)

    def _take(self, data: bytes) -> None:
        message = parse(data)
        if isinstance(message, Request):
            self.received.append(message)
            self._serve(message)
            return
        waiting = self._waiting.get((message.top_via.branch or "", message.cseq[1]))
        if waiting is None:
            return
        if message.status < 200:
            waiting.provisional.append(message.status)
        elif not waiting.final.done():
            waiting.final.set_result(message)

    def _serve(self, request: Request) -> None:
        key = (request.top_via.branch or "", request.method)
        if request.method == "ACK":
            return
        if key not in self._answered:
            self._answered[key] = list(self._answers(request))
        for data in self._answered[key]:
            self.send(data)

    def _answers(self, request: Request) -> list[bytes]:
        tag = _token()
        if request.method == "INVITE":
            answers = [self._reply(request, 180, "Ringing", tag)] if self.rings else []
            return [*answers, self._reply(request, *self.final, tag)] if self.final is not None else answers
        return [self._reply(request, 200, "OK", tag)]

    def _reply(self, request: Request, status: int, reason: str, tag: str) -> bytes:
        copied = {"via", "from", "call-id", "cseq", "record-route"}
        lines = [line for name, line in zip(request.names, request.lines, strict=True) if name in copied]
        to = request.header("to") or ""
        lines.append(f"To: {to}" if request.to_tag else f"To: {to};tag={tag}")
        user = request.uri.user or "user"
        lines.append(f"Contact: {self.contact(user)}")
        head = [f"SIP/2.0 {status} {reason}", *lines, "Content-Length: 0", "", ""]
        return "\r\n".join(head).encode("latin-1")


def _token() -> str:
    return uuid.uuid4().hex[:16]
