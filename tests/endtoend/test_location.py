"""A running server writes down where people are: sites, databases that are replaced, what devices and peers tell."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.pen import DOMAIN
from support.phone import Phone
from support.places import city, located, pidf, write_database
from support.server import Row, ServerProcess, sipserver

from .conftest import StartServer

CALL_PLACE = "country", "region", "city", "site", "location_source"


def place_of(row: Row, side: str = "") -> tuple[Any, ...]:
    return tuple(row[side + name] for name in CALL_PLACE)


def calls(server: ServerProcess, caller: Phone, callee: Phone, *lines: str, body: bytes = b"") -> Row:
    """One answered call from end to end; its row."""
    known = len(server.rows("SELECT * FROM calls WHERE ended_at IS NOT NULL"))
    call_id = f"c{caller.user}{known}"
    caller.exchange(
        "INVITE", f"sip:{callee.user}@{DOMAIN}", f"Contact: <{caller.contact}>", *lines, call_id=call_id, body=body
    )
    caller.expect(100)
    invite = callee.expect("INVITE")
    callee.respond(invite, 200)
    answer = caller.expect(200)
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    callee.expect("ACK")
    caller.send(caller.in_dialog("BYE", answer, cseq=answer.cseq[0] + 5))
    callee.respond(callee.expect("BYE"), 200)
    caller.expect(200)
    rows = server.wait_for_rows(
        "SELECT * FROM calls WHERE ended_at IS NOT NULL ORDER BY started_at", lambda rows: len(rows) > known
    )
    return rows[-1]


@pytest.fixture
def phones() -> Any:
    with ExitStack() as stack:

        def make(server: ServerProcess, *users: str) -> list[Phone]:
            return [stack.enter_context(Phone(server.port, user)) for user in users]

        yield make


def test_sites_stand_in_calls_sign_ins_views_and_what_is_shown(start_server: StartServer, phones: Any) -> None:
    site = '{ network = "127.0.0.0/8", site = "Vienna office", country = "at", region = "Wien", city = "Wien Mitte" }'
    server = start_server("alice", "bob", config=f'[location]\nprecision = "city"\nsites = [{site}]\n')
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    row = calls(server, alice, bob)
    there = "AT", "Wien", "Wien Mitte", "Vienna office", "site"
    assert place_of(row, "caller_") == place_of(row, "callee_") == there
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == there
    assert place_of(server.rows("SELECT * FROM v_calls")[0], "callee_") == there
    assert place_of(server.rows("SELECT * FROM v_sign_ins")[0]) == there
    shown = sipserver("calls", "show", row["id"], "--data-dir", server.data_dir)
    assert "caller site" in shown
    assert "Vienna office" in shown


def test_database_is_replaced_while_the_server_runs(start_server: StartServer, phones: Any, tmp_path: Path) -> None:
    database = tmp_path / "geo.mmdb"
    write_database(database, {"127.0.0.0/8": city("AT", "Wien", "Wien Mitte")})
    server = start_server("alice", "bob", config=f'[location]\ndatabase = "{database}"\n')
    assert "Test-City" in server.wait("location.database_loaded")["database"]
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    row = calls(server, alice, bob)
    # The precision is "region", so the city is nowhere.
    assert place_of(row, "caller_") == place_of(row, "callee_") == ("AT", "Wien", None, None, "database")

    write_database(database, {"127.0.0.0/8": city("DE", "Bayern")})
    wait_for_events(server, "location.database_loaded", 2)
    assert place_of(calls(server, alice, bob), "caller_") == ("DE", "Bayern", None, None, "database")

    # Overwritten where it lies by less, and by nonsense: the server neither dies nor forgets.
    database.write_bytes(b"nonsense")
    sentence = server.wait("location.database_failing")["reason"]
    assert sentence.endswith("or a damaged one; the one that was read before is still used")
    assert place_of(calls(server, alice, bob), "callee_")[:2] == ("DE", "Bayern")

    good = tmp_path / "good.mmdb"
    write_database(good, {"127.0.0.0/8": city("IT", "Lazio")})
    shutil.copyfile(good, database)
    wait_for_events(server, "location.database_loaded", 3)
    assert place_of(calls(server, alice, bob), "callee_")[:2] == ("IT", "Lazio")


def wait_for_events(server: ServerProcess, event: str, count: int) -> None:
    deadline = time.monotonic() + 15
    while sum(each["event"] == event for each in server.events) < count:
        assert time.monotonic() < deadline, server.log_text
        time.sleep(0.05)


def test_missing_database_is_told_and_stops_nothing(start_server: StartServer, phones: Any, tmp_path: Path) -> None:
    server = start_server("alice", "bob", config='[location]\ndatabase = "none.mmdb"\n')
    reason = server.wait("location.database_failing")["reason"]
    assert reason == f"{server.folder / 'none.mmdb'} cannot be read: No such file or directory"
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    assert place_of(calls(server, alice, bob), "caller_") == (None,) * 5
    write_database(server.folder / "none.mmdb", {"127.0.0.0/8": city("AT")})
    server.wait("location.database_loaded")
    assert place_of(calls(server, alice, bob), "caller_")[0] == "AT"


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("none", (None, None, None, None, None)),
        ("country", ("AT", None, None, "HQ", "site")),
        ("region", ("AT", "Wien", None, "HQ", "site")),
        ("city", ("AT", "Wien", "Wien Mitte", "HQ", "site")),
    ],
)
def test_nothing_is_stored_finer_than_asked(
    start_server: StartServer, phones: Any, precision: str, expected: tuple[Any, ...]
) -> None:
    site = '{ network = "127.0.0.1", site = "HQ", country = "AT", region = "Wien", city = "Wien Mitte" }'
    server = start_server("alice", "bob", config=f'[location]\nprecision = "{precision}"\nsites = [{site}]\n')
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    row = calls(server, alice, bob)
    assert place_of(row, "caller_") == place_of(row, "callee_") == expected
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == expected


def test_precision_and_sites_are_reloaded(start_server: StartServer, phones: Any) -> None:
    server = start_server("alice", "bob")
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    assert place_of(calls(server, alice, bob), "caller_") == (None,) * 5
    server.configuration.write_text('[location]\nsites = [{ network = "127.0.0.0/8", site = "HQ" }]\n')
    server.process.send_signal(signal.SIGHUP)
    server.wait("config.reloaded")
    assert place_of(calls(server, alice, bob), "callee_") == (None, None, None, "HQ", "site")
    server.configuration.write_text('[location]\nsites = [{ interface = "lo", site = "Loop" }]\n')
    server.process.send_signal(signal.SIGHUP)
    wait_for_events(server, "config.reloaded", 2)
    deadline = time.monotonic() + 10
    while place_of(calls(server, alice, bob), "caller_")[3] != "Loop":
        assert time.monotonic() < deadline


def test_sites_may_be_links(start_server: StartServer, phones: Any) -> None:
    server = start_server("alice", "bob", config='[location]\nsites = [{ interface = "lo", site = "Loop" }]\n')
    alice, bob = phones(server, "alice", "bob")
    # The first call of all comes from a host that the kernel was not asked for yet.
    row = calls_nobody(server, alice)
    assert place_of(row, "caller_") == (None, None, None, "Loop", "link")
    bob.register()
    row = calls(server, alice, bob)
    assert place_of(row, "caller_") == place_of(row, "callee_") == (None, None, None, "Loop", "link")
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == (None, None, None, "Loop", "link")


def calls_nobody(server: ServerProcess, caller: Phone) -> Row:
    """A call to somebody who is not there; its row once the caller's place is known."""
    caller.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{caller.contact}>", call_id="nobody")
    caller.expect(480)
    (row,) = server.wait_for_rows(
        "SELECT * FROM calls WHERE ended_at IS NOT NULL",
        lambda rows: len(rows) == 1 and rows[0]["caller_location_source"] is not None,
    )
    return row


