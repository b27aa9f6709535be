"""Calls that nobody hangs up: sessions, connections and registrations that go (server/liveness.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.calls.times import parse_stamp
from sipserver.server.config import load
from support.inprocess import Device, Server
from support.pen import DOMAIN
from support.talking import CONFIG, KNOWS, SHORT, Call, lose, questions

MakeServer = Callable[..., Server]


# ---- session timers


def test_caller_is_told_to_refresh_and_the_session_expires_without(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    assert call.invite.header("session-expires") == "100"
    assert call.answer.header("session-expires") == "100;refresher=uac"
    assert call.answer.option_tags("require") == ["timer"]
    call.server.tick(109)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    row = call.row
    assert (row["outcome"], row["end_cause"], row["ended_by"]) == ("answered", "session_expired", "server")
    assert row["ended_at"] == row["confirmed_at"]
    assert row["talk_ms"] == parse_stamp(row["ended_at"]) - parse_stamp(row["answered_at"])
    assert call.was_closed_now()
    assert row["end_uncertainty_ms"] >= 109_000
    (line,) = call.server.log("call.ended")
    assert (line["cause"], line["by"], line["uncertainty_ms"]) == (
        "session_expired", "server", row["end_uncertainty_ms"],
    )  # fmt: skip
    assert call.server.service.liveness.closed == {"session_expired": 1}
    assert len(call.server.service.liveness) == 0


def test_nobody_is_sent_a_bye(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(120)
    assert call.alice.received() == call.bob.received() == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refresh_keeps_the_session(make_server: MakeServer, method: str) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(90)
    refreshed = call.request(method, KNOWS, "Session-Expires: 100;refresher=uac")
    assert refreshed is not None
    assert refreshed.header("session-expires") == "100;refresher=uac"
    call.server.tick(100)
    assert call.row["ended_at"] is None
    call.server.tick(20)
    row = call.row
    assert row["end_cause"] == "session_expired"
    (changed,) = call.server.rows("SELECT at FROM call_events WHERE kind = 'changed'")
    assert row["ended_at"] == changed["at"]


def test_refresh_that_is_refused_keeps_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(90)
    call.request("UPDATE", KNOWS, status=500)
    call.server.tick(30)
    assert call.cause == "session_expired"


def test_answer_without_a_timer_turns_it_off(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), answer=("Session-Expires: 100;refresher=uas",))
    call.server.tick(50)
    call.request("UPDATE")
    call.server.tick(200)
    assert call.row["ended_at"] is None


def test_longest_interval_that_the_callee_chose_counts(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), answer=("Session-Expires: 95;refresher=uas",))
    call.server.tick(104)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    assert call.cause == "session_expired"


def test_timer_of_endpoints_that_go_on_without_refreshing_says_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(105)
    call.request("INFO")
    call.server.tick(100)
    assert call.row["ended_at"] is None


def test_server_that_looks_at_no_timers_believes_none(make_server: MakeServer) -> None:
    config = CONFIG.replace("grace", 'mode = "off"\ngrace')
    call = Call(make_server("alice", "bob", config=config), invite=(KNOWS,), answer=("Session-Expires: 90",))
    assert call.invite.header("session-expires") is None
    call.server.tick(200)
    assert call.row["ended_at"] is None


def test_too_short_interval_is_refused_and_on_record(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG)
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    refused = alice.ask(alice.invite("bob", KNOWS, "Session-Expires: 60"))
    assert (refused.status, refused.header("min-se")) == (422, "90")
    assert bob.received() == []
    (row,) = server.rows("SELECT * FROM calls")
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("failed", 422, "server")


def test_caller_may_ask_that_proxies_know_timers(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    alice.send(alice.invite("bob", KNOWS, "Proxy-Require: timer"))
    assert len(bob.requests("INVITE")) == 1


def test_server_without_timers_says_so_to_whoever_asks_for_them(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config='[sessions]\nmode = "off"\n')
    alice = Device(server, "alice")
    refused = alice.ask(alice.write("INVITE", f"sip:bob@{DOMAIN}", KNOWS, "Proxy-Require: timer"))
    assert (refused.status, refused.header("unsupported")) == (420, "timer")


def test_reload_changes_what_is_asked_for(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[sessions]\nexpires = 600\ngrace = 3\n")
    server.service.reload(load(file, domains=[DOMAIN], data_dir=server.data_dir))
    call = Call(server, invite=(KNOWS,))
    assert call.invite.header("session-expires") == "600"
    call.server.tick(602)
    assert call.row["ended_at"] is None
    call.server.tick(3)
    assert call.cause == "session_expired"


def test_late_bye_passes_and_changes_no_record(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(120)
    before = call.row
    answer = call.request("BYE")
    assert answer is not None
    assert answer.status == 200
    assert call.row == before
    assert len(call.server.log("call.ended")) == 1


# ---- connections


def test_lost_connection_is_evidence_after_the_grace(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    call.server.tick(60)
    lose(call.server, call.bob)
    lost_at = call.now()
    call.server.tick(9)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    row = call.row
    assert (row["end_cause"], row["ended_by"]) == ("connection_lost", "server")
    assert row["ended_at"] == row["confirmed_at"]
    assert parse_stamp(row["watched_until"]) == lost_at
    assert call.was_closed_now()


def test_request_over_a_new_connection_keeps_the_call(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(True, False))
    lose(call.server, call.alice)
    call.alice.flow = call.server.transports.open("192.0.2.7", 5071)
    assert call.request("INFO") is not None
    call.server.tick(30)
    assert call.row["ended_at"] is None
    lose(call.server, call.alice)
    call.server.tick(12)
    assert call.cause == "connection_lost"


def test_device_that_registered_again_is_asked_over_its_new_connection(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    lose(call.server, call.bob)
    contact = call.bob.contact
    call.bob.flow = call.server.transports.open("192.0.2.8", 5099)
    call.bob.register(f"Contact: <{contact}>", cseq=40)
    call.server.tick(11)
    (question,) = questions(call.bob)
    assert question.to_tag == "callee"
    call.bob.send(call.bob.answer(question, 500))
    call.server.tick(60)
    assert call.row["ended_at"] is None
    lose(call.server, call.bob)
    call.server.tick(12)
    assert call.cause == "connection_lost"


def test_device_that_listens_is_asked_over_a_connection_to_it(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    lose(call.server, call.bob)
    call.server.transports.accepting.add(("192.0.2.8", 5070))
    call.server.tick(11)
    (made,) = [flow for flow in call.server.transports.alive.values() if flow.host == "192.0.2.8"]
    call.bob.flow = made
    (question,) = questions(call.bob)
    call.bob.send(call.bob.answer(question, 481))
    call.server.tick(1)
    assert call.cause == "connection_lost"


def test_other_connections_of_the_same_host_are_no_evidence(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(True, True))
    other = call.server.transports.open("192.0.2.8", 5071)
    call.server.driver.on_closed(other)
    call.server.tick(60)
    assert call.row["ended_at"] is None
    assert questions(call.bob) == []


# ---- registrations


def test_contact_that_signs_off_and_does_not_answer_ends_the_call(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG + SHORT))
    call.bob.register(f"Contact: <{call.bob.contact}>;expires=0", cseq=50)
    call.server.tick(11)
    assert len(questions(call.bob)) == 1
    call.server.tick(5)
    row = call.row
    assert (row["end_cause"], row["watched_until"]) == ("registration_lost", None)
    assert row["ended_at"] == row["confirmed_at"]
    # The grace, and 64*T1 for the question.
    assert 13_000 <= row["end_uncertainty_ms"] <= 15_000


def test_contact_that_signs_off_and_is_still_in_the_call_ends_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    call.alice.register(f"Contact: <{call.alice.contact}>;expires=0", cseq=50)
    call.server.tick(11)
    (question,) = questions(call.alice)
    assert question.from_tag == "callee"
    assert question.to_tag == "falice"
    call.alice.send(call.alice.answer(question, 200))
    call.server.tick(100)
    assert call.row["ended_at"] is None


def test_expired_contact_ends_the_call_that_it_is_in(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG + SHORT))
    call.bob.register(f"Contact: <{call.bob.contact}>;expires=60", cseq=50)
    call.server.tick(80)
    assert call.cause == "registration_lost"


def test_other_contacts_of_the_address_are_no_evidence(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    phone = Device(call.server, "bob", "192.0.2.9")
    phone.register(call_id="r2")
    phone.register(f"Contact: <{phone.contact}>;expires=0", call_id="r2", cseq=50)
    call.server.tick(30)
    assert call.row["ended_at"] is None
    assert questions(call.bob) == []


def test_device_is_known_by_its_instance_wherever_it_is(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG + SHORT)
    device = Device(server, "bob", "192.0.2.8", tcp=True)
    instance = ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>"'
    device.register(f"Contact: <{device.contact}>{instance}", "Supported: outbound")
    alice = Device(server, "alice")
    alice.send(alice.invite("bob"))
    (invite,) = device.requests("INVITE")
    device.send(device.answer(invite, 200))
    server.settle()
    lose(server, device)
    device.flow = server.transports.open("192.0.2.88", 6000)
    device.register(f"Contact: <{device.contact}>{instance}", cseq=60)
    server.tick(11)
    (question,) = questions(device)
    device.send(device.answer(question, 200))
    server.tick(30)
    (row,) = server.rows("SELECT * FROM calls")
    assert row["ended_at"] is None
