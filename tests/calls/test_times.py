"""Times and identifiers."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls import times
from sipserver.calls.times import Stamp, parse_stamp, uuid7

AT = 1_795_467_737_942
TEXT = "2026-11-23T21:02:17.942Z"


def test_a_time_is_written_as_utc_with_milliseconds() -> None:
    assert Stamp()(AT) == TEXT


def test_milliseconds_keep_their_zeros() -> None:
    stamp = Stamp()
    assert stamp(AT) == TEXT
    assert stamp(AT - 940) == "2026-11-23T21:02:17.002Z"
    assert stamp(AT + 58) == "2026-11-23T21:02:18.000Z"


def test_no_time_stays_none() -> None:
    assert Stamp()(None) is None


def test_what_is_remembered_is_bounded() -> None:
    stamp = Stamp()
    for second in range(times.MAX_SECONDS + 2):
        stamp(AT + second * 1_000)
    assert len(stamp._prefixes) <= times.MAX_SECONDS
    assert stamp(AT) == TEXT


@given(st.integers(0, 4_102_444_800_000))
def test_a_time_that_was_written_can_be_read(at: int) -> None:
    assert parse_stamp(Stamp()(at) or "") == at


@pytest.mark.parametrize("text", ["", "2026-11-23", "2026-11-23T21:02:17Z", TEXT[:-1] + "X", "x" * 19 + ".000Z"])
def test_another_text_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        parse_stamp(text)


def test_uuid_is_of_version_7() -> None:
    found = uuid.UUID(uuid7(AT, bytes(range(10))))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == AT


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_uuids_sort_by_time(first: bytes, second: bytes) -> None:
    assert uuid7(AT, first) < uuid7(AT + 1, second)
