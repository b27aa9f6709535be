from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipserver.storage.batch import MANY, MOST_ROWS, MOST_VALUES, BatchStatement
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


def items(connection: sqlite.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT id, name FROM item ORDER BY id").fetchall()


def statements_run(connection: CountingConnection, statement: BatchStatement, rows: list[tuple[object, ...]]) -> int:
    statement.prepare(connection)
    before = connection.executed
    statement.run(connection, rows)
    return connection.executed - before


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 200])
def test_every_row_is_inserted_once(connection: sqlite.Connection, count: int) -> None:
    BatchStatement(INSERT).run(connection, [(number, f"n{number}") for number in range(count)])
    assert items(connection) == [(number, f"n{number}") for number in range(count)]


def test_many_rows_are_few_statements(connection: CountingConnection) -> None:
    rows: list[tuple[object, ...]] = [(number, "x") for number in range(MOST_ROWS + 3)]
    assert statements_run(connection, BatchStatement(INSERT), rows) == 3


def test_rows_of_one_key_are_taken_in_their_order(connection: sqlite.Connection) -> None:
    BatchStatement(UPSERT).run(connection, [(1, "a"), (2, "x"), (1, "b"), (1, "c")])
    assert items(connection) == [(1, "abc"), (2, "x")]


def test_null_is_null(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE maybe (id INTEGER PRIMARY KEY, name TEXT, size REAL, number INTEGER) STRICT")
    rows = [(number, None, None, None) for number in range(3)]
    BatchStatement("INSERT INTO maybe VALUES (?, ?, ?, ?)").run(connection, rows)
    assert connection.execute("SELECT * FROM maybe").fetchall() == rows
    connection.execute("UPDATE maybe SET name = 'a', size = 1.5, number = 7")
    update = BatchStatement("UPDATE maybe SET name = ?, size = coalesce(?, size), number = ? WHERE id = ?")
    statements_run(connection, update, [(None, None, None, 1)])
    assert connection.execute("SELECT * FROM maybe WHERE id = 1").fetchall() == [(1, None, 1.5, None)]
    with pytest.raises(sqlite.IntegrityError):
        BatchStatement(INSERT).run(connection, [(9, None)])


def test_numbers_among_the_values_are_repeated_with_them(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE counted (id INTEGER, count INTEGER, name TEXT) STRICT")
    insert = BatchStatement("INSERT INTO counted VALUES (?, 1, ?)")
    assert statements_run(connection, insert, [(1, "a"), (2, "b")]) == 1
    assert connection.execute("SELECT * FROM counted").fetchall() == [(1, 1, "a"), (2, 1, "b")]


def test_insert_without_parameters_runs_for_each_row(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE ticks (one INTEGER) STRICT")
    BatchStatement("INSERT INTO ticks VALUES (1)").run(connection, [(), ()])
    assert connection.execute("SELECT sum(one) FROM ticks").fetchone() == (2,)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("UPDATE item SET name = ? WHERE id = ?", [("z", 1), ("b", 2), ("a", 1)]),
        ("UPDATE OR IGNORE item SET name = ? WHERE id = ?", [("z", 1), ("b", 2), (None, 2), ("a", 1)]),
        (f"{INSERT} ON CONFLICT (id) DO UPDATE SET name = ?", [(1, "", "a"), (2, "", "b")]),
        ("INSERT OR REPLACE INTO item (id, name) VALUES (?, lower(?))", [(1, "A"), (2, "B")]),
        ("DELETE FROM item WHERE name = ? OR id = ?", [("", 3), ("", 4)]),
    ],
)
def test_what_cannot_be_repeated_runs_for_each_row_of_a_view(
    connection: CountingConnection, sql: str, rows: list[tuple[object, ...]]
) -> None:
    BatchStatement(INSERT).run(connection, [(1, "a"), (2, "b"), (3, "c"), (4, "d")])
    many = rows * MANY
    assert statements_run(connection, BatchStatement(sql), many) < len(many) / 4
    assert items(connection)[:2] == [(1, "a"), (2, "b")]
    assert len(items(connection)) == 4 - 2 * sql.startswith("DELETE")


def test_few_rows_take_no_detour_through_a_view(connection: CountingConnection) -> None:
    BatchStatement(INSERT).run(connection, [(1, "a")])
    rows: list[tuple[object, ...]] = [(str(number), 1) for number in range(MANY - 1)]
    assert statements_run(connection, BatchStatement("UPDATE item SET name = ? WHERE id = ?"), rows) == len(rows)
    assert items(connection) == [(1, str(MANY - 2))]


@pytest.mark.parametrize("before", [0, MANY])
def test_a_row_of_a_view_that_cannot_be_written_is_told(connection: CountingConnection, before: int) -> None:
    BatchStatement(INSERT).run(connection, [(1, "a"), (2, "b")])
    update = BatchStatement("UPDATE item SET name = ? WHERE id = ?")
    connection.execute("BEGIN")
    with pytest.raises(sqlite.IntegrityError, match="NOT NULL"):
        statements_run(connection, update, [*[("x", 1)] * before, (None, 2), *[("x", 1)] * MANY])
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert items(connection) == [(1, "a"), (2, "b")]


def test_triggers_of_the_table_run_for_each_row_of_a_view(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE changes (id INTEGER PRIMARY KEY, times INTEGER) STRICT")
    connection.execute("""CREATE TRIGGER changed AFTER UPDATE OF name ON item BEGIN
        INSERT INTO changes VALUES (NEW.id, 1) ON CONFLICT (id) DO UPDATE SET times = times + 1; END""")
    BatchStatement(INSERT).run(connection, [(1, "a"), (2, "b")])
    update = BatchStatement("UPDATE item SET name = ? WHERE id = ?")
    statements_run(connection, update, [("x", 1), ("y", 2), ("z", 1)] * MANY)
    assert connection.execute("SELECT * FROM changes").fetchall() == [(1, 2 * MANY), (2, MANY)]


def test_values_reach_the_table_through_the_view_as_they_are(connection: CountingConnection) -> None:
    connection.execute("CREATE TABLE any (id INTEGER PRIMARY KEY, value ANY) STRICT")
    values = [1, 2**40, 1.5, "7", "text", b"bytes", None] * 3
    assert len(values) >= MANY
    BatchStatement("INSERT INTO any VALUES (?, 0)").run(connection, [(each,) for each in range(len(values))])
    update = BatchStatement("UPDATE any SET value = ? WHERE id = ?")
    statements_run(connection, update, [(value, number) for number, value in enumerate(values)])
    assert [row for (row,) in connection.execute("SELECT value FROM any ORDER BY id")] == values


def test_short_and_long_rows_do_not_make_up_for_each_other(connection: sqlite.Connection) -> None:
    with pytest.raises(ValueError, match="wrong length"):
        BatchStatement(INSERT).run(connection, [(1,), (2, "x", 3, "y")])
    assert items(connection) == []


def test_wide_rows_stay_below_the_bound_on_parameters(connection: CountingConnection) -> None:
    columns = 900
    names = ", ".join(f"c{number}" for number in range(columns))
    connection.execute(f"CREATE TABLE wide ({names})")
    statement = BatchStatement(f"INSERT INTO wide VALUES ({', '.join('?' * columns)})")
    rows: list[tuple[object, ...]] = [tuple(range(columns))] * MOST_ROWS
    assert MOST_ROWS * columns > MOST_VALUES
    assert statements_run(connection, statement, rows) == 4
    assert connection.execute("SELECT count(*) FROM wide").fetchone() == (MOST_ROWS,)
