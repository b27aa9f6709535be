"""``sipserver check`` on the stores of servers that run, stopped, or were killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import connect
from sipserver.storage.migrations import transaction
from support.endpoint import Endpoint
from support.ports import free_port
from support.server import ServerProcess, environment

StartServer = Callable[..., ServerProcess]


def check(server: ServerProcess, ports: str = "--no-ports") -> tuple[int, dict[str, str]]:
    """The exit code, and what was found by what it is about; the states of all are in the former."""
    command = [
        sys.executable, "-m", "sipserver", "check", "--config", str(server.configuration), "--data-dir",
        str(server.data_dir), "--json", ports,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stderr == ""
    rows = json.loads(done.stdout)
    assert (done.returncode == 0) == all(row["state"] == "ok" for row in rows), rows
    return done.returncode, {row["what"]: row["detail"] for row in rows}


def samples(port: int) -> list[str]:
    """The lines of the metrics page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return [str(line) for line in answer.read().decode().splitlines()]


async def test_store_is_whole_live_at_rest_and_after_a_kill(start_server: StartServer) -> None:
    page = free_port()
    server = start_server("alice", "bob", config=f'[metrics]\nlisten = "127.0.0.1:{page}"\n')
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        for _ in range(3):
            _, dialog = await endpoint.invite("alice", "bob")
            await endpoint.bye(dialog)
        await endpoint.invite("alice", "nobody")
        await endpoint.invite("alice", "bob")
        server.wait_for_rows("SELECT * FROM calls WHERE confirmed_at IS NOT NULL", lambda rows: len(rows) == 4)
        code, found = check(server, "--ports")
        assert (code, found["ports"]) == (0, "not tried, since the server runs")
        assert found["server"].startswith("runs, last heard of at ")
        assert found["calls"] == "5 calls in 1 run of the server: 4 closed, 1 open; nothing is missing"
        assert found["calls.db"].startswith("can be read, schema version ")
        # Past a heartbeat, so that there is something that a killed run has counted.
        server.wait_for_rows("SELECT * FROM server_runs WHERE placed = 5", bool)
        lines = await asyncio.to_thread(samples, page)
        assert {"sipserver_calls_unaccounted 0.0", "sipserver_calls_waiting 0.0", "sipserver_calls_open 1.0",
            "sipserver_calls_stored_total 5.0", "sipserver_calls_placed_total 5.0"} <= set(lines)  # fmt: skip
        server.kill()
    with closing(connect(server.data_dir / "calls.db")) as store:
        # A heartbeat is fresh for half a minute; this is how it looks after that.
        store.execute("UPDATE server_runs SET last_alive_at = '2026-11-24T00:00:00.000Z'")
    code, found = check(server)
    assert code == 0
    left = "the next start closes the 1 call that it left open"
    assert found["server"] == f"does not run, was killed after 2026-11-24T00:00:00.000Z; {left}"
    server.start()
    assert server.stop() == 0
    code, found = check(server)
    recovered = "5 closed, 1 of them by a restart, 0 open; nothing is missing"
    assert (code, found["calls"]) == (0, f"5 calls in 2 runs of the server, 1 of them killed: {recovered}")
    assert found["server"].startswith("does not run, stopped in order at ")
    assert [row["state"] for row in server.rows("SELECT state FROM v_runs")] == ["killed", "stopped"]


async def test_store_of_the_first_version_is_upgraded_by_a_start(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server", ("alice", "bob"))
    (server.data_dir / "calls.db").unlink()
    with closing(connect(server.data_dir / "calls.db")) as store, transaction(store):
        MIGRATIONS.apply(store, stop_before=MIGRATIONS.steps[1:])
        store.execute(
            """INSERT INTO server_runs (id, started_at, last_alive_at)
            VALUES ('r', '2026-11-23T20:00:00.000Z', '2026-11-23T21:30:00.000Z')"""
        )
        store.execute("INSERT INTO calls (id, call_id, started_at) VALUES ('c', 'h', '2026-11-23T21:00:00.000Z')")
        store.execute(
            "INSERT INTO call_events (call, number, at, kind) VALUES ('c', 1, '2026-11-23T21:00:00.000Z', 'placed')"
        )
    code, found = check(server)
    assert code == 0
    assert found["calls.db"].startswith("can be read, schema version 1 (m001_calls); the next start adds ")
    with server:
        async with Endpoint(server.port) as endpoint:
            await endpoint.register("bob")
            _, dialog = await endpoint.invite("alice", "bob")
            await endpoint.bye(dialog)
        server.ended_calls(2)
    code, found = check(server)
    assert code == 0, found
    assert found["calls"].startswith("2 calls in 2 runs of the server, 1 of them killed: 2 closed, 1 of them by")


async def test_missing_and_altered_rows_are_found(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        for _ in range(3):
            _, dialog = await endpoint.invite("alice", "bob")
            await endpoint.bye(dialog)
    server.ended_calls(3)
    assert server.stop() == 0
    assert check(server)[0] == 0
    with closing(connect(server.data_dir / "calls.db")) as store:
        store.execute("DELETE FROM calls WHERE rowid = 2")
    code, found = check(server)
    assert code == 1
    assert "counted 3 calls" in found["calls"]
    assert found["calls"].endswith("and 2 of its rows say so") or found["calls"].endswith("has 2 rows of calls")


async def test_damaged_file_is_found(start_server: StartServer) -> None:
    server = start_server("alice")
    async with Endpoint(server.port) as endpoint:
        for number in range(30):
            await endpoint.invite("alice", f"nobody{number}")
    assert server.stop() == 0
    path: Path = server.data_dir / "calls.db"
    with closing(connect(path)) as store:
        (root,) = store.execute("SELECT rootpage FROM sqlite_master WHERE name = 'stored_events'").fetchone()
        (size,) = store.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    code, found = check(server)
    assert code == 1
    assert "the file is damaged" in found["calls"] or "cannot be read to its end" in found["calls"]
