"""Pieces of time that are shared."""

from __future__ import annotations

import pytest

from sipserver.analysis.periods import zone
from sipserver.analysis.sharing.blocks import Block, begin_of, last_whole, whole_blocks
from sipserver.calls.times import parse_stamp

UTC = zone("UTC")
BERLIN = zone("Europe/Berlin")


def at(text: str) -> int:
    return parse_stamp(f"{text}:00.000Z")


def test_weeks_begin_on_monday_and_months_on_their_first_day() -> None:
    assert begin_of(at("2026-11-27T13:45"), "week", UTC) == at("2026-11-23T00:00")
    assert begin_of(at("2026-11-23T00:00"), "week", UTC) == at("2026-11-23T00:00")
    assert begin_of(at("2026-11-27T13:45"), "month", UTC) == at("2026-11-01T00:00")
    # Sunday by UTC, and Monday in Berlin.
    assert begin_of(at("2026-11-22T23:30"), "week", BERLIN) == at("2026-11-22T23:00")


def test_last_block_is_one_that_is_over() -> None:
    assert last_whole(at("2026-11-27T13:45"), "week", UTC) == (at("2026-11-16T00:00"), at("2026-11-23T00:00"))
    assert last_whole(at("2026-11-23T00:00"), "week", UTC) == (at("2026-11-16T00:00"), at("2026-11-23T00:00"))
    assert last_whole(at("2026-03-01T00:00"), "month", UTC) == (at("2026-02-01T00:00"), at("2026-03-01T00:00"))


def test_period_is_cut_in_its_blocks_across_a_change_of_the_clock() -> None:
    found = whole_blocks(at("2026-10-18T22:00"), at("2026-11-01T23:00"), "week", BERLIN)
    assert [each.label for each in found] == ["2026-10-19", "2026-10-26"]
    assert found[0].end - found[0].begin == (7 * 24 + 1) * 3_600_000


@pytest.mark.parametrize(
    ("begin", "end", "by", "instead"),
    [
        ("2026-11-02T00:00", "2026-11-22T00:00", "week", "weeks: use --from 2026-11-02 --to 2026-11-23"),
        ("2026-11-03T00:00", "2026-11-16T00:00", "week", "weeks: use --from 2026-11-02 --to 2026-11-16"),
        ("2026-11-02T00:00", "2026-11-16T00:01", "week", "weeks: use --from 2026-11-02 --to 2026-11-23"),
        ("2026-11-01T00:00", "2026-11-30T00:00", "month", "months: use --from 2026-11-01 --to 2026-12-01"),
        ("2026-11-10T00:00", "2026-11-11T00:00", "month", "months: use --from 2026-11-01 --to 2026-12-01"),
    ],
)
def test_a_day_more_or_less_cannot_be_had(begin: str, end: str, by: Block, instead: str) -> None:
    with pytest.raises(ValueError, match=instead):
        whole_blocks(at(begin), at(end), by, UTC)
