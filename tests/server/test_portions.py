"""Work that is done a portion at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from sipserver.server.portions import SHORTEST_PAUSE, Portions


class Bench:
    """Portions, and a loop that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.turns = 0
        self.faults: list[str] = []
        self.portions = Portions(
            lambda: self.now, lambda after, call: self.waiting.append((after, call)), self._turned,
            lambda fault: self.faults.append(str(fault)),
        )  # fmt: skip

    def _turned(self) -> None:
        self.turns += 1

    def turn(self) -> float:
        """Let the loop make the call that waits; after how long it wanted to be made."""
        ((after, call),) = self.waiting
        self.waiting.clear()
        call()
        return after


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_step_is_called_until_there_is_no_more(bench: Bench) -> None:
    left = [True, True, False]
    bench.portions.go_on(lambda: left.pop(0))
    while bench.waiting:
        bench.turn()
    assert (left, len(bench.portions), bench.turns) == ([], 0, 3)


def test_step_that_goes_on_is_not_called_twice(bench: Bench) -> None:
    calls: list[int] = []

    def step() -> bool:
        calls.append(1)
        return len(calls) < 2

    bench.portions.go_on(step)
    bench.portions.go_on(step)
    assert step in bench.portions
    bench.turn()
    bench.turn()
    assert (len(calls), bench.waiting) == (2, [])


def test_steps_take_turns_one_at_a_time(bench: Bench) -> None:
    done: list[str] = []

    def step(name: str) -> bool:
        done.append(name)
        return len(done) < 4

    bench.portions.go_on(partial(step, "a"))
    bench.portions.go_on(partial(step, "b"))
    for number in range(4):
        assert len(done) == number
        bench.turn()
    assert done == ["a", "b", "a", "b"]


def test_others_have_as_long_as_a_portion_takes(bench: Bench) -> None:
    def step() -> bool:
        bench.now += 0.003
        return True

    bench.portions.go_on(step)
    assert bench.turn() == SHORTEST_PAUSE
    assert bench.turn() == pytest.approx(0.003)


def test_step_that_fails_is_told_of_and_stops_no_other(bench: Bench) -> None:
    done: list[int] = []
    bench.portions.go_on(lambda: bool(1 // len(done)))

    def step() -> bool:
        done.append(1)
        return False

    bench.portions.go_on(step)
    bench.turn()
    bench.turn()
    assert (len(bench.faults), done, len(bench.portions)) == (1, [1], 0)


def test_nothing_is_done_once_it_is_over(bench: Bench) -> None:
    done: list[str] = []

    def step() -> bool:
        done.append("a")
        bench.portions.stop()
        return True

    def other() -> bool:
        done.append("b")
        return False

    bench.portions.go_on(step)
    bench.portions.go_on(other)
    bench.turn()
    bench.portions.go_on(other)
    assert (done, bench.waiting, len(bench.portions)) == (["a"], [], 0)


def test_turn_that_was_asked_for_before_it_was_over_does_nothing(bench: Bench) -> None:
    bench.portions.go_on(lambda: True)
    bench.portions.stop()
    bench.turn()
    assert (bench.turns, bench.waiting, bench.faults) == (0, [], [])
