"""Folding what repeats: the first of a kind from a source is a row, what follows within a window is a count."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

WINDOW_MS: Final = 60_000
"""How long occurrences join the row of the first."""
MAX_OPEN: Final = 1_000
"""Rows that may be joined at a time, and so the most that a flood from ever new sources makes in a window."""


@dataclass(slots=True)
class Fold:
    """A row that is being joined."""

    id: str
    first_at: int
    last_at: int
    offset: int
    """How far the clock that the row is written by is ahead of the one that these times are told by."""
    count: int = 1


class Floods:
    """Which rows may be joined. Bounded: past MAX_OPEN, occurrences join one row per coarse key."""

    def __init__(self, window_ms: int = WINDOW_MS, max_open: int = MAX_OPEN) -> None:
        self._window_ms = window_ms
        self._max_open = max_open
        self._open: dict[Hashable, Fold] = {}
        self._changed: dict[str, Fold] = {}

    def __len__(self) -> int:
        return len(self._open)

    def join(self, key: Hashable, at: int) -> bool:
        """Count this occurrence in an open row of its key; False where there is none that is young enough."""
        fold = self._open.get(key)
        # A clock that was set back makes a row too young as well as too old.
        if fold is None or abs(at - fold.first_at) >= self._window_ms:
            return False
        fold.count += 1
        # A call's own clock may be a little behind the machine's, and that may be set back.
        fold.last_at = max(fold.last_at, at)
        self._changed[fold.id] = fold
        return True

    def full(self, at: int) -> bool:
        """Whether no row can be opened now; makes room by closing those that are too old."""
        if len(self._open) >= self._max_open:
            self._close_old(at)
        return len(self._open) >= self._max_open

    def open(self, key: Hashable, row_id: str, at: int, offset: int = 0) -> None:
        """A row that later occurrences may join; ``offset`` as ``Fold`` has it."""
        # Taken out first, so that the rows stay in the order in which they were opened.
        self._open.pop(key, None)
        self._open[key] = Fold(row_id, at, at, offset)

    def take_changed(self, at: int) -> list[Fold]:
        """The rows whose count has changed since this was last asked."""
        changed = list(self._changed.values())
        self._changed = {}
        self._close_old(at)
        return changed

    def _close_old(self, at: int) -> None:
        while self._open:
            oldest = next(iter(self._open))
            if abs(at - self._open[oldest].first_at) < self._window_ms:
                return
            del self._open[oldest]
