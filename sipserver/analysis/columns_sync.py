"""Making a columnar copy of a store, and bringing it up to date.

Each step leaves the copy as it was or with some more rows of which it knows that it has them, so whatever cuts this
short costs no more than the step. A new copy is made beside its place and moved there when it is whole. The store is
read in pieces with a transaction each: a server that writes meanwhile is not kept from tidying up its log of writes.

Not everything can be copied: rows that are not settled are left to whoever reads the copy (``columns``), and remembered
as ``waiting``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from sipserver.analysis import columns_cells
from sipserver.analysis.columns_schema import CALLS, FORMAT, OWN, SETTLED_MS, TABLES, VIEWS, Table
from sipserver.analysis.columns_sweep import UP, place_cells
from sipserver.analysis.periods import DAY_MS, stamp
from sipserver.analysis.traffic import QUARTER_MS
from sipserver.calls.times import parse_stamp
from sipserver.storage.database import sqlite

if TYPE_CHECKING:
    import duckdb

CHUNK: Final = 122_880
"""Rows that are written at a time: as many as DuckDB compresses at a time."""
PIECE: Final = 30_720
"""Rows that are read from the store at a time."""
DAYS: Final = 8
"""The same of a table that goes by days."""
MEMORY: Final = "200MB"
SWEPT_MS: Final = 20 * DAY_MS
"""How much is swept at a time."""


class CopyError(Exception):
    """A copy that cannot be used, as one sentence for whoever asked for it."""


@dataclass(slots=True)
class State:
    """What a copy knows of itself."""

    copied: dict[str, tuple[int, str | None]]
    """By table: the last rowid, or day, and its identifier."""
    waiting: dict[str, list[int]]
    followed: dict[tuple[str, str], int]
    fits: bool
    """Whether it is of this store and of this version."""


def state_of(copy: duckdb.DuckDBPyConnection, store: sqlite.Connection, prefix: str = "") -> State:
    """What the copy knows, and whether it is a copy of this store. ``prefix`` is that of its tables."""
    import duckdb  # noqa: PLC0415 - heavy, and not everywhere

    about = copy.execute(f"SELECT format, engine, store FROM {prefix}about").fetchone()  # noqa: S608 - ours
    if about != (FORMAT, duckdb.__version__, identity(store)):
        return State({}, {}, {}, fits=False)
    copied = {name: (number, row_id) for name, number, row_id in copy.execute(f"FROM {prefix}copied").fetchall()}
    waiting: dict[str, list[int]] = {name: [] for name in TABLES}
    for name, number in copy.execute(f"FROM {prefix}waiting ORDER BY number").fetchall():
        waiting[name].append(number)
    followed = {(name, day): times for name, day, times in copy.execute(f"FROM {prefix}followed").fetchall()}
    fits = all(
        row_id is None or row_id == _id_of(store, TABLES[name], number) for name, (number, row_id) in copied.items()
    )
    return State(copied, waiting, followed, fits)


def identity(store: sqlite.Connection) -> str:
    """Which store this is."""
    (found,) = store.execute("SELECT id FROM store_identity").fetchone()
    return str(found)


def changes(store: sqlite.Connection) -> dict[tuple[str, str], int]:
    """What ever changed out of turn in the store."""
    return {(name, day): times for name, day, times in store.execute("SELECT name, day, times FROM changed_days")}


def forgotten_places(
    copy: duckdb.DuckDBPyConnection, store: sqlite.Connection, prefix: str = ""
) -> dict[tuple[str, str], list[int]]:
    """Rows of the copy with a place that was kept for some time (RFC 4119) and that the store does not have any more.

    By table and side (``caller_``, ``callee_``, or nothing).
    """
    found = {}
    for name, side in (("calls", "caller_"), ("calls", "callee_"), ("sign_ins", "")):
        limit = f"{side}location_until"
        known = copy.execute(f"SELECT number FROM {prefix}{name} WHERE {limit} IS NOT NULL").fetchall()  # noqa: S608
        if known:
            gone = store.execute(
                f"SELECT rowid FROM {name} WHERE rowid IN (SELECT value FROM json_each(?)) AND {limit} IS NULL",  # noqa: S608
                (json_list([number for (number,) in known]),),
            ).fetchall()
            if gone:
                found[name, side] = [number for (number,) in gone]
    return found


def _id_of(store: sqlite.Connection, table: Table, number: int) -> str | None:
    row = store.execute(f"SELECT id FROM {table.name} WHERE rowid = ?", (number,)).fetchone()  # noqa: S608
    return row[0] if row else None


def last_row(store: sqlite.Connection, table: Table) -> int:
    """The last rowid of a table, 0 where it is empty."""
    (found,) = store.execute(f"SELECT ifnull(max(rowid), 0) FROM {table.name}").fetchone()  # noqa: S608
    return int(found)


def settled_before(now: int) -> str:
    """What ended before this time does not change any more; ``now`` in milliseconds."""
    return stamp(now - SETTLED_MS)


@contextmanager
def connected(path: Path | str, *, readonly: bool = False, memory: str = MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a file of DuckDB, within bounds of memory and without anything from the network."""
    import duckdb  # noqa: PLC0415

    settings: dict[str, Any] = {
        "memory_limit": memory, "threads": min(2, os.cpu_count() or 1), "autoinstall_known_extensions": False,
        "autoload_known_extensions": False, "default_null_order": "nulls_first_on_asc_last_on_desc",
        "enable_external_access": True, "preserve_insertion_order": True,
    }  # fmt: skip
    with closing(duckdb.connect(str(path), read_only=readonly, config=settings)) as connection:
        connection.execute("SET enable_progress_bar = false")
        yield connection


