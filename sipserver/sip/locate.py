"""Locating SIP servers: from a URI to the ordered list of places that a request for it is sent to (RFC 3263 §4).

``locate`` is a generator: it yields questions for the DNS, several at once where they do not depend on each
other, takes the records by ``send``, and returns the list. What the URI says decides what is asked for:

    an IP address             nothing
    a port                    A and AAAA; the transport is the URI's, or else the default
    a transport, no port      SRV for that transport, then A and AAAA of its targets
    neither                   NAPTR, then SRV as above; without NAPTR the SRV of every transport that can be used
    no SRV at all             A and AAAA of the host itself, at the default port

Answers are believed as far as they lead to an address, and no further: lists are bounded, and a ``sips`` URI, or a
domain that prefers TLS, never ends at anything weaker.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sipserver.sip.uri import Uri

UDP: Final = "UDP"
TCP: Final = "TCP"
TLS: Final = "TLS"

Place = tuple[str, str, int]
"""Transport (``UDP``, ``TCP`` or ``TLS``), IP address without brackets, port."""
Usable = frozenset[tuple[str, int]]
"""Transports, each with the IP version (4 or 6) that this server can use it with."""
Question = tuple[str, str]
"""A name and the type of its records: ``NAPTR``, ``SRV``, ``A`` or ``AAAA``."""

MAX_SERVICES: Final = 6
"""NAPTR records that are followed."""
MAX_SERVERS: Final = 8
"""SRV records whose targets are looked up."""
MAX_PLACES: Final = 12
"""Addresses that come of all this."""

_DEFAULT_PORTS: Final = {UDP: 5060, TCP: 5060, TLS: 5061}
_SERVICES: Final = {"SIP+D2U": UDP, "SIP+D2T": TCP, "SIPS+D2T": TLS}
_SRV_NAMES: Final = {UDP: "_sip._udp.", TCP: "_sip._tcp.", TLS: "_sips._tcp."}


@dataclass(slots=True)
class Naptr:
    """A NAPTR record (RFC 3403 §4.1); names without the last dot."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


