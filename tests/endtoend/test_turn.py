"""TURN credentials from the command, and coturn that takes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port
from support.server import DOMAIN, sipserver

SECRET = "a-secret-of-this-test-alone"

pytestmark = pytest.mark.skipif(
    shutil.which("turnserver") is None or shutil.which("turnutils_uclient") is None,
    reason="coturn is not installed (Debian: apt install coturn)",
)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of a TURN server that shares SECRET."""
    port, first = free_port(), free_port(40)
    with (tmp_path / "coturn.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", f"--realm={DOMAIN}",
                "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}", "--no-tls", "--no-dtls",
                "--no-cli", "--allow-loopback-peers", f"--min-port={first}", f"--max-port={first + 39}",
                "--log-file=stdout", f"--pidfile={tmp_path / 'pid'}", f"--userdb={tmp_path / 'turndb'}",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        yield port
        process.kill()
        process.wait()


def allocates(port: int, username: str, password: str) -> bool:
    """Whether a client with these credentials gets an allocation and sends through it."""
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(
            ["turnutils_uclient", "-y", "-c", "-n", "2", "-u", username, "-w", password, "-p", str(port), "127.0.0.1"],
            check=False, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        if done.returncode == 0:
            return "Total lost packets 0" in done.stdout
        if "(401)" in done.stdout or "Unauthorized" in done.stdout or "Cannot complete Allocation" in done.stdout:
            return False
        # It may not listen yet.
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.1)


def test_coturn_takes_the_credentials_of_a_subscriber_and_no_others(tmp_path: Path, port: int) -> None:
    folder = tmp_path / "data"
    people = tmp_path / "people.csv"
    people.write_text(f"address,password\nalice@{DOMAIN},pwalice\n")
    sipserver("subscribers", "import", people, "--data-dir", folder)
    secret = folder / "turn.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config = tmp_path / "sipserver.toml"
    config.write_text(f'[turn]\nurls = ["turn:127.0.0.1:{port}"]\nttl = 600\n')
    made = json.loads(sipserver("turn-credentials", f"alice@{DOMAIN}", "--config", config, "--data-dir", folder))
    assert set(made) == {"urls", "username", "credential", "ttl"}
    assert made["urls"] == [f"turn:127.0.0.1:{port}"]
    assert made["ttl"] == 600
    assert "alice" not in made["username"]
    assert allocates(port, made["username"], made["credential"])
    assert not allocates(port, made["username"].replace("1", "2", 1), made["credential"])
