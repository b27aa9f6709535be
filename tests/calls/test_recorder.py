"""From events to the tables of calls.db."""

from __future__ import annotations

import threading
from pathlib import Path

from sipserver.calls import floods
from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    Confirmed,
    Ended,
    Event,
    Failed,
    Placed,
    Rang,
    Tried,
)
from sipserver.calls.recorder import MAX_SAME_CALL_ID, REFUSED, STATEMENTS, Recorder
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.migrations import open_store
from sipserver.storage.writer import Writer
from support.calls import Numbers, Store, T
from support.calls import recorder as make_recorder
from support.sdp import AUDIO, NO_VIDEO, VIDEO, description

BOTH = description(AUDIO, VIDEO)
VOICE = description(AUDIO, NO_VIDEO)


def placed(key: str = "k") -> Placed:
    return Placed(T, key, "a84b4c76e66710@pc33", "p_a", "p_b", "baresip", "UDP", "192.0.2.0/24", BOTH)


CALL: list[Event] = [
    Tried(T + 5, 0, "TCP", "198.51.100.0/24"),
    Rang(T + 100, 0, "phone"),
    Answered(T + 2_100, 0, 200, "phone", BOTH),
    Confirmed(T + 2_200),
    Ended(T + 62_100, CALLEE, "bye", "tired"),
]


def play(recorder: Recorder, *events: Event, key: str = "k") -> None:
    recorder.place(placed(key))
    for event in events:
        assert recorder.handle(key, event) is not None


def test_an_answered_call(store: Store, recorder: Recorder) -> None:
    play(recorder, *CALL)
    row = store.one("calls")
    call_id = row.pop("call_id")
    assert len(call_id) == 32
    assert "a84b4c76e66710" not in call_id
    assert {name: value for name, value in row.items() if value is not None} == {
        "id": row["id"],
        "caller": "p_a", "callee": "p_b",
        "started_at": "2026-11-23T21:02:17.942Z", "ringing_at": "2026-11-23T21:02:18.042Z",
        "answered_at": "2026-11-23T21:02:20.042Z", "confirmed_at": "2026-11-23T21:02:20.142Z",
        "ended_at": "2026-11-23T21:03:20.042Z",
        "setup_ms": 100, "ring_ms": 2_000, "talk_ms": 60_000,
        "outcome": "answered", "sip_status": 200, "reason": "tired", "ended_by": "callee", "end_cause": "bye",
        "video": 1, "content": 0, "encrypted": 0, "video_ms": 60_000, "offered_video": 1,
        "caller_agent": "baresip", "callee_agent": "phone",
        "caller_transport": "UDP", "callee_transport": "TCP",
        "caller_network": "192.0.2.0/24", "callee_network": "198.51.100.0/24",
        "devices": 1, "node": "node-1",
    }  # fmt: skip


def test_branches_of_a_call(store: Store, recorder: Recorder) -> None:
    play(recorder, *CALL)
    assert store.one("call_branches") == {
        "call": store.one("calls")["id"], "branch": 0,
        "tried_at": "2026-11-23T21:02:17.947Z", "ringing_at": "2026-11-23T21:02:18.042Z",
        "answered_at": "2026-11-23T21:02:20.042Z", "ended_at": None,
        "status": 200, "outcome": "answered", "agent": "phone", "transport": "TCP", "network": "198.51.100.0/24",
    }  # fmt: skip


def test_media_of_a_call(store: Store, recorder: Recorder) -> None:
    play(recorder, *CALL)
    audio, video = store.all("call_media")
    assert (audio["kind"], audio["codec"], audio["stream"]) == ("audio", "opus", 0)
    del video["call"]
    assert video == {
        "number": 2, "stream": 1, "kind": "video", "accepted": 1, "codec": "H264", "direction": "sendrecv",
        "bandwidth": 1_024_000, "resolution": None, "level": "3.1", "max_pixels": 921_600, "encrypted": 0, "ice": 0,
        "from_at": "2026-11-23T21:02:20.042Z", "to_at": "2026-11-23T21:03:20.042Z",
        "branch": 0, "early": 0, "held_by": None, "profile": "constrained baseline", "encryption": None,
    }  # fmt: skip


