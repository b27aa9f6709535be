"""Many timers, one wake-up."""

from __future__ import annotations

import pytest

from sipserver.server.timers import MAX_FIRED_AT_ONCE, TimerQueue
from support.inprocess import ManualLoop


class Owner:
    """Notes what is due; fails when told to."""

    def __init__(self, loop: ManualLoop) -> None:
        self.fired: list[tuple[float, str]] = []
        self._loop = loop

    def on_timer(self, timer: str) -> None:
        """Due."""
        if timer == "fails":
            raise RuntimeError(timer)
        self.fired.append((self._loop.now - 1000.0, timer))


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


def test_timers_fire_in_order_of_time_whatever_their_durations(loop: ManualLoop) -> None:
    timers, owner = TimerQueue(loop.time, loop.call_at), Owner(loop)
    timers.add(4.0, owner, "late")
    timers.add(0.5, owner, "early")
    loop.advance(0.25)
    timers.add(0.5, owner, "second")
    assert (len(timers), owner.fired) == (3, [])
    loop.advance(10)
    assert owner.fired == [(0.5, "early"), (0.75, "second"), (4.0, "late")]
    assert (len(timers), timers.fired) == (0, 3)


def test_timer_may_set_the_next_one(loop: ManualLoop) -> None:
    timers = TimerQueue(loop.time, loop.call_at)

    class Repeating(Owner):
        def on_timer(self, timer: str) -> None:
            super().on_timer(timer)
            if len(self.fired) < 4:
                timers.add(0.5, self, timer)

    owner = Repeating(loop)
    timers.add(0.5, owner, "again")
    loop.advance(5)
    assert [at for at, _ in owner.fired] == [0.5, 1.0, 1.5, 2.0]


def test_crowd_of_timers_is_served_in_several_goes(loop: ManualLoop) -> None:
    goes: list[int] = []
    timers = TimerQueue(loop.time, loop.call_at, lambda: goes.append(len(owner.fired)))
    owner = Owner(loop)
    for _ in range(MAX_FIRED_AT_ONCE + 1):
        timers.add(1.0, owner, "x")
    loop.advance(1)
    assert goes == [MAX_FIRED_AT_ONCE, MAX_FIRED_AT_ONCE + 1]


def test_owner_that_fails_stops_no_other_timer(loop: ManualLoop) -> None:
    goes: list[int] = []
    timers = TimerQueue(loop.time, loop.call_at, lambda: goes.append(len(owner.fired)))
    owner = Owner(loop)
    timers.add(1.0, owner, "fails")
    timers.add(1.0, owner, "next")
    timers.add(2.0, owner, "later")
    with pytest.raises(RuntimeError):
        loop.advance(1)
    loop.advance(1)
    assert [timer for _, timer in owner.fired] == ["next", "later"]
    assert goes == [0, 1, 2]


def test_durations_that_are_not_used_any_more_are_forgotten(loop: ManualLoop) -> None:
    timers, owner = TimerQueue(loop.time, loop.call_at), Owner(loop)
    for number in range(100):
        timers.add(number / 10, owner, "x")
    loop.advance(20)
    assert len(owner.fired) == 100
    assert len(timers._queues) <= 65


def test_closed_queue_fires_nothing(loop: ManualLoop) -> None:
    timers, owner = TimerQueue(loop.time, loop.call_at), Owner(loop)
    timers.close()
    timers.add(1.0, owner, "x")
    timers.close()
    loop.advance(2)
    assert owner.fired == []


def test_cancelled_timer_wakes_nobody(loop: ManualLoop) -> None:
    goes: list[float] = []
    timers = TimerQueue(loop.time, loop.call_at, lambda: goes.append(round(loop.now - 1000.0, 3)))
    owner = Owner(loop)
    timers.add(0.1, owner, "first")
    loop.advance(0.05)
    timers.add(0.1, owner, "not wanted").cancel()
    timers.add(0.2, owner, "last")
    loop.advance(1)
    assert ([timer for _, timer in owner.fired], goes) == (["first", "last"], [0.1, 0.25])
    assert len(timers) == 0


def test_timers_of_sip_may_wait_for_each_other(loop: ManualLoop) -> None:
    goes: list[float] = []
    timers = TimerQueue(loop.time, loop.call_at, lambda: goes.append(round(loop.now - 1000.0, 3)))
    owner = Owner(loop)
    for _ in range(4):
        timers.add(0.5, owner, "x")
        loop.advance(0.015)
    timers.add(0.48, owner, "short")
    loop.advance(1)
    # Those at 0.515 and 0.53 come with a shorter one, which is exact.
    assert goes == [0.5, 0.54, 0.59]
    assert len(owner.fired) == 5
