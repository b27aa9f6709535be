"""The step of the schema that brings quality reports and activity, to a store that has calls."""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database

from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.migrations import migrate, open_store

PARTY = "p_abcdefghijklmnop"


def test_store_of_the_first_version_is_upgraded_in_place(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    store = open_store(path, MIGRATIONS)
    # As the first version left it.
    database = Database(store)
    for view in ("v_quality", "v_activity", "activity_rows", "call_events"):
        database.execute(f"DROP VIEW {view}")
    database.execute("ALTER TABLE stored_events RENAME TO call_events")
    for table in ("quality_reports", "devices", "sign_in_days"):
        database.execute(f"DROP TABLE {table}")
    database.execute("DROP INDEX errors_party")
    database.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm003%' OR name LIKE 'm014%'")
    store.execute(
        "INSERT INTO calls (id, call_id, caller, started_at, ended_at, talk_ms) VALUES ('i', 'h', ?, 'a', 'b', 90000)",
        (PARTY,),
    )
    migrate(store, MIGRATIONS, path)
    row = store.execute("SELECT calls_begun, calls_ended, minutes, bytes FROM v_activity").fetchone()
    # Texts of 1, 1, 18, 1 and 1 characters, and a number.
    assert row == (1, 1, 1.5, 30)
    assert store.execute("SELECT count(*) FROM v_quality").fetchone() == (0,)
    store.close()
