"""Writes a ``calls.db`` of any size from the model of a service, through the store's own schema.

The file is made beside its place and moved there when it is whole, so a run that is cut short leaves no store.
Where there is much to write, other processes draw the calls (``sample_rows``) while this one writes.
"""

from __future__ import annotations

import gc
import marshal
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from sipserver.analysis.sample_rows import TABLES, Batch, Counts, Rows, Sample, Service, run_rows
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import StoreError, sqlite
from sipserver.storage.migrations import open_store

LARGE: Final = 200_000
"""From so many calls on other processes draw them."""
MOST_HELPERS: Final = 4
"""More than one process that writes can keep up with."""

_INSERT: Final = {
    table: f"INSERT INTO {table} ({', '.join(columns.split())}) VALUES ({', '.join('?' * len(columns.split()))})"  # noqa: S608
    for table, columns in TABLES.items()
}


def write_sample(
    path: Path,
    *,
    calls: int,
    subscribers: int,
    begin: int,
    end: int,
    seed: int,
    helpers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a store of about so many calls at ``path``, which must not exist.

    ``begin`` and ``end`` are milliseconds and whole hours. ``helpers`` is how many other processes draw the calls, by
    default as many as pay; the calls are the same. ``progress`` is told how many calls came since it was last told.
    Raises StoreError.
    """
    if helpers is None:
        helpers = min((os.cpu_count() or 1) - 1, MOST_HELPERS) if calls >= LARGE else 0
    if path.exists():
        raise StoreError(f"{path} exists already, and no sample is written over a store")
    draft = path.with_name(f"{path.name}.part")
    draft.unlink(missing_ok=True)
    # Millions of rows and no cycles: looking for some is an eighth of the work.
    collecting = gc.isenabled()
    gc.disable()
    try:
        # Nobody else sees the draft, and it is thrown away where this fails: no journal, nothing synced before its end.
        pragmas: dict[str, int | str] = {
            "journal_mode": "OFF", "synchronous": "OFF", "foreign_keys": "OFF", "cache_size": -400_000,
            "locking_mode": "EXCLUSIVE",
        }  # fmt: skip
        with closing(open_store(draft, MIGRATIONS, mode=0o640, pragmas=pragmas)) as connection:
            service = Service(calls, subscribers, begin, end, seed)
            _fill(connection, service, _drawn(service, helpers), progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(path)
    except sqlite.Error as error:
        raise StoreError(f"{draft}: {error}") from error
    finally:
        if collecting:
            gc.enable()
        draft.unlink(missing_ok=True)
    # As every store is left; nothing is in the log of writes now.
    with closing(open_store(path, MIGRATIONS, mode=0o640)):
        pass


def _fill(
    connection: sqlite.Connection, service: Service, drawn: Iterator[Batch], progress: Callable[[int], None]
) -> None:
    indices = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL").fetchall()
    connection.execute("BEGIN")
    # Indices are far quicker made at the end than kept.
    for name, _ in indices:
        connection.execute(f"DROP INDEX {name}")
    known: Counts = {}
    for rows, counts in drawn:
        _insert(connection, rows)
        for number, (placed, recovered) in (counts or {}).items():
            before = known.get(number, (0, 0))
            known[number] = before[0] + placed, before[1] + recovered
        progress(len(rows["calls"]))
    _insert(connection, run_rows(service, known))
    for _, sql in indices:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA optimize=0x10002")


def _insert(connection: sqlite.Connection, rows: Rows) -> None:
    for table, lines in rows.items():
        connection.executemany(_INSERT[table], lines)


def _drawn(service: Service, helpers: int) -> Iterator[Batch]:
    """All batches in order of time."""
    if helpers < 1:
        sample = Sample(service)
        for day in service.days:
            yield from sample.batches(day)
        return
    # Not forked: what else runs in this process is none of theirs.
    context = get_context("spawn")
    started = []
    try:
        for number in range(helpers):
            mine, its = context.Pipe(duplex=False)
            process = context.Process(target=_draw, args=(its, service, number, helpers), daemon=True)
            process.start()
            # So that its end is seen.
            its.close()
            started.append((process, mine))
        for number, _ in enumerate(service.days):
            _, pipe = started[number % helpers]
            counts = None
            while counts is None:
                rows, counts = marshal.loads(pipe.recv_bytes())  # noqa: S302 - of our own processes
                yield rows, counts
    except EOFError as error:
        raise StoreError("a process that draws calls ended before it was done") from error
    finally:
        for process, pipe in started:
            process.terminate()
            process.join()
            pipe.close()


def _draw(pipe: Connection, service: Service, first: int, step: int) -> None:
    """Draw every so many days, in a process of its own; whoever writes takes them when it is ready."""
    gc.disable()
    sample = Sample(service)
    for day in service.days[first::step]:
        for batch in sample.batches(day):
            pipe.send_bytes(marshal.dumps(batch))
