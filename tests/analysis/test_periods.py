"""Periods as clocks on the wall have them, and when anything was on record."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.analysis.periods import UNITS, Bucket, By, buckets, recorded, stamp, zone
from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.times import parse_stamp
from sipserver.storage.migrations import open_store
from support.record import DAY, HOUR, Record

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo",
    "America/Havana", "Pacific/Apia")  # fmt: skip


def at(text: str) -> int:
    return parse_stamp(f"{text}:00.000Z")


def hours(found: list[Bucket]) -> list[float]:
    return [(bucket.end - bucket.begin) / HOUR for bucket in found]


def test_days_of_23_and_25_hours() -> None:
    berlin = zone("Europe/Berlin")
    found = buckets(at("2026-03-27T23:00"), at("2026-03-30T22:00"), "day", berlin)
    assert hours(found) == [24, 23, 24]
    assert [bucket.label for bucket in found] == ["2026-03-28", "2026-03-29", "2026-03-30"]
    found = buckets(at("2026-10-23T22:00"), at("2026-10-26T23:00"), "day", berlin)
    assert hours(found) == [24, 25, 24]


def test_hour_that_comes_twice_is_two() -> None:
    found = buckets(at("2026-10-24T23:00"), at("2026-10-25T03:00"), "hour", zone("Europe/Berlin"))
    assert [bucket.label for bucket in found] == [
        "2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00",
    ]  # fmt: skip
    assert hours(found) == [1, 1, 1, 1]


def test_day_that_begins_at_one_where_midnight_is_skipped() -> None:
    found = buckets(at("2026-03-07T05:00"), at("2026-03-10T04:00"), "day", zone("America/Havana"))
    assert hours(found) == [24, 23, 24]


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    berlin = zone("Europe/Berlin")
    found = buckets(at("2026-10-20T10:00"), at("2026-11-10T10:00"), "week", berlin)
    assert [bucket.label for bucket in found] == ["2026-10-20", "2026-10-26", "2026-11-02", "2026-11-09"]
    found = buckets(at("2026-09-30T22:00"), at("2026-11-30T23:00"), "month", berlin)
    assert [bucket.label for bucket in found] == ["2026-10-01", "2026-11-01"]
    assert hours(found) == [31 * 24 + 1, 30 * 24]


@given(
    begin=st.integers(1_000_000_000, 2_000_000_000).map(lambda second: second * 1000),
    length=st.integers(1, 100 * DAY),
    by=st.sampled_from(UNITS),
    name=st.sampled_from(ZONES),
)
def test_pieces_cover_the_period_without_gaps(begin: int, length: int, by: By, name: str) -> None:
    found = buckets(begin, begin + length, by, zone(name))
    assert found[0].begin == begin
    assert found[-1].end == begin + length
    assert all(one.end == other.begin for one, other in pairwise(found))
    longest = {"hour": 1, "day": 49, "week": 8 * 24, "month": 32 * 24}[by]
    assert all(0 < each <= longest for each in hours(found))


def test_zone_that_is_none_is_refused() -> None:
    for name in ("Europe/Nowhere", "", "../etc/passwd", "/etc/passwd"):
        with pytest.raises(ValueError, match="is no time zone"):
            zone(name)


def test_too_many_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="use longer pieces"):
        buckets(0, 40 * 365 * DAY, "hour", zone("UTC"))


def test_recorded_is_when_servers_ran(tmp_path: Path) -> None:
    made = Record(tmp_path, 1, calls=0)
    begin = at("2026-10-23T00:00")
    made.run(begin, begin + 5 * HOUR)
    made.run(begin + 4 * HOUR, begin + 6 * HOUR)
    made.run(begin + 8 * HOUR, begin + 10 * HOUR, killed=True)
    found = recorded(made.connection)
    assert found.spans == [(begin, begin + 6 * HOUR), (begin + 8 * HOUR, begin + 10 * HOUR)]
    assert found.within(begin + 5 * HOUR, begin + 9 * HOUR) == 2 * HOUR
    assert found.within(begin + 6 * HOUR, begin + 8 * HOUR) == 0
    assert (found.first, found.last) == (begin, begin + 10 * HOUR)
    made.connection.close()


def test_store_without_runs_is_recorded_as_far_as_its_calls(tmp_path: Path) -> None:
    connection = open_store(tmp_path / "calls.db", MIGRATIONS)
    assert recorded(connection).spans == []
    assert recorded(connection).last is None
    connection.execute(
        "INSERT INTO calls (id, call_id, started_at, ended_at) VALUES ('c', 'h', ?, ?)", (stamp(1_000), stamp(9_000))
    )
    assert recorded(connection).spans == [(1_000, 9_001)]
    connection.close()
