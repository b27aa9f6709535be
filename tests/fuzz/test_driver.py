"""Whatever arrives, in whatever order: the whole server keeps its word, its bounds and its temper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipserver.sip.message import Message, Request, Response, parse
from sipserver.sip.validate import check_request, check_response
from support.inprocess import SERVER, Device, Server
from support.pen import DOMAIN

ATTACKER = ("203.0.113.66", 5060)
BOB_HOST = "192.0.2.8"
TRANSACTIONS = 200
QUIET = 400.0
"""Seconds after which nothing of a message is left; timer C is the longest."""

FRAGMENTS = [
    b"", b"\r\n", b"\n", b"\r", b"\r\n ", b"\0", b"\xff", b"\xc3\x28", b'"', b"<", b">", b";", b",", b"%", b"%00", b"@",
    b":", b"[", b"]", b"\\", b" ", b"\t", b"SIP/2.0", b"Via", b"\xb2", b"-1", b"0", b"99999999999999999999",
    b"4294967296", b"\r\n\r\n", b"=", b"*", b"?", b";lr", b";maddr=203.0.113.99", b"192.0.2.1", b"z9hG4bK", b"tel:+1",
    b"sips:", b"\r\nContact: *", b"\r\nExpires: 0", b"\r\nRoute: <sip:203.0.113.99;lr>", b";tag=x",
    b"\r\nRequire: path",
    b"\r\nMax-Forwards: 0", b"\r\nl: 1", b";transport=tcp", b"\r\nPath: <sip:203.0.113.99;lr>\r\nSupported: path",
]  # fmt: skip


class World:
    """One server for all examples, since starting one takes longer than an example."""

    def __init__(self, server: Server) -> None:
        self.server = server
        # Six digits from the first to the last example, since hypothesis wants the same sizes each time.
        self.alice = Device(server, "alice", first=100_000)
        self.bob = Device(server, "bob", BOB_HOST, first=100_000)
        self.numbers = count(100_000)
        # She need not be registered to be asked whether she is still in a call of hers, where she was heard last.
        self.named = {self.alice.contact}
        """Every contact there ever was."""

    def seeds(self) -> list[tuple[bytes, Device]]:
        """Valid messages of every kind; the requests have credentials that are good once."""
        alice, bob, number = self.alice, self.bob, next(self.numbers)
        call = f"call{number}"
        # What an earlier example left behind, perhaps a failed one.
        self.server.settle()
        self.server.advance(QUIET)
        self.server.service.tick()
        self.server.settle()
        self.server.transports.sent.clear()
        bob.register("Contact: *", "Expires: 0", call_id=f"r{number}")
        bob.register(call_id=f"r{number}")
        invite = alice.invite("bob", "Content-Type: application/sdp", call_id=call, branch=f"z9hG4bKs{number}", cseq=1)
        alice.send(invite)
        (ringing,) = bob.requests("INVITE")
        ok = bob.answer(ringing, 200)
        bob.send(ok)
        self.server.settle()
        answer = next(each for each in alice.received() if isinstance(each, Response) and each.status == 200)
        uri, address = f"sip:bob@{DOMAIN}", f"<sip:{alice.user}@{DOMAIN}>"
        options: dict[str, Any] = {"call_id": f"x{number}", "branch": f"z9hG4bKt{number}"}
        return [
            (alice.signed("REGISTER", "", f"Contact: <{alice.contact}>;q=0.5", to=address, **options), alice),
            (alice.invite("bob", **options), alice),
            (alice.write("CANCEL", uri, **options), alice),
            (alice.write("OPTIONS", "", **options), alice),
            (alice.signed("MESSAGE", uri, body=b"hello", **options), alice),
            (invite, alice),
            (alice.in_dialog("ACK", answer, cseq=1), alice),
            (alice.in_dialog("INVITE", answer, cseq=2), alice),
            (alice.in_dialog("BYE", answer, cseq=3), alice),
            (bob.answer(ringing, 180), bob),
            (bob.answer(ringing, 486), bob),
            (ok, bob),
        ]

    def check_sent(self) -> None:
        """Everything that was sent can be read, and went to who sent something or is named in what is valid."""
        sent, self.server.transports.sent = self.server.transports.sent, []
        bindings = self.server.service.location._bindings.values()
        self.named |= {binding.contact for each in bindings for binding in each}
        for flow, data in sent:
            message = read(data)
            if isinstance(message, Response):
                assert flow.host in (self.alice.flow.host, self.bob.flow.host, ATTACKER[0]), (flow.label, data)
            elif isinstance(message, Request) and flow.host not in (self.alice.flow.host, self.bob.flow.host):
                assert message.uri_text in self.named, (flow.label, data)

    def check_bounds(self) -> None:
        """Nothing grows beyond its bound, and the server is sound."""
        service = self.server.service
        assert service.driver.faults == 0, self.server.log("internal.fault")
        assert service.transactions.servers <= TRANSACTIONS
        assert service.location.count <= 20
        assert len(service.dialogs) <= service.dialogs.max_dialogs

    def check_quiet(self) -> None:
        """When time has passed nothing is left but what is on disk, and calls that nobody ended."""
        self.server.settle()
        self.server.advance(QUIET)
        # What was sent from elsewhere looked like a NAT's, and did not answer its pings.
        self.server.settle()
        self.server.service.tick()
        # Sides of calls whose registration is gone were asked whether they are there: 64*T1.
        self.server.advance(40)
        self.server.settle()
        service = self.server.service
        left = (service.transactions.servers, service.transactions.clients, len(service.timers))
        assert left == (0, 0, 0)
        assert service.location._held == {}
        self.check_sent()
        self.check_bounds()


def read(data: bytes) -> Message:
    """The message, if it is a valid one."""
    message = parse(data)
    if isinstance(message, Request):
        check_request(message)
    elif b"CSeq" in data and message.status not in (400, 413, 414, 416, 505, 513):
        # What cannot be read is answered with those of its headers that are there.
        check_response(message)
    return message


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    config = f"[limits]\ntransactions = {TRANSACTIONS}\n"
    with Server(folder / "server", "alice", "bob", "carol", config=config) as server:
        yield World(server)


@settings(max_examples=300)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes(world: World, data: bytes) -> None:
    flow = world.server.transports.udp_flow(*ATTACKER)
    world.server.receive(data, flow)
    world.server.receive(b"INVITE sip:bob@example.test SIP/2.0\r\n" + data, flow)
    world.server.receive(b"SIP/2.0 200 OK\r\nVia: " + data, flow)
    world.check_sent()
    world.check_bounds()


@st.composite
def mutation(draw: st.DrawFn, data: bytes) -> bytes:
    """The message with a few pieces cut out, put in, doubled or moved."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6), st.just(data[start:end] * 2)))
        data = data[:start] + piece + data[end:]
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    return data


