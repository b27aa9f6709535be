"""What very many bindings and open calls take: time to the first answer, memory, and how long the loop stops.

The bindings are written into ``location.db`` by the project's own code, and the server is started on them twice: once
to see how long it takes until it answers with one of them, and what it holds in memory; once more when all of them
expire within a second; others register meanwhile. Then it is started anew, and calls are begun that go on. Everything
ends by itself.
"""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmark.generator import HOST, Generator, Second, credentials
from benchmark.systems import DOMAIN, PEOPLE, BenchError, Sipserver, person
from sipserver.location.rows import to_row
from sipserver.location.schema import MIGRATIONS, PRAGMAS, UPSERT
from sipserver.registrar.binding import Binding
from sipserver.storage.migrations import open_store

METRICS: Final = 3
"""Port of the metrics, above that of the server."""
PATIENCE: Final = 600.0
EXPIRY_AFTER: Final = 90.0
"""Seconds from the second start to the expiry of everything: enough to have read a million."""
DEVICES: Final = 2
"""Bindings of an address."""
REGISTRATIONS: Final = 100.0
"""A second, while bindings expire."""
CALLS_A_SECOND: Final = 300
WARM_CALLS: Final = 500
SETTLE: Final = 36.0
"""Seconds after the last call in which its transactions end: 64 * T1 and some more."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Scale:
    """What was measured; times in seconds, memory in bytes."""

    bindings: int
    calls: int
    ready: float = 0.0
    """From the start of the process to ``server.ready``."""
    first_answer: float = 0.0
    """From the start of the process to the 200 to an authenticated REGISTER that lists what was stored."""
    loaded: float = 0.0
    """From the start of the process until everything was in memory, while some register."""
    load_processor: float = 0.0
    """Processor time of the whole start."""
    load_late_ms: float = 0.0
    """How late the loop was at most meanwhile."""
    per_binding: float = 0.0
    """Resident memory beyond that of the same server without bindings."""
    expired: float = 0.0
    """From the second in which all expire until none is left, in memory, and on the disk of what is on record."""
    expire_late_ms: float = 0.0
    register_p99_ms: float = 0.0
    register_longest_ms: float = 0.0
    """Of registrations meanwhile."""
    registrations: int = 0
    registrations_failed: int = 0
    calls_open: int = 0
    call_late_ms: float = 0.0
    """How late the loop was at most while calls were begun."""
    per_call: float = 0.0
    """Proportional memory of the server for each open call, once its transactions have ended."""
    delays: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All but the single delays."""
        return {name: value for name, value in asdict(self).items() if name != "delays"}


def measure(folder: Path, port: int, bindings: int, calls: int, rate: float, tell: Tell) -> Scale:
    """Everything. Raises BenchError."""
    fewest = DEVICES * PEOPLE
    if 0 < bindings < fewest:
        # The last of those who can register asks for what is stored of them.
        raise BenchError(f"--bindings is 0 or at least {fewest}: two of each of those who register")
    found = Scale(bindings, calls)
    server = Sipserver("sipserver", folder, port)
    server.patience = PATIENCE
    # What is refused in overload would not be open; that is measured by ``limits``.
    server.configuration = f'[metrics]\nlisten = "127.0.0.1:{port + METRICS}"\n[overload]\nenabled = false\n'
    server.prepare()
    try:
        if bindings:
            _start_with_bindings(server, found, tell)
            _expire_all(server, found, tell)
        if calls:
            _open_calls(server, found, rate, tell)
    finally:
        server.stop()
    return found


def table(found: Scale) -> str:
    """For a person."""
    lines = []
    if found.bindings:
        lines += [
            f"bindings                              {found.bindings:>12,}",
            f"first correct answer after            {found.first_answer:>12.1f} s",
            f"all in memory after                   {found.loaded:>12.1f} s",
            f"processor time of that start          {found.load_processor:>12.1f} s",
            f"loop late at most meanwhile           {found.load_late_ms:>12.1f} ms",
            f"memory of a binding                   {found.per_binding:>12.0f} bytes",
            f"all expired and off the disk after    {found.expired:>12.1f} s",
            f"loop late at most meanwhile           {found.expire_late_ms:>12.1f} ms",
            f"REGISTER to 200 meanwhile, 99 % below {found.register_p99_ms:>12.1f} ms",
            f"failed of {found.registrations:<8} of these         {found.registrations_failed:>12}",
        ]
    if found.calls:
        lines += [
            f"open calls                            {found.calls_open:>12,}",
            f"memory of an open call                {found.per_call:>12.0f} bytes",
            f"loop late at most meanwhile           {found.call_late_ms:>12.1f} ms",
        ]
    return "\n".join(lines)


