"""Calls whose media a relay passes on (rtpengine), and calls that do without."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sipserver.sip.message import Response
from support import baresip
from support.baresip import Baresip
from support.nat import SERVER, Namespace, Network
from support.phone import Phone
from support.ports import free_port
from support.relay import Rtpengine
from support.server import ServerProcess

SDP = "Content-Type: application/sdp"

StartServer = Callable[..., ServerProcess]


def settings(*relays: str, policy: str = "nat", more: str = "") -> str:
    """A configuration with these relays."""
    return f"[media]\nrelay = {list(relays)}\npolicy = '{policy}'\n{more}\n"


def description(host: str, port: int = 40_000, direction: str = "sendrecv") -> bytes:
    """An audio stream at this address."""
    return (
        f"v=0\r\no=- 7 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na={direction}\r\n"
    ).encode()


def place(body: bytes) -> tuple[str, int]:
    """Address and port of the first stream."""
    text = body.decode()
    address, port = re.search(r"\nc=IN IP4 (\S+)", text), re.search(r"\nm=audio (\d+)", text)
    assert address is not None
    assert port is not None
    return address[1], int(port[1])


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Rtpengine]:
    with Rtpengine(tmp_path / "relay") as started:
        yield started


@pytest.fixture
def phones(tmp_path: Path) -> Iterator[Callable[[str], tuple[ServerProcess, Phone, Phone]]]:
    """Starts a server with this configuration, and alice's and bob's devices, registered."""
    with ExitStack() as stack:

        def start(config: str) -> tuple[ServerProcess, Phone, Phone]:
            server = stack.enter_context(ServerProcess(tmp_path / "s", ["alice", "bob"], config=config))
            alice = stack.enter_context(Phone(server.port, "alice", "TCP"))
            bob = stack.enter_context(Phone(server.port, "bob", "TCP"))
            bob.register()
            return server, alice, bob

        yield start


def call(alice: Phone, bob: Phone, offer: bytes, answer: bytes) -> tuple[Any, Response]:
    """Alice calls bob: the INVITE as it reached him, and the answer as it reached her."""
    alice.exchange("INVITE", bob.address, f"Contact: <{alice.contact}>", SDP, body=offer)
    invite = bob.expect("INVITE")
    bob.respond(invite, 200, SDP, body=answer)
    alice.expect(100)
    answered: Response = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answered, cseq=alice.cseq))
    bob.expect("ACK")
    return invite, answered


def datagrams_received(host: Namespace) -> int:
    """UDP datagrams that sockets of this host received."""
    with host.entered():
        names, values = [
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Udp:")
        ]
    return int(values[names.index("InDatagrams")])


def hang_up(alice: Phone, bob: Phone, answered: Response) -> None:
    """Alice ends the call."""
    alice.send(alice.in_dialog("BYE", answered))
    bob.respond(bob.expect("BYE"), 200)
    alice.expect(200)


@pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not())
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_endpoints_behind_nats_without_ice_hear_each_other(tmp_path: Path, transport: str) -> None:
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        homes = {user: network.host(user) for user in ("alice", "bob")}
        with network.wan.entered():
            relay = stack.enter_context(Rtpengine(tmp_path / "relay", SERVER))
            made = ServerProcess(tmp_path / "s", homes, config=settings(relay.address), host=SERVER)
            server = stack.enter_context(made)
        endpoints = {}
        for user, home in homes.items():
            with home.entered():
                endpoint = Baresip(
                    tmp_path, user, server.port, transport=transport, video=False, host=home.address,
                    server=SERVER,
                )  # fmt: skip
                endpoints[user] = stack.enter_context(endpoint)
        alice, bob = endpoints["alice"], endpoints["bob"]
        alice.dial(bob.address)
        alice.wait("CALL_ESTABLISHED")
        bob.wait("CALL_ESTABLISHED")
        deadline = time.monotonic() + 10
        with network.wan.entered():
            (session,) = relay.calls()
            while relay.packets(session) < 60:
                assert time.monotonic() < deadline, f"{relay.log()}\n{alice.log()}"
                time.sleep(0.1)
        # Beside media there are at most a few messages.
        assert all(datagrams_received(home) >= 25 for home in homes.values())
        alice.hang_up()
        (row,) = server.ended_calls()
        assert (row["outcome"], row["end_cause"], row["ended_by"]) == ("answered", "bye", "caller")
        # What each side sent, counted at the relay.
        rows = server.wait_for_rows(
            "SELECT * FROM v_quality WHERE source = 'relay' AND direction = 'remote' ORDER BY side",
            lambda found: len(found) == 2,
        )
        assert [each["side"] for each in rows] == ["callee", "caller"]
        assert [each["reporter"] for each in rows] == [server.party("bob"), server.party("alice")]
        assert all(each["packets_received"] >= 20 and each["codec"] == "PCMU" for each in rows)
        assert all(each["call"] == row["id"] and each["stream"] == 0 for each in rows)
        assert all(each["mos_lq"] is None and each["loss_percent"] is None for each in rows)
        with network.wan.entered():
            assert relay.calls() == []


def test_calls_that_need_no_relay_pass_untouched_and_others_are_relayed(
    relay: Rtpengine, phones: Callable[[str], tuple[ServerProcess, Phone, Phone]]
) -> None:
    # The first relay is not there.
    server, alice, bob = phones(settings(f"127.0.0.1:{free_port()}", relay.address))
    offer, answer = description("127.0.0.1"), description("127.0.0.1", 40_002)
    invite, answered = call(alice, bob, offer, answer)
    assert (invite.body, answered.body) == (offer, answer)
    assert relay.calls() == []
    hang_up(alice, bob, answered)

    hidden = description("10.1.2.3")
    invite, answered = call(alice, bob, hidden, answer)
    assert place(invite.body)[0] == place(answered.body)[0] == "127.0.0.1"
    assert len({place(invite.body)[1], place(answered.body)[1], 40_000, 40_002}) == 4
    assert len(relay.calls()) == 1
    # A re-INVITE of the other side stays with the relay.
    bob.send(
        bob.write(
            "INVITE", alice.contact, *[f"Route: {each}" for each in invite.values("record-route")], SDP,
            from_=f"{invite.header('to')};tag=callee", to=invite.header("from") or "", call_id=invite.call_id,
            body=description("127.0.0.1", 40_002, "sendonly"),
        )
    )  # fmt: skip
    again = alice.expect("INVITE")
    assert place(again.body) == place(answered.body)
    assert b"a=sendonly" in again.body
    alice.respond(again, 200, SDP, body=hidden)
    bob.expect(100)
    assert place(bob.expect(200).body) == place(invite.body)
    hang_up(alice, bob, answered)
    server.ended_calls(2)
    server.wait("media.relayed")
    assert relay.calls() == []
    # The media of the record are those that the endpoints named.
    assert server.rows("SELECT kind FROM errors") == [{"kind": "media_relay"}]


def test_relay_that_dies_ends_no_call_and_stops_none_that_does_not_need_it(
    relay: Rtpengine, phones: Callable[[str], tuple[ServerProcess, Phone, Phone]]
) -> None:
    server, alice, bob = phones(settings(relay.address))
    hidden, answer = description("10.1.2.3"), description("127.0.0.1", 40_002)
    invite, answered = call(alice, bob, hidden, answer)
    assert invite.body != hidden
    relay.kill()
    hang_up(alice, bob, answered)
    server.wait("media.relay_down")
    # With it gone, the call goes on without.
    invite, answered = call(alice, bob, hidden, answer)
    assert (invite.body, answered.body) == (hidden, answer)
    hang_up(alice, bob, answered)
    # Back again, it is used again.
    relay.start()
    server.wait("media.relay_up")
    invite, answered = call(alice, bob, hidden, answer)
    assert invite.body != hidden
    hang_up(alice, bob, answered)
    assert [row["outcome"] for row in server.ended_calls(3)] == ["answered"] * 3
    errors = server.wait_for_rows("SELECT * FROM errors ORDER BY at", lambda rows: len(rows) == 2)
    assert [each["kind"] for each in errors] == ["media_relay", "media_relay"]
    assert [each["call"] is not None for each in errors] == [False, True]


def test_call_that_needs_a_relay_can_be_refused_when_there_is_none(
    phones: Callable[[str], tuple[ServerProcess, Phone, Phone]],
) -> None:
    server, alice, bob = phones(settings(f"127.0.0.1:{free_port()}", more="failing = 'refuse'"))
    alice.exchange("INVITE", bob.address, f"Contact: <{alice.contact}>", SDP, body=description("10.1.2.3"))
    alice.expect(100)
    refused = alice.expect(503)
    assert refused.reason == "Media Relay Unavailable"
    (row,) = server.ended_calls()
    assert (row["outcome"], row["sip_status"]) == ("failed", 503)
