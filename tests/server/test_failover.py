"""Another way to the same target, through the whole server: domains with several places, devices with several flows,
redirections, and what is on record of all that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sipserver.sip.flow import Flow
from sipserver.sip.locate import Naptr, Question, Records, Srv
from sipserver.sip.message import Message, Request, Response
from sipserver.transport.nameservers import Answer
from support.inprocess import Device, Server, statuses
from support.talk import Talk

MakeServer = Callable[..., Server]

OUTBOUND = "[proxy]\noutbound = true\nfailover_after = 2.0\n"
ZONE = {
    ("far.test", "NAPTR"): Records(naptr=[Naptr(1, 1, "s", "SIP+D2U", "", "_sip._udp.far.test")]),
    ("_sip._udp.far.test", "SRV"): Records(
        srv=[Srv(1, 1, 5060, "one.far.test"), Srv(2, 1, 5070, "two.far.test"), Srv(3, 1, 5060, "three.far.test")]
    ),
    ("one.far.test", "A"): Records(addresses=["198.51.100.1"]),
    ("two.far.test", "A"): Records(addresses=["198.51.100.2"]),
    ("three.far.test", "A"): Records(addresses=["198.51.100.3"]),
    ("secure.test", "NAPTR"): Records(naptr=[Naptr(1, 1, "s", "SIPS+D2T", "", "_sips._tcp.secure.test")]),
    ("_sips._tcp.secure.test", "SRV"): Records(srv=[Srv(1, 1, 5061, "one.far.test"), Srv(2, 1, 5061, "two.far.test")]),
    ("_sip._tcp.far.test", "SRV"): Records(srv=[Srv(1, 1, 5060, "one.far.test"), Srv(2, 1, 5070, "two.far.test")]),
}
BRANCHES = "SELECT outcome, status, transport, network FROM call_branches ORDER BY branch"
ERRORS = "SELECT kind, answered_by, status, network FROM errors ORDER BY at, rowid"


async def ask(question: Question) -> Answer:
    """What the DNS has."""
    return Answer(ZONE.get(question, Records()), 300)


class Away:
    """Alice, who calls bob at another domain; his servers are UDP flows here."""

    def __init__(self, server: Server) -> None:
        self.server = server
        server.service.resolver.ask = ask
        self.alice = Device(server, "alice")

    def server_at(self, number: int) -> Flow:
        """One of the domain's servers."""
        return self.server.transports.udp_flow(f"198.51.100.{number}", 5070 if number == 2 else 5060)

    async def call(self, uri: str = "sip:bob@far.test", method: str = "INVITE", **options: Any) -> None:
        """Send the request, and let everything be looked up."""
        given = {"call_id": "away", **options}
        self.alice.received()
        self.alice.send(self.alice.signed(method, uri, f"Contact: <{self.alice.contact}>", **given))
        for _ in range(20):
            await asyncio.sleep(0)

    def heard(self, number: int) -> list[Request]:
        """The requests that came there."""
        return [each for each in self.server.sent_to(self.server_at(number)) if isinstance(each, Request)]

    def answer(self, number: int, request: Request, status: int, *lines: str) -> None:
        """One of the servers answers."""
        peer = Device(self.server, "bob", self.server_at(number).host, self.server_at(number).port)
        self.server.receive(peer.answer(request, status, *lines), self.server_at(number))
        self.server.settle()


@pytest.fixture
def away(make_server: MakeServer) -> Away:
    return Away(make_server("alice", config=OUTBOUND))


async def test_silent_server_is_given_up_and_the_next_one_answers(away: Away) -> None:
    await away.call()
    (first,) = away.heard(1)
    assert away.heard(2) == []
    away.server.advance(2)
    away.heard(1)
    (second,) = away.heard(2)
    assert second.top_via.branch != first.top_via.branch
    assert (second.uri_text, second.call_id) == (first.uri_text, first.call_id)
    away.answer(2, second, 200)
    assert statuses(away.alice.received()) == [100, 200]
    # What was given up is not sent again.
    away.server.advance(25)
    assert away.heard(1) == []
    rows = away.server.rows(BRANCHES)
    assert [(row["outcome"], row["status"], row["network"]) for row in rows] == [
        ("unreachable", 408, "198.51.100.0/24"), ("answered", 200, "198.51.100.0/24"),
    ]  # fmt: skip
    assert [row["kind"] for row in away.server.rows(ERRORS)][:1] == ["timeout"]
    (line,) = away.server.log("target.dead")
    assert (line["target"], line["seconds"]) == ("UDP 198.51.100.1:5060", 60)