# ---- bindings


def made(count: int, expires_at: float) -> Iterator[Binding]:
    """So many bindings, two of each address, the first of them people's who can register."""
    now = time.time()
    for number in range(-(-count // DEVICES)):
        user = person(number) if number < PEOPLE else f"user{number}"
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        for device in range(min(DEVICES, count - DEVICES * number)):
            port, serial = 5060 + device, DEVICES * number + device
            yield Binding(
                f"{user}@{DOMAIN}", f"sip:{user}@{host}:{port}", 1000, expires_at,
                f"{serial:016x}@{host}", 1, f"<urn:uuid:{number:08x}-000{device}-1000-8000-{serial:012x}>", 1, (),
                f"Agent/{number % 40}", "", "UDP", host, port, 0, now, "127.0.0.1:5060",
            )  # fmt: skip


def write(path: Path, bindings: Iterator[Binding]) -> None:
    """Make a ``location.db`` of them."""
    with closing(open_store(path, MIGRATIONS, pragmas=PRAGMAS)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.executemany(UPSERT, map(to_row, bindings))
        connection.execute("COMMIT")


def _start_with_bindings(server: Sipserver, found: Scale, tell: Tell) -> None:
    """What it holds without bindings, and then with them."""
    server.serve()
    server.wait_until_ready()
    time.sleep(2)
    empty = server.resident()
    server.stop()
    tell(f"writing {found.bindings} bindings")
    path = server.folder / "data" / "location.db"
    write(path, made(found.bindings, time.time() + 86_400))
    tell("starting")
    began = time.monotonic()
    server.serve()
    found.first_answer = _first_answer(server.port, began)
    server.wait_until_ready()
    found.load_late_ms = metric(server, "loop_late_ms")
    with closing(Generator("register", server.port)) as others:
        # How late the loop is is measured while messages come.
        while metric(server, "bindings_unread"):
            others.run(0.5, REGISTRATIONS)
            found.load_late_ms = max(found.load_late_ms, metric(server, "loop_late_ms"))
        found.loaded = time.monotonic() - began
        found.load_processor = sum(server.processor_time())
        others.finish()
    time.sleep(2)
    if metric(server, "bindings") < found.bindings:
        raise BenchError(f"of {found.bindings} bindings {metric(server, 'bindings'):.0f} were read")
    found.per_binding = (server.resident() - empty) * 1024 * 1024 / found.bindings
    server.stop()


def _first_answer(port: int, began: float) -> float:
    """Seconds until somebody who asks for their bindings gets them, counted from ``began``."""
    user = person(PEOPLE - 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((HOST, port))
        asking.settimeout(0.1)
        here, number, proof = f"{HOST}:{asking.getsockname()[1]}", 0, ""
        while time.monotonic() - began < PATIENCE:
            number += 1
            with suppress(OSError):
                asking.send(_question(user, here, number, proof))
                answer = asking.recv(8192)
                nonce = re.search(rb'nonce="([^"]+)"', answer)
                if nonce is not None:
                    proof = credentials("REGISTER", f"sip:{DOMAIN}", PEOPLE - 1, nonce[1].decode()).decode()
                if answer.startswith(b"SIP/2.0 200") and answer.count(f"<sip:{user}@10.".encode()) == DEVICES:
                    return time.monotonic() - began
            if not proof:
                # Nothing listens yet.
                time.sleep(0.02)
    raise BenchError("nobody was told of their bindings")


def _question(user: str, here: str, number: int, proof: str) -> bytes:
    """A REGISTER that asks where somebody is registered (RFC 3261 §10.2.3)."""
    return (
        f"REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKfirst{number};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:{user}@{DOMAIN}>;tag=f\r\nTo: <sip:{user}@{DOMAIN}>\r\n"
        f"Call-ID: first@{here}\r\nCSeq: {number} REGISTER\r\n{proof}Content-Length: 0\r\n\r\n"
    ).encode()


def _expire_all(server: Sipserver, found: Scale, tell: Tell) -> None:
    """All of them at once, while others register."""
    path = server.folder / "data" / "location.db"
    at = float(int(time.time() + EXPIRY_AFTER))
    with closing(open_store(path, MIGRATIONS, pragmas=PRAGMAS)) as connection:
        # Some milliseconds apart, as registrations that came in a burst.
        connection.execute("UPDATE bindings SET expires_at = ? + (port % 2) * 0.5", (at - 0.9,))
    server.serve()
    server.wait_until_ready()
    wait_for(server, "bindings_unread", 0)
    if time.time() > at - 2:
        raise BenchError("reading takes longer than expiring can be put off")
    tell("everything expires")
    with closing(Generator("register", server.port)) as others:
        others.run(at - time.time() - 1, REGISTRATIONS)
        first = len(others.seconds)
        watch = partial(_watch, server, found)
        ended = time.time() + PATIENCE
        while time.time() < ended:
            seconds = others.run(2.0, REGISTRATIONS, watch)
            _note(found, seconds)
            if _is_expired(server, found):
                break
        else:
            raise BenchError("bindings did not expire")
        others.finish()
        found.expired = time.time() - at
        found.registrations = sum(each.offered for each in others.seconds[first:])
        found.registrations_failed = sum(each.failed + each.refused for each in others.seconds[first:])
    found.delays.sort()
    if found.delays:
        found.register_p99_ms = found.delays[int(len(found.delays) * 0.99)] * 1000
        found.register_longest_ms = found.delays[-1] * 1000


def _note(found: Scale, seconds: list[Second]) -> None:
    for each in seconds:
        found.delays += each.delays


def _watch(server: Sipserver, found: Scale, _second: Second) -> None:
    found.expire_late_ms = max(found.expire_late_ms, metric(server, "loop_late_ms"))


def _is_expired(server: Sipserver, found: Scale) -> bool:
    """Whether only those are left that register, and nothing waits for the disk."""
    is_gone = metric(server, "bindings") <= min(found.bindings, PEOPLE)
    return is_gone and metric(server, 'store_rows_waiting{store="calls"}') < 1_000


# ---- calls


def _open_calls(server: Sipserver, found: Scale, rate: float, tell: Tell) -> None:
    # What went with the bindings has left room in the memory of the process that held them.
    if server.process is not None:
        server.stop()
    server.serve()
    server.wait_until_ready()
    with closing(Generator("register", server.port)) as people:
        tell("everybody registers")
        people.run(PEOPLE / (2 * rate), 2 * rate)
        people.finish()
        with closing(Generator("call", server.port, called=people)) as callers:
            _talk(callers, WARM_CALLS, rate)
            while callers.end_one():
                callers.run(1 / rate, 0)
            callers.run(SETTLE, 0)
            empty = server.memory()
            tell(f"{found.calls} calls")
            _talk(callers, found.calls, rate)
            found.call_late_ms = metric(server, "loop_late_ms")
            callers.run(SETTLE, 0)
            found.calls_open = int(metric(server, "calls_open"))
            # Where the machine is busy with other things, some are refused in overload.
            if found.calls_open < 0.9 * found.calls:
                raise BenchError(f"of {found.calls} calls {found.calls_open} are open")
            found.per_call = (server.memory() - empty) * 1024 * 1024 / found.calls_open


def _talk(callers: Generator, calls: int, rate: float) -> None:
    """Begin so many calls that go on."""
    callers.run(calls / rate, rate, keep=True)
    callers.run(3.0, 0)


# ---- metrics


def wait_for(server: Sipserver, name: str, value: float) -> float:
    """When a metric had this value (monotonic time). Raises BenchError."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            if metric(server, name) == value:
                return time.monotonic()
        time.sleep(0.1)
    raise BenchError(f"{name} did not become {value}")


def metric(server: Sipserver, name: str) -> float:
    """A metric of the server by its name, with its labels where it has some."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port + METRICS}/metrics", timeout=60) as page:
        text = page.read().decode()
    found = re.search(rf"^sipserver_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise BenchError(f"the server has no metric {name}")
    return float(found[1])
