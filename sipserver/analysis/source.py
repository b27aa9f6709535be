"""Where figures come from: the views of the store, which define them, or a columnar copy of it (``columns``).

A source runs the queries of ``queries`` and fills in what the two say differently. The views need SQLite alone and are
quick enough for some hundred thousand calls; beyond that the copy is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sipserver.analysis.periods import DAY_MS, Bucket, stamp
from sipserver.analysis.traffic import BEFORE_SQL, OPEN_SQL, SPANS_SQL, Cell, sweep
from sipserver.analysis.views import Values
from sipserver.calls.errors import error_rates
from sipserver.storage.database import sqlite

BRACES: Final = re.compile(r"\{(\w+):?(\w*):?(\w*)\}")

MS_SQL: Final = "CAST(round((julianday({}) - 2440587.5) * 86400000.0) AS INTEGER)"


def quoted(column: str) -> str:
    """A column as both write it: AT is a word of DuckDB's SQL."""
    return '"at"' if column == "at" else column


class Source(Protocol):
    """Runs queries about a store."""

    name: str
    """What an analyst would call it."""

    def moment(self, at: int) -> Any:
        """A time (milliseconds) as a parameter of a query."""

    def day(self, at: int) -> Any:
        """The day of UTC that begins then, or that a time lies in, as a parameter of a query."""

    def fill(self, sql: str, scope: str) -> str:
        """A query with what is in braces filled in but for ``{calls}``."""

    def cut(self, pieces: Sequence[Bucket]) -> None:
        """The pieces that queries by piece are about from now on."""

    def has(self, column: str, parameter: str) -> str:
        """The condition that a text has another in it, whatever the case of its ASCII letters."""

    def ask(self, sql: str, values: Values) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The columns and the rows that a query finds; ``values`` may have more than it needs."""

    def media(self) -> str:
        """The query for calls by kind, codec and resolution."""

    def retries(self, scope: str, values: Values) -> tuple[str, list[Values]]:
        """Calls that came to nothing by outcome, and how many were tried again; the query that found it, too."""

    def error_rates(self, begin: int, end: int) -> list[Values]:
        """Errors against sign-ins and calls by product and version."""

    def sweep(
        self, found: list[Cell], scope: str, values: Values, known_until: int, progress: Callable[[int], None]
    ) -> Sequence[str]:
        """Fill cells with the talk time in them and the most calls that were up at once; the queries that did it.

        ``scope`` is a condition on calls that begins with AND, or nothing. Calls that go on count up to
        ``known_until`` (milliseconds). ``progress`` is told milliseconds of the period.
        """

    def explained(self) -> str:
        """What has to be there for the queries to run as they are shown, as SQL or comments."""


MEDIA: Final = """
        SELECT kind, codec, resolution, count(DISTINCT call) AS calls
        FROM v_call_facts JOIN call_media ON call_media.call = v_call_facts.id
        WHERE started_at >= $from AND started_at < $to AND accepted = 1 AND early = 0 {scope}
        GROUP BY kind, codec, resolution ORDER BY kind, calls DESC, codec, resolution
"""
# A plus before a column keeps SQLite from going through all calls of all parties by the index on them.
RETRIES: Final = f"""
        WITH attempts AS (
            SELECT started_at, ended_at, answered_at, outcome,
                lead(started_at) OVER (PARTITION BY caller, callee ORDER BY started_at, rowid) AS again
            FROM calls WHERE started_at >= $from AND started_at < $after AND +caller IS NOT NULL
                AND +callee IS NOT NULL {{scope}}
        )
        SELECT outcome, count(*) AS calls,
            sum(ifnull({MS_SQL.format("again")} - {MS_SQL.format("ended_at")} < $within_ms, 0)) AS again
        FROM attempts WHERE started_at < $to AND answered_at IS NULL AND ended_at IS NOT NULL
        GROUP BY outcome ORDER BY calls DESC, outcome