async def test_server_that_turns_out_not_to_be_reachable_gives_way_at_once(away: Away) -> None:
    await away.call()
    sent, flow = next((data, flow) for flow, data in away.server.transports.sent if flow is away.server_at(1))
    away.server.driver.on_unsent(sent, flow)
    (second,) = away.heard(2)
    away.answer(2, second, 200)
    assert statuses(away.alice.received()) == [100, 200]
    assert [row["outcome"] for row in away.server.rows(BRANCHES)] == ["unreachable", "answered"]


async def test_dead_server_is_tried_last_until_it_has_aged(away: Away) -> None:
    await away.call()
    away.server.advance(2)
    (second,) = away.heard(2)
    away.answer(2, second, 486)
    await away.call(call_id="again")
    ack, invite = away.heard(2)
    assert (ack.method, invite.method) == ("ACK", "INVITE")
    away.answer(2, invite, 486)
    away.server.advance(62)
    away.heard(1)
    await away.call(call_id="later")
    assert len(away.heard(1)) == 1


async def test_server_that_answers_late_is_taken_off(away: Away) -> None:
    await away.call(method="MESSAGE")
    (first,) = away.heard(1)
    away.server.advance(2)
    assert len(away.server.service.dead_targets) == 1
    away.answer(1, first, 200)
    assert statuses(away.alice.received()) == [200]
    assert len(away.server.service.dead_targets) == 0
    assert [line["target"] for line in away.server.log("target.alive")] == ["UDP 198.51.100.1:5060"]


async def test_invite_that_is_answered_after_all_is_the_call(away: Away) -> None:
    await away.call()
    (first,) = away.heard(1)
    away.server.advance(2)
    (second,) = away.heard(2)
    away.answer(2, second, 180)
    away.answer(1, first, 200)
    (cancel,) = away.heard(2)
    assert cancel.method == "CANCEL"
    away.answer(2, second, 487)
    assert statuses(away.alice.received()) == [100, 180, 200]
    rows = away.server.rows(BRANCHES)
    assert [(row["outcome"], row["status"], row["transport"]) for row in rows] == [
        ("answered", 200, "UDP"), ("elsewhere", 487, "UDP"),
    ]  # fmt: skip
    assert away.server.rows("SELECT outcome, devices FROM calls") == [{"outcome": "answered", "devices": 2}]


async def test_server_that_is_overloaded_is_left_alone_for_as_long_as_it_asks(away: Away) -> None:
    await away.call()
    (first,) = away.heard(1)
    away.answer(1, first, 503, "Retry-After: 20 (soon)")
    (second,) = away.heard(2)
    away.answer(2, second, 503)
    (third,) = away.heard(3)
    away.answer(3, third, 200)
    assert statuses(away.alice.received()) == [100, 200]
    assert [line["seconds"] for line in away.server.log("target.dead")] == [20]
    assert [row["kind"] for row in away.server.rows(ERRORS)] == ["peer_error"]


async def test_all_servers_dead_are_tried_all_the_same(away: Away) -> None:
    for call in ("one", "two"):
        await away.call(call_id=call)
        away.server.advance(36)
        assert [len(away.heard(number)) > 0 for number in (1, 2, 3)] == [True, True, True]
        assert statuses(away.alice.received())[-1] == 408
    rows = away.server.rows(BRANCHES)
    assert [row["outcome"] for row in rows] == ["unreachable"] * 6
    assert {row["outcome"] for row in away.server.rows("SELECT outcome FROM calls")} == {"offline"}


