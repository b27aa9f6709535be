"""What the server's parts note in ``errors``, and what they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from sipserver.calls.times import parse_stamp
from sipserver.sip.message import Response
from sipserver.transport import tcp
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]


def errors(server: Server) -> list[dict[str, Any]]:
    return server.rows("SELECT * FROM errors ORDER BY at, rowid")


def parties(server: Server) -> dict[str, str]:
    rows = server.rows("SELECT * FROM parties", store="accounts.db")
    return {row["party"]: row["address"].partition("@")[0] for row in rows}


def pair(server: Server, **options: Any) -> tuple[Device, Device]:
    alice, bob = Device(server, "alice", **options), Device(server, "bob", "192.0.2.8", **options)
    assert bob.register(f"Contact: <{bob.contact}>", "User-Agent: Bob/2").status == 200
    return alice, bob


def talk(server: Server, alice: Device, bob: Device) -> Response:
    """A call that is up; the 200 as alice got it."""
    alice.send(alice.invite("bob", "User-Agent: Alice/1"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 200))
    server.settle()
    answer = alice.received()[-1]
    assert isinstance(answer, Response)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    bob.received()
    return answer


def test_call_that_goes_well_leaves_no_error(server: Server) -> None:
    alice, bob = pair(server)
    answer = talk(server, alice, bob)
    alice.send(alice.in_dialog("BYE", answer, cseq=50))
    (bye,) = bob.requests("BYE")
    bob.send(bob.answer(bye, 200))
    server.advance(120)
    server.service.tick()
    assert errors(server) == []
    assert len(server.service.context.challenges) == 0


def test_error_inside_a_call_is_of_the_side_that_sent_the_request(server: Server) -> None:
    alice, bob = pair(server)
    answer = talk(server, alice, bob)
    alice.send(alice.in_dialog("INFO", answer, cseq=50))
    (info,) = bob.requests("INFO")
    bob.send(bob.answer(info, 415, "Server: Bob/3"))
    (row,) = errors(server)
    assert (row["kind"], row["method"], row["status"], row["agent"]) == ("peer_error", "INFO", 415, "Bob/3")
    known = parties(server)
    assert (known[row["party"]], known[row["target"]]) == ("alice", "bob")
    (call,) = server.rows("SELECT id FROM calls")
    assert (row["call"], row["network"]) == (call["id"], "192.0.2.0/24")


def test_late_and_repeated_answers_are_noted_once(server: Server) -> None:
    alice, bob = pair(server)
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    for _ in range(3):
        bob.send(bob.answer(invite, 500))
    (row,) = errors(server)
    assert (row["count"], row["agent"]) == (1, "Bob/2")


def test_answer_that_leads_nowhere_is_malformed(server: Server) -> None:
    alice, bob = pair(server)
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    data = bob.answer(invite, 200)
    lines = data.split(b"\r\n")
    vias = [line for line in lines if line.lower().startswith(b"via:")]
    bob.send(b"\r\n".join(line for line in lines if line not in vias[1:]))
    server.settle()
    assert statuses(alice.received())[-1] == 502
    (row,) = errors(server)
    assert (row["kind"], row["answered_by"], row["status"]) == ("malformed_response", "server", 200)


def test_contact_that_leads_nowhere_is_unreachable(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register("Contact: <sip:bob@203.0.113.9;transport=sctp>", "User-Agent: Bob/2")
    alice.send(alice.invite("bob"))
    (row,) = errors(server)
    assert (row["kind"], row["answered_by"], row["agent"]) == ("unreachable", "network", "Bob/2")
    assert row["call"] is not None


def test_connection_that_breaks_while_a_call_rings_is_unreachable(server: Server) -> None:
    alice, bob = pair(server, tcp=True)
    alice.send(alice.invite("bob"))
    assert len(bob.requests("INVITE")) == 1
    del server.transports.alive[bob.flow.connection]
    server.driver.on_closed(bob.flow)
    (row,) = errors(server)
    assert (row["kind"], row["method"], row["answered_by"]) == ("unreachable", "INVITE", "network")


def test_answer_over_a_connection_that_is_gone_is_undelivered(server: Server) -> None:
    alice, bob = pair(server, tcp=True)
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    del server.transports.alive[alice.flow.connection]
    bob.send(bob.answer(invite, 486))
    rows = [row for row in errors(server) if row["kind"] == "undelivered"]
    assert [(row["method"], row["answered_by"], parties(server)[row["party"]]) for row in rows] == [
        ("INVITE", "network", "alice")
    ]  # fmt: skip


def test_refusal_that_is_never_acknowledged_is_noted_with_its_call(server: Server) -> None:
    alice, bob = pair(server)
    alice.send(alice.invite("bob", "User-Agent: Alice/1"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 603))
    server.advance(40)
    (row,) = errors(server)
    assert (row["kind"], row["agent"]) == ("unacknowledged", "Alice/1")
    (call,) = server.rows("SELECT id, outcome FROM calls")
    assert (row["call"], call["outcome"]) == (call["id"], "declined")
    assert server.service.transactions.servers == 0


def test_refusal_by_the_server_that_is_never_acknowledged_is_noted(server: Server) -> None:
    alice = Device(server, "alice")
    alice.send(alice.invite("nobody"))
    server.advance(40)
    assert [row["kind"] for row in errors(server)] == ["refused", "unacknowledged"]
    assert errors(server)[0]["call"] is not None


def test_call_to_somebody_offline_is_an_outcome_and_no_error(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(alice.invite("bob"))
    to, branch = answer.header("to") or "", answer.top_via.branch or ""
    alice.send(alice.write("ACK", f"sip:bob@{DOMAIN}", to=to, branch=branch))
    assert errors(server) == []
    assert [row["outcome"] for row in server.rows("SELECT outcome FROM calls")] == ["offline"]


def test_message_to_somebody_offline_is_refused(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(alice.signed("MESSAGE", f"sip:bob@{DOMAIN}")).status == 480
    (row,) = errors(server)
    known = parties(server)
    assert (row["kind"], row["status"], row["call"]) == ("refused", 480, None)
    assert (known[row["party"]], known[row["target"]]) == ("alice", "bob")


def test_request_inside_a_call_that_leads_out_of_it_is_refused_and_is_of_that_call(server: Server) -> None:
    alice, bob = pair(server)
    answer = talk(server, alice, bob)
    info = alice.in_dialog("INFO", answer, cseq=50).replace(bob.contact.encode(), b"sip:x@203.0.113.9")
    assert alice.ask(info).status == 403
    (row,) = errors(server)
    (call,) = server.rows("SELECT id FROM calls")
    assert (row["kind"], row["call"], parties(server)[row["party"]]) == ("refused", call["id"], "alice")


def test_refused_registrations_are_errors_too(server: Server) -> None:
    alice = Device(server, "alice")
    alice.ask(alice.signed("REGISTER", "", "Contact: <sip:alice@192.0.2.9>;expires=1", call_id="short"))
    alice.ask(alice.signed("REGISTER", "", "Contact: <sip:a@192.0.2.9>", password="wrong", call_id="wrong"))
    rows = errors(server)
    assert [(row["kind"], row["method"], row["status"]) for row in rows] == [
        ("registration", "REGISTER", 423), ("credentials", "REGISTER", 401)
    ]  # fmt: skip
    assert (parties(server)[rows[0]["party"]], rows[1]["party"]) == ("alice", None)


def test_dropped_connections_are_told_apart(server: Server) -> None:
    for why in (tcp.TIMED_OUT, tcp.CUT_OFF, tcp.REFUSED, tcp.REFUSED):
        server.service.context.note_dropped(why, "198.51.100.7", "")
    server.service.context.note_dropped(tcp.INSECURE, "198.51.100.7", "no shared cipher")
    server.service.recorder.alive(2_000_000_000_000)
    assert [(row["kind"], row["answered_by"], row["count"], row["network"]) for row in errors(server)] == [
        ("connection_timeout", "network", 1, "198.51.100.0/24"),
        ("connection_cut_off", "network", 1, "198.51.100.0/24"),
        ("connection_refused", "server", 2, "198.51.100.0/24"),
        ("tls_handshake", "network", 1, "198.51.100.0/24"),
    ]


def test_mistake_of_this_program_is_an_error_even_where_the_record_fails_too(make_server: MakeServer) -> None:
    server = make_server("alice", faults=2)
    server.driver.note_fault(ZeroDivisionError(), Device(server, "alice").flow)
    (row,) = errors(server)
    assert (row["kind"], row["status"], row["detail"]) == ("fault", 500, "ZeroDivisionError")
    clock, server.service.context.wall_clock = server.service.context.wall_clock, cast(Any, None)
    server.driver.note_fault(ZeroDivisionError())
    server.service.context.wall_clock = clock


def test_row_that_a_store_refuses_is_an_error(server: Server) -> None:
    server.service.calls_writer.put(0, (None,) * 10)
    server.settle()
    server.settle()
    (row,) = errors(server)
    assert (row["kind"], row["detail"]) == ("store", "calls.db: a row was refused")
    assert server.service.recorder.set_aside == 1


def test_errors_of_a_call_are_told_by_its_clock_and_others_by_the_machines(server: Server) -> None:
    alice, bob = pair(server)
    answer = talk(server, alice, bob)
    server.clock_set += 3600
    server.tick(1)
    for number in (50, 51):
        alice.send(alice.in_dialog("INFO", answer, cseq=number))
        (info,) = bob.requests("INFO")
        bob.send(bob.answer(info, 500))
        server.tick(1)
    alice.send(alice.in_dialog("INVITE", answer, "Content-Type: application/sdp", cseq=52, body=b"v=nonsense"))
    (change,) = bob.requests("INVITE")
    bob.send(bob.answer(change, 200))
    forger = Device(server, "alice", "203.0.113.9")
    forger.send(forger.in_dialog("BYE", answer, cseq=60))
    forger.send(forger.write("BYE", bob.contact, to="<sip:bob@example.test>;tag=x", call_id="none", cseq=1))
    server.tick(10)
    (call,) = server.rows("SELECT * FROM calls")
    found = errors(server)
    ours = {row["kind"]: row for row in found if row["call"] == call["id"]}
    assert {kind: row["count"] for kind, row in ours.items()} == {"peer_error": 2, "unreadable_sdp": 1, "forged": 1}
    for row in ours.values():
        assert 0 <= parse_stamp(row["at"]) - parse_stamp(call["started_at"]) < 20_000, row
    first = ours["peer_error"]
    assert 900 <= parse_stamp(first["last_at"]) - parse_stamp(first["at"]) <= 1_100
    (other,) = [row for row in found if row["call"] is None]
    assert other["kind"] == "forged"
    assert 3_600_000 <= parse_stamp(other["at"]) - parse_stamp(call["started_at"]) < 3_620_000
