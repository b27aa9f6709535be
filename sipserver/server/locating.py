"""Where callers, devices and those who sign in are: the sources that know it, in their order of trust.

    site            the operator's table of sites, by network
    link            the same, by the interface that the kernel routes over
    access_network  ``P-Access-Network-Info`` that a peer (``proxy.peers``) vouches for (RFC 7315)
    geolocation     what an authenticated endpoint says of itself (RFC 6442), as far as its rules let it be kept
    database        what a database guesses from the address

The first that knows anything is believed, and no other. Of a message that came through another proxy the address is
that proxy's: then what it vouches for comes before the sites, and the database is not asked. What an endpoint
declares in a REGISTER holds for its calls while that registration lasts; what a device that is called says in its
18x or 2xx holds for that call, and is newer.

What the address tells is remembered per host. Only a link is not known at once: until the kernel has answered, the
next source counts, and ``when_known`` brings the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol

from sipserver.accounts.lru import Lru
from sipserver.calls import places
from sipserver.calls.observe import printable
from sipserver.calls.places import NONE, NOWHERE, Place, SiteTable, limited, plain_address
from sipserver.registrar.binding import Binding
from sipserver.sip import access_network, geolocation, names, pidf
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, Response

MAX_HOSTS: Final = 20_000
"""Hosts whose place is remembered."""
MAX_DECLARED: Final = 50_000
"""Devices of which is remembered what they declared."""
MAX_WAITING: Final = 1_000
"""Calls and sign-ins that wait for the link of one host; more do without."""

_OWN: Final = frozenset((places.SITE, places.LINK))

Key = tuple[str, str]
"""Address of record and contact."""


class Networks(Protocol):
    """The part of ``server.geodatabase.GeoDatabase`` that is needed here."""

    def look_up(self, address: IPv4Address | IPv6Address, /) -> Place:
        """Where this address is, as finely as the database knows."""


class Links(Protocol):
    """The part of ``transport.links.LinkFinder`` that is needed here."""

    def find(self, host: str, found: Callable[[str | None], None], /) -> None:
        """Call back, later or at once, with the interface to this host."""


@dataclass(slots=True)
class Settings:
    """What the operator decided about places."""

    precision: str = NONE
    sites: SiteTable = field(default_factory=SiteTable)
    peers: tuple[IPv4Network | IPv6Network, ...] = ()
    """Who is believed about access networks."""


class _Host:
    """What the address of a host tells."""

    __slots__ = ("is_peer", "place", "waiting")

    def __init__(self, place: Place, is_peer: bool) -> None:
        self.place = place
        self.is_peer = is_peer
        self.waiting: list[Callable[[], None]] | None = None
        """Who waits for the kernel's answer; None where it is there."""


