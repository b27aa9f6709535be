from __future__ import annotations

from pathlib import Path

import pytest
from sqlite_utils import Database

from sipserver.storage.database import StoreError, connect, sqlite
from sipserver.storage.migrations import Migrations, migrate, open_store, transaction, version_of


def steps(*names: str) -> Migrations:
    migrations = Migrations("test")
    for name in names:

        def step(database: Database, table: str = name) -> None:
            database.execute(f"CREATE TABLE {table} (a INTEGER) STRICT")

        migrations(name=name)(step)
    return migrations


def tables(connection: sqlite.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'"
    return {name for (name,) in connection.execute(query)}


def test_each_lacking_step_runs_once(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", steps("one")).close()
    connection = open_store(tmp_path / "a.db", steps("one", "two", "three"))
    assert tables(connection) == {"one", "two", "three"}
    connection.close()


def test_step_that_fails_leaves_the_file_at_its_version(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", steps("zero")).close()
    migrations = steps("zero", "one")

    @migrations()
    def two(database: Database) -> None:
        database.execute("CREATE TABLE two (a INTEGER) STRICT")
        database.execute("CREATE TABLE one (a INTEGER) STRICT")

    connection = connect(tmp_path / "a.db")
    with pytest.raises(StoreError, match=r"a\.db: table one already exists"):
        migrate(connection, migrations, tmp_path / "a.db")
    assert tables(connection) == {"zero"}
    assert not connection.in_transaction
    version = version_of(connection, migrations, tmp_path / "a.db")
    assert (version.applied, version.pending, str(version)) == (["zero"], ["one", "two"], "schema version 1 (zero)")
    connection.close()
    open_store(tmp_path / "a.db", steps("zero"), readonly=True).close()


def test_later_version_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", steps("one", "two")).close()
    for readonly in (False, True):
        with pytest.raises(StoreError, match=r"a\.db was written by a later version of sipserver \(schema step two\)"):
            open_store(tmp_path / "a.db", steps("one"), readonly=readonly)


def test_earlier_version_is_refused_by_a_reader(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", steps("one")).close()
    with pytest.raises(StoreError, match=r"a\.db has an earlier schema"):
        open_store(tmp_path / "a.db", steps("one", "two"), readonly=True)


def test_reader_opens_the_current_schema(tmp_path: Path) -> None:
    open_store(tmp_path / "a.db", steps("one")).close()
    connection = open_store(tmp_path / "a.db", steps("one"), readonly=True)
    assert tables(connection) == {"one"}
    connection.close()


def test_store_locked_by_another_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    other = connect(path)
    other.execute("CREATE TABLE x (a)")
    other.execute("BEGIN IMMEDIATE")
    connection = connect(path, busy_timeout=0.01)
    with pytest.raises(StoreError, match="locked"):
        migrate(connection, steps("one"), path)
    connection.close()
    other.close()


def test_steps_are_in_order() -> None:
    assert steps("b", "a", "c").steps == ["b", "a", "c"]


def test_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    connection = open_store(tmp_path / "a.db", steps("one"))

    def fail() -> None:
        with transaction(connection):
            connection.execute("INSERT INTO one VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with transaction(connection):
        connection.execute("INSERT INTO one VALUES (2)")
    assert connection.execute("SELECT a FROM one").fetchall() == [(2,)]
    connection.close()


def test_transaction_reports_the_error_that_ended_it(tmp_path: Path) -> None:
    connection = open_store(tmp_path / "a.db", steps("one"))

    def fail() -> None:
        with transaction(connection):
            connection.execute("ROLLBACK")
            connection.execute("INSERT INTO one VALUES ('text')")

    with pytest.raises(sqlite.IntegrityError):
        fail()
    connection.close()


def test_a_step_is_defined_once() -> None:
    with pytest.raises(ValueError, match="There is a step a already"):
        steps("a", "a")
