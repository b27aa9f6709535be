"""What the benchmark says of an overload."""

from __future__ import annotations

import pytest
from benchmark.limits import Level, Moment, Overloaded, quantile


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


def test_quantile_of_nothing_is_nothing() -> None:
    assert quantile([], 0.99) is None
    assert [quantile([0.001, 0.002, 0.003, 0.004], share) for share in (0.5, 0.99, 1.0)] == [3.0, 4.0, 4.0]
