"""Where a report's figures come from: the views of ``calls.db``, or a columnar copy where there are many calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sipserver.analysis.source import Source, Views
from sipserver.cli.output import Command
from sipserver.cli.polite import stand_back
from sipserver.cli.refusal import Refusal
from sipserver.cli.report_files import EXTRA
from sipserver.cli.stores import CALLS_FILE, calls_store
from sipserver.storage.database import sqlite

CACHE_KIB = 65_536
"""What a report lets SQLite keep of the file in memory."""
LARGE = 300_000
"""From so many calls on reports make a copy; the views are quick enough below."""
COPY_FILE = "calls.duckdb"


@dataclass(slots=True, frozen=True)
class Choice:
    """What the options of a report say of its source."""

    copy: Path | None
    """Where the copy is; None for its usual place, beside the store."""
    views: bool
    """The views, whatever there is."""


def source_options(command: Command) -> Command:
    """``--copy`` and ``--no-copy``, as the parameters ``copy`` and ``no_copy``."""
    for option in (
        click.option("--no-copy", is_flag=True, help="Ask the views of calls.db, however many calls it has."),
        copy_option,
    ):  # fmt: skip
        command = option(command)
    return command


def copy_option(command: Command) -> Command:
    """``--copy``."""
    return click.option(
        "--copy", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path),
        help=f"The columnar copy of calls.db. Default: {COPY_FILE} beside it, made from {LARGE:,} calls on.",
    )(command)  # fmt: skip


@contextmanager
def figures_from(data_dir: Path, choice: Choice) -> Iterator[tuple[sqlite.Connection, Source]]:
    """The store for reading, and what is asked for figures; all of one moment, whatever a server writes meanwhile."""
    stand_back()
    with calls_store(data_dir) as connection, ExitStack() as stack:
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        source: Source | None = None
        if not choice.views and _pays(data_dir, choice, connection):
            source = _copy(stack, data_dir, choice, connection)
        if source is None:
            connection.execute("BEGIN")
            source = Views(connection)
        yield connection, source


def _pays(data_dir: Path, choice: Choice, connection: sqlite.Connection) -> bool:
    if choice.copy is not None or (data_dir / COPY_FILE).exists():
        return True
    (last,) = connection.execute("SELECT ifnull(max(rowid), 0) FROM calls").fetchone()
    return int(last) >= LARGE


def _copy(stack: ExitStack, data_dir: Path, choice: Choice, connection: sqlite.Connection) -> Source | None:
    """The copy; None where it cannot be used, and why is said."""
    from sipserver.analysis.columns_sync import CopyError  # noqa: PLC0415

    file = copy_file(data_dir, choice.copy)
    if file is None:
        if choice.copy is not None:
            raise Refusal(f"the columnar copy needs DuckDB: {EXTRA}")
        _say(f"on so many calls reports are quick with DuckDB: {EXTRA}")
        return None
    try:
        source: Source = stack.enter_context(file.opened(connection))
    except CopyError as error:
        if choice.copy is not None:
            raise Refusal(str(error)) from error
        _say(f"{error}; the views of calls.db are asked instead, which takes longer (see --copy)")
        return None
    return source


def copy_file(data_dir: Path, path: Path | None) -> Any:
    """The copy of the store in this folder, with progress on the terminal; None where DuckDB is missing."""
    from sipserver.analysis.columns_file import CopyFile, installed  # noqa: PLC0415

    if not installed():
        return None
    return CopyFile(
        data_dir / CALLS_FILE, path or data_dir / COPY_FILE, _watched,
        lambda: _say("another report writes or reads the copy; waiting for it"),
    )  # fmt: skip


def bring_up_to_date(data_dir: Path, path: Path | None, *, anew: bool) -> str:
    """Write the copy; what there is now."""
    from sipserver.analysis.columns_sync import CopyError  # noqa: PLC0415

    stand_back()
    with calls_store(data_dir):
        file = copy_file(data_dir, path)
    if file is None:
        raise Refusal(f"the columnar copy needs DuckDB: {EXTRA}")
    try:
        file.prepare(anew=anew)
    except CopyError as error:
        raise Refusal(str(error)) from error
    return f"{file.path} is up to date, {file.path.stat().st_size / 1e6:.1f} MB"


@contextmanager
def _watched(rows: int) -> Iterator[Callable[[int], None]]:
    with click.progressbar(
        length=rows, label="Copying", file=sys.stderr, hidden=rows < LARGE or not os.isatty(2), show_pos=True
    ) as bar:  # fmt: skip
        yield bar.update


def _say(sentence: str) -> None:
    click.echo(f"sipserver: {sentence}", err=True)
