"""Calls to and from other domains, which are found by their DNS records; one of their servers is dead."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import kamailio
from support.endpoint import Endpoint
from support.names import NameServer, sip_zone
from support.ports import free_port
from support.server import ServerProcess, sipserver
from support.transport import need_ipv6

NEAR, FAR = "example.test", "far.test"

POLICY = """
[proxy]
inbound = "peers"
peers = ["127.0.0.1"]
outbound = true
failover_after = 1.5
[calls]
network = "exact"
"""


@contextmanager
def silence() -> Iterator[int]:
    """The port of somebody who is there and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        yield mute.getsockname()[1]


def branches(server: ServerProcess, call: str) -> list[dict[str, Any]]:
    return server.rows("SELECT * FROM call_branches WHERE call = ? ORDER BY branch", call)


async def test_two_domains_call_each_other_although_a_server_of_each_is_dead(tmp_path: Path) -> None:
    with NameServer() as names, silence() as mute:
        near = ServerProcess(tmp_path / "near", ["alice"], config=POLICY + names.config)
        far = ServerProcess(tmp_path / "far", ["bob"], config=POLICY + names.config, domain=FAR)
        with near, far:
            names.zone |= sip_zone(FAR, ("dead.far.test", mute), ("sip.far.test", far.port))
            # This side prefers TCP, and its first server refuses connections.
            names.zone |= sip_zone(NEAR, ("dead.test", free_port()), ("sip.test", near.port), transport="tcp")
            async with Endpoint(near.port) as alice, Endpoint(far.port, domain=FAR, transport="TCP") as bob:
                await alice.register("alice")
                await bob.register("bob")
                for number in (1, 2):
                    final, dialog = await alice.invite("alice", "bob@far.test")
                    assert final.status == 200
                    assert (await alice.bye(dialog)).status == 200
                    assert len(near.ended_calls(number)) == number
                final, dialog = await bob.invite("bob", "alice@example.test")
                assert final.status == 200
                assert (await bob.bye(dialog)).status == 200
            first, second, third = near.ended_calls(3)
            there = far.ended_calls(3)
        assert near.wait("target.dead", target=f"UDP 127.0.0.1:{mute}")
    check_first_call(near, first)
    # The server that did not answer was tried last, so it was not asked again.
    assert (second["outcome"], second["devices"], second["caller_transport"]) == ("answered", 1, "UDP")
    assert third["caller"] is None
    assert third["callee"] == near.party("alice")
    assert (third["outcome"], third["caller_transport"], third["callee_transport"]) == ("answered", "TCP", "UDP")
    check_far_side(far, there)
    for server in (near, far):
        sipserver("check", "--data-dir", server.data_dir, "--no-ports")
    assert names.asked.count((FAR, "NAPTR", "udp")) == 1


def check_first_call(near: ServerProcess, call: dict[str, Any]) -> None:
    """The silent server is on record, and then the one that answered."""
    assert (call["caller"], call["outcome"], call["ended_by"]) == (near.party("alice"), "answered", "caller")
    assert (call["devices"], call["caller_transport"], call["callee_transport"]) == (2, "UDP", "UDP")
    assert call["setup_ms"] >= 1500
    silent, answered = branches(near, call["id"])
    assert (silent["outcome"], silent["transport"], silent["answered_at"]) == ("unreachable", "UDP", None)
    assert (answered["outcome"], answered["network"]) == ("answered", "127.0.0.1")
    (error,) = near.rows("SELECT * FROM errors WHERE kind = 'timeout'")
    assert (error["call"], error["method"], error["answered_by"]) == (call["id"], "INVITE", "network")


def check_far_side(far: ServerProcess, calls: list[dict[str, Any]]) -> None:
    """The same three calls as the other domain saw them."""
    assert [each["outcome"] for each in calls] == ["answered"] * 3
    assert [each["callee"] == far.party("bob") for each in calls] == [True, True, False]
    assert calls[2]["caller"] == far.party("bob")
    # A connection that is refused is on record like silence is.
    refused, answered = branches(far, calls[2]["id"])
    assert (refused["outcome"], refused["transport"]) == ("unreachable", "TCP")
    assert (answered["outcome"], answered["transport"]) == ("answered", "TCP")
    assert far.rows("SELECT kind, call FROM errors") == [{"kind": "unreachable", "call": calls[2]["id"]}]


@pytest.mark.skipif(not kamailio.is_there(), reason=kamailio.NOT_THERE)
async def test_kamailio_serves_a_domain_that_we_call_and_are_called_from(tmp_path: Path) -> None:
    with NameServer() as names, silence() as mute:
        config = POLICY + names.config
        with ServerProcess(tmp_path / "server", ["alice"], config=config) as server:
            back = f"sip:127.0.0.1:{server.port};transport=tcp"
            async with Endpoint(0, domain=FAR) as bob, Endpoint(server.port, transport="TCP") as alice:
                with kamailio.Kamailio(tmp_path / "kamailio", FAR, bob.port, back) as far:
                    bob.server = ("127.0.0.1", far.port)
                    names.zone |= sip_zone(FAR, ("dead.far.test", mute), ("sip.far.test", far.port))
                    await alice.register("alice")
                    final, dialog = await alice.invite("alice", "bob@far.test")
                    assert final.status == 200, far.log
                    assert (await alice.bye(dialog)).status == 200
                    server.ended_calls(1)
                    final, dialog = await bob.invite("bob", "alice@example.test")
                    assert final.status == 200, far.log
                    assert (await bob.bye(dialog)).status == 200
                    out, back_in = server.ended_calls(2)
    assert (out["outcome"], out["ended_by"], out["devices"]) == ("answered", "caller", 2)
    assert [each["outcome"] for each in branches(server, out["id"])] == ["unreachable", "answered"]
    assert (out["caller"], out["caller_transport"], out["callee_transport"]) == (server.party("alice"), "TCP", "UDP")
    assert (back_in["caller"], back_in["callee"]) == (None, server.party("alice"))
    assert (back_in["outcome"], back_in["caller_transport"], back_in["callee_transport"]) == ("answered", "TCP", "TCP")
    assert back_in["caller_agent"] == "test endpoint"


async def test_endpoints_of_both_ip_versions_reach_each_other(tmp_path: Path) -> None:
    need_ipv6()
    server = ServerProcess(tmp_path / "server", ["alice", "bob"], config="[calls]\nnetwork = 'exact'\n", also="[::1]")
    with server:
        async with Endpoint(server.port) as four, Endpoint(server.port, host="::1") as six:
            await four.register("alice")
            await six.register("bob")
            for caller, callee, users in ((four, six, ("alice", "bob")), (six, four, ("bob", "alice"))):
                # 1300 bytes and more leave UDP where the other side takes a stream; neither does.
                final, dialog = await caller.invite(*users, b"x" * 1500)
                assert final.status == 200
                assert (await caller.bye(dialog)).status == 200
                invite = next(each for each in callee.received if each.method == "INVITE")
                # Each side is told of this server by an address that it can reach (RFC 5658 §3).
                hosts = [each.uri.host for each in invite.addresses("record-route")]
                assert hosts == [callee.host, caller.host]
                assert invite.top_via.host == callee.host
        first, second = server.ended_calls(2)
        for call, networks in ((first, ("127.0.0.1", "::1")), (second, ("::1", "127.0.0.1"))):
            assert call["outcome"] == "answered"
            assert (call["caller_network"], call["callee_network"]) == networks
