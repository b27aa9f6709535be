"""The systems that are measured: each is started with the same people, and says what it kept on disk."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

DOMAIN = "bench.test"
PEOPLE = 10_000
SYSTEMS = ("sipserver", "kamailio-durable", "kamailio-memory")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """What cannot be measured, and why: a sentence."""


def person(number: int) -> str:
    """The user part of a subscriber; the password is ``pw`` and this."""
    return f"room{number:05d}"


_COMMAND = (sys.executable, "-P", "-m", "sipserver")


class System(ABC):
    """One server on 127.0.0.1 while it is measured."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers. Raises BenchError."""

    @abstractmethod
    def kept(self) -> dict[str, int]:
        """Bindings and records of answered calls on disk, to be asked once it has stopped."""

    def stop(self) -> None:
        """In order; killed where that takes more than 20 s."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def processor_time(self) -> tuple[float, float]:
        """Seconds that all of its processes have spent so far: in their own code, and in the kernel for them."""
        user = kernel = 0
        for stat in _stats(self._root()):
            user += int(stat[11])
            kernel += int(stat[12])
        return user / _TICK, kernel / _TICK

    def memory(self) -> float:
        """MiB that it holds, shared pages counted once."""
        total = 0
        for pid in _tree(self._root()):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024

    def resident(self) -> float:
        """MiB of its first process that are in memory; as cheap as it can be asked."""
        return int(Path(f"/proc/{self._root()}/statm").read_text().split()[1]) * _PAGE / 1024 / 1024

    def _root(self) -> int:
        if self.process is None or self.process.poll() is not None:
            raise BenchError(f"{self.name} has ended; its log is in {self.folder}")
        return self.process.pid

    def _spawn(self, command: list[str | Path], log: IO[bytes]) -> None:
        self.process = subprocess.Popen(command, stdout=log, stderr=log)


class Sipserver(System):
    """This server as it is installed beside the running Python, with its defaults."""

    wrapper: tuple[str, ...] = ()
    """What its Python is started by."""
    patience = 30.0
    """Seconds until it has to be ready."""
    configuration = ""
    """What its configuration file says."""

    def start(self) -> None:
        """Import the people, serve, wait for ``server.ready``."""
        self.prepare()
        self.serve()
        self.wait_until_ready()

    def prepare(self) -> None:
        """Import the people."""
        data, people = self.folder / "data", self.folder / "people.csv"
        with people.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(("address", "password"))
            writer.writerows((f"{person(i)}@{DOMAIN}", f"pw{person(i)}") for i in range(PEOPLE))
        subprocess.run(
            [*_COMMAND, "subscribers", "import", people, "--data-dir", data], check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def serve(self) -> None:
        """Start it."""
        file = self.folder / "sipserver.toml"
        file.write_text(self.configuration)
        with (self.folder / "sipserver.log").open("wb") as log:
            self._spawn(
                [*self.wrapper, *_COMMAND, "serve", "--config", file, "--domain", DOMAIN, "--listen",
                 f"udp:127.0.0.1:{self.port}", "--data-dir", self.folder / "data"], log,
            )  # fmt: skip

    def wait_until_ready(self) -> None:
        """Wait for ``server.ready``. Raises BenchError."""
        log = self.folder / "sipserver.log"
        deadline = time.monotonic() + self.patience
        while b'"server.ready"' not in log.read_bytes():
            if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                raise BenchError(f"sipserver did not become ready: {log.read_text()[-500:]}")
            time.sleep(0.1)

    def kept(self) -> dict[str, int]:
        """From location.db and calls.db."""
        data = self.folder / "data"
        calls = "SELECT count(*) FROM calls WHERE outcome = 'answered' AND talk_ms > 0 AND ended_at IS NOT NULL"
        return {
            "bindings": _count(data / "location.db", "SELECT count(*) FROM bindings"),
            "calls": _count(data / "calls.db", calls),
        }


class Kamailio(System):
    """Kamailio with one worker. ``durable``: bindings are written through to SQLite, and a record of each call."""

    def start(self) -> None:
        """Make its tables and its configuration, start it, wait until it has bound its port."""
        durable = self.name == "kamailio-durable"
        database = self.folder / "kamailio.db"
        connection = sqlite3.connect(database)
        with contextlib.closing(connection):
            connection.execute("PRAGMA journal_mode=WAL")
            for table in ("standard", "usrloc", "auth_db", "dialog", "acc"):
                connection.executescript(Path(f"/usr/share/kamailio/db_sqlite/{table}-create.sql").read_text())
            connection.execute(
                "CREATE TABLE cdrs (id INTEGER PRIMARY KEY, start_time TEXT, end_time TEXT, duration REAL, caller TEXT,"
                " callee TEXT)"
            )
            connection.executemany(
                "INSERT INTO subscriber (username, domain, ha1) VALUES (?, ?, ?)",
                [(person(i), DOMAIN, _ha1(person(i))) for i in range(PEOPLE)],
            )
            connection.commit()
        config = self.folder / "kamailio.cfg"
        config.write_text(_configuration(database, self.port, durable))
        with (self.folder / "kamailio.log").open("wb") as log:
            self._spawn(["kamailio", "-f", config, "-m", "512", "-M", "16", "-DD"], log)
        deadline = time.monotonic() + 20
        while f":{self.port:04X} " not in Path("/proc/net/udp").read_text():
            if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                raise BenchError(f"Kamailio did not start: {(self.folder / 'kamailio.log').read_text()[-500:]}")
            time.sleep(0.1)
        time.sleep(1)

    def kept(self) -> dict[str, int]:
        """From its one file."""
        database = self.folder / "kamailio.db"
        return {
            "bindings": _count(database, "SELECT count(*) FROM location"),
            "calls": _count(database, "SELECT count(*) FROM cdrs WHERE duration > 0"),
        }


def make(name: str, folder: Path, port: int) -> System:
    """The system of this name."""
    return Sipserver(name, folder, port) if name == "sipserver" else Kamailio(name, folder, port)


def missing(name: str) -> str:
    """Why a system cannot be measured here; empty where it can."""
    if shutil.which("sipp") is None:
        return "SIPp is not installed (Debian: apt install sip-tester)"
    if name != "sipserver" and shutil.which("kamailio") is None:
        return "Kamailio is not installed (Debian: apt install kamailio kamailio-sqlite-modules)"
    if name != "sipserver" and _modules() is None:
        return "Kamailio has no SQLite here (Debian: apt install kamailio-sqlite-modules kamailio-extra-modules)"
    return ""


def _modules() -> Path | None:
    """Where Kamailio's modules are, that for SQLite among them."""
    found = next(Path("/usr/lib").glob("*/kamailio/modules/db_sqlite.so"), None)
    return found.parent if found is not None else None


