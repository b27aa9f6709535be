"""A whole server in this process: real machines and real stores, but no sockets, and time that the test moves.

What the server sends is collected instead; commits are noticed when the test lets the loop turn (``settle``).
"""

from __future__ import annotations

import asyncio
import heapq
import os
import queue
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, Self, cast

import orjson

from sipserver.accounts.schema import open_accounts, open_keyring
from sipserver.accounts.subscribers import Subscribers
from sipserver.server.clock import Clock
from sipserver.server.config import load
from sipserver.server.service import Service
from sipserver.sip.flow import Flow
from sipserver.sip.locate import Usable
from sipserver.sip.message import Message, Request, Response, parse
from sipserver.storage.database import sqlite
from sipserver.telemetry.log import Log, configure
from sipserver.transport.base import Transports
from sipserver.transport.contract import DEFAULT_PORTS
from support.pen import DOMAIN, Pen
from support.stores import put_stores

SERVER = "192.0.2.1"
EPOCH = 1_795_000_000.0
"""UNIX time when the loop's clock stands at 0."""
STORAGE = """
[storage]
synchronous = "NORMAL"
commit_interval_ms = 0
call_commit_interval_ms = 0
"""
"""Nobody cuts the power of a test, which would wait for the disk at each step otherwise."""


class Handle:
    """A call to be made, unless it is cancelled."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not make it."""
        self.cancelled = True


class ManualLoop:
    """What the server needs of a loop, turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        """What other threads want to be called."""
        self.timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()

    def time(self) -> float:
        """Seconds."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        """Remember the call."""
        handle = Handle(callback)
        heapq.heappush(self.timers, (when, next(self._numbers), handle))
        return handle

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Remember the call; ``Server.settle`` makes it."""
        self.calls.put(callback)

    def advance(self, seconds: float) -> None:
        """Let time pass, and whatever is due in it happen."""
        until = self.now + seconds
        # Sums of fractions are not exact.
        while self.timers and self.timers[0][0] <= until + 1e-9:
            when, _, handle = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                handle.callback()
        self.now = max(self.now, until)


