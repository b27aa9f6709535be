"""Where somebody is, as precisely as the operator wants it known, and the operator's own table of sites. Pure.

A place always says where the knowledge comes from. One source is believed as a whole; places of two sources are
never mixed, since together they might be a place where nobody is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

from sipserver.calls.mobile_countries import country_of_cell
from sipserver.sip.access_network import AccessNetwork

SITE: Final = "site"
"""The operator's table of sites, by network."""
LINK: Final = "link"
"""The operator's table of sites, by the interface that the kernel routes over."""
ACCESS_NETWORK: Final = "access_network"
"""``P-Access-Network-Info`` of a trusted peer."""
GEOLOCATION: Final = "geolocation"
"""What an authenticated endpoint says of itself (RFC 6442)."""
DATABASE: Final = "database"
"""The operator's database of networks."""

NONE: Final = "none"
COUNTRY: Final = "country"
REGION: Final = "region"
CITY: Final = "city"
PRECISIONS: Final = (NONE, COUNTRY, REGION, CITY)


class Place(NamedTuple):
    """A place as the record keeps it. What is not known is None."""

    country: str | None = None
    """ISO 3166-1, two upper-case letters."""
    region: str | None = None
    city: str | None = None
    site: str | None = None
    """The operator's own name for it."""
    source: str | None = None
    """SITE, LINK, ACCESS_NETWORK, GEOLOCATION or DATABASE; None where nothing is known."""
    until: int | None = None
    """UNIX time in milliseconds until which it may be kept (RFC 4119 §2.2.2); None for as long as the record."""


NOWHERE: Final = Place()
"""Nothing is known."""


@dataclass(slots=True)
class Site:
    """One entry of the operator's table; one of the first three is given."""

    network: IPv4Network | IPv6Network | None
    interface: str
    access: str
    """What the identifier of an access network begins with (see ``sip.access_network``)."""
    place: Place


def limited(place: Place, precision: str) -> Place:
    """The place, no finer than this, NOWHERE where nothing is left.

    A site is the operator's own word, and is kept unless nothing is.
    """
    if precision == NONE or place is NOWHERE:
        return NOWHERE
    region = place.region if precision in {REGION, CITY} else None
    city = place.city if precision == CITY else None
    if place.country is None and region is None and city is None and place.site is None:
        return NOWHERE
    return Place(place.country, region, city, place.site, place.source, place.until)


def country_code(text: str | None) -> str | None:
    """An ISO 3166-1 code in upper case; None for anything that is not two letters."""
    return text.upper() if text is not None and len(text) == 2 and text.isascii() and text.isalpha() else None


def plain_address(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address without its zone, an IPv4 address in IPv6 form as IPv4; None for what is no address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class SiteTable:
    """The operator's sites. Of networks that hold one another the smallest counts, of access networks the longest."""

    def __init__(self, sites: Iterable[Site] = ()) -> None:
        networks: dict[tuple[int, int], dict[int, Place]] = {}
        self._links: dict[str, Place] = {}
        accesses: list[tuple[str, Place]] = []
        for site in sites:
            if site.network is not None:
                bits = site.network.prefixlen
                shift = site.network.max_prefixlen - bits
                key = int(site.network.network_address) >> shift
                networks.setdefault((site.network.version, bits), {})[key] = site.place._replace(source=SITE)
            elif site.interface:
                self._links[site.interface] = site.place._replace(source=LINK)
            else:
                accesses.append((site.access.lower(), site.place._replace(source=ACCESS_NETWORK)))
        self._networks = sorted(networks.items(), key=_longest_first)
        self._accesses = sorted(accesses, key=_longest_text_first)

    @property
    def has_links(self) -> bool:
        """Whether any site is an interface."""
        return bool(self._links)

    def by_network(self, address: IPv4Address | IPv6Address) -> Place:
        """The site of the smallest network that holds this address."""
        number, version, width = int(address), address.version, address.max_prefixlen
        for (of_version, bits), places in self._networks:
            if of_version == version:
                found = places.get(number >> (width - bits))
                if found is not None:
                    return found
        return NOWHERE

    def by_link(self, interface: str | None) -> Place:
        """The site that is this interface."""
        return self._links.get(interface, NOWHERE) if interface is not None else NOWHERE

    def by_access(self, identifier: str) -> Place:
        """The site that this access network belongs to."""
        identifier = identifier.lower()
        for start, place in self._accesses:
            if identifier.startswith(start):
                return place
        return NOWHERE


def place_of_access(networks: Iterable[AccessNetwork], sites: SiteTable) -> Place:
    """Where an endpoint is by the access networks that a trusted peer names, the most trusted first."""
    networks = list(networks)
    for network in networks:
        for identifier in network.identifiers:
            found = sites.by_access(identifier)
            if found is not NOWHERE:
                return found
    for network in networks:
        country = country_of_cell(network.cell)
        if country is not None:
            return Place(country=country, source=ACCESS_NETWORK)
    return NOWHERE


def _longest_first(entry: tuple[tuple[int, int], dict[int, Place]]) -> int:
    return -entry[0][1]


def _longest_text_first(entry: tuple[str, Place]) -> int:
    return -len(entry[0])
