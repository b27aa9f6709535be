from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipserver.storage.batch import MOST_ROWS, MOST_VALUES, BatchStatement
from sipserver.storage.database import sqlite

INSERT = "INSERT INTO item (id, name) VALUES (?, ?)"
UPSERT = INSERT + " ON CONFLICT (id) DO UPDATE SET name = item.name || excluded.name"


class CountingConnection(sqlite.Connection):
    executed = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite.Cursor:
        self.executed += 1
        return super().execute(sql, parameters)

    def executemany(self, sql: str, rows: Any, /) -> sqlite.Cursor:
        rows = list(rows)
        self.executed += len(rows)
        return super().executemany(sql, rows)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[CountingConnection]:
    connection = sqlite.connect(tmp_path / "items.db", isolation_level=None, factory=CountingConnection)
    connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT")
    yield connection
    connection.close()


def prepared(connection: sqlite.Connection, sql: str, number: int = 0) -> BatchStatement:
    statement = BatchStatement(sql, number)
    statement.prepare(connection)
    return statement


def items(connection: sqlite.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT id, name FROM item ORDER BY id").fetchall()


def statements_run(connection: CountingConnection, statement: BatchStatement, rows: list[tuple[object, ...]]) -> int:
    before = connection.executed
    statement.run(connection, rows)
    return connection.executed - before


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 200])
def test_every_row_is_inserted_once(connection: sqlite.Connection, count: int) -> None:
    prepared(connection, INSERT).run(connection, [(number, f"n{number}") for number in range(count)])
    assert items(connection) == [(number, f"n{number}") for number in range(count)]


def test_many_rows_are_few_statements(connection: CountingConnection) -> None:
    rows: list[tuple[object, ...]] = [(number, "x") for number in range(MOST_ROWS + 3)]
    assert statements_run(connection, prepared(connection, INSERT), rows) == 3


def test_rows_of_one_key_are_taken_in_their_order(connection: sqlite.Connection) -> None:
    prepared(connection, UPSERT).run(connection, [(1, "a"), (2, "x"), (1, "b"), (1, "c")])
    assert items(connection) == [(1, "abc"), (2, "x")]


def test_numbers_among_the_values_are_repeated_with_them(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE counted (id INTEGER, count INTEGER, name TEXT) STRICT")
    insert = prepared(connection, "INSERT INTO counted VALUES (?, 1, ?)")
    assert statements_run(connection, insert, [(1, "a"), (2, "b")]) == 1
    assert connection.execute("SELECT * FROM counted").fetchall() == [(1, 1, "a"), (2, 1, "b")]


def test_insert_without_parameters_runs_for_each_row(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE ticks (one INTEGER) STRICT")
    prepared(connection, "INSERT INTO ticks VALUES (1)").run(connection, [(), ()])
    assert connection.execute("SELECT sum(one) FROM ticks").fetchone() == (2,)


def test_changes_of_many_rows_are_one_statement_and_keep_their_order(connection: CountingConnection) -> None:
    prepared(connection, INSERT).run(connection, [(number, "x") for number in range(6)])
    update = prepared(connection, "UPDATE item SET name = name || ? || '?' WHERE id = ?", 1)
    delete = prepared(connection, "delete from item where id = ? and name = ?", 2)
    assert statements_run(connection, update, [("a", 1), ("b", 2), ("c", 1), ("d", 77)]) == 1
    assert statements_run(connection, delete, [(0, "x"), (2, "x"), (3, "other"), (4, "x")]) == 1
    assert items(connection) == [(1, "xa?c?"), (2, "xb?"), (3, "x"), (5, "x")]


def test_change_keeps_the_type_of_each_value(connection: sqlite.Connection) -> None:
    connection.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, a ANY) STRICT")
    values: list[object] = [1, 1.5, "1", b"1", None]
    prepared(connection, "INSERT INTO kept (id, a) VALUES (?, 'old')").run(connection, [(n,) for n in range(5)])
    prepared(connection, "UPDATE kept SET a = ? WHERE id = ?", 1).run(
        connection, [(value, number) for number, value in enumerate(values)]
    )
    stored = [value for (value,) in connection.execute("SELECT a FROM kept ORDER BY id")]
    assert [(type(value), value) for value in stored] == [(type(value), value) for value in values]


def test_change_that_breaks_a_rule_raises_as_it_would_alone(connection: sqlite.Connection) -> None:
    prepared(connection, INSERT).run(connection, [(1, "x"), (2, "x")])
    update = prepared(connection, "UPDATE item SET name = ? WHERE id = ?", 1)
    with pytest.raises(sqlite.IntegrityError, match="NOT NULL"):
        update.run(connection, [("a", 1), (None, 2)])


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH v AS (SELECT ? AS n, ? AS i) UPDATE item SET name = n FROM v WHERE id = i", [("a", 1), ("b", 2)]),
        ("UPDATE item SET name = char(96 + id)", [(), ()]),
        ("UPDATE item SET name = iif(?2 = 1, ?1, 'b') WHERE id = ?2", [("a", 1), ("b", 2)]),
        (f"{INSERT} ON CONFLICT (id) DO UPDATE SET name = ?", [(1, "", "a"), (2, "", "b")]),
        ("INSERT OR REPLACE INTO item (id, name) VALUES (?, lower(?))", [(1, "A"), (2, "B")]),
    ],
)
def test_what_cannot_be_repeated_runs_for_each_row(
    connection: sqlite.Connection, sql: str, rows: list[tuple[object, ...]]
) -> None:
    prepared(connection, INSERT).run(connection, [(1, "x"), (2, "x")])
    prepared(connection, sql).run(connection, rows)
    assert items(connection) == [(1, "a"), (2, "b")]


def test_short_and_long_rows_do_not_make_up_for_each_other(connection: sqlite.Connection) -> None:
    with pytest.raises(ValueError, match="wrong length"):
        prepared(connection, INSERT).run(connection, [(1,), (2, "x", 3, "y")])
    assert items(connection) == []


def test_wide_rows_stay_below_the_bound_on_parameters(connection: CountingConnection) -> None:
    columns = 900
    names = ", ".join(f"c{number}" for number in range(columns))
    connection.execute(f"CREATE TABLE wide ({names})")
    statement = prepared(connection, f"INSERT INTO wide VALUES ({', '.join('?' * columns)})")
    rows: list[tuple[object, ...]] = [tuple(range(columns))] * MOST_ROWS
    assert MOST_ROWS * columns > MOST_VALUES
    assert statements_run(connection, statement, rows) == 4
    assert connection.execute("SELECT count(*) FROM wide").fetchone() == (MOST_ROWS,)