def test_what_endpoints_say_of_themselves_counts_for_as_long_as_they_let(
    start_server: StartServer, phones: Any
) -> None:
    server = start_server("alice", "bob", config='[location]\nprecision = "city"\n')
    alice, bob = phones(server, "alice", "bob")
    graz = "<cl:country>AT</cl:country><cl:A1>Steiermark</cl:A1><cl:A3>Graz</cl:A3>"
    lines, body = located(pidf(graz))
    bob.register(f"Contact: <{bob.contact}>", *lines, body=body)
    soon = datetime.now(UTC) + timedelta(seconds=4)
    allowed = "<gbp:retransmission-allowed>true</gbp:retransmission-allowed>"
    rules = f"{allowed}<gbp:retention-expiry>{soon.isoformat()}</gbp:retention-expiry>"
    lines, body = located(pidf(rules=rules))
    row = calls(server, alice, bob, *lines, body=body)
    assert place_of(row, "caller_") == ("AT", "Wien", "Wien Mitte", None, "geolocation")
    assert place_of(row, "callee_") == ("AT", "Steiermark", "Graz", None, "geolocation")
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == ("AT", "Steiermark", "Graz", None, "geolocation")

    lines, body = located(pidf(), routing="no")
    assert place_of(calls(server, alice, bob, *lines, body=body), "caller_") == (None,) * 5

    (after,) = server.wait_for_rows(
        f"SELECT * FROM calls WHERE id = '{row['id']}'", lambda rows: rows[0]["caller_country"] is None, timeout=20
    )
    assert place_of(after, "caller_") == (None,) * 5
    assert place_of(after, "callee_") == ("AT", "Steiermark", "Graz", None, "geolocation")


@pytest.mark.parametrize("is_peer", [True, False])
def test_access_networks_are_believed_of_peers_and_passed_on_to_nobody(
    start_server: StartServer, phones: Any, is_peer: bool
) -> None:
    peers = '[proxy]\npeers = ["127.0.0.1"]\n' if is_peer else ""
    server = start_server("alice", "bob", config=peers)
    alice, bob = phones(server, "alice", "bob")
    line = "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2320112340FFFFFF;network-provided"
    bob.register(f"Contact: <{bob.contact}>", line)
    alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>", line, call_id="c")
    alice.expect(100)
    invite = bob.expect("INVITE")
    assert not invite.has("p-access-network-info")
    bob.respond(invite, 486)
    alice.expect(486)
    (row,) = server.ended_calls()
    assert place_of(row, "caller_") == (("AT", None, None, None, "access_network") if is_peer else (None,) * 5)
    assert place_of(row, "callee_") == (None,) * 5
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == (("AT", None, None, None, "access_network") if is_peer else (None,) * 5)


def test_hostile_documents_leave_the_call_as_it_is(start_server: StartServer, phones: Any) -> None:
    server = start_server("alice", "bob")
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    for document in (pidf(address="<cl:country>&b;</cl:country>", before=laughs), b"<a>" * 1000, b"\xff\x00<"):
        lines, body = located(document)
        assert place_of(calls(server, alice, bob, *lines, body=body), "caller_") == (None,) * 5
    assert not [each for each in server.events if each["event"] == "internal.fault"]
    rows = server.wait_for_rows("SELECT * FROM errors WHERE kind = 'location'", bool)
    assert (rows[0]["method"], rows[0]["detail"], rows[0]["status"]) == ("INVITE", "PIDF-LO With Document Type", None)