@dataclass(slots=True)
class Srv:
    """An SRV record (RFC 2782); the target without its last dot, so empty where the service is not offered."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(slots=True)
class Records:
    """What the DNS has for one question: of these the ones that were asked for, nothing where there is nothing."""

    naptr: list[Naptr] = field(default_factory=list)
    srv: list[Srv] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)


Search = Generator[list[Question], list[Records], list[Place]]


def transports_for(uri: Uri, usable: Usable) -> tuple[str, ...]:
    """The transports that a request for this URI may use, the default first; none where it cannot be sent at all.

    maddr is not followed: it would name another target than the one whose permission was looked at.
    """
    named = uri.transport
    if uri.scheme == "sips":
        # RFC 3261 §26.2.2: TLS over TCP, however the URI names it.
        allowed: tuple[str, ...] = (TLS,) if named in (None, "tcp", "tls") else ()
    elif uri.scheme != "sip":
        allowed = ()
    elif named is None:
        # TLS is not chosen for a SIP URI unless the domain says so (NAPTR).
        allowed = (UDP, TCP)
    else:
        allowed = (named.upper(),) if named in ("udp", "tcp", "tls") else ()
    return tuple([each for each in allowed if (each, 4) in usable or (each, 6) in usable])


def numeric_place(uri: Uri) -> Place | None:
    """Where a request goes whose URI has an IP address in figures (RFC 3263 §4.1, §4.2); None where nothing can.

    The caller knows that the host is an IP address, and whether the transport can be used.
    """
    named = uri.transport
    if uri.scheme == "sips":
        transport = TLS if named in (None, "tcp", "tls") else ""
    elif uri.scheme == "sip":
        transport = (named or "udp").upper()
    else:
        return None
    default = _DEFAULT_PORTS.get(transport)
    return None if default is None else (transport, uri.host, uri.port or default)


def locate(uri: Uri, usable: Usable, fraction: Callable[[], float]) -> Search:
    """The places for a URI with a name for its host, best first; ``fraction`` draws numbers from 0 to below 1."""
    wanted = transports_for(uri, usable)
    host = uri.host.removesuffix(".")
    if not wanted and not (uri.scheme == "sip" and uri.transport is None and uri.port is None):
        return []
    if uri.port is not None:
        servers = [(wanted[0], host, uri.port)]
    else:
        servers = yield from _find_servers(uri, host, wanted, usable, fraction)
    return (yield from _find_addresses(servers[:MAX_SERVERS], usable))


def _find_servers(
    uri: Uri, host: str, wanted: tuple[str, ...], usable: Usable, fraction: Callable[[], float]
) -> Generator[list[Question], list[Records], list[Place]]:
    """Transport, name and port of each server, best first."""
    services: list[tuple[str, str]] = []
    if uri.transport is None:
        (answer,) = yield [(host, "NAPTR")]
        services = choose_services(answer.naptr, usable, sips=uri.scheme == "sips")
    if not services:
        services = [(transport, _SRV_NAMES[transport] + host) for transport in wanted]
    if not services:
        return []
    answers = yield [(name, "SRV") for _, name in services]
    servers = []
    offered = False
    for (transport, _), records in zip(services, answers, strict=True):
        for each in order_servers(records.srv, fraction):
            offered = True
            # RFC 2782: a target of "." says that the service is decidedly not available at this domain.
            if each.target and each.port:
                servers.append((transport, each.target, each.port))
    if not offered:
        # §4.2: no SRV records; the host itself, by the transport that was chosen, at its default port.
        transport = services[0][0]
        servers = [(transport, host, _DEFAULT_PORTS[transport])]
    return servers


def choose_services(records: Sequence[Naptr], usable: Usable, *, sips: bool) -> list[tuple[str, str]]:
    """Transport and SRV name of each service that can be used, the domain's favourite first (RFC 3263 §4.1)."""
    chosen: list[tuple[str, str]] = []
    for each in sorted(records, key=_naptr_order):
        transport = _SERVICES.get(each.service.upper())
        if transport is None or each.flags.lower() != "s" or each.regexp or not each.replacement:
            continue
        if (transport, 4) not in usable and (transport, 6) not in usable:
            continue
        if sips and transport != TLS:
            continue
        # §7: who blocks TLS must not bring the call onto something weaker; a domain that prefers it gets it or nothing.
        if chosen and chosen[0][0] == TLS and transport != TLS:
            continue
        if (transport, each.replacement) not in chosen and len(chosen) < MAX_SERVICES:
            chosen.append((transport, each.replacement))
    return chosen


def _naptr_order(record: Naptr) -> tuple[int, int]:
    return record.order, record.preference


def order_servers(records: Sequence[Srv], fraction: Callable[[], float]) -> list[Srv]:
    """SRV records in the order in which they are tried (RFC 2782, "Usage rules").

    Lower priorities first. Within one, each next server is drawn by weight; those of weight 0 stand first in the
    row that is drawn from, so that they have a very small chance beside the others.
    """
    ordered: list[Srv] = []
    for priority in sorted({each.priority for each in records}):
        row = [each for each in records if each.priority == priority]
        row.sort(key=_has_weight)
        while len(row) > 1:
            drawn = int(fraction() * (sum([each.weight for each in row]) + 1))
            running = at = 0
            while running + row[at].weight < drawn:
                running += row[at].weight
                at += 1
            ordered.append(row.pop(at))
        ordered += row
    return ordered


def _has_weight(record: Srv) -> bool:
    return record.weight > 0


def _find_addresses(servers: list[Place], usable: Usable) -> Search:
    """§4.2: every address of every server, in the servers' order; of one server IPv6 first (RFC 6724)."""
    questions: list[Question] = []
    for transport, name, _ in servers:
        for version, kind in ((6, "AAAA"), (4, "A")):
            if (transport, version) in usable and (name, kind) not in questions:
                questions.append((name, kind))
    if not questions:
        return []
    answers = yield questions
    known = dict(zip(questions, answers, strict=True))
    places: list[Place] = []
    for transport, name, port in servers:
        for version, kind in ((6, "AAAA"), (4, "A")):
            records = known.get((name, kind))
            if records is None or (transport, version) not in usable:
                continue
            for address in records.addresses:
                place = transport, address, port
                if place not in places and len(places) < MAX_PLACES:
                    places.append(place)
    return places
