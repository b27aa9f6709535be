"""Browsers: reached over the connection that they came over, and no other; their messages on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.sip.message import Request, Response
from support.inprocess import SERVER, Browser, Device, Server, statuses

SDP = b"v=0\r\n" + b"a=candidate:1 1 udp 1 192.0.2.8 9 typ host\r\n" * 150
"""Some 6 kB, as browsers offer."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "alice", "bob", "mallory", config='[proxy]\noutbound = true\ninbound = "anyone"\n') as made:
        yield made


def call(caller: Device, callee: Device, *, body: bytes = b"") -> Request:
    """The INVITE as it arrives."""
    caller.send(caller.invite(callee.user, body=body))
    caller.server.settle()
    (invite,) = callee.requests("INVITE")
    return invite


def answered(caller: Device, callee: Device) -> Response:
    """A call that was answered and confirmed; the 200."""
    callee.send(callee.answer(call(caller, callee), 200))
    caller.server.settle()
    (answer,) = [each for each in caller.received() if isinstance(each, Response) and each.status == 200]
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    (_ack,) = callee.requests("ACK")
    return answer


def test_browsers_call_each_other(server: Server) -> None:
    alice, bob = Browser(server, "alice"), Browser(server, "bob", port=41_000)
    assert alice.register().status == bob.register().status == 200
    invite = call(alice, bob, body=SDP)
    assert invite.uri_text == bob.contact
    assert invite.body == SDP
    assert invite.vias[0].raw.startswith(f"SIP/2.0/WSS {SERVER}:443;branch=")
    (route,) = invite.values("record-route")
    assert route.startswith(f"<sip:{SERVER}:443;transport=ws;lr;vc=")
    bob.send(bob.answer(invite, 200))
    server.settle()
    answer = alice.received()[-1]
    assert isinstance(answer, Response)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    bob.requests("ACK")
    alice.send(alice.in_dialog("BYE", answer, cseq=answer.cseq[0] + 1))
    (bye,) = bob.requests("BYE")
    bob.send(bob.answer(bye, 200))
    server.settle()
    assert statuses(alice.received()) == [200]
    (row,) = server.rows("SELECT * FROM calls")
    assert (row["caller_transport"], row["callee_transport"], row["end_cause"]) == ("WSS", "WSS", "bye")


@pytest.mark.parametrize("transport", ["WS", "WSS"])
@pytest.mark.parametrize("tcp", [False, True])
def test_either_side_may_hang_up_between_browser_and_phone(server: Server, transport: str, tcp: bool) -> None:
    alice, bob = Browser(server, "alice", transport=transport), Device(server, "bob", tcp=tcp)
    assert alice.register().status == bob.register().status == 200
    for by_caller in (True, False):
        answer = answered(alice, bob)
        routes = answer.values("record-route")
        assert [("transport=ws" in each, "transport=tcp" in each) for each in routes] == [(False, tcp), (True, False)]
        if by_caller:
            alice.send(alice.in_dialog("BYE", answer, cseq=answer.cseq[0] + 1))
            (bye,) = bob.requests("BYE")
            bob.send(bob.answer(bye, 200))
        else:
            lines = [f"Route: {route}" for route in routes]
            from_, to = answer.header("to") or "", answer.header("from") or ""
            bob.send(bob.write("BYE", alice.contact, *lines, call_id=answer.call_id, from_=from_, to=to))
            (bye,) = alice.requests("BYE")
            assert bye.vias[0].transport == transport
            alice.send(alice.answer(bye, 200))
        server.settle()
        alice.received()
        bob.received()
    rows = server.rows("SELECT ended_by, caller_transport FROM calls ORDER BY started_at, id")
    assert sorted(row["ended_by"] for row in rows) == ["callee", "caller"]
    assert {row["caller_transport"] for row in rows} == {transport}


def test_a_large_offer_reaches_a_phone_that_has_no_tcp(server: Server) -> None:
    alice, bob = Browser(server, "alice"), Device(server, "bob")
    alice.register()
    bob.register()
    assert call(alice, bob, body=SDP).body == SDP


def test_a_large_offer_goes_to_a_phone_by_tcp_where_it_can(server: Server) -> None:
    alice, bob = Browser(server, "alice"), Device(server, "bob")
    alice.register()
    bob.register()
    server.transports.accepting.add((bob.flow.host, bob.flow.port))
    alice.send(alice.invite("bob", body=SDP))
    server.settle()
    assert bob.requests("INVITE") == []
    (stream,) = [flow for flow in server.transports.alive.values() if flow.transport == "TCP"]
    assert [each.body for each in server.sent_to(stream)] == [SDP]


def test_a_message_without_content_length_gets_one_on_a_stream(server: Server) -> None:
    alice, bob = Browser(server, "alice"), Device(server, "bob", tcp=True)
    alice.register()
    bob.register()
    bob.send(bob.invite("alice"))
    server.settle()
    (invite,) = alice.requests("INVITE")
    bob.received()
    alice.send(alice.answer(invite, 200, body=b"v=0\r\n").replace(b"Content-Length: 5\r\n", b""))
    server.settle()
    (answer,) = bob.received()
    assert answer.headers("content-length") == ["5"]
    assert answer.body == b"v=0\r\n"


