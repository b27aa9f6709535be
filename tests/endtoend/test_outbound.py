"""Flows, NATs and GRUUs with real servers and sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.pen import DOMAIN
from support.phone import Phone
from support.server import ServerProcess

StartServer = Callable[..., ServerProcess]
MakePhone = Callable[..., Phone]

DEVICE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000a>"'
OTHER = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000b>"'
PINGS = "[nat]\ninterval = 1\nmisses = 2\n"


@pytest.fixture
def phone() -> Iterator[MakePhone]:
    with ExitStack() as stack:

        def make(server: ServerProcess, user: str, transport: str = "UDP", **options: Any) -> Phone:
            return stack.enter_context(Phone(server.port, user, transport, **options))

        yield make


def behind_nat(phone: MakePhone, server: ServerProcess, user: str, number: int) -> Phone:
    """A phone that sends from one address of loopback and names another, as if there were a NAT in between."""
    return phone(server, user, local=f"127.0.1.{number}", named=f"127.0.9.{number}")


def call(caller: Phone, callee: Phone, uri: str = "", **options: Any) -> tuple[Request, Response]:
    """A call to its ACK; what the callee and the caller got."""
    uri = uri or f"sip:{callee.user}@{DOMAIN}"
    caller.exchange("INVITE", uri, f"Contact: <{caller.contact}>", **options)
    caller.expect(100)
    invite = callee.expect("INVITE")
    callee.respond(invite, 200)
    answer = caller.expect(200)
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    callee.expect("ACK")
    return invite, answer


def by_callee(callee: Phone, method: str, invite: Request) -> bytes:
    """A request of the callee inside the dialog of this INVITE."""
    routes = [f"Route: {value}" for value in invite.values("record-route")]
    from_, to = f"{invite.header('to')};tag=callee", invite.header("from") or ""
    target = invite.addresses("contact")[0].uri_text
    return callee.write(method, target, *routes, from_=from_, to=to, call_id=invite.call_id)


def outcomes(server: ServerProcess, enough: int) -> list[tuple[str, str | None]]:
    rows = server.wait_for_rows("SELECT outcome, detail FROM sign_ins ORDER BY at", lambda rows: len(rows) >= enough)
    return [(row["outcome"], row["detail"]) for row in rows]


def test_call_arrives_over_the_second_flow_within_a_second_of_the_death_of_the_first(
    start_server: StartServer, phone: MakePhone
) -> None:
    server = start_server("alice", "bob")
    second, first = phone(server, "bob", "TCP"), phone(server, "bob", "TCP")
    contact = "Contact: <sip:bob@10.0.0.5;transport=tcp;ob>"
    for number, flow in ((2, second), (1, first)):
        answer = flow.register(f"{contact};{DEVICE};reg-id={number}", "Supported: path, outbound, gruu")
        assert (answer.header("require"), answer.header("flow-timer")) == ("outbound", "120")
    alice = phone(server, "alice")
    alice.exchange("MESSAGE", f"sip:bob@{DOMAIN}")
    first.respond(first.expect("MESSAGE"), 200)
    alice.expect(200)
    died = time.monotonic()
    first.__exit__()
    alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>", call_id="second")
    alice.expect(100)
    invite = second.expect("INVITE")
    assert time.monotonic() - died < 1
    second.respond(invite, 486)
    second.expect("ACK")
    alice.expect(486)
    assert server.wait("binding.lost")["reason"] == "connection closed"
    assert outcomes(server, 3)[-1] == ("lost", "connection closed")
    (row,) = server.rows("SELECT reg_id FROM bindings", store="location.db")
    assert row["reg_id"] == 2
    second.__exit__()
    assert outcomes(server, 4)[-1] == ("lost", "connection closed")
    alice.exchange("MESSAGE", f"sip:bob@{DOMAIN}", call_id="third")
    alice.expect(480)


def test_stun_is_answered_on_the_sip_port_and_gruus_reach_one_device(
    start_server: StartServer, phone: MakePhone
) -> None:
    server = start_server("alice", "bob")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun:
        stun.settimeout(5)
        stun.bind(("127.0.0.1", 0))
        stun.sendto(bytes.fromhex("000100002112a442") + b"transaction!", ("127.0.0.1", server.port))
        answer = stun.recv(100)
        assert (answer[:2], answer[8:20]) == (b"\x01\x01", b"transaction!")
        assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == stun.getsockname()[1]
    desk, mobile, alice = phone(server, "bob"), phone(server, "bob", "TCP"), phone(server, "alice")
    desk.register(f"Contact: <{desk.contact}>;{DEVICE}", "Supported: gruu")
    registered = mobile.register(f"Contact: <{mobile.contact}>;{OTHER}", "Supported: gruu")
    (params,) = [each.params for each in registered.addresses("contact") if each.uri_text == mobile.contact]
    for number, name in enumerate(("pub-gruu", "temp-gruu")):
        invite, dialog = call(alice, mobile, params[name] or "", call_id=f"g{number}")
        assert invite.uri_text == mobile.contact
        alice.send(alice.in_dialog("BYE", dialog, cseq=90))
        mobile.respond(mobile.expect("BYE"), 200)
        alice.expect(200)
    assert all(row["callee"] == server.party("bob") for row in server.ended_calls(2))


def test_endpoints_that_know_nothing_of_their_nats(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", "carol", config=PINGS)
    alice, bob = behind_nat(phone, server, "alice", 1), behind_nat(phone, server, "bob", 2)
    connected = phone(server, "carol", "TCP")
    for each in (alice, bob, connected):
        answer = each.register()
        assert answer.addresses("contact")[0].uri_text == each.contact
    # Who answers its pings stays, whoever does not goes.
    bob.answers_pings = True
    bob.idle(2.5)
    assert bob.pings >= 2
    assert server.wait("binding.lost")["address"] == f"alice@{DOMAIN}"
    assert outcomes(server, 4)[-1] == ("lost", "pings not answered")
    alice = behind_nat(phone, server, "alice", 1)
    alice.answers_pings = True
    alice.register()
    invite, answer = call(alice, bob, call_id="nat")
    assert invite.uri_text == bob.contact
    bob.send(by_callee(bob, "INFO", invite))
    alice.respond(alice.expect("INFO"), 200)
    bob.expect(200)
    # Flows over UDP go on after a restart, calls and all; connections do not.
    assert server.stop() == 0
    server.start()
    alice.send(alice.in_dialog("BYE", answer, cseq=90))
    bob.respond(bob.expect("BYE"), 200)
    alice.expect(200)
    dave = phone(server, "alice")
    dave.exchange("MESSAGE", f"sip:carol@{DOMAIN}", call_id="gone")
    dave.expect(480)
    assert ("lost", "server restarted") in outcomes(server, 6)
    dave.exchange("MESSAGE", f"sip:bob@{DOMAIN}", call_id="there")
    bob.respond(bob.expect("MESSAGE"), 200)
    dave.expect(200)
    again = phone(server, "carol", "TCP")
    again.register()
    dave.exchange("MESSAGE", f"sip:carol@{DOMAIN}", call_id="back")
    again.respond(again.expect("MESSAGE"), 200)
    dave.expect(200)
