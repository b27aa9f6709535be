"""Columnar copies of stores that a test may be in the middle of writing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sipserver.analysis.columns import Copy
from sipserver.analysis.columns_sync import Sync, connected, state_of
from sipserver.storage.database import sqlite

SOURCES = ("views", "copy")
"""Where figures come from."""


class Copies:
    """Copies of one store. What ended within two hours before ``now`` or later is read from the store."""

    def __init__(self, folder: Path, connection: sqlite.Connection, now: int) -> None:
        self._folder = folder
        self._connection = connection
        self._now = now
        self._made: dict[int, Copy] = {}
        self._stack = ExitStack()
        self._number = 0

    def current(self, changes: int) -> Copy:
        """A copy as of so many changes of the store."""
        if changes not in self._made:
            self._made[changes] = self._make()
        return self._made[changes]

    def forget(self, changes: int) -> None:
        """What came after so many changes was rolled back."""
        self._made = {number: made for number, made in self._made.items() if number <= changes}

    def close(self) -> None:
        """Close all of them."""
        self._stack.close()

    def _make(self) -> Copy:
        self._number += 1
        path = self._folder / f"{self._number}.duckdb"
        with connected(path) as copy:
            sync = Sync(copy, self._connection, self._now, lambda _: None)
            sync.make()
            sync.run()
        reader = self._stack.enter_context(connected(":memory:"))
        reader.execute(f"ATTACH '{path}' AS copy (READ_ONLY)")
        return Copy(reader, self._connection, state_of(reader, self._connection, "copy."))
