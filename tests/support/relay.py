"""rtpengine on loopback, as a process of the test's own; skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

from sipserver.transport.ng import ask_once
from support.ports import free_port


class Rtpengine:
    """The relay; it takes its ports from a range of its own. Use with ``with``."""

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", *, port: int = 0, ports: tuple[int, int] = (0, 0), also: str = ""
    ) -> None:
        """``also`` is another address for media, of the other IP version."""
        self.program = shutil.which("rtpengine") or shutil.which("rtpengine-daemon")
        if self.program is None:
            pytest.skip("rtpengine is not installed")
        self.folder = folder
        self.host = host
        self.addresses = [host, also] if also else [host]
        self.port = port or free_port()
        """Of the ng protocol."""
        # Each worker of the tests has a range that no other has, below those that the system gives out.
        first = 10_000 + 200 * (os.getpid() % 100)
        self.ports = ports if ports[0] else (first, first + 199)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """For ``[media] relay``."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert self.program is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        first, last = self.ports
        with (self.folder / "rtpengine.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.program, "--config-file=none", "--table=-1",
                    *(f"--interface={address}" for address in self.addresses), f"--listen-ng={self.address}",
                    f"--port-min={first}", f"--port-max={last}", "--foreground", "--log-stderr", "--log-level=6",
                    "--num-threads=2", "--timeout=60",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 10
        while self.ask("ping") is None:
            assert self.process.poll() is None, f"rtpengine ended: {self.log()}"
            assert time.monotonic() < deadline, f"rtpengine does not answer: {self.log()}"

    def kill(self) -> None:
        """End it without a word to anybody."""
        self.process.kill()
        self.process.wait()

    def ask(self, command: str, **fields: Any) -> dict[str, Any] | None:
        """Put a command to it."""
        return ask_once(self.host, self.port, {"command": command, **fields}, 0.2)

    def calls(self) -> list[str]:
        """The Call-IDs of its sessions."""
        answer = self.ask("list")
        return [each.decode() for each in (answer or {}).get("calls", [])]

    def packets(self, call: str) -> int:
        """RTP packets that it passed on in this session so far."""
        answer = self.ask("query", **{"call-id": call}) or {}
        return int(answer.get("totals", {}).get("RTP", {}).get("packets", 0))

    def log(self) -> str:
        """The end of what it logged."""
        return (self.folder / "rtpengine.log").read_text("utf-8", "replace")[-3000:]