class Locator:
    """Answers where somebody is. Called on the loop; never waits for anything."""

    def __init__(
        self,
        settings: Settings,
        wall_clock: Callable[[], float],
        database: Networks | None = None,
        links: Links | None = None,
        note: Callable[[Message, str, SipError], None] | None = None,
    ) -> None:
        """``note`` is told of locations that cannot be read: the message, the host it came from, and why."""
        self._note = note
        self._settings = settings
        self._clock = wall_clock
        self._database = database
        self._links = links
        self._off = settings.precision == NONE
        self._hosts: dict[str, _Host] = {}
        self._declared: Lru[Key, Place] = Lru(MAX_DECLARED)

    def use(self, settings: Settings, database: Networks | None, links: Links | None) -> None:
        """From now on these hold."""
        self._settings, self._database, self._links = settings, database, links
        self._off = settings.precision == NONE
        # Who was believed may not be any longer, and what was kept may be finer than it may be now.
        self._declared.clear()
        self.forget()

    def forget(self) -> None:
        """What is remembered of hosts may not be true any longer: the routes or the database have changed."""
        self._hosts.clear()

    # ------------------------------------------------------------------ questions

    def of_request(self, request: Request, flow: Flow, identity: str | None) -> Place:
        """Where the sender of a request is; ``identity`` is the address that it proved to have, None for none."""
        if self._off:
            return NOWHERE
        host = self._hosts.get(flow.host) or self._look_up(flow.host)
        told = NOWHERE
        if _tells(request):
            told = self._told(request, flow.host, host, authenticated=identity is not None)
        if told is NOWHERE and identity is not None and self._declared.is_used:
            told = self._remembered((identity, _contact(request)))
        return _choose(host, told, is_relayed=len(request.vias) > 1)

    def of_device(self, aor: str, contact: str, host: str, *, is_relayed: bool) -> Place:
        """Where a registered device is: its address of record, contact, and the host that it registered from.

        ``is_relayed``: it is behind another proxy, so that the host is that proxy.
        """
        if self._off:
            return NOWHERE
        found = self._hosts.get(host) or self._look_up(host)
        return _choose(found, self._remembered((aor, contact)), is_relayed=is_relayed)

    def of_binding(self, binding: Binding) -> Place:
        """The same for a binding."""
        return self.of_device(binding.aor, binding.contact, binding.host, is_relayed=bool(binding.path))

    def of_response(self, response: Response, host: str, *, is_registered: bool, is_relayed: bool) -> Place:
        """Where a device is that responds, where its response itself tells; NOWHERE where it does not.

        ``host`` is where it registered from, or where the request was sent to. The former has proved who it is.
        """
        if self._off or not _tells(response):
            return NOWHERE
        found = self._hosts.get(host) or self._look_up(host)
        told = self._told(response, host, found, authenticated=is_registered)
        return told if told is NOWHERE else _choose(found, told, is_relayed=is_relayed)

    def of_next_hop(self, host: str) -> Place:
        """Where something is that is behind this host, which somebody else runs."""
        if self._off:
            return NOWHERE
        return _choose(self._hosts.get(host) or self._look_up(host), NOWHERE, is_relayed=True)

    def is_waiting(self, host: str) -> bool:
        """Whether more is about to be known of this host, about which somebody has just asked."""
        if self._links is None:
            return False
        found = self._hosts.get(host)
        return found is not None and found.waiting is not None and len(found.waiting) < MAX_WAITING

    def when_known(self, host: str, call: Callable[[], None]) -> None:
        """``call`` is called once that is known."""
        found = self._hosts.get(host)
        assert found is not None, "ask is_waiting first"
        assert found.waiting is not None, "ask is_waiting first"
        found.waiting.append(call)

    # ------------------------------------------------------------------ what devices declare

    def declare(self, binding: Binding, request: Request) -> None:
        """This authenticated REGISTER made or refreshed the binding: what it tells holds from now on."""
        key = binding.aor, binding.contact
        if self._off:
            return
        if _tells(request):
            host = self._hosts.get(binding.host) or self._look_up(binding.host)
            told = self._told(request, binding.host, host, authenticated=True)
            if told is not NOWHERE:
                self._declared.put(key, told)
                return
        if self._declared.is_used:
            self._declared.pop(key)

    def gone(self, binding: Binding) -> None:
        """The binding is none any longer."""
        if self._declared.is_used:
            self._declared.pop((binding.aor, binding.contact))

    def _remembered(self, key: Key) -> Place:
        if not self._declared.is_used:
            return NOWHERE
        place = self._declared.get(key, NOWHERE)
        if place.until is not None and place.until <= self._clock() * 1000:
            self._declared.pop(key)
            return NOWHERE
        return place

    # ------------------------------------------------------------------ sources

    def _told(self, message: Message, source: str, host: _Host, *, authenticated: bool) -> Place:
        """What a message itself tells, as finely as may be stored."""
        found = NOWHERE
        if host.is_peer and message.has(names.P_ACCESS_NETWORK_INFO):
            found = self._access_network(message, source)
        if found is NOWHERE and authenticated and message.has(names.GEOLOCATION):
            found = self._geolocation(message, source)
        return found

    def _unreadable(self, message: Message, source: str, error: SipError) -> None:
        if self._note is not None:
            self._note(message, source, error)

    def _access_network(self, message: Message, source: str) -> Place:
        try:
            networks = access_network.parse(message)
        except SipError:
            self._unreadable(message, source, SipError(400, "Bad P-Access-Network-Info"))
            return NOWHERE
        return limited(places.place_of_access(networks, self._settings.sites), self._settings.precision)

    def _geolocation(self, message: Message, source: str) -> Place:
        for document in geolocation.documents(message):
            try:
                civic = pidf.civic(document, self._clock())
            except SipError as error:
                self._unreadable(message, source, error)
                continue
            if civic is not None:
                found = Place(
                    places.country_code(civic.country), _stored(civic.region), _stored(civic.city), None,
                    places.GEOLOCATION, int(civic.until * 1000),
                )  # fmt: skip
                return limited(found, self._settings.precision)
        return NOWHERE

    def _look_up(self, host: str) -> _Host:
        """What the address tells, now; and the kernel is asked where that may tell more."""
        settings = self._settings
        address = plain_address(host)
        if address is None:
            return _Host(NOWHERE, False)
        if len(self._hosts) >= MAX_HOSTS:
            # A flood of senders must not fill the memory: what is forgotten is looked up again.
            self._hosts.clear()
        is_peer = any([address in network for network in settings.peers])
        place = limited(settings.sites.by_network(address), settings.precision)
        if place is not NOWHERE:
            found = self._hosts[host] = _Host(place, is_peer)
            return found
        guess = self._database.look_up(address) if self._database is not None else NOWHERE
        found = self._hosts[host] = _Host(limited(guess, settings.precision), is_peer)
        if self._links is not None and settings.sites.has_links:
            found.waiting = []
            self._links.find(host, _Answer(found, settings).on_interface)
        return found


class _Answer:
    """Takes the kernel's answer to the host that it was asked for."""

    __slots__ = ("_host", "_settings")

    def __init__(self, host: _Host, settings: Settings) -> None:
        self._host = host
        self._settings = settings

    def on_interface(self, interface: str | None) -> None:
        host = self._host
        waiting, host.waiting = host.waiting, None
        place = limited(self._settings.sites.by_link(interface), self._settings.precision)
        if place is not NOWHERE:
            host.place = place
        for call in waiting or ():
            call()


def _choose(host: _Host, told: Place, *, is_relayed: bool) -> Place:
    """The most trusted of what the address and the message tell."""
    place = host.place
    if is_relayed:
        if told is not NOWHERE:
            return told
        return place if place.source in _OWN else NOWHERE
    return place if told is NOWHERE or place.source in _OWN else told


def _tells(message: Message) -> bool:
    """Whether a message says where its sender is; most do not."""
    return message.has(names.GEOLOCATION) or message.has(names.P_ACCESS_NETWORK_INFO)


def _contact(request: Request) -> str:
    """The Contact URI as written; empty where there is not just one that can be read."""
    try:
        found = request.addresses(names.CONTACT)
    except SipError:
        return ""
    return found[0].uri_text if len(found) == 1 else ""


def _stored(text: str | None) -> str | None:
    """Text from a document as the record may hold it."""
    return printable(text.encode("utf-8", "replace").decode("latin-1")) if text else None
