"""The tools that people test SIP servers with: sipsak and SIPp."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.ports import free_port
from support.server import ServerProcess

SCENARIOS = Path(__file__).resolve().parents[1] / "data" / "sipp"

StartServer = Callable[..., ServerProcess]

needs_sipsak = pytest.mark.skipif(
    shutil.which("sipsak") is None, reason="sipsak is not installed (Debian: apt install sipsak)"
)
needs_sipp = pytest.mark.skipif(
    shutil.which("sipp") is None, reason="SIPp is not installed (Debian: apt install sip-tester)"
)


@needs_sipsak
def test_sipsak_finds_the_server_alive(start_server: StartServer) -> None:
    # sipsak 0.9.8 drops the last of five digits from the port in such a Request-URI.
    server = start_server("alice", port=free_port(between=(5_100, 9_990)))
    command = ["sipsak", "-vv", "-s", f"sip:127.0.0.1:{server.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 OK" in done.stdout


@needs_sipsak
def test_sipsak_registers(start_server: StartServer) -> None:
    server = start_server("alice")
    command = [
        "sipsak", "-U", "-C", f"sip:alice@127.0.0.1:{free_port()}", "-u", "alice", "-a", "pwalice", "-x", "120",
        "-p", f"127.0.0.1:{server.port}", "-s", "sip:alice@example.test",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = server.rows("SELECT aor FROM bindings", store="location.db")
    assert row["aor"] == "alice@example.test"


@needs_sipp
@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_sipp_call_is_on_record(start_server: StartServer, tmp_path: Path, transport: str) -> None:
    server = start_server("alice", "bob")
    port = free_port()

    def sipp(scenario: str, *options: str) -> list[str]:
        return [
            "sipp", f"127.0.0.1:{server.port}", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", "127.0.0.1",
            "-m", "1", "-nostdin", "-timeout", "20", "-timeout_error", *options,
        ]  # fmt: skip

    def run(command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=40, cwd=tmp_path, check=False)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{server.log_text}"

    # The callee is reached where it registered from, so it registers and listens at one port.
    run(sipp("register", "-p", str(port), "-key", "user", "bob", "-au", "bob", "-ap", "pwbob"))
    with subprocess.Popen(
        sipp("callee", "-p", str(port)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as callee:
        caller = ("-key", "user", "alice", "-key", "callee", "bob", "-au", "alice", "-ap", "pwalice")
        run(sipp("caller", "-t", transport, "-p", str(free_port()), *caller))
        assert callee.wait(20) == 0
    (row,) = server.ended_calls()
    assert (row["outcome"], row["ended_by"], row["video"]) == ("answered", "caller", 1)
    assert row["caller_transport"] == ("UDP" if transport == "u1" else "TCP")
    assert abs(row["talk_ms"] - 500) < 150
    assert abs(row["ring_ms"] - 200) < 150
