"""Timers for thousands of transactions: one deque per duration, one wake-up of the loop.

SIP uses few different durations, so a new timer is an append, and the heads of a dozen deques
tell when to wake next. Nothing is cancelled: whoever is called back looks at its state (see
``sip.effects``) and a timer it no longer wants costs one call when it is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol


class Timed(Protocol):
    """Whoever sets timers."""

    def on_timer(self, timer: str) -> None:
        """A timer of this name is due."""


class _Handle(Protocol):
    def cancel(self) -> None: ...


class _Entry:
    """One timer. Of each call in progress there are several, and here a time is no object of its own."""

    __slots__ = ("deadline", "owner", "timer")

    def __init__(self, deadline: float, owner: Timed, timer: str) -> None:
        self.deadline = deadline
        self.owner = owner
        self.timer = timer


GRANULARITY: Final = 0.01
"""Seconds between two rounds at least: SIP's timers are not that exact, and each round has its price."""
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
        self._queues: dict[float, deque[_Entry]] = {}
        self._wake_at = float("inf")
        self._earliest = 0.0
        """When the next round may begin."""
        self._handle: _Handle | None = None
        self.fired = 0
        """Timers served since the start."""

    def add(self, after: float, owner: Timed, timer: str) -> None:
        """Have ``owner`` called after so many seconds."""
        deadline = self._clock() + after
        queue = self._queues.get(after)
        if queue is None:
            queue = self._queues[after] = deque()
        queue.append(_Entry(deadline, owner, timer))
        if deadline < self._wake_at:
            self._arm(deadline)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def run_due(self) -> None:
        """Serve what is due, then sleep until the next."""
        self._wake_at = float("inf")
        now = self._clock()
        left = MAX_FIRED_AT_ONCE
        try:
            for queue in list(self._queues.values()):
                while queue and queue[0].deadline <= now and left:
                    due = queue.popleft()
                    left -= 1
                    due.owner.on_timer(due.timer)
        finally:
            # An owner that fails is the loop's to report, and stops neither the timers of others nor what they caused.
            self.fired += MAX_FIRED_AT_ONCE - left
            self._earliest = now + GRANULARITY if left else now
            self._go_on()
            self._after_run()

    def _go_on(self) -> None:
        """Sleep until the next timer is due."""
        if len(self._queues) > 64:
            self._queues = {after: queue for after, queue in self._queues.items() if queue}
        heads = [queue[0].deadline for queue in self._queues.values() if queue]
        if heads:
            self._arm(min(heads))

    def close(self) -> None:
        """Forget everything."""
        self._queues.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, deadline: float) -> None:
        deadline = max(deadline, self._earliest)
        if deadline >= self._wake_at:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._wake_at = deadline
        self._handle = self._call_at(deadline, self.run_due)
