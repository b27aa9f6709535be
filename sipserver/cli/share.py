"""``sipserver report share``: figures fit to publish."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from sipserver.analysis.periods import recorded, zone
from sipserver.analysis.sharing import manifest as manifests
from sipserver.analysis.sharing.blocks import BLOCKS, Block, last_whole, whole_blocks
from sipserver.analysis.sharing.cells import Rules
from sipserver.analysis.sharing.facts import PLACES, Place
from sipserver.analysis.sharing.ledger import BUDGET, FILE, open_ledger
from sipserver.analysis.sharing.privacy import MISSING, Settings
from sipserver.analysis.sharing.release import Asked, Released, share_blocks, share_privately
from sipserver.cli.output import csv_text
from sipserver.cli.polite import stand_back
from sipserver.cli.refusal import WrongUse
from sipserver.cli.selecting import moment
from sipserver.cli.stores import calls_store, store_options
from sipserver.storage.database import StoreError, sqlite


@click.command()
@click.option(
    "--out", metavar="DIR", required=True, type=click.Path(path_type=Path), help="The folder to make for the files."
)
@click.option("--from", "since", metavar="DAY", help="The first day. Default: of the last whole block on record.")
@click.option(
    "--to", "until", metavar="DAY", help="The day after the last. Default: the end of the record's last block."
)
@click.option(
    "--by",
    type=click.Choice(BLOCKS),
    default="week",
    show_default=True,
    help="Blocks of time: periods are made of whole ones, each with tables of its own.",
)
@click.option("--tz", "zone_name", metavar="ZONE", default="UTC", show_default=True, help="The time zone of days.")
@click.option("--place", type=click.Choice(PLACES), default="country", show_default=True, help="How places are told.")
@click.option(
    "--k",
    "parties",
    type=click.IntRange(3, 1_000_000),
    default=10,
    show_default=True,
    help="Hide cells of fewer parties.",
)
@click.option(
    "--dominance",
    type=click.IntRange(10, 100),
    default=60,
    show_default=True,
    help="Hide cells of which two parties have more percent.",
)
@click.option(
    "--round",
    "base",
    type=click.IntRange(1, 1_000),
    default=5,
    show_default=True,
    help="Round counts to multiples; 1 leaves them.",
)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="E",
    help="Hide nothing and add noise instead: differential privacy, with this epsilon for the release.",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 0.01, min_open=True),
    default=1e-6,
    show_default=True,
    help="With --epsilon: the probability with which a rare value may show.",
)
@click.option(
    "--contributions",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="With --epsilon: how many calls of one party count in the period.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, 1_000, min_open=True),
    metavar="E",
    help=f"With --epsilon: what all releases of this store may spend together; the first decides. Default: {BUDGET:g}.",
)
@click.option(
    "--ledger",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"What was shared before. Default: {FILE} beside the store.",
)
@store_options
def share(data_dir: Path, out: Path, epsilon: float | None, delta: float, contributions: int, budget: float | None,
    ledger: Path | None, parties: int, dominance: int, base: int, **options: Any) -> None:  # fmt: skip
    """Write counts that can be published: CSV files, a manifest, and a text that says how to read them.

    Cells of fewer than k parties are hidden, and with them what would give them away; counts are rounded. What was
    shared is remembered, so that further releases give nothing away either: keep that file.

    \b
    Example:
      sipserver report share --k 10 --from 2026-11-02 --to 2026-11-23 --out november
      sipserver report share --epsilon 1 --budget 3 --by month --out october
    """
    if epsilon is None and budget is not None:
        raise WrongUse("--budget is what --epsilon may spend: without noise nothing is spent")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WrongUse(f"{out} exists already: a release gets a folder of its own")
    stand_back()
    with calls_store(data_dir) as connection:
        # All tables are of one moment, whatever a server writes meanwhile.
        connection.execute("BEGIN")
        try:
            asked = _asked(connection, Rules(parties, dominance, base), **options)
            with _progress(asked) as bar, open_ledger(ledger or data_dir / FILE) as book:
                asked.progress = bar.update
                if epsilon is None:
                    released = share_blocks(asked, book)
                else:
                    released = share_privately(asked, book, Settings(epsilon, delta, contributions), budget)
        except ValueError as error:
            raise WrongUse(str(error)) from error
        except ModuleNotFoundError as error:
            raise click.ClickException(MISSING) from error
    _write(out, asked, released)
    click.echo(_told(out, released))


def _asked(
    connection: sqlite.Connection, rules: Rules, *, since: str | None, until: str | None, by: Block, zone_name: str,
    place: Place,
) -> Asked:  # fmt: skip
    """The blocks of the period; raises ValueError where it has none, or is not over."""
    where, record, now = zone(zone_name), recorded(connection), time.time()
    if record.last is None:
        raise ValueError("there is nothing on record")
    begin, end = last_whole(record.last, by, where)
    if until is not None:
        end = moment(until, now, where)
        begin = last_whole(end, by, where)[0]
    if since is not None:
        begin = moment(since, now, where)
    if begin >= end:
        raise ValueError("the period ends before it begins: --from has to be before --to")
    blocks = whole_blocks(begin, end, by, where)
    if end > record.last:
        raise ValueError(f"the record ends within the {by} that is asked for, and what is shared cannot be shared anew")
    return Asked(connection, record, blocks, by, zone_name, where, place, rules)


def _progress(asked: Asked) -> Any:
    hidden = len(asked.blocks) < 2 or not os.isatty(2)
    return click.progressbar(length=len(asked.blocks), label="Blocks", file=sys.stderr, hidden=hidden)


def _write(out: Path, asked: Asked, released: Released) -> None:
    """All files, or none: they are made beside their place."""
    files = {
        name: csv_text(
            [dict(zip(manifests.columns(name), row, strict=True)) for row in rows], manifests.columns(name)
        ).encode()
        for name, rows in released.rows.items()
        if released.noise is None or name in released.noise
    }
    document = manifests.manifest(asked, released, files)
    draft = out.with_name(f"{out.name}.part")
    try:
        draft.mkdir(parents=True)
        for name, data in files.items():
            (draft / manifests.file_name(name)).write_bytes(data)
        (draft / "manifest.json").write_text(f"{json.dumps(document, indent=2)}\n", "utf-8")
        (draft / "README.txt").write_text(manifests.text(document), "utf-8")
        draft.replace(out)
    except OSError as error:
        raise StoreError(
            f"{draft} cannot be written: {error.strerror}; the same release can be asked for again"
        ) from error


def _told(out: Path, released: Released) -> str:
    if released.settings is not None and released.spent is not None:
        return (
            f"wrote {out}: epsilon {released.settings.epsilon:g}; "
            f"{released.spent.epsilon:.4g} of {released.budget:g} spent in {released.spent.releases} releases"
        )
    hidden = released.primary + released.complementary
    return f"wrote {out}: {hidden} cells are hidden, {released.complementary} of them to protect others"
