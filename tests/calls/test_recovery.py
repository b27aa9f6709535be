"""Closing what the last run left open: only what the call itself did is evidence."""

from __future__ import annotations

import pytest

from sipserver.calls import recovery
from sipserver.calls.events import (
    CALLER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    ClockStepped,
    Confirmed,
    Ended,
    Event,
    Placed,
    Rang,
    Seen,
    Tried,
)
from sipserver.calls.recorder import Recorder
from sipserver.calls.recovery import recover
from sipserver.calls.verify import verify
from support.calls import Store, T
from support.sdp import AUDIO, VIDEO, description

BOTH = description(AUDIO, VIDEO)
HELD = description(AUDIO, f"{VIDEO}\na=inactive")
NOW = T + 3_600_000


def cut_short(store: Store, recorder: Recorder, *events: Event, key: str = "k") -> None:
    """A call that a killed server left behind; it was last alive 100 seconds after the call was placed."""
    recorder.started(T - 1_000)
    recorder.place(Placed(T, key, "call", "p_a", "p_b", offer=BOTH))
    for event in events:
        recorder.handle(key, event)
    recorder.alive(T + 100_000)
    store.commit()


def test_nothing_to_recover(store: Store) -> None:
    assert recover(store.connection, NOW) == 0


def test_answered_call_ends_at_its_last_sign_of_life(store: Store, recorder: Recorder) -> None:
    cut_short(
        store, recorder, Tried(T, 0), Rang(T + 100, 0), Answered(T + 2_100, 0, answer=BOTH), Confirmed(T + 2_200),
        Changed(T + 32_100, CALLER),
    )  # fmt: skip
    assert recover(store.connection, NOW) == 1
    row = store.one("calls")
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "server", "server_restart")
    assert row["ended_at"] == "2026-11-23T21:02:50.042Z"
    assert row["end_uncertainty_ms"] == NOW - (T + 32_100)
    assert row["watched_until"] == "2026-11-23T21:03:57.942Z"
    assert (row["ring_ms"], row["talk_ms"], row["video_ms"], row["sip_status"]) == (2_000, 30_000, 30_000, 200)
    assert {media["to_at"] for media in store.all("call_media")} == {row["ended_at"]}


def test_recovered_end_is_on_the_timeline(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Tried(T, 0), Answered(T + 2_100, 0))
    recover(store.connection, NOW)
    last = store.all("call_events")[-1]
    assert (last["number"], last["kind"], last["side"], last["detail"]) == (3, "ended", "server", "server_restart")


@pytest.mark.parametrize(
    ("events", "outcome", "ring_ms"),
    [
        ([], "failed", None),
        ([Tried(T, 0), Rang(T + 100, 0)], "failed", 0),
        ([Tried(T, 0), Rang(T + 100, 0), Cancelled(T + 900)], "cancelled", 800),
    ],
)
def test_call_that_was_not_answered(
    store: Store, recorder: Recorder, events: list[Event], outcome: str, ring_ms: int | None
) -> None:
    cut_short(store, recorder, *events)
    assert recover(store.connection, NOW) == 1
    row = store.one("calls")
    assert (row["outcome"], row["ring_ms"], row["talk_ms"], row["video_ms"]) == (outcome, ring_ms, None, None)
    assert row["end_cause"] == "server_restart"


def branches(store: Store) -> list[tuple[str | None, ...]]:
    """Outcome, ringing and end of each device; times as seconds and thousandths."""
    rows = store.all("call_branches ORDER BY branch")
    return [
        (row["outcome"], *((row[name] or "")[17:23] or None for name in ("ringing_at", "ended_at"))) for row in rows
    ]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([Tried(T + 5, 0)], [("cut_short", None, "17.947")]),
        ([Tried(T + 5, 0), Rang(T + 100, 0)], [("cut_short", "18.042", "18.042")]),
        # The first to ring need not be the first that was tried.
        ([Tried(T + 5, 0), Tried(T + 5, 1), Rang(T + 100, 1)],
            [("cut_short", None, "18.042"), ("cut_short", "18.042", "18.042")]),
        ([Tried(T + 5, 0), Rang(T + 100, 0), Tried(T + 300, 1)],
            [("cut_short", "18.042", "18.242"), ("cut_short", None, "18.242")]),
        ([Tried(T + 5, 0), Rang(T + 100, 0), BranchFailed(T + 200, 0, 603), Tried(T + 200, 1)],
            [("declined", "18.042", "18.142"), ("cut_short", None, "18.142")]),
        ([Tried(T + 5, 0), Rang(T + 100, 0), Cancelled(T + 900)], [("cancelled", "18.042", "18.842")]),
        ([Tried(T + 5, 0), Tried(T + 5, 1), Rang(T + 100, 1), Answered(T + 900, 0), Confirmed(T + 2_000)],
            [("answered", None, None), ("elsewhere", "18.042", "18.842")]),
    ],
)  # fmt: skip
def test_devices_whose_part_was_not_over(
    store: Store, recorder: Recorder, events: list[Event], found: list[tuple[str | None, ...]]
) -> None:
    cut_short(store, recorder, *events)
    recover(store.connection, NOW)
    assert branches(store) == found
    assert store.one("calls")["devices"] == len(found)
    assert [sentence for step in verify(store.connection) for sentence in step] == []


