"""How much somebody may send: token buckets, each kept as the moment at which it is full again.

A bucket holds ``burst`` tokens and gains ``rate`` of them a second; what is sent takes one. Instead of the tokens,
the time is remembered at which none would be missing (the theoretical arrival time of ITU-T I.371): one number for
each sender, and nothing to do while it sends nothing.
"""

from __future__ import annotations

from typing import Final

from sipserver.proxy.bounded import forget_oldest

MAX_SENDERS: Final = 50_000
"""Senders that are remembered by one meter; of more, whoever was first seen longest ago starts anew."""


class Meter:
    """The buckets of many senders that may all send as much."""

    __slots__ = ("_full_at", "_interval", "_span", "burst", "max_senders", "rate")

    def __init__(self, rate: float, burst: float = 0.0, max_senders: int = MAX_SENDERS) -> None:
        """``rate`` a second, 0 for as much as one likes; ``burst`` at once, 1 at least."""
        self.rate = rate
        self.burst = max(burst, 1.0)
        self.max_senders = max_senders
        self._interval = 1.0 / rate if rate else 0.0
        self._span = self._interval * self.burst
        self._full_at: dict[str, float] = {}

    def take(self, sender: str, now: float) -> float:
        """Seconds that this sender has to wait before it may send one more; 0 where it may now, and then it counts.

        ``now`` is UNIX time; a clock that was set back forgives everything.
        """
        interval = self._interval
        if not interval:
            return 0.0
        known = self._full_at
        full_at = known.get(sender, 0.0)
        missing = full_at - now
        # More than the bucket holds is never missing: the clock was set.
        if missing <= 0.0 or missing > self._span + interval:
            if not full_at and len(known) >= self.max_senders:
                forget_oldest(known)
            known[sender] = now + interval
            return 0.0
        wait = missing + interval - self._span
        # Sums of fractions are not exact.
        if wait > 1e-6:
            return wait
        known[sender] = full_at + interval
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)


def unlimited() -> Meter:
    """A meter that lets everything through."""
    return Meter(0.0)


def retry_after(seconds: float) -> tuple[str, ...]:
    """The Retry-After line for somebody who has to wait so long."""
    return (f"Retry-After: {int(seconds) + 1}",)
