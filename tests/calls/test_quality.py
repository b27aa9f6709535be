"""From reports to quality_reports: which call, which stream, and what is never stored."""

from __future__ import annotations

import pytest

from sipserver.calls.events import CALLER, Answered, Changed, Ended, Placed, Rang, Tried
from sipserver.calls.quality import BYE, NOTIFY, PUBLISH, STATEMENTS, QualityRecords, Sender
from sipserver.calls.recorder import Recorder
from sipserver.sip.quality import SESSION, Metrics, Report, Transport
from sipserver.sip.rtpstat import Summary
from support.calls import Store, T, quality_records
from support.sdp import AUDIO, NO_VIDEO, SLIDES, VIDEO, description

CALL_ID = "a84b4c76e66710@pc33"


@pytest.fixture
def quality(store: Store, recorder: Recorder) -> QualityRecords:
    return quality_records(store, recorder)


def play(recorder: Recorder, *sections: str, key: str = "k", call_id: str = CALL_ID, at: int = T) -> str:
    """A call from p_a to p_b with these media; its id."""
    media = description(*(sections or (VIDEO, AUDIO)))
    call = recorder.place(Placed(at, key, call_id, "p_a", "p_b", offer=media))
    for event in (Tried(at + 5, 0), Answered(at + 10, 0, 200, "phone", media)):
        recorder.handle(key, event)
    return call.id


def report(local: Metrics | None = None, remote: Metrics | None = None, call_id: str = CALL_ID) -> Report:
    made = Report(SESSION, final=True, call_id=call_id, local_metrics=local or {"loss_percent": 1.5})
    made.remote_metrics = remote
    return made


def sender(party: str = "p_a", source: str = PUBLISH) -> Sender:
    return Sender(source, "phone 1.0", party)


@pytest.mark.parametrize(("party", "side"), [("p_a", "caller"), ("p_b", "callee")])
def test_report_joins_the_call_of_its_sender(
    store: Store, recorder: Recorder, quality: QualityRecords, party: str, side: str
) -> None:
    call = play(recorder)
    recorder.handle("k", Ended(T + 9_000, CALLER))
    store.commit()
    assert quality.report(report(), sender(party, NOTIFY), T + 20_000)
    row = store.one("quality_reports")
    assert (row["call"], row["party"], row["side"], row["source"]) == (call, party, side, "notify")
    assert (row["at"], row["agent"], row["node"]) == ("2026-11-23T21:02:37.942Z", "phone 1.0", "node-1")


