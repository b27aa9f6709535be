"""A server with several interfaces, in network namespaces of the test's own: what it says of itself on each, and
addresses that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.nat import Namespace, Network
from support.phone import Phone
from support.server import ServerProcess

INSIDE, OUTSIDE = "10.77.0.1", "192.0.2.1"
"""The server's addresses on its two interfaces; whoever is there has the next."""


class Site(ExitStack):
    """A host with two interfaces, and another host behind each."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.box = network.wan
        self.inside = self._neighbour("inside", INSIDE, "10.77.0.2")
        self.outside = self._neighbour("outside", OUTSIDE, "192.0.2.2")

    def _neighbour(self, name: str, here: str, there: str) -> Namespace:
        other = Namespace(name)
        self.callback(other.remove)
        self.box.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", other.name)
        for namespace, device, address in ((self.box, name, here), (other, "eth0", there)):
            namespace.ip("address", "add", f"{address}/24", "dev", device)
            namespace.ip("link", "set", device, "up")
        return other

    def server(self, folder: Path, host: str) -> ServerProcess:
        """A server that listens at this address."""
        with self.box.entered():
            return self.enter_context(ServerProcess(folder, ["alice", "bob"], host=host))

    def phone(self, server: ServerProcess, user: str, transport: str = "UDP") -> Phone:
        """Alice is inside, everybody else outside."""
        where, local, host = self.outside, "192.0.2.2", OUTSIDE
        if user == "alice":
            where, local, host = self.inside, "10.77.0.2", INSIDE
        with where.entered():
            return self.enter_context(Phone(server.port, user, transport, host, local=local))


@pytest.fixture
def site() -> Iterator[Site]:
    with Network() as network, Site(network) as made:
        yield made


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_each_side_is_told_the_address_that_it_reaches(site: Site, tmp_path: Path, transport: str) -> None:
    server = site.server(tmp_path, "0.0.0.0")
    alice, bob = site.phone(server, "alice", transport), site.phone(server, "bob", transport)
    bob.register()
    alice.exchange("INVITE", bob.address, f"Contact: <{alice.contact}>")
    invite = bob.expect("INVITE")
    assert invite.top_via.host == OUTSIDE
    assert [each.uri.host for each in invite.addresses("record-route")] == [OUTSIDE, INSIDE]
    bob.respond(invite, 200)
    alice.expect(100)
    answer = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answer, cseq=alice.cseq))
    assert bob.expect("ACK").top_via.host == OUTSIDE
    alice.send(alice.in_dialog("BYE", answer))
    bob.respond(bob.expect("BYE"), 200)
    alice.expect(200)
    (row,) = server.ended_calls()
    assert (row["outcome"], row["end_cause"]) == ("answered", "bye")


def test_an_address_that_goes_away_is_noticed_and_serves_again_when_it_is_back(site: Site, tmp_path: Path) -> None:
    server = site.server(tmp_path, OUTSIDE)
    bob = site.phone(server, "bob")
    bob.register()
    site.box.ip("address", "delete", f"{OUTSIDE}/24", "dev", "outside")
    server.wait("listener.address_gone", address=OUTSIDE)
    site.box.ip("address", "add", f"{OUTSIDE}/24", "dev", "outside")
    server.wait("listener.address_back", address=OUTSIDE)
    bob.register(call_id="again")
    with_tcp = site.phone(server, "bob", "TCP")
    with_tcp.register()
    server.wait_for_rows("SELECT kind FROM errors", lambda rows: [row["kind"] for row in rows] == ["address_gone"])
