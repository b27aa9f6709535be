"""From a URI to the places where it is served, record by record (RFC 3263 §4, RFC 2782)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from sipserver.sip.locate import (
    MAX_PLACES,
    MAX_SERVERS,
    Naptr,
    Place,
    Question,
    Records,
    Srv,
    Usable,
    choose_services,
    locate,
    order_servers,
)
from sipserver.sip.uri import Uri

PLAIN: Usable = frozenset((("UDP", 4), ("TCP", 4)))
BOTH: Usable = PLAIN | {("UDP", 6), ("TCP", 6)}
SECURE: Usable = PLAIN | {("TLS", 4)}


def lowest() -> float:
    """Draws what leads to the first of a row."""
    return 0.0


class Dns:
    """Answers from what a test put in; ``asked`` keeps each round of questions."""

    def __init__(self, **records: object) -> None:
        self.known: dict[Question, Records] = {}
        self.asked: list[list[Question]] = []

    def naptr(self, name: str, *records: tuple[int, int, str, str]) -> Dns:
        """Order, preference, service, replacement."""
        found = [Naptr(order, preference, "s", service, "", to) for order, preference, service, to in records]
        self.known[name, "NAPTR"] = Records(naptr=found)
        return self

    def srv(self, name: str, *records: tuple[int, int, int, str]) -> Dns:
        """Priority, weight, port, target."""
        self.known[name, "SRV"] = Records(srv=[Srv(*each) for each in records])
        return self

    def host(self, name: str, *addresses: str) -> Dns:
        """A and AAAA records."""
        for kind, colon in (("A", False), ("AAAA", True)):
            self.known[name, kind] = Records(addresses=[each for each in addresses if (":" in each) == colon])
        return self

    def locate(self, uri: str, usable: Usable = PLAIN, fraction: Callable[[], float] = lowest) -> list[Place]:
        """Run it to the end."""
        steps = locate(Uri.parse(uri), usable, fraction)
        try:
            questions = next(steps)
            while True:
                self.asked.append(questions)
                questions = steps.send([self.known.get(each, Records()) for each in questions])
        except StopIteration as stop:
            found: list[Place] = stop.value
            return found


def example() -> Dns:
    """The example of RFC 3263 §4.1."""
    dns = Dns().naptr(
        "example.com", (50, 50, "SIPS+D2T", "_sips._tcp.example.com"), (90, 50, "SIP+D2T", "_sip._tcp.example.com"),
        (100, 50, "SIP+D2U", "_sip._udp.example.com"),
    )  # fmt: skip
    dns.srv("_sip._tcp.example.com", (0, 1, 5060, "server1.example.com"), (0, 2, 5060, "server2.example.com"))
    dns.srv("_sips._tcp.example.com", (0, 1, 5061, "server1.example.com"))
    return dns.host("server1.example.com", "192.0.2.1").host("server2.example.com", "192.0.2.2")


def test_the_domain_says_by_naptr_which_transport_it_prefers() -> None:
    dns = example()
    assert dns.locate("sip:user@example.com") == [("TCP", "192.0.2.1", 5060), ("TCP", "192.0.2.2", 5060)]
    assert dns.asked == [
        [("example.com", "NAPTR")],
        [("_sip._tcp.example.com", "SRV"), ("_sip._udp.example.com", "SRV")],
        [("server1.example.com", "A"), ("server2.example.com", "A")],
    ]


def test_a_domain_that_prefers_tls_gets_it_or_nothing() -> None:
    assert example().locate("sip:user@example.com", SECURE) == [("TLS", "192.0.2.1", 5061)]
    dns = example().srv("_sips._tcp.example.com").host("example.com", "192.0.2.3")
    assert dns.locate("sip:user@example.com", SECURE) == [("TLS", "192.0.2.3", 5061)]
    assert dns.asked[1] == [("_sips._tcp.example.com", "SRV")]


def test_sips_is_served_by_tls_alone() -> None:
    assert example().locate("sips:user@example.com", SECURE) == [("TLS", "192.0.2.1", 5061)]
    assert example().locate("sips:user@example.com", PLAIN) == []
    dns = Dns().host("example.com", "192.0.2.9")
    assert dns.locate("sips:user@example.com", SECURE) == [("TLS", "192.0.2.9", 5061)]
    assert dns.asked[1] == [("_sips._tcp.example.com", "SRV")]
    assert Dns().locate("sips:user@example.com;transport=udp", SECURE) == []


def test_a_port_means_this_very_host() -> None:
    dns = Dns().host("example.com", "192.0.2.1", "2001:db8::1")
    assert dns.locate("sip:user@example.com:5080", BOTH) == [("UDP", "2001:db8::1", 5080), ("UDP", "192.0.2.1", 5080)]
    assert dns.locate("sip:user@example.com:5080;transport=tcp") == [("TCP", "192.0.2.1", 5080)]
    assert dns.asked == [[("example.com", "AAAA"), ("example.com", "A")], [("example.com", "A")]]


def test_a_transport_without_a_port_means_its_srv_records() -> None:
    dns = Dns().srv("_sip._tcp.example.com", (1, 0, 5090, "a.example.com")).host("a.example.com", "192.0.2.1")
    assert dns.locate("sip:example.com;transport=TCP") == [("TCP", "192.0.2.1", 5090)]
    assert dns.asked[0] == [("_sip._tcp.example.com", "SRV")]


def test_without_naptr_every_transport_that_can_be_used_is_looked_for() -> None:
    dns = Dns().srv("_sip._tcp.example.com", (1, 0, 5090, "a.example.com")).host("a.example.com", "192.0.2.1")
    assert dns.locate("sip:example.com", SECURE) == [("TCP", "192.0.2.1", 5090)]
    assert dns.asked[:2] == [
        [("example.com", "NAPTR")], [("_sip._udp.example.com", "SRV"), ("_sip._tcp.example.com", "SRV")],
    ]  # fmt: skip
    only_udp: Usable = frozenset((("UDP", 4),))
    assert dns.locate("sip:example.com", only_udp) == []


def test_without_any_srv_the_host_itself_is_asked_for_at_the_default_port() -> None:
    dns = Dns().host("example.com", "192.0.2.1")
    assert dns.locate("sip:example.com.") == [("UDP", "192.0.2.1", 5060)]
    assert dns.locate("sip:example.com;transport=tls", SECURE) == [("TLS", "192.0.2.1", 5061)]


def test_a_target_of_a_single_dot_says_that_there_is_no_such_service() -> None:
    dns = Dns().srv("_sip._udp.example.com", (0, 0, 0, "")).srv("_sip._tcp.example.com", (0, 0, 0, ""))
    assert dns.host("example.com", "192.0.2.1").locate("sip:example.com") == []
    assert dns.locate("sip:example.com;transport=udp") == []


@pytest.mark.parametrize(
    "record",
    [
        Naptr(1, 1, "u", "SIP+D2U", "", "_sip._udp.example.com"),
        Naptr(1, 1, "s", "SIP+D2S", "", "_sip._sctp.example.com"),
        Naptr(1, 1, "s", "SIP+D2T", "!^.*$!sip:x@y!", "_sip._tcp.example.com"),
        Naptr(1, 1, "s", "SIPS+D2U", "", "_sips._udp.example.com"),
        Naptr(1, 1, "s", "SIP+D2T", "", ""),
        Naptr(1, 1, "s", "E2U+sip", "", "_sip._tcp.example.com"),
    ],
)
def test_records_of_other_services_are_passed_over(record: Naptr) -> None:
    assert choose_services([record], SECURE, sips=False) == []
    good = Naptr(2, 1, "S", "sip+d2u", "", "elsewhere.example.net")
    assert choose_services([record, good], SECURE, sips=False) == [("UDP", "elsewhere.example.net")]


def test_naptr_records_are_taken_by_order_and_then_by_preference() -> None:
    records = [
        Naptr(20, 1, "s", "SIP+D2U", "", "third"), Naptr(10, 7, "s", "SIP+D2U", "", "second"),
        Naptr(10, 5, "s", "SIP+D2T", "", "first"), Naptr(10, 5, "s", "SIP+D2T", "", "first"),
    ]  # fmt: skip
    assert choose_services(records, PLAIN, sips=False) == [("TCP", "first"), ("UDP", "second"), ("UDP", "third")]


def test_servers_of_a_lower_priority_come_first_whatever_they_weigh() -> None:
    records = [Srv(20, 65_535, 1, "c"), Srv(10, 0, 1, "a"), Srv(10, 1, 1, "b")]
    assert [each.target for each in order_servers(records, lambda: 0.999)] == ["b", "a", "c"]
    assert [each.target for each in order_servers(records, lowest)] == ["a", "b", "c"]


def test_servers_are_drawn_by_weight() -> None:
    records = [Srv(1, 60, 1, "big"), Srv(1, 30, 1, "middle"), Srv(1, 10, 1, "small"), Srv(1, 0, 1, "none")]
    first: Counter[str] = Counter()
    for number in range(1000):
        drawn = [0.5, 0.5, 0.5, number / 1000]
        first[order_servers(records, drawn.pop)[0].target] += 1
    assert first["none"] <= 10
    assert abs(first["big"] - 594) < 10
    assert abs(first["middle"] - 297) < 10
    assert abs(first["small"] - 99) < 10


def test_what_the_dns_says_is_bounded() -> None:
    dns = Dns()
    dns.naptr("example.com", *((n, 1, "SIP+D2U", f"_sip._udp.{n}.example.com") for n in range(50)))
    for n in range(50):
        dns.srv(f"_sip._udp.{n}.example.com", *((1, 1, 5060, f"h{n}-{m}.example.com") for m in range(50)))
        for m in range(50):
            dns.host(f"h{n}-{m}.example.com", *(f"192.0.{n}.{each}" for each in range(1, 50)))
    assert len(dns.locate("sip:example.com")) == MAX_PLACES
    assert len(dns.asked) == 3
    assert max(len(each) for each in dns.asked) <= MAX_SERVERS


def test_a_server_that_is_named_twice_is_one_place() -> None:
    dns = Dns().srv("_sip._udp.example.com", (1, 1, 5060, "a.example.com"), (2, 1, 5060, "b.example.com"))
    dns.host("a.example.com", "192.0.2.1").host("b.example.com", "192.0.2.1")
    assert dns.locate("sip:example.com;transport=udp") == [("UDP", "192.0.2.1", 5060)]


def test_an_ip_version_that_cannot_be_used_is_not_asked_for() -> None:
    dns = Dns().host("example.com", "192.0.2.1", "2001:db8::1")
    only_six: Usable = frozenset((("UDP", 6),))
    assert dns.locate("sip:example.com:5060", only_six) == [("UDP", "2001:db8::1", 5060)]
    assert dns.asked == [[("example.com", "AAAA")]]


def test_where_nothing_can_be_sent_to_nothing_is_asked() -> None:
    for uri in ("tel:+15551234567", "sip:example.com;transport=ws", "sip:example.com:5060;transport=tls"):
        dns = Dns()
        assert dns.locate(uri) == []
        assert dns.asked == []
