"""Places that did not answer lately: an order, no verdict."""

from __future__ import annotations

from sipserver.server import dead_targets
from sipserver.server.dead_targets import ALIVE, DEAD, DeadTargets
from sipserver.sip.locate import Place

ONE, TWO, THREE = (("UDP", f"192.0.2.{number}", 5060) for number in (1, 2, 3))
PLACES: list[Place] = [ONE, TWO, THREE]


class Bench:
    """Dead targets that tell what they note."""

    def __init__(self, lifetime: float = 60.0) -> None:
        self.noted: list[tuple[str, Place, float]] = []
        self.dead = DeadTargets(lifetime, lambda *noted: self.noted.append(noted))


def test_dead_places_are_tried_last_until_they_have_aged() -> None:
    bench = Bench()
    bench.dead.mark(ONE, now=100.0)
    assert bench.dead.live_first(PLACES, now=101.0) == [TWO, THREE, ONE]
    assert bench.dead.live_first(PLACES, now=160.0) == PLACES
    bench.dead.expire(now=160.0)
    assert len(bench.dead) == 0


def test_place_that_answers_is_taken_off() -> None:
    bench = Bench()
    bench.dead.mark(ONE, now=100.0)
    bench.dead.answered(ONE)
    bench.dead.answered(ONE)
    assert bench.dead.live_first(PLACES, now=101.0) == PLACES
    assert bench.noted == [(DEAD, ONE, 60.0), (ALIVE, ONE, 0.0)]


def test_where_all_are_dead_all_are_tried() -> None:
    bench = Bench()
    for place in PLACES:
        bench.dead.mark(place, now=100.0)
    assert bench.dead.live_first(PLACES, now=101.0) == PLACES
    assert bench.dead.live_first([ONE], now=101.0) == [ONE]
    assert bench.dead.marked == 3


def test_marking_again_lasts_longer_and_is_no_news() -> None:
    bench = Bench()
    bench.dead.mark(ONE, now=100.0)
    bench.dead.mark(ONE, now=150.0)
    assert bench.dead.live_first(PLACES, now=170.0) == [TWO, THREE, ONE]
    assert (bench.dead.marked, len(bench.noted)) == (1, 1)


def test_who_asks_for_a_pause_gets_it_within_bounds() -> None:
    bench = Bench()
    bench.dead.mark(ONE, now=100.0, lifetime=10)
    bench.dead.mark(TWO, now=100.0, lifetime=999_999)
    bench.dead.mark(THREE, now=100.0, lifetime=0)
    assert bench.noted == [(DEAD, ONE, 10), (DEAD, TWO, 60.0)]


def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    bench = Bench(0)
    bench.dead.mark(ONE, now=100.0)
    assert len(bench.dead) == 0


def test_memory_is_bounded() -> None:
    bench = Bench()
    for number in range(dead_targets.MAX_PLACES + 10):
        bench.dead.mark(("UDP", "192.0.2.1", number), now=100.0)
    assert len(bench.dead) == dead_targets.MAX_PLACES
    bench.dead.mark(TWO, now=500.0)
    assert len(bench.dead) == 1
