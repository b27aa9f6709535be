"""Carried traffic and peaks against counting call by call."""

from __future__ import annotations

import math

import pytest

from sipserver.analysis.periods import buckets, zone
from sipserver.analysis.traffic import Cell, cells, channels_for, erlang_b, hourly
from support.record import BEGIN, DAY, END, HOUR, Record, stamp

KNOWN = END + 3 * HOUR
QUARTER = HOUR // 4


def spans(record: Record, *, most: bool) -> list[tuple[int, int]]:
    """From when to when each answered call was up."""
    found = []
    for call in record.calls:
        if "answered_at" in call:
            ended = call.get("ended_at", KNOWN)
            found.append((call["answered_at"], ended + ((call.get("end_uncertainty_ms") or 0) if most else 0)))
    return found


def talk_in(begin: int, end: int, calls: list[tuple[int, int]]) -> int:
    return sum(max(0, min(end, to) - max(begin, since)) for since, to in calls)


def most_at_once(begin: int, end: int, calls: list[tuple[int, int]]) -> int:
    """It can only grow at the beginning of a call, or be highest at the very beginning."""
    moments = [begin, *(since for since, _ in calls if begin <= since < end)]
    return max(sum(since <= at < to for since, to in calls) for at in moments)


def filled(record: Record, begin: int, end: int, cuts: list[int]) -> list[Cell]:
    found = cells(begin, end, cuts)
    record.source.sweep(found, "", {}, KNOWN, lambda _: None)
    return found


@pytest.mark.parametrize(("begin", "end"), [(BEGIN, END), (BEGIN + DAY + 7 * 60_000, END - 5 * HOUR)])
def test_cells_hold_what_was_up(record: Record, begin: int, end: int) -> None:
    cuts = [bucket.begin for bucket in buckets(begin, end, "hour", zone("Asia/Kathmandu"))]
    found = filled(record, begin, end, [*cuts, begin + 61 * 60_000])
    sure, most = spans(record, most=False), spans(record, most=True)
    assert len(found) >= (end - begin) // QUARTER
    for cell in found:
        assert cell.talk_ms == talk_in(cell.begin, cell.end, sure)
        assert cell.talk_most_ms == talk_in(cell.begin, cell.end, most)
        assert cell.peak == most_at_once(cell.begin, cell.end, sure)
        assert cell.peak_most == most_at_once(cell.begin, cell.end, most)


def test_call_of_days_counts_in_each(record: Record) -> None:
    long = {"id": "long", "call_id": "h", "started_at": BEGIN - 9 * DAY, "answered_at": BEGIN - 9 * DAY,
        "ended_at": END + DAY, "talk_ms": 15 * DAY, "outcome": "answered", "end_cause": "bye"}  # fmt: skip
    before = filled(record, BEGIN, END, [])
    record.insert("calls", long)
    after = filled(record, BEGIN, END, [])
    assert all(b.talk_ms == a.talk_ms + QUARTER for a, b in zip(before, after, strict=True))
    assert all(b.peak == a.peak + 1 for a, b in zip(before, after, strict=True))


def test_view_of_traffic_says_the_same(record: Record) -> None:
    view = dict(record.connection.execute("SELECT hour, erlang FROM v_traffic_by_hour").fetchall())
    over = [span for call, span in zip(
        [call for call in record.calls if "answered_at" in call], spans(record, most=False), strict=True
    ) if "ended_at" in call]  # fmt: skip
    for begin in range(BEGIN, END, HOUR):
        expected = talk_in(begin, begin + HOUR, over) / HOUR
        assert view.get(stamp(begin), 0) == pytest.approx(expected, abs=1e-6)


def test_hours_are_sums_of_quarters(record: Record) -> None:
    found = filled(record, BEGIN, END, [])
    sure = spans(record, most=False)
    hourly_sums = dict(hourly(found))
    assert len(hourly_sums) == (END - BEGIN) // QUARTER - 3
    for begin, talk in hourly_sums.items():
        assert talk == talk_in(begin, begin + HOUR, sure)


def test_erlang_b_is_the_formula() -> None:
    for traffic in (0.3, 4.0, 20.0):
        for channels in (0, 1, 5, 30):
            terms = [traffic**n / math.factorial(n) for n in range(channels + 1)]
            assert erlang_b(traffic, channels) == pytest.approx(terms[-1] / sum(terms))


def test_channels_are_the_fewest_that_do() -> None:
    # A line of the tables in every textbook: 12.0 Erlang with 20 channels lose 1 in 100.
    assert channels_for(12.0, 0.01) == 20
    assert channels_for(0.0, 0.01) == 1
    for traffic in (0.5, 7.7, 150.0):
        channels = channels_for(traffic, 0.02)
        assert erlang_b(traffic, channels) <= 0.02 < erlang_b(traffic, channels - 1)
