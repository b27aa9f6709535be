"""UNIX time that follows the machine's clock without jumping."""

from __future__ import annotations

import pytest

from sipserver.server.clock import SLEW, STEP, Clock


class Times:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.wall = 1_795_000_000.0
        self.monotonic = 50.0

    def pass_(self, seconds: float) -> None:
        """Both go on."""
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def clock(times: Times) -> Clock:
    return Clock(lambda: times.wall, lambda: times.monotonic)


def test_time_goes_on_with_the_monotonic_clock(times: Times, clock: Clock) -> None:
    times.monotonic += 10
    assert clock() == 1_795_000_010.0


def test_small_difference_is_made_up_in_small_steps(times: Times, clock: Clock) -> None:
    times.wall += 0.002
    before = clock()
    assert clock.correct() == 0.0
    assert clock() - before == pytest.approx(SLEW, abs=1e-6)
    for _ in range(10):
        clock.correct()
    assert clock() == pytest.approx(times.wall, abs=1e-6)


def test_time_never_goes_back_by_more_than_the_slew(times: Times, clock: Clock) -> None:
    times.wall -= 1.0
    before = clock()
    clock.correct()
    assert before - clock() <= SLEW + 1e-6


@pytest.mark.parametrize("step", [STEP, 3600.0, -86_400.0])
def test_clock_that_was_set_is_followed_at_once(times: Times, clock: Clock, step: float) -> None:
    times.wall += step
    assert clock.correct() == pytest.approx(step)
    assert clock() == pytest.approx(times.wall)
    times.pass_(3)
    assert clock.correct() == 0.0
    assert clock() == pytest.approx(times.wall)
