"""A receiver for tests of the transports, that notes what it is told and lets a test wait for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.flow import Flow
from sipserver.transport.base import ListenAddress, Security, Settings, Transports

PATIENCE = 10.0
"""Seconds after which a test gives up waiting."""


def message(number: int = 1, body: bytes = b"") -> bytes:
    """A whole message; each number makes another one."""
    return b"MESSAGE sip:%d@example.test SIP/2.0\r\nContent-Length: %d\r\n\r\n%s" % (number, len(body), body)


class Recorder:
    """Notes everything; answers nothing but what a test asks for."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Flow]] = []
        self.malformed: list[tuple[MalformedMessage, Flow]] = []
        self.closed: list[Flow] = []
        self.unsent: list[tuple[bytes, Flow]] = []
        self.batches = 0
        self.at_batch_end: Callable[[], object] = lambda: None
        self.answer: Callable[[bytes, Flow], object] = lambda data, flow: None
        self.answer_malformed: Callable[[Flow], object] = lambda flow: None
        self._changed = asyncio.Event()

    def on_message(self, data: bytes, flow: Flow) -> None:
        self.messages.append((data, flow))
        self._changed.set()
        self.answer(data, flow)

    def on_malformed(self, error: MalformedMessage, flow: Flow) -> None:
        self.malformed.append((error, flow))
        self._changed.set()
        self.answer_malformed(flow)

    def on_closed(self, flow: Flow) -> None:
        self.closed.append(flow)
        self._changed.set()

    def on_unsent(self, data: bytes, flow: Flow) -> None:
        self.unsent.append((data, flow))
        self._changed.set()

    def on_batch_end(self) -> None:
        self.at_batch_end()
        self.batches += 1
        self._changed.set()

    @property
    def data(self) -> list[bytes]:
        """The messages without their flows."""
        return [data for data, _ in self.messages]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was told makes this true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class DatagramPeer(asyncio.DatagramProtocol):
    """A UDP endpoint that keeps what it receives."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, str, int]] = asyncio.Queue()
        self.port = 0
        self.transport: asyncio.DatagramTransport | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self.received.put_nowait((data, str(addr[0]), int(addr[1])))

    def send(self, data: bytes, host: str, port: int) -> None:
        """Send a datagram."""
        assert self.transport is not None
        self.transport.sendto(data, (host, port))

    async def next(self) -> tuple[bytes, str, int]:
        """The next datagram and where it came from."""
        return await asyncio.wait_for(self.received.get(), PATIENCE)


@asynccontextmanager
async def datagram_peer(host: str = "127.0.0.1") -> AsyncIterator[DatagramPeer]:
    """A UDP endpoint on a port of its own."""
    transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(DatagramPeer, local_addr=(host, 0))
    try:
        yield peer
    finally:
        transport.close()
        await peer.gone.wait()


@asynccontextmanager
async def stream_peer(
    port: int, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to a listener."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def serving(
    *listeners: str,
    settings: Settings | None = None,
    receiver: Recorder | None = None,
    security: Security | None = None,
) -> AsyncIterator[tuple[Transports, Recorder]]:
    """Transports that listen on these addresses."""
    transports, receiver = Transports(), receiver or Recorder()
    addresses = [ListenAddress.parse(each) for each in listeners]
    await transports.start(addresses, receiver, settings or Settings(), security)
    try:
        yield transports, receiver
    finally:
        await transports.close()


def port_of(transports: Transports, position: int = 0) -> int:
    """The port that a listener got."""
    return int(transports.listening[position].rpartition(":")[2])


def need_ipv6() -> None:
    """Skip where the machine has no IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
