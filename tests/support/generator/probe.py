"""How long the server takes for a question that it answers at once: what stands in its queues takes as long.

Datagrams and streams are read one after the other, so each has a probe of its own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.framing import StreamFramer
from sipserver.sip.message import Limits

ASKED_EVERY = 0.02
"""Seconds between two questions."""


@dataclass(slots=True)
class Probe:
    """Asks an OPTIONS again and again, straight to the server."""

    asked: list[float] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)

    async def ask_datagrams(self, server: tuple[str, int]) -> None:
        """Over UDP, until it is cancelled."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((server[0], 0))

        def read() -> None:
            with suppress(OSError):
                while True:
                    self._note(sock.recv(65_536))

        loop.add_reader(sock, read)
        try:
            while True:
                with suppress(OSError):
                    sock.sendto(self._question("UDP", sock.getsockname(), server), server)
                await asyncio.sleep(ASKED_EVERY)
        finally:
            loop.remove_reader(sock)
            sock.close()

    async def ask_stream(self, server: tuple[str, int]) -> None:
        """Over TCP, until it is cancelled; once the server is there again over a new connection."""
        while True:
            with suppress(OSError, MalformedMessage):
                reader, writer = await asyncio.open_connection(*server)
                asking = asyncio.create_task(self._ask_over(writer, server))
                framer = StreamFramer(Limits())
                try:
                    while data := await reader.read(65_536):
                        for frame in framer.feed(data):
                            self._note(frame)
                finally:
                    asking.cancel()
                    writer.close()
            await asyncio.sleep(ASKED_EVERY)

    async def _ask_over(self, writer: asyncio.StreamWriter, server: tuple[str, int]) -> None:
        while True:
            writer.write(self._question("TCP", writer.get_extra_info("sockname"), server))
            await asyncio.sleep(ASKED_EVERY)

    def _question(self, transport: str, here: tuple[str, int], server: tuple[str, int]) -> bytes:
        number = len(self.asked)
        self.asked.append(time.time())
        lines = (
            f"OPTIONS sip:{server[0]}:{server[1]} SIP/2.0",
            f"Via: SIP/2.0/{transport} {here[0]}:{here[1]};branch=z9hG4bKprobe{transport}{number};rport",
            "Max-Forwards: 70", "From: <sip:probe@probe.invalid>;tag=p", f"To: <sip:{server[0]}:{server[1]}>",
            f"Call-ID: probe-{number}", "CSeq: 1 OPTIONS", "Content-Length: 0", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode()

    def _note(self, answer: bytes) -> None:
        number = int(answer.partition(b"Call-ID: probe-")[2].partition(b"\r\n")[0])
        self.answered.setdefault(number, time.time())
