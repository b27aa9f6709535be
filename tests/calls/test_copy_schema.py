"""Changes out of turn are noted, and the writing of a server pays nothing for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sipserver.calls import activity, delays, quality, recorder
from sipserver.calls.copy_schema import WATCHED
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store

STATEMENTS = (*recorder.STATEMENTS, *activity.STATEMENTS, *quality.STATEMENTS, delays.STATEMENT)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.Connection]:
    connection = open_store(tmp_path_factory.mktemp("store") / "calls.db", MIGRATIONS)
    yield connection
    connection.close()


def changed(store: sqlite.Connection) -> list[tuple[str, str, int]]:
    return store.execute("SELECT name, day, times FROM changed_days").fetchall()


def test_no_statement_of_a_server_runs_a_trigger(store: sqlite.Connection) -> None:
    def runs_a_trigger(text: str) -> bool:
        program = store.execute(f"EXPLAIN {text}", [None] * text.count("?")).fetchall()
        return any(row[1] == "Program" for row in program)

    assert not any(map(runs_a_trigger, STATEMENTS))
    for table, (time, _) in WATCHED.items():
        assert runs_a_trigger(f"UPDATE {table} SET {time} = ?")


def test_rows_deleted_or_changed_are_counted_by_their_day(store: sqlite.Connection) -> None:
    for number, day in enumerate((1, 1, 2)):
        store.execute(
            "INSERT INTO calls (id, call_id, started_at, caller) VALUES (?, 'h', ?, 'p')",
            (f"{number}", f"2026-11-0{day}T00:00:00.000Z"),
        )
    assert changed(store) == []
    store.execute("UPDATE calls SET caller = NULL WHERE id = '2'")
    assert changed(store) == [("calls", "2026-11-02", 2)]
    store.execute("DELETE FROM calls")
    assert changed(store) == [("calls", "2026-11-01", 2), ("calls", "2026-11-02", 3)]


def test_stores_are_told_apart(store: sqlite.Connection, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = open_store(tmp_path_factory.mktemp("other") / "calls.db", MIGRATIONS)
    ids = [each.execute("SELECT id FROM store_identity").fetchall() for each in (store, other)]
    other.close()
    assert ids[0] != ids[1]
    assert len(ids[0]) == 1