async def test_refused_connections_are_on_record(away: Away) -> None:
    away.server.transports.accepting.add(("198.51.100.2", 5070))
    await away.call("sip:bob@far.test;transport=tcp")
    (peer,) = away.server.transports.alive.values()
    (invite,) = [each for each in away.server.sent_to(peer) if isinstance(each, Request)]
    assert invite.uri_text == "sip:bob@far.test;transport=tcp"
    assert [row["outcome"] for row in away.server.rows(BRANCHES)] == ["unreachable", None]
    (row,) = away.server.rows(ERRORS)
    assert (row["kind"], row["network"]) == ("unreachable", "198.51.100.0/24")


async def test_domain_that_prefers_tls_has_to_prove_its_own_name(away: Away) -> None:
    # The first server proves the name that the DNS gave it, which anybody might have written there (RFC 5922 §4).
    away.server.transports.proving[("198.51.100.1", 5061)] = "one.far.test"
    away.server.transports.proving[("198.51.100.2", 5061)] = "secure.test"
    await away.call("sip:bob@secure.test")
    (peer,) = away.server.transports.alive.values()
    assert peer.label == "TLS 198.51.100.2:5061"
    assert away.heard(1) == away.heard(2) == []
    # Where nobody does, the call is not sent over anything weaker.
    away.server.transports.alive.clear()
    away.server.transports.proving.clear()
    await away.call("sip:bob@secure.test", call_id="again")
    assert statuses(away.alice.received())[-1] == 480
    assert away.heard(1) == away.heard(2) == []


async def test_large_request_asks_the_same_server_for_a_stream(away: Away) -> None:
    away.server.transports.accepting.add(("198.51.100.1", 5060))
    await away.call(body=b"x" * 1400)
    (peer,) = away.server.transports.alive.values()
    assert len(away.server.sent_to(peer)) == 1
    # One that takes none gets it by UDP.
    away.server.transports.accepting.clear()
    del away.server.transports.alive[peer.connection]
    await away.call(body=b"x" * 1400, call_id="again")
    assert len(away.heard(1)) == 1


async def test_name_that_leads_nowhere_is_unavailable(away: Away) -> None:
    await away.call("sip:bob@nowhere.test")
    assert statuses(away.alice.received()) == [100, 480]
    (row,) = away.server.rows("SELECT outcome, devices FROM calls")
    assert (row["outcome"], row["devices"]) == ("offline", 1)


async def test_way_of_the_operators_that_is_dead_is_taken_last(make_server: MakeServer) -> None:
    ways = ", ".join(f'{{ domain = "far.test", to = "sip:198.51.100.{number}" }}' for number in (1, 3))
    away = Away(make_server("alice", config=f"{OUTBOUND}routes = [{ways}]\n"))
    await away.call()
    (first,) = away.heard(1)
    away.server.advance(2)
    (second,) = away.heard(3)
    away.answer(3, second, 486)
    away.heard(3)
    await away.call(call_id="again")
    away.heard(1)
    assert [each.call_id for each in away.heard(3)] == ["again"]
    # It turns out to be there.
    away.answer(1, first, 100)
    await away.call(call_id="later")
    assert [each.call_id for each in away.heard(1)][-1] == "later"


async def test_endpoints_are_not_judged(away: Away) -> None:
    bob = Device(away.server, "alice", "192.0.2.9", 5080)
    assert bob.register("Contact: <sip:alice@192.0.2.9:5080;transport=tcp>").status == 200
    await away.call("sip:alice@example.test")
    assert statuses(away.alice.received()) == [100, 480]
    assert len(away.server.service.dead_targets) == 0


# Flows of one device (RFC 5626).


