"""Bringing the bindings of ``location.db`` into memory while they are in use already.

The addresses are read in their order, a portion at a time. Whoever asks for one that has not been reached gets it read
by itself, and the portion that comes to it later leaves it out: from then on memory is what counts. An address that
was neither reached nor asked for has not changed in the file either, since whoever changes it asks for it first.
"""

from __future__ import annotations

from typing import Final

from sipserver.location.rows import from_row
from sipserver.location.schema import SELECT
from sipserver.registrar.binding import Binding
from sipserver.storage.database import sqlite

PORTION: Final = 128
"""Rows that are read in one go: a millisecond or two."""

# SQLite compares the bytes of UTF-8, whose order is that of the code points, by which Python compares.
_NEXT: Final = f"{SELECT} WHERE aor > ? ORDER BY aor LIMIT ?"
_ONE: Final = f"{SELECT} WHERE aor = ?"


class Loader:
    """What is in the file and not in memory. Its methods let errors of SQLite through, and may then be called again."""

    def __init__(self, connection: sqlite.Connection) -> None:
        self.is_done = False
        """Whether every address was handed over."""
        self._connection = connection
        self._until = ""
        """Everything up to this address was handed over."""
        self._taken: set[str] = set()
        """Addresses beyond it that were, too."""
        self._agents: dict[str | None, str | None] = {}

    def is_missing(self, aor: str) -> bool:
        """Whether the bindings of this address are in the file alone."""
        return aor > self._until and aor not in self._taken

    def take(self, aor: str) -> list[Binding]:
        """The bindings of an address that is missing, the latest registered first."""
        found = self._read(aor)
        self._taken.add(aor)
        return found

    def take_next(self) -> list[list[Binding]]:
        """The bindings of the next addresses that are missing, each the latest registered first."""
        rows = self._connection.execute(_NEXT, (self._until, PORTION)).fetchall()
        groups = self._by_address(rows)
        until = groups[-1][0].aor if groups else self._until
        if len(rows) < PORTION:
            self.is_done = True
        elif len(groups) > 1:
            # The rest of the last one may not be among them.
            groups.pop()
            until = groups[-1][0].aor
        else:
            groups = [self._read(until)]
        self._until = until
        if not self._taken:
            return groups
        return [group for group in groups if not self._was_taken(group[0].aor)]

    def _was_taken(self, aor: str) -> bool:
        if aor not in self._taken:
            return False
        self._taken.discard(aor)
        return True

    def _read(self, aor: str) -> list[Binding]:
        try:
            rows = self._connection.execute(_ONE, (aor,)).fetchall()
        except UnicodeEncodeError:
            # No text that a file could hold.
            return []
        groups = self._by_address(rows)
        return groups[0] if groups else []

    def _by_address(self, rows: list[tuple[object, ...]]) -> list[list[Binding]]:
        groups: list[list[Binding]] = []
        group: list[Binding] = []
        agents, aor = self._agents, ""
        for row in rows:
            binding = from_row(row)
            # Thousands of endpoints say the same of themselves: one copy is enough.
            binding.user_agent = agents.setdefault(binding.user_agent, binding.user_agent)
            if binding.aor != aor or not group:
                aor, group = binding.aor, [binding]
                groups.append(group)
                continue
            binding.aor = aor
            is_later = binding.registered_at > group[-1].registered_at
            group.append(binding)
            if is_later:
                group.sort(key=_by_time, reverse=True)
        return groups


def _by_time(binding: Binding) -> float:
    return binding.registered_at
