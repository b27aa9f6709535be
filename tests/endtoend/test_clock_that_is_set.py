"""The machine's clock is set by an hour while calls go on: a real server, whose wall clock the test can set."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sipserver.calls.times import parse_stamp
from support.pen import DOMAIN
from support.phone import Phone
from support.settable import SettableServer

CALLS = "SELECT * FROM calls ORDER BY rowid"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_clock_set_by_an_hour_changes_no_duration(tmp_path: Path, step: float) -> None:
    config = "[sessions]\nexpires = 60\nmin = 1\ngrace = 1.0\n[timers]\nt1 = 0.05\n"
    with (
        SettableServer(tmp_path / "server", ["alice", "bob"], config=config) as server,
        Phone(server.port, "alice") as alice,
        Phone(server.port, "bob") as bob,
    ):
        bob.register()
        contact = f"Contact: <{alice.contact}>"
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", contact, "Supported: timer")
        alice.expect(100)
        invite = bob.expect("INVITE")
        bob.respond(invite, 180)
        alice.expect(180)
        server.set_clock(step)
        rang = time.monotonic()
        bob.respond(invite, 200)
        answer = alice.expect(200)
        answered = time.monotonic()
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        bob.expect("ACK")
        server.events.clear()
        server.set_clock(0)
        time.sleep(1)
        alice.send(alice.in_dialog("BYE", answer, cseq=20))
        bob.respond(bob.expect("BYE"), 200)
        alice.expect(200)
        talked = (time.monotonic() - answered) * 1000
        row = server.ended_calls()[0]
        assert abs(row["talk_ms"] - talked) < 100
        assert row["ring_ms"] < (time.monotonic() - rang) * 1000 + 3000
        assert parse_stamp(row["ended_at"]) - parse_stamp(row["answered_at"]) == row["talk_ms"]
        assert parse_stamp(row["answered_at"]) - parse_stamp(row["ringing_at"]) == row["ring_ms"]
        steps = server.rows("SELECT detail FROM call_events WHERE kind = 'clock_stepped' ORDER BY number")
        assert [int(each["detail"].split()[0]) for each in steps] == pytest.approx([step * 1000, -step * 1000], abs=50)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_call_that_is_cut_short_after_the_clock_was_set(tmp_path: Path, step: float) -> None:
    with (
        SettableServer(tmp_path / "server", ["alice", "bob"]) as server,
        Phone(server.port, "alice") as alice,
        Phone(server.port, "bob") as bob,
    ):
        bob.register()
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>")
        alice.expect(100)
        bob.respond(bob.expect("INVITE"), 200)
        answer = alice.expect(200)
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        bob.expect("ACK")
        began = time.monotonic()
        server.set_clock(step)
        server.wait_for_rows("SELECT * FROM call_events WHERE kind = 'clock_stepped'", bool)
        server.kill()
        server.start()
        past = (time.monotonic() - began) * 1000
        (row,) = server.ended_calls()
        assert row["end_cause"] == "server_restart"
        assert row["talk_ms"] < 500
        assert 0 < row["end_uncertainty_ms"] < past + 500
        # Whoever registers now is neither too early nor too late.
        assert bob.register().status == 200
