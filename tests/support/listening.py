"""The server process with other domains and listeners than most tests want."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from support.ports import free_port
from support.server import DOMAIN, ServerProcess, environment


class ListeningServer(ServerProcess):
    """A ``ServerProcess`` that serves these domains at these addresses; ``{port}`` in one is ``self.port``."""

    def __init__(
        self,
        folder: Path,
        users: Iterable[str] = (),
        *,
        config: str = "",
        domains: tuple[str, ...] = (DOMAIN,),
        listen: tuple[str, ...] = ("udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}"),
    ) -> None:
        super().__init__(folder, users, config=config, port=free_port())
        self.domains = domains
        self.listen = tuple(each.format(port=self.port) for each in listen)

    def start(self) -> None:
        """Start, and wait until it serves."""
        command = [
            sys.executable, "-m", "sipserver", "serve", "--config", str(self.configuration),
            "--data-dir", str(self.data_dir),
        ]  # fmt: skip
        for domain in self.domains:
            command += ["--domain", domain]
        for address in self.listen:
            command += ["--listen", address]
        self.events.clear()
        self._errors = self.folder / "stderr"
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait("server.ready", timeout=60.0)
