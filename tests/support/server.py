"""The server as a process of its own, on free ports of loopback and stores in a temporary folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from sipserver.accounts.schema import open_accounts, open_keyring
from sipserver.accounts.subscribers import Subscribers
from sipserver.storage.database import sqlite
from support.ports import free_port
from support.stores import put_stores

DOMAIN = "example.test"
Row = dict[str, Any]


def environment() -> dict[str, str]:
    """This process' environment, without what would configure the server behind the test's back.

    Servers run from the sources; with SIPSERVER_INSTALLED=1 what is installed runs, compiled modules and all.
    """
    installed = os.environ.get("SIPSERVER_INSTALLED") == "1"
    unwanted = ("SIPSERVER_", "CREDENTIALS_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    root = str(Path(__file__).resolve().parents[2])
    where = {"PYTHONSAFEPATH": "1"} if installed else {"PYTHONPATH": root}
    return kept | where | {"PYTHONUNBUFFERED": "1"}


def sipserver(*arguments: str | Path, text: str | None = None) -> str:
    """Run a command that has to work; what it printed."""
    command = [sys.executable, "-m", "sipserver", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, input=text, capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


class ServerProcess:
    """``sipserver serve``; started when the ``with`` block begins, stopped when it ends."""

    def __init__(
        self, folder: Path, users: Iterable[str] = (), *, config: str = "", port: int = 0, host: str = "127.0.0.1",
        also: str = "", domain: str = DOMAIN,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.domain = domain
        self.host = host
        self.data_dir = folder / "data"
        self.port = port or free_port()
        """UDP and TCP on ``host``, and on the host that it ``also`` listens on (IPv6 in brackets)."""
        self.hosts = [host, also] if also else [host]
        self.events: list[Row] = []
        """The log, an entry for each line."""
        self._arrived = threading.Condition()
        self._over = False
        """The log has ended."""
        self.configuration = folder / "sipserver.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(config)
        people = folder / "people.csv"
        with people.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["address", "password"])
            writer.writerows((f"{user}@{domain}", f"pw{user}") for user in users)
        # As a first start makes stores and ``sipserver subscribers import`` fills them, without processes for it:
        # hundreds of tests begin with this.
        put_stores(self.data_dir)
        with closing(open_accounts(self.data_dir)) as connection:
            Subscribers(connection, open_keyring(self.data_dir, connection, {})).import_csv(people)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            code = self.stop()
            assert code == 0, f"the server ended with {code}: {self.events[-5:]}"

    @property
    def log_text(self) -> str:
        """The log, for messages of failed tests."""
        return "\n".join(json.dumps(event) for event in self.events[-40:]) + "\n" + self._errors.read_text()[-2000:]

    def start(self) -> None:
        """Start, and wait until it serves."""
        command = [
            *self.program(), "serve", "--config", str(self.configuration), "--domain", self.domain,
            "--data-dir", str(self.data_dir),
        ]  # fmt: skip
        for host in self.hosts:
            command += ["--listen", f"udp:{host}:{self.port}", "--listen", f"tcp:{host}:{self.port}"]
        self.events.clear()
        self._over = False
        self._errors = self.folder / "stderr"
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait("server.ready", timeout=60.0)

    def program(self) -> list[str]:
        """What is run, without its arguments."""
        return [sys.executable, "-m", "sipserver"]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(30)
        self._reader.join(10)
        return code

    def wait(self, event: str, timeout: float = 15.0, **values: object) -> Row:
        """The log entry with this event and these values, waited for."""

        def match() -> Row | None:
            for each in self.events:
                if each["event"] == event and all(each.get(key) == value for key, value in values.items()):
                    return each
            return None

        with self._arrived:
            self._arrived.wait_for(lambda: match() is not None or self._over, timeout)
            found = match()
        assert found is not None, f"no {event} {values}\n{self.log_text}"
        return found

    def rows(self, query: str, *values: object, store: str = "calls.db") -> list[Row]:
        """What a query finds in one of the stores."""
        uri = f"{(self.data_dir / store).absolute().as_uri()}?mode=ro"
        with closing(sqlite.connect(uri, uri=True, timeout=5)) as connection:
            cursor = connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def wait_for_rows(self, query: str, enough: Callable[[list[Row]], bool], timeout: float = 10.0) -> list[Row]:
        """The rows of a query once they are as expected: another process writes them."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.rows(query)
            if enough(found):
                return found
            assert time.monotonic() < deadline, f"{query}: {found}\n{self.log_text}"
            time.sleep(0.02)

    def ended_calls(self, count: int = 1) -> list[Row]:
        """The rows of ``calls``, once so many have ended and no other is there."""
        return self.wait_for_rows(
            "SELECT * FROM calls ORDER BY started_at",
            lambda rows: len(rows) == count and all(row["ended_at"] is not None for row in rows),
        )

    def party(self, user: str) -> str:
        """What stands for this user in call records."""
        (row,) = self.rows("SELECT party FROM parties WHERE address = ?", f"{user}@{self.domain}", store="accounts.db")
        return str(row["party"])

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._arrived:
                    self.events.append(json.loads(line))
                    self._arrived.notify_all()
        with self._arrived:
            self._over = True
            self._arrived.notify_all()
