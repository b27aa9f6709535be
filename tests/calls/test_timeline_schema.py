"""The timeline of a call, whose events are rows or columns of the call: nobody who reads it can tell which."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    Cancelled,
    Changed,
    ClockStepped,
    Confirmed,
    Ended,
    Event,
    Failed,
    Placed,
    Rang,
    Referred,
    Seen,
    Tried,
)
from sipserver.calls.recorder import Recorder
from sipserver.calls.recovery import recover
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store
from support.calls import Store, T
from support.sdp import AUDIO, VIDEO, description

BOTH = description(AUDIO, VIDEO)
VOICE = description(AUDIO)
ORDINARY = (Tried(T + 5, 0), Rang(T + 100, 0), Answered(T + 900, 0, 202), Confirmed(T + 950), Ended(T + 60_000, CALLEE))

KILLED = None
"""Not an event: here the server was killed, and started again."""

PLACED = (1, "17.942", "placed", "caller", None, None)
TIMELINES: dict[str, tuple[tuple[Event | None, ...], list[tuple[object, ...]]]] = {
    "ordinary": (ORDINARY, [
        PLACED, (2, "18.042", "ringing", "callee", None, None), (3, "18.842", "answered", "callee", 202, None),
        (4, "18.892", "confirmed", "caller", None, None), (5, "17.942", "ended", "callee", None, "bye"),
    ]),
    "without ringing": ((Answered(T + 900, 0), Ended(T + 950, CALLER)), [
        PLACED, (2, "18.842", "answered", "callee", 200, None), (3, "18.892", "ended", "caller", None, "bye"),
    ]),
    "things in between": (
        (Referred(T + 50, CALLER), Rang(T + 100, 0), Cancelled(T + 100, "no"), Seen(T + 100), Answered(T + 100, 0),
            Confirmed(T + 100), Changed(T + 100, CALLER, BOTH, VOICE), ClockStepped(T + 100, 5),
            Ended(T + 100, CALLER)),
        [
            PLACED, (2, "17.992", "referred", "caller", None, None), (3, "18.042", "ringing", "callee", None, None),
            (4, "18.042", "cancelled", "caller", None, "no"), (5, "18.042", "seen", None, None, None),
            (6, "18.042", "answered", "callee", 200, None), (7, "18.042", "confirmed", "caller", None, None),
            (8, "18.042", "changed", "caller", None, None), (9, "18.042", "clock_stepped", "server", None, "+5 ms"),
            (10, "18.042", "ended", "caller", None, "bye"),
        ],
    ),
    "refused": ((Failed(T + 30, 486, CALLEE, "Busy"),), [PLACED, (2, "17.972", "failed", "callee", 486, "Busy")]),
    "cancelled": ((Rang(T + 100, 0), Cancelled(T + 900), Failed(T + 950, 487, CALLEE)), [
        PLACED, (2, "18.042", "ringing", "callee", None, None), (3, "18.842", "cancelled", "caller", None, None),
    ]),
    "ended by the server": ((Ended(T + 100, SERVER, "operator"),), [
        PLACED, (2, "18.042", "ended", "server", None, "operator"),
    ]),
    "another device was kept": (
        (Tried(T + 5, 0), Tried(T + 5, 1), Rang(T + 100, 0), Answered(T + 900, 0, 200, tag="a"),
            Confirmed(T + 910, tag="a"), Answered(T + 920, 1, 202, tag="b"), Confirmed(T + 930, tag="b"),
            Ended(T + 950, CALLER, tag="a"), Ended(T + 60_000, CALLER, tag="b")),
        [
            PLACED, (2, "18.042", "ringing", "callee", None, None), (3, "18.842", "answered", "callee", 200, None),
            (4, "18.852", "confirmed", "caller", None, None), (5, "18.892", "dropped", "caller", None, "bye"),
            (6, "17.942", "ended", "caller", None, "bye"),
        ],
    ),
    "another device was kept that had its ACK later": (
        (Tried(T + 5, 0), Tried(T + 5, 1), Answered(T + 900, 0, 200, tag="a"), Answered(T + 920, 1, 202, tag="b"),
            Ended(T + 950, CALLER, tag="a"), Confirmed(T + 960, tag="b")),
        [
            PLACED, (2, "18.842", "answered", "callee", 200, None), (3, "18.892", "dropped", "caller", None, "bye"),
            (4, "18.902", "confirmed", "caller", None, None),
        ],
    ),
    "killed": ((Rang(T + 100, 0), Seen(T + 200), Answered(T + 900, 0), Changed(T + 950, CALLER), KILLED), [
        PLACED, (2, "18.042", "ringing", "callee", None, None), (3, "18.142", "seen", None, None, None),
        (4, "18.842", "answered", "callee", 200, None), (5, "18.892", "changed", "caller", None, None),
        (6, "17.942", "ended", "server", None, "server_restart"),
    ]),
    "killed before the answer": ((KILLED,), [PLACED, (2, "17.942", "ended", "server", None, "server_restart")]),
}  # fmt: skip


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", TIMELINES)
def test_timeline_has_everything_in_order(store: Store, recorder: Recorder, name: str, at_once: bool) -> None:
    events, timeline = TIMELINES[name]
    recorder.place(Placed(T, "k", "call", "p_a", "p_b", offer=BOTH))
    for event in events:
        if not at_once:
            store.commit()
        if event is KILLED:
            store.commit()
            recover(store.connection, T + 60_000)
        else:
            recorder.handle("k", event)
    found = [(each["number"], each["at"][17:23], *list(each.values())[3:]) for each in store.all("call_events")]
    assert found == timeline


def test_ordinary_call_has_no_rows_in_it(store: Store, recorder: Recorder) -> None:
    recorder.place(Placed(T, "k", "call", "p_a", "p_b", offer=BOTH))
    for event in ORDINARY:
        recorder.handle("k", event)
    assert store.all("stored_events") == []


def test_rows_of_before_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    connection = sqlite.connect(path, isolation_level=None)
    MIGRATIONS.apply(connection, stop_before=["m014_timeline"])
    connection.execute(
        """INSERT INTO calls (id, call_id, caller, started_at, ringing_at, answered_at, ended_at, outcome, ended_by,
            end_cause) VALUES ('c', 'h', 'p', '1', '2', '3', '5', 'answered', 'caller', 'bye')"""
    )
    rows = [
        ("c", number, str(number), kind, None, None, "x")
        for number, kind in enumerate(("placed", "ringing", "answered", "changed", "ended"), 1)
    ]
    connection.executemany("INSERT INTO call_events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    connection = open_store(path, MIGRATIONS)
    assert connection.execute("SELECT * FROM call_events").fetchall() == rows
    assert connection.execute("SELECT bytes FROM v_activity").fetchone()[0] > 100
    connection.execute("DELETE FROM calls")
    assert connection.execute("SELECT count(*) FROM stored_events").fetchone() == (0,)
    connection.close()


def test_timeline_of_one_call_is_found_by_indices(store: Store) -> None:
    for query in ("SELECT * FROM call_events WHERE call = 'c'", "SELECT max(number) FROM call_events WHERE call = 'c'"):
        steps = [row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {query}")]
        tables = [step for step in steps if "stored_events" in step or "calls" in step]
        assert len(tables) > 10
        assert all(step.startswith("SEARCH") for step in tables), tables


def test_first_rows_are_found_without_looking_at_all_calls(store: Store) -> None:
    steps = [row[3] for row in store.connection.execute("EXPLAIN QUERY PLAN SELECT * FROM call_events LIMIT 100")]
    assert "SCAN stored_events" in steps
    assert not [step for step in steps if step.startswith("MERGE") or "TEMP B-TREE" in step], steps
