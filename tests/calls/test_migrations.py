"""Stores of earlier versions, brought up to date with all that is in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.calls.recovery import last_call, recover
from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.verify import verify
from sipserver.storage.database import StoreError, connect, sqlite
from sipserver.storage.migrations import open_store, transaction, version_of
from support.calls import T

FIRST = "m001_calls"


def first_version(path: Path, calls: int = 3) -> None:
    """A store as the first version made it, with calls, a timeline, errors and a run."""
    connection = connect(path)
    with transaction(connection):
        MIGRATIONS.apply(connection, stop_before=[step for step in MIGRATIONS.steps if step != FIRST])
        connection.executemany(
            """INSERT INTO calls (id, call_id, caller, started_at, ended_at, answered_at, talk_ms, outcome, ended_by,
                end_cause, caller_agent)
            VALUES (?, 'h', 'p_a', '2026-11-23T21:00:00.000Z', '2026-11-23T21:00:41.250Z', '2026-11-23T21:00:01.250Z',
                40000, 'answered', 'caller', 'bye', 'Acme-Phone/5.1.2 (x; y)')""",
            [(f"c{number}",) for number in range(calls)],
        )
        for number, kind in enumerate(("placed", "answered", "ended"), 1):
            connection.execute(
                """INSERT INTO call_events (call, number, at, kind)
                SELECT id, ?, '2026-11-23T21:00:00.000Z', ? FROM calls""",
                (number, kind),
            )
        connection.execute(
            """INSERT INTO errors (id, at, kind, method, status, agent, count, last_at)
            VALUES ('e', '2026-11-23T21:00:00.000Z', 'malformed', 'INVITE', 400, 'Acme-Phone/5.1.2', 7,
                '2026-11-23T21:00:09.000Z')"""
        )
        connection.execute(
            """INSERT INTO server_runs (id, started_at, last_alive_at)
            VALUES ('r', '2026-11-23T20:00:00.000Z', '2026-11-23T21:30:00.000Z')"""
        )
    connection.close()


def columns(connection: sqlite.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def test_first_version_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    first_version(path)
    connection = open_store(path, MIGRATIONS)
    assert version_of(connection, MIGRATIONS, path).pending == []
    assert connection.execute("SELECT count(*), sum(talk_ms) FROM calls").fetchone() == (3, 120_000)
    assert connection.execute("SELECT kind, count, call, target FROM v_errors").fetchall() == [
        ("malformed", 7, None, None)
    ]
    assert {"calls_before", "placed", "recovered"} <= columns(connection, "server_runs")
    assert [sentence for found in verify(connection) for sentence in found] == []
    rates = connection.execute("SELECT product, version, calls, errors FROM v_error_rates").fetchall()
    assert rates == [("Acme-Phone", "5.1.2", 3, 7)]
    connection.close()


def test_run_of_the_first_version_is_told_to_have_been_killed(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    first_version(path)
    connection = open_store(path, MIGRATIONS)
    recover(connection, T)
    assert last_call(connection) == 3
    assert connection.execute("SELECT state FROM v_runs").fetchall() == [("killed",)]
    connection.close()


def test_upgrade_touches_no_row(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    first_version(path, 5_000)
    connection = connect(path)
    before = connection.total_changes
    with transaction(connection):
        MIGRATIONS.apply(connection)
    assert connection.total_changes - before <= 10 * len(MIGRATIONS.steps)
    connection.close()


def test_upgrade_that_is_killed_half_way_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    first_version(path)
    program = f"""
import os, signal
from pathlib import Path
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.migrations import open_store

@MIGRATIONS()
def m999_dies(database):
    database.execute("UPDATE calls SET talk_ms = 0")
    os.kill(os.getpid(), signal.SIGKILL)

open_store(Path({str(path)!r}), MIGRATIONS)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    connection = connect(path)
    version = version_of(connection, MIGRATIONS, path)
    assert version.applied == [FIRST]
    assert "call" not in columns(connection, "errors")
    assert connection.execute("SELECT sum(talk_ms) FROM calls").fetchone() == (120_000,)
    connection.close()
    open_store(path, MIGRATIONS).close()


def test_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    connection = open_store(path, MIGRATIONS)
    connection.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('calls', 'm999', 'x')")
    connection.close()
    for readonly in (False, True):
        with pytest.raises(StoreError, match=r"written by a later version of sipserver \(schema step m999\)"):
            open_store(path, MIGRATIONS, readonly=readonly)
