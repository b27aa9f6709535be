"""Bindings for tests, and a location on disk whose loop is the test."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sipserver.location.memory import MemoryLocation
from sipserver.location.sqlite import SqliteLocation
from sipserver.registrar.binding import Binding, Change

AOR = "alice@example.test"
NOW = 1_795_000_000.0


def binding(contact: str = "sip:alice@192.0.2.7", *, lasts: float = 3600.0, **fields: Any) -> Binding:
    """A binding that expires so many seconds after NOW."""
    values: dict[str, Any] = {
        "aor": AOR, "contact": contact, "q": 1000, "expires_at": NOW + lasts, "call_id": "one", "cseq": 1,
        "instance": None, "reg_id": None, "path": (), "user_agent": None, "params": "", "transport": "UDP",
        "host": "192.0.2.7", "port": 5060, "connection": 0, "registered_at": NOW,
    } | fields  # fmt: skip
    return Binding(**values)


def fields(binding: Binding) -> tuple[Any, ...]:
    """Everything that is written of a binding."""
    return tuple(getattr(binding, name) for name in Binding.__slots__ if name != "connection")


def put(location: MemoryLocation, *bindings: Binding) -> list[bool]:
    """Add bindings, a change each; what ``done`` was told comes into the list."""
    told: list[bool] = []
    for each in bindings:
        location.replace(each.aor, [Change(None, each)], told.append)
    return told


class Bench:
    """A ``location.db`` and those who run on it one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.removed: list[Binding] = []
        self.states: list[bool] = []
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: list[SqliteLocation] = []

    def open(self, *, now: float = NOW, **options: Any) -> SqliteLocation:
        """Start a location on the file."""
        location = SqliteLocation(
            self.path, now=now, call_soon=self._calls.put, interval=0.0, on_removed=self._on_removed,
            on_state=lambda working, _: self.states.append(working), **options,
        )  # fmt: skip
        self._open.append(location)
        return location

    def settle(self, location: SqliteLocation) -> None:
        """Run the loop until nothing is on its way to the disk."""
        location.flush()
        while location.pending:
            self._calls.get(timeout=10)()
        while not self._calls.empty():
            self._calls.get()()

    def close(self) -> None:
        """Stop whatever runs."""
        while self._open:
            self._open.pop().close()

    def _on_removed(self, bindings: Sequence[Binding]) -> None:
        self.removed.extend(bindings)
