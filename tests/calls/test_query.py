"""Reading the record for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.calls.events import CALLEE, CALLER, SERVER, Answered, Ended, Failed, Placed, Tried
from sipserver.calls.query import list_calls, show_call
from sipserver.calls.recorder import Recorder
from support.calls import Store, T

Find = Callable[..., list[str]]


@pytest.fixture
def find(store: Store, recorder: Recorder) -> Find:
    """Five calls, a second apart; what a listing finds of them, by their number."""
    parties = [("p_a", "p_b"), ("p_b", "p_a"), ("p_a", "p_c"), ("p_c", None), ("p_a", "p_a")]
    for number, (caller, callee) in enumerate(parties):
        at = T + number * 1_000
        recorder.place(Placed(at, f"k{number}", "call", caller, callee, agent=str(number)))
        recorder.handle(f"k{number}", Tried(at, 0))
    recorder.handle("k0", Answered(T + 10, 0))
    recorder.handle("k0", Ended(T + 500, CALLER))
    recorder.handle("k1", Failed(T + 1_500, 486, CALLEE))
    recorder.handle("k3", Failed(T + 3_500, 404, SERVER))
    store.commit()

    def numbers(**filters: Any) -> list[str]:
        return [row["caller_agent"] for row in list_calls(store.connection, **filters)]

    return numbers


def test_newest_first(find: Find) -> None:
    assert find() == ["4", "3", "2", "1", "0"]
    assert find(limit=2) == ["4", "3"]


def test_since_is_included_and_until_is_not(find: Find) -> None:
    assert find(since=T + 1_000) == ["4", "3", "2", "1"]
    assert find(until=T + 1_000) == ["0"]
    assert find(since=T + 1_000, until=T + 3_000) == ["2", "1"]


def test_party_on_either_side_and_once(find: Find) -> None:
    assert find(party="p_a") == ["4", "2", "1", "0"]
    assert find(party="p_c") == ["3", "2"]
    assert find(party="p_a", limit=2) == ["4", "2"]
    assert find(party="nobody") == []


def test_outcome(find: Find) -> None:
    assert find(outcome="answered") == ["0"]
    assert find(outcome="busy", party="p_a") == ["1"]


def test_open_calls(find: Find) -> None:
    assert find(open_only=True) == ["4", "2"]
    assert find(open_only=True, party="p_c") == ["2"]
    assert find(open_only=True, until=T + 3_000) == ["2"]


def test_listing_uses_an_index(store: Store, find: Find) -> None:
    statements: list[str] = []
    store.connection.set_trace_callback(statements.append)
    for filters in ({}, {"party": "p_a"}, {"open_only": True}, {"since": T}):
        find(**filters)
    store.connection.set_trace_callback(None)
    assert len(statements) == 4
    for statement in statements:
        plan = [row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert not any(step == "SCAN calls" for step in plan), plan


def test_one_call_with_all_that_belongs_to_it(store: Store, find: Find) -> None:
    row_id = list_calls(store.connection)[-1]["id"]
    call = show_call(store.connection, row_id.upper())
    assert call is not None
    assert call["outcome"] == "answered"
    assert [row["outcome"] for row in call["branches"]] == ["answered"]
    assert call["media"] == []
    assert [row["kind"] for row in call["events"]] == ["placed", "answered", "ended"]


def test_one_call_by_the_beginning_of_its_id(store: Store, find: Find) -> None:
    row_id = list_calls(store.connection)[0]["id"]
    call = show_call(store.connection, row_id[:13])
    assert call is not None
    assert call["id"] == row_id
    with pytest.raises(LookupError, match="several"):
        show_call(store.connection, row_id[:6])


@pytest.mark.parametrize("row_id", ["", "  ", "ffff", "%", "'"])
def test_no_such_call(store: Store, find: Find, row_id: str) -> None:
    assert show_call(store.connection, row_id) is None