def test_report_in_the_commit_of_its_call(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    quality.report(report(), sender(), T)
    call = play(recorder)
    assert store.one("quality_reports")["call"] == call


def test_dialog_id_names_the_call_where_call_id_does_not(
    store: Store, recorder: Recorder, quality: QualityRecords
) -> None:
    call = play(recorder)
    made = report(call_id="something else")
    made.dialog = CALL_ID
    quality.report(made, sender(), T)
    assert store.one("quality_reports")["call"] == call


def test_newest_of_two_calls_with_one_call_id(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    play(recorder)
    second = play(recorder, key="other", at=T + 5_000)
    quality.report(report(), sender(), T + 9_000)
    assert store.one("quality_reports")["call"] == second


def test_call_of_others_and_unknown_call_look_alike(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    play(recorder)
    assert quality.report(report(), sender("p_c"), T)
    assert quality.report(report(call_id="nobody's"), sender("p_c"), T)
    assert [(row["call"], row["party"], row["stream"]) for row in store.all("quality_reports")] == [
        (None, "p_c", None)
    ] * 2


def test_directions_are_a_row_each(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    made = report({"loss_percent": 1.5, "mos_lq": 4.1, "from_at": T}, {"jitter_ms": 2.0})
    made.local, made.remote = Transport("192.0.2.9", "0000000a"), Transport("2001:db8::1", "0000000b")
    quality.report(made, sender(), T)
    local, remote = store.all("quality_reports")
    assert (local["direction"], local["loss_percent"], local["mos_lq"], local["jitter_ms"]) == ("local", 1.5, 4.1, None)
    assert (local["receiver_ssrc"], local["receiver_network"]) == ("0000000a", "192.0.2.0/24")
    assert (local["source_ssrc"], local["source_network"]) == ("0000000b", "2001:db8::/56")
    assert (local["from_at"], local["to_at"]) == ("2026-11-23T21:02:17.942Z", None)
    assert (remote["direction"], remote["loss_percent"], remote["jitter_ms"]) == ("remote", None, 2.0)
    assert (remote["receiver_ssrc"], remote["source_ssrc"]) == ("0000000b", "0000000a")


def test_what_is_not_told_is_null(store: Store, quality: QualityRecords) -> None:
    quality.report(report({"jitter_ms": 0.0}), sender(), T)
    row = store.one("quality_reports")
    told = {name for name, value in row.items() if value is not None}
    assert told == {
        "id", "digest", "at", "party", "source", "format", "kind", "final", "direction", "media_kind", "jitter_ms",
        "agent", "node",
    }  # fmt: skip
    assert row["jitter_ms"] == 0


def test_same_report_counts_once_and_another_does_not(store: Store, quality: QualityRecords) -> None:
    for at in (T, T + 60_000):
        quality.report(report({"loss_percent": 1.5}, {"jitter_ms": 2}), sender(), at)
    quality.report(report({"loss_percent": 1.6}), sender(), T)
    quality.report(report({"loss_percent": 1.5}), sender("p_b"), T)
    assert len(store.all("quality_reports")) == 4


@pytest.mark.parametrize(
    ("sections", "metrics", "stream"),
    [
        ((VIDEO, AUDIO), {"jitter_ms": 1.0}, 1),
        ((VIDEO, AUDIO), {"codec": "OPUS"}, 1),
        ((VIDEO, AUDIO), {"codec": "G729"}, 1),
        ((VIDEO, AUDIO), {"codec": "h264"}, 0),
        ((AUDIO, "m=audio 4000 RTP/AVP 9"), {"codec": "G722"}, 1),
        ((AUDIO, "m=audio 4000 RTP/AVP 9"), {"codec": "PCMA"}, None),
        ((AUDIO, "m=audio 4000 RTP/AVP 9"), {"jitter_ms": 1.0}, None),
        ((VIDEO, SLIDES), {"jitter_ms": 1.0}, None),
        ((AUDIO, VIDEO, SLIDES), {"codec": "VP8"}, 1),
    ],
)
def test_stream_by_kind_and_codec(
    store: Store, recorder: Recorder, quality: QualityRecords, sections: tuple[str, ...], metrics: Metrics,
    stream: int | None,
) -> None:  # fmt: skip
    play(recorder, *sections)
    quality.report(report(metrics), sender(), T)
    row = store.one("quality_reports")
    assert row["stream"] == stream
    assert (row["media"] is None) == (stream is None)


def test_stream_that_changed_is_its_latest_row(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    play(recorder)
    held = description(VIDEO, AUDIO + "\na=inactive")
    recorder.handle("k", Changed(T + 2_000, CALLER, held, held))
    quality.report(report({"codec": "opus"}), sender(), T + 3_000)
    row = store.one("quality_reports")
    assert (row["stream"], row["media"]) == (1, 3)
    assert [each["stream"] for each in store.all("call_media") if each["number"] == 3] == [1]


def test_early_media_are_no_stream_of_the_call(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    recorder.place(Placed(T, "k", CALL_ID, "p_a", "p_b", offer=description(VIDEO, AUDIO)))
    recorder.handle("k", Rang(T + 5, 0, answer=description(VIDEO, AUDIO)))
    assert [row["early"] for row in store.all("call_media")] == [1, 1]
    quality.report(report({"codec": "opus"}), sender(), T)
    assert store.one("quality_reports")["stream"] is None


def test_refused_stream_is_none(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    recorder.place(Placed(T, "k", CALL_ID, "p_a", "p_b", offer=description(AUDIO, VIDEO)))
    recorder.handle("k", Tried(T, 0))
    recorder.handle("k", Answered(T, 0, 200, None, description(AUDIO, NO_VIDEO)))
    quality.report(report({"codec": "H264"}), sender(), T)
    assert store.one("quality_reports")["stream"] is None


def test_summary_belongs_to_the_call_and_side_of_its_bye(
    store: Store, recorder: Recorder, quality: QualityRecords
) -> None:
    call = play(recorder)
    summary = Summary("x-rtp-stat", {"packets_lost": 3, "packets_received": 97}, {"jitter_ms": 2.0})
    assert quality.summary(summary, Sender(BYE, None, call=call, side="callee"), T)
    local, remote = store.all("quality_reports")
    for row in (local, remote):
        assert (row["call"], row["party"], row["side"], row["stream"]) == (call, "p_b", "callee", 1)
        assert (row["kind"], row["format"], row["source"], row["final"]) == ("summary", "x-rtp-stat", "bye", 1)
    view = store.all("v_quality")[0]
    assert (view["reporter"], view["other"], view["loss_percent"]) == ("p_b", "p_a", 3.0)


@pytest.mark.parametrize(
    ("local", "remote", "originator", "side"),
    [
        ("<sip:a@x>", "<sip:b@x>", "Alice <sip:a@X;transport=tcp>", "caller"),
        ("<sip:a@x>", "<sip:b@x>", "sip:b@x", "callee"),
        ("<sip:a@x>", "<sip:b@x>", "sip:c@x", None),
        ("<sip:a@x>", "<sip:a@x>", "sip:a@x", None),
        ("<sip:a@x>", "<sip:b@x>", None, None),
        ("<sip:a@x>", "<sip:b@x>", "<<nonsense", None),
    ],
)
def test_side_by_who_placed_the_call_where_the_call_is_not_known(
    store: Store, quality: QualityRecords, local: str, remote: str, originator: str | None, side: str | None
) -> None:
    made = report()
    made.local_id, made.remote_id, made.originator_id = local, remote, originator
    quality.report(made, sender(), T)
    assert store.one("quality_reports")["side"] == side


def test_reports_go_with_their_call(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    call = play(recorder)
    quality.report(report(), sender(), T)
    store.commit()
    store.connection.execute("DELETE FROM calls WHERE id = ?", (call,))
    assert store.all("quality_reports") == []


def test_full_queue_is_told(store: Store, quality: QualityRecords) -> None:
    store.room = 0
    assert not quality.report(report(), sender(), T)
    assert not quality.summary(Summary("x-rtp-stat", {"jitter_ms": 1}, {}), Sender(BYE, None), T)


def test_calls_are_found_by_the_indices(store: Store, recorder: Recorder, quality: QualityRecords) -> None:
    quality.report(report(), sender(), T)
    ((_, row),) = store.rows
    plan = [each[3] for each in store.connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[0]}", row)]
    scans = [line for line in plan if line.startswith("SCAN calls") or "SCAN call_media" in line]
    assert not scans, plan
    for index in ("calls_caller", "calls_callee"):
        assert any(f"INDEX {index}" in line for line in plan), plan
