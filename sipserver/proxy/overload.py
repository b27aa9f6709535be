"""Overload control: which new requests are refused while work waits too long (RFC 6357, local and by loss).

More work than a server can do makes every message wait, and whoever waits longer than T1 sends it again: a server that
takes everything ends up doing only work that nobody wants any more. What is measured is how long work waits, which
says the same for every mix of calls and registrations, on every machine.

    new work              is refused by a share that grows while the delay is above ``target`` and shrinks while it is
                          below, so the delay settles there: as much is taken as can be done, and the server is never
                          idle while there is work
    work that was begun   (requests with credentials, which answer a challenge of ours or come from those who answered
                          one before) is refused in growing share from 2 * target to 4 * target, where everything is

Requests inside of dialogs, BYE, CANCEL, ACK and responses are not asked about here. A call that is let in brings work
for some time, which is why the share follows the delay by its sum as well as by itself (a PI controller): by itself
alone it would be too small or swing.

    IDLE ──delay > target──> SHEDDING ──delay < target / 2 for QUIET seconds──> IDLE

Those who are refused are told when to come back, spread over the time that serving all of them takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NEW: Final = 0
"""Work that has not begun: a first request."""
BEGUN: Final = 1
"""Work that has: a request with credentials."""

BEGAN: Final = "began"
ENDED: Final = "ended"

SMOOTHING: Final = 0.1
"""Seconds over which the delay is averaged: a short stop of the machine is no overload."""
LOOK: Final = 0.02
"""Seconds between two looks at the delay."""
LONGEST_STEP: Final = LOOK
"""What counts of the time since the last look at most, so that no single look decides."""
STEP_OF_SHARE: Final = 0.3
"""How much larger the share is that is refused for each ``target`` that work waits too long."""
SLOPE_OF_SHARE: Final = 0.3
"""By how much it grows each second for that, at most."""
LONGEST_GROWTH: Final = 0.1
"""Seconds of growth that one look brings at most."""
QUIET: Final = 1.0
"""Seconds without delay until overload is over."""
RATE_OVER: Final = 2.0
"""Seconds over which it is counted how much is served."""
SHORTEST: Final = 2.0
"""Seconds over which those who are refused are spread at least."""
MEMORY: Final = 4.0
"""Seconds that a refusal is remembered at least: a copy of the request may wait behind it."""
MAX_REMEMBERED: Final = 20_000
"""Refusals remembered; of more, the older half is forgotten."""

_GOLDEN: Final = 0.6180339887498949
"""Steps of this part of the circle fall evenly, however many there are."""
_ASKS: Final = 2
"""Requests that a registration or a call takes from whoever begins it: one is challenged, one has credentials."""


@dataclass(slots=True)
class Settings:
    """What the operator decided."""

    enabled: bool = True
    target: float = 0.05
    """Seconds that work may wait without anything being refused."""
    longest: float = 30.0
    """The longest Retry-After, in seconds."""


class Overload:
    """Whether there is overload, and what it asks for. Times are of any clock that only goes forward, in seconds."""

    __slots__ = (
        "_backlog", "_debts", "_grown", "_looked_at", "_older", "_phase", "_quiet_since", "_recent", "_served",
        "_served_for", "_shares", "_since", "_taken", "_turned_at", "delay", "most", "refused", "refused_before",
        "settings", "shedding",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shedding = False
        """Whether new requests have to be asked about."""
        self.delay = 0.0
        """How long work waits, smoothed."""
        self.refused = 0
        """Requests refused since the start, copies not counted."""
        self.most = 0.0
        """The longest delay since overload began."""
        self.refused_before = 0
        """``refused`` when it began."""
        self._since = 0.0
        self._looked_at = 0.0
        self._quiet_since = 0.0
        self._grown = 0.0
        self._shares = [0.0, 0.0]
        self._debts = [0.5, 0.5]
        self._taken = 0
        self._served = 0.0
        self._served_for = 0.0
        self._backlog = 0.0
        self._phase = 0.0
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self._turned_at = 0.0

    def look(self, now: float, waited: float) -> str:
        """Work has waited for so long at most since the last look: what that changes, BEGAN or ENDED, or nothing."""
        target = self.settings.target
        passed = max(now - self._looked_at, 0.0)
        self._looked_at = now
        # What waits longer than everything being refused would allow says no more, and would be remembered for longer.
        waited = min(waited, 4 * target)
        self.delay += (waited - self.delay) * min(min(passed, LONGEST_STEP) / SMOOTHING, 1.0)
        if not self.shedding:
            return self._begin(now) if self.delay > target else ""
        self.most = max(self.most, self.delay)
        excess = self.delay / target
        grown = self._grown + SLOPE_OF_SHARE * min(excess - 1.0, 1.0) * min(passed, LONGEST_GROWTH)
        self._grown = min(max(grown, 0.0), 1.0)
        self._shares[NEW] = min(max(self._grown + STEP_OF_SHARE * (excess - 1.0), 0.0), 1.0)
        self._shares[BEGUN] = min(max(excess / 2 - 1.0, 0.0), 1.0)
        self._count(now, passed)
        if 2 * self.delay >= target:
            self._quiet_since = now
        elif now - self._quiet_since >= QUIET:
            self.shedding = False
            self._recent, self._older = set(), set()
            return ENDED
        return ""

    def stop(self) -> None:
        """Nothing is refused any more."""
        self.shedding = False
        self.delay = 0.0
        self._recent, self._older = set(), set()

    def _begin(self, now: float) -> str:
        self.shedding = True
        self.most = self.delay
        self.refused_before = self.refused
        self._since = self._quiet_since = self._turned_at = now
        self._grown = 0.0
        self._shares = [0.0, 0.0]
        self._taken = 0
        self._served = self._served_for = self._backlog = 0.0
        return BEGAN

    def _count(self, now: float, passed: float) -> None:
        """How much is served, and how many will come back."""
        kept = max(1.0 - passed / RATE_OVER, 0.0)
        self._served = self._served * kept + self._taken
        self._served_for = self._served_for * kept + passed
        self._taken = 0
        self._backlog *= max(1.0 - passed / self._spread(), 0.0)
        if now - self._turned_at >= MEMORY or len(self._recent) >= MAX_REMEMBERED // 2:
            self._older, self._recent = self._recent, set()
            self._turned_at = now

    def admits(self, kind: int, key: int) -> bool:
        """Whether a request of this kind is served, to be asked while ``shedding``.

        ``key`` stands for its transaction: a copy of what was refused is refused too, since its sender has given up
        or soon will, and nobody would want the answer.
        """
        if key in self._recent or key in self._older:
            return False
        debt = self._debts[kind] + self._shares[kind]
        # Not by chance: of four requests at a share of a quarter one is refused, wherever they come from.
        if debt < 1.0:
            self._debts[kind] = debt
            self._taken += 1
            return True
        self._debts[kind] = debt - 1.0
        self.refused += 1
        self._backlog += 1.0
        if len(self._recent) < MAX_REMEMBERED:
            self._recent.add(key)
        return False

    def retry_after(self) -> int:
        """Seconds until the next one who is refused may come back."""
        self._phase = (self._phase + _GOLDEN) % 1.0
        return 1 + int(self._phase * self._spread())

    def lasted(self, now: float) -> float:
        """Seconds since overload began, or of the last one when it ends."""
        return now - self._since

    def _spread(self) -> float:
        """Seconds that serving everybody who was refused takes."""
        rate = self._served / self._served_for / _ASKS if self._served > 0.0 else 0.0
        if self._backlog < SHORTEST:
            return SHORTEST
        if rate <= 0.0:
            return self.settings.longest
        return min(max(self._backlog / rate, SHORTEST), self.settings.longest)