def test_timeline_of_a_call(store: Store, recorder: Recorder) -> None:
    play(recorder, *CALL)
    assert [(row["number"], row["kind"], row["side"]) for row in store.all("call_events")] == [
        (1, "placed", "caller"), (2, "ringing", "callee"), (3, "answered", "callee"), (4, "confirmed", "caller"),
        (5, "ended", "callee"),
    ]  # fmt: skip


def test_row_is_there_from_the_first_event_on(store: Store, recorder: Recorder) -> None:
    play(recorder)
    row = store.one("calls")
    assert (row["started_at"], row["ended_at"], row["outcome"]) == ("2026-11-23T21:02:17.942Z", None, None)


def test_rows_are_the_same_whether_written_at_once_or_one_by_one(tmp_path: Path) -> None:
    tables = []
    for number, step_by_step in enumerate((False, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = Store(folder)
        recorder = make_recorder(store)
        recorder.place(placed())
        events = [*CALL[:4], Changed(T + 9_000, CALLER, BOTH, description(AUDIO, NO_VIDEO)), CALL[4]]
        for event in events:
            if step_by_step:
                store.commit()
            recorder.handle("k", event)
        tables.append([store.all(table) for table in ("calls", "call_branches", "call_media", "call_events")])
        store.connection.close()
    assert tables[0] == tables[1]


def test_media_that_change_later_are_in_the_row(store: Store, recorder: Recorder) -> None:
    play(recorder, CALL[0], Answered(T + 100, 0, answer=description(AUDIO, NO_VIDEO)))
    assert store.one("calls")["video"] == 0
    recorder.handle("k", Changed(T + 900, CALLER, BOTH, BOTH))
    assert store.one("calls")["video"] == 1


def test_refused_call_keeps_the_status_and_reason(store: Store, recorder: Recorder) -> None:
    play(recorder, Failed(T + 3, 404, SERVER, "Not Found"))
    row = store.one("calls")
    assert (row["outcome"], row["sip_status"], row["reason"], row["ended_by"]) == (
        "not_found", 404, "Not Found", "server"
    )  # fmt: skip


def test_cancelled_call(store: Store, recorder: Recorder) -> None:
    play(recorder, CALL[0], CALL[1], Cancelled(T + 900), BranchFailed(T + 950, 0, 487), Failed(T + 950, 487, CALLEE))
    row = store.one("calls")
    assert (row["outcome"], row["ring_ms"], row["talk_ms"]) == ("cancelled", 800, None)
    assert store.one("call_branches")["outcome"] == "cancelled"


def test_a_call_that_is_over_is_forgotten(recorder: Recorder) -> None:
    play(recorder, *CALL[:4])
    assert (recorder.placed, recorder.closed, recorder.open) == (1, 0, 1)
    assert recorder.find("k") is not None
    recorder.handle("k", CALL[4])
    assert (recorder.placed, recorder.closed, recorder.open) == (1, 1, 0)
    assert recorder.find("k") is None
    assert recorder.handle("k", CALL[4]) is None


def test_one_call_id_has_one_hash_under_one_key(store: Store, recorder: Recorder) -> None:
    recorder.place(placed("k1"))
    recorder.place(placed("k2"))
    first, second = store.all("calls")
    assert first["call_id"] == second["call_id"]
    assert first["id"] != second["id"]
    other = Recorder(store, node="n", call_id_key=b"x" * 32, random=lambda: b"0123456789")
    other.place(placed("k3"))
    assert store.all("calls")[2]["call_id"] != first["call_id"]


def test_call_without_room_for_its_row_is_lost_and_counted(store: Store, recorder: Recorder) -> None:
    store.room = 0
    recorder.place(placed())
    store.room = 1_000
    assert recorder.handle("k", CALL[0]) is None
    assert (recorder.placed, recorder.lost, recorder.open) == (1, 1, 0)
    assert store.all("call_events") == []


def test_open_calls_are_bounded(store: Store) -> None:
    recorder = make_recorder(store, max_open_calls=1)
    recorder.place(placed("k1"))
    assert recorder.full
    recorder.place(placed("k2"))
    assert (recorder.placed, recorder.lost, recorder.open) == (2, 1, 1)
    assert len(store.all("calls")) == 1


# ---------------------------------------------------------------------- sign-ins and errors


def test_sign_in(store: Store, recorder: Recorder) -> None:
    recorder.sign_in(
        at=T, party="p_a", outcome="bound", agent="phone", transport="TCP", source="192.0.2.7", detail="\x00"
    )
    row = store.one("sign_ins")
    assert (row["party"], row["outcome"], row["status"], row["network"], row["count"], row["detail"]) == (
        "p_a", "bound", 200, "192.0.2.0/24", 1, "\ufffd"
    )  # fmt: skip


def test_every_accepted_sign_in_is_a_row(store: Store, recorder: Recorder) -> None:
    for _ in range(3):
        recorder.sign_in(at=T, party="p_a", outcome="bound", source="192.0.2.7")
    assert [row["count"] for row in store.all("sign_ins")] == [1, 1, 1]


def test_refused_sign_ins_of_one_network_share_a_row(store: Store, recorder: Recorder) -> None:
    for number in range(5):
        recorder.sign_in(at=T + number, party=None, outcome=REFUSED, status=401, source="192.0.2.7")
    recorder.sign_in(at=T, party=None, outcome=REFUSED, status=403, source="192.0.2.7")
    recorder.alive(T + 10)
    assert [(row["status"], row["count"]) for row in store.all("sign_ins")] == [(401, 5), (403, 1)]
    assert store.all("sign_ins")[0]["last_at"] == "2026-11-23T21:02:17.946Z"


def test_refusals_from_ever_new_sources_share_a_row_in_the_end(store: Store, recorder: Recorder) -> None:
    for number in range(floods.MAX_OPEN + 50):
        recorder.sign_in(
            at=T, party="p_a", outcome=REFUSED, status=401, agent="x", source=f"10.{number // 256}.{number % 256}.1"
        )
    recorder.alive(T + 10)
    rows = store.all("sign_ins")
    assert len(rows) == floods.MAX_OPEN + 1
    last = rows[-1]
    assert (last["count"], last["party"], last["network"], last["agent"]) == (50, None, None, None)


def test_error(store: Store, recorder: Recorder) -> None:
    recorder.error(
        at=T, kind="malformed", method="IN\x00VITE" * 9, status=400, agent="x", party="p_a", detail="Bad CSeq",
        source="2001:db8::1",
    )  # fmt: skip
    row = store.one("errors")
    assert (row["kind"], row["status"], row["answered_by"], row["detail"], row["party"], row["network"]) == (
        "malformed", 400, "server", "Bad CSeq", "p_a", "2001:db8::/56"
    )  # fmt: skip
    assert len(row["method"]) == 32
    assert row["method"].isprintable()


def test_error_of_which_nothing_is_known(store: Store, recorder: Recorder) -> None:
    recorder.error(at=T, kind="overload")
    row = store.one("errors")
    assert (row["method"], row["status"], row["network"], row["detail"]) == (None, None, None, None)


def test_flood_of_errors_is_one_row_a_window(store: Store, recorder: Recorder) -> None:
    for second in range(90):
        recorder.error(at=T + second * 1_000, kind="malformed", status=400, source="192.0.2.7")
        recorder.alive(T + second * 1_000)
    assert [row["count"] for row in store.all("errors")] == [60, 30]


def test_flood_of_errors_from_ever_new_sources_is_bounded(store: Store, recorder: Recorder) -> None:
    for number in range(floods.MAX_OPEN + 500):
        recorder.error(at=T, kind="malformed", method=f"M{number}", status=400, agent="x", party="p_a", source="::1")
    recorder.alive(T + 10)
    rows = store.all("errors")
    assert len(rows) == floods.MAX_OPEN + 1
    last = rows[-1]
    assert (last["count"], last["method"], last["party"], last["network"]) == (500, None, None, None)


# ---------------------------------------------------------------------- dialogs and links


def test_record_of_a_fork_follows_what_the_caller_kept(store: Store, recorder: Recorder) -> None:
    play(
        recorder, Tried(T + 5, 0, "TCP"), Tried(T + 6, 1, "UDP"), Answered(T + 2_000, 0, 200, "one", BOTH, "a"),
        Answered(T + 2_010, 1, 200, "two", VOICE, "b"), Confirmed(T + 2_020, tag="a"), Confirmed(T + 2_030, tag="b"),
        Ended(T + 2_050, CALLER, tag="a"), Ended(T + 9_010, CALLER, tag="b"),
    )  # fmt: skip
    row = store.one("calls")
    assert (row["callee_agent"], row["callee_transport"], row["talk_ms"], row["video"]) == ("two", "UDP", 7_000, 0)
    assert row["confirmed_at"] == "2026-11-23T21:02:19.972Z"
    assert [(row["outcome"], row["ended_at"]) for row in store.all("call_branches")] == [
        ("also_answered", "2026-11-23T21:02:19.992Z"), ("answered", None)
    ]  # fmt: skip
    assert [(row["number"], row["branch"]) for row in store.all("call_media")] == [(3, 1), (4, 1)]


def test_dialogs_of_open_calls_are_found(store: Store, recorder: Recorder) -> None:
    def place(key: str, tag: str) -> str:
        recorder.place(Placed(T, key, "same", tag=tag))
        call = recorder.handle(key, Answered(T, 0, tag=f"to-{key}"))
        assert call is not None
        return call.id

    first, second = place("k1", "from-1"), place("k2", "from-2")
    for one, other, found in (("from-1", "to-k1", first), ("to-k2", "from-2", second)):
        call = recorder.find_dialog("same", one, other)
        assert call is not None
        assert call.id == found
    assert recorder.find_dialog("same", "from-1", "to-k2") is None
    assert recorder.find_dialog("other", "from-1", "to-k1") is None
    recorder.handle("k1", Ended(T, CALLER))
    assert recorder.find_dialog("same", "from-1", "to-k1") is None
    assert recorder.find_dialog("same", "from-2", "to-k2") is not None
    recorder.handle("k2", Ended(T, CALLER))
    assert recorder.find_dialog("same", "from-2", "to-k2") is None


def test_calls_with_one_call_id_are_found_up_to_a_bound(store: Store, recorder: Recorder) -> None:
    for number in range(MAX_SAME_CALL_ID + 1):
        recorder.place(Placed(T, f"k{number}", "same", tag=f"from-{number}"))
        recorder.handle(f"k{number}", Answered(T, 0, tag="to"))
    assert recorder.find_dialog("same", "from-0", "to") is None
    assert recorder.find_dialog("same", "from-1", "to") is not None
    for number in range(MAX_SAME_CALL_ID + 1):
        recorder.handle(f"k{number}", Ended(T, CALLER))
    assert recorder.find_dialog("same", "from-1", "to") is None
    assert recorder.open == 0


def test_links_are_kept_once_and_go_with_their_calls(store: Store, recorder: Recorder) -> None:
    first, second = recorder.place(placed("k1")), recorder.place(placed("k2"))
    for _ in range(2):
        recorder.link(first.id, second.id, "transfer", T)
    assert store.one("call_links") == {
        "call": first.id, "other": second.id, "kind": "transfer", "at": "2026-11-23T21:02:17.942Z"
    }  # fmt: skip
    store.connection.execute("DELETE FROM calls WHERE id = ?", (second.id,))
    assert store.all("call_links") == []


def test_error_of_a_call_knows_the_call_and_both_parties(store: Store, recorder: Recorder) -> None:
    call = recorder.place(placed())
    for _ in range(3):
        recorder.error(at=T, kind="peer_error", call=call.id, party="p_a", target="p_b", agent="x", answered_by="peer")
    recorder.error(at=T, kind="peer_error", party="p_a", target="p_b", agent="y", answered_by="peer")
    recorder.alive(T + 1)
    rows = store.all("errors")
    assert [(row["call"], row["target"], row["agent"], row["count"]) for row in rows] == [
        (call.id, "p_b", "x", 3), (None, "p_b", "y", 1)
    ]  # fmt: skip
    assert recorder.errors == 4


def test_answered_call_that_ends_without_an_ack_is_an_error(store: Store, recorder: Recorder) -> None:
    call = recorder.place(placed())
    for event in (Tried(T, 0), Answered(T + 10, 0), Ended(T + 50, "caller")):
        recorder.handle("k", event)
    row = store.one("errors")
    assert (row["kind"], row["call"], row["answered_by"], row["party"]) == (
        "unacknowledged", call.id, "network", call.caller
    )  # fmt: skip


def test_end_of_a_call_that_the_full_queue_does_not_take_is_put_later(store: Store, recorder: Recorder) -> None:
    recorder.place(placed())
    recorder.handle("k", Tried(T, 0))
    store.room = len(store.rows)
    recorder.handle("k", Failed(T + 10, 486, "callee"))
    assert (recorder.open, recorder.closed, recorder.ends_waiting) == (0, 0, 1)
    recorder.alive(T + 20)
    assert recorder.ends_waiting == 1
    store.room = 1_000_000
    recorder.alive(T + 30)
    assert (recorder.closed, recorder.ends_waiting) == (1, 0)
    assert store.one("calls")["outcome"] == "busy"


# ---------------------------------------------------------------------- the server itself


def test_runs_of_the_server(store: Store, recorder: Recorder) -> None:
    recorder.started(T)
    recorder.alive(T + 5_000)
    row = store.one("server_runs")
    assert (row["node"], row["started_at"], row["last_alive_at"], row["stopped_at"]) == (
        "node-1", "2026-11-23T21:02:17.942Z", "2026-11-23T21:02:22.942Z", None
    )  # fmt: skip
    recorder.stopped(T + 6_000)
    assert store.one("server_runs")["stopped_at"] == "2026-11-23T21:02:23.942Z"


def test_views_show_what_people_ask(store: Store, recorder: Recorder) -> None:
    play(recorder, *CALL)
    recorder.place(placed("k2"))
    recorder.error(at=T, kind="overload")
    recorder.sign_in(at=T, party="p_a", outcome="bound")
    first, second = store.all("v_calls")
    assert (first["outcome"], first["talk"], first["talk_s"], first["ring_s"]) == ("answered", "0:01:00", 60.0, 2.0)
    assert (second["outcome"], second["open"], second["talk"]) == ("trying", 1, None)
    assert store.one("v_errors")["kind"] == "overload"
    assert store.one("v_sign_ins")["party"] == "p_a"


def test_the_real_writer_takes_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    open_store(path, MIGRATIONS).close()
    writer = Writer(path, STATEMENTS, call_soon=lambda call: call(), keep_failed=True)
    try:
        recorder = Recorder(writer, node="n", call_id_key=b"k" * 32, random=Numbers())
        recorder.started(T)
        play(recorder, *CALL)
        recorder.error(at=T, kind="overload")
        recorder.sign_in(at=T, party="p_a", outcome="bound")
        recorder.stopped(T + 99_000)
        committed = threading.Event()
        outcome: list[bool] = []

        def note(ok: bool) -> None:
            outcome.append(ok)
            committed.set()

        writer.on_commit(note)
        writer.flush()
        assert committed.wait(10)
        assert outcome == [True]
        assert writer.poisoned == 0
    finally:
        writer.close()
    connection = open_store(path, MIGRATIONS, readonly=True)
    assert connection.execute("SELECT talk_ms FROM calls").fetchall() == [(60_000,)]
    connection.close()


def test_device_that_was_given_up_and_answers_has_one_row(store: Store, recorder: Recorder) -> None:
    recorder.place(Placed(T, "k", "call", "p_a", "p_b"))
    for event in (
        Tried(T + 1, 0, "UDP"), Rang(T + 100, 0, "phone"), BranchFailed(T + 40_000, 0, 408, "timeout", heard=True),
        Answered(T + 41_000, 0),
    ):  # fmt: skip
        recorder.handle("k", event)
    row = store.one("call_branches")
    assert (row["outcome"], row["status"], row["ended_at"], row["transport"], row["agent"]) == (
        "answered", 200, None, "UDP", "phone"
    )  # fmt: skip
    assert row["ringing_at"] < row["answered_at"] == store.one("calls")["answered_at"]
