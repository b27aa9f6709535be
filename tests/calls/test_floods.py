"""Folding what repeats."""

from __future__ import annotations

from sipserver.calls.floods import Floods


def test_nothing_joins_a_row_that_was_not_opened() -> None:
    assert not Floods().join("key", 0)


def test_occurrences_join_an_open_row_within_the_window() -> None:
    floods = Floods(window_ms=1_000)
    floods.open("key", "row", 0)
    assert floods.join("key", 10)
    assert floods.join("key", 999)
    assert not floods.join("key", 1_000)
    assert not floods.join("other", 10)
    (fold,) = floods.take_changed(1_000)
    assert (fold.id, fold.count, fold.last_at) == ("row", 3, 999)


def test_a_count_is_told_once() -> None:
    floods = Floods(window_ms=1_000)
    floods.open("key", "row", 0)
    floods.join("key", 10)
    assert len(floods.take_changed(20)) == 1
    assert floods.take_changed(30) == []
    floods.join("key", 40)
    assert floods.take_changed(50)[0].count == 3


def test_a_clock_that_is_set_back_opens_a_new_row() -> None:
    floods = Floods(window_ms=1_000)
    floods.open("key", "row", 50_000)
    assert not floods.join("key", 10_000)


def test_rows_are_bounded_and_old_ones_make_room() -> None:
    floods = Floods(window_ms=1_000, max_open=2)
    floods.open("a", "row a", 0)
    assert not floods.full(0)
    floods.open("b", "row b", 600)
    assert floods.full(700)
    assert not floods.full(1_100)
    assert len(floods) == 1


def test_a_row_that_is_opened_again_counts_as_new() -> None:
    floods = Floods(window_ms=1_000)
    floods.open("a", "row a", 0)
    floods.open("b", "row b", 500)
    floods.open("a", "row a again", 1_200)
    floods.take_changed(1_500)
    assert len(floods) == 1
    assert floods.join("a", 1_600)


def test_last_of_a_row_is_never_before_its_first() -> None:
    floods = Floods(window_ms=1_000)
    floods.open("key", "row", 500)
    assert floods.join("key", 400)
    (fold,) = floods.take_changed(600)
    assert (fold.count, fold.last_at) == (2, 500)
