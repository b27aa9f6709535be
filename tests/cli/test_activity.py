"""``sipserver activity``, and what ``subscribers show`` says of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.calls.schema import MIGRATIONS
from support.stores import new_store

Sipserver = Callable[..., Result]

CALL = "0199c2f1-6a40-7abc-8000-000000000001"


@pytest.fixture
def party(sipserver: Sipserver, data_dir: Path) -> str:
    """Alice's party; she called somebody, refreshed, has a device, and her endpoint reported."""
    sipserver("subscribers", "add", "alice@example.test", "--password-stdin", text="x\n")
    (row,) = json.loads(sipserver("subscribers", "show", "alice@example.test", "--json").stdout)
    party = str(row["party"])
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute(
            "INSERT INTO calls (id, call_id, caller, callee, started_at, answered_at, ended_at, ended_by, talk_ms,"
            " outcome) VALUES (?, 'h', ?, 'p_gone', '2026-11-23T21:00:00.000Z', '2026-11-23T21:00:02.000Z',"
            " '2026-11-23T21:03:02.000Z', 'caller', 180000, 'answered')",
            (CALL, party),
        )
        store.execute(
            "INSERT INTO sign_in_days VALUES ('2026-11-23', ?, 7, '2026-11-23T20:00:00.000Z',"
            " '2026-11-23T22:00:00.000Z')",
            (party,),
        )
        store.execute(
            "INSERT INTO devices VALUES (?, 'd', 1, '=Set\x1b[2J', 'INVITE', NULL, 'UDP', '192.0.2.0/24',"
            " '2026-11-23T20:00:00.000Z', '2026-11-23T21:30:00.000Z')",
            (party,),
        )
        store.execute(
            "INSERT INTO quality_reports (id, digest, at, call, party, side, source, format, kind, direction,"
            " loss_percent, mos_lq) VALUES ('q', 'q', '2026-11-23T21:03:03.000Z', ?, ?, 'caller', 'publish',"
            " 'vq-rtcpxr', 'session', 'local', 1.5, 4.1)",
            (CALL, party),
        )
    return party


def rows(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_list_names_who_is_known(sipserver: Sipserver, party: str) -> None:
    found = {row["who"]: row for row in rows(sipserver("activity", "list", "--json"))}
    assert set(found) == {"alice@example.test", "p_gone"}
    alice = found["alice@example.test"]
    assert (alice["party"], alice["refreshes"], alice["calls_begun"], alice["minutes"]) == (party, 7, 1, 3.0)
    assert (alice["calls_hung_up"], found["p_gone"]["calls_hung_up"]) == (1, 0)
    first, second = sipserver("activity", "list").stdout.splitlines()[1:]
    assert first.startswith("alice@example.test")
    assert second.startswith("p_gone")


@pytest.mark.parametrize("option", ["--address=alice@example.test", "--party=PARTY"])
def test_list_of_one(sipserver: Sipserver, party: str, option: str) -> None:
    (row,) = rows(sipserver("activity", "list", option.replace("PARTY", party), "--no-names", "--json"))
    assert row["who"] == party


def test_nobody_has_done_anything(sipserver: Sipserver, party: str) -> None:
    assert sipserver("activity", "list", "--party", "p_nobody").stdout == "Nothing has happened.\n"
    assert sipserver("activity", "devices", "--party", "p_nobody").stdout == "No devices.\n"


def test_devices(sipserver: Sipserver, party: str) -> None:
    (row,) = rows(sipserver("activity", "devices", "--address", "alice@example.test", "--json"))
    assert (row["who"], row["allow"], row["named"]) == ("alice@example.test", "INVITE", 1)
    assert len(rows(sipserver("activity", "devices", "--json"))) == 1
    table = sipserver("activity", "devices").stdout
    assert "=Set\\x1b[2J" in table
    (line,) = csv.DictReader(io.StringIO(sipserver("activity", "devices", "--csv").stdout))
    assert line["agent"].startswith("'=Set")


def test_subscriber_is_shown_with_activity_and_devices(sipserver: Sipserver, party: str) -> None:
    text = sipserver("subscribers", "show", "alice@example.test").stdout
    assert "minutes" in text
    assert "\ndevices\n" in text
    (row,) = rows(sipserver("subscribers", "show", "alice@example.test", "--json"))
    activity, devices = row["activity"], row["devices"]
    assert isinstance(activity, dict)
    assert isinstance(devices, list)
    assert (activity["refreshes"], activity["quality_reports"]) == (7, 1)
    assert [device["transport"] for device in devices] == ["UDP"]
    (line,) = csv.DictReader(io.StringIO(sipserver("subscribers", "show", "alice@example.test", "--csv").stdout))
    assert (line["address"], line["refreshes"]) == ("alice@example.test", "7")


def test_subscriber_is_shown_without_a_record(sipserver: Sipserver, data_dir: Path) -> None:
    sipserver("subscribers", "add", "bob@example.test", "--password-stdin", text="x\n")
    (row,) = rows(sipserver("subscribers", "show", "bob@example.test", "--json"))
    assert (row["activity"], row["devices"]) == (None, [])
    (data_dir / "calls.db").write_bytes(b"no database at all, but large enough to look" * 50)
    result = sipserver("subscribers", "show", "bob@example.test")
    assert result.exit_code == 0
    assert "bob@example.test" in result.stdout
    assert "calls.db" in result.stderr


def test_call_is_shown_with_its_quality(sipserver: Sipserver, party: str) -> None:
    out = sipserver("calls", "show", CALL).stdout
    title, line = out.partition("\nquality\n")[2].splitlines()[:2]
    assert title.split()[:3] == ["SIDE", "DIRECTION", "KIND"]
    assert line.split() == ["caller", "local", "session", "1.5", "4.1", "vq-rtcpxr"]


@pytest.fixture
def sign_ins(party: str, data_dir: Path) -> None:
    """Alice signed in; somebody was refused seven times, and somebody without a name."""
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.executemany(
            """INSERT INTO sign_ins (id, at, party, outcome, status, agent, network, country, count, last_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, '192.0.2.0/24', ?7, ?8, ?2)""",
            [
                ("s1", "2026-11-23T20:00:00.000Z", party, "bound", 200, "=Set\x1b[2J", "AT", 1),
                ("s2", "2026-11-23T21:00:00.000Z", "p_gone", "refused", 401, None, None, 7),
                ("s3", "2026-11-24T09:00:00.000Z", None, "refused", 403, None, None, 1),
            ],
        )


@pytest.mark.usefixtures("sign_ins")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["s3", "s2", "s1"]),
        (("--outcome", "refused"), ["s3", "s2"]),
        (("--address", "alice@example.test"), ["s1"]),
        (("--party", "p_gone"), ["s2"]),
        (("--since", "2026-11-23T20:30", "--until", "2026-11-24"), ["s2"]),
        (("--limit", "1"), ["s3"]),
    ],
)
def test_sign_ins_that_are_asked_for(sipserver: Sipserver, options: tuple[str, ...], expected: list[str]) -> None:
    assert [row["id"] for row in rows(sipserver("activity", "sign-ins", "--json", *options))] == expected


