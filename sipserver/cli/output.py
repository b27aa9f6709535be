"""Rows for people (tables), for programs (JSON) and for spreadsheets (CSV).

Rows hold what peers wrote: User-Agents, reasons, contacts. A table cannot be made to speak to the
terminal, and a CSV cell cannot be made a formula.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import click

from sipserver.analysis.text import visible

Row = Mapping[str, Any]
Form = Literal["table", "json", "csv"]
Command = Callable[..., Any]

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the start of a formula, full-width forms included. Tabs and line ends are escaped."""


def form_options(command: Command) -> Command:
    """Gives a command ``--json`` and ``--csv``, as the parameter ``form``."""
    command = click.option("--csv", "form", flag_value="csv", type=str, help="Print CSV, for spreadsheets.")(command)
    return click.option("--json", "form", flag_value="json", type=str, help="Print JSON, for programs.")(command)


def show_rows(rows: Sequence[Row], form: Form | None, columns: Sequence[str], empty: str) -> None:
    """Print rows in the form that was asked for; a table has ``columns`` only, the others have everything."""
    if form == "json":
        click.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
    elif form == "csv":
        click.echo(csv_text(rows, columns), nl=False)
    elif rows:
        click.echo(table(rows, columns))
    else:
        click.echo(empty)


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows under a line of titles, aligned; numbers to the right."""
    cells = [[plain(row.get(column)) for column in columns] for row in rows]
    titles = [column.replace("_", " ").upper() for column in columns]
    widths = [max(map(width_of, each)) for each in zip(titles, *cells, strict=True)]
    right = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    return "\n".join(
        "  ".join(padded(*cell) for cell in zip(line, widths, right, strict=True)).rstrip() for line in [titles, *cells]
    )


def fields(row: Row) -> str:
    """One row, a line for each of its values that is known."""
    known = {key: plain(value) for key, value in row.items() if value is not None}
    width = max(map(len, known), default=0)
    return "\n".join(f"{key.replace('_', ' '):{width}}  {value}" for key, value in known.items())


def csv_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows as CSV with a header: all they have, or ``columns`` when there are none."""
    names = list(rows[0] if rows else columns)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
    return out.getvalue()


def plain(value: object) -> str:
    """A value as it may appear on a terminal: nothing in it moves the cursor or breaks the line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return str(value)


def _cell(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return disarmed(plain(value))


def disarmed(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian wide characters take two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """As much of the text as so many columns of a terminal have room for, with ``…`` where something is left out."""
    if len(text) <= width and text.isascii():
        return text
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += _cells(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…" if width > 0 else ""


def padded(text: str, width: int, right: bool = False) -> str:
    """The text in so many columns of a terminal, on the left side of them or on the right."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
