"""The operator's sites, precision, and countries of mobile networks."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sipserver.calls.mobile_countries import COUNTRIES, country_of_cell
from sipserver.calls.places import (
    NOWHERE,
    PRECISIONS,
    Place,
    Site,
    SiteTable,
    country_code,
    limited,
    place_of_access,
    plain_address,
)
from sipserver.sip.access_network import AccessNetwork


def site(name: str, network: str = "", interface: str = "", access: str = "", **known: Any) -> Site:
    return Site(ip_network(network) if network else None, interface, access, Place(site=name, **known))


TABLE = SiteTable(
    [
        site("everywhere", "0.0.0.0/0"),
        site("company", "10.0.0.0/8", country="AT"),
        site("office", "10.7.0.0/16"),
        site("room", "10.7.1.9/32"),
        site("other company", "11.0.0.0/8"),
        site("six", "2001:db8::/32"),
        site("six office", "2001:db8:7::/48"),
        site("branch", interface="wg0"),
        site("line", access="DSL-Location=line-"),
        site("line 17", access="dsl-location=line-17"),
    ]
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.7.1.9", "room"),
        ("10.7.1.8", "office"),
        ("10.8.0.1", "company"),
        ("11.255.255.255", "other company"),
        ("9.9.9.9", "everywhere"),
        ("::ffff:10.7.1.9", "room"),
        ("2001:db8:7::1", "six office"),
        ("2001:db8:8::1", "six"),
        ("2001:db9::1", None),
        ("fe80::1%eth0", None),
    ],
)
def test_the_smallest_network_counts(host: str, expected: str | None) -> None:
    address = plain_address(host)
    assert address is not None
    place = TABLE.by_network(address)
    assert place.site == expected
    assert place.source == ("site" if expected else None)


def test_names_and_nonsense_are_no_addresses() -> None:
    assert plain_address("example.com") is None
    assert plain_address("") is None


def test_sites_may_be_links() -> None:
    assert TABLE.has_links
    assert TABLE.by_link("wg0") == Place(site="branch", source="link")
    assert TABLE.by_link("wg1") is TABLE.by_link(None) is NOWHERE
    assert not SiteTable([site("a", "10.0.0.0/8")]).has_links


def test_the_longest_access_network_counts() -> None:
    assert TABLE.by_access("dsl-location=LINE-17") == Place(site="line 17", source="access_network")
    assert TABLE.by_access("dsl-location=line-18").site == "line"
    assert TABLE.by_access("dsl-location=17") is NOWHERE


FULL = Place("AT", "Wien", "Wien Mitte", "HQ", "site", 7)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("none", NOWHERE),
        ("country", FULL._replace(region=None, city=None)),
        ("region", FULL._replace(city=None)),
        ("city", FULL),
    ],
)
def test_nothing_is_finer_than_asked(precision: str, expected: Place) -> None:
    assert limited(FULL, precision) == expected


def test_place_of_which_nothing_is_left_is_nowhere() -> None:
    assert limited(Place(city="Wien", source="database"), "region") is NOWHERE
    assert limited(Place(source="database"), "city") is NOWHERE
    for precision in PRECISIONS:
        assert limited(NOWHERE, precision) is NOWHERE


@pytest.mark.parametrize(
    ("text", "code"), [("AT", "AT"), ("at", "AT"), ("AUT", None), ("A1", None), ("ÄT", None), ("", None), (None, None)]
)
def test_country_codes_are_two_letters(text: str | None, code: str | None) -> None:
    assert country_code(text) == code


@pytest.mark.parametrize(
    ("cell", "country"),
    [
        ("2320112340FFFFFF", "AT"), ("310410aaaa", "US"), ("316010", "US"), ("23415", "GB"), ("40410", "IN"),
        ("4250112", "IL"), ("4250512", "PS"), ("34001", None), ("90101", None),
        ("00101", None), ("232", None), ("", None), ("xyzzy", None), (None, None),
    ],
)  # fmt: skip
def test_cells_begin_with_their_country(cell: str | None, country: str | None) -> None:
    assert country_of_cell(cell) == country


def test_countries_of_mobile_networks_are_well_formed() -> None:
    assert len(COUNTRIES) > 230
    assert all(len(code) in {3, 5} and code.isdigit() and "2" <= code[0] <= "7" for code in COUNTRIES)
    assert all(country_code(country) == country for country in COUNTRIES.values())


def network(cell: str | None, *identifiers: str) -> AccessNetwork:
    return AccessNetwork("X", cell, identifiers, False)


def test_sites_of_access_networks_come_before_countries_of_cells() -> None:
    networks = [network("23201"), network(None, "dsl-location=line-3")]
    assert place_of_access(networks, TABLE).site == "line"
    assert place_of_access(networks, SiteTable()) == Place("AT", source="access_network")
    assert place_of_access([network(None, "dsl-location=x"), network("99901")], TABLE) is NOWHERE
    assert place_of_access([network("00101"), network("26201")], TABLE).country == "DE"
