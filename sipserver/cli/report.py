"""``sipserver report``: when, where, how and how well people call, in figures that say what they mean."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import click

from sipserver.analysis import report as reports
from sipserver.analysis.drawings import LENT_PASSES, Frame, lent
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import DAY_MS, MINUTE_MS, UNITS, By, recorded, zone
from sipserver.analysis.report import Asked
from sipserver.analysis.source import Source
from sipserver.analysis.views import FIGURES, Query, Values
from sipserver.cli.output import Command, Form, csv_text, form_options, table
from sipserver.cli.refusal import WrongUse
from sipserver.cli.report_files import Wanted, file_options, show_plots, write_files
from sipserver.cli.report_source import Choice, bring_up_to_date, copy_option, figures_from, source_options
from sipserver.cli.selecting import moment
from sipserver.cli.share import share
from sipserver.cli.stores import CALLS_FILE, store_options
from sipserver.storage.database import sqlite

DEFAULT_DAYS = 30
"""What is looked at where nobody says from when on."""

HELP = {
    "summary": (
        "Show the figures that matter most, against the period of the same length before.",
        "--from 7d --tz Europe/Berlin",
    ),
    "traffic": (
        "Show how many call and talk: calls, carried traffic in Erlang, peaks, busy hours and what channels they take.",
        "--by hour --from 2026-11-23 --to 2026-11-24",
    ),
    "quality": (
        "Show how well calls are set up and ended (RFC 6076, ASR, NER, delays), and what endpoints measured.",
        "--by week --from 90d",
    ),
    "errors": ("Show errors by kind, product and version, against the period before.", "--from 1d --agent baresip"),
    "features": ("Show video, content, upgrades, codecs and resolutions.", "--by month --from 2026-01-01"),
    "locations": ("Show from where to where people call.", "--site berlin-mitte"),
    "devices": ("Show what people call with: agents with their calls, and transports.", "--from 7d"),
    "sign-ins": (
        "Show registrations, refused ones, and how many parties were there.",
        "--by day --from 2026-11-01 --tz UTC",
    ),
}


@click.group()
def report() -> None:
    """Answer when, where, how and how well people call. Works on calls.db alone, also while a server writes.

    \b
    Example:
      sipserver report summary --from 30d --tz Europe/Berlin
      sipserver report traffic --by hour --from 2026-11-23 --to 2026-11-24
    """


def _options(command: Command) -> Command:
    for option in reversed(
        (
            click.option("--from", "since", metavar="TIME",
                help="From then on (2026-11-23 in --tz; 2h, 1d: so long before the end). Default: 30d."),
            click.option("--to", "until", metavar="TIME",
                help="Before this time. Default: now, or the end of the record."),
            click.option("--by", type=click.Choice(UNITS), help="Pieces of time. Default: as fits the period."),
            click.option("--tz", "zone_name", metavar="ZONE", default="UTC", show_default=True,
                help="The time zone of days and times, such as Europe/Berlin."),
            click.option("--site", metavar="SITE", help="Only what has to do with this site, on whichever side."),
            click.option("--agent", metavar="TEXT", help="Only agents that have this in them, on whichever side."),
            click.option("--blocking", type=click.FloatRange(0, 1, min_open=True), default=0.01, show_default=True,
                help="The share of calls that may be lost for want of channels."),
            click.option("--part", metavar="NAME", help="Only this part of the report; CSV has the first without it."),
            click.option("--explain", is_flag=True, help="Also print what each figure means, and its SQL."),
        )
    ):  # fmt: skip
        command = option(command)
    return form_options(file_options(store_options(source_options(command))))


def _add(name: str) -> None:
    what, example = HELP[name]
    parts = ", ".join(part.name for part in reports.REPORTS[name])

    def command(form: Form | None, data_dir: Path, wanted: Wanted, **options: Any) -> None:
        _run(name, form, data_dir, wanted, **options)

    command.__doc__ = f"{what}\n\nParts: {parts}.\n\n\b\nExample:\n  sipserver report {name} {example}\n"
    report.command(name)(_options(command))


for _name in HELP:
    _add(_name)
report.add_command(share)


@report.command()
@click.option("--anew", is_flag=True, help="Make it anew, whatever there is.")
@store_options
@copy_option
def prepare(data_dir: Path, copy: Path | None, *, anew: bool) -> None:
    """Bring the columnar copy of calls.db up to date, that reports on many calls are quick with.

    Reports do so themselves; run by cron, this saves the first one of the day the time.

    \b
    Example:
      sipserver report prepare --data-dir var
    """
    click.echo(bring_up_to_date(data_dir, copy, anew=anew))


def _run(
    name: str,
    form: Form | None,
    data_dir: Path,
    wanted: Wanted,
    *,
    since: str | None,
    until: str | None,
    by: By | None,
    zone_name: str,
    site: str | None,
    agent: str | None,
    blocking: float,
    part: str | None,
    explain: bool,
    copy: Path | None,
    no_copy: bool,
) -> None:
    titles = {each.name: each.title for each in reports.REPORTS[name]}
    if part is not None and part not in titles:
        raise WrongUse(f"report {name} has no part {part!r}: use {', '.join(titles)}")
    if site is not None and name == "errors":
        raise WrongUse("errors have no site: report errors takes no --site")
    with figures_from(data_dir, Choice(copy, no_copy)) as (connection, source):
        try:
            where = zone(zone_name)
            asked = _asked(connection, source, since, until, by, where)
            asked.kpis.site, asked.kpis.agent, asked.blocking = site, agent, blocking
            only = part or (next(iter(titles)) if form == "csv" else None)
            plotted = form is None and not wanted.files and wanted.plotted
            found, more = _made(name, asked, only, charts=wanted.charts, plotted=plotted)
        except ValueError as error:
            raise WrongUse(str(error)) from error
    if wanted.files:
        write_files(wanted, name, found, more, Frame.of(asked, zone_name), data_dir / CALLS_FILE)
    if form is not None or not wanted.files:
        _show(name, found, titles, form, asked, zone_name, explain=explain)
    if plotted:
        show_plots(name, {**found, **more}, Frame.of(asked, zone_name))


def _asked(
    connection: sqlite.Connection, source: Source, since: str | None, until: str | None, by: By | None, where: tzinfo
) -> Asked:
    """The period, in whole minutes, and what is on record of it."""
    now = time.time()
    record = recorded(connection)
    last = min(record.last or int(now * 1000), int(now * 1000))
    end = moment(until, now, where) if until is not None else last
    end += -end % MINUTE_MS
    begin = moment(since, end / 1000, where) if since is not None else end - DEFAULT_DAYS * DAY_MS
    begin -= begin % MINUTE_MS
    if begin >= end:
        raise ValueError("the period ends before it begins: --from has to be before --to, or before the record ends")
    days = (end - begin) / DAY_MS
    fitting: By = "hour" if days <= 3 else "day" if days <= 62 else "week" if days <= 400 else "month"
    return Asked(Kpis(source), record, begin, end, by or fitting, where)


def _made(
    name: str, asked: Asked, only: str | None, *, charts: bool, plotted: bool
) -> tuple[dict[str, list[Values]], dict[str, list[Values]]]:
    """The parts of a report, and those that its charts borrow."""
    borrowing = only is None and (charts or plotted)
    passes = reports.PASSES.get(name, 0) + (LENT_PASSES.get(name, 0) if borrowing and charts else 0)
    hidden = not passes or not os.isatty(2)
    length = passes * (asked.end - asked.begin)
    with click.progressbar(length=length, label=name, file=sys.stderr, hidden=hidden) as bar:
        asked.progress = bar.update
        return reports.make(name, asked, only), lent(name, asked, briefly=not charts) if borrowing else {}


def _show(
    name: str,
    found: dict[str, list[Values]],
    titles: dict[str, str],
    form: Form | None,
    asked: Asked,
    zone_name: str,
    *,
    explain: bool,
) -> None:
    begin, end = (datetime.fromtimestamp(at / 1000, asked.where) for at in (asked.begin, asked.end))
    if form == "json":
        document: dict[str, Any] = {
            "report": name, "from": begin.isoformat(), "to": end.isoformat(), "by": asked.by, "tz": zone_name,
            "site": asked.kpis.site, "agent": asked.kpis.agent, **found,
        }  # fmt: skip
        if explain:
            document["source"] = asked.kpis.source.name
            document["queries"] = [
                {"part": query.part, "sql": query.text(), "parameters": asked.parameters}
                for query in asked.kpis.queries.values()
            ]
            document["definitions"] = {
                column: {"meaning": FIGURES[column].meaning, "source": FIGURES[column].source}
                for column in _columns(found)
            }
        click.echo(json.dumps(document, indent=2))
        return
    if form == "csv":
        click.echo(csv_text(next(iter(found.values())), ()), nl=False)
        return
    click.echo(f"{name}: {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {zone_name}")
    for part, rows in found.items():
        click.echo(f"\n{titles[part]}")
        columns = [column for column in (rows[0] if rows else ()) if any(row.get(column) is not None for row in rows)]
        click.echo(table([_plain(row) for row in rows], columns) if rows else "Nothing was recorded.")
    if explain:
        click.echo(f"\n{_explained(found, asked)}")


def _plain(row: Values) -> Values:
    """As many places as a table has room for."""
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


def _columns(found: dict[str, list[Values]]) -> list[str]:
    """The columns and figures that were printed and have a definition."""
    names = {name: None for rows in found.values() for row in rows for name in (*row, row.get("figure"))}
    return [name for name in names if name in FIGURES]


def _explained(found: dict[str, list[Values]], asked: Asked) -> str:
    """What the figures mean, and what made them."""
    columns = _columns(found)
    width = max(map(len, columns), default=0)
    meanings = [f"{name:{width}}  {FIGURES[name].meaning} ({FIGURES[name].source})" for name in columns]
    values = "\n".join(f"-- ${name} = {value!r}" for name, value in asked.parameters.items())
    queries = "\n\n".join(_sql(query) for query in asked.kpis.queries.values())
    source = f"-- From {asked.kpis.source.name}."
    return "\n".join((*meanings, "", source, values, asked.kpis.source.explained(), "", queries))


def _sql(query: Query) -> str:
    return f"-- {query.part}\n{query.text()};"
