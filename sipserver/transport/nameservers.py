"""Asking name servers: one question, one bounded answer (RFC 1035; messages are made and read by dnspython).

The servers are those of the configuration, or the system's (/etc/resolv.conf, read again when it changes). Each
question leaves from a socket of its own, so from a port that nobody can guess, and only the server that was asked can
answer it. An answer that was cut short is asked for again over TCP. Whatever is longer than the bounds is no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from sipserver.sip.locate import Naptr, Question, Records, Srv
from sipserver.transport.contract import canonical_ip, is_ip, is_unicast

PAYLOAD = 1232
"""Bytes of a datagram that are asked for (EDNS): what passes every network unfragmented."""
LONGEST_ANSWER = 16_384
"""Bytes of an answer over TCP; a longer one is not read."""
MAX_RECORDS = 16
"""Records of one answer that are looked at."""
TRY = 1.0
"""Seconds that one server has, before the next one is asked."""
MAX_SERVERS = 3
RECHECK = 5.0
"""Seconds between two looks whether the system's files have changed."""

_PORT = 53
_READABLE = (dns.exception.DNSException, ValueError)
"""What bytes that are no answer raise."""

Server = tuple[str, int]


@dataclass(slots=True)
class Answer:
    """What a server said."""

    records: Records
    ttl: int
    """Seconds that it holds: of what is there the shortest TTL, of what is not as the zone says (RFC 2308 §5)."""


class NoAnswer(Exception):
    """No server gave an answer that can be used."""


class NameServers:
    """Asks one question at a time of one server after the other."""

    def __init__(
        self, servers: Sequence[Server] = (), timeout: float = 3.0, resolv_conf: Path = Path("/etc/resolv.conf")
    ) -> None:
        self.timeout = timeout
        """Seconds that one question may take."""
        self._file = None if servers else WatchedFile(resolv_conf)
        self._servers = list(servers)[:MAX_SERVERS]
        self._first = 0
        """The server that is asked first: the last one that answered."""

    async def ask(self, question: Question) -> Answer:
        """The answer to one question. Raises NoAnswer."""
        try:
            query = dns.message.make_query(
                question[0] + ".", question[1], use_edns=0, payload=PAYLOAD, want_dnssec=False
            )
            wire = query.to_wire()
        except _READABLE:
            # No name of the DNS: a label too long, or nothing between two dots.
            return Answer(Records(), 0)
        servers = self._current()
        try:
            async with asyncio.timeout(self.timeout):
                while servers:
                    for offset in range(len(servers)):
                        number = (self._first + offset) % len(servers)
                        answer = await self._ask_one(servers[number], query, wire, question[1])
                        if answer is not None:
                            self._first = number
                            return answer
        except TimeoutError:
            pass
        raise NoAnswer(question[0])

    def _current(self) -> list[Server]:
        if self._file is not None and self._file.changed():
            self._servers, self._first = system_servers(self._file.text()), 0
        return self._servers

    async def _ask_one(self, server: Server, query: dns.message.Message, wire: bytes, kind: str) -> Answer | None:
        """None where this server has no answer, or none in time."""
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError, TimeoutError, *_READABLE):
            async with asyncio.timeout(TRY):
                message = await _over_udp(server, query, wire)
                if message.flags & dns.flags.TC:
                    message = await _over_tcp(server, query, wire)
            return read_answer(message, kind)
        # One that refuses at once is not asked again at once.
        await asyncio.sleep(max(0.0, began + 0.1 - asyncio.get_running_loop().time()))
        return None


def read_answer(message: dns.message.Message, kind: str) -> Answer | None:
    """What a response says; None where it is a failure of the server. Raises DNSException."""
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return None
    assert isinstance(message, dns.message.QueryMessage), "the response to a query"
    # CNAMEs are followed within the answer, sixteen of them.
    found = message.resolve_chaining()
    rows: list[Any] = [] if found.answer is None else list(found.answer)[:MAX_RECORDS]
    if kind == "NAPTR":
        records = Records(naptr=[_naptr(row) for row in rows])
    elif kind == "SRV":
        records = Records(srv=[Srv(row.priority, row.weight, row.port, _name(row.target)) for row in rows])
    else:
        addresses = [canonical_ip(row.address) for row in rows]
        records = Records(addresses=[each for each in addresses if is_unicast(each)])
    return Answer(records, found.minimum_ttl)


def _naptr(row: Any) -> Naptr:
    flags, service, regexp = [bytes(each).decode("latin-1") for each in (row.flags, row.service, row.regexp)]
    return Naptr(row.order, row.preference, flags, service, regexp, _name(row.replacement))


def _name(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


class _Exchange(asyncio.DatagramProtocol):
    """One question over UDP; whatever is no answer to it is passed over."""

    def __init__(self, query: dns.message.Message, answered: asyncio.Future[dns.message.Message]) -> None:
        self._query = query
        self._answered = answered

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """The socket is connected, so this is from the server, or from who forges its address."""
        if self._answered.done():
            return
        with contextlib.suppress(*_READABLE):
            # A datagram that was cut short is no fault: it is asked for again.
            message = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
            if self._query.is_response(message):
                self._answered.set_result(message)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there."""
        if not self._answered.done():
            self._answered.set_exception(exc)


async def _over_udp(server: Server, query: dns.message.Message, wire: bytes) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[dns.message.Message] = loop.create_future()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Exchange(query, answered), remote_addr=server, family=family
    )
    try:
        transport.sendto(wire)
        return await answered
    finally:
        transport.close()


async def _over_tcp(server: Server, query: dns.message.Message, wire: bytes) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(*server, limit=LONGEST_ANSWER)
    try:
        writer.write(len(wire).to_bytes(2, "big") + wire)
        length = int.from_bytes(await reader.readexactly(2), "big")
        if length > LONGEST_ANSWER:
            raise ValueError("the answer is too long")
        message = dns.message.from_wire(await reader.readexactly(length), ignore_trailing=True)
        if not query.is_response(message):
            raise ValueError("no answer to the question")
        return message
    except EOFError:
        raise OSError("the server hung up") from None
    finally:
        writer.close()


class WatchedFile:
    """A small file of the system that may change while the server runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at = float("-inf")
        self._stamp: tuple[int, int] | None = (-1, -1)

    def changed(self) -> bool:
        """Whether it is another one than before; looked at every few seconds only."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < RECHECK:
            return False
        self._looked_at = now
        try:
            found = self._path.stat()
            stamp: tuple[int, int] | None = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = None
        changed, self._stamp = stamp != self._stamp, stamp
        return changed

    def text(self) -> str:
        """What is in it; nothing where it cannot be read."""
        try:
            with self._path.open("rb") as file:
                return file.read(1_000_000).decode("latin-1")
        except OSError:
            return ""


def system_servers(text: str) -> list[Server]:
    """The name servers that a resolv.conf names."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and is_ip(words[1].partition("%")[0]):
            found.append((words[1], _PORT))
    return found[:MAX_SERVERS]


def hosts_of(text: str) -> dict[str, list[str]]:
    """The names of a hosts file with their addresses."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2 or not is_ip(words[0]):
            continue
        for name in words[1:]:
            addresses = found.setdefault(name.lower().removesuffix("."), [])
            if canonical_ip(words[0]) not in addresses:
                addresses.append(canonical_ip(words[0]))
    return found
