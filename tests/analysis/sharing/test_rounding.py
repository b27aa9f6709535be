"""Rounding to a base."""

from __future__ import annotations

from sipserver.analysis.sharing.rounding import Rounding

KEY = b"k" * 32


def test_the_same_cell_is_rounded_in_the_same_way_in_every_table_and_whenever_asked() -> None:
    first = Rounding(KEY, 5, "2026-11-02")
    again = Rounding(KEY, 5, "2026-11-02")
    for count in range(40):
        one = first("calls", {"weekday": "Monday", "hour": "07"}, count)
        assert one == again("calls", {"hour": "07", "weekday": "Monday"}, count)
        assert abs(one - count) < 5
        assert not one % 5


def test_multiples_and_zero_stay() -> None:
    assert [Rounding(KEY, 5, "w")("calls", {}, count) for count in (0, 5, 4_000)] == [0, 5, 4_000]
    assert Rounding(KEY, 1, "w")("calls", {}, 17) == 17


def test_counts_are_right_on_average() -> None:
    rounded = [Rounding(KEY, 5, "w")("calls", {"from": str(number)}, 12) for number in range(5_000)]
    assert set(rounded) == {10, 15}
    assert abs(sum(rounded) / 5_000 - 12) < 0.15


def test_another_key_cell_period_or_measure_draws_anew() -> None:
    def drawn(key: bytes, period: str, measure: str) -> list[int]:
        return [Rounding(key, 5, period)(measure, {"from": str(number)}, 12) for number in range(60)]

    ways = [drawn(KEY, "w", "calls"), drawn(b"x", "w", "calls"), drawn(KEY, "v", "calls"), drawn(KEY, "w", "errors")]
    assert len({tuple(each) for each in ways}) == 4


def test_more_in_a_cell_never_rounds_to_less() -> None:
    rounded = [Rounding(KEY, 5, "w")("calls", {"from": "AT"}, count) for count in range(200)]
    assert rounded == sorted(rounded)