def test_devices_are_the_same_whether_written_at_once_or_one_by_one(store: Store, recorder: Recorder) -> None:
    events: list[Event] = [
        Tried(T + 5, 0, "UDP", "net", "old"), Rang(T + 90, 0), Tried(T + 100, 1), Rang(T + 300, 1, "new"),
        Answered(T + 900, 1, agent="newer"),
    ]  # fmt: skip
    recorder.place(Placed(T, "one", "call"))
    recorder.place(Placed(T, "other", "call"))
    for event in events:
        recorder.handle("one", event)
    store.commit()
    for event in events:
        recorder.handle("other", event)
        store.commit()
    recover(store.connection, NOW)
    rows = [{name: value for name, value in row.items() if name != "call"} for row in store.all("call_branches")]
    assert len(rows) == 4
    assert rows[:2] == rows[2:]


def test_calls_that_may_go_on_are_told(store: Store, recorder: Recorder) -> None:
    assert recovery.cut_short(store.connection) == {}
    cut_short(store, recorder, Answered(T + 900, 0))
    for key, call_id in (("over", "over"), ("rings", "rings"), ("twin", "same"), ("other twin", "same")):
        recorder.place(Placed(T, key, call_id))
        if key != "rings":
            recorder.handle(key, Answered(T + 900, 0))
    recorder.handle("over", Ended(T + 1_000, CALLER))
    store.commit()
    recover(store.connection, NOW)
    found = recovery.cut_short(store.connection)
    assert set(found) == {recorder.hash_call_id("call")}, "answered, not over, and to be told from others"
    call = found[recorder.hash_call_id("call")]
    assert (call.id, call.caller, call.callee) == (store.all("calls ORDER BY rowid")[0]["id"], "p_a", "p_b")


def test_closed_calls_are_left_alone(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Answered(T + 2_100, 0), Ended(T + 3_100, CALLER))
    before = store.all("calls")
    assert recover(store.connection, NOW) == 0
    assert store.all("calls") == before


def test_recovering_twice_closes_once(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Answered(T + 2_100, 0))
    assert recover(store.connection, NOW) == 1
    before = store.all("calls")
    assert recover(store.connection, NOW + 5_000) == 0
    assert store.all("calls") == before


def test_video_before_a_hold_is_counted(store: Store, recorder: Recorder) -> None:
    cut_short(
        store, recorder, Answered(T + 2_000, 0, answer=BOTH), Changed(T + 12_000, CALLER, HELD, HELD),
        Changed(T + 20_000, CALLER),
    )  # fmt: skip
    recover(store.connection, NOW)
    assert store.one("calls")["video_ms"] == 10_000


def test_unknown_media_stay_unknown(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Answered(T + 2_000, 0))
    recover(store.connection, NOW)
    assert store.one("calls")["video_ms"] is None


def test_clock_that_was_set_back_makes_no_negative_uncertainty(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Answered(T + 2_000, 0))
    recover(store.connection, T - 50_000)
    assert store.one("calls")["end_uncertainty_ms"] == 0


def test_without_a_heartbeat_the_evidence_is_what_was_watched(store: Store, recorder: Recorder) -> None:
    recorder.place(Placed(T, "k", "call"))
    store.commit()
    recover(store.connection, NOW)
    row = store.one("calls")
    assert row["watched_until"] == row["ended_at"] == row["started_at"]


def test_more_calls_than_fit_into_one_transaction(
    store: Store, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        recorder.place(Placed(T + number, f"k{number}", "call"))
    store.commit()
    monkeypatch.setattr(recovery, "BATCH", 2)
    assert recover(store.connection, NOW) == 5
    assert all(row["ended_at"] for row in store.all("calls"))


def test_signs_of_life_that_were_noted_are_evidence(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Answered(T + 2_000, 0), Seen(T + 302_000))
    recover(store.connection, NOW)
    assert store.one("calls")["talk_ms"] == 300_000


@pytest.mark.parametrize("step", [3_600_000, -3_600_000])
def test_uncertainty_is_told_by_the_clock_of_the_call(store: Store, recorder: Recorder, step: int) -> None:
    recorder.started(T - 1_000)
    recorder.place(Placed(T, "k", "call", "p_a", "p_b"))
    recorder.handle("k", Answered(T + 2_000, 0))
    recorder.handle("k", ClockStepped(T + 5_000, step))
    recorder.alive(T + 10_000 + step)
    store.commit()
    recover(store.connection, T + 20_000 + step)
    row = store.one("calls")
    assert (row["talk_ms"], row["end_uncertainty_ms"]) == (0, 18_000), "a clock that is set shows nothing of the call"
    assert row["watched_until"] == "2026-11-23T21:02:27.942Z"


def test_media_that_were_agreed_on_last_are_evidence(store: Store, recorder: Recorder) -> None:
    cut_short(
        store, recorder, Tried(T, 0), Rang(T + 100, 0, tag="a"), Rang(T + 900, 0, answer=BOTH, tag="a"),
    )  # fmt: skip
    recover(store.connection, NOW)
    assert {row["from_at"] for row in store.all("call_media")} == {store.one("calls")["ended_at"]}


def test_end_on_the_timeline_is_never_before_the_evidence(store: Store, recorder: Recorder) -> None:
    cut_short(store, recorder, Tried(T, 0), Answered(T + 2_100, 0))
    recover(store.connection, T - 3_600_000)
    assert store.all("call_events")[-1]["at"] == store.one("calls")["ended_at"]
