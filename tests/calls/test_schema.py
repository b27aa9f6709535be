"""The contract of calls.db: names that analysts rely on."""

from __future__ import annotations

from pathlib import Path

from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store
from support.calls import Store

CONTRACT = {
    "calls": """id call_id caller callee started_at ringing_at answered_at confirmed_at ended_at setup_ms ring_ms
        talk_ms outcome sip_status reason ended_by end_cause end_uncertainty_ms video content encrypted video_ms
        caller_country
        caller_region caller_site caller_location_source callee_country callee_region callee_site
        callee_location_source
        caller_agent callee_agent caller_transport callee_transport devices node""",
    "call_branches": "call branch tried_at ringing_at answered_at ended_at status outcome agent",
    "call_media": """call kind codec direction bandwidth resolution level from_at to_at
        profile encryption held_by branch early""",
    "call_links": "call other kind at",
    "call_events": "call at kind",
    "sign_ins": "at party outcome agent transport network country region site location_source",
    "errors": "at kind method status agent party detail count",
    "server_runs": "node started_at last_alive_at stopped_at",
    "v_calls": "started outcome talk id",
    "v_errors": "kind count id",
    "v_sign_ins": "party outcome id",
}


def test_tables_and_views_have_the_columns_of_the_contract(store: Store) -> None:
    for table, names in CONTRACT.items():
        found = {row[1] for row in store.connection.execute(f"PRAGMA table_info({table})")}
        assert set(names.split()) <= found, table


def test_every_table_is_strict(store: Store) -> None:
    tables = store.connection.execute("PRAGMA table_list").fetchall()
    ours = [row for row in tables if row[1] in CONTRACT and row[2] == "table"]
    assert len(ours) == 7
    assert all(row[5] == 1 for row in ours)


def test_what_belongs_to_a_call_goes_with_it(store: Store) -> None:
    execute = store.connection.execute
    execute("INSERT INTO calls (id, call_id, started_at) VALUES ('c', 'h', 't')")
    execute("INSERT INTO stored_events (call, number, at, kind) VALUES ('c', 1, 't', 'placed')")
    execute("DELETE FROM calls")
    assert execute("SELECT count(*) FROM call_events").fetchone() == (0,)


def test_store_of_before_keeps_its_media(tmp_path: Path) -> None:
    connection = sqlite.connect(tmp_path / "calls.db", isolation_level=None)
    MIGRATIONS.apply(connection, stop_before=["m005_media"])
    connection.execute("INSERT INTO calls (id, call_id, started_at) VALUES ('c', 'h', 't')")
    connection.execute(
        "INSERT INTO call_media (call, number, stream, kind, accepted, from_at) VALUES ('c', 1, 0, 'audio', 1, 't')"
    )
    connection.close()
    connection = open_store(tmp_path / "calls.db", MIGRATIONS)
    found = connection.execute("SELECT kind, branch, early, held_by, profile, encryption FROM call_media").fetchall()
    assert [tuple(row) for row in found] == [("audio", None, 0, None, None, None)]
    connection.close()