"""  # noqa: S608 - made of constants
_SECONDS: Final = """SELECT piece, count(*) AS n FROM {cut:calls:started_at} WHERE true {scope}
            GROUP BY piece, substr(started_at, 1, 19)"""
_UPGRADED: Final = """answered_at < (
            SELECT min(from_at) FROM call_media WHERE call = v_call_facts.id AND kind = 'video' AND accepted = 1
                AND early = 0)"""
_REFRESHED: Final = """UNION ALL SELECT piece, party, 1 FROM pieces CROSS JOIN sign_in_days
                ON day >= substr(since, 1, 10) AND day <= substr(until, 1, 10)
                    AND ((first_at >= since AND first_at < until) OR (last_at >= since AND last_at < until))"""


class Views:
    """The store itself, by its views."""

    name = "the views of the store"

    def __init__(self, connection: sqlite.Connection) -> None:
        self.connection = connection
        self._pieces: list[tuple[int, str, str]] = []
        self._filled: list[tuple[int, str, str]] | None = None

    def moment(self, at: int) -> str:
        """Times are text."""
        return stamp(at)

    def day(self, at: int) -> str:
        """Days are the beginnings of times."""
        return stamp(at)[:10]

    def fill(self, sql: str, scope: str) -> str:
        """Rows of a piece are found by an index on their time."""

        def filled(match: re.Match[str]) -> str:
            what, first, second = match.groups()
            match what:
                case "cut":
                    time = quoted(second)
                    return f"pieces CROSS JOIN {first} ON {time} >= since AND {time} < until"
                case "scope":
                    return scope
                case "seconds":
                    return self.fill(_SECONDS, scope)
                case "upgraded":
                    return _UPGRADED
                case "refreshed":
                    return _REFRESHED
            return match.group()

        return BRACES.sub(filled, sql)

    def cut(self, pieces: Sequence[Bucket]) -> None:
        """They are a table of this connection alone."""
        self._pieces = [(number, stamp(each.begin), stamp(each.end)) for number, each in enumerate(pieces)]
        if self._pieces != self._filled:
            self.connection.execute(
                "CREATE TEMP TABLE IF NOT EXISTS pieces (piece INTEGER PRIMARY KEY, since TEXT, until TEXT)"
            )
            self.connection.execute("DELETE FROM temp.pieces")
            self.connection.executemany("INSERT INTO temp.pieces VALUES (?, ?, ?)", self._pieces)
            self._filled = self._pieces

    def has(self, column: str, parameter: str) -> str:
        """SQLite knows the case of ASCII letters only."""
        return f"instr(lower({column}), lower(${parameter})) > 0"

    def ask(self, sql: str, values: Values) -> tuple[list[str], list[tuple[Any, ...]]]:
        """As SQLite finds them."""
        cursor = self.connection.execute(sql, values)
        return [column[0] for column in cursor.description], cursor.fetchall()

    def media(self) -> str:
        """Each call once for each kind."""
        return MEDIA

    def retries(self, scope: str, values: Values) -> tuple[str, list[Values]]:
        """By the next call of the same caller to the same callee."""
        names, rows = self.ask(self.fill(RETRIES, scope), values)
        return RETRIES, [dict(zip(names, row, strict=True)) for row in rows]

    def error_rates(self, begin: int, end: int) -> list[Values]:
        """As ``sipserver errors rates`` has them."""
        return error_rates(self.connection, since=begin, until=end, by_day=False)

    def sweep(
        self, found: list[Cell], scope: str, values: Values, known_until: int, progress: Callable[[int], None]
    ) -> Sequence[str]:
        """Call by call in order of time."""
        sweep(
            self.connection, found, scope=scope, parameters=values, known_until=known_until, progress=progress,
        )  # fmt: skip
        return BEFORE_SQL, SPANS_SQL, OPEN_SQL

    def explained(self) -> str:
        """The pieces that queries join."""
        return pieces_explained(self._pieces, "TEXT")


def more_values(source: Source, end: int) -> Values:
    """What RETRIES is asked with besides the bounds."""
    # The next try may come when the period is over.
    return {"after": source.moment(end + DAY_MS)}


SHOWN_PIECES: Final = 3


def pieces_explained(pieces: Sequence[tuple[Any, ...]], kind: str) -> str:
    """The table of pieces as it was made; only its first rows where there are many."""
    if not pieces:
        return ""
    shown = pieces if len(pieces) <= 2 * SHOWN_PIECES else pieces[:SHOWN_PIECES]
    rows = ", ".join(f"({', '.join(map(repr, piece))})" for piece in shown)
    left = f"  -- and {len(pieces) - len(shown)} more" if len(shown) < len(pieces) else ""
    return (
        f"CREATE TEMP TABLE pieces (piece INTEGER PRIMARY KEY, since {kind}, until {kind});\n"
        f"INSERT INTO pieces VALUES {rows};{left}"
    )
