"""A columnar copy of what reports read, beside the store: ten million calls in seconds.

``Copy`` is a source of figures like the views, and gives the same ones: the marks of calls are SQLite's, made when a
call is copied. It reads the file, which has what is settled, and from the store what the file does not have yet: calls
that go on or have just ended, and what came since it was made. So it is as true as the store is at the moment of the
report. (``columns_file`` has the file; ``columns_sync`` writes it.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from math import gcd, inf
from typing import TYPE_CHECKING, Any, Final

from sipserver.analysis import columns_cells
from sipserver.analysis.columns_schema import (
    CALLS,
    NOTHING,
    SET_FIELD,
    SET_LINE,
    SIGN_IN_DAYS,
    SIGN_INS,
    TABLES,
    VIEWS,
    Table,
)
from sipserver.analysis.columns_sweep import UP, place_cells, put
from sipserver.analysis.columns_sync import Lines, State, all_lines, json_list, load
from sipserver.analysis.periods import DAY_MS, Bucket, stamp
from sipserver.analysis.source import BRACES, pieces_explained, quoted
from sipserver.analysis.traffic import QUARTER_MS, Cell
from sipserver.analysis.views import Values
from sipserver.calls.errors import agent_rates
from sipserver.storage.database import sqlite

if TYPE_CHECKING:
    import duckdb

_NAMED: Final = re.compile(r"\$(\w+)")
_UPPER: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

MEDIA: Final = f"""
        SELECT split_part(one, '{SET_FIELD}', 1) AS kind,
            nullif(split_part(one, '{SET_FIELD}', 2), '{NOTHING}') AS codec,
            nullif(split_part(one, '{SET_FIELD}', 3), '{NOTHING}') AS resolution, sum(n) AS calls
        FROM (
            SELECT unnest(list_distinct(string_split(media, '{SET_LINE}'))) AS one, n FROM (
                SELECT media, count(*) AS n FROM v_call_facts
                WHERE started_at >= $from AND started_at < $to AND media IS NOT NULL {{scope}} GROUP BY media
            ) AS sets
        ) AS streams
        GROUP BY ALL ORDER BY kind, calls DESC, codec, resolution
