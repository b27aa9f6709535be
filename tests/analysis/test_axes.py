"""Axes: marks at round times of a zone, scales that hold what they have to, gaps that are seen, sums that stay."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.analysis.axes import gaps_of, scale_for, spread, thinned, time_ticks, with_other
from sipserver.analysis.periods import DAY_MS, HOUR_MS, MINUTE_MS, Bucket, buckets
from support.record import BEGIN

ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe")
LENGTHS = (MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 23 * HOUR_MS, DAY_MS, 25 * HOUR_MS, 3 * DAY_MS, 7 * DAY_MS,
    31 * DAY_MS, 62 * DAY_MS, 365 * DAY_MS, 800 * DAY_MS, 4_000 * DAY_MS)  # fmt: skip


@pytest.mark.parametrize("where", ZONES)
@pytest.mark.parametrize("length", LENGTHS)
def test_marks_are_round_times_of_the_zone(where: str, length: int) -> None:
    zone = ZoneInfo(where)
    rng = Random(length)
    for _ in range(5):
        begin = BEGIN - 400 * DAY_MS + rng.randrange(800 * DAY_MS // MINUTE_MS) * MINUTE_MS
        ticks = time_ticks(begin, begin + length, zone)
        places = [tick.at for tick in ticks]
        assert 1 <= len(ticks) <= 12
        assert places == sorted(set(places))
        assert all(begin <= at <= begin + length for at in places)
        for tick in ticks:
            local = datetime.fromtimestamp(tick.at / 1000, zone)
            if ":" in tick.text:
                assert tick.text == f"{local:%H:%M}"
            elif len(ticks) > 1:
                assert (local.hour, local.minute) == (0, 0)
                assert tick.text in {f"{local.day} {local:%b}", f"{local:%b}", f"{local:%b %Y}", f"{local.year}"}


def test_marks_of_a_day_of_25_hours_stand_where_its_hours_are() -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight = int(datetime(2026, 10, 25, tzinfo=zone).timestamp()) * 1000
    found = {tick.text: (tick.at - midnight) / HOUR_MS for tick in time_ticks(midnight, midnight + 25 * HOUR_MS, zone)}
    assert found == {
        "25 Oct": 0, "03:00": 4, "06:00": 7, "09:00": 10, "12:00": 13, "15:00": 16, "18:00": 19, "21:00": 22,
        "26 Oct": 25,
    }  # fmt: skip


@given(st.floats(1e-6, 1e12), st.integers(1, 9))
def test_scale_holds_the_highest_and_no_more_than_needed(highest: float, steps: int) -> None:
    scale = scale_for(highest, steps)
    assert scale[0] == 0
    assert scale[-2] < highest <= scale[-1] * (1 + 1e-8)
    assert len(scale) - 1 <= steps


@given(st.integers(1, 10**9), st.integers(1, 9))
def test_scale_of_counts_is_whole(highest: int, steps: int) -> None:
    scale = scale_for(highest, steps, (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), whole=True)
    assert all(each == int(each) for each in scale)
    assert scale[-2] < highest <= scale[-1]
    assert len(scale) - 1 <= steps


def test_scale_of_nothing_has_room() -> None:
    assert scale_for(0) == (0, 1)


@given(st.lists(st.floats(0, 100), max_size=6).map(sorted))
def test_names_keep_apart_in_their_order(places: list[float]) -> None:
    found = spread(places, 16, 250)
    assert len(found) == len(places)
    assert all(after - before >= 16 - 1e-9 for before, after in pairwise(found))
    assert all(at <= 250 for at in found)


def test_names_that_have_room_stay_where_they_are() -> None:
    assert spread([10, 40, 240], 16, 250) == [10, 40, 240]
    assert spread([240, 245], 16, 250) == [234, 250]


@pytest.mark.parametrize("count", [0, 1, 799, 800, 801, 8_760])
def test_joined_neighbours_keep_what_is_highest_and_what_is_absent(count: int) -> None:
    rng = Random(count)
    pieces = buckets(BEGIN, BEGIN + count * HOUR_MS, "hour", ZoneInfo("UTC"))
    values = tuple(None if at < 60 or rng.random() < 0.1 else rng.random() for at in range(count))
    joined, (found,), of = thinned(pieces, [values])
    assert len(joined) == len(found) <= 800
    assert [(each.begin, each.end) for each in joined] == [
        (pieces[at].begin, pieces[min(at + of, count) - 1].end) for at in range(0, count, of)
    ]
    known = [value for value in values if value is not None]
    assert max(known, default=None) == max((value for value in found if value is not None), default=None)
    assert found[: 60 // of] == (None,) * min(60 // of, len(found)), "an absent value is no 0"


def test_gaps_are_what_was_not_recorded() -> None:
    rng = Random(5)
    for _ in range(50):
        edges = sorted(rng.sample(range(1_000), 2 * rng.randrange(6)))
        spans = list(zip(edges[::2], edges[1::2], strict=True))
        begin, end = 200, 900
        found = gaps_of(spans, begin, end)
        absent = {at for at in range(begin, end) if not any(since <= at < to for since, to in spans)}
        assert {at for since, to in found for at in range(since, to)} == absent
    assert gaps_of([(0, 500_000), (500_001, 1_000_000)], 0, 1_000_000) == (), "nobody could see it"


@given(st.lists(st.tuples(st.text(max_size=3), st.lists(st.integers(0, 99), min_size=2, max_size=2)), max_size=30))
def test_what_is_left_out_is_in_other(rows: list[tuple[str, list[int]]]) -> None:
    kept = with_other(rows, 6)
    assert len(kept) == min(len(rows), 6)
    for column in (0, 1):
        assert sum(values[column] for _, values in kept) == sum(values[column] for _, values in rows)
    if len(rows) > 6:
        assert kept[-1][0] == f"other ({len(rows) - 5})"
        assert min(sum(values) for _, values in kept[:-1]) >= sorted(sum(values) for _, values in rows)[-5]


def test_a_bucket_is_named_after_its_first() -> None:
    joined, _, _ = thinned([Bucket(at, at + 1, str(at)) for at in range(1_601)], [(1,) * 1_601])
    assert joined[1].label == "3"
