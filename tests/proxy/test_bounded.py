"""Dictionaries that forget what came first."""

from __future__ import annotations

import pytest

from sipserver.proxy.bounded import forget_oldest


@pytest.mark.parametrize(("size", "gone"), [(1, 1), (100, 1), (1_280, 10)])
def test_the_oldest_go_and_not_one_by_one_where_there_are_many(size: int, gone: int) -> None:
    entries = dict.fromkeys(range(size))
    assert forget_oldest(entries) == gone
    assert list(entries) == list(range(gone, size))
