"""Where our own cost goes: the server runs under callgrind, which counts instructions, and each is put to a phase.

Instructions are counted and not timed, so the result is the same however busy the machine is. A function of the
package counts with all the libraries that it calls, and without what it calls of the package, which counts by itself.
The kernel's part cannot be seen this way: it is measured by ``load`` in a run without callgrind.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

from benchmark import load
from benchmark.systems import BenchError, Sipserver

RATE = 8
"""Operations per second: the server is some fifty to a hundred times slower."""
COUNT = 200
PATIENCE = 300.0

PHASES = {
    "receive and send": ("udp", "contract", "transport", "flows", "resolver"),
    "parse": ("message", "grammar", "names", "uri", "values", "framing", "validate", "flow"),
    "transaction": ("transactions", "keys", "invite_server", "invite_client", "server", "client", "timers"),
    "authenticate": ("digest", "challenges", "credentials", "lru"),
    "decide": (
        "route", "identity", "targets", "fork", "branch", "forward", "dialog", "record_route", "session", "effects",
        "process", "binding", "contacts", "driver", "proxying", "relay", "registrations", "context", "gate", "build",
        "memory", "sqlite", "base", "tokens", "clock",
    ),
    "record": (
        "machine", "recorder", "rows", "events", "media", "negotiation", "sdp", "dialogs", "watch", "liveness",
        "locating", "whereabouts", "places", "network", "times", "observe", "activity", "floods", "errors", "outcomes",
        "batch", "quality", "transfers", "rtpstat", "access_network", "geolocation", "delays",
    ),
    "log": ("log", "sink"),
}  # fmt: skip
"""Modules by what they do for a message; what is in none counts as ``loop and interpreter``."""
STORE = "store"
REST = "loop and interpreter"

_OURS = re.compile(r"CPyDef_(?:[a-z]+___)?([a-z_0-9]+?)___")


def why_not() -> str:
    """Why this cannot be done here; empty where it can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (Debian: apt install valgrind)"
    return ""


def measure(folder: Path, port: int, operation: str) -> dict[str, float]:
    """The share of each phase in the instructions that one kind of operation takes. Raises BenchError."""
    out = folder / "callgrind.out"
    server = Sipserver("sipserver", folder, port)
    server.wrapper = (
        "valgrind", "-q", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}",
    )  # fmt: skip
    server.patience = PATIENCE
    # As few people as operations: everybody who is called has registered.
    people = load.write_people(folder, COUNT)
    server.start()
    try:
        load.register(server, people, COUNT * 2, RATE * 4)
        _control(server, "--zero")
        if operation == "call":
            cost = load.call(server, people, COUNT, RATE)
        else:
            cost = load.register(server, people, COUNT, RATE)
        _control(server, "--dump")
        if cost.failed:
            raise BenchError(f"{cost.failed} of {COUNT} failed under callgrind: what it counted is something else")
    finally:
        server.stop()
    return _shares(sorted(folder.glob("callgrind.out.1-*")))


def _control(server: Sipserver, what: str) -> None:
    assert server.process is not None, "it was started"
    subprocess.run(
        ["callgrind_control", what, str(server.process.pid)], check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _shares(dumps: list[Path]) -> dict[str, float]:
    """Of the dumps of all threads; the loop's is that which spent most in the package's own code, the others write."""
    if not dumps:
        raise BenchError("callgrind wrote nothing")
    threads = [read(dump) for dump in dumps]
    loop = max(threads, key=lambda thread: sum(thread[1].values()))
    spent: dict[str, float] = defaultdict(float)
    for thread in threads:
        total, modules = thread
        if thread is loop:
            for module, cost in modules.items():
                spent[_phase(module)] += cost
            spent[REST] += total - sum(modules.values())
        else:
            spent[STORE] += total
    whole = sum(spent.values())
    return {phase: cost / whole for phase, cost in sorted(spent.items(), key=lambda item: -item[1])}


def _phase(module: str) -> str:
    for phase, modules in PHASES.items():
        if module in modules:
            return phase
    return REST


def read(dump: Path) -> tuple[float, dict[str, float]]:
    """Instructions in all, and by module of the package, of a file in callgrind's format."""
    names: dict[str, str] = {}
    total, inside_call, current, called = 0.0, False, "", ""
    spent: dict[str, float] = defaultdict(float)
    inclusive: dict[tuple[str, str], float] = defaultdict(float)
    with dump.open(errors="replace") as lines:
        for line in lines:
            key, equals, value = line.partition("=")
            if equals and key in ("fn", "cfn"):
                name = _name(value.strip(), names)
                if key == "fn":
                    current = name
                else:
                    called = name
            elif equals and key == "calls":
                inside_call = True
            elif line[0] in "0123456789+-*":
                cost = float(line.split()[-1]) if len(line.split()) > 1 else 0.0
                if inside_call:
                    inside_call = False
                    inclusive[current, called] += cost
                else:
                    total += cost
                    spent[current] += cost
    return total, _by_module(spent, inclusive)


def _name(text: str, names: dict[str, str]) -> str:
    """A name is written once, and by its number from then on."""
    number, _, name = text.partition(" ")
    if name:
        names[number] = name
    return names.get(number, number)


def _by_module(spent: dict[str, float], inclusive: dict[tuple[str, str], float]) -> dict[str, float]:
    """Each library function's own cost goes to those who call it, in the proportion of what their calls took."""
    incoming: dict[str, float] = defaultdict(float)
    callers: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (caller, callee), cost in inclusive.items():
        if caller != callee:
            incoming[callee] += cost
            callers[callee].append((caller, cost))
    share: dict[str, dict[str, float]] = {}
    modules: dict[str, float] = defaultdict(float)
    for name, cost in spent.items():
        for module, part in _owners(name, callers, incoming, share, 0).items():
            modules[module] += cost * part
    modules.pop("", None)
    return modules


def _owners(
    name: str, callers: dict[str, list[tuple[str, float]]], incoming: dict[str, float],
    share: dict[str, dict[str, float]], depth: int,
) -> dict[str, float]:  # fmt: skip
    """Which modules a function works for, and how much of its work is for each; ``""`` for none of ours."""
    known = share.get(name)
    if known is not None:
        return known
    found = _OURS.match(name)
    if found:
        share[name] = {found[1]: 1.0}
        return share[name]
    if depth > 40 or not incoming[name]:
        return {"": 1.0}
    share[name] = {"": 1.0}  # whoever comes back here by a circle
    owners: dict[str, float] = defaultdict(float)
    for caller, cost in callers[name]:
        for module, part in _owners(caller, callers, incoming, share, depth + 1).items():
            owners[module] += part * cost / incoming[name]
    share[name] = dict(owners)
    return share[name]
