"""Places that lately did not answer: of several they are tried last, until they have aged or answer after all.

Only what the DNS or a route of the operator led to is remembered here, since only there is a choice. It is an order, no
verdict: where every place is dead, or there is but one, it is tried all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sipserver.sip.locate import Place

MAX_PLACES: Final = 10_000
"""Places remembered at most."""

DEAD: Final = "target.dead"
ALIVE: Final = "target.alive"

Note = Callable[[str, Place, float], None]
"""Who is told of a place that is marked or taken off: event, place, seconds that the mark lasts."""


class DeadTargets:
    """Places with the time until which they count as dead; bounded."""

    def __init__(self, lifetime: float, note: Note) -> None:
        self.lifetime = lifetime
        """Seconds that a place counts as dead; 0 remembers none."""
        self.marked = 0
        """How often a place was marked that was not."""
        self._tell = note
        self._until: dict[Place, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def mark(self, place: Place, now: float, lifetime: float | None = None) -> None:
        """This place did not answer, or asked to be left alone for so many seconds (never for longer than ours)."""
        seconds = self.lifetime if lifetime is None else min(lifetime, self.lifetime)
        if seconds <= 0:
            return
        if place not in self._until:
            if len(self._until) >= MAX_PLACES:
                self.expire(now)
            if len(self._until) >= MAX_PLACES:
                del self._until[next(iter(self._until))]
            self.marked += 1
            self._tell(DEAD, place, seconds)
        self._until[place] = now + seconds

    def answered(self, place: Place) -> None:
        """This place is there."""
        if self._until.pop(place, None) is not None:
            self._tell(ALIVE, place, 0.0)

    def is_dead(self, place: Place, now: float) -> bool:
        """Whether this place is to be tried last."""
        return self._until.get(place, 0.0) > now

    def live_first(self, places: list[Place], now: float) -> list[Place]:
        """The same places, the dead ones last; each part in its order."""
        if not self._until or len(places) < 2:
            return places
        dead = [each for each in places if self.is_dead(each, now)]
        return [each for each in places if each not in dead] + dead if dead else places

    def expire(self, now: float) -> None:
        """Forget what has aged."""
        for place in [each for each, until in self._until.items() if until <= now]:
            del self._until[place]
