"""How long the loop was stopped at most: a beat every BEAT seconds, and how late it came."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Final

BEAT: Final = 0.01
"""Seconds from one beat to the next; a stop is known to within that."""
WINDOW: Final = 30.0
"""Seconds: what is told is of the last one or two windows."""


class Pulse:
    """Beats while the server runs."""

    def __init__(
        self,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], object],
        worked: Callable[[], float] = thread_time,
    ) -> None:
        """``worked`` tells the processor time of the loop's thread, in seconds."""
        self._clock = clock
        self._call_at = call_at
        self._worked = worked
        self._due = 0.0
        self._work = 0.0
        self._window_ends = 0.0
        self._before = 0.0
        self._now = 0.0

    def start(self) -> None:
        """Begin to beat."""
        self._window_ends = self._clock() + WINDOW
        self._arm()

    @property
    def longest(self) -> float:
        """Seconds that a beat was late at most, half a minute to a minute back, as far as the loop worked meanwhile:
        a machine that gave its processors to others is no stop of the loop."""
        return max(self._before, self._now)

    def _arm(self) -> None:
        self._due = self._clock() + BEAT
        self._work = self._worked()
        self._call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._clock()
        self._now = max(self._now, min(now - self._due, self._worked() - self._work))
        if now >= self._window_ends:
            self._before, self._now = self._now, 0.0
            self._window_ends = now + WINDOW
        self._arm()
