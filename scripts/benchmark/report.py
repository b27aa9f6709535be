"""What was measured, as a table, as JSON and as one picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmark.load import Cost
from benchmark.systems import PEOPLE

OPERATIONS = ("register", "call")
Runs = list[dict[str, dict[str, Cost]]]
"""One entry a run: costs by system and operation."""


def table(runs: Runs, kept: dict[str, dict[str, int]], calls: int) -> str:
    """Medians of all runs, in lines of text."""
    lines = [f"{'system':18} {'operation':9} {'us/op':>8} {'of it kernel':>13} {'op/s':>8} {'failed':>7}"]
    for system in runs[0]:
        for operation in runs[0][system]:
            costs = [run[system][operation] for run in runs if system in run]
            total, kernel = median(cost.total for cost in costs), median(cost.kernel for cost in costs)
            rate, failed = median(cost.rate for cost in costs), max(cost.failed for cost in costs)
            lines.append(f"{system:18} {operation:9} {total:8.0f} {kernel:13.0f} {rate:8.0f} {failed:7}")
        found = kept[system]
        lines.append(
            f"{system:18} kept {found['bindings']} bindings of {PEOPLE}, {found['calls']} records of {calls} calls"
        )
    lines += [
        f"ratio sipserver / {system}, {operation}: {ratio:.2f}"
        for (system, operation), ratio in ratios(runs).items()
    ]  # fmt: skip
    return "\n".join(lines)


def ratios(runs: Runs) -> dict[tuple[str, str], float]:
    """Our cost by that of each other system: the median of what each run gave, since a machine's speed drifts."""
    found = {}
    for system in runs[0]:
        for operation in runs[0][system] if "sipserver" in runs[0] and system != "sipserver" else ():
            pairs = [(run["sipserver"][operation].total, run[system][operation].total) for run in runs]
            found[system, operation] = median(ours / theirs for ours, theirs in pairs)
    return found


def as_json(runs: Runs, kept: dict[str, dict[str, int]], phases: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Everything, for other programs."""
    return {
        "runs": [
            {system: {name: cost.as_dict() for name, cost in costs.items()} for system, costs in run.items()}
            for run in runs
        ],
        "kept": kept,
        "ratios": {f"{operation}/{system}": ratio for (system, operation), ratio in ratios(runs).items()},
        "phases": phases,
    }  # fmt: skip


def picture(path: Path, runs: Runs, phases: dict[str, dict[str, float]]) -> None:
    """A bar for each system and operation, ours split by phase; PNG or SVG by the name of the file."""
    # Only who wants a picture needs what draws it.
    import altair as alt  # noqa: PLC0415

    bars: list[dict[str, str | float]] = []
    for system in runs[0]:
        for operation in runs[0][system]:
            user = median(run[system][operation].user for run in runs)
            kernel = median(run[system][operation].kernel for run in runs)
            split = phases.get(operation, {}) if system == "sipserver" else {}
            parts = {phase: user * share for phase, share in split.items()} or {"own code": user}
            for phase, cost in [*parts.items(), ("kernel", kernel)]:
                bars.append({"system": system, "operation": operation, "phase": phase, "us": cost})
    order = list(dict.fromkeys(str(bar["phase"]) for bar in bars))
    chart = (
        alt.Chart({"values": bars})
        .mark_bar()
        .encode(
            x=alt.X("us:Q", title="processor time per operation, microseconds"),
            y=alt.Y("system:N", title=None, sort=list(runs[0])),
            color=alt.Color("phase:N", title="spent on", sort=order, scale=alt.Scale(scheme="tableau20")),
            order=alt.Order("index:Q"),
            row=alt.Row("operation:N", title=None, sort=list(OPERATIONS)),
        )
        .transform_calculate(index=f"indexof({order!r}, datum.phase)")
        .properties(width=620, height=90, title="What an operation costs")
    )
    chart.save(str(path), scale_factor=2.0)
