"""The lines of ``sipserver top``: one moment, made to fit a terminal. Pure: the same moment gives the same lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sipserver.cli.output import cut, padded, plain, width_of
from sipserver.cli.snapshot import Snapshot, Store, Up

PLAIN: Final = ""
TITLE: Final = "title"
HEAD: Final = "head"
ALARM: Final = "alarm"
DIM: Final = "dim"

Line = tuple[str, str]
"""How it looks (one of the above), and its text."""

_STATES: Final = {"placed": 0, "ringing": 1, "answered": 2}
SORTS: Final[Mapping[str, Callable[[Up], Any]]] = {
    "longest": lambda call: -call.seconds,
    "newest": lambda call: call.age,
    "state": lambda call: (_STATES[call.state], -call.seconds),
    "from": lambda call: (call.caller_at or "~", -call.seconds),
    "agent": lambda call: (call.caller_agent or "~", -call.seconds),
}
"""What calls may be sorted by."""
KEYS: Final = "q quit   p pause   s sort"

GAP: Final = 2
"""Between columns."""
LEAST: Final = 4
"""Calls that are shown before all is that is known of the rest."""
NAMES: Final = 13
"""Room for what a line is about."""


@dataclass(slots=True, frozen=True)
class _Column:
    title: str
    value: Callable[[Up], str | None]
    most: int
    """Columns of the terminal that it takes at most."""
    keep: int
    """Where there is little room the columns with the highest of these go first."""
    right: bool = False


_COLUMNS: Final = (
    _Column("FOR", lambda call: duration(call.seconds), 9, 0, right=True),
    _Column("STATE", lambda call: call.state, 8, 0),
    _Column("CALLER", lambda call: call.caller, 9, 1),
    _Column("CALLEE", lambda call: call.callee, 9, 1),
    _Column("MEDIA", lambda call: call.media, 32, 2),
    _Column("FROM", lambda call: call.caller_at, 16, 3),
    _Column("TO", lambda call: call.callee_at, 16, 4),
    _Column("CALLER'S AGENT", lambda call: call.caller_agent, 28, 5),
    _Column("CALLEE'S AGENT", lambda call: call.callee_agent, 28, 6),
    _Column("OVER", lambda call: call.transports, 9, 7),
    _Column("ID", lambda call: call.id[:18], 18, 8),
)


def view(moment: Snapshot, width: int, height: int, *, sort: str = "longest", paused: bool = False) -> list[Line]:
    """At most ``height`` lines of at most ``width`` columns; a height of 0 shows every call that is known."""
    lines = _overview(moment, paused)
    calls = sorted(moment.calls, key=SORTS[sort])
    if height:
        # Some calls are seen before the last lines about the rest are.
        del lines[max(1, height - 3 - min(LEAST, len(calls) or 1)) :]
    lines.append((PLAIN, ""))
    room = len(calls) if not height else max(0, height - len(lines) - 2)
    shown = calls[: room if len(calls) <= room else max(0, room - 1)]
    titles, rows = _table(shown, width)
    if shown:
        lines.append((HEAD, titles))
        lines += [(PLAIN if call.state == "answered" else DIM, row) for call, row in zip(shown, rows, strict=True)]
        if moment.open > len(shown):
            lines.append((DIM, f"and {moment.open - len(shown):,} more"))
    else:
        lines.append((DIM, "No calls." if not moment.open else f"{moment.open:,} calls"))
    if height:
        lines = lines[: height - 1]
        lines += [(PLAIN, "")] * (height - 1 - len(lines))
        lines.append((DIM, f"{KEYS} ({sort})"))
    return [(style, cut(text, width)) for style, text in lines]


def _overview(moment: Snapshot, paused: bool) -> list[Line]:
    server = f"{moment.node or 'server'} runs since {_clock(moment.since)}" if moment.running else _away(moment)
    # What the width cuts off stands last.
    title = f"sipserver top   {'PAUSED   ' if paused else ''}{_clock(moment.at)} UTC   {plain(server)}"
    calls = f"{moment.open:,} open: {moment.answered:,} answered, {moment.ringing:,} ringing"
    features = f"{moment.with_video:,} with video, {moment.with_content:,} with content"
    rates = "   ".join(f"{_rate(value)} {name}" for name, value in moment.rates.items())
    lines = [
        (TITLE if moment.running else ALARM, title),
        _line("Calls", f"{calls}; {features}"),
        _line("A second", rates),
        _line(f"Errors, {moment.errors_minutes:g} min", _listed(moment.errors) or "none"),
    ]
    if moment.bindings is not None:
        registered = f"{moment.bindings:,} of {moment.addresses or 0:,} addresses"
        lines.append(_line("Registered", "   ".join(filter(None, (registered, _listed(moment.by_transport))))))
        if moment.by_agent:
            lines.append(_line("", _listed(moment.by_agent)))
    lines += [_store(store) for store in moment.stores]
    if moment.overload_ms is not None:
        refused = f"{_rate(moment.overloaded_per_s)} new requests a second are refused"
        lines.append(_line("Overload", f"work waits for about {moment.overload_ms:,} ms, {refused}", ALARM))
    if moment.late_answers:
        lines.append(_line("Late", f"{moment.late_answers:,} answers went out before their row was written", ALARM))
    return [*lines, *[_line("", plain(note), DIM) for note in moment.notes]]


def _line(name: str, text: str, style: str = PLAIN) -> Line:
    return style, f"{name:{NAMES}}  {text}"


def _store(store: Store) -> Line:
    delay = "" if not store.delay_ms else f", about {store.delay_ms:,.0f} ms"
    written = f"{_rate(store.rows_per_s)} rows/s   {_rate(store.commits_per_s)} commits/s"
    failing = "   FAILING" if store.failing else ""
    text = f"{store.waiting:,} rows wait{delay}   {written}{failing}"
    return _line(f"{store.name}.db", text, ALARM if store.failing else PLAIN)


def _away(moment: Snapshot) -> str:
    if moment.last_alive is None:
        return "no server has run yet"
    return f"no server runs: {moment.node or 'the last'} was last heard of at {_clock(moment.last_alive)}"


def _table(calls: list[Up], width: int) -> tuple[str, list[str]]:
    """The line of titles and a line for each call, with the columns that there is room for."""
    cells = {
        column: [cut(plain(column.value(call)), column.most) for call in calls]
        for column in _COLUMNS
        if column.keep == 0 or any(column.value(call) for call in calls)
    }
    widths = {column: max(map(width_of, (column.title, *found))) for column, found in cells.items()}
    while len(widths) > 1 and sum(widths.values()) + GAP * (len(widths) - 1) > width:
        del widths[max(widths, key=lambda column: (column.keep, column.title))]
    gap = " " * GAP

    def line(texts: list[str]) -> str:
        return gap.join(
            padded(text, size, column.right) for text, (column, size) in zip(texts, widths.items(), strict=True)
        ).rstrip()

    rows = [line([cells[column][number] for column in widths]) for number in range(len(calls))]
    return line([column.title for column in widths]), rows


def duration(seconds: float) -> str:
    """A time that goes on: 42 s, 5:07, 1:02:03, 3 d 04 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86_400:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 86_400} d {whole // 3600 % 24:02} h"


def _clock(at: str | None) -> str:
    return "" if at is None else at[:19].replace("T", " ")


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{plain(name)} {count:,}" for name, count in counts.items())
