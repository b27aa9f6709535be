"""The server as an operator meets it: starts, stops, what it says when it cannot, what changes while it runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sipserver.location.rows import to_row
from sipserver.location.schema import UPSERT
from sipserver.storage.database import connect
from support.endpoint import Endpoint
from support.location import NOW, binding
from support.ports import free_port
from support.server import DOMAIN, ServerProcess, environment, sipserver

StartServer = Callable[..., ServerProcess]


def serve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    command = [sys.executable, "-m", "sipserver", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30, check=False)


def test_ready_line_is_the_first_and_names_the_listeners(start_server: StartServer) -> None:
    server = start_server("alice")
    assert server.events[0]["event"] == "server.ready"
    assert server.events[0]["listen"] == [f"udp:127.0.0.1:{server.port}", f"tcp:127.0.0.1:{server.port}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_closes_everything_and_exits_0(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server("alice")
    server.process.send_signal(number)
    assert server.process.wait(20) == 0
    server.wait("server.stopped")
    assert not list(server.data_dir.glob("*-wal"))
    assert server.rows("SELECT stopped_at FROM server_runs")[0]["stopped_at"] is not None


def test_stop_while_very_much_is_still_read_is_as_orderly(start_server: StartServer) -> None:
    server = start_server("alice")
    server.stop()
    lasts = time.time() - NOW + 3600
    many = (binding(aor=f"user{number}@{DOMAIN}", lasts=lasts) for number in range(60_000))
    with closing(connect(server.data_dir / "location.db")) as connection:
        connection.execute("BEGIN")
        connection.executemany(UPSERT, map(to_row, many))
        connection.execute("COMMIT")
    # In about every second stop the store was closed under a query.
    for _ in range(5):
        server.start()
        assert server.stop() == 0
        server.wait("server.stopped")


def test_first_start_makes_stores_for_the_server_alone(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server")
    shutil.rmtree(server.data_dir)
    with server:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server.data_dir.iterdir()}
    assert modes["secret.key"] == modes["accounts.db"] == modes["location.db"] == 0o600
    assert modes["calls.db"] == 0o640


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_port_in_use_is_one_clear_sentence(tmp_path: Path, transport: str) -> None:
    port = free_port()
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        done = serve("--listen", f"{transport}:127.0.0.1:{port}", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{transport}:127.0.0.1:{port}" in line
    assert "in use" in line


def test_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = serve("--listen", "udp:127.0.0.1:0", "--data-dir", tmp_path / "file" / "data")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "file" / "data") in line


def test_lost_key_is_one_clear_sentence(start_server: StartServer) -> None:
    server = start_server("alice")
    server.stop()
    (server.data_dir / "secret.key").unlink()
    done = serve("--listen", "udp:127.0.0.1:0", "--data-dir", server.data_dir)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "secret.key is gone" in line


def test_wrong_configuration_exits_2(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[server]\nlisten = ["quic:127.0.0.1:1"]\n')
    done = serve("--config", file)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'sipserver: {file}: server.listen[1]: "quic:127.0.0.1:1" is not allowed; wanted is ')


async def test_change_of_subscribers_is_in_force_within_two_seconds(start_server: StartServer) -> None:
    server = start_server("alice")
    data = ("--data-dir", str(server.data_dir))

    async def status_becomes(status: int, user: str) -> None:
        deadline = time.monotonic() + 2
        while (await endpoint.register(user)).status != status:
            assert time.monotonic() < deadline, f"{user} is not answered {status}\n{server.log_text}"
            await asyncio.sleep(0.1)

    async with Endpoint(server.port) as endpoint:
        assert (await endpoint.register("alice")).status == 200
        assert (await endpoint.register("bob")).status == 401
        await asyncio.to_thread(
            sipserver, "subscribers", "add", f"bob@{DOMAIN}", "--password-stdin", *data, text="pwbob\n"
        )
        await status_becomes(200, "bob")
        await asyncio.to_thread(sipserver, "subscribers", "disable", f"bob@{DOMAIN}", *data)
        await status_becomes(401, "bob")
        await asyncio.to_thread(sipserver, "subscribers", "enable", f"bob@{DOMAIN}", *data)
        await status_becomes(200, "bob")
        await asyncio.to_thread(sipserver, "subscribers", "remove", f"bob@{DOMAIN}", *data)
        await status_becomes(401, "bob")


async def test_removed_binding_is_gone_within_two_seconds(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    data = ("--data-dir", str(server.data_dir))
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        (row,) = json.loads(await asyncio.to_thread(sipserver, "bindings", "list", "--json", *data))
        assert row["address"] == f"bob@{DOMAIN}"
        assert row["contact"] == f"sip:bob@127.0.0.1:{endpoint.port}"
        assert 3590 < row["expires_in"] <= 3600
        assert (await endpoint.invite("alice", "bob"))[0].status == 200
        printed = await asyncio.to_thread(sipserver, "bindings", "remove", f"bob@{DOMAIN}", *data)
        assert printed == f"sip:bob@127.0.0.1:{endpoint.port} removed\n"
        deadline = time.monotonic() + 2
        while (await endpoint.invite("alice", "bob"))[0].status != 480:
            assert time.monotonic() < deadline, server.log_text
            await asyncio.sleep(0.1)


async def test_bindings_survive_a_restart(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        assert server.stop() == 0
        server.start()
        assert server.events[0]["bindings"] == 1
        assert (await endpoint.invite("alice", "bob"))[0].status == 200


async def test_sighup_reloads_the_configuration(start_server: StartServer) -> None:
    server = start_server("alice", config="[registrar]\nmin_expires = 60\n")
    async with Endpoint(server.port) as endpoint:
        assert (await endpoint.register("alice", expires=30)).status == 423
        server.configuration.write_text("[registrar]\nmin_expires = 10\n")
        server.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait, "config.reloaded")
        assert (await endpoint.register("alice", expires=30)).status == 200
        server.configuration.write_text("[registrar]\nmin_expires = 0\n")
        server.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait, "config.rejected")
        assert (await endpoint.register("alice", expires=30)).status == 200


async def test_party_ids_stand_for_addresses_in_the_log_when_asked_for(start_server: StartServer) -> None:
    server = start_server("alice", "bob", config='[log]\naddresses = "party"\n')
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        _, dialog = await endpoint.invite("alice", "bob")
        await endpoint.bye(dialog)
        await endpoint.invite("alice", "nobody")
        placed = await asyncio.to_thread(server.wait, "call.placed", caller=server.party("alice"))
        assert placed["callee"] == server.party("bob")
    assert server.stop() == 0
    text = server.log_text
    assert "alice" not in text
    assert "bob" not in text


async def test_no_secret_is_ever_logged(start_server: StartServer) -> None:
    server = start_server("alice", config='[log]\nlevel = "debug"\n')
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("alice")
        endpoint.passwords["alice"] = "wrong"
        assert (await endpoint.register("alice")).status == 401
    server.stop()
    text = server.log_text
    assert "pwalice" not in text
    assert "nonce" not in text
    assert "Digest" not in text


async def test_calls_are_followed_as_they_happen(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    following = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sipserver", "calls", "follow", "--data-dir", str(server.data_dir),
        stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip

    async def line_with(text: str) -> str:
        assert following.stdout is not None
        while text not in (line := (await following.stdout.readline()).decode()):
            assert line, "it ended"
        return line

    async with asyncio.timeout(20), Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        _, dialog = await endpoint.invite("alice", "bob")
        # It may have looked while the phone was ringing, too.
        assert "alice@example.test -> bob@example.test" in await line_with("  answered  ")
        await endpoint.bye(dialog)
        assert "alice@example.test -> bob@example.test  answered" in await line_with("  ended  ")
        following.send_signal(signal.SIGINT)
        assert await following.wait() == 0


async def test_metrics_are_served_where_configured(start_server: StartServer) -> None:
    port = free_port()
    server = start_server("alice", config=f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("alice")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    assert " 200 OK" in page
    assert "\nsipserver_" in page