class FakeTransports(Transports):
    """Sockets that only remember. UDP goes everywhere; TCP to connections that were made and to who listens."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[Flow, bytes]] = []
        self.alive: dict[int, Flow] = {}
        """Connections by number."""
        self.accepting: set[tuple[str, int]] = set()
        """Where a TCP connection can be opened to."""
        self.proving: dict[tuple[str, int], str] = {}
        """Where a TLS connection can be opened to, and the name that its certificate is for."""
        self._datagrams: dict[tuple[str, int], Flow] = {}
        self._numbers = count(1)

    def open(self, host: str, port: int, transport: str = "TCP") -> Flow:
        """A new connection with this peer."""
        sent_by = f"{SERVER}:{DEFAULT_PORTS[transport]}"
        flow = Flow(transport, host, port, sent_by, True, connection=next(self._numbers))
        self.alive[flow.connection] = flow
        return flow

    def udp_flow(self, host: str, port: int) -> Flow:
        """The flow of a UDP peer; always the same."""
        return self._datagrams.setdefault((host, port), Flow("UDP", host, port, f"{SERVER}:5060", False))

    def send(self, flow: Flow, data: bytes) -> bool:
        """Remember what is sent; False on a connection that is gone."""
        if flow.connection and flow.connection not in self.alive:
            return False
        self.sent.append((flow, data))
        return True

    def flow_for(
        self, transport: str, host: str, port: int, connection: int = 0, *, listener: int | None = None,
        local_host: str = "",
    ) -> Flow | None:  # fmt: skip
        """As the real one, without listeners to choose from."""
        if transport == "UDP":
            return self.udp_flow(host, port)
        found = self.alive.get(connection)
        return found or next((each for each in self.alive.values() if (each.host, each.port) == (host, port)), None)

    def flow_of(self, transport: str, host: str, port: int, connection: int, local: str) -> Flow | None:
        """As the real one."""
        if transport == "UDP":
            return self.udp_flow(host, port) if local == f"{SERVER}:5060" else None
        return self.alive.get(connection)

    def connect(
        self, transport: str, host: str, port: int, callback: Callable[[Flow | None], None], *,
        listener: int | None = None, name: str = "",
    ) -> None:  # fmt: skip
        """At once."""
        place = (host, port)
        there = place in self.accepting if transport == "TCP" else self.proving.get(place) == (name or host)
        callback(self.open(host, port, transport) if there else None)

    def usable(self) -> Usable:
        """Everything, over IPv4."""
        return frozenset((("UDP", 4), ("TCP", 4), ("TLS", 4)))

    def is_us(self, host: str, port: int | None) -> bool:
        """The one host, which listens on the usual ports."""
        return host == SERVER and (port or 5060) in (5060, 5061)


class Server:
    """The server under test. Use with ``with``."""

    def __init__(self, folder: Path, *users: str, config: str = "") -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        put_stores(self.data_dir)
        add_subscribers(self.data_dir, users)
        file = folder / "sipserver.toml"
        file.write_text(config if "[storage]" in config else config + STORAGE)
        self.loop = ManualLoop()
        self.transports = FakeTransports()
        self._log_path = folder / "log"
        self._log_file = os.open(self._log_path, os.O_WRONLY | os.O_CREAT)
        self.clock_set = 0.0
        """Seconds that somebody set the machine's clock forward by."""
        clock = Clock(lambda: EPOCH + self.clock_set + self.loop.now, self.loop.time)
        self.service = Service(
            load(file, domains=[DOMAIN], data_dir=self.data_dir), cast(asyncio.AbstractEventLoop, self.loop), clock,
            self._make_log, self.transports,
        )  # fmt: skip
        self.driver = self.service.driver

    def _make_log(self, _party: Callable[[str], str | None]) -> Log:
        return configure("json", "debug", self._log_file, clock=lambda: EPOCH + self.loop.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.timers.close()
        self.service.credentials.close()
        self.service.parties.close()
        self.service.ledger.close()
        for each in (self.service.calls_writer, self.service.parties_writer, self.service.location):
            each.close()
        self.service.log.close()
        os.close(self._log_file)

    def receive(self, data: bytes, flow: Flow) -> None:
        """A message arrives, alone in its batch; nothing is committed yet as far as the loop knows."""
        self.driver.on_message(data, flow)
        self.driver.on_batch_end()

    def settle(self) -> None:
        """Let the loop turn until every row is committed and everybody who waited for it was told."""
        service = self.service
        while True:
            self.driver.on_batch_end()
            service.calls_writer.flush()
            pending = service.calls_writer.pending + service.parties_writer.pending + service.location.writer.pending
            if self.loop.calls.empty() and not pending:
                return
            if pending:
                # A commit without callbacks calls nobody, so this may be in vain.
                try:
                    self.loop.calls.get(timeout=0.001)()
                except queue.Empty:
                    continue
            else:
                self.loop.calls.get()()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)

    def tick(self, seconds: int) -> None:
        """Let so many seconds pass, with what the server does each second."""
        for _ in range(seconds):
            self.loop.advance(1)
            self.service.tick()
            self.settle()

    def sent_to(self, flow: Flow) -> list[Message]:
        """What was sent on this flow since it was last asked for."""
        found = [data for each, data in self.transports.sent if each is flow]
        self.transports.sent = [(each, data) for each, data in self.transports.sent if each is not flow]
        return [parse(data) for data in found]

    def rows(self, query: str, *values: object, store: str = "calls.db") -> list[dict[str, Any]]:
        """What a query finds in one of the stores, once everything is committed."""
        self.settle()
        connection = sqlite.connect(self.data_dir / store)
        try:
            cursor = connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        finally:
            connection.close()

    def log(self, event: str) -> list[dict[str, Any]]:
        """The lines of this event."""
        self.service.log.flush()
        lines = [orjson.loads(line) for line in self._log_path.read_bytes().splitlines()]
        return [line for line in lines if line["event"] == event]


