"""The disk does not do what it should: no false 200, no silent loss, and calls go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sipserver.storage.database import sqlite
from support.endpoint import Endpoint
from support.ports import free_port
from support.server import ServerProcess, environment

StartServer = Callable[..., ServerProcess]


@contextmanager
def locked(path: Path, mode: str) -> Iterator[None]:
    """Another process' transaction that does not end."""
    connection = sqlite.connect(path, timeout=10, isolation_level=None)
    try:
        connection.execute(f"BEGIN {mode}")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def metrics(port: int) -> dict[str, float]:
    """Every sample of the metrics page by its name and labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    lines = [line.rpartition(" ") for line in page.splitlines() if line.startswith("sipserver_")]
    return {name: float(value) for name, _, value in lines}


def failures(server: ServerProcess, store: str) -> int:
    """How often the log says that this store fails."""
    return sum(1 for event in server.events if event["event"] == "store.failing" and event["store"] == store)


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
async def test_registrations_are_refused_while_their_store_is_locked(start_server: StartServer, mode: str) -> None:
    page = free_port()
    server = start_server("alice", "bob", config=f'[metrics]\nlisten = "127.0.0.1:{page}"\n')
    async with Endpoint(server.port) as endpoint:
        with locked(server.data_dir / "location.db", mode):
            before = time.monotonic()
            answers = [await endpoint.register("alice") for _ in range(3)]
            assert time.monotonic() - before < 3
            assert [answer.status for answer in answers] == [503] * 3
            assert all(answer.header("retry-after") == "5" for answer in answers)
            # A call to who is not registered finds nobody: no binding was made.
            assert (await endpoint.invite("bob", "alice"))[0].status == 480
            await asyncio.to_thread(server.wait, "store.failing", store="location.db")
            assert (await metrics(page))['sipserver_store_failing{store="location"}'] == 1
        assert (await endpoint.register("alice")).status == 200
        await asyncio.to_thread(server.wait, "store.recovered", store="location.db")
        assert (await metrics(page))['sipserver_store_failing{store="location"}'] == 0
    assert failures(server, "location.db") == 1
    assert len(server.rows("SELECT * FROM bindings", store="location.db")) == 1
    assert [row["outcome"] for row in server.rows("SELECT outcome FROM sign_ins WHERE status = 503")] == ["refused"]
    found = server.rows("SELECT method, status, detail FROM errors WHERE kind = 'store' ORDER BY method")
    assert [tuple(row.values()) for row in found] == [
        (None, None, "location.db is failing"), ("REGISTER", 503, "Registration cannot be stored")
    ]  # fmt: skip


async def test_existing_bindings_outlive_the_failure(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        assert (await endpoint.register("bob")).status == 200
        with locked(server.data_dir / "location.db", "IMMEDIATE"):
            assert (await endpoint.register("bob", expires=0)).status == 503
            assert (await endpoint.invite("alice", "bob"))[0].status == 200
        assert (await endpoint.register("bob", expires=0)).status == 200
        assert (await endpoint.invite("alice", "bob"))[0].status == 480


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
async def test_calls_go_on_while_their_store_is_locked_and_are_recorded_after(
    start_server: StartServer, mode: str
) -> None:
    page = free_port()
    server = start_server("alice", "bob", config=f'[metrics]\nlisten = "127.0.0.1:{page}"\n')
    talked = []
    async with Endpoint(server.port) as endpoint:
        assert (await endpoint.register("bob")).status == 200
        with locked(server.data_dir / "calls.db", mode):
            for number in range(3):
                before = time.monotonic()
                answer, dialog = await endpoint.invite("alice", "bob")
                assert answer.status == 200
                # Two answers wait for the disk, 200 ms each at most; afterwards it is known to fail.
                assert time.monotonic() - before < (1.0 if number == 0 else 0.5)
                began = time.monotonic()
                assert (await endpoint.bye(dialog)).status == 200
                talked.append(time.monotonic() - began)
            await asyncio.to_thread(server.wait, "store.failing", store="calls.db")
            sample = await metrics(page)
            assert sample['sipserver_store_failing{store="calls"}'] == 1
            assert sample['sipserver_store_rows_waiting{store="calls"}'] > 0
            assert sample["sipserver_answers_late_total"] > 0
            # Registrations have a store of their own.
            assert (await endpoint.register("alice")).status == 200
        rows = await asyncio.to_thread(server.ended_calls, 3)
        await asyncio.to_thread(server.wait, "store.recovered", store="calls.db")
    assert [(row["outcome"], row["end_cause"]) for row in rows] == [("answered", "bye")] * 3
    for row, truth in zip(rows, talked, strict=True):
        # The answer was held back for 200 ms at most, and talk counts from when it came.
        assert -20 <= row["talk_ms"] - 1000 * truth <= 350
    assert failures(server, "calls.db") == 1


async def test_what_waits_for_the_store_is_written_by_an_orderly_stop(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        with locked(server.data_dir / "calls.db", "IMMEDIATE"):
            _, dialog = await endpoint.invite("alice", "bob")
            assert (await endpoint.bye(dialog)).status == 200
            await asyncio.to_thread(server.wait, "store.failing", store="calls.db")
            server.process.terminate()
            await asyncio.to_thread(server.wait, "server.stopping")
        assert await asyncio.to_thread(server.process.wait, 20) == 0
    (row,) = server.ended_calls()
    assert (row["outcome"], row["end_cause"]) == ("answered", "bye")


def serve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    command = [sys.executable, "-m", "sipserver", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30, check=False)


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a start that fails says, which is all that it says."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("sipserver: ")
    return line


def test_metrics_port_in_use_is_one_clear_sentence(tmp_path: Path, start_server: StartServer) -> None:
    page = free_port()
    start_server("alice", config=f'[metrics]\nlisten = "127.0.0.1:{page}"\n')
    file = tmp_path / "second.toml"
    file.write_text(f'[server]\ndata_dir = "{tmp_path}/second"\n[metrics]\nlisten = "127.0.0.1:{page}"\n')
    line = one_sentence(serve("--config", file, "--listen", "udp:127.0.0.1:0"))
    assert f"Cannot serve metrics on 127.0.0.1:{page}: Address already in use." in line


@pytest.mark.parametrize("store", ["calls.db", "location.db", "accounts.db"])
def test_file_that_is_no_store_is_one_clear_sentence(tmp_path: Path, store: str) -> None:
    (tmp_path / store).write_bytes(b"this is no database" * 300)
    line = one_sentence(serve("--listen", "udp:127.0.0.1:0", "--data-dir", tmp_path))
    assert str(tmp_path / store) in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = one_sentence(serve("--listen", "udp:127.0.0.1:0", "--data-dir", tmp_path))
    assert f"{tmp_path} cannot be written" in line


def test_key_of_another_server_is_one_clear_sentence(start_server: StartServer) -> None:
    server = start_server("alice")
    server.stop()
    (server.data_dir / "secret.key").write_text("00" * 32 + "\n")
    done = serve("--listen", "udp:127.0.0.1:0", "--data-dir", server.data_dir)
    assert "key" in one_sentence(done)


def test_key_that_is_none_is_one_clear_sentence(start_server: StartServer) -> None:
    server = start_server("alice")
    server.stop()
    (server.data_dir / "secret.key").write_text("not a key\n")
    done = serve("--listen", "udp:127.0.0.1:0", "--data-dir", server.data_dir)
    assert "secret.key must hold keys" in one_sentence(done)


def test_faults_of_a_configuration_are_told_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[proxy]\ninbound = "everyone"\n[registrar]\nmin_expire = 60\n')
    done = serve("--config", file)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'sipserver: {file}: proxy.inbound: "everyone" is not allowed; wanted is one of "anyone", "nobody", "peers"',
        *[line for line in done.stderr.splitlines()[1:] if "registrar.min_expire" in line],
    ]
    assert "did you mean min_expires?" in done.stderr
