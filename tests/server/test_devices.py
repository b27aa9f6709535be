"""Calls to one device, and to endpoints that only their own flow leads to, in whole dialogs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]
DESK = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000a>"'
MOBILE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000b>"'
GRUU = "sip:bob@example.test;gr=urn:uuid:00000000-0000-1000-8000-00000000000b"


def register(device: Device, *params: str, contact: str = "", **options: Any) -> tuple[str, str]:
    """REGISTER as a device; its public and its temporary GRUU."""
    line = ";".join((f"Contact: <{contact or device.contact}>", *params))
    answer = device.register(line, "Supported: gruu, outbound", **options)
    assert answer.status == 200
    for each in answer.addresses("contact"):
        if each.uri_text == (contact or device.contact):
            return each.params.get("pub-gruu") or "", each.params.get("temp-gruu") or ""
    raise AssertionError("not registered")


def place(caller: Device, uri: str, *lines: str, contact: str = "", **options: Any) -> None:
    """INVITE with credentials."""
    lines = (f"Contact: <{contact or caller.contact}>", *lines)
    caller.received()
    caller.send(caller.signed("INVITE", uri, *lines, **options))


def invited(device: Device) -> list[Request]:
    return device.requests("INVITE")


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server("alice", "bob", "carol")


@pytest.fixture
def desk(server: Server) -> Device:
    return Device(server, "bob", "192.0.2.20")


@pytest.fixture
def mobile(server: Server) -> Device:
    return Device(server, "bob", "192.0.2.21")


# ---- RFC 5627 §6.1


def test_gruu_reaches_one_of_two_devices(server: Server, desk: Device, mobile: Device) -> None:
    register(desk, DESK, call_id="d")
    public, temporary = register(mobile, MOBILE, call_id="m")
    assert public == GRUU
    alice = Device(server, "alice")
    for uri in (public, temporary):
        place(alice, uri, call_id=uri)
        (invite,) = invited(mobile)
        assert (invite.uri_text, invited(desk)) == (mobile.contact, [])
    calls = server.rows("SELECT callee FROM calls")
    party = server.service.parties.party(f"bob@{DOMAIN}")
    assert [row["callee"] for row in calls] == [party, party]


def test_gruu_of_a_device_that_is_not_there(server: Server, desk: Device, mobile: Device) -> None:
    register(desk, DESK, call_id="d")
    _, temporary = register(mobile, MOBILE, call_id="m")
    mobile.register(f"Contact: <{mobile.contact}>;{MOBILE};expires=0", call_id="m", cseq=99)
    alice = Device(server, "alice")
    # RFC 5627 §5.3: a public one stays good, temporary ones end with the last contact.
    for uri, status in ((GRUU, 480), (temporary, 404), ("sip:tgruu.nonsense@example.test;gr", 404)):
        place(alice, uri, call_id=uri)
        assert statuses(alice.received()) == [status]
    assert invited(desk) == []


def test_temporary_gruus_end_when_the_device_comes_with_another_call_id(server: Server, mobile: Device) -> None:
    _, first = register(mobile, MOBILE, call_id="one")
    _, second = register(mobile, MOBILE, call_id="one", cseq=50)
    alice = Device(server, "alice")
    for uri in (first, second):
        place(alice, uri, call_id=uri)
        assert len(invited(mobile)) == 1
    server.advance(1)
    _, third = register(mobile, MOBILE, call_id="two")
    for uri in (first, second):
        place(alice, uri, call_id=f"again-{uri}")
        assert invited(mobile) == []
    place(alice, third, call_id="third")
    assert len(invited(mobile)) == 1


def test_temporary_gruus_are_good_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        _, temporary = register(Device(server, "bob", "192.0.2.21"), MOBILE)
        server.settle()
    with Server(tmp_path) as server:
        place(Device(server, "alice"), temporary)
        assert len(invited(Device(server, "bob", "192.0.2.21"))) == 1


def test_gruu_of_another_is_refused_in_a_contact(server: Server, mobile: Device) -> None:
    _, temporary = register(mobile, MOBILE)
    alice = Device(server, "alice")
    for number, uri in enumerate((GRUU, temporary, "sip:tgruu.nonsense@example.test;gr")):
        place(alice, f"sip:carol@{DOMAIN}", contact=uri, call_id=str(number))
        assert 403 in statuses(alice.received())


def test_call_between_gruus(server: Server, mobile: Device) -> None:
    alice = Device(server, "alice")
    public, _ = register(alice, DESK)
    _, temporary = register(mobile, MOBILE)
    place(alice, temporary, contact=public)
    (invite,) = invited(mobile)
    mobile.send(mobile.answer(invite, 200).replace(f"<{mobile.contact}>".encode(), f"<{temporary}>".encode()))
    server.settle()
    answer = [each for each in alice.received() if isinstance(each, Response)][-1]
    assert answer.status == 200
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    (ack,) = mobile.requests("ACK")
    assert ack.uri_text == mobile.contact
    mobile.send(by_callee(mobile, "BYE", invite, public))
    (bye,) = alice.requests("BYE")
    assert bye.uri_text == alice.contact


def test_call_with_a_gruu_can_be_ended_when_its_registration_is_gone(server: Server, mobile: Device) -> None:
    alice = Device(server, "alice")
    public, _ = register(alice, DESK)
    mobile.register()
    place(alice, f"sip:bob@{DOMAIN}", contact=public)
    (invite,) = invited(mobile)
    mobile.send(mobile.answer(invite, 200))
    server.settle()
    alice.received()
    alice.register("Contact: *", "Expires: 0", cseq=99)
    mobile.send(by_callee(mobile, "BYE", invite, public))
    assert len(alice.requests("BYE")) == 1


def by_callee(device: Device, method: str, invite: Request, target: str) -> bytes:
    """A request of the callee inside the dialog of this INVITE."""
    routes = [f"Route: {value}" for value in invite.values("record-route")]
    from_, to = f"{invite.header('to')};tag=callee", invite.header("from") or ""
    return device.write(method, target, *routes, from_=from_, to=to, call_id=invite.call_id)


# ---- NAT


def natted_call(server: Server, caller: Device, callee: Device) -> tuple[Request, Response]:
    """A call between two endpoints that name themselves by private addresses."""
    callee.register("Contact: <sip:bob@10.0.0.5:5060>")
    place(caller, f"sip:bob@{DOMAIN}", contact="sip:alice@10.0.0.6:5060")
    (invite,) = invited(callee)
    assert invite.uri_text == "sip:bob@10.0.0.5:5060"
    contact = f"<{callee.contact}>".encode()
    callee.send(callee.answer(invite, 200).replace(contact, b"<sip:bob@10.0.0.5:5060>"))
    server.settle()
    answer = [each for each in caller.received() if isinstance(each, Response)][-1]
    assert answer.status == 200
    return invite, answer


def test_requests_inside_a_call_go_to_the_flow_and_not_to_the_private_contact(server: Server) -> None:
    alice, bob = Device(server, "alice", port=40_000), Device(server, "bob", "192.0.2.20", 40_001)
    invite, answer = natted_call(server, alice, bob)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    assert len(bob.requests("ACK")) == 1
    alice.send(alice.in_dialog("INFO", answer, cseq=50))
    assert len(bob.requests("INFO")) == 1
    bob.send(by_callee(bob, "BYE", invite, "sip:alice@10.0.0.6:5060"))
    assert len(alice.requests("BYE")) == 1


def test_calls_of_both_sides_behind_nats_outlive_the_process(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        alice, bob = Device(server, "alice", port=40_000), Device(server, "bob", "192.0.2.20", 40_001)
        invite, answer = natted_call(server, alice, bob)
        route = invite.values("record-route")[0]
        for secret in ("192.0.2.7", "192.0.2.20", "40000", "40001"):
            assert secret not in route
        server.settle()
    with Server(tmp_path) as server:
        alice, bob = (
            Device(server, "alice", port=40_000, first=100),
            Device(server, "bob", "192.0.2.20", 40_001, first=100),
        )
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        assert len(bob.requests("ACK")) == 1
        bob.send(by_callee(bob, "INFO", invite, "sip:alice@10.0.0.6:5060"))
        assert len(alice.requests("INFO")) == 1
        alice.send(alice.in_dialog("BYE", answer, cseq=90))
        assert len(bob.requests("BYE")) == 1


def test_ways_of_one_call_are_of_no_use_in_another(server: Server) -> None:
    alice, bob = Device(server, "alice", port=40_000), Device(server, "bob", "192.0.2.20", 40_001)
    carol = Device(server, "carol", "192.0.2.30")
    carol.register()
    invite, _ = natted_call(server, alice, bob)
    stolen = invite.values("record-route")[0].partition(";fl=")[2]
    place(alice, f"sip:carol@{DOMAIN}", call_id="other")
    (other,) = invited(carol)
    carol.send(carol.answer(other, 200))
    server.settle()
    answer = [each for each in alice.received() if isinstance(each, Response)][-1]
    forged = alice.in_dialog("INFO", answer, cseq=70).replace(
        b";lr;vc=", b";lr;fl=" + stolen.rstrip(">").encode() + b";vc="
    )
    bob.received()
    alice.send(forged)
    assert (len(carol.requests("INFO")), bob.received()) == (1, [])


def test_reply_goes_back_through_the_nat_though_nobody_asked_for_rport(server: Server) -> None:
    bob = Device(server, "bob", "192.0.2.20", 40_001)
    data = bob.write("REGISTER", f"sip:{DOMAIN}").replace(b"192.0.2.20:40001", b"10.0.0.5:5060").replace(b";rport", b"")
    bob.send(data)
    assert statuses(bob.received()) == [401]
    bob.send(data.replace(b"10.0.0.5:5060", b"192.0.2.20:5060"))
    assert statuses(server.sent_to(server.transports.udp_flow("192.0.2.20", 5060))) == [401]


def test_device_that_came_back_over_another_connection_is_reached_there_in_its_call(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.20", 41_000, tcp=True)
    line = f"Contact: <sip:bob@10.0.0.5;transport=tcp>;{DESK}"
    contact = f"<{bob.contact}>".encode()
    bob.register(line)
    place(alice, f"sip:bob@{DOMAIN}")
    (invite,) = invited(bob)
    bob.send(bob.answer(invite, 200).replace(contact, b"<sip:bob@10.0.0.5;transport=tcp>"))
    server.settle()
    answer = [each for each in alice.received() if isinstance(each, Response)][-1]
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    del server.transports.alive[bob.flow.connection]
    server.driver.on_closed(bob.flow)
    server.settle()
    bob.flow = server.transports.open("192.0.2.20", 41_001)
    bob.register(line, cseq=90)
    alice.send(alice.in_dialog("BYE", answer, cseq=90))
    (bye,) = bob.requests("BYE")
    assert bye.uri_text == "sip:bob@10.0.0.5;transport=tcp"


# ---- next flow


def test_call_takes_the_next_flow_of_a_device_when_one_is_dead(server: Server) -> None:
    first = Device(server, "bob", "192.0.2.20", 41_000, tcp=True)
    second = Device(server, "bob", "192.0.2.20", 41_001, tcp=True)
    contact = "sip:bob@10.0.0.5;transport=tcp;ob"
    register(second, DESK, "reg-id=2", contact=contact, call_id="2")
    register(first, DESK, "reg-id=1", contact=contact, call_id="1")
    # The server does not know yet.
    del server.transports.alive[first.flow.connection]
    place(Device(server, "alice"), f"sip:bob@{DOMAIN}")
    assert len(invited(second)) == 1
