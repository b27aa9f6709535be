"""Figures by cells of time, kept in the copy, so that long periods are summed over cells instead of calls.

``facts`` has the sums that ratios and means are made of, for each quarter of an hour; ``delays`` how often each
post-dial delay came on each day of UTC; ``parties`` on which days of a block each party was there, as bits. Percentiles
and numbers of parties of any days come out of these as exactly as out of the rows.

All of it is of the rows of the copy and changes in their transaction: what is copied is added, so a cell may be in
several pieces until ``gather`` joins them. What is left over, because it is not in the copy or because a period begins
or ends within a cell, is counted row by row (``Left``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sipserver.analysis import queries
from sipserver.analysis.periods import DAY_MS
from sipserver.analysis.traffic import QUARTER_MS

if TYPE_CHECKING:
    import duckdb

BLOCK_DAYS: Final = 28
"""Days in a block; each has a bit. Weeks (of UTC) lie in one block whole."""
_MONDAY: Final = 4
"""Days from the epoch, a Thursday, to the first Monday."""

_AGGREGATE: Final = re.compile(r"\b(?:sum|avg|count)\(")


def _aggregates(columns: str) -> Iterator[tuple[int, int]]:
    """Where the aggregates in a list of columns begin and end."""
    for match in _AGGREGATE.finditer(columns):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(columns[end], 0)
            end += 1
        yield match.start(), end


class Sums:
    """The sums and counts that the columns of queries are made of: a name for each, and what it is of rows."""

    def __init__(self) -> None:
        self.columns: dict[str, str] = {}

    def of_cells(self, columns: str) -> str:
        """The same columns made of the sums of cells."""
        found, at = [], 0
        for begin, end in _aggregates(columns):
            found += [columns[at:begin], self._of_cells(" ".join(columns[begin:end].split()))]
            at = end
        return "".join((*found, columns[at:]))

    def _of_cells(self, aggregate: str) -> str:
        function, _, rest = aggregate.partition("(")
        what = rest[:-1]
        if function != "avg":
            return f"sum({self._name(function, what)})"
        total, number = self._name("sum", what), self._name("count", what)
        return f"(CAST(sum({total}) AS DOUBLE) / nullif(sum({number}), 0))"

    def _name(self, function: str, what: str) -> str:
        sql = f"{function}({what})"
        for name, known in self.columns.items():
            if known == sql:
                return name
        plain = what if what.isidentifier() else "rows" if what == "*" else str(len(self.columns))
        self.columns[f"{function}_{plain}"] = sql
        return f"{function}_{plain}"

    @property
    def of_rows(self) -> str:
        """The columns, of rows."""
        return ", ".join(f"CAST({sql} AS BIGINT) AS {name}" for name, sql in self.columns.items())


SUMS: Final = Sums()


def _summed(query: str, rows: str) -> str:
    """A query of ``queries`` by piece, put to cells."""
    columns = query[query.index("SELECT piece,") + 13 : query.index("FROM {cut")]
    return f"""
        SELECT piece, {SUMS.of_cells(columns).strip()}
        FROM (
            SELECT piece, facts.* EXCLUDE (quarter) FROM copy.facts AS facts JOIN whole_quarter ON cell = quarter
            UNION ALL SELECT piece, {{sums}} FROM {{left_quarter:{rows}:started_at}} GROUP BY piece
        ) AS cells GROUP BY piece
"""  # noqa: S608 - made of constants


_DELAYS: Final = """
                SELECT piece, setup_ms, sum(n) AS n FROM (
                    SELECT piece, setup_ms, n FROM copy.delays JOIN whole_day ON cell = day
                    UNION ALL SELECT piece, setup_ms, 1 FROM {left_day:v_call_facts:started_at}
                    WHERE (answered = 1 OR ring_ms IS NOT NULL) AND setup_ms IS NOT NULL
                ) AS cells GROUP BY piece, setup_ms
            """
# Where a piece is whole days of one block, and nothing is left over, each party is in one row.
_ACTIVE: Final = """
        SELECT piece, sum(signed_in) AS signed_in, sum(active) AS active FROM (
            SELECT piece, sum(CASE WHEN signed & mask <> 0 THEN 1 ELSE 0 END) AS signed_in,
                sum(CASE WHEN active & mask <> 0 THEN 1 ELSE 0 END) AS active
            FROM copy.parties JOIN whole_blocks USING (block) WHERE alone GROUP BY piece
            UNION ALL SELECT piece, sum(signed_in), count(*) FROM (
                SELECT piece, party, max(signed_in) AS signed_in FROM (
                    SELECT piece, party, CASE WHEN signed & mask <> 0 THEN 1 ELSE 0 END AS signed_in
                    FROM copy.parties JOIN whole_blocks USING (block) WHERE NOT alone AND active & mask <> 0
                    UNION ALL SELECT piece, party, 1 FROM {left_day:sign_ins:at} WHERE outcome = 'bound'
                    UNION ALL SELECT piece, party, 1 FROM {left_day:sign_in_days:first_at}
                    UNION ALL SELECT piece, party, 1 FROM {left_day:sign_in_days:last_at}
                    UNION ALL SELECT piece, caller, 0 FROM {left_day:calls:started_at}
                    UNION ALL SELECT piece, callee, 0 FROM {left_day:calls:started_at} WHERE answered_at IS NOT NULL
                ) AS there WHERE party IS NOT NULL GROUP BY piece, party
            ) AS parties GROUP BY piece
        ) AS pieces GROUP BY piece HAVING sum(active) > 0
