"""How long registrations take: counted in memory by how long, written once a minute.

A registration's delay (RFC 6076 §4.1) is from the arrival of the REGISTER that is let in or refused, after any
challenge, until its final response goes out; the commit of what it changed is in it. One increment for each; a row of
``registration_delays`` for each minute, outcome and bound that had any. A crash loses those of the last minute.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from sipserver.calls.times import Stamp

BOUNDS: Final[tuple[int, ...]] = (
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048, 3_072, 4_096,
    6_144, 8_192, 12_288, 16_384, 24_576, 32_768, 65_536, 3_600_000,
)  # fmt: skip
"""Up to how many milliseconds a delay is counted with others; one beyond all is the last's."""
FLUSHES: Final = 12
"""Every so many flushes what was counted is written: once a minute, as the server calls them."""
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"

STATEMENT: Final = (
    # Where a commit's failure was reported too late the same row comes again.
    "INSERT OR IGNORE INTO registration_delays (at, outcome, up_to_ms, count) VALUES (?, ?, ?, ?)"
)


class RegistrationDelays:
    """Counts delays, and puts rows of ``registration_delays`` by this statement of the writer."""

    def __init__(self, put: Callable[[int, tuple[Any, ...]], bool], statement: int) -> None:
        self._put = put
        self._statement = statement
        self._stamp = Stamp()
        self._since = 0
        self._flushes = 0
        self._accepted = [0] * len(BOUNDS)
        self._refused = [0] * len(BOUNDS)

    def note(self, came: float, answered: float, *, accepted: bool) -> None:
        """A REGISTER came and was answered then, in UNIX seconds."""
        delay = int((answered - came) * 1000) + 1
        if delay <= 0:
            # The clock was set in between.
            return
        if not self._since:
            self._since = int(answered * 1000)
        counts = self._accepted if accepted else self._refused
        counts[min(bisect_left(BOUNDS, delay), len(BOUNDS) - 1)] += 1

    def flush(self, *, stopping: bool) -> None:
        """To be called every five seconds and at the stop; what the queue does not take waits."""
        if not self._since:
            return
        self._flushes += 1
        if self._flushes < FLUSHES and not stopping:
            return
        at = self._stamp(self._since)
        for outcome, counts in ((ACCEPTED, self._accepted), (REFUSED, self._refused)):
            for place, count in enumerate(counts):
                if count:
                    if not self._put(self._statement, (at, outcome, BOUNDS[place], count)):
                        # What comes until the next flush makes rows of its own.
                        self._since += 1
                        return
                    counts[place] = 0
        self._since = self._flushes = 0
