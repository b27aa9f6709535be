"""A statement that is run for many rows at once.

``executemany`` lets go of the interpreter lock for each row, and a thread that wants it back from a busy loop waits
up to the switch interval (5 ms) each time. Measured under a loop without idle time, batches of 140 rows: 200 ms at
the 99th percentile, 590 ms at worst. So up to 64 rows go into one execution, which is one wait for all of them: 6 ms
and 30 ms, at half the processor time. Rows are taken in their order, as ``executemany`` would.

    INSERT … VALUES (?, ?) …     gets as many lists of values as there are rows
    UPDATE …, DELETE …           becomes the trigger of a temporary view, into which the rows are inserted

Other statements go through ``executemany``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sipserver.storage.database import sqlite

MOST_ROWS = 64
MOST_VALUES = 32_000
"""Below SQLite's bound on the parameters of one statement (32,766)."""

# VALUES and a list of question marks and plain numbers, at least one of them a question mark.
_VALUES = re.compile(
    r"\A\s*(?:INSERT|REPLACE)\b.*?\bVALUES\s*(\((?=[^)]*\?)\s*(?:\?|\d+)(?:\s*,\s*(?:\?|\d+))*\s*\))",
    re.IGNORECASE | re.DOTALL,
)
_CHANGE = re.compile(r"\A\s*(?:UPDATE|DELETE)\b", re.IGNORECASE)
# A parameter, or a quoted text that may hold a question mark of its own.
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\?\d*""")


class BatchStatement:
    """One SQL statement with ``?`` parameters, run over rows in their order.

    ``number`` tells it from the others of its connection.
    """

    __slots__ = ("_columns", "_number", "_wide", "sql")

    def __init__(self, sql: str, number: int) -> None:
        self.sql = sql
        self._number = number
        self._columns = 0
        self._wide: list[tuple[int, str]] = []
        """How many rows at once, and the SQL for so many; most first. Empty for what cannot be repeated."""

    def prepare(self, connection: sqlite.Connection) -> None:
        """Get ready to run on this connection, and only on it."""
        self._wide = []
        match = _VALUES.match(self.sql)
        # A parameter elsewhere belongs to a row too, and cannot be given once for many.
        if match is not None and match[1].count("?") == self.sql.count("?"):
            self._repeat(self.sql[: match.start(1)], match[1], self.sql[match.end(1) :])
        elif _CHANGE.match(self.sql):
            self._make_trigger(connection)

    def run(self, connection: sqlite.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run for all rows; raises what sqlite3 raises, ValueError for a row of the wrong length."""
        if not self._wide:
            connection.executemany(self.sql, rows)
            return
        # In one long list of values a short row and a long one could make up for each other.
        if set(map(len, rows)) - {self._columns}:
            raise ValueError("a row of the wrong length")
        done = 0
        for size, sql in self._wide:
            while len(rows) - done >= size:
                connection.execute(sql, tuple(chain.from_iterable(rows[done : done + size])))
                done += size

    def _repeat(self, head: str, values: str, tail: str) -> None:
        self._columns = values.count("?")
        size = min(MOST_ROWS, MOST_VALUES // self._columns)
        while size:
            self._wide.append((size, head + ", ".join([values] * size) + tail))
            size //= 2

    def _make_trigger(self, connection: sqlite.Connection) -> None:
        columns: list[str] = []

        def name_parameter(found: re.Match[str]) -> str:
            if not found[0].startswith("?"):
                return found[0]
            # A number after it leaves a syntax error behind, and so no trigger.
            columns.append(f"p{len(columns)}")
            return f"NEW.{columns[-1]} {found[0][1:]}"

        body = _PARAMETER.sub(name_parameter, self.sql)
        view = f"batch_{self._number}"
        # A column of a view that is no column of a table has no affinity: values arrive as they were given.
        nothing = ", ".join(f"NULL AS {column}" for column in columns)
        try:
            connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {nothing}")
            connection.execute(f"CREATE TEMP TRIGGER {view}_row INSTEAD OF INSERT ON {view} BEGIN {body}; END")
        except sqlite.Error:
            # No parameters, or SQL that may not stand in a trigger: then row by row.
            return
        # The name is ours, and values are bound.
        self._repeat(f"INSERT INTO {view} VALUES ", f"({', '.join('?' * len(columns))})", "")  # noqa: S608