@pytest.mark.usefixtures("sign_ins")
def test_sign_ins_in_a_table(sipserver: Sipserver) -> None:
    text = sipserver("activity", "sign-ins").stdout
    assert "\x1b" not in text
    lines = text.splitlines()
    assert "alice@example.test" in lines[3]
    assert "p_gone" in lines[2]
    assert "city" not in lines[0], "a column in which nothing stands is not shown"
    assert sipserver("activity", "sign-ins", "--party", "p_nobody").stdout == "No sign-ins.\n"


def test_refreshes_by_day(sipserver: Sipserver, party: str) -> None:
    (row,) = rows(sipserver("activity", "refreshes", "--since", "2026-11-23T23:00", "--json"))
    assert (row["day"], row["who"], row["refreshes"]) == ("2026-11-23", "alice@example.test", 7)
    assert rows(sipserver("activity", "refreshes", "--party", party, "--json")) == [row]
    assert rows(sipserver("activity", "refreshes", "--since", "2026-11-24", "--json")) == []
    assert sipserver("activity", "refreshes", "--party", "p_nobody").stdout == "No refreshes.\n"


def test_quality_that_was_reported(sipserver: Sipserver, party: str, data_dir: Path) -> None:
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute("UPDATE quality_reports SET id = '01a20a38-2b58-7abc-8000-000000000001'")
    since = ("--since", "2026-11-23T21:00")
    (row,) = rows(sipserver("calls", "quality", "--json", *since))
    assert (row["reporter"], row["reporter_address"]) == (party, "alice@example.test")
    assert (row["other"], row["loss_percent"], row["mos_lq"], row["mos_cq"]) == ("p_gone", 1.5, 4.1, None)
    assert rows(sipserver("calls", "quality", "--json", "--address", "alice@example.test")) == [row]
    assert rows(sipserver("calls", "quality", "--json", "--party", "p_gone")) == []
    assert rows(sipserver("calls", "quality", "--json", "--until", "2026-11-23T21:03:03")) == []
    assert rows(sipserver("calls", "quality", "--json", "--since", "2026-11-23T21:03:04")) == []
    line = sipserver("calls", "quality").stdout.splitlines()[1]
    assert line.startswith("2026-11-23 21:00:00.000  alice@example.test  p_gone")
    assert sipserver("calls", "quality", "--party", "p_nobody").stdout == "No reports.\n"
