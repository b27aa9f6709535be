"""Delay and overload as text, and as one picture."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmark.limits import NORMAL, Level, Moment, Overloaded

NAMES: Final = {"register": "registrations", "call": "calls"}
WAITS: Final = {"register": "REGISTER to its 200, committed", "call": "INVITE to its arrival at the called"}
DELAYS: Final = {"median": "median_ms", "99 of 100": "p99_ms", "BYE, 99 of 100": "ending_p99_ms"}
COLORS: Final = ["#4c78a8", "#54a24b", "#e45756"]
WIDTH, HEIGHT = 420, 130

Levels = dict[str, list[Level]]
Overloads = dict[str, Overloaded]


def level_line(operation: str, level: Level) -> str:
    """A line of a table, as ``LEVEL_HEAD`` has it."""
    return (
        f"{operation:9} {level.rate:8.0f} {level.served:8} {level.refused:8} {level.failed:7} {level.resent:7} "
        f"{_ms(level.median_ms)} {_ms(level.p99_ms)} {_ms(level.longest_ms)} {level.cost_us:8.0f} "
        f"{100 * level.generator:9.0f} %"
    )


LEVEL_HEAD: Final = (
    f"{'':9} {'rate/s':>8} {'served':>8} {'refused':>8} {'failed':>7} {'resent':>7} {'median':>7} {'99 %':>7} "
    f"{'longest':>7} {'us/op':>8} {'generator':>11}"
)
MOMENT_HEAD: Final = (
    f"{'':9} {'second':>6} {'offered':>8} {'served':>7} {'503':>6} {'failed':>6} {'resent':>6} {'BYEs':>5} {'200':>5} "
    f"{'median':>7} {'99 %':>7} {'BYE 99%':>7} {'MiB':>6}"
)


def moment_line(operation: str, moment: Moment) -> str:
    """A line of a table, as ``MOMENT_HEAD`` has it."""
    return (
        f"{operation:9} {moment.at:6.0f} {moment.offered:8} {moment.served:7} {moment.refused:6} {moment.failed:6} "
        f"{moment.resent:6} {moment.byes:5} {moment.byes_answered:5} {_ms(moment.median_ms)} {_ms(moment.p99_ms)} "
        f"{_ms(moment.ending_p99_ms)} {moment.memory_mib:6.0f}"
    )


def _ms(value: float | None) -> str:
    return f"{value:7.1f}" if value is not None else f"{'-':>7}"


def summary(levels: Levels, overloads: Overloads, at_once: float | None) -> str:
    """What came of it, a sentence each."""
    lines = []
    for operation, found in levels.items():
        ordinary = next(each for each in found if each.rate == found[-1].rate * NORMAL)
        lines.append(
            f"{NAMES[operation]}: {found[-1].rate:.0f}/s are sustained; at {100 * NORMAL:.0f} % of that, "
            f"{WAITS[operation]} takes {_ms(ordinary.median_ms).strip()} ms, "
            f"{_ms(ordinary.p99_ms).strip()} ms in 99 of 100"
        )
    for operation, each in overloads.items():
        byes, answered = sum(m.byes for m in each.moments), sum(m.byes_answered for m in each.moments)
        memory = [moment.memory_mib for moment in each.during]
        # What is remembered of a transaction over UDP is for 64 * T1, which is 32 s.
        later = 2 * len(memory) // 3
        recovered = each.recovered_after
        lines.append(
            f"{NAMES[operation]}, overload for {each.lasted:.0f} s: goodput {100 * each.goodput:.0f} % of the peak "
            f"({each.peak:.0f}/s), {100 * each.worst_goodput:.0f} % in the worst second; {answered} of {byes} BYEs "
            f"answered; Retry-After up to {each.longest_retry_after} s; memory {memory[0]:.0f} MiB at its begin, "
            f"{memory[later]:.0f} after two thirds, {memory[-1]:.0f} at its end; "
            + (f"served again {recovered:.0f} s after it" if recovered is not None else "not served again after it")
        )
    if at_once is not None:
        lines.append(
            f"everybody at once: all were registered after {at_once:.1f} times what it takes one by one"
            if at_once < math.inf
            else "everybody at once: not all were registered within some minutes"
        )
    return "\n".join(lines)


def as_json(levels: Levels, overloads: Overloads, at_once: float | None) -> dict[str, Any]:
    """Everything, for other programs."""
    return {
        "levels": {operation: [asdict(each) for each in found] for operation, found in levels.items()},
        "overload": {
            operation: {
                **asdict(each), "goodput": each.goodput, "worst_goodput": each.worst_goodput,
                "recovered_after": each.recovered_after,
            }
            for operation, each in overloads.items()
        },
        "everybody_at_once": at_once if at_once is not None and at_once < math.inf else None,
    }  # fmt: skip


def picture(path: Path, levels: Levels, overloads: Overloads) -> None:
    """A column for each operation: delay and cost against load, then what an overload did; PNG or SVG by the name."""
    # Only who wants a picture needs what draws it.
    import altair as alt  # noqa: PLC0415

    columns = [
        alt.vconcat(
            *(_levels(alt, operation, levels[operation]) if operation in levels else ()),
            *(_overload(alt, operation, overloads[operation]) if operation in overloads else ()),
        ).resolve_scale(color="independent")
        for operation in dict.fromkeys((*levels, *overloads))
    ]
    chart = alt.hconcat(*columns, spacing=40).resolve_scale(color="independent")
    chart.save(str(path), scale_factor=2.0)


def _levels(alt: Any, operation: str, found: list[Level]) -> list[Any]:
    delays = [
        {"rate": each.rate, "ms": value, "of": of}
        for each in found
        for of, value in zip(DELAYS, (each.median_ms, each.p99_ms), strict=False)
        if value is not None
    ]
    costs = [{"rate": each.rate, "us": each.cost_us} for each in found]
    rate = alt.X("rate:Q", title=f"{NAMES[operation]} a second")
    limit = {"register": 25, "call": 15}[operation]
    delay = (
        alt.Chart({"values": delays})
        .mark_line(point=True)
        .encode(x=rate, y=alt.Y("ms:Q", title="milliseconds"), color=_color(alt, "delay", list(DELAYS)[:2]))
    )
    rule = (
        alt.Chart({"values": [{"ms": limit, "rate": NORMAL * found[-1].rate}]})
        .mark_point(shape="triangle-down", size=90, color="black")
        .encode(x="rate:Q", y="ms:Q")
    )
    cost = (
        alt.Chart({"values": costs})
        .mark_line(point=True)
        .encode(x=rate, y=alt.Y("us:Q", title="microseconds", scale=alt.Scale(zero=True)))
    )
    return [
        (delay + rule).properties(
            width=WIDTH, height=HEIGHT, title=f"{WAITS[operation]} (triangle: {limit} ms at {100 * NORMAL:.0f} %)"
        ),
        cost.properties(width=WIDTH, height=HEIGHT, title="Processor time for each"),
    ]


def _overload(alt: Any, operation: str, found: Overloaded) -> list[Any]:
    seconds = alt.X("at:Q", title="seconds since overload began")
    carried = {"offered": "offered", "served": "served", "refused (503)": "refused"}
    peak = alt.Chart({"values": [{"value": 0.8 * found.peak}]}).mark_rule(strokeDash=[4, 3]).encode(y="value:Q")

    def lines(names: dict[str, str], title: str, legend: str) -> Any:
        y = alt.Y("value:Q", title=title)
        color = _color(alt, legend, list(names)) if len(names) > 1 else alt.value("steelblue")
        return alt.Chart({"values": _series(found, names)}).mark_line().encode(x=seconds, y=y, color=color)

    name = NAMES[operation]
    return [
        (lines(carried, "a second", name) + peak).properties(
            width=WIDTH, height=HEIGHT + 40, title=f"Overload: {name} offered and carried (dashed: 80 % of the peak)"
        ),
        lines(
            dict(DELAYS) if operation == "call" else dict(list(DELAYS.items())[:2]), "milliseconds", "delay"
        ).properties(width=WIDTH, height=HEIGHT, title=WAITS[operation]),
        lines({"memory": "memory_mib"}, "MiB", "").properties(
            width=WIDTH, height=HEIGHT // 2, title="Memory of the server"
        ),
    ]


def _color(alt: Any, title: str, names: list[str]) -> Any:
    return alt.Color("of:N", title=title, scale=alt.Scale(domain=names, range=COLORS[: len(names)]))


def _series(found: Overloaded, names: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"at": moment.at, "of": label, "value": getattr(moment, name)}
        for label, name in names.items()
        for moment in found.moments
        if getattr(moment, name) is not None
    ]
