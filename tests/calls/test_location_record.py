"""Places from events to rows: those of the answering device, those that come late, those that must go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sipserver.calls.events import CALLER, Answered, BranchFailed, Ended, Failed, Located, Placed, Tried
from sipserver.calls.machine import Call
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.recorder import REFUSED, Recorder
from sipserver.calls.rows import CallLocated
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import connect
from sipserver.storage.migrations import open_store
from support.calls import Store, T

VIENNA = Place("AT", "Wien", "Wien Mitte", "HQ", "site")
GRAZ = Place("AT", "Steiermark", "Graz", None, "geolocation", T + 5_000)
NAMES = "country", "region", "city", "site", "location_source", "location_until"


def place_of(row: dict[str, Any], side: str = "") -> tuple[Any, ...]:
    return tuple(row[side + name] for name in NAMES)


WRITTEN = "AT", "Wien", "Wien Mitte", "HQ", "site", None
WRITTEN_GRAZ = "AT", "Steiermark", "Graz", None, "geolocation", "2026-11-23T21:02:22.942Z"
UNKNOWN = (None,) * 6


def begin(recorder: Recorder, place: Place = VIENNA) -> Call:
    return recorder.place(Placed(T, "k", "call-id", "p_a", "p_b", place=place))


def test_callee_is_where_the_device_is_that_answered(store: Store, recorder: Recorder) -> None:
    begin(recorder)
    recorder.handle("k", Tried(T, 0, place=VIENNA))
    recorder.handle("k", Tried(T, 1, place=GRAZ))
    recorder.handle("k", Answered(T + 100, 1))
    row = store.one("calls")
    assert place_of(row, "caller_") == WRITTEN
    assert place_of(row, "callee_") == WRITTEN_GRAZ
    recorder.handle("k", Ended(T + 200, CALLER))
    assert place_of(store.one("calls"), "callee_") == WRITTEN_GRAZ


def test_callee_that_nobody_answers_for_is_nowhere(store: Store, recorder: Recorder) -> None:
    begin(recorder, NOWHERE)
    recorder.handle("k", Tried(T, 0, place=VIENNA))
    recorder.handle("k", BranchFailed(T + 1, 0, 486))
    recorder.handle("k", Failed(T + 1, 486, "callee"))
    row = store.one("calls")
    assert place_of(row, "caller_") == place_of(row, "callee_") == UNKNOWN


def test_place_that_comes_before_the_answer_is_written_with_it() -> None:
    call = Call("id", Placed(T, "k", "c"))
    call.handle(Tried(T, 0, place=VIENNA))
    assert call.handle(Located(GRAZ, 0)) == []
    assert call.handle(Answered(T, 0))[0].place == GRAZ  # type: ignore[union-attr]


def test_place_that_comes_late_is_written_late() -> None:
    call = Call("id", Placed(T, "k", "c"))
    call.handle(Tried(T, 0))
    call.handle(Tried(T, 1))
    assert call.handle(Located(VIENNA)) == [CallLocated("id", True, VIENNA)]
    call.handle(Answered(T, 0))
    assert call.handle(Located(GRAZ, 0)) == [CallLocated("id", False, GRAZ)]
    assert call.handle(Located(GRAZ, 1)) == []
    call.handle(Ended(T + 1, CALLER))
    assert call.handle(Located(VIENNA, 1)) == []
    assert call.handle(Located(VIENNA, 0)) == [CallLocated("id", False, VIENNA)]
    assert call.handle(Located(VIENNA)) == [CallLocated("id", True, VIENNA)]


def test_late_places_reach_the_row_even_after_the_end(store: Store, recorder: Recorder) -> None:
    call = begin(recorder, NOWHERE)
    recorder.handle("k", Tried(T, 0))
    recorder.handle("k", Answered(T, 0))
    recorder.handle("k", Ended(T + 1, CALLER))
    assert recorder.find("k") is None
    recorder.locate(call, Located(VIENNA))
    recorder.locate(call, Located(GRAZ, 0))
    row = store.one("calls")
    assert (place_of(row, "caller_"), place_of(row, "callee_")) == (WRITTEN, WRITTEN_GRAZ)


def test_place_of_the_device_that_was_kept_outlives_a_late_one_of_the_other(store: Store, recorder: Recorder) -> None:
    call = begin(recorder)
    for branch, place in ((0, NOWHERE), (1, VIENNA)):
        recorder.handle("k", Tried(T, branch, place=place))
        recorder.handle("k", Answered(T + 100, branch, tag=str(branch)))
    recorder.locate(call, Located(GRAZ, 0))
    recorder.handle("k", Ended(T + 200, CALLER, tag="0"))
    # All of it is one commit.
    assert place_of(store.one("calls"), "callee_") == WRITTEN


def test_sign_ins_have_places(store: Store, recorder: Recorder) -> None:
    recorder.sign_in(at=T, party="p", outcome="bound", source="192.0.2.7", place=GRAZ)
    recorder.sign_in(at=T, party="p", outcome="bound", source="192.0.2.7")
    assert [place_of(row) for row in store.all("sign_ins")] == [WRITTEN_GRAZ, UNKNOWN]


def test_refusals_of_one_network_but_two_places_are_two_rows(store: Store, recorder: Recorder) -> None:
    for place in (VIENNA, GRAZ, VIENNA):
        recorder.sign_in(at=T, party="p", outcome=REFUSED, status=401, source="192.0.2.7", place=place)
    assert [place_of(row) for row in store.all("sign_ins")] == [WRITTEN, WRITTEN_GRAZ]


def test_row_that_stands_for_many_sources_is_nowhere(store: Store, recorder: Recorder) -> None:
    for number in range(2_000):
        recorder.sign_in(at=T, party=f"p{number}", outcome=REFUSED, status=401, place=VIENNA)
    assert place_of(store.all("sign_ins")[-1]) == UNKNOWN


def test_what_may_not_be_kept_any_longer_is_unknown_again(store: Store, recorder: Recorder) -> None:
    begin(recorder, GRAZ)
    recorder.handle("k", Tried(T, 0, place=GRAZ))
    recorder.handle("k", Answered(T, 0))
    recorder.sign_in(at=T, party="p", outcome="bound", place=GRAZ)
    recorder.place(Placed(T, "other", "call-id", place=VIENNA))
    recorder.forget_places(T + 4_999)
    row, _ = store.all("calls")
    assert place_of(row, "caller_") == place_of(row, "callee_") == place_of(store.one("sign_ins")) == WRITTEN_GRAZ
    recorder.forget_places(T + 5_000)
    row, other = store.all("calls")
    assert place_of(row, "caller_") == place_of(row, "callee_") == place_of(store.one("sign_ins")) == UNKNOWN
    assert place_of(other, "caller_") == WRITTEN
    assert row["caller"] == "p_a"


def test_views_show_places(store: Store, recorder: Recorder) -> None:
    begin(recorder)
    recorder.sign_in(at=T, party="p", outcome="bound", place=VIENNA)
    call, sign_in = store.one("v_calls"), store.one("v_sign_ins")
    assert tuple(call[f"caller_{name}"] for name in NAMES[:5]) == WRITTEN[:5]
    assert tuple(sign_in[name] for name in NAMES[:5]) == WRITTEN[:5]
    assert "callee_city" in call


def test_looking_for_what_must_go_takes_an_index(store: Store) -> None:
    for table, column in (
        ("calls", "caller_location_until"), ("calls", "callee_location_until"), ("sign_ins", "location_until"),
    ):  # fmt: skip
        plan = store.connection.execute(
            f"EXPLAIN QUERY PLAN UPDATE {table} SET {column} = NULL WHERE {column} <= ?", ("2026",)
        ).fetchall()
        assert "USING INDEX" in plan[0][3] or "USING COVERING INDEX" in plan[0][3], plan


def test_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = connect(path)
    MIGRATIONS.apply(old, stop_before=["m002_location"])
    old.execute("INSERT INTO calls (id, call_id, started_at, caller_country) VALUES ('1', 'c', '2026', 'AT')")
    with pytest.raises(Exception, match="no such column"):
        old.execute("SELECT caller_city FROM calls")
    old.close()
    new = open_store(path, MIGRATIONS)
    assert new.execute("SELECT id, caller_country, caller_city, caller_site FROM v_calls").fetchall() == [
        ("1", "AT", None, None)
    ]
    new.close()
