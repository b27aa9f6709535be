"""``sipserver sample``: a store of made-up calls, to try reports and tools on."""

from __future__ import annotations

import os
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import click

from sipserver.analysis.sample import write_sample
from sipserver.cli.refusal import WrongUse
from sipserver.cli.stores import CALLS_FILE


@click.command()
@click.option(
    "--calls", type=click.IntRange(1, 1_000_000_000), default=20_000, show_default=True, help="About so many calls."
)
@click.option(
    "--subscribers", type=click.IntRange(10, 10_000_000), default=500, show_default=True, help="So many subscribers."
)
@click.option("--days", type=click.IntRange(1, 3_660), default=60, show_default=True, help="Spread over so many days.")
@click.option("--until", metavar="DATE", help="The first day (UTC) after them. Default: today.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed draws another service.")
@click.option(
    "--out", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets the calls.db; one that has it already is left as it is.",
)  # fmt: skip
def sample(calls: int, subscribers: int, days: int, until: str | None, seed: int, out: Path) -> None:
    """Write a calls.db as a video service would have it that never was: subscribers in several time zones who call by
    day and week, devices and versions, failures, media, sign-ins, errors and quality reports.

    The same options draw the same service.

    \b
    Example:
      sipserver sample --calls 200000 --subscribers 3000 --days 365 --out trial
      sipserver report summary --data-dir trial
    """
    end = datetime.combine(_day(until), time(), UTC)
    begin = end - timedelta(days=days)
    with click.progressbar(
        length=calls, label="Calls", file=sys.stderr, hidden=not os.isatty(2), show_pos=True
    ) as bar:  # fmt: skip
        write_sample(
            out / CALLS_FILE, calls=calls, subscribers=subscribers, begin=int(begin.timestamp()) * 1000,
            end=int(end.timestamp()) * 1000, seed=seed, progress=bar.update,
        )  # fmt: skip
    click.echo(f"wrote {out / CALLS_FILE}")


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise WrongUse(f"{text!r} is no date: use 2026-11-23") from error
