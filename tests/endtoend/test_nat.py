"""Endpoints behind NATs that translate ports, in network namespaces of their own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sipserver.sip.message import Request
from support.nat import SERVER, Host, Network
from support.pen import DOMAIN
from support.phone import Phone
from support.server import ServerProcess

FORGETS = 2
"""Seconds after which the NATs forget what was silent."""


@contextmanager
def server_ended(server: ServerProcess) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()


def phone_of(user: str, host: Host, server: ServerProcess) -> Phone:
    with host.entered():
        phone = Phone(server.port, user, host=SERVER, local=host.address)
    phone.answers_pings = True
    return phone


def assert_that_it_forgets(host: Host, network: Network) -> None:
    """The NAT translates ports, and lets nothing in any more when it was silent for long enough."""
    with network.wan.entered():
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with host.entered():
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with outside, inside:
        outside.bind((SERVER, 0))
        inside.bind((host.address, 5060))
        for each in (outside, inside):
            each.settimeout(5)
        inside.sendto(b"out", outside.getsockname())
        data, source = outside.recvfrom(100)
        assert (data, source[0]) == (b"out", host.public)
        assert source[1] != 5060
        outside.sendto(b"in", source)
        assert inside.recv(100) == b"in"
        time.sleep(FORGETS + 1.5)
        outside.sendto(b"late", source)
        inside.settimeout(0.3)
        with pytest.raises(TimeoutError):
            inside.recv(100)


def test_registration_outlives_the_nats_memory_and_calls_go_both_ways(tmp_path: Path) -> None:
    with Network() as network:
        home = network.host("home", udp_timeout=FORGETS)
        office = network.host("office", udp_timeout=FORGETS)
        server = ServerProcess(tmp_path / "server", ("alice", "bob"), config="[nat]\ninterval = 1\n", host=SERVER)
        with network.wan.entered():
            server.start()
        with server_ended(server), phone_of("alice", home, server) as alice, phone_of("bob", office, server) as bob:
            for phone in (alice, bob):
                answer = phone.register()
                assert answer.addresses("contact")[0].uri_text == phone.contact
            rows = server.rows("SELECT * FROM bindings ORDER BY aor", store="location.db")
            assert [(row["host"], row["natted"]) for row in rows] == [(home.public, 1), (office.public, 1)]
            assert all(row["port"] != phone.flow.port for row, phone in zip(rows, (alice, bob), strict=True))
            # Longer than the NATs remember.
            for _ in range(10):
                for phone in (alice, bob):
                    phone.idle((FORGETS + 2) / 20)
            assert min(alice.pings, bob.pings) >= 2
            for caller, callee in ((alice, bob), (bob, alice)):
                talk(caller, callee)
            assert {row["outcome"] for row in server.ended_calls(2)} == {"answered"}
            assert_that_it_forgets(home, network)


def talk(caller: Phone, callee: Phone) -> None:
    """A call that the callee ends."""
    caller.exchange("INVITE", f"sip:{callee.user}@{DOMAIN}", f"Contact: <{caller.contact}>", call_id=f"c{caller.user}")
    caller.expect(100)
    invite = callee.expect("INVITE")
    assert isinstance(invite, Request)
    callee.respond(invite, 200)
    answer = caller.expect(200)
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    callee.expect("ACK")
    routes = [f"Route: {value}" for value in invite.values("record-route")]
    from_, to = f"{invite.header('to')};tag=callee", invite.header("from") or ""
    callee.send(callee.write("BYE", caller.contact, *routes, from_=from_, to=to, call_id=invite.call_id))
    caller.respond(caller.expect("BYE"), 200)
    callee.expect(200)
