"""What ``sipserver check`` says of the record of calls."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import click

from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.verify import STEPS, Summary, summary, verify
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store


@dataclass(slots=True)
class Records:
    """The record of calls, looked at."""

    running: bool = False
    """Whether a server writes to it."""
    server: str = ""
    """Whether a server runs, or how the last one ended."""
    calls: str = ""
    """What there is."""
    violations: list[str] = field(default_factory=list)
    """A sentence for each thing that is not as it has to be."""


def look(path: Path, records: bool) -> Records:
    """Look at a store of the present schema; with ``records`` at each row. Raises StoreError."""
    found = Records()
    now = int(time.time() * 1000)
    with closing(open_store(path, MIGRATIONS, readonly=True)) as connection:
        try:
            known = summary(connection, now)
            found.running = known.running
            found.server, found.calls = _server(known), _calls(known)
            if not records:
                return found
            with click.progressbar(
                verify(connection), length=STEPS, label="Verifying", file=sys.stderr,
                hidden=not sys.stderr.isatty(),
            ) as steps:  # fmt: skip
                for sentences in steps:
                    found.violations += sentences
        except sqlite.Error as error:
            # A damaged file may be readable at its beginning only.
            found.violations.append(f"the file cannot be read to its end: {error}")
    return found


def _server(known: Summary) -> str:
    if known.running:
        return f"runs, last heard of at {known.last_alive}"
    if known.last_alive is None:
        return "has not run yet"
    ended = f"stopped in order at {known.last_alive}" if known.stopped else f"was killed after {known.last_alive}"
    left = f"; the next start closes the {_count(known.open, 'call')} that it left open" if known.open else ""
    return f"does not run, {ended}{left}"


def _calls(known: Summary) -> str:
    killed = f", {known.killed} of them killed" if known.killed else ""
    runs = f"in {_count(known.runs, 'run')} of the server{killed}"
    recovered = f", {known.recovered} of them by a restart" if known.recovered else ""
    closed = known.calls - known.open
    return f"{_count(known.calls, 'call')} {runs}: {closed} closed{recovered}, {known.open} open; nothing is missing"


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")
