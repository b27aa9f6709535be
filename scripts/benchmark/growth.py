"""What registrations and calls cost, and how long they take, as the number of bindings grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmark import scale
from benchmark.generator import Generator
from benchmark.limits import Level, measure
from benchmark.systems import BenchError, Sipserver

SIZES: Final = (20_000, 100_000, 300_000, 1_000_000)
"""Bindings that are there besides those of who registers."""
RATES: Final = {"register": 1_000.0, "call": 200.0}
"""A second: far below what is sustained, so that nothing waits for anything but its own."""
SECONDS: Final = {"register": 10.0, "call": 10.0}
"""With a registration of everybody who is called afterwards."""
WARM: Final = 2.0
WIDTH, HEIGHT = 420, 150

HEAD: Final = (
    f"{'bindings':>10} {'us/registration':>16} {'median ms':>10} {'99 % ms':>8} {'us/call':>9} {'median ms':>10} "
    f"{'99 % ms':>8} {'MiB':>6}"
)


@dataclass(slots=True)
class Size:
    """What was measured with so many bindings."""

    bindings: int
    register: Level
    call: Level
    memory_mib: float

    def line(self) -> str:
        """A line of a table, as ``HEAD`` has it."""
        one, other = self.register, self.call
        return (
            f"{self.bindings:10,} {one.cost_us:16.0f} {one.median_ms or 0:10.1f} {one.p99_ms or 0:8.1f} "
            f"{other.cost_us:9.0f} {other.median_ms or 0:10.1f} {other.p99_ms or 0:8.1f} {self.memory_mib:6.0f}"
        )


def grow(folder: Path, port: int, sizes: Sequence[int], tell: scale.Tell) -> list[Size]:
    """A server for each number of bindings, all of them read before anything is measured. Raises BenchError."""
    found = []
    for size in sizes:
        (folder / str(size)).mkdir()
        server = Sipserver("sipserver", folder / str(size), port)
        server.patience = scale.PATIENCE
        server.configuration = f'[metrics]\nlisten = "127.0.0.1:{port + scale.METRICS}"\n'
        server.prepare()
        tell(f"{size:,} bindings")
        scale.write(server.folder / "data" / "location.db", scale.made(size, time.time() + 86_400))
        try:
            found.append(_with_bindings(server, size))
        finally:
            server.stop()
    return found


def _with_bindings(server: Sipserver, size: int) -> Size:
    server.serve()
    server.wait_until_ready()
    scale.wait_for(server, "bindings_unread", 0)
    if scale.metric(server, "bindings") < size:
        raise BenchError(f"of {size} bindings {scale.metric(server, 'bindings'):.0f} were read")
    levels = {}
    with closing(Generator("register", server.port)) as people:
        people.run(WARM, RATES["register"])
        people.finish()
        levels["register"] = measure(server, people, RATES["register"], SECONDS["register"])
        with closing(Generator("call", server.port, called=people)) as callers:
            callers.run(WARM, RATES["call"])
            callers.finish()
            levels["call"] = measure(server, callers, RATES["call"], SECONDS["call"])
    return Size(size, levels["register"], levels["call"], server.resident())


def as_json(found: Sequence[Size]) -> list[dict[str, Any]]:
    """Everything, for other programs."""
    return [asdict(each) for each in found]


def picture(path: Path, found: Sequence[Size]) -> None:
    """Cost and delay against the number of bindings; PNG or SVG by the name."""
    # Only who wants a picture needs what draws it.
    import altair as alt  # noqa: PLC0415

    values = [
        {"bindings": each.bindings, "of": name, "us": level.cost_us, "ms": level.p99_ms}
        for each in found
        for name, level in (("registrations", each.register), ("calls", each.call))
    ]
    axis = alt.Axis(values=[each.bindings for each in found], format="~s")
    bindings = alt.X("bindings:Q", title="bindings", scale=alt.Scale(type="log", nice=False), axis=axis)
    color = alt.Color("of:N", title=None)
    charts = [
        alt.Chart({"values": values})
        .mark_line(point=True)
        .encode(x=bindings, y=alt.Y(f"{field}:Q", title=unit), color=color)
        .properties(width=WIDTH, height=HEIGHT, title=title)
        for field, unit, title in (
            ("us", "microseconds", "Processor time for each"),
            ("ms", "milliseconds", "REGISTER to its 200, INVITE to its arrival: 99 of 100 within"),
        )
    ]
    alt.hconcat(*charts, spacing=40).save(str(path), scale_factor=2.0)