"""
_SUMMED: Final = {
    queries.OVERALL: _summed(queries.OVERALL, "v_call_facts"),
    queries.SESSIONS: _summed(queries.SESSIONS, "v_call_facts"),
    queries.FEATURES: _summed(queries.FEATURES, "v_call_facts"),
    queries.PLACED: _summed(queries.PLACED, "calls"),
}
BY_CELLS: Final = {
    **{query: summed.replace("{sums}", SUMS.of_rows) for query, summed in _SUMMED.items()},
    queries.DELAYS: queries.DELAYS.replace(queries.DELAYS_COUNTED, _DELAYS),
    queries.ACTIVE: _ACTIVE,
}
"""What is asked of the copy instead of these queries, where it is asked about all calls."""

TABLES: Final = (
    f"CREATE TABLE facts (quarter BIGINT, {', '.join(f'{name} BIGINT' for name in SUMS.columns)})",
    "CREATE TABLE delays (day BIGINT, setup_ms BIGINT, n BIGINT)",
    "CREATE TABLE parties (block BIGINT, party UBIGINT, signed UINTEGER, active UINTEGER)",
    # Days of ``delays`` and blocks of ``parties`` that have several rows of what should be one.
    "CREATE TABLE scattered (name VARCHAR, cell BIGINT)",
)

_BIT: Final = f"CAST(CAST(1 AS UINTEGER) << CAST(day % {BLOCK_DAYS} AS INTEGER) AS UINTEGER)"
_ALL_BITS: Final = (1 << 32) - 1


def _parties(who: str, *, signed: bool) -> tuple[str, ...]:
    """``who`` are rows of a time and a party."""
    there = f'SELECT "at" // {DAY_MS} - {_MONDAY} AS day, party FROM ({who}) AS who WHERE party IS NOT NULL'  # noqa: S608 - ours
    bits = f"bit_or({_BIT})"
    return (
        f"""INSERT INTO parties SELECT day // {BLOCK_DAYS}, party, {bits if signed else "0"}, {bits}
            FROM ({there}) AS there GROUP BY 1, 2""",  # noqa: S608 - ours
        f"INSERT INTO scattered SELECT DISTINCT 'parties', day // {BLOCK_DAYS} FROM ({there}) AS there",  # noqa: S608 - ours
    )


_OF_CALLS: Final = (
    f"INSERT INTO facts SELECT started_at // {QUARTER_MS}, {SUMS.of_rows} FROM {{rows}} AS some_rows GROUP BY 1",  # noqa: S608 - ours
    f"""INSERT INTO delays SELECT started_at // {DAY_MS}, setup_ms, count(*) FROM {{rows}} AS some_rows
        WHERE (answered = 1 OR ring_ms IS NOT NULL) AND setup_ms IS NOT NULL GROUP BY 1, 2""",  # noqa: S608 - ours
    f"INSERT INTO scattered SELECT DISTINCT 'delays', started_at // {DAY_MS} FROM {{rows}} AS some_rows",  # noqa: S608 - ours
)
_OF_PARTIES: Final = {
    "calls": _parties(
        'SELECT started_at AS "at", caller AS party FROM {rows} AS some_rows UNION ALL '
        "SELECT started_at, callee FROM {rows} AS some_rows WHERE answered_at IS NOT NULL",
        signed=False,
    ),
    "sign_ins": _parties("""SELECT "at", party FROM {rows} AS some_rows WHERE outcome = 'bound'""", signed=True),
    "sign_in_days": _parties(
        'SELECT first_at AS "at", party FROM {rows} AS some_rows UNION ALL '
        "SELECT last_at, party FROM {rows} AS some_rows",
        signed=True,
    ),
}
COUNTED: Final = frozenset(_OF_PARTIES)
"""The tables whose rows are counted in cells."""
_TIMES: Final = {"calls": ("started_at",), "sign_ins": ("at",), "sign_in_days": ("first_at", "last_at")}


def count(copy: duckdb.DuckDBPyConnection, table: str, rows: str) -> None:
    """Add rows of a table, the ones of the relation ``rows``, to the cells, as they are about to be in the copy."""
    for sql in (*(_OF_CALLS if table == "calls" else ()), *_OF_PARTIES[table]):
        copy.execute(sql.replace("{rows}", rows))


def days_of(copy: duckdb.DuckDBPyConnection, table: str, begin: int) -> list[int]:
    """The days that have something of the rows of a day, as their beginnings."""
    time = "day" if table == "sign_in_days" else _TIMES[table][0]
    each = " UNION ALL ".join(
        f'SELECT "{name}" // {DAY_MS} AS day FROM {table} '  # noqa: S608 - ours
        f'WHERE "{time}" >= {begin} AND "{time}" < {begin + DAY_MS} AND "{name}" IS NOT NULL'
        for name in _TIMES[table]
    )
    found = {day * DAY_MS for (day,) in copy.execute(f"SELECT DISTINCT day FROM ({each}) AS days").fetchall()}  # noqa: S608 - ours
    return sorted(found)


def count_again(copy: duckdb.DuckDBPyConnection, table: str, days: Sequence[int]) -> None:
    """Take what is not in a table any more out of the cells of these days, which are their beginnings.

    Of calls none of these days are there any more.
    """
    for begin in days:
        end = begin + DAY_MS
        if table == "calls":
            copy.execute(f"DELETE FROM facts WHERE quarter >= {begin // QUARTER_MS} AND quarter < {end // QUARTER_MS}")  # noqa: S608 - ours
            copy.execute(f"DELETE FROM delays WHERE day = {begin // DAY_MS}")  # noqa: S608 - ours
        block, bit = divmod(begin // DAY_MS - _MONDAY, BLOCK_DAYS)
        others = _ALL_BITS ^ 1 << bit
        copy.execute(f"UPDATE parties SET signed = signed & {others}, active = active & {others} WHERE block = {block}")  # noqa: S608 - ours
        for name, times in _TIMES.items():
            of_day = " OR ".join(f'("{time}" >= {begin} AND "{time}" < {end})' for time in times)
            rows = f"(SELECT * FROM {name} WHERE {of_day})"  # noqa: S608 - ours
            for sql in _OF_PARTIES[name]:
                copy.execute(sql.replace("{rows}", rows))


def gather(copy: duckdb.DuckDBPyConnection) -> None:
    """Join what was added piece by piece."""
    for (block,) in copy.execute("SELECT DISTINCT cell FROM scattered WHERE name = 'parties'").fetchall():
        _gather(copy, "parties", f"= {block}", "block, party, bit_or(signed), bit_or(active)")
    _gather(copy, "delays", "IN (SELECT cell FROM scattered WHERE name = 'delays')", "day, setup_ms, sum(n)")


def _gather(copy: duckdb.DuckDBPyConnection, table: str, which: str, columns: str) -> None:
    cell = columns.partition(",")[0]
    copy.execute("BEGIN")
    copy.execute(
        f"CREATE OR REPLACE TEMP TABLE gathered AS SELECT {columns} FROM {table} WHERE {cell} {which} GROUP BY 1, 2"  # noqa: S608 - ours
    )
    copy.execute(f"DELETE FROM {table} WHERE {cell} {which}")  # noqa: S608 - ours
    copy.execute(f"INSERT INTO {table} FROM gathered")
    copy.execute(f"DELETE FROM scattered WHERE name = '{table}' AND cell {which}")  # noqa: S608 - ours
    copy.execute("COMMIT")
    copy.execute("DROP TABLE gathered")


# ---- reading

GRAINS: Final = {"quarter": QUARTER_MS, "day": DAY_MS}
_MANY: Final = 16
"""So many stretches of time are said in a query; more are looked up."""


def whole_cells(grain: str) -> str:
    """The cells that lie in a piece whole."""
    cell = GRAINS[grain]
    return (
        f"CREATE OR REPLACE TEMP TABLE whole_{grain} AS SELECT "  # noqa: S608 - ours
        f"unnest(range((since + {cell - 1}) // {cell}, until // {cell})) AS cell, piece FROM pieces"
    )


def whole_blocks(least: int | None) -> str:
    """The days of each block that lie in a piece, as bits; ``least`` is the first time that the copy has not."""
    before = "" if least is None else f" AND until <= {least}"
    return f"""CREATE OR REPLACE TEMP TABLE whole_blocks AS
        SELECT block, piece, mask, since % {DAY_MS} = 0 AND until % {DAY_MS} = 0{before}
            AND count(*) OVER (PARTITION BY piece) = 1
            AND block NOT IN (SELECT cell FROM copy.scattered WHERE name = 'parties') AS alone
        FROM (
            SELECT day // {BLOCK_DAYS} AS block, piece, bit_or({_BIT}) AS mask
            FROM (SELECT cell - {_MONDAY} AS day, piece FROM whole_day) AS days GROUP BY 1, 2
        ) AS blocks JOIN pieces USING (piece)"""  # noqa: S608 - made of constants


def left_over(pieces: Sequence[tuple[int, int, int]], grain: str, time: str) -> str:
    """The condition that a time is in a piece, and not in a cell that lies in it whole."""
    cell = GRAINS[grain]
    spans: list[tuple[int, int]] = []
    for _, begin, end in pieces:
        first, last = begin + -begin % cell, end - end % cell
        for since, until in ((begin, first), (last, end)) if first <= last else ((begin, end),):
            if spans and since == spans[-1][1]:
                spans[-1] = spans[-1][0], until
            elif since < until:
                spans.append((since, until))
    if len(spans) > _MANY:
        return f"{time} // {cell} NOT IN (SELECT cell FROM whole_{grain})"  # noqa: S608 - ours
    return (
        " OR ".join(f"({time} >= {since} AND {time} < {until})" for since, until in spans if since < until) or "false"
    )
