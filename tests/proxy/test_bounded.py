"""Dictionaries that forget what came first."""

from __future__ import annotations

import pytest

from sipserver.proxy.bounded import Latest, forget_oldest


@pytest.mark.parametrize(("size", "gone"), [(1, 1), (100, 1), (1_280, 10)])
def test_the_oldest_go_and_not_one_by_one_where_there_are_many(size: int, gone: int) -> None:
    entries = dict.fromkeys(range(size))
    assert forget_oldest(entries) == gone
    assert list(entries) == list(range(gone, size))


def test_latest_are_kept_and_the_oldest_forgotten() -> None:
    latest: Latest[int] = Latest(2)
    assert [latest.put(key, number) for number, key in enumerate("abca")] == [0, 0, 1, 1]
    assert (len(latest), latest.get("a"), latest.get("b"), latest.get("c")) == (2, 3, None, 2)
    latest.put("c", 7)
    latest.pop("a")
    latest.pop("a")
    assert (len(latest), latest.get("c")) == (1, 7)


def test_no_part_of_very_many_takes_long_to_copy() -> None:
    latest: Latest[int] = Latest(200_000)
    for number in range(250_000):
        latest.put(f"{number:016x}", number)
    assert 190_000 < len(latest) <= 200_000
    assert latest.get(f"{249_999:016x}") == 249_999
    # At 50 ns an entry it takes half a millisecond.
    assert max(map(len, latest._parts)) <= 12_500
