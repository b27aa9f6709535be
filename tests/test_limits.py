"""What the benchmark says of an overload."""

from __future__ import annotations

from typing import Any

import pytest
from benchmark.limits import FIRST, HELD_SECONDS, Bench, Level, Moment, Overloaded, quantile
from benchmark.systems import BenchError


def moment(at: float, served: int, refused: int = 0) -> Moment:
    return Moment(at, served + refused, served, refused, 0, 0, 0, 0, 1.0, 2.0, None, 100.0)


def overloaded(*after: int) -> Overloaded:
    """Two seconds of it, and as many refused in each second after it."""
    found = Overloaded(500.0, 500.0, 2.0)
    found.moments = [moment(-1, 350), moment(0, 450, 900), moment(1, 400, 1100)]
    found.moments += [moment(2.0 + second, 300, refused) for second, refused in enumerate(after)]
    return found


def test_goodput_is_that_of_the_seconds_of_overload() -> None:
    found = overloaded(0, 0)
    assert [found.goodput, found.worst_goodput] == pytest.approx([0.85, 0.8])


@pytest.mark.parametrize(("after", "wanted"), [((0, 0), 0.0), ((9, 4, 0, 0), 2.0), ((9, 0, 1, 0), 3.0), ((5, 5), None)])
def test_recovered_is_from_when_on_nobody_is_refused(after: tuple[int, ...], wanted: float | None) -> None:
    assert overloaded(*after).recovered_after == wanted


def test_a_rate_is_sustained_where_everybody_is_served_at_once() -> None:
    def level(served: int, refused: int, resent: int) -> Level:
        return Level(100.0, 1000, served, refused, 0, resent, 0, 0, 1.0, 2.0, 3.0, 400.0, 0.1)

    assert level(1000, 0, 0).is_sustained
    assert not level(990, 0, 0).is_sustained
    assert not level(999, 1, 0).is_sustained
    assert not level(1000, 0, 50).is_sustained


class Machine(Bench):
    """Serves up to so many for some seconds, and up to so many for longer."""

    def __init__(self, shortly: float, lasting: float) -> None:
        self.shortly, self.lasting = shortly, lasting

    def generator(self, operation: str) -> Any:
        return None

    def measure(self, generator: object, rate: float, seconds: float) -> Level:
        refused = int(rate > (self.shortly if seconds < HELD_SECONDS else self.lasting))
        return Level(rate, 1000, 1000 - refused, refused, 0, 0, 0, 0, 1.0, 2.0, 3.0, 400.0, 0.1)


@pytest.mark.parametrize(("shortly", "lasting"), [(1000.0, 1000.0), (1000.0, 700.0), (1000.0, 60.0)])
def test_sustained_is_what_is_held_and_known_to_a_step(shortly: float, lasting: float) -> None:
    shown: list[Level] = []
    found = Machine(shortly, lasting).sustained("call", shown.append)
    assert lasting / 1.2 <= found.rate <= lasting
    assert shown[-1] is found


def test_a_machine_that_sustains_nothing_is_an_error() -> None:
    with pytest.raises(BenchError, match="not even 50"):
        Machine(1000.0, FIRST["register"] - 1).sustained("register", lambda _: None)
    with pytest.raises(BenchError, match="not even 50"):
        Machine(FIRST["register"] - 1, 1000.0).sustained("register", lambda _: None)


def test_quantile_of_nothing_is_nothing() -> None:
    assert quantile([], 0.99) is None
    assert [quantile([0.001, 0.002, 0.003, 0.004], share) for share in (0.5, 0.99, 1.0)] == [3.0, 4.0, 4.0]
