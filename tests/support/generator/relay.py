"""Relays between endpoints and the server that behave like a bad network, and write down what reached it and when.

UDP: each socket of an endpoint has a pair of sockets here, one that it talks to and one that the server talks to. A
datagram is lost, doubled, or delayed, and the delayed are overtaken. A loss never hits more than ``MAX_LOSSES`` copies
of one datagram, so that no transaction fails for bad luck: what a test plans must happen, however late.

TCP: bytes are delayed and cut into pieces; a connection can be broken.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.framing import PING, StreamFramer
from sipserver.sip.message import Limits
from support.generator.wire import Wire

MAX_LOSSES = 2
MAX_REMEMBERED = 50_000
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is; probabilities, and seconds."""

    loss: float = 0.06
    doubled: float = 0.06
    late: float = 0.15
    """Of being delayed by up to ``lateness`` instead of ``delay``."""
    delay: float = 0.004
    lateness: float = 0.06


class Network:
    """What all relays share: the weather, the record of the wire, and whether the server can be reached."""

    def __init__(self, server: tuple[str, int], seed: int, weather: Weather | None = None) -> None:
        self.server = server
        self.wire = Wire()
        self.up = True
        """False while the server is being restarted: what is sent to it is lost, and nobody notes it."""
        self.lost = self.doubled = self.delayed = 0
        self._weather = weather or Weather()
        self._dice = random.Random(f"weather {seed}")
        self._losses: Counter[int] = Counter()

    def fates(self, data: bytes) -> list[float]:
        """The delay of each copy of a datagram that arrives."""
        weather, dice = self._weather, self._dice
        if dice.random() < weather.loss and self._may_be_lost(data):
            self.lost += 1
            return []
        fates = [self._delay()]
        if dice.random() < weather.doubled:
            self.doubled += 1
            fates.append(self._delay())
        return fates

    def piece(self) -> tuple[int, float]:
        """How many bytes of a stream go next, and after how many seconds."""
        dice = self._dice
        return (dice.randint(1, 1400) if dice.random() < 0.2 else 65_536), self._delay()

    def _may_be_lost(self, data: bytes) -> bool:
        key = zlib.crc32(data)
        if len(self._losses) > MAX_REMEMBERED:
            self._losses.clear()
        self._losses[key] += 1
        return self._losses[key] <= MAX_LOSSES

    def _delay(self) -> float:
        weather, dice = self._weather, self._dice
        if dice.random() < weather.late:
            self.delayed += 1
            return dice.uniform(0.0, weather.lateness)
        return dice.uniform(0.0, weather.delay)


class UdpRelay:
    """Between one endpoint's socket and the server."""

    def __init__(self, network: Network, name: str) -> None:
        self.name = name
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._inner = _udp()
        self._outer = _udp()
        self._endpoint: tuple[str, int] | None = None
        self.inner: tuple[str, int] = self._inner.getsockname()
        """Where the endpoint sends to."""
        self.outer: tuple[str, int] = self._outer.getsockname()
        """Where the server sends to: the endpoint as the server knows it."""
        self._loop.add_reader(self._inner, self._from_endpoint)
        self._loop.add_reader(self._outer, self._from_server)

    def close(self) -> None:
        """No more."""
        for each in (self._inner, self._outer):
            self._loop.remove_reader(each)
            each.close()

    def _from_endpoint(self) -> None:
        for data, sender in _drain(self._inner):
            self._endpoint = sender
            for after in self._network.fates(data):
                self._loop.call_later(after, self._to_server, data)

    def _to_server(self, data: bytes) -> None:
        network = self._network
        if not network.up or self._outer.fileno() < 0:
            return
        at = time.time()
        with suppress(OSError):
            self._outer.sendto(data, network.server)
            network.wire.note(data, at, to_server=True, link=self.name)

    def _from_server(self) -> None:
        for data, _ in _drain(self._outer):
            self._network.wire.note(data, time.time(), to_server=False, link=self.name)
            for after in self._network.fates(data):
                self._loop.call_later(after, self._to_endpoint, data)

    def _to_endpoint(self, data: bytes) -> None:
        if self._endpoint is not None and self._inner.fileno() >= 0:
            with suppress(OSError):
                self._inner.sendto(data, self._endpoint)


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    made.setblocking(False)
    made.bind((HOST, 0))
    return made


def _drain(sock: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found: list[tuple[bytes, tuple[str, int]]] = []
    while len(found) < 100:
        try:
            found.append(sock.recvfrom(65_536))
        except BlockingIOError:
            break
        except OSError:
            # Nobody listens there at the moment: the server is being restarted.
            continue
    return found


class TcpRelay:
    """Between one endpoint and the server; connections of either side to the other."""

    def __init__(self, network: Network, name: str) -> None:
        self.name = name
        self.endpoint: tuple[str, int] = (HOST, 0)
        """Where the endpoint listens."""
        self._network = network
        self._pumps: set[asyncio.Task[None]] = set()
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Listen for both sides."""
        self._servers = [
            await asyncio.start_server(lambda reader, writer: self._accept(reader, writer, outwards=True), HOST, 0),
            await asyncio.start_server(lambda reader, writer: self._accept(reader, writer, outwards=False), HOST, 0),
        ]
        self.inner, self.outer = (each.sockets[0].getsockname() for each in self._servers)

    async def close(self) -> None:
        """No more."""
        for each in self._servers:
            each.close()
        self.cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for writer in pair:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outwards: bool) -> None:
        """A connection from the endpoint to the server, or (not ``outwards``) from the server to the endpoint."""
        network = self._network
        try:
            if outwards and not network.up:
                raise ConnectionRefusedError
            target = network.server if outwards else self.endpoint
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        self._pairs.append((writer, far_writer))
        for each, other, to_server in ((reader, far_writer, outwards), (far_reader, writer, not outwards)):
            task = asyncio.create_task(self._pump(each, other, to_server))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: bool) -> None:
        """Read at once, so that what the server sends is noted when it comes; what is read is delivered later."""
        read: asyncio.Queue[bytes] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(read, writer, to_server))
        framer = StreamFramer(Limits())
        try:
            with suppress(OSError, MalformedMessage):
                while data := await reader.read(65_536):
                    if not to_server:
                        self._note(framer, data, to_server, time.time())
                    read.put_nowait(data)
            read.put_nowait(b"")
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(self, read: asyncio.Queue[bytes], writer: asyncio.StreamWriter, to_server: bool) -> None:
        network = self._network
        framer = StreamFramer(Limits())
        with suppress(OSError, MalformedMessage):
            while data := await read.get():
                while data:
                    size, after = network.piece()
                    await asyncio.sleep(after)
                    piece, data = data[:size], data[size:]
                    if to_server and not network.up:
                        continue
                    at = time.time()
                    writer.write(piece)
                    if to_server:
                        self._note(framer, piece, to_server, at)
                await writer.drain()
        writer.close()

    def _note(self, framer: StreamFramer, data: bytes, to_server: bool, at: float) -> None:
        for frame in framer.feed(data):
            if frame is not PING:
                self._network.wire.note(frame, at, to_server=to_server, link=self.name)
