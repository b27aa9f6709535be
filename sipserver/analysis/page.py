"""A report as one page that can be mailed: its charts and tables, what they are about and what their figures mean.

The page loads nothing and runs nothing, and says so to the browser (Content-Security-Policy). Whatever peers wrote is
escaped by the template, and is text in the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sipserver.analysis.charts import Chart, shown
from sipserver.analysis.drawings import TITLES, Frame, drawn
from sipserver.analysis.pictures import PAGE, said, svg
from sipserver.analysis.report import REPORTS, Rows
from sipserver.analysis.text import visible
from sipserver.analysis.views import FIGURES

MOST_ROWS: Final = 100
"""A table shows no more: who wants all of a year by hour wants a spreadsheet."""

PARTS: Final = {part.name: part.title for parts in REPORTS.values() for part in parts}

KEY: Final = {
    "calls": ("Calls", ""), "abr_percent": ("Answered", " %"), "minutes": ("Minutes of talk", ""),
    "peak_calls": ("Most calls at once", ""), "pdd_p95_ms": ("95 in 100 ring within", " ms"),
    "video_percent": ("Answered calls with video", " %"), "active": ("Active parties", ""), "errors": ("Errors", ""),
}  # fmt: skip
"""The figures that stand at the top of a summary: what they are called there, and their unit."""


@dataclass(slots=True, frozen=True)
class Table:
    """Some rows, as they are shown."""

    title: str
    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    left_out: int


@dataclass(slots=True, frozen=True)
class Section:
    """A chart with the table that it was made of; or one of them."""

    title: str
    subtitle: str
    words: str
    nothing: str
    picture: Markup | None
    table: Table | None


def page(name: str, found: Mapping[str, Rows], lent: Mapping[str, Rows], frame: Frame, *, store: str, made: str) -> str:
    """The page of a report. ``lent`` are parts of other reports for its charts; ``store`` and ``made`` are told."""
    everything = {**found, **lent}
    charts = drawn(name, everything, frame)
    left = dict(everything)
    sections = []
    for part, chart in charts:
        sections.append(_section(chart, _table(part, left.pop(part, []))))
    sections += [Section(PARTS[part], "", "", "", None, table) for part, rows in left.items()
        if part != "figures" and (table := _table(part, rows))]  # fmt: skip
    columns = {column: None for rows in everything.values() for row in rows for column in (*row, row.get("figure"))}
    environment = Environment(
        loader=PackageLoader("sipserver.analysis", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    figures = found.get("figures", [])
    return environment.get_template("page.html").render(
        title=TITLES[name], period=_period(frame.asked.begin, frame.asked.end, frame),
        facts=_facts(frame, store, made, compared="before" in columns), key=_key(figures),
        figures=_table("figures", figures), sections=sections,
        definitions=[(_column(column), FIGURES[column]) for column in columns if column in FIGURES],
    )  # fmt: skip


def _section(chart: Chart, table: Table | None) -> Section:
    # The picture is made of data by a serializer that escapes it.
    picture = None if chart.nothing else Markup(svg([chart], PAGE))  # noqa: S704
    return Section(chart.title, said(chart), chart.words, chart.nothing, picture, table)


def _period(begin: int, end: int, frame: Frame) -> str:
    since, to = (datetime.fromtimestamp(at / 1000, frame.asked.where) for at in (begin, end))
    if not any((since.hour, since.minute, to.hour, to.minute)):
        # A period of whole days ends with its last day.
        last = to - timedelta(days=1)
        if since.date() == last.date():
            return f"{since.day} {since:%B %Y}"
        return f"{since.day} {since:%B %Y} to {last.day} {last:%B %Y}"
    return f"{since.day} {since:%B %Y, %H:%M} to {to.day} {to:%B %Y, %H:%M}"


def _facts(frame: Frame, store: str, made: str, *, compared: bool) -> list[tuple[str, str]]:
    asked = frame.asked
    before = asked.before
    was = _recorded(frame, before.begin, before.end)
    filters = [f"{what} {visible(text)}" for what, text in asked.kpis.parameters.items()]
    against = [("Compared with", f"{_period(before.begin, before.end, frame)}, {was} of it recorded")]
    return [
        ("Time zone", frame.zone),
        ("Pieces of time", f"by {asked.by}"),
        ("Only", ", ".join(filters) or "no filter: all calls"),
        ("Recorded", f"{_recorded(frame, asked.begin, asked.end)} of the period"),
        *(against if compared else ()),
        ("Store", visible(store)),
        ("Made", made),
    ]  # fmt: skip


def _recorded(frame: Frame, begin: int, end: int) -> str:
    share = 100 * frame.asked.recorded.within(begin, end) / (end - begin)
    return (
        f"{share:.1f} %" if 0 < share < 99.95 else "nothing" if not share else "all" if share == 100 else "nearly all"
    )


def _key(rows: Rows) -> list[tuple[str, str, str, str]]:
    """The figures at the top: name, value, how that stands to the period before, and what it was then."""
    by_name = {row["figure"]: row for row in rows}
    return [
        (title, _told(by_name[name]["value"], unit), *_against(by_name[name], unit))
        for name, (title, unit) in KEY.items()
        if name in by_name and by_name[name]["value"] is not None
    ]


def _told(value: float, unit: str) -> str:
    return f"{value:.1f}{unit}" if unit == " %" else f"{shown(value)}{unit}"


def _against(row: Mapping[str, Any], unit: str) -> tuple[str, str]:
    now, before = row["value"], row["before"]
    if before is None:
        return "", "before: not known"
    change = ""
    if unit == " %":
        change = f"{now - before:+.1f} points"
    elif row["change_percent"] is not None:
        change = f"{row['change_percent']:+.1f} %"
    return change.replace("-", "\N{MINUS SIGN}"), f"before: {_told(before, unit)}"


def _table(part: str, rows: Rows) -> Table | None:
    columns = [column for column in (rows[0] if rows else ()) if any(row.get(column) is not None for row in rows)]
    if not columns:
        return None
    return Table(
        PARTS[part], [_column(column) for column in columns],
        [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns],
        [[_cell(row.get(column)) for column in columns] for row in rows[:MOST_ROWS]], len(rows[MOST_ROWS:]),
    )  # fmt: skip


def _column(name: str) -> str:
    return name.replace("_percent", ", %").replace("_ms", ", ms").replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
