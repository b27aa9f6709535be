"""How many calls are up, in DuckDB: the same as ``traffic.sweep`` finds, by a window over beginnings and ends."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING, Any, Final

from sipserver.analysis.traffic import QUARTER_MS

if TYPE_CHECKING:
    import duckdb

UP: Final = """
        WITH spans AS (
            -- What ended before {least} ended before the period, however uncertain it is: blocks are left out.
            SELECT greatest(answered_at, $from) AS began, ended_at AS ended,
                ended_at + coalesce(end_uncertainty_ms, 0) AS latest
            FROM calls WHERE answered_at < $to AND ended_at > {least}
                AND ended_at + coalesce(end_uncertainty_ms, 0) > $from {scope}
            UNION ALL
            SELECT greatest(answered_at, $from), greatest({known_until}, answered_at),
                greatest({known_until}, answered_at)
            FROM calls WHERE answered_at < $to AND ended_at IS NULL {scope}
        ), events AS (
            -- At the same moment ends come first: a call is up until just before its end.
            SELECT began AS moment, 1 AS kind, CASE WHEN ended > began THEN 1 ELSE 0 END AS sure, 1 AS most
            FROM spans WHERE latest > began
            UNION ALL SELECT ended, -1, -1, CASE WHEN latest > ended THEN 0 ELSE -1 END
            FROM spans WHERE ended > began AND ended < $to
            UNION ALL SELECT latest, -1, 0, -1 FROM spans WHERE latest > ended AND latest > began AND latest < $to
        ), in_cells AS (
            SELECT cell, until, moment, kind, sure, most
            FROM events JOIN units ON unit = moment // {unit} JOIN cells USING (cell)
            UNION ALL SELECT cell, until, since, 0, 0, 0 FROM cells
        ), running AS (
            SELECT cell, until, moment, kind, sure, most,
                sum(sure) OVER each_cell AS up, sum(most) OVER each_cell AS up_most
            FROM in_cells
            WINDOW each_cell AS (PARTITION BY cell ORDER BY moment, kind ROWS UNBOUNDED PRECEDING)
        ), by_cell AS (
            SELECT cell, any_value(until) AS until, sum(sure) AS sure, sum(most) AS most,
                sum(sure * (until - moment)) AS talk_ms, sum(most * (until - moment)) AS talk_most_ms,
                max(CASE WHEN kind >= 0 THEN up END) AS peak, max(CASE WHEN kind >= 0 THEN up_most END) AS peak_most
            FROM running GROUP BY cell
        ), carried AS (
            SELECT *, coalesce(sum(sure) OVER before, 0) AS up, coalesce(sum(most) OVER before, 0) AS up_most
            FROM by_cell WINDOW before AS (ORDER BY cell ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        )
        SELECT cell, since, up * (cells.until - since) + talk_ms AS talk_ms,
            up_most * (cells.until - since) + talk_most_ms AS talk_most_ms,
            up + peak AS peak, up_most + peak_most AS peak_most
        FROM carried JOIN cells USING (cell) ORDER BY cell
"""
"""Talk time and peaks of each cell: ``cells`` has them in order, ``units`` which of them a unit of time is in."""


def unit_of(edges: Sequence[int]) -> int:
    """The longest time, up to a quarter of an hour, that all of these moments are whole multiples of."""
    return gcd(QUARTER_MS, *edges)


def place_cells(connection: duckdb.DuckDBPyConnection, cells: Sequence[tuple[int, int]]) -> int:
    """Make the tables ``cells`` and ``units`` of cells that follow each other; the unit, in milliseconds."""
    unit = unit_of([begin for begin, _ in cells[1:]])
    connection.execute("CREATE OR REPLACE TEMP TABLE cells (cell BIGINT, since BIGINT, until BIGINT)")
    put(connection, "cells", [(number, *cell) for number, cell in enumerate(cells)])
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE units AS SELECT unnest(range(since // $unit, (until + $unit - 1) // $unit)) "
        "AS unit, cell FROM cells",
        {"unit": unit},
    )
    return unit


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert whole numbers, many at once."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        unnested = ", ".join("unnest(?)" for _ in columns)
        connection.execute(f"INSERT INTO {table} SELECT {unnested}", columns)
