"""A store that is whole, and what is said of each way in which it may not be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sipserver.calls import events as ev
from sipserver.calls.faults import KINDS
from sipserver.calls.recorder import Recorder
from sipserver.calls.recovery import last_call, recover
from sipserver.calls.verify import ALIVE_MS, STEPS, quick_check, summary, verify
from sipserver.sip import sdp
from support.calls import Store, T, recorder
from support.machine import ANYTHING, BOTH

OFFER = sdp.parse(
    b"v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 h\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 31\r\n"
)


def play(made: Recorder, number: int, *, end: bool = True) -> None:
    """A call that two devices were tried for, and one answered; or one that goes on."""
    key, at = f"k{number}", T + number * 100_000
    made.place(ev.Placed(at, key, f"call{number}", "p_a", "p_b", offer=OFFER))
    for event in (
        ev.Tried(at + 1, 0), ev.Tried(at + 2, 1), ev.Rang(at + 500, 0), ev.BranchFailed(at + 600, 1, 480),
        ev.Answered(at + 2_000, 0, answer=OFFER), ev.Confirmed(at + 2_050),
    ):  # fmt: skip
        made.handle(key, event)
    if end:
        made.handle(key, ev.Ended(at + 62_000, ev.CALLER))


def refuse(made: Recorder, number: int, *, cancel: bool = False) -> None:
    """A call that failed, or was cancelled before its device had stopped ringing."""
    key, at = f"k{number}", T + number * 100_000
    made.place(ev.Placed(at, key, f"call{number}", "p_a", "p_b"))
    made.handle(key, ev.Tried(at + 1, 0))
    if cancel:
        made.handle(key, ev.Rang(at + 5, 0))
        made.handle(key, ev.Cancelled(at + 10))
        made.handle(key, ev.BranchFailed(at + 40, 0, 487))
    made.handle(key, ev.Failed(at + 45, 487 if cancel else 486, ev.CALLEE))


@pytest.fixture
def whole(store: Store) -> Store:
    """Three runs: one stopped in order, one was killed with a call going on, one goes on with another."""
    first = recorder(store)
    first.started(T, 0)
    play(first, 1)
    refuse(first, 2)
    refuse(first, 3, cancel=True)
    first.error(at=T, kind="overload", call=None)
    first.stopped(T + 390_000)
    store.commit()
    for number, stop in ((4, False), (6, False)):
        before = last_call(store.connection)
        recover(store.connection, T + number * 100_000 - 10)
        made = recorder(store)
        made.started(T + number * 100_000, before)
        made._random.skip(number * 1_000)  # type: ignore[attr-defined]
        play(made, number)
        play(made, number + 1, end=stop)
        made.alive(T + number * 100_000 + 150_000)
        store.commit()
    return store


def faults(store: Store) -> list[str]:
    found = list(verify(store.connection))
    assert len(found) == STEPS
    return [sentence for sentences in found for sentence in sentences]


def test_store_that_is_whole_has_no_faults(whole: Store) -> None:
    assert faults(whole) == []
    assert quick_check(whole.connection) == []
    now = T + 750_000
    known = summary(whole.connection, now)
    assert (known.calls, known.open, known.runs, known.killed, known.running, known.recovered) == (7, 1, 3, 1, True, 1)
    later = summary(whole.connection, now + ALIVE_MS + 1)
    assert (later.killed, later.running, later.stopped) == (2, False, False)


def test_runs_are_told_apart(whole: Store) -> None:
    runs = whole.all("v_runs")
    assert [run["state"] for run in runs] == ["stopped", "killed", "running or killed"]
    assert [run["recovered"] for run in runs] == [0, 1, None]
    assert [(run["placed"], run["closed"], run["lost"]) for run in runs] == [(3, 3, 0), (2, 1, 0), (2, 1, 0)]


ONE = "(SELECT id FROM calls WHERE outcome = 'answered' LIMIT 1)"
CLOSED = "UPDATE calls SET {} WHERE id = " + ONE
DAMAGES = [
    (f"DELETE FROM calls WHERE id = {ONE}", "the run of .* counted 3 calls, 0 of them lost .* has 2 rows of calls"),
    (CLOSED.format("ended_at = NULL"), "counted 3 calls that ended, and 2 of its rows say so"),
    (CLOSED.format("ended_at = NULL"), "1 call open, and yet with an end"),
    ("UPDATE calls SET ended_at = NULL WHERE outcome = 'busy'", "1 call open with an end in its timeline"),
    (CLOSED.format("ended_at = NULL"), "1 call open since an earlier run of the server"),
    (CLOSED.format("talk_ms = talk_ms + 1"), "1 call with a talk_ms that is not the time from answer to end"),
    (CLOSED.format("talk_ms = NULL"), "1 call with a talk_ms that is not the time from answer to end"),
    (CLOSED.format("ring_ms = -1"), "1 call with a negative duration"),
    (CLOSED.format("outcome = NULL"), "1 call closed without saying how it ended"),
    (CLOSED.format("outcome = 'fine'"), "1 call closed without saying how it ended"),
    (CLOSED.format("end_cause = NULL"), "1 call closed without saying how it ended"),
    (CLOSED.format("answered_at = NULL"), "1 call with a talk_ms and never answered"),
    (CLOSED.format("ended_at = '2026-11-23T20:00:00.000Z'"), "1 call not in order of time"),
    ("UPDATE calls SET outcome = 'answered' WHERE outcome = 'busy'", "1 call at odds with itself about being answered"),
    ("DELETE FROM stored_events WHERE kind = 'failed' AND number = 2", "1 call closed without an end in its timeline"),
    ("UPDATE stored_events SET at = '2020-01-01T00:00:00.000Z' WHERE kind = 'cancelled'",
        "1 event earlier than their call: .* 3"),
    (f"UPDATE call_branches SET answered_at = '2030-01-01T00:00:00.000Z' WHERE branch = 0 AND call = {ONE}",
        "1 device outside the time of their call: .* 0"),
    (f"UPDATE call_branches SET ringing_at = tried_at, tried_at = answered_at WHERE branch = 0 AND call = {ONE}",
        "1 device not in order of time"),
    (f"UPDATE call_branches SET outcome = NULL WHERE branch = 1 AND call = {ONE}",
        "1 device without an outcome in a call that is over: .* 1"),
    (f"UPDATE call_media SET to_at = NULL WHERE number = 1 AND call = {ONE}", "1 stream open in a call that is over"),
    (f"UPDATE call_media SET to_at = '2030-01-01T00:00:00.000Z' WHERE number = 1 AND call = {ONE}",
        "1 stream outside the time of their call"),
    (f"UPDATE call_media SET to_at = '2020-01-01T00:00:00.000Z' WHERE number = 1 AND call = {ONE}",
        "1 stream not in order of time"),
    ("INSERT INTO stored_events (call, number, at, kind) VALUES ('nobody', 1, 'now', 'placed')",
        "stored_events has 1 row without their row of calls"),
    ("UPDATE errors SET call = 'nobody'", "errors has 1 row without their row of calls"),
    ("UPDATE errors SET kind = 'whatever'", "1 error of a kind that is not known"),
    ("UPDATE errors SET count = 0", "1 error with a count or a last time that cannot be"),
    ("DELETE FROM server_runs", "1 call open, and no server has run"),
    ("UPDATE server_runs SET closed = 9", "counted 9 calls that ended"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES, ids=[str(number) for number in range(len(DAMAGES))])
def test_damage_is_told(whole: Store, damage: str, sentence: str) -> None:
    whole.connection.execute("PRAGMA foreign_keys = OFF")
    assert whole.connection.execute(damage).rowcount > 0
    found = faults(whole)
    assert any(re.search(sentence, each) for each in found), found


def test_rows_that_a_killed_run_wrote_after_its_last_heartbeat_are_no_fault(store: Store) -> None:
    made = recorder(store)
    made.started(T, 0)
    play(made, 1)
    made.alive(T + 5_000)
    play(made, 2)
    store.commit()
    assert faults(store) == []
    made.stopped(T + 300_000)
    store.commit()
    store.connection.execute("UPDATE server_runs SET placed = 1, closed = 1")
    assert len(faults(store)) == 2


def test_device_may_outlast_a_call_whose_end_nobody_saw(whole: Store) -> None:
    execute = whole.connection.execute
    execute(f"UPDATE call_branches SET ended_at = '2030-01-01T00:00:00.000Z' WHERE branch = 1 AND call = {ONE}")
    assert faults(whole) != []
    execute(f"UPDATE calls SET end_uncertainty_ms = 0 WHERE id = {ONE}")
    assert faults(whole) == []


def test_run_of_an_earlier_version_counted_nothing(whole: Store) -> None:
    whole.connection.execute("UPDATE server_runs SET calls_before = NULL, placed = NULL WHERE stopped_at IS NOT NULL")
    whole.connection.execute("DELETE FROM calls WHERE outcome = 'busy'")
    assert faults(whole) == []


def test_every_kind_of_error_has_a_sentence() -> None:
    assert all(re.fullmatch(r"[a-z_]+", kind) and meaning.endswith(".") for kind, meaning in KINDS.items())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([None, BOTH]), st.lists(st.tuples(st.integers(0, 40_000), ANYTHING), max_size=20),
    st.sampled_from(["operator", "evidence", "restart", "restart, clock set back"]),
)  # fmt: skip
def test_store_is_whole_whatever_happens_to_a_call(
    tmp_path_factory: pytest.TempPathFactory, offer: sdp.Description | None,
    events: list[tuple[int, ev.Event]], end: str,
) -> None:  # fmt: skip
    store = Store(tmp_path_factory.mktemp("any"))
    made = recorder(store)
    made.started(T, 0)
    call = made.place(ev.Placed(T, "k", "call", "p_a", "p_b", offer=offer))
    at = T
    for branch in range(3):
        made.handle("k", ev.Tried(at, branch))
    for pause, event in events:
        at += pause
        made.handle("k", event if isinstance(event, ev.Located) else replace(event, at=at))
    if end == "operator" or (end == "evidence" and call.answered_at is None):
        made.handle("k", ev.Ended(at + 1, ev.SERVER, "operator"))
    elif end == "evidence":
        seen = call.agreed_at
        made.handle("k", ev.Ended(seen, ev.SERVER, "no_evidence", uncertainty_ms=at - seen, watched_until=seen))
    if end.startswith("restart"):
        store.commit()
        recover(store.connection, at - 7_200_000 if "back" in end else at + 5)
    else:
        made.stopped(at + 5)
        store.commit()
    try:
        assert faults(store) == []
    finally:
        store.connection.close()


def test_device_that_also_answered_may_end_after_the_call(store: Store) -> None:
    """The caller hung up on the device that it had, and never said a word to the other one, which gave up later."""
    made = recorder(store)
    made.started(T, 0)
    made.place(ev.Placed(T, "k", "call", "p_a", "p_b"))
    for event in (
        ev.Tried(T + 1, 0), ev.Tried(T + 2, 1), ev.Tried(T + 3, 2), ev.Answered(T + 500, 0, tag="a"),
        ev.Answered(T + 510, 1, tag="b"), ev.Confirmed(T + 520, tag="a"), ev.Ended(T + 5_000, ev.CALLER, tag="a"),
        ev.BranchFailed(T + 30_000, 2, 408, "timeout", heard=True), ev.Ended(T + 32_510, ev.CALLEE, tag="b"),
    ):  # fmt: skip
        made.handle("k", event)
    made.stopped(T + 40_000)
    assert store.one("calls")["talk_ms"] == 4_500
    assert [row["outcome"] for row in store.all("call_branches ORDER BY branch")] == [
        "answered", "also_answered", "elsewhere"
    ]  # fmt: skip
    assert faults(store) == []
    store.connection.execute("UPDATE call_branches SET outcome = 'also_answered' WHERE branch = 2")
    store.connection.execute("DELETE FROM stored_events WHERE kind = 'dropped'")
    assert [sentence for sentence in faults(store) if "2 devices outside the time" in sentence]
