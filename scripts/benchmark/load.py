"""The load: SIPp's registrations and calls, and what they cost the system that serves them."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.systems import DOMAIN, PEOPLE, BenchError, System, person

SCENARIOS = Path(__file__).parent / "scenarios"
SETTLE = 2.0
"""Seconds after the last message in which what belongs to it is still counted: commits, log lines, timers."""
PATIENCE = 300.0
CALLER, CALLEE = 1, 2
"""Ports of the endpoints, above that of the server."""


@dataclass(slots=True)
class Cost:
    """What one kind of operation cost in one run."""

    operations: int
    failed: int
    rate: float
    """Operations per second that were reached."""
    user: float
    """Microseconds of processor time per operation in the system's own code."""
    kernel: float
    """The same in the kernel."""

    @property
    def total(self) -> float:
        """Microseconds of processor time per operation."""
        return self.user + self.kernel

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {**asdict(self), "total": self.total}


def write_people(folder: Path, people: int = PEOPLE) -> Path:
    """SIPp's file of who calls whom: each is called by somebody else. ``people`` has no factor in common with 7919."""
    path = folder / "sipp.csv"
    with path.open("w") as out:
        out.write("SEQUENTIAL\n")
        for number in range(people):
            user = person(number)
            callee = person((number * 7_919 + 1) % people)
            out.write(f"{user};[authentication username={user} password=pw{user}];{callee}\n")
    return path


def register(system: System, people: Path, count: int, rate: int) -> Cost:
    """So many authenticated registrations; everybody's comes first."""
    return _measure(system, "register", system.port + CALLEE, count, rate, people)


def call(system: System, people: Path, count: int, rate: int) -> Cost:
    """So many authenticated video calls, each ended by its caller."""
    callee = subprocess.Popen(
        ["sipp", "-sf", SCENARIOS / "callee.xml", "-i", "127.0.0.1", "-p", str(system.port + CALLEE), "-nostdin"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=system.folder,
    )  # fmt: skip
    try:
        time.sleep(0.5)
        return _measure(system, "caller", system.port + CALLER, count, rate, people)
    finally:
        callee.kill()
        callee.wait()


def _measure(system: System, scenario: str, port: int, count: int, rate: int, people: Path) -> Cost:
    user, kernel = system.processor_time()
    output = _sipp(system, scenario, port, count, rate, people)
    time.sleep(SETTLE)
    user_after, kernel_after = system.processor_time()
    failed = _last(output, r"Failed call\s+\|[^|]+\|\s+(\d+)")
    reached = _last(output, r"Call Rate\s+\|[^|]+\|\s+([\d.]+) cps")
    return Cost(
        count, int(failed), reached, (user_after - user) / count * 1e6, (kernel_after - kernel) / count * 1e6
    )  # fmt: skip


def _sipp(system: System, scenario: str, port: int, count: int, rate: int, people: Path) -> str:
    """What SIPp prints of its counters. Raises BenchError where it does not end."""
    path = system.folder / f"{scenario}.out"
    command: list[str | Path] = [
        "sipp", f"127.0.0.1:{system.port}", "-sf", SCENARIOS / f"{scenario}.xml", "-inf", people, "-i", "127.0.0.1",
        "-p", str(port), "-m", str(count), "-r", str(rate), "-l", "3000", "-nostdin",
    ]  # fmt: skip
    with path.open("wb") as out:
        try:
            subprocess.run(command, stdout=out, stderr=out, timeout=PATIENCE, check=False, cwd=system.folder)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{scenario}: SIPp did not end within {PATIENCE:g} s") from None
    return path.read_text(errors="replace")


def _last(text: str, pattern: str) -> float:
    found = re.findall(pattern, text)
    if not found:
        raise BenchError(f"SIPp said nothing of its counters, but: {text[-300:]}")
    return float(found[-1])


__all__ = ["DOMAIN", "Cost", "call", "register", "write_people"]