def add_subscribers(data_dir: Path, users: Iterable[str]) -> None:
    """Accounts whose passwords are ``pw`` and the user's name."""
    connection = open_accounts(data_dir)
    subscribers = Subscribers(connection, open_keyring(data_dir, connection, {}))
    for user in users:
        subscribers.add(f"{user}@{DOMAIN}", f"pw{user}")
    connection.close()


def disable(data_dir: Path, user: str) -> None:
    """As ``sipserver subscribers disable``, from another connection."""
    connection = open_accounts(data_dir)
    Subscribers(connection, None).disable(f"{user}@{DOMAIN}")
    connection.close()


class Device(Pen):
    """An endpoint of one user at one address: writes requests, reads answers."""

    def __init__(
        self, server: Server, user: str, host: str = "192.0.2.7", port: int = 5070, *, tcp: bool = False, first: int = 1
    ) -> None:
        self.server = server
        transports = server.transports
        super().__init__(user, transports.open(host, port) if tcp else transports.udp_flow(host, port), first)

    def send(self, data: bytes) -> None:
        """Put a message on the wire."""
        self.server.receive(data, self.flow)

    def reconnect(self) -> None:
        """Its connection is gone without a word, and there is another."""
        transports, old = self.server.transports, self.flow
        transports.alive.pop(old.connection)
        self.server.driver.on_closed(old)
        self.server.driver.on_batch_end()
        self.flow = transports.open(old.host, old.port + 1, old.transport)

    def received(self) -> list[Message]:
        """What came since it was last asked for."""
        return self.server.sent_to(self.flow)

    def ask(self, data: bytes) -> Response:
        """Send a request, let everything settle, and return the one response that came."""
        self.send(data)
        self.server.settle()
        (answer,) = [each for each in self.received() if isinstance(each, Response) and each.status >= 200]
        return answer

    def signed(self, method: str, uri: str = "", *lines: str, password: str = "", **options: Any) -> bytes:
        """A request with credentials for the challenge that it meets without them."""
        uri = uri or f"sip:{DOMAIN}"
        probe = self.write(method, uri, *lines, **{**options, "branch": "", "cseq": 0})
        challenge = self.ask(probe)
        assert challenge.status in (401, 407), challenge.start_line
        return self.write(method, uri, *lines, self.credentials(challenge, method, uri, password), **options)

    def register(self, *lines: str, **options: Any) -> Response:
        """REGISTER with credentials; the final response."""
        to = f"<sip:{self.user}@{DOMAIN}>"
        lines = lines or (f"Contact: <{self.contact}>",)
        return self.ask(self.signed("REGISTER", "", *lines, to=to, **{"call_id": f"r-{self.user}", **options}))

    def invite(self, callee: str, *lines: str, **options: Any) -> bytes:
        """An INVITE with credentials, to be sent."""
        return self.signed("INVITE", f"sip:{callee}@{DOMAIN}", f"Contact: <{self.contact}>", *lines, **options)

    def requests(self, method: str) -> list[Request]:
        """The requests of this method that came."""
        return [each for each in self.received() if isinstance(each, Request) and each.method == method]


def statuses(messages: Iterable[Message]) -> list[int]:
    """The statuses of the responses among these."""
    return [each.status for each in messages if isinstance(each, Response)]


class Browser(Device):
    """A page with a SIP library in it: it knows no address of its own (RFC 7118 appendix B.1)."""

    def __init__(
        self, server: Server, user: str, host: str = "192.0.2.8", port: int = 40_000, *, transport: str = "WSS",
        name: str = "",
    ) -> None:  # fmt: skip
        super().__init__(server, user, host, port)
        self.flow = server.transports.open(host, port, transport)
        self.name = name or f"{user}df7jal23ls0d.invalid"

    @property
    def hostport(self) -> str:
        """A name that nobody can look up."""
        return self.name

    @property
    def contact(self) -> str:
        """As JsSIP and SIP.js write it."""
        return f"sip:{self.user}@{self.name};transport=ws"
