"""Reading errors."""

from __future__ import annotations

from sipserver.calls.errors import error_rates, errors_of_call, list_errors
from sipserver.calls.events import Placed
from sipserver.calls.recorder import Recorder
from support.calls import Store, T


def test_errors_are_found_by_time_party_and_call(store: Store, recorder: Recorder) -> None:
    call = recorder.place(Placed(T, "k", "x", "p_a", "p_b", agent="Acme/1"))
    recorder.error(at=T, kind="peer_error", agent="Acme/2", party="p_a", target="p_b", call=call.id)
    recorder.error(at=T + 5_000, kind="stray", agent="Acme/1")
    store.commit()
    found = list_errors(store.connection)
    assert [row["kind"] for row in found] == ["stray", "peer_error"]
    assert [row["kind"] for row in list_errors(store.connection, since=T + 1)] == ["stray"]
    assert [row["kind"] for row in list_errors(store.connection, until=T + 1)] == ["peer_error"]
    for party in ("p_a", "p_b"):
        assert [row["kind"] for row in list_errors(store.connection, party=party)] == ["peer_error"]
    assert [row["agent"] for row in errors_of_call(store.connection, call.id)] == ["Acme/2"]
    assert errors_of_call(store.connection, "other") == []


def test_rates_are_bounded_by_time(store: Store, recorder: Recorder) -> None:
    recorder.place(Placed(T, "k", "x", agent="Acme/1"))
    recorder.error(at=T + 5_000, kind="stray", agent="Acme/1")
    store.commit()
    (row,) = error_rates(store.connection)
    assert (row["product"], row["calls"], row["errors"], row["errors_per_100"]) == ("Acme", 1, 1, 100.0)
    (row,) = error_rates(store.connection, until=T + 1)
    assert (row["calls"], row["errors"]) == (1, 0)
    (row,) = error_rates(store.connection, since=T + 1, by_day=True)
    assert (row["day"], row["calls"], row["errors"]) == ("2026-11-23", 0, 1)
