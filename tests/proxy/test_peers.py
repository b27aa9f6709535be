"""Named peers, static routes and permissions (proxy/peers.py, proxy/static_routes.py)."""

from __future__ import annotations

from ipaddress import ip_network

from sipserver.proxy.peers import MAX_HOSTS, Peer, PeerTable
from sipserver.proxy.static_routes import NOWHERE, Destinations, Permissions, StaticRoute, StaticRoutes
from sipserver.sip.uri import Uri
from support.proxy import flow

HOP = Uri.parse("sip:192.0.2.99")


def peer(name: str, *networks: str, **more: object) -> Peer:
    """A peer at these networks."""
    made = Peer(name, tuple(ip_network(each) for each in networks))
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_the_smallest_network_that_fits_counts() -> None:
    table = PeerTable([peer("wide", "198.51.100.0/24"), peer("narrow", "198.51.100.7/32")])
    hosts = ("198.51.100.7", "198.51.100.8", "198.51.101.1", "2001:db8::1", "::ffff:198.51.100.7", "peer.example")
    found = [table.at(host) for host in hosts]
    assert [each and each.name for each in found] == ["narrow", "wide", None, None, "narrow", None]


def test_a_peer_is_known_by_its_certificate_and_where_both_are_named_by_both() -> None:
    name = frozenset(("sip.example.org",))
    anywhere, there = (
        peer("anywhere", certificates=frozenset(("a.test",))),
        peer("there", "198.51.100.0/24", certificates=name),
    )
    table = PeerTable([anywhere, there, peer("plain", "198.51.100.0/25")])

    def at(host: str, *names: str) -> str | None:
        found = flow(host, transport="TLS")
        found.peer_names = names
        known = table.of(found)
        return known.name if known is not None else None

    assert at("203.0.113.1", "x.test", "a.test") == "anywhere"
    assert at("198.51.100.7", "sip.example.org") == "there"
    assert at("203.0.113.1", "sip.example.org") is None
    assert at("198.51.100.200") is None
    assert at("198.51.100.7", "other.test") == "plain"


def test_what_is_remembered_of_hosts_is_bounded() -> None:
    table = PeerTable([peer("wide", "10.0.0.0/8")])
    for number in range(MAX_HOSTS + 10):
        table.at(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(table._by_host) <= MAX_HOSTS


def test_a_peer_calls_whom_it_may() -> None:
    one = peer("one", callable=frozenset(("alice@example.test", "example.org")))
    assert one.may_call("alice@example.test")
    assert one.may_call("bob@example.org")
    assert not one.may_call("bob@example.test")
    assert peer("all").may_call("bob@example.test")


def test_a_peer_has_no_more_calls_than_it_may() -> None:
    one, going_on = peer("one", max_calls=2), {"a", "b"}
    for key in "ab":
        assert one.has_room(100.0, going_on.__contains__)
        one.began(key)
    assert not one.has_room(100.0, going_on.__contains__)
    going_on.remove("a")
    assert not one.has_room(100.5, going_on.__contains__), "looked at once a second"
    assert one.has_room(101.1, going_on.__contains__)
    assert one.calls == {"b"}


def test_without_a_bound_no_calls_are_remembered() -> None:
    one = peer("one")
    one.began("a")
    assert not one.calls
    assert one.has_room(0.0, lambda _: True)


def test_calls_of_a_peer_go_on_over_a_reload() -> None:
    before, after = peer("one", max_calls=2), peer("one", max_calls=1)
    before.began("a")
    table = PeerTable([after])
    table.go_on_from(PeerTable([before]))
    assert not after.has_room(0.0, lambda _: True)


def route(**more: object) -> StaticRoute:
    """A route to somewhere."""
    return StaticRoute(HOP, **more)  # type: ignore[arg-type]


def test_the_longest_entry_that_fits_a_domain_counts() -> None:
    routes = StaticRoutes([route(domain="*"), route(domain="*.example.org"), route(domain="sip.example.org")])
    found = {each: [one.domain for one in routes.for_domain(each)] for each in (
        "sip.example.org", "a.b.example.org", "example.org", "example.net"
    )}  # fmt: skip
    assert found == {
        "sip.example.org": ["sip.example.org"], "a.b.example.org": ["*.example.org"], "example.org": ["*"],
        "example.net": ["*"],
    }  # fmt: skip


def test_routes_are_in_the_order_of_their_priority() -> None:
    routes = StaticRoutes(
        [route(prefix="+43", priority=2), route(prefix="+43", priority=1), route(prefix="+", priority=0)]
    )
    assert [each.priority for each in routes.for_number("+431")] == [1, 2]
    assert [each.priority for each in routes.for_number("+49")] == [0]
    assert list(routes.for_number("49")) == []
    assert not StaticRoutes().for_domain("example.org")


def test_destinations() -> None:
    some = Destinations(("example.org", "*.example.net", "+43"))
    assert some.has_domain("example.org")
    assert some.has_domain("a.example.net")
    assert not some.has_domain("example.net")
    assert not some.has_domain("a.example.org")
    assert some.has_number("+431")
    assert not some.has_number("+49")
    assert not NOWHERE.has_number("+43")
    assert Destinations(anywhere=True).has_domain("example.com")


def test_permissions_of_a_subscriber_stand_in_the_place_of_what_all_may() -> None:
    permissions = Permissions(
        Destinations(("example.org",)),
        {"alice@example.test": Destinations(anywhere=True), "lobby@example.test": NOWHERE, "example.net": NOWHERE},
    )
    assert permissions.of("alice@example.test").anywhere
    assert permissions.of("bob@example.test").has_domain("example.org")
    assert not permissions.of("lobby@example.test").has_domain("example.org")
    assert not permissions.of("bob@example.net").has_domain("example.org")
    assert not permissions.of(None).has_domain("example.org")
