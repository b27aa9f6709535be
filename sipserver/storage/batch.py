"""A statement that is run for many rows at once.

``executemany`` lets go of the interpreter lock for each row, and the writer's thread then has to win it back from a
busy loop: in overload two fifths of its time. So an INSERT with plain ``VALUES (?, …)`` gets as many lists of values as
there are rows, up to 64, and is executed once for all of them, in their order. For any other statement such an INSERT
goes to a view, which has it as its trigger.

Measured with one upsert a row under a loop without idle time, five runs of each in turn: a commit's 99th percentile
24 ms (7 to 28) by ``executemany``, 12 ms (8 to 16) like this. Calls in overload, two runs of each in turn: 2,213 and
2,182 served a second, 1,321 in the worst one, while UPDATEs went through ``executemany``, and 2,440 and 2,392, at least
2,255, as it is now.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from sipserver.storage.database import sqlite

MOST_ROWS = 64
MANY = 16
"""Rows from which on the detour through a view costs no more where nobody else wants the lock: an UPDATE of 4 takes
1.71 us a row against 1.39 by ``executemany``, of 16 1.11 against 1.14, of 64 1.07 against 1.18."""
MOST_VALUES = 32_000
"""Below SQLite's bound on the parameters of one statement (32,766)."""

_NULL: Final[Any] = float("nan")
"""What SQLite takes for NULL, too. None is offered to adapters before it is bound, 1,400 instructions in all, and this
is not, 400; a call has some thirty of them."""

# VALUES and a list of question marks and plain numbers, at least one of them a question mark.
_VALUES = re.compile(
    r"\A\s*(?:INSERT|REPLACE)\b.*?\bVALUES\s*(\((?=[^)]*\?)\s*(?:\?|\d+)(?:\s*,\s*(?:\?|\d+))*\s*\))",
    re.IGNORECASE | re.DOTALL,
)

_UPDATE = re.compile(r"\A\s*UPDATE\s+(?!OR\b)", re.IGNORECASE)


class BatchStatement:
    """One SQL statement with ``?`` parameters, run over rows in their order."""

    __slots__ = ("_columns", "_view", "_wide", "sql")

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self._columns = sql.count("?")
        self._view: tuple[str, str] | None = None
        """The SQL that makes the view and its trigger."""
        self._wide: list[tuple[int, str]] = []
        """How many rows at once, and the SQL for so many; most first. Empty for what has no parameters."""
        match = _VALUES.match(sql)
        # A parameter elsewhere belongs to a row too, and cannot be given once for many.
        if match is not None and match[1].count("?") == self._columns:
            self._repeat(sql[: match.start(1)], match[1], sql[match.end(1) :])
        elif self._columns:
            name = f"rows_{sha256(sql.encode()).hexdigest()[:16]}"
            self._view = _view(name, sql, self._columns)
            values = f"({', '.join('?' * self._columns)})"
            self._repeat(f"INSERT INTO temp.{name} VALUES ", values, "")  # noqa: S608 - a name of our own

    def _repeat(self, head: str, values: str, tail: str) -> None:
        size = min(MOST_ROWS, MOST_VALUES // self._columns)
        while size > 1:
            self._wide.append((size, head + ", ".join([values] * size) + tail))
            size //= 2
        self._wide.append((1, self.sql))

    def prepare(self, connection: sqlite.Connection) -> None:
        """Make what ``run`` needs on a new connection, outside of transactions. Raises what sqlite3 raises."""
        for each in self._view or ():
            connection.execute(each)

    def run(self, connection: sqlite.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run for all rows; raises what sqlite3 raises, ValueError for a row of the wrong length.

        What was written before a row that cannot be is not undone: that is the transaction's part.
        """
        # In one long list of values a short row and a long one could make up for each other.
        if set(map(len, rows)) - {self._columns}:
            raise ValueError("a row of the wrong length")
        if not self._wide or (self._view is not None and len(rows) < MANY):
            connection.executemany(self.sql, [_bound([row]) for row in rows])
            return
        done = 0
        for size, sql in self._wide:
            while len(rows) - done >= size:
                connection.execute(sql, _bound(rows[done : done + size]))
                done += size


def _view(name: str, sql: str, columns: int) -> tuple[str, str]:
    """A view that runs the statement for each row that is inserted into it."""
    # Or SQLite would copy each page that it changes, to undo the rows before one that it cannot write.
    sql = _UPDATE.sub("UPDATE OR FAIL ", sql)
    first, *others = sql.split("?")
    body = first + "".join(f"NEW.c{number}{part}" for number, part in enumerate(others))
    names = ", ".join(f"c{number}" for number in range(columns))
    return (
        f"CREATE TEMP VIEW IF NOT EXISTS {name} ({names}) AS SELECT {', '.join('0' * columns)}",
        f"CREATE TEMP TRIGGER IF NOT EXISTS {name}_row INSTEAD OF INSERT ON {name} BEGIN {body}; END",
    )


def _bound(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The values of these rows, one after the other, as they are bound."""
    return [_NULL if value is None else value for row in rows for value in row]
