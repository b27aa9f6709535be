"""What goes wrong between real endpoints and a server that runs, and what ``errors`` has of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from sipserver.calls.faults import KINDS
from sipserver.sip.message import Response, parse
from support.endpoint import Endpoint
from support.pen import DOMAIN
from support.phone import Phone
from support.server import Row, ServerProcess, sipserver

StartServer = Callable[..., ServerProcess]

QUICK = "[timers]\nt1 = 0.02\nt2 = 0.04\nt4 = 0.05\n[tcp]\nsilent = 0.5\n"
"""Time-outs after 1.3 seconds."""


def errors(server: ServerProcess, kind: str, count: int = 1) -> list[Row]:
    """The rows of this kind, once their counts add up to this."""
    return server.wait_for_rows(
        f"SELECT * FROM errors WHERE kind = '{kind}' ORDER BY at",
        lambda rows: sum(row["count"] for row in rows) == count,
    )


async def test_error_of_a_peer_names_its_agent_both_parties_and_the_call(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        endpoint.final = (500, "Internal Error")
        await endpoint.invite("alice", "bob")
    (row,) = errors(server, "peer_error")
    (call,) = server.ended_calls()
    assert (row["method"], row["status"], row["answered_by"]) == ("INVITE", 500, "peer")
    assert row["detail"] == "Internal Error"
    assert (row["party"], row["target"], row["call"]) == (server.party("alice"), server.party("bob"), call["id"])
    assert row["agent"] == "test endpoint"
    (shown,) = json.loads(sipserver("errors", "list", "--kind", "peer_error", "--data-dir", server.data_dir, "--json"))
    assert (shown["party_address"], shown["target_address"]) == (f"alice@{DOMAIN}", f"bob@{DOMAIN}")
    server.wait("request.failed", kind="peer_error", call=call["id"])


@pytest.mark.parametrize("status", [480, 486, 487, 600, 603])
async def test_ordinary_outcome_is_no_error(start_server: StartServer, status: int) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        endpoint.final = (status, "As It Is")
        await endpoint.invite("alice", "bob")
        endpoint.final = (200, "OK")
        _, dialog = await endpoint.invite("alice", "bob")
        await endpoint.bye(dialog)
    server.ended_calls(2)
    assert server.stop() == 0
    assert server.rows("SELECT * FROM errors") == []


async def test_flood_of_peer_errors_is_one_row_with_a_count(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port) as endpoint:
        await endpoint.register("bob")
        endpoint.final, endpoint.rings = (503, "Busy With Myself"), False
        for _ in range(20):
            await endpoint.invite("alice", "bob")
    calls = server.ended_calls(20)
    assert server.stop() == 0
    (row,) = errors(server, "peer_error", 20)
    assert (row["count"], row["call"]) == (20, calls[0]["id"])


def test_device_that_does_not_answer_is_a_timeout(start_server: StartServer) -> None:
    server = start_server("alice", "bob", config=QUICK)
    with Phone(server.port, "alice") as alice, Phone(server.port, "bob") as bob:
        bob.register()
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>")
        alice.expect(100)
        bob.expect("INVITE")
        assert alice.expect(408).status == 408
    (row,) = errors(server, "timeout")
    (call,) = server.ended_calls()
    assert (row["method"], row["status"], row["answered_by"], row["call"]) == ("INVITE", None, "network", call["id"])
    # The 408 that the caller got was never acknowledged by this phone.
    (row,) = errors(server, "unacknowledged")
    assert (row["answered_by"], row["party"], row["call"]) == ("network", server.party("alice"), call["id"])


def test_device_that_cannot_be_connected_to_is_unreachable(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    with Phone(server.port, "bob") as bob:
        bob.register("Contact: <sip:bob@127.0.0.1:9;transport=tcp>", "User-Agent: Acme/1.5")
    with Phone(server.port, "alice") as alice:
        alice.exchange("MESSAGE", f"sip:bob@{DOMAIN}")
        # 500 where the server learns only by sending that the connection is gone.
        assert alice.next().to_bytes().startswith((b"SIP/2.0 480", b"SIP/2.0 500"))
    (row,) = errors(server, "unreachable")
    assert (row["method"], row["answered_by"], row["agent"]) == ("MESSAGE", "network", "Acme/1.5")
    assert (row["party"], row["target"], row["call"]) == (server.party("alice"), server.party("bob"), None)


def test_answer_that_is_never_acknowledged(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    with Phone(server.port, "alice") as alice, Phone(server.port, "bob") as bob:
        bob.register()
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>", "User-Agent: Acme/1.5")
        alice.expect(100)
        bob.respond(bob.expect("INVITE"), 200)
        answer = alice.expect(200)
        alice.send(alice.in_dialog("BYE", answer, cseq=90))
        bob.respond(bob.expect("BYE"), 200)
        alice.expect(200)
    (call,) = server.ended_calls()
    (row,) = errors(server, "unacknowledged")
    assert (row["call"], row["agent"], row["status"], call["confirmed_at"]) == (call["id"], "Acme/1.5", 200, None)


def test_challenge_that_nobody_answers_is_counted_and_one_that_is_answered_is_not(start_server: StartServer) -> None:
    server = start_server("alice", "bob", config=QUICK)
    with Phone(server.port, "alice") as alice:
        alice.register()
        for number in range(5):
            alice.send(alice.write("INVITE", f"sip:bob@{DOMAIN}", "User-Agent: scanner", call_id=f"scan{number}"))
            alice.expect(407)
        alice.send(alice.write("REGISTER", call_id="once"))
        alice.expect(401)
    rows = {row["method"]: row for row in errors(server, "challenge_unanswered", 6)}
    assert (rows["INVITE"]["count"], rows["INVITE"]["status"], rows["INVITE"]["agent"]) == (5, 407, "scanner")
    assert (rows["REGISTER"]["count"], rows["REGISTER"]["status"]) == (1, 401)


def test_connection_that_says_nothing_is_an_error(start_server: StartServer) -> None:
    server = start_server(config=QUICK)
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.settimeout(10)
        assert silent.recv(1) == b""
    (row,) = errors(server, "connection_timeout")
    assert (row["answered_by"], row["network"]) == ("network", "127.0.0.0/24")


def test_what_belongs_to_nothing_and_what_cannot_be_read_is_on_record(start_server: StartServer) -> None:
    server = start_server("alice")
    with Phone(server.port, "alice") as alice:
        head = f"Via: SIP/2.0/UDP {alice.hostport};branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"
        alice.send(f"SIP/2.0 200 OK\r\n{head}Call-ID: x\r\nCSeq: 1 INVITE\r\n\r\n".encode())
        alice.send(f"SIP/2.0 200 OK\r\n{head}CSeq: 1 INVITE\r\n\r\n".encode())
        alice.exchange("REGISTER", f"sip:{DOMAIN}", f"Contact: <{alice.contact}>", password="wrong")
        alice.expect(401)
    (row,) = errors(server, "stray")
    assert (row["method"], row["status"]) == ("INVITE", 200)
    (row,) = errors(server, "malformed_response")
    (row,) = errors(server, "credentials")
    assert (row["method"], row["status"], row["party"]) == ("REGISTER", 401, None)
    assert {row["kind"] for row in server.rows("SELECT kind FROM errors")} <= set(KINDS)


def test_bye_from_another_host_ends_no_call_unless_it_has_the_password(start_server: StartServer) -> None:
    server = start_server("alice", "bob", config=QUICK)
    with (
        Phone(server.port, "alice") as alice,
        Phone(server.port, "bob", "TCP") as bob,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere,
    ):
        elsewhere.bind(("127.0.0.2", 0))
        elsewhere.settimeout(5)
        bob.register()
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>")
        alice.expect(100)
        bob.respond(bob.expect("INVITE"), 200)
        answer = alice.expect(200)
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        bob.expect("ACK")
        # Everything is right but where it comes from.
        elsewhere.sendto(alice.in_dialog("BYE", answer, cseq=50), alice.server)
        challenge = parse(elsewhere.recv(65_536))
        assert isinstance(challenge, Response)
        assert challenge.status == 407
        (row,) = errors(server, "forged")
        assert (row["method"], row["status"], row["answered_by"]) == ("BYE", 407, "server")
        assert server.rows("SELECT ended_at FROM calls") == [{"ended_at": None}]
        # Alice's device has moved there, and knows her password.
        target = answer.addresses("contact")[0].uri_text
        elsewhere.sendto(alice.in_dialog("BYE", answer, cseq=51), alice.server)
        challenge = parse(elsewhere.recv(65_536))
        assert isinstance(challenge, Response)
        credentials = alice.credentials(challenge, "BYE", target)
        elsewhere.sendto(alice.in_dialog("BYE", answer, credentials, cseq=52), alice.server)
        bob.respond(bob.expect("BYE"), 200)
        assert b" 200 " in elsewhere.recv(65_536)
    (call,) = server.ended_calls()
    assert (call["end_cause"], call["ended_by"], row["call"]) == ("bye", "caller", call["id"])
    assert server.stop() == 0
    assert len(errors(server, "forged")) == 1
