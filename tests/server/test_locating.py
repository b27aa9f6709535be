"""Which source is believed about whom, what is remembered, and what the kernel tells late."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from sipserver.calls.places import NOWHERE, Place, Site, SiteTable
from sipserver.registrar.binding import Binding
from sipserver.server import locating
from sipserver.server.locating import Locator, Settings
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request
from support.places import located, pidf
from support.sip import request, written

ALICE = "alice@example.test"
CONTACT = "sip:alice@192.0.2.7:5060"
NOW = 1_795_467_737.0

SITE = Place("AT", "Wien", "Wien Mitte", "HQ", "site")
LINK = Place("IT", None, None, "Branch", "link")
GUESS = Place("DE", "Bayern", "München", None, "database")
CELL = "P-Access-Network-Info: 3GPP-GERAN;cgi-3gpp=23101f00"
ACCESS = Place("SK", source="access_network")
SAID = Place("AT", "Wien", "Wien Mitte", None, "geolocation", int((NOW + 86_400) * 1000))
SITES = SiteTable(
    [
        Site(ip_network("10.0.0.0/8"), "", "", Place("AT", "Wien", "Wien Mitte", "HQ")),
        Site(None, "wg0", "", Place("IT", site="Branch")),
    ]
)


class Database:
    """Knows one place."""

    def __init__(self) -> None:
        self.place = GUESS
        self.asked = 0

    def look_up(self, address: object) -> Place:
        self.asked += 1
        return self.place


class Links:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[str | None], None]]] = []

    def find(self, host: str, found: Callable[[str | None], None]) -> None:
        self.asked.append((host, found))

    def answer(self, interface: str | None) -> None:
        _, found = self.asked.pop(0)
        found(interface)


class Bench:
    """A locator with a database and, where wanted, links."""

    def __init__(self, precision: str = "city", *, with_links: bool = False) -> None:
        self.now = NOW
        self.database, self.links = Database(), Links()
        self.with_links = with_links
        self.faults: list[tuple[str, str, str]] = []
        self.locator = Locator(Settings(), lambda: self.now, note=self._note)
        self.use(precision)

    def _note(self, message: Message, host: str, error: SipError) -> None:
        self.faults.append((message.cseq[1], host, error.reason))

    def use(self, precision: str) -> None:
        database: Any = self.database
        peers = (ip_network("192.0.2.128/25"),)
        self.locator.use(Settings(precision, SITES, peers), database, self.links if self.with_links else None)

    def of(self, host: str, message: Request | None = None, identity: str | None = ALICE) -> Place:
        return self.locator.of_request(message or invite(), Flow("UDP", host, 5060, "", False), identity)

    def of_device(self, host: str = "192.0.2.7", contact: str = CONTACT, *, relayed: bool = False) -> Place:
        return self.locator.of_device(ALICE, contact, host, is_relayed=relayed)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def invite(*lines: str, body: bytes = b"", contact: str = CONTACT) -> Request:
    return request(written("INVITE sip:bob@example.test SIP/2.0", f"Contact: <{contact}>", *lines), body)


def declaring(*lines: str, document: bytes | None = None) -> Request:
    more, body = located(document or pidf())
    return invite(*more, *lines, body=body)


def relayed(message_lines: tuple[str, ...] = ()) -> Request:
    return invite("Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKbehind", *message_lines)


def binding(host: str = "192.0.2.7", path: tuple[str, ...] = ()) -> Binding:
    return Binding(ALICE, CONTACT, 1000, NOW + 60, "c", 1, None, None, path, None, "", "UDP", host, 5060, 0, NOW)


# ---- which source is believed


def test_sites_come_before_what_an_endpoint_says_and_that_before_the_database(bench: Bench) -> None:
    assert bench.of("10.1.2.3", declaring()) == SITE
    assert bench.of("192.0.2.7", declaring()) == SAID
    assert bench.of("192.0.2.7") == GUESS


def test_strangers_word_counts_for_nothing(bench: Bench) -> None:
    assert bench.of("192.0.2.7", declaring(), None) == GUESS
    assert bench.of("192.0.2.7", declaring(CELL), None) == GUESS


def test_peers_word_about_access_networks_counts(bench: Bench) -> None:
    assert bench.of("192.0.2.130", invite(CELL), None) == ACCESS
    assert bench.of("192.0.2.130", declaring(CELL)) == ACCESS
    assert bench.of("192.0.2.7", invite(CELL)) == GUESS


def test_access_network_without_a_place_leaves_the_rest(bench: Bench) -> None:
    assert bench.of("192.0.2.130", invite("P-Access-Network-Info: GPON"), None) == GUESS
    assert bench.faults == []
    assert bench.of("192.0.2.130", invite('P-Access-Network-Info: X;a="'), None) == GUESS
    assert bench.faults == [("INVITE", "192.0.2.130", "Bad P-Access-Network-Info")]


def test_of_a_relayed_message_the_address_is_the_relays(bench: Bench) -> None:
    assert bench.of("192.0.2.7", relayed()) is NOWHERE
    assert bench.of("10.1.2.3", relayed()) == SITE
    assert bench.of("192.0.2.130", relayed((CELL,))) == ACCESS
    assert bench.locator.of_next_hop("192.0.2.7") is NOWHERE
    assert bench.locator.of_next_hop("10.1.2.3") == SITE


def test_documents_that_cannot_be_read_or_kept_say_nothing(bench: Bench) -> None:
    assert bench.of("192.0.2.7", declaring(document=b"<a>")) == GUESS
    assert bench.faults == [("INVITE", "192.0.2.7", "Bad PIDF-LO")]
    assert bench.of("192.0.2.7", declaring(document=pidf(rules=""))) == GUESS


def test_said_text_is_made_fit_for_the_record(bench: Bench) -> None:
    address = "<cl:country>Austria</cl:country><cl:A1> \u0141\u00f3d\u017a </cl:A1><cl:A3>a\u202eb</cl:A3>"
    found = bench.of("192.0.2.7", declaring(document=pidf(address)))
    assert found[:3] == (None, "\u0141\u00f3d\u017a", "a\ufffdb")


def test_nothing_is_finer_than_asked() -> None:
    bench = Bench("country")
    assert bench.of("10.1.2.3") == Place("AT", site="HQ", source="site")
    assert bench.of("192.0.2.7") == Place("DE", source="database")
    assert bench.of("192.0.2.7", declaring())[:5] == ("AT", None, None, None, "geolocation")
    bench.database.place = Place(city="München", source="database")
    bench.locator.forget()
    assert bench.of("192.0.2.7") is NOWHERE


def test_with_no_precision_nothing_is_looked_up() -> None:
    bench = Bench("none", with_links=True)
    assert bench.of("10.1.2.3", declaring()) is bench.of_device() is bench.locator.of_next_hop("10.1.2.3") is NOWHERE
    bench.locator.declare(binding(), declaring())
    assert (bench.database.asked, bench.links.asked, len(bench.locator._declared)) == (0, [], 0)


def test_fault_that_nobody_wants_to_know_of_is_no_fault() -> None:
    locator = Locator(Settings("city"), lambda: NOW)
    flow = Flow("UDP", "192.0.2.7", 5060, "", False)
    assert locator.of_request(declaring(document=b"<a>"), flow, ALICE) is NOWHERE


def test_without_sources_everything_is_unknown() -> None:
    locator = Locator(Settings("city"), lambda: NOW)
    assert locator.of_device(ALICE, CONTACT, "192.0.2.7", is_relayed=False) is NOWHERE
    assert locator.of_device(ALICE, CONTACT, "no address", is_relayed=False) is NOWHERE


# ---- what is remembered of hosts


def test_a_host_is_looked_up_once(bench: Bench) -> None:
    for _ in range(3):
        bench.of("192.0.2.7")
    assert bench.database.asked == 1
    bench.locator.forget()
    bench.of("192.0.2.7")
    assert bench.database.asked == 2


def test_hosts_that_are_remembered_are_bounded(bench: Bench) -> None:
    for number in range(locating.MAX_HOSTS + 5):
        bench.of_device(f"2001:db8::{number:x}")
    assert len(bench.locator._hosts) == 5


# ---- what devices declare


def test_what_a_device_declares_holds_while_it_is_registered(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    assert bench.of_device() == SAID
    assert bench.locator.of_binding(binding()) == SAID
    assert bench.of("192.0.2.7") == SAID
    assert bench.of_device(contact="sip:other") == GUESS
    assert bench.of("192.0.2.7", invite(contact="sip:other")) == GUESS
    assert bench.of("192.0.2.7", identity=None) == GUESS
    bench.locator.gone(binding())
    assert bench.of_device() == GUESS


def test_refresh_without_a_place_ends_it(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    bench.locator.declare(binding(), invite())
    assert bench.of_device() == GUESS
    bench.locator.declare(binding(), declaring())
    bench.locator.declare(binding(), declaring(document=b"<a>"))
    assert bench.of_device() == GUESS


def test_what_may_not_be_kept_any_longer_is_forgotten(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    bench.now += 86_399
    assert bench.of_device() == SAID
    bench.now += 1
    assert bench.of_device() == GUESS
    assert len(bench.locator._declared) == 0


def test_what_is_said_with_a_call_comes_before_what_was_declared(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    there = declaring(document=pidf("<cl:country>CH</cl:country>"))
    assert bench.of("192.0.2.7", there).country == "CH"


def test_device_behind_a_peer_is_where_the_peer_says(bench: Bench) -> None:
    behind = binding("192.0.2.130", ("<sip:edge.example;lr>",))
    assert bench.locator.of_binding(behind) is NOWHERE
    bench.locator.declare(behind, invite(CELL))
    assert bench.locator.of_binding(behind) == ACCESS


def test_contact_that_cannot_be_read_is_nobodys(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    assert bench.of("192.0.2.7", request(written("INVITE sip:b@x SIP/2.0", "Contact: <"))) == GUESS
    assert bench.of("192.0.2.7", request(written("INVITE sip:b@x SIP/2.0"))) == GUESS


def test_another_configuration_forgets_what_was_declared(bench: Bench) -> None:
    bench.locator.declare(binding(), declaring())
    bench.use("country")
    assert bench.of_device() == Place("DE", source="database")


# ---- links


def test_link_counts_once_the_kernel_has_answered() -> None:
    bench = Bench(with_links=True)
    assert bench.of("192.0.2.7") == GUESS
    assert bench.locator.is_waiting("192.0.2.7")
    told: list[Place] = []
    bench.locator.when_known("192.0.2.7", lambda: told.append(bench.of("192.0.2.7")))
    assert [host for host, _ in bench.links.asked] == ["192.0.2.7"]
    bench.links.answer("wg0")
    assert told == [LINK]
    assert not bench.locator.is_waiting("192.0.2.7")
    assert bench.of("192.0.2.7", declaring()) == LINK
    assert bench.links.asked == []


def test_link_that_is_no_site_leaves_the_rest() -> None:
    bench = Bench(with_links=True)
    for interface in ("eth0", None):
        bench.locator.forget()
        bench.of("192.0.2.7")
        bench.links.answer(interface)
        assert bench.of("192.0.2.7") == GUESS


def test_kernel_is_not_asked_about_sites() -> None:
    bench = Bench(with_links=True)
    assert bench.of("10.1.2.3") == SITE
    assert bench.links.asked == []
    assert not bench.locator.is_waiting("10.1.2.3")
    assert not bench.locator.is_waiting("192.0.2.99")


def test_changed_routes_are_asked_for_again() -> None:
    bench = Bench(with_links=True)
    bench.of("192.0.2.7")
    bench.links.answer("wg0")
    bench.locator.forget()
    assert bench.of("192.0.2.7") == GUESS
    bench.links.answer(None)
    assert bench.of("192.0.2.7") == GUESS


def test_those_who_wait_are_bounded() -> None:
    bench = Bench(with_links=True)
    bench.of("192.0.2.7")
    for _ in range(locating.MAX_WAITING):
        assert bench.locator.is_waiting("192.0.2.7")
        bench.locator.when_known("192.0.2.7", lambda: None)
    assert not bench.locator.is_waiting("192.0.2.7")


def test_without_links_nobody_waits(bench: Bench) -> None:
    bench.of("192.0.2.7")
    assert not bench.locator.is_waiting("192.0.2.7")
