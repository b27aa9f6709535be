"""How long registrations take, counted."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.calls.activity import ActivityRecords
from sipserver.calls.delays import BOUNDS, FLUSHES
from sipserver.calls.recorder import Recorder
from support.calls import Store, T, activity_records

NOW = T / 1000


@pytest.fixture
def activity(store: Store, recorder: Recorder) -> ActivityRecords:
    return activity_records(store, recorder)


def rows(store: Store) -> list[tuple[Any, ...]]:
    return [(row["outcome"], row["up_to_ms"], row["count"]) for row in store.all("registration_delays")]


def note(activity: ActivityRecords, *delays: float, accepted: bool = True) -> None:
    """Registrations that took so many milliseconds."""
    for delay in delays:
        activity.delays.note(NOW, NOW + delay / 1000, accepted=accepted)


def test_delays_are_counted_by_how_long_and_written_once_a_minute(store: Store, activity: ActivityRecords) -> None:
    note(activity, 0.2, 0.4, 4.7, 5.2, 40_000)
    note(activity, 300, accepted=False)
    for _ in range(FLUSHES - 1):
        activity.flush()
    assert store.rows == []
    activity.flush()
    assert rows(store) == [("accepted", 1, 2), ("accepted", 6, 2), ("accepted", 65_536, 1), ("refused", 384, 1)]
    assert store.one("registration_delays WHERE up_to_ms = 1")["at"] == "2026-11-23T21:02:17.942Z"
    for _ in range(2 * FLUSHES):
        activity.flush()
    assert len(rows(store)) == 4


def test_what_was_counted_is_written_at_the_stop(store: Store, activity: ActivityRecords) -> None:
    note(activity, 1)
    activity.flush(stopping=True)
    assert len(rows(store)) == 1


def test_longer_than_all_bounds_and_a_clock_that_went_back(store: Store, activity: ActivityRecords) -> None:
    note(activity, 2 * BOUNDS[-1], -5_000)
    activity.flush(stopping=True)
    assert rows(store) == [("accepted", BOUNDS[-1], 1)]


def test_row_that_is_written_again_counts_once_and_what_the_queue_refuses_waits(
    store: Store, activity: ActivityRecords
) -> None:
    note(activity, 1.5, 100)
    store.room = 1
    activity.flush(stopping=True)
    again = list(store.rows)
    store.commit()
    store.rows = again
    assert rows(store) == [("accepted", 2, 1)]
    store.room = 10
    note(activity, 1.5)
    activity.flush(stopping=True)
    assert rows(store) == [("accepted", 2, 1), ("accepted", 2, 1), ("accepted", 128, 1)]
