"""Refreshes by day, devices, and what a party has done."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.calls.activity import ActivityRecords
from sipserver.calls.events import CALLEE, CALLER, Answered, Confirmed, Ended, Failed, Placed, Tried
from sipserver.calls.quality import PUBLISH, Sender
from sipserver.calls.query import list_activity, list_devices
from sipserver.calls.recorder import REFUSED, Recorder
from sipserver.sip.message import Request, parse
from sipserver.sip.quality import SESSION, Report
from support.calls import Store, T, activity_records, quality_records
from support.sdp import AUDIO, description

DAY = 86_400_000
INSTANCE = "<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>"


@pytest.fixture
def activity(store: Store, recorder: Recorder) -> ActivityRecords:
    return activity_records(store, recorder)


def register(*lines: str) -> Request:
    """A REGISTER with these lines."""
    message = parse("\r\n".join(("REGISTER sip:example.test SIP/2.0", *lines, "", "")).encode())
    assert isinstance(message, Request)
    return message


def days(store: Store) -> list[tuple[Any, ...]]:
    """Party, day and refreshes."""
    return [(row["party"], row["day"], row["refreshes"]) for row in store.all("sign_in_days")]


def test_refreshes_of_a_day_are_one_row(store: Store, activity: ActivityRecords) -> None:
    for at in (T, T + 1, T + 60_000):
        activity.refreshed("p_a", at)
    assert store.rows == []
    activity.flush()
    activity.refreshed("p_a", T + 90_000)
    activity.flush()
    row = store.one("sign_in_days")
    assert row == {
        "party": "p_a", "day": "2026-11-23", "refreshes": 4, "first_at": "2026-11-23T21:02:17.942Z",
        "last_at": "2026-11-23T21:03:47.942Z",
    }  # fmt: skip
    assert activity.refreshes == 4


def test_days_are_apart(store: Store, activity: ActivityRecords) -> None:
    activity.refreshed("p_a", T)
    activity.refreshed("p_a", T + DAY)
    activity.refreshed("p_b", T + DAY)
    activity.flush()
    assert days(store) == [("p_a", "2026-11-23", 1), ("p_a", "2026-11-24", 1), ("p_b", "2026-11-24", 1)]


def test_row_that_is_written_again_counts_once(store: Store, activity: ActivityRecords) -> None:
    activity.refreshed("p_a", T)
    activity.flush()
    again = list(store.rows)
    store.commit()
    store.rows = again
    assert days(store) == [("p_a", "2026-11-23", 1)]


def test_many_parties_are_written_early(store: Store, recorder: Recorder) -> None:
    activity = activity_records(store, recorder, max_counted=5)
    for number in range(6):
        activity.refreshed(f"p_{number}", T)
    assert len(store.rows) == 5


def test_counts_wait_for_a_store_that_takes_nothing(store: Store, recorder: Recorder) -> None:
    activity = activity_records(store, recorder, max_counted=2)
    store.room = 0
    activity.refreshed("p_a", T)
    activity.flush()
    activity.refreshed("p_a", T + 1)
    store.room = 10
    activity.flush()
    assert days(store) == [("p_a", "2026-11-23", 2)]
    assert activity.lost == 0
    # Not for ever, though, nor all of them.
    store.room = 0
    for party in ("p_a", "p_b", "p_c"):
        activity.refreshed(party, T + 2)
    assert activity.lost == 1
    activity.refreshed("p_a", T + DAY)
    assert activity.lost == 3


def test_device_and_what_it_says_of_itself(store: Store, activity: ActivityRecords) -> None:
    request = register("Allow: INVITE, BYE, ACK", "Allow: CANCEL", "Supported: path, outbound")
    activity.device("p_a", INSTANCE, "Set 1.0", request, "TCP", "192.0.2.7", T)
    row = store.one("devices")
    device = row.pop("device")
    assert "aabbccddeeff" not in device.lower()
    assert len(device) == 24
    assert row == {
        "party": "p_a", "named": 1, "agent": "Set 1.0", "allow": "ACK, BYE, CANCEL, INVITE",
        "supported": "outbound, path", "transport": "TCP", "network": "192.0.2.0/24",
        "first_seen": "2026-11-23T21:02:17.942Z", "last_seen": "2026-11-23T21:02:17.942Z",
    }  # fmt: skip


def test_refreshes_of_a_device_cost_a_row_an_hour(store: Store, activity: ActivityRecords) -> None:
    for minute in range(0, 121, 10):
        activity.device("p_a", INSTANCE, "Set 1.0", register(), "UDP", "192.0.2.7", T + minute * 60_000)
    written = [row for statement, row in store.rows if len(row) == 10]
    assert len(written) == 3
    row = store.one("devices")
    assert (row["first_seen"], row["last_seen"]) == ("2026-11-23T21:02:17.942Z", "2026-11-23T23:02:17.942Z")
    assert (row["allow"], row["supported"]) == (None, None)


def test_new_software_is_seen_at_once(store: Store, activity: ActivityRecords) -> None:
    activity.device("p_a", INSTANCE, "Set 1.0", register(), "UDP", "192.0.2.7", T)
    activity.device("p_a", INSTANCE, "Set 1.1", register(), "UDP", "192.0.2.7", T + 1_000)
    row = store.one("devices")
    assert (row["agent"], row["last_seen"]) == ("Set 1.1", "2026-11-23T21:02:18.942Z")


def test_without_an_instance_the_agent_names_the_device(store: Store, activity: ActivityRecords) -> None:
    for agent in ("Set 1.0", "Set 1.0", "Soft 2", None):
        activity.device("p_a", None, agent, register(), "UDP", "192.0.2.7", T)
    assert sorted((row["agent"] or "", row["named"]) for row in store.all("devices")) == [
        ("", 0), ("Set 1.0", 0), ("Soft 2", 0),
    ]  # fmt: skip


def test_party_has_a_bounded_number_of_devices(store: Store, activity: ActivityRecords) -> None:
    for number in range(60):
        activity.device("p_a", f"urn:x:{number}", f"Set {number}", register(), "UDP", "192.0.2.7", T + number)
        store.commit()
    assert {row["agent"] for row in store.all("devices")} == {f"Set {number}" for number in range(10, 60)}


def test_memory_of_devices_is_bounded(store: Store, recorder: Recorder) -> None:
    activity = activity_records(store, recorder, max_devices=3)
    for number in range(8):
        activity.device("p_a", f"urn:x:{number}", None, register(), "UDP", "192.0.2.7", T)
    assert len(activity._seen) <= 3
    assert len(store.all("devices")) == 8


def fill(store: Store, recorder: Recorder, activity: ActivityRecords) -> None:
    """Two calls from p_a to p_b, one of them answered and ended by p_b, and what else names p_a."""
    media = description(AUDIO)
    first = recorder.place(Placed(T, "one", "one", "p_a", "p_b", offer=media))
    answered = Answered(T + 1_000, 0, 200, "x", media)
    for event in (Tried(T, 0), answered, Confirmed(T + 1_100), Ended(T + 91_000, CALLEE)):
        recorder.handle("one", event)
    recorder.place(Placed(T + 200_000, "two", "two", "p_a", "p_b"))
    recorder.handle("two", Failed(T + 201_000, 486, CALLEE))
    third = recorder.place(Placed(T + 300_000, "three", "three", "p_b", "p_a"))
    recorder.link(first.id, third.id, "transfer", T + 300_000)
    recorder.sign_in(at=T - 1_000, party="p_a", outcome="bound")
    recorder.sign_in(at=T - 900, party="p_a", outcome="removed")
    for _ in range(3):
        recorder.sign_in(at=T, party="p_a", outcome=REFUSED, status=403, source="192.0.2.1")
    recorder.error(at=T, kind="refused", party="p_a", status=403)
    recorder.alive(T + 1)
    activity.refreshed("p_a", T)
    activity.refreshed("p_a", T + 5)
    activity.flush()
    activity.device("p_a", None, "Set", register(), "UDP", "192.0.2.7", T)
    report = Report(SESSION, call_id="one", local_metrics={"jitter_ms": 1.0})
    quality_records(store, recorder).report(report, Sender(PUBLISH, None, "p_a"), T + 92_000)
    store.commit()


def test_activity_of_a_party(store: Store, recorder: Recorder, activity: ActivityRecords) -> None:
    fill(store, recorder, activity)
    (row,) = list_activity(store.connection, "p_a")
    size = row.pop("bytes")
    assert row == {
        "party": "p_a", "sign_ins": 1, "sign_ins_refused": 3, "refreshes": 2, "calls_begun": 2, "calls_received": 1,
        "calls_answered": 1, "calls_ended": 2, "calls_hung_up": 0, "minutes": 1.5, "errors": 1, "quality_reports": 1,
        "devices": 1, "first_seen": "2026-11-23T21:02:16.942Z", "last_seen": "2026-11-23T21:07:17.942Z",
    }  # fmt: skip
    assert size == measured(store, "p_a")
    assert [each["agent"] for each in list_devices(store.connection, "p_a")] == ["Set"]
    assert list_devices(store.connection, "p_b") == []
    assert list_activity(store.connection, "p_c") == []


def measured(store: Store, party: str) -> int:
    """The bytes of the rows about a party, counted row by row."""
    calls = [row for row in store.all("calls") if party in (row["caller"], row["callee"])]
    rows = list(calls)
    for table in ("call_branches", "call_media", "stored_events", "call_links"):
        rows += [row for row in store.all(table) if row["call"] in [call["id"] for call in calls]]
    for table in ("sign_ins", "errors", "devices", "sign_in_days", "quality_reports"):
        rows += [row for row in store.all(table) if row["party"] == party]
    values = [value for row in rows for value in row.values() if value is not None]
    return sum(len(value) if isinstance(value, str) else 8 for value in values)


def test_activity_of_everybody_is_the_view(store: Store, recorder: Recorder, activity: ActivityRecords) -> None:
    fill(store, recorder, activity)
    everybody = list_activity(store.connection)
    assert [row["party"] for row in everybody] == ["p_a", "p_b"]
    assert everybody == [*list_activity(store.connection, "p_a"), *list_activity(store.connection, "p_b")]
    assert everybody[1]["calls_hung_up"] == 1
    assert len(list_devices(store.connection)) == 1


def test_activity_of_a_party_goes_through_indices(store: Store) -> None:
    query = "SELECT count(*) FROM activity_rows WHERE party = 'p_a' GROUP BY party"
    plan = [row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert not [line for line in plan if line.startswith("SCAN") and "activity_rows" not in line], plan


def test_call_with_oneself_is_begun_and_received(store: Store, recorder: Recorder) -> None:
    recorder.place(Placed(T, "k", "k", "p_a", "p_a"))
    recorder.handle("k", Ended(T + 5, CALLER))
    store.commit()
    (row,) = list_activity(store.connection, "p_a")
    assert (row["calls_begun"], row["calls_received"]) == (1, 1)