def _ha1(user: str) -> str:
    return hashlib.md5(f"{user}:{DOMAIN}:pw{user}".encode()).hexdigest()


def _count(path: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query).fetchone()[0])


def _tree(root: int) -> list[int]:
    """A process and all that it started."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in children.read_text().split())
    return found


def _stats(root: int) -> list[list[str]]:
    stats = []
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            stats.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split())
    return stats


_LOADED = (
    "db_sqlite", "tm", "tmx", "sl", "rr", "pv", "maxfwd", "usrloc", "registrar", "textops", "siputils", "sanity",
    "auth", "auth_db", "corex",
)  # fmt: skip
_DURABLE = ("dialog", "acc")


def _configuration(database: Path, port: int, durable: bool) -> str:
    """What Kamailio does of what this server does: authentication, registrar, record-routing proxy; records by its
    dialog and acc modules."""
    url = f"sqlite:///{database}"
    parameters: dict[str, dict[str, str | int]] = {
        "db_sqlite": {"db_set_journal_mode": f"{database}=>WAL;"},
        "usrloc": {"db_url": url, "db_mode": 1 if durable else 0, "use_domain": 1, "hash_size": 14},
        "registrar": {"max_expires": 3600},
        "auth_db": {"db_url": url, "calculate_ha1": 0, "password_column": "ha1", "use_domain": 1},
        "rr": {"append_fromtag": 1},
        "tm": {"fr_timer": 30_000, "fr_inv_timer": 120_000},
    }
    if durable:
        parameters["dialog"] = {"hash_size": 16_384}
        parameters["acc"] = {
            "log_flag": 1, "db_flag": 2, "db_url": url, "cdr_enable": 1, "cdr_log_enable": 0, "cdrs_table": "cdrs",
            "cdr_start_on_confirmed": 1, "cdr_extra": "caller=$dlg_var(caller);callee=$dlg_var(callee)",
            "cdr_start_id": "start_time", "cdr_end_id": "end_time", "cdr_duration_id": "duration",
        }  # fmt: skip
    lines = [
        "debug=0", "log_stderror=yes", "children=1", "auto_aliases=no", f'alias="{DOMAIN}"',
        f"listen=udp:127.0.0.1:{port}", f'mpath="{_modules()}/"',
    ]  # fmt: skip
    lines += [f'loadmodule "{name}.so"' for name in _LOADED + (_DURABLE if durable else ())]
    for module, values in parameters.items():
        for key, value in values.items():
            lines.append(
                f'modparam("{module}", "{key}", {value if isinstance(value, int) else chr(34) + value + chr(34)})'
            )
    # Whole statements, since Kamailio takes no empty block.
    route = _ROUTE.replace("RECORD", _RECORD if durable else "").replace("CLOSE", _CLOSE if durable else "")
    return "\n".join(lines) + route


_RECORD = """if (is_method("INVITE")) {
        setflag(1);
        dlg_manage();
        $dlg_var(caller) = $fu;
        $dlg_var(callee) = $ru;
    }"""
_CLOSE = 'if (is_method("BYE")) { setflag(1); }'
_ROUTE = """
request_route {
    if (!mf_process_maxfwd_header("70") || !sanity_check("1511", "7")) { exit; }
    force_rport();
    if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
    if (!is_method("ACK") && t_precheck_trans()) { t_check_trans(); exit; }
    if (has_totag()) {
        if (loose_route()) {
            CLOSE
            t_relay();
        } else if (is_method("ACK") && t_check_trans()) {
            t_relay();
        }
        exit;
    }
    if (is_method("REGISTER")) {
        if (!www_authenticate("$td", "subscriber")) { www_challenge("$td", "1"); exit; }
        if ($au != $tU) { sl_send_reply("403", "Forbidden"); exit; }
        if (!save("location")) { sl_reply_error(); }
        exit;
    }
    remove_hf("Route");
    if (is_method("INVITE|SUBSCRIBE")) { record_route(); }
    if (!proxy_authenticate("$fd", "subscriber")) { proxy_challenge("$fd", "1"); exit; }
    consume_credentials();
    RECORD
    if (!lookup("location")) { sl_send_reply("404", "Not Found"); exit; }
    if (!t_relay()) { sl_reply_error(); }
}
"""
