"""UNIX time that does not jump of itself: durations of calls are differences of it.

Where the machine's clock was set, so is this one; whoever made times of it before is told by how much, and goes on
with the time as it was (``CallWatch.clock_stepped``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

STEP: Final = 5.0
"""Seconds of difference at which the machine's clock was set, not disciplined: then it is followed at once."""
SLEW: Final = 0.0005
"""The most that one correction moves the time by, in seconds."""


class Clock:
    """The wall clock, read once, carried on by the monotonic one and kept near the former in small steps."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __call__(self) -> float:
        """UNIX time in seconds."""
        return self._monotonic() + self._offset

    def correct(self) -> float:
        """Follow the machine's clock; called about once a second. The step in seconds where it was set, else 0.0."""
        difference = self._wall() - self()
        if abs(difference) >= STEP:
            self._offset += difference
            return difference
        self._offset += max(-SLEW, min(SLEW, difference))
        return 0.0