def load(copy: duckdb.DuckDBPyConnection, table: Table, lines: Lines, into: str) -> None:
    """Insert lines of a table. Raises CopyError where they are not as many rows as they should be."""
    import duckdb  # noqa: PLC0415

    try:
        found = copy.execute(f"INSERT INTO {into} {table.lines(lines.path)}").fetchone()
    except duckdb.InvalidInputException:
        found = None
    if found is None or found[0] != lines.rows:
        raise CopyError(f"a row of {table.name} has control characters in it, so the store cannot be copied")


class Lines:
    """Rows of a table as text, in a file that is in memory where the system has such. Close it."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("rows"), "wb") if hasattr(os, "memfd_create") else TemporaryFile("wb")  # noqa: SIM115
        self.rows = 0

    @property
    def path(self) -> str:
        """Where another part of this process finds the file."""
        self._file.flush()
        return f"/dev/fd/{self._file.fileno()}"

    def add(self, text: str | None, rows: int) -> None:
        """Some more of them."""
        if text is not None:
            self._file.write(text.encode("utf-8", "replace"))
            self._file.write(b"\n")
            self.rows += rows

    def close(self) -> None:
        """Nothing is left of it."""
        self._file.close()


def settled_lines(store: sqlite.Connection, table: Table, where: str, values: tuple[Any, ...], into: Lines) -> int:
    """Write the settled rows, and say how many are not; ``values`` begin with ``?1``."""
    text, settled, rows = store.execute(
        f"SELECT group_concat(CASE WHEN {table.settled} THEN {table.line} END, char(10)), "  # noqa: S608 - of ours
        f"ifnull(sum({table.settled}), 0), count(*) FROM {table.name} WHERE {where}",
        values,
    ).fetchone()
    into.add(text, settled)
    return int(rows - settled)


def all_lines(store: sqlite.Connection, table: Table, where: str, value: Any, into: Lines) -> None:
    """Write rows, settled or not."""
    text, rows = store.execute(
        f"SELECT group_concat({table.line}, char(10)), count(*) FROM {table.name} WHERE {where}",  # noqa: S608
        (value,),
    ).fetchone()
    into.add(text, rows)


class Sync:
    """Brings an open copy up to date. ``progress`` is told of rows; ``now`` in milliseconds."""

    def __init__(
        self, copy: duckdb.DuckDBPyConnection, store: sqlite.Connection, now: int, progress: Callable[[int], None]
    ) -> None:
        self._copy = copy
        self._store = store
        self._before = settled_before(now)
        self._progress = progress

    def make(self) -> None:
        """Empty tables, in a new copy."""
        import duckdb  # noqa: PLC0415

        views = (f"CREATE VIEW {view}" for each in VIEWS.values() for view in each)
        for statement in (*(table.create for table in TABLES.values()), *views, *OWN, *columns_cells.TABLES):
            self._copy.execute(statement)
        # Before anything is read: what changes out of turn from now on is followed by the next look.
        self._copy.execute("INSERT INTO about VALUES (?, ?, ?)", [FORMAT, duckdb.__version__, identity(self._store)])
        for (name, day), times in changes(self._store).items():
            self._copy.execute("INSERT INTO followed VALUES (?, ?, ?)", [name, day, times])

    def run(self) -> None:
        """Follow what changed out of turn, and copy what came since."""
        state = state_of(self._copy, self._store)
        self._follow(state)
        for table in TABLES.values():
            if table.by_day:
                self._days(table, state)
            else:
                self._waiting(table, state)
                self._rows(table, state)
        self._forget_places()
        self._sweep()
        columns_cells.gather(self._copy)
        self._copy.execute("CHECKPOINT")

    @contextmanager
    def _step(self) -> Iterator[None]:
        """All or nothing, of one moment of the store."""
        self._copy.execute("BEGIN")
        # Also within a transaction that the caller began.
        self._store.execute("SAVEPOINT step")
        try:
            yield
            self._copy.execute("COMMIT")
        except BaseException:
            self._copy.execute("ROLLBACK")
            raise
        finally:
            self._store.execute("RELEASE step")

    def _add(self, table: Table, where: str, *values: Any) -> int:
        """Copy settled rows; how many are not."""
        return self._add_each(table, where, [values])

    def _add_each(self, table: Table, where: str, pieces: Sequence[tuple[Any, ...]]) -> int:
        """The same of several pieces at once."""
        open_rows = 0
        with closing(Lines()) as lines:
            for values in pieces:
                known = lines.rows
                more = settled_lines(self._store, table, where, (self._before, *values), lines)
                if lines.rows > known and table is CALLS:
                    self._up_then(where, *values)
                open_rows += more
                self._progress(lines.rows - known + more)
            if lines.rows and table.name in columns_cells.COUNTED:
                self._copy.execute(table.create.replace(f"TABLE {table.name} ", "OR REPLACE TEMP TABLE fresh "))
                load(self._copy, table, lines, "fresh")
                columns_cells.count(self._copy, table.name, "fresh")
                self._copy.execute(f"INSERT INTO {table.name} FROM fresh")
                self._copy.execute("DROP TABLE fresh")
            elif lines.rows:
                load(self._copy, table, lines, table.name)
        return open_rows

    def _up_then(self, where: str, *values: Any) -> None:
        """What the copy knows of the quarters of an hour is not true any more of those that these calls were up in."""
        since, until, uncertain = self._store.execute(
            f"SELECT min(started_at), max(ended_at), ifnull(max(end_uncertainty_ms), 0) FROM calls "  # noqa: S608 - ours
            f"WHERE {where} AND {CALLS.settled}",
            (self._before, *values),
        ).fetchone()
        self._copy.execute("INSERT INTO stale VALUES (?, ?)", [parse_stamp(since), parse_stamp(until) + uncertain + 1])

    def _add_or_wait(self, table: Table, where: str, *values: Any) -> None:
        """Copy settled rows, and remember the others."""
        if self._add(table, where, *values):
            self._wait(table, where, *values)

    def _wait(self, table: Table, where: str, *values: Any) -> None:
        rows = self._store.execute(
            f"SELECT rowid FROM {table.name} WHERE {where} AND NOT ({table.settled})",  # noqa: S608 - of ours
            (self._before, *values),
        )
        self._copy.execute("INSERT INTO waiting SELECT ?, unnest(?)", [table.name, [number for (number,) in rows]])

    def _made_stale(self, table: str, where: str, values: list[Any]) -> None:
        self._copy.execute(
            f"""INSERT INTO stale SELECT since, until FROM (
                SELECT min(started_at) AS since, max(ended_at + coalesce(end_uncertainty_ms, 0)) + 1 AS until
                FROM {table} WHERE {where}) AS spans WHERE since IS NOT NULL""",  # noqa: S608 - of ours
            values,
        )

    def _rows(self, table: Table, state: State) -> None:
        """Copy what came since."""
        at, _ = state.copied.get(table.name, (0, None))
        top = last_row(self._store, table)
        while at < top:
            until = min(at + CHUNK, top)
            pieces = [(begin, min(begin + PIECE, until)) for begin in range(at, until, PIECE)]
            with self._step():
                if self._add_each(table, "rowid > ?2 AND rowid <= ?3", pieces):
                    self._wait(table, "rowid > ?2 AND rowid <= ?3", at, until)
                self._reached(table, until, _id_of(self._store, table, until))
            at = until

    def _reached(self, table: Table, number: int, row_id: str | None) -> None:
        self._copy.execute("DELETE FROM copied WHERE name = ?", [table.name])
        self._copy.execute("INSERT INTO copied VALUES (?, ?, ?)", [table.name, number, row_id])

    def _waiting(self, table: Table, state: State) -> None:
        """Copy what was not settled, and is now."""
        numbers = state.waiting.get(table.name, [])
        if not numbers:
            return
        with self._step():
            text = json_list(numbers)
            self._copy.execute("DELETE FROM waiting WHERE name = ?", [table.name])
            self._add_or_wait(table, "rowid IN (SELECT value FROM json_each(?2))", text)

    def _days(self, table: Table, state: State) -> None:
        """Copy days that are over since."""
        at, _ = state.copied.get(table.name, (0, None))
        (first,) = self._store.execute(f"SELECT min({table.time}) FROM {table.name}").fetchone()  # noqa: S608
        if first is None:
            return
        at = max(at, parse_stamp(f"{first[:10]}T00:00:00.000Z"))
        top = parse_stamp(f"{self._before[:10]}T00:00:00.000Z")
        while at < top:
            until = min(at + DAYS * DAY_MS, top)
            with self._step():
                self._add(table, f"{table.time} >= ?2 AND {table.time} < ?3", stamp(at)[:10], stamp(until)[:10])
                self._reached(table, until, None)
            at = until

    def _follow(self, state: State) -> None:
        """Copy days again in which rows changed out of turn."""
        for (name, day), times in changes(self._store).items():
            if state.followed.get((name, day)) == times:
                continue
            table = TABLES[name]
            begin = parse_stamp(f"{day}T00:00:00.000Z")
            at, _ = state.copied.get(name, (0, None))
            of_day = f'"{table.time}" >= ? AND "{table.time}" < ?'
            with self._step():
                if table is CALLS:
                    self._made_stale("calls", of_day, [begin, begin + DAY_MS])
                days_there = columns_cells.days_of(self._copy, name, begin) if name in columns_cells.COUNTED else []
                self._copy.execute(f"DELETE FROM {name} WHERE {of_day}", [begin, begin + DAY_MS])  # noqa: S608
                columns_cells.count_again(self._copy, name, days_there)
                self._copy.execute("DELETE FROM followed WHERE name = ? AND day = ?", [name, day])
                self._copy.execute("INSERT INTO followed VALUES (?, ?, ?)", [name, day, times])
                where = f'"{table.time}" >= ?2 AND "{table.time}" < ?3'
                days = (stamp(begin), stamp(begin + DAY_MS))
                if table.by_day:
                    if begin < at:
                        self._add(table, where, *(each[:10] for each in days))
                else:
                    waiting = "rowid <= ?4 AND rowid NOT IN (SELECT value FROM json_each(?5))"
                    numbers = json_list(state.waiting.get(name, []))
                    self._add_or_wait(table, f"{where} AND {waiting}", *days, at, numbers)

    def _forget_places(self) -> None:
        """Take out places whose time is over."""
        for (name, side), numbers in forgotten_places(self._copy, self._store).items():
            columns = ("country", "region", "site") if side else ("site",)
            nothing = ", ".join(f"{side}{column} = NULL" for column in (*columns, "location_until"))
            self._copy.execute(
                f"UPDATE {name} SET {nothing} WHERE number IN (SELECT unnest(?))",  # noqa: S608 - ours
                [numbers],
            )

    def _sweep(self) -> None:
        """Count again what is up in the quarters that are not true any more."""
        since, until = self._copy.execute("SELECT min(since), max(until) FROM stale").fetchone() or (None, None)
        if since is None or until is None:
            return
        begin, end = since - since % QUARTER_MS, until + -until % QUARTER_MS
        for at in range(begin, end, SWEPT_MS):
            sweep_quarters(self._copy, at, min(at + SWEPT_MS, end))
        self._copy.execute("DELETE FROM stale")


def sweep_quarters(copy: duckdb.DuckDBPyConnection, begin: int, end: int) -> None:
    """Write the quarters of an hour from ``begin`` to ``end``, which are whole ones, by the calls of the copy."""
    cells = [(at, at + QUARTER_MS) for at in range(begin, end, QUARTER_MS)]
    unit = place_cells(copy, cells)
    copy.execute("BEGIN")
    copy.execute(
        "DELETE FROM quarters WHERE quarter >= $first AND quarter < $last",
        {"first": begin // QUARTER_MS, "last": end // QUARTER_MS},
    )
    uncertain = copy.execute("SELECT coalesce(max(end_uncertainty_ms), 0) FROM calls").fetchone() or (0,)
    up = UP.format(scope="", unit=unit, known_until=begin, least=begin - uncertain[0])
    copy.execute(
        f"""INSERT INTO quarters SELECT since // {QUARTER_MS}, talk_ms, talk_most_ms, peak, peak_most, coalesce(rate, 0)
            FROM ({up}) AS up LEFT JOIN (
                SELECT started_at // {QUARTER_MS} AS quarter, max(n) AS rate FROM (
                    SELECT any_value(started_at) AS started_at, count(*) AS n FROM calls
                    WHERE started_at >= $from AND started_at < $to GROUP BY started_at // 1000
                ) AS seconds GROUP BY ALL
            ) AS rates ON quarter = since // {QUARTER_MS}""",  # noqa: S608 - of ours
        {"from": begin, "to": end},
    )
    copy.execute("COMMIT")


def json_list(numbers: list[int]) -> str:
    """Numbers for ``json_each``."""
    return f"[{','.join(map(str, numbers))}]"


def rows_to_copy(store: sqlite.Connection, state: State | None) -> int:
    """About how many rows there are to read."""
    found = 0
    for table in TABLES.values():
        at = state.copied.get(table.name, (0, None))[0] if state else 0
        if table.by_day:
            sql = f'SELECT count(*) FROM {table.name} WHERE "{table.time}" >= ?'  # noqa: S608 - ours
            found += store.execute(sql, (stamp(at)[:10],)).fetchone()[0]
        else:
            found += max(last_row(store, table) - at, 0)
    return found