@st.composite
def header_mutation(draw: st.DrawFn, data: bytes) -> bytes:
    """The message with one header doubled, taken out, or with another value, which its neighbours survive."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    at = draw(st.integers(1, len(lines) - 1))
    name = lines[at].partition(b":")[0]
    value = draw(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=12)))
    match draw(st.sampled_from(("double", "drop", "replace", "append", "number"))):
        case "double":
            lines.insert(at, lines[at])
        case "drop":
            del lines[at]
        case "replace":
            lines[at] = name + b": " + value
        case "append":
            lines[at] += value
        case _:
            lines[at] = re.sub(rb"[0-9]+", str(draw(st.integers(-1, 2**70))).encode(), lines[at], count=1)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@settings(max_examples=60)
@given(data=st.data())
def test_mutated_messages(world: World, data: st.DataObject) -> None:
    for seed, device in world.seeds():
        kind = data.draw(st.sampled_from((mutation, header_mutation)))
        world.server.receive(data.draw(kind(seed)), device.flow)
        world.check_sent()
    world.check_bounds()
    world.check_quiet()


@settings(max_examples=60)
@given(data=st.data())
def test_valid_messages_in_any_order(world: World, data: st.DataObject) -> None:
    seeds = world.seeds()
    flows = [world.server.transports.udp_flow(*ATTACKER)]
    for position in data.draw(st.lists(st.integers(0, len(seeds) - 1), max_size=30)):
        message, device = seeds[position]
        flow = device.flow
        # Somebody else saw it, and sends it again from elsewhere.
        if data.draw(st.integers(0, 9)) == 0:
            flow = flows[0]
        world.server.receive(message, flow)
        match data.draw(st.integers(0, 5)):
            case 0:
                world.server.settle()
            case 1:
                world.server.advance(data.draw(st.sampled_from((0.1, 0.5, 5.0, 33.0))))
        world.check_bounds()
    world.check_quiet()


def test_the_seeds_do_what_they_are_meant_to(world: World) -> None:
    for seed, device in world.seeds():
        message = read(seed)
        world.server.receive(seed, device.flow)
        world.server.settle()
        if isinstance(message, Request) and message.method in ("REGISTER", "OPTIONS"):
            assert [each.start_line for each in device.received()][-1] == "SIP/2.0 200 OK"
    assert SERVER not in (world.alice.flow.host, world.bob.flow.host)
    world.server.transports.sent.clear()
    world.check_quiet()