def test_a_contact_that_another_registers_leads_to_whoever_registered_it(server: Server) -> None:
    bob = Browser(server, "bob")
    thief = Browser(server, "mallory", port=42_000, name=bob.name)
    assert bob.register().status == 200
    assert thief.register(f"Contact: <{bob.contact}>").status == 200
    alice = Device(server, "alice")
    invite = call(alice, thief)
    assert invite.uri_text == bob.contact
    assert bob.received() == []
    # Nor does it lead to him where it was registered over no connection.
    phone = Device(server, "mallory", port=5_080)
    thief.reconnect()
    assert phone.register(f"Contact: <{bob.contact}>", call_id="other").status == 200
    alice.received()
    alice.send(alice.invite("mallory", call_id="second"))
    server.settle()
    assert bob.received() == []


def test_a_contact_is_no_way_to_its_browser_for_others(server: Server) -> None:
    bob, mallory = Browser(server, "bob"), Browser(server, "mallory", port=42_000)
    bob.register()
    mallory.register()
    bob.received()
    route = f"Route: <sip:{bob.name};transport=ws;lr>"
    at_address = f"sip:bob@{bob.flow.host}:{bob.flow.port};transport=ws"
    for number, (uri, lines) in enumerate(
        [(bob.contact, ()), (at_address, ()), ("sip:x@example.org", (route,)), ("sip:alice@example.test", (route,))]
    ):
        mallory.send(mallory.signed("INVITE", uri, f"Contact: <{mallory.contact}>", *lines, call_id=f"c{number}"))
        server.settle()
        assert statuses(mallory.received())[-1] in (480, 503), uri
    stranger = Device(server, "eve", host="203.0.113.5")
    stranger.send(stranger.write("INVITE", bob.contact, from_="<sip:eve@example.org>;tag=1"))
    server.settle()
    assert statuses(stranger.received())[-1] == 403
    assert bob.received() == []


def test_inside_a_call_nobody_else_is_reached_either(server: Server) -> None:
    victim, alice, mallory = Browser(server, "bob"), Device(server, "alice"), Browser(server, "mallory", port=42_000)
    for each in (victim, alice, mallory):
        assert each.register().status == 200
    answer = answered(mallory, alice)
    for message in (
        mallory.in_dialog("BYE", answer, cseq=90).replace(b"sip:alice@192.0.2.7:5070", victim.contact.encode()),
        mallory.in_dialog("INFO", answer, f"Route: <sip:{victim.name};transport=ws;lr>", cseq=91),
    ):
        mallory.send(message)
        server.settle()
        assert all(status >= 400 for status in statuses(mallory.received()))
    assert victim.received() == []


def test_a_dead_connection_takes_its_contact_out_of_use(server: Server) -> None:
    alice, bob = Device(server, "alice"), Browser(server, "bob")
    bob.register()
    old = bob.flow
    bob.reconnect()
    alice.send(alice.invite("bob", call_id="while-away"))
    server.settle()
    assert statuses(alice.received())[-1] == 480
    assert server.sent_to(old) == []
    # The page is loaded again: another name, another connection.
    bob.name = "reloaded.invalid"
    assert bob.register(call_id="anew").status == 200
    assert call(alice, bob).uri_text == bob.contact


def test_a_call_whose_browser_vanished_is_closed_as_such(server: Server) -> None:
    alice, bob = Device(server, "alice"), Browser(server, "bob")
    alice.register()
    bob.register()
    answered(alice, bob)
    server.tick(5)
    bob.reconnect()
    server.tick(120)
    (row,) = server.rows("SELECT * FROM calls")
    assert (row["outcome"], row["end_cause"], row["ended_by"]) == ("answered", "connection_lost", "server")
    assert row["end_uncertainty_ms"] >= 0


@pytest.mark.parametrize("page_calls", [False, True])
def test_a_page_that_is_back_over_another_connection_is_still_in_its_call(server: Server, page_calls: bool) -> None:
    alice, bob = Device(server, "alice"), Browser(server, "bob")
    alice.register()
    bob.register()
    answer = answered(bob, alice) if page_calls else answered(alice, bob)
    old = bob.flow
    bob.reconnect()
    thief = Browser(server, "mallory", port=42_000, name=bob.name)
    assert thief.register(f"Contact: <{bob.contact}>").status == 200
    # Another device of his with a contact of its own is not meant either.
    assert Browser(server, "bob", port=43_000, name="other.invalid").register(call_id="other").status == 200
    assert bob.register(call_id="again").status == 200
    bob.received()
    server.tick(40)
    (options,) = bob.requests("OPTIONS")
    bob.send(bob.answer(options, 200))
    server.tick(100)
    assert [row["ended_at"] for row in server.rows("SELECT ended_at FROM calls")] == [None]
    if page_calls:
        lines = [f"Route: {route}" for route in answer.values("record-route")]
        to, from_ = answer.header("from") or "", answer.header("to") or ""
        alice.send(alice.write("BYE", bob.contact, *lines, call_id=answer.call_id, from_=from_, to=to))
    else:
        alice.send(alice.in_dialog("BYE", answer, cseq=90))
    (bye,) = bob.requests("BYE")
    bob.send(bob.answer(bye, 200))
    (row,) = server.rows("SELECT * FROM calls")
    assert (row["end_cause"], row["end_uncertainty_ms"]) == ("bye", None)
    assert thief.received() == []
    assert server.sent_to(old) == []
