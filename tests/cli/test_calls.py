"""``sipserver calls``."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.times import parse_stamp
from sipserver.cli.calls import Watched, change_line, stage
from sipserver.cli.selecting import Moment
from sipserver.storage.migrations import open_store
from support.stores import new_store

Sipserver = Callable[..., Result]

FIRST = "0199c2f1-6a40-7abc-8000-000000000001"
SECOND = "0199c2f1-6a41-7abc-8000-000000000002"
OPEN = "0199c2f1-6a42-7abc-8000-000000000003"


@pytest.fixture
def people(sipserver: Sipserver) -> dict[str, str]:
    """Alice and Bob: their party ids by name."""
    for name in ("alice", "bob"):
        sipserver("subscribers", "add", f"{name}@example.test", "--password-stdin", text="x\n")
    rows = json.loads(sipserver("subscribers", "list", "--json").stdout)
    return {row["address"].partition("@")[0]: row["party"] for row in rows}


@pytest.fixture
def calls(people: dict[str, str], data_dir: Path) -> None:
    """An answered call, one to somebody unknown, and one that goes on."""
    alice, bob = people["alice"], people["bob"]
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        insert = (
            "INSERT INTO calls"
            " (id, call_id, caller, callee, started_at, ended_at, talk_ms, outcome, video, caller_agent)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        rows = [
            (FIRST, "h1", alice, bob, "2026-11-23T21:00:00.000Z", "2026-11-23T21:00:42.000Z", 41_250, "answered", 1,
                "=HYPERLINK(1)\x1b[2J"),
            (SECOND, "h2", alice, None, "2026-11-23T21:05:00.000Z", "2026-11-23T21:05:00.100Z", None, "not_found",
                None, None),
            (OPEN, "h3", bob, alice, "2026-11-23T21:10:00.000Z", None, None, None, None, None),
        ]  # fmt: skip
        store.executemany(insert, rows)
        store.execute("INSERT INTO stored_events (call, number, at, kind) VALUES (?, 0, 'now', 'placed')", (FIRST,))


def listed(sipserver: Sipserver, *options: str) -> list[str]:
    return [row["id"] for row in json.loads(sipserver("calls", "list", "--json", *options).stdout)]


@pytest.mark.usefixtures("calls")
def test_list_names_who_called_whom_and_how_long(sipserver: Sipserver) -> None:
    lines = sipserver("calls", "list").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["2026-11-23", "21:10:00.000", "bob@example.test", "alice@example.test", "(open)", OPEN[:18]],
        ["2026-11-23", "21:05:00.000", "alice@example.test", "not_found", SECOND[:18]],
        [
            "2026-11-23", "21:00:00.000", "alice@example.test", "bob@example.test", "answered", "41.2", "s", "yes",
            FIRST[:18],
        ],
    ]  # fmt: skip


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [OPEN, SECOND, FIRST]),
        (("--limit", "1"), [OPEN]),
        (("--open",), [OPEN]),
        (("--outcome", "answered"), [FIRST]),
        (("--since", "2026-11-23T21:05"), [OPEN, SECOND]),
        (("--until", "2026-11-23T22:05+01:00"), [FIRST]),
        (("--address", "sip:bob@EXAMPLE.test"), [OPEN, FIRST]),
        (("--address", "nobody@example.test"), []),
        (("--since", "2026-11-23T21:05:00.001Z"), [OPEN]),
    ],
)
def test_list_has_what_is_asked_for(sipserver: Sipserver, options: tuple[str, ...], expected: list[str]) -> None:
    assert listed(sipserver, *options) == expected


@pytest.mark.usefixtures("calls")
def test_list_finds_a_party(sipserver: Sipserver, people: dict[str, str]) -> None:
    assert listed(sipserver, "--party", people["bob"]) == [OPEN, FIRST]


@pytest.mark.usefixtures("calls")
def test_names_are_left_out_where_asked_for_or_unreadable(
    sipserver: Sipserver, people: dict[str, str], data_dir: Path
) -> None:
    assert "alice" not in sipserver("calls", "list", "--no-names").stdout
    (data_dir / "accounts.db").unlink()
    out = sipserver("calls", "list").stdout
    assert "alice" not in out
    assert people["alice"] in out
    result = sipserver("calls", "list", "--address", "alice@example.test")
    assert result.exit_code == 1
    assert "use --party" in result.stderr


@pytest.mark.usefixtures("calls")
def test_removed_subscriber_cannot_be_named_any_more(sipserver: Sipserver, people: dict[str, str]) -> None:
    sipserver("subscribers", "remove", "alice@example.test")
    out = sipserver("calls", "list").stdout
    assert "alice" not in out
    assert people["alice"] in out
    assert "bob@example.test" in out


@pytest.mark.usefixtures("calls")
def test_csv_neutralises_what_endpoints_wrote(sipserver: Sipserver) -> None:
    rows = list(csv.DictReader(io.StringIO(sipserver("calls", "list", "--csv").stdout)))
    assert rows[-1]["caller_agent"] == "'=HYPERLINK(1)\\x1b[2J"
    assert rows[-1]["caller_address"] == "alice@example.test"


@pytest.mark.usefixtures("calls")
def test_show_tells_which_call_came_of_which(sipserver: Sipserver, data_dir: Path) -> None:
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute("INSERT INTO call_links VALUES (?, ?, 'transfer', '2026-11-23T21:05:00.000Z')", (FIRST, SECOND))
    for call in (FIRST, SECOND):
        out = sipserver("calls", "show", call).stdout
        line = out[out.index("links\n") :].split("\n")[2]
        assert line.split() == ["2026-11-23T21:05:00.000Z", "transfer", FIRST, SECOND]
    assert "links" not in sipserver("calls", "show", OPEN).stdout
    assert json.loads(sipserver("calls", "show", OPEN, "--json").stdout)["links"] == []


@pytest.mark.usefixtures("calls")
def test_show_takes_the_beginning_of_an_id(sipserver: Sipserver) -> None:
    out = sipserver("calls", "show", FIRST[:18]).stdout
    assert "talk ms         41250" in out
    assert "caller address  alice@example.test" in out
    assert "\nevents\nAT   KIND    SIDE  STATUS  DETAIL\nnow  placed\n" in out
    assert "\x1b" not in out
    record = json.loads(sipserver("calls", "show", FIRST, "--json").stdout)
    assert [event["kind"] for event in record["events"]] == ["placed"]
    assert sipserver("calls", "show", FIRST, "--csv").stdout.count("\n") == 2


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("beginning", "expected"), [("0199", "several calls begin with 0199"), ("ffff", "there is no call 'ffff'")]
)
def test_id_that_names_no_single_call_is_told(sipserver: Sipserver, beginning: str, expected: str) -> None:
    result = sipserver("calls", "show", beginning)
    assert (result.exit_code, result.stderr) == (1, f"sipserver: {expected}\n")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("1w", 604_800)])
def test_time_may_be_so_long_ago(text: str, seconds: int) -> None:
    assert abs(Moment().convert(text, None, None) - (time.time() - seconds) * 1000) < 5_000


@pytest.mark.usefixtures("calls")
def test_text_that_is_no_time_is_wrong_use(sipserver: Sipserver) -> None:
    result = sipserver("calls", "list", "--since", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is no time" in result.stderr


@pytest.mark.usefixtures("calls")
def test_watched_calls_are_told_stage_by_stage(data_dir: Path) -> None:
    now = parse_stamp("2026-11-23T21:10:30.000Z")
    with (
        closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store,
        closing(open_store(data_dir / "calls.db", MIGRATIONS, readonly=True)) as reading,
    ):
        watched = Watched(reading, now)
        (going_on,) = watched.changes(now)
        assert (going_on["id"], stage(going_on)) == (OPEN, "placed")
        assert watched.changes(now) == []
        for column, expected in (("ringing_at", "ringing"), ("answered_at", "answered"), ("ended_at", "ended")):
            store.execute(f"UPDATE calls SET {column} = '2026-11-23T21:10:31.000Z' WHERE id = ?", (OPEN,))
            (changed,) = watched.changes(now)
            assert stage(changed) == expected
        store.execute("UPDATE calls SET reason = 'x'")
        assert watched.changes(now) == []


@pytest.mark.usefixtures("calls")
def test_watching_begins_with_what_goes_on_however_long_and_nothing_else(data_dir: Path) -> None:
    # SECOND is over; OPEN began before it and goes on for hours.
    now = parse_stamp("2026-11-23T21:05:30.000Z") + 8 * 3_600_000
    with (
        closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store,
        closing(open_store(data_dir / "calls.db", MIGRATIONS, readonly=True)) as reading,
    ):
        store.execute("UPDATE calls SET started_at = '2026-11-23T21:04:00.000Z' WHERE id = ?", (OPEN,))
        watched = Watched(reading, now)
        assert [record["id"] for record in watched.changes(now)] == [OPEN]
        store.executemany(
            "INSERT INTO calls (id, call_id, started_at) VALUES (?, 'h', '2026-11-24T05:05:29.000Z')",
            [(f"new-{number}",) for number in range(3)],
        )
        store.execute("UPDATE calls SET ended_at = '2026-11-24T05:05:31.000Z' WHERE id IN (?, 'new-1')", (OPEN,))
        changed = [(record["id"], stage(record)) for record in watched.changes(now)]
        assert changed == [(OPEN, "ended"), ("new-0", "placed"), ("new-1", "ended"), ("new-2", "placed")]
        # Those that began long ago are still looked after.
        store.execute("UPDATE calls SET ended_at = '2026-11-24T09:00:00.000Z' WHERE id = 'new-2'")
        assert [record["id"] for record in watched.changes(now + 7_200_000)] == ["new-2"]


def test_change_is_one_line_for_people() -> None:
    record = {
        "id": FIRST, "caller": "p_1", "caller_address": "alice@example.test", "callee": None, "outcome": "answered",
        "started_at": "2026-11-23T21:00:00.000Z", "ringing_at": None, "answered_at": "2026-11-23T21:00:01.000Z",
        "ended_at": "2026-11-23T21:00:42.250Z", "talk_ms": 41_250, "video": 1,
    }  # fmt: skip
    line = "2026-11-23 21:00:42.250  ended     alice@example.test -> -  answered 41.2 s  0199c2f1-6a40-7abc"
    assert change_line(record) == line
    record |= {"ended_at": None, "outcome": None, "talk_ms": None}
    assert change_line(record) == "2026-11-23 21:00:01.000  answered  alice@example.test -> -  0199c2f1-6a40-7abc"


def test_missing_record_is_told(sipserver: Sipserver, data_dir: Path) -> None:
    result = sipserver("calls", "list")
    assert (result.exit_code, result.stderr) == (1, f"sipserver: {data_dir}/calls.db does not exist yet\n")


def test_show_says_how_uncertain_an_end_is(sipserver: Sipserver, calls: None, data_dir: Path) -> None:
    assert "end not observed" not in sipserver("calls", "show", FIRST).stdout
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute(
            "UPDATE calls SET answered_at = '2026-11-23T21:00:00.750Z', ended_at = '2026-11-23T21:00:42.000Z',"
            " end_cause = 'session_expired', end_uncertainty_ms = 90500 WHERE id = ?", (FIRST,)
        )  # fmt: skip
        store.execute(
            "UPDATE calls SET end_cause = 'server_restart', end_uncertainty_ms = 1000 WHERE id = ?", (SECOND,)
        )
    assert (
        "end not observed (session_expired): between 2026-11-23T21:00:42.000Z and 2026-11-23T21:02:12.500Z; "
        "talk from 41.2 to 131.8 s"
    ) in sipserver("calls", "show", FIRST).stdout
    shown = sipserver("calls", "show", SECOND).stdout
    assert "end not observed (server_restart): between" in shown
    assert "talk from" not in shown
