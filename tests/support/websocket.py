"""A WebSocket client that is bent at will: the handshake and every frame are written byte by byte."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from support.endpoint import Endpoint

PATIENCE = 10.0
"""Seconds after which a test gives up waiting."""

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to KEY (RFC 6455 §1.3)."""

MASK = b"\x11\x22\x33\x44"


def handshake(path: str = "/", *, without: str = "", lines: Sequence[str] = ("Sec-WebSocket-Protocol: sip",)) -> bytes:
    """The request of a client, without the header of this name and with these lines more."""
    usual = [
        "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13", "User-Agent: test browser",
    ]  # fmt: skip
    kept = [line for line in usual if not without or not line.startswith(f"{without}:")]
    return "\r\n".join((f"GET {path} HTTP/1.1", *kept, *lines, "", "")).encode()


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """One frame as a client sends it."""
    size, flag = len(data), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65_536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if not masked:
        return head + data
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(data))


class WebSocketPeer:
    """A connection to a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1", source: str | None = None) -> Self:
        """A TCP connection that has said nothing."""
        local = (source, 0) if source is not None else None
        return cls(*await asyncio.wait_for(asyncio.open_connection(host, port, local_addr=local), PATIENCE))

    async def ask(self, request: bytes) -> tuple[int, str]:
        """Send a handshake; the status and the head of the answer."""
        self.writer.write(request)
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()
        return int(head.split()[1]), head

    async def open(self, lines: Sequence[str] = ("Sec-WebSocket-Protocol: sip",)) -> Self:
        """A handshake that has to work."""
        status, head = await self.ask(handshake(lines=lines))
        assert status == 101, head
        return self

    def send(self, opcode: int, data: bytes = b"") -> None:
        """Send one frame."""
        self.writer.write(frame(opcode, data))

    async def next(self) -> tuple[int, bytes]:
        """The next frame that the server sends, waited for."""
        async with asyncio.timeout(PATIENCE):
            return await self.read()

    async def read(self) -> tuple[int, bytes]:
        """The next frame that the server sends, which is whole: opcode and payload."""
        first, size = await self.reader.readexactly(2)
        assert first & 0xF0 == 0x80, "a whole frame without reserved bits"
        assert size < 128, "a server masks nothing"
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int:
        """The code of the close frame that comes, whatever comes before it, and then the end."""
        while True:
            opcode, data = await self.next()
            if opcode == CLOSE:
                assert await self.at_end() == b""
                return int.from_bytes(data[:2], "big")

    async def at_end(self) -> bytes:
        """What still comes until the server has ended the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), PATIENCE)
        except ConnectionError:
            return b""

    async def leave(self) -> None:
        """Close the TCP connection without a word."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def websocket_peer(port: int, *, source: str | None = None) -> AsyncIterator[WebSocketPeer]:
    """A connection whose handshake is done."""
    peer = await WebSocketPeer.connect(port, source=source)
    try:
        yield await peer.open()
    finally:
        await peer.leave()


class WebSocketEndpoint(Endpoint):
    """An ``Endpoint`` that is a web page, as far as the server can tell."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port, transport="WS")
        self.name = f"{uuid.uuid4().hex[:12]}.invalid"

    async def __aenter__(self) -> Self:
        self._peer = await (await WebSocketPeer.connect(self.server[1])).open()
        self.port = int(self._peer.writer.get_extra_info("sockname")[1])
        self._reading = asyncio.get_running_loop().create_task(self._listen())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._peer.leave()

    def contact(self, user: str) -> str:
        """A name that nobody can look up (RFC 7118 appendix B.1)."""
        return f"<sip:{user}@{self.name};transport=ws>"

    def send(self, data: bytes) -> None:
        """Each message is one frame."""
        self._peer.send(TEXT, data)

    async def _listen(self) -> None:
        while True:
            opcode, data = await self._peer.read()
            if opcode == PING:
                self._peer.send(PONG, data)
            elif opcode in (TEXT, BINARY):
                self._take(data)
