"""The dictionary of the store, against the schema that there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from sipserver.analysis.dictionary import DICTIONARY
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store

DURATIONS = {"_ms": "in milliseconds", "_s": "in seconds"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.Connection]:
    with closing(open_store(tmp_path_factory.mktemp("empty") / "calls.db", MIGRATIONS)) as connection:
        yield connection


def test_every_table_and_view_is_described(store: sqlite.Connection) -> None:
    rows = store.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    assert {name for (name,) in rows if not name.startswith(("_", "sqlite_"))} == set(DICTIONARY)


@pytest.mark.parametrize("table", DICTIONARY)
def test_every_column_is_described(store: sqlite.Connection, table: str) -> None:
    columns = {row[1] for row in store.execute(f"PRAGMA table_info({table})")}
    assert columns == set(DICTIONARY[table].columns)
    for column, text in DICTIONARY[table].columns.items():
        assert len(text) >= 5, column
        assert "{" not in text, column
        unit = next((unit for end, unit in DURATIONS.items() if column.endswith(end)), "")
        assert unit.removeprefix("in ") in text, f"{table}.{column} says no unit"
