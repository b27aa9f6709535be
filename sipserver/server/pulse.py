"""How late the loop came at most, of late: what ``server.pressure`` finds out while messages come, remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

WINDOW: Final = 30.0
"""Seconds: what is told is of the last one or two windows."""


class Pulse:
    """Remembers the longest of the last half minute to a minute, by a clock in seconds that only goes forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window_ends = 0.0
        self._before = 0.0
        self._now = 0.0

    def note(self, late: float) -> None:
        """The loop came so many seconds after it was to."""
        self._turn()
        self._now = max(self._now, late)

    @property
    def longest(self) -> float:
        """Seconds that the loop was late at most."""
        self._turn()
        return max(self._before, self._now)

    def _turn(self) -> None:
        now = self._clock()
        if now < self._window_ends:
            return
        # What was noted last is forgotten as well, where nothing came for a whole window.
        self._before, self._now = (self._now if now < self._window_ends + WINDOW else 0.0), 0.0
        self._window_ends = now + WINDOW