class Flows:
    """Bob, whose one device has registered over two connections."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.alice = Device(server, "alice")
        self.old, self.new = (Device(server, "bob", "192.0.2.8", port, tcp=True) for port in (41_000, 42_000))
        for number, device in enumerate((self.old, self.new), 1):
            server.advance(1)
            contact = f'Contact: <sip:bob@10.0.0.1;transport=tcp>;+sip.instance="<urn:uuid:1>";reg-id={number}'
            assert device.register(contact, "Supported: path, outbound", call_id=f"flow{number}").status == 200

    def close(self, device: Device) -> None:
        """The connection breaks."""
        del self.server.transports.alive[device.flow.connection]
        self.server.driver.on_closed(device.flow)
        self.server.settle()


@pytest.fixture
def flows(server: Server) -> Flows:
    return Flows(server)


def test_device_rings_over_its_newest_flow_alone(flows: Flows) -> None:
    flows.alice.send(flows.alice.invite("bob"))
    assert (len(flows.new.requests("INVITE")), len(flows.old.requests("INVITE"))) == (1, 0)


def test_flow_that_fails_while_the_invite_is_under_way_gives_way_to_the_other(flows: Flows) -> None:
    talk = Talk(flows.server, flows.alice, flows.new)
    flows.alice.send(flows.alice.invite("bob", call_id="talk", cseq=1))
    flows.close(flows.new)
    talk.callee = flows.old
    (talk.invite,) = flows.old.requests("INVITE")
    talk.respond(200)
    assert [row["outcome"] for row in flows.server.rows(BRANCHES)] == ["unreachable", "answered"]


def test_proxy_that_knows_of_a_failed_flow_says_so(flows: Flows) -> None:
    flows.alice.send(flows.alice.invite("bob"))
    (invite,) = flows.new.requests("INVITE")
    flows.new.send(flows.new.answer(invite, 430))
    (again,) = flows.old.requests("INVITE")
    flows.old.send(flows.old.answer(again, 430))
    flows.server.settle()
    assert statuses(flows.alice.received()) == [100, 480]
    row = flows.server.rows("SELECT outcome, sip_status FROM calls")[0]
    assert (row["outcome"], row["sip_status"]) == ("offline", 480)


def test_flow_that_is_gone_is_not_looked_for_elsewhere(flows: Flows) -> None:
    # Nobody has noticed yet that both connections are gone; where the contact points to, somebody else listens.
    flows.server.transports.alive.clear()
    flows.server.transports.accepting.add(("10.0.0.1", 5060))
    flows.alice.send(flows.alice.invite("bob"))
    flows.server.settle()
    assert statuses(flows.alice.received()) == [100, 480]
    assert flows.server.transports.alive == {}
    assert [row["outcome"] for row in flows.server.rows(BRANCHES)] == ["unreachable", "unreachable"]


# Redirections.


def test_redirection_to_another_subscriber_is_followed(server: Server) -> None:
    alice, bob, carol = (Device(server, user, f"192.0.2.{7 + n}") for n, user in enumerate(("alice", "bob", "carol")))
    for device in (bob, carol):
        assert device.register().status == 200
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 302, "Contact: <sip:carol@example.test>"))
    (ack,) = bob.requests("ACK")
    assert ack.top_via.branch == invite.top_via.branch
    (again,) = carol.requests("INVITE")
    carol.send(carol.answer(again, 200))
    server.settle()
    assert statuses(alice.received()) == [100, 200]
    rows = server.rows(BRANCHES)
    assert [(row["outcome"], row["status"]) for row in rows] == [("redirected", 302), ("answered", 200)]
    assert server.rows("SELECT outcome, devices FROM calls") == [{"outcome": "answered", "devices": 2}]


def test_redirection_may_be_left_to_the_caller(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", "carol", config="[proxy]\nredirects = 0\n")
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 302, "Contact: <sip:carol@example.test>"))
    server.settle()
    final = last(alice.received())
    assert (final.status, final.values("contact")[-1]) == (302, "<sip:carol@example.test>")
    assert server.rows("SELECT outcome, sip_status FROM calls") == [{"outcome": "failed", "sip_status": 302}]


def last(messages: list[Message]) -> Response:
    """The last response."""
    return [each for each in messages if isinstance(each, Response)][-1]


# Large requests inside of calls (RFC 3261 §18.1.1).


def test_large_ack_goes_by_a_stream_where_there_is_one(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    talk = Talk(server, alice, bob)
    talk.place()
    talk.respond(200)
    # Without a stream it is a datagram all the same.
    talk.ack(b"x" * 1500)
    server.transports.accepting.add((bob.flow.host, bob.flow.port))
    talk.caller.send(talk.caller.in_dialog("ACK", talk.answer, cseq=1, body=b"x" * 1500))
    assert bob.received() == []
    (stream,) = server.transports.alive.values()
    (ack,) = server.sent_to(stream)
    assert ack.top_via.transport == "TCP"
