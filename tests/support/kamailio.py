"""Kamailio as the proxy of another domain: one endpoint behind it, and a server of ours for everything else."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from support.ports import free_port

NOT_THERE = "kamailio is not installed (Debian: kamailio)"
MODULES = ("tm", "sl", "rr", "pv", "textops", "siputils", "maxfwd")


def is_there() -> bool:
    """Whether it is installed."""
    return shutil.which("kamailio") is not None


class Kamailio:
    """One process tree on 127.0.0.1, UDP and TCP. Use with ``with``."""

    def __init__(self, folder: Path, domain: str, endpoint: int, elsewhere: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._log = folder / "kamailio.log"
        self._config = folder / "kamailio.cfg"
        self._config.write_text(_config(self.port, domain, f"sip:127.0.0.1:{endpoint}", elsewhere))

    def __enter__(self) -> Self:
        command: list[str | Path] = [
            "kamailio", "-f", self._config, "-DD", "-E", "-m", "32", "-M", "4", "-Y", self.folder, "-w", self.folder,
            "-P", self.folder / "pid",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not self._listens():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    @property
    def log(self) -> str:
        """What it said, for messages of failed tests."""
        return self._log.read_text(errors="replace")[-4000:]


def _config(port: int, domain: str, endpoint: str, elsewhere: str) -> str:
    loads = "\n".join(f'loadmodule "{each}.so"' for each in MODULES)
    return f"""#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
auto_aliases=no
alias="{domain}"
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
{loads}
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) t_relay();
        else if (is_method("ACK") && t_check_trans()) t_relay();
        else sl_send_reply("404", "Not Here");
        exit;
    }}
    record_route();
    if (uri == myself) $du = "{endpoint}";
    else $du = "{elsewhere}";
    t_relay();
}}
"""