"""  # noqa: S608 - made of constants
# Whether there is any later call within the time is whether the next one is. Both are in the same two hours, or the
# later one is in the next ones that the time reaches into: far fewer are compared than there are calls of the same two.
RETRIES: Final = """
        WITH attempts AS (
            SELECT caller, callee, started_at, ended_at, number, outcome FROM calls
            WHERE started_at >= $from AND started_at < $to AND answered_at IS NULL AND ended_at IS NOT NULL
                AND caller IS NOT NULL AND callee IS NOT NULL {scope}
        ), later AS (
            SELECT caller, callee, started_at, number, started_at // 7200000 AS part FROM calls
            WHERE started_at >= $from AND started_at < $after {scope}
        ), again AS (
            SELECT DISTINCT each_part.number FROM (
                SELECT *, unnest(range(started_at // 7200000, (ended_at + $within_ms) // 7200000 + 1)) AS part
                FROM attempts
            ) AS each_part JOIN later ON later.part = each_part.part
                AND later.caller = each_part.caller AND later.callee = each_part.callee
                AND later.started_at < each_part.ended_at + $within_ms
                AND (later.started_at > each_part.started_at
                    OR (later.started_at = each_part.started_at AND later.number > each_part.number))
        )
        SELECT outcome, count(*) AS calls, count(again.number) AS again
        FROM attempts LEFT JOIN again USING (number) GROUP BY outcome ORDER BY calls DESC, outcome
"""
_OVER: Final = """
        SELECT max(ended_at) FROM calls WHERE started_at >= $from AND started_at < $to AND answered_at IS NULL {scope}
"""
_AGENTS: Final = """
        CREATE TEMP TABLE agents AS SELECT DISTINCT name FROM (
            SELECT DISTINCT caller_agent AS name FROM calls UNION ALL SELECT DISTINCT callee_agent FROM calls
            UNION ALL SELECT DISTINCT agent FROM sign_ins UNION ALL SELECT DISTINCT agent FROM errors
            UNION ALL SELECT DISTINCT agent FROM quality_reports
        ) AS named WHERE name IS NOT NULL
"""
_PART_MS: Final = 7 * DAY_MS
# Both times of a row are in one piece but where one begins within its day.
_REFRESHED: Final = """UNION ALL SELECT piece, party, 1 FROM {cut:sign_in_days:first_at}
                UNION ALL SELECT piece, party, 1 FROM {cut:sign_in_days:last_at}
                WHERE first_at < $from OR day IN (SELECT day FROM cut_days)"""
_ACTIVITY: Final = """
        SELECT agent, sum(sign_ins) AS sign_ins, sum(calls) AS calls, sum(errors) AS errors FROM (
            SELECT agent, sum(count) AS sign_ins, 0 AS calls, 0 AS errors FROM sign_ins
            WHERE "at" >= $from AND "at" < $to AND agent IS NOT NULL GROUP BY agent
            UNION ALL SELECT caller_agent, 0, count(*), 0 FROM calls
            WHERE started_at >= $from AND started_at < $to AND caller_agent IS NOT NULL GROUP BY caller_agent
            UNION ALL SELECT callee_agent, 0, count(*), 0 FROM calls
            WHERE started_at >= $from AND started_at < $to AND callee_agent IS NOT NULL GROUP BY callee_agent
            UNION ALL SELECT agent, 0, 0, sum(count) FROM errors
            WHERE "at" >= $from AND "at" < $to GROUP BY agent
        ) AS each_kind GROUP BY agent
"""
_SECONDS: Final = """SELECT piece, count(*) AS n FROM {cut:calls:started_at} WHERE true {scope}
            GROUP BY piece, started_at // 1000"""
_KNOWN_SECONDS: Final = """SELECT piece, rate AS n
            FROM quarters JOIN piece_units ON unit = quarter * 900000 // $piece_unit
            WHERE quarter >= $whole // 900000 AND quarter < $live // 900000
            UNION ALL SELECT piece, count(*) AS n FROM {cut:calls:started_at}
            WHERE started_at < $whole OR started_at >= $live
            GROUP BY piece, started_at // 1000"""
_READ_AS: Final = {"sign_ins": r"(?:sign_ins|v_registration_attempts)"}
_SWEPT: Final = 20 * DAY_MS // QUARTER_MS
"""Cells that are counted at a time."""


class Copy:
    """The columnar copy, with what it lacks from the store.

    ``connection`` has it attached as ``copy``. ``store`` is in a transaction that began after the copy was written.
    """

    name = "the columnar copy of the store"

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: sqlite.Connection, state: State) -> None:
        self._connection = connection
        self._store = store
        self._state = state
        self._ready: set[str] = set()
        self._pieces: list[tuple[int, int, int]] = []
        self._unit = QUARTER_MS
        self._latest: int | None = None
        self._agents = False
        self._placed = False
        self.rest = 0
        """Rows that were read from the store."""
        self._need(CALLS)
        connection.execute("CREATE TEMP VIEW quarters AS FROM copy.quarters")
        (live,) = connection.execute(
            "SELECT min(since) FROM (SELECT min(started_at) AS since FROM rest_calls UNION ALL "
            "SELECT min(since) FROM copy.stale) AS changed"
        ).fetchone() or (None,)
        self._live: float = inf if live is None else live
        """From then on the quarters of an hour in the copy are not all that there is."""

    def read_rest(self) -> None:
        """Read what the copy lacks of every table, so that nothing is read of the store later."""
        for table in TABLES.values():
            self._need(table)

    def _need(self, table: Table) -> None:
        """Have a table as it is: the copy's, and the rest from the store."""
        if table.name in self._ready:
            return
        self._ready.add(table.name)
        rest = f"rest_{table.name}"
        self._connection.execute(table.create.replace(f"TABLE {table.name} ", f"TEMP TABLE {rest} "))
        at, _ = self._state.copied.get(table.name, (0, None))
        if table.by_day:
            self._rest(table, f'"{table.time}" >= ?', stamp(at)[:10])
        else:
            self._rest(table, "rowid > ?", at)
            waiting = self._state.waiting.get(table.name)
            if waiting:
                self._rest(table, "rowid IN (SELECT value FROM json_each(?))", json_list(waiting))
        self._connection.execute(f"CREATE TEMP VIEW {table.name} AS FROM copy.{table.name} UNION ALL FROM {rest}")
        for view in VIEWS.get(table.name, ()):
            self._connection.execute(f"CREATE TEMP VIEW {view}")

    def _rest(self, table: Table, where: str, value: Any) -> None:
        with closing(Lines()) as lines:
            all_lines(self._store, table, where, value, lines)
            if lines.rows:
                load(self._connection, table, lines, f"rest_{table.name}")
                self.rest += lines.rows

    def moment(self, at: int) -> int:
        """Times are milliseconds."""
        return at

    def day(self, at: int) -> int:
        """Days are their beginnings."""
        return at - at % DAY_MS

    def fill(self, sql: str, scope: str) -> str:
        """Rows of a piece are found by the unit of time that they are in; all calls are counted by cells."""
        if not scope:
            sql = columns_cells.BY_CELLS.get(sql, sql)

        def filled(match: re.Match[str]) -> str:
            what, first, second = match.groups()
            match what:
                case "scope":
                    return scope
                case "cut":
                    time = quoted(second)
                    if len(self._pieces) == 1:
                        return f"(SELECT 0 AS piece, * FROM {first} WHERE {time} >= $from AND {time} < $to) AS cut"  # noqa: S608 - ours
                    return (
                        f"{first} JOIN piece_units ON unit = {time} // $piece_unit AND {time} >= $from AND {time} < $to"
                    )
                case "seconds":
                    # The copy has it of all calls for each quarter of an hour.
                    known = not scope and not self._unit % QUARTER_MS
                    return self.fill(_KNOWN_SECONDS if known else _SECONDS, scope)
                case "upgraded":
                    return "upgraded = 1"
                case "refreshed":
                    return self.fill(_REFRESHED, scope)
                case "left_day" | "left_quarter":
                    return self._left(what.removeprefix("left_"), first, quoted(second))
            return match.group()

        return BRACES.sub(filled, sql)

    def _left(self, grain: str, name: str, time: str) -> str:
        """Rows of a piece that are in no cell of it: those at its edges, and those that the copy has not."""
        table = "calls" if name == "v_call_facts" else name
        self._need(TABLES[table])
        self._place_cells()
        over = " WHERE ended_at IS NOT NULL" if name == "v_call_facts" else ""
        rows = (
            f"SELECT * FROM copy.{table} WHERE {columns_cells.left_over(self._pieces, grain, time)} "  # noqa: S608 - ours
            f"UNION ALL FROM rest_{table}{over}"
        )
        if len(self._pieces) == 1:
            return (
                f"(SELECT 0 AS piece, * FROM ({rows}) AS together WHERE {time} >= $from AND {time} < $to) AS left_rows"  # noqa: S608 - ours
            )
        return (
            f"(SELECT * FROM ({rows}) AS together JOIN piece_units "  # noqa: S608 - ours
            f"ON unit = {time} // $piece_unit AND {time} >= $from AND {time} < $to) AS left_rows"
        )

    def _place_cells(self) -> None:
        """Make the tables that say which cells are in which piece."""
        if not self._placed:
            for sql in self._cells():
                self._connection.execute(sql)
            self._placed = True

    def _cells(self) -> list[str]:
        return [*map(columns_cells.whole_cells, columns_cells.GRAINS), columns_cells.whole_blocks(self._first_left())]

    def _first_left(self) -> int | None:
        """The time of the first row that the copy has not and that tells of a party."""
        for table in (CALLS, SIGN_INS, SIGN_IN_DAYS):
            self._need(table)
        (found,) = self._connection.execute(
            'SELECT min("at") FROM (SELECT min(started_at) AS "at" FROM rest_calls UNION ALL '
            'SELECT min("at") FROM rest_sign_ins UNION ALL '
            "SELECT min(least(first_at, last_at)) FROM rest_sign_in_days) AS times"
        ).fetchone() or (None,)
        return None if found is None else int(found)

    def cut(self, pieces: Sequence[Bucket]) -> None:
        """Every unit of time is in one piece; the first and the last one may begin and end within a unit."""
        found = [(number, each.begin, each.end) for number, each in enumerate(pieces)]
        if found == self._pieces:
            return
        self._pieces, self._placed = found, False
        edges = {edge for one, other in pairwise(pieces) for edge in (one.end, other.begin)}
        self._unit = gcd(DAY_MS, *edges)
        self._connection.execute("CREATE OR REPLACE TEMP TABLE pieces (piece BIGINT, since BIGINT, until BIGINT)")
        put(self._connection, "pieces", found)
        self._connection.execute(_PIECE_UNITS.replace("$unit", str(self._unit)))
        self._connection.execute("CREATE OR REPLACE TEMP TABLE cut_days (day BIGINT)")
        put(self._connection, "cut_days", [(edge - edge % DAY_MS,) for edge in sorted(edges) if edge % DAY_MS])

    def has(self, column: str, parameter: str) -> str:
        """As SQLite, which knows the case of ASCII letters only; of each agent once, since there are few."""
        if not self._agents:
            self._agents = True
            for table in TABLES.values():
                self._need(table)
            self._connection.execute(_AGENTS)
        lowered = f"translate({{}}, '{_UPPER}', '{_UPPER.lower()}')"
        found = f"instr({lowered.format('name')}, {lowered.format(f'${parameter}')}) > 0"
        return f"{column} IN (SELECT name FROM agents WHERE {found})"  # noqa: S608 - of ours

    def ask(self, sql: str, values: Values) -> tuple[list[str], list[tuple[Any, ...]]]:
        """As DuckDB finds them."""
        for table in TABLES.values():
            if re.search(rf"\b{_READ_AS.get(table.name, table.name)}\b", sql):
                self._need(table)
        known = self._more(values)
        cursor = self._connection.execute(sql, {name: known[name] for name in _NAMED.findall(sql)})
        return [column[0] for column in cursor.description], cursor.fetchall()

    def _more(self, values: Values) -> Values:
        whole = values["from"] + -values["from"] % QUARTER_MS
        live = int(min(values["to"], self._live))
        return {**values, "piece_unit": self._unit, "whole": whole, "live": max(whole, live - live % QUARTER_MS)}

    def media(self) -> str:
        """Calls with the same streams are counted together."""
        return MEDIA

    def retries(self, scope: str, values: Values) -> tuple[str, list[Values]]:
        """By any later call; a few days at a time, so that what is compared has room in memory."""
        sql = self.fill(RETRIES, scope)
        counts: dict[str | None, list[int]] = {}
        for begin in range(values["from"], values["to"], _PART_MS):
            part = {**values, "from": begin, "to": min(begin + _PART_MS, values["to"])}
            _, ((over,),) = self.ask(self.fill(_OVER, scope), part)
            if over is not None:
                part["after"] = min(values["after"], over + values["within_ms"])
                for outcome, calls, again in self.ask(sql, part)[1]:
                    count = counts.setdefault(outcome, [0, 0])
                    count[0] += calls
                    count[1] += again
        rows = sorted(counts.items(), key=lambda each: (-each[1][0], each[0] or ""))
        return RETRIES, [{"outcome": outcome, "calls": calls, "again": again} for outcome, (calls, again) in rows]

    def error_rates(self, begin: int, end: int) -> list[Values]:
        """Agents are taken apart where they always are, in the store."""
        _, rows = self.ask(_ACTIVITY, {"from": begin, "to": end})
        return agent_rates(self._store, rows)

    def sweep(
        self, found: list[Cell], scope: str, values: Values, known_until: int, progress: Callable[[int], None]
    ) -> Sequence[str]:
        """From the quarters of an hour that the copy has; those of some calls, and the last ones, call by call."""
        made: list[str] = []
        asked = {name: value for name, value in values.items() if name in _NAMED.findall(scope)}
        known = [] if scope else [cell for cell in found if self._is_known(cell)]
        if known:
            made.append(_QUARTERS)
            rows = self._connection.execute(_QUARTERS, {"from": known[0].begin, "to": known[-1].end})
            by_quarter = {quarter: row for quarter, *row in rows.fetchall()}
            for cell in known:
                cell.talk_ms, cell.talk_most_ms, cell.peak, cell.peak_most = by_quarter.get(
                    cell.begin // QUARTER_MS, (0, 0, 0, 0)
                )
            progress(sum(cell.end - cell.begin for cell in known))
        done = {cell.begin for cell in known}
        for cells in _runs([cell for cell in found if cell.begin not in done]):
            unit = place_cells(self._connection, [(cell.begin, cell.end) for cell in cells])
            begin, end = cells[0].begin, cells[-1].end
            up = UP.format(scope=scope, unit=unit, known_until=known_until, least=begin - self._uncertain())
            rows = self._connection.execute(up, {**asked, "from": begin, "to": end})
            # Which differ in what blocks they leave out.
            made[len(known) > 0 :] = [up]
            for cell, (_, _, *figures) in zip(cells, rows.fetchall(), strict=True):
                cell.talk_ms, cell.talk_most_ms, cell.peak, cell.peak_most = figures
            progress(end - begin)
        return made

    def _uncertain(self) -> int:
        """How long after its end any call may have lasted, in milliseconds."""
        if self._latest is None:
            row = self._connection.execute("SELECT coalesce(max(end_uncertainty_ms), 0) FROM calls").fetchone()
            self._latest = int(row[0]) if row else 0
        return self._latest

    def _is_known(self, cell: Cell) -> bool:
        return not cell.begin % QUARTER_MS and cell.end - cell.begin == QUARTER_MS and cell.end <= self._live

    def explained(self) -> str:
        """The pieces that queries join, and what stands for a piece of the period."""
        pieces = pieces_explained(self._pieces, "BIGINT")
        made = [_PIECE_UNITS.replace("$unit", str(self._unit)), *(self._cells() if self._placed else ())]
        return "\n".join((pieces, *(f"{sql};" for sql in made))) if pieces else ""


_PIECE_UNITS: Final = (
    "CREATE OR REPLACE TEMP TABLE piece_units AS SELECT "
    "unnest(range(since // $unit, (until + $unit - 1) // $unit)) AS unit, piece FROM pieces"
)
_QUARTERS: Final = """
        SELECT quarter, talk_ms, talk_most_ms, peak, peak_most FROM quarters
        WHERE quarter >= $from // 900000 AND quarter < $to // 900000
"""


def _runs(cells: list[Cell]) -> Iterator[list[Cell]]:
    """Cells that follow each other, not too many at a time."""
    run: list[Cell] = []
    for cell in cells:
        if run and (run[-1].end != cell.begin or len(run) >= _SWEPT):
            yield run
            run = []
        run.append(cell)
    if run:
        yield run
