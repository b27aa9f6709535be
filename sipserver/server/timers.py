"""Timers for thousands of transactions: one queue per duration, one wake-up of the loop.

SIP uses few different durations, so a new timer is put at the end of a queue, and the first of a dozen
queues tell when to wake next. Transactions cancel nothing: whoever is called back looks at its state (see
``sip.effects``) and a timer it no longer wants costs one call when it is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol


class Timed(Protocol):
    """Whoever sets timers."""

    def on_timer(self, timer: str) -> None:
        """A timer of this name is due."""


class _Handle(Protocol):
    def cancel(self) -> None: ...


class Entry:
    """One timer. Of each call in progress there are several, and here a time is no object of its own."""

    __slots__ = ("deadline", "following", "owner", "timer")

    def __init__(self, deadline: float, owner: Timed, timer: str) -> None:
        self.deadline = deadline
        self.owner: Timed | None = owner
        """None once it is cancelled."""
        self.timer = timer
        self.following: Entry | None = None
        """The next one of the same duration."""

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.owner = None


class _Queue:
    """The timers of one duration, in the order in which they are due."""

    __slots__ = ("after", "first", "last")

    def __init__(self, after: float) -> None:
        self.after = after
        """Seconds."""
        self.first: Entry | None = None
        self.last: Entry | None = None

    def append(self, entry: Entry) -> None:
        """Another one."""
        last = self.last
        if last is None:
            self.first = entry
        else:
            last.following = entry
        self.last = entry

    def drop_first(self) -> Entry | None:
        """Take the first one out; the one that is first now."""
        dropped = self.first
        assert dropped is not None, "there is one"
        first = self.first = dropped.following
        if first is None:
            self.last = None
        dropped.following = None
        return first


NEVER: Final = float("inf")
SHORT: Final = 0.5
"""Seconds below which a timer is none of SIP's (T1)."""
GRANULARITY: Final = 0.01
"""Seconds between two rounds at least: each round has its price."""
GRANULARITY_OF_SIP: Final = 0.05
"""The same where none is due but SIP's: they are not that exact."""
MAX_FIRED_AT_ONCE: Final = 500
"""Timers served in one go, so that a crowd of them does not hold up messages."""


class TimerQueue:
    """Calls ``owner.on_timer(timer)`` after a while, in order of time for each duration."""

    def __init__(
        self,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], _Handle],
        after_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._call_at = call_at
        self._after_run = after_run
        self._queues: list[_Queue] = []
        """So few that looking them through is quicker than a dictionary."""
        self._waiting = 0
        self._wake_at = NEVER
        self._last_round = 0.0
        self._handle: _Handle | None = None
        self.fired = 0
        """Timers served since the start."""

    def add(self, after: float, owner: Timed, timer: str) -> Entry:
        """Have ``owner`` called after so many seconds."""
        deadline = self._clock() + after
        entry = Entry(deadline, owner, timer)
        self._queue(after).append(entry)
        self._waiting += 1
        if deadline < self._wake_at:
            self._arm(self._round_for(deadline, after))
        return entry

    def _queue(self, after: float) -> _Queue:
        for queue in self._queues:
            if queue.after == after:
                return queue
        new = _Queue(after)
        self._queues.append(new)
        return new

    def __len__(self) -> int:
        return self._waiting

    def run_due(self) -> None:
        """Serve what is due, then sleep until the next."""
        self._wake_at = NEVER
        now = self._clock()
        left = MAX_FIRED_AT_ONCE
        try:
            for queue in self._queues.copy():
                due = queue.first
                while due is not None and due.deadline <= now and left:
                    following = queue.drop_first()
                    left -= 1
                    self._waiting -= 1
                    owner = due.owner
                    if owner is not None:
                        owner.on_timer(due.timer)
                    due = following
        finally:
            # An owner that fails is the loop's to report, and stops neither the timers of others nor what they caused.
            self.fired += MAX_FIRED_AT_ONCE - left
            # What is left over of a crowd goes on at once.
            self._last_round = now if left else 0.0
            self._go_on()
            self._after_run()

    def _go_on(self) -> None:
        """Sleep until the next timer is due."""
        if len(self._queues) > 64:
            self._queues = [queue for queue in self._queues if queue.first is not None]
        soonest = NEVER
        for queue in self._queues:
            first = queue.first
            while first is not None and first.owner is None:
                first = queue.drop_first()
                self._waiting -= 1
            if first is not None:
                soonest = min(soonest, self._round_for(first.deadline, queue.after))
        if soonest < NEVER:
            self._arm(soonest)

    def _round_for(self, deadline: float, after: float) -> float:
        """When the round may be that serves this timer."""
        return max(deadline, self._last_round + (GRANULARITY if after < SHORT else GRANULARITY_OF_SIP))

    def close(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._waiting = 0
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, deadline: float) -> None:
        if deadline >= self._wake_at:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._wake_at = deadline
        self._handle = self._call_at(deadline, self.run_due)
