"""Where requests for foreign domains and for numbers go when the operator says so, and who may send them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sipserver.proxy.peers import Peer
from sipserver.sip.uri import Uri


@dataclass(slots=True, eq=False)
class StaticRoute:
    """One route. Either ``domain`` or ``prefix`` is set."""

    hop: Uri
    """Where requests are sent."""
    domain: str = ""
    """A domain, ``*.`` before it for those below it, ``*`` for every one; lower case."""
    prefix: str = ""
    """What numbers begin with; ``*`` for every number."""
    priority: int = 0
    """The lowest is tried first."""
    peer: Peer | None = None
    """The peer that is there."""


class StaticRoutes:
    """All static routes."""

    __slots__ = ("_domains", "_numbers", "has_numbers")

    def __init__(self, routes: Iterable[StaticRoute] = ()) -> None:
        self._domains: dict[str, list[StaticRoute]] = {}
        self._numbers: dict[str, list[StaticRoute]] = {}
        for route in sorted(routes, key=_priority):
            kept, key = (self._domains, route.domain) if route.domain else (self._numbers, route.prefix)
            kept.setdefault(key.removeprefix("*") if key != "*" else key, []).append(route)
        self.has_numbers = bool(self._numbers)
        """Whether there is a route for any number."""

    def for_domain(self, domain: str) -> Sequence[StaticRoute]:
        """The routes for a domain, by priority: those of the longest entry that fits."""
        if not self._domains:
            return ()
        for each in _and_above(domain):
            found = self._domains.get(each)
            if found is not None:
                return found
        return self._domains.get("*", ())

    def for_number(self, number: str) -> Sequence[StaticRoute]:
        """The routes for a number, by priority: those of the longest prefix that fits."""
        for length in range(len(number), 0, -1):
            found = self._numbers.get(number[:length])
            if found is not None:
                return found
        return self._numbers.get("*", ())


def _priority(route: StaticRoute) -> int:
    return route.priority


def _and_above(domain: str) -> Iterable[str]:
    """A domain as it may stand in a list: itself, then ``.`` and each domain above it."""
    found = [domain]
    start = domain.find(".")
    while start >= 0:
        found.append(domain[start:])
        start = domain.find(".", start + 1)
    return found


class Destinations:
    """A list of where one may send to: domains (``*.`` for those below) and prefixes of numbers, or anywhere."""

    __slots__ = ("_domains", "_prefixes", "anywhere")

    def __init__(self, entries: Iterable[str] = (), *, anywhere: bool = False) -> None:
        entries = tuple(entries)
        self.anywhere = anywhere
        self._prefixes = tuple(each for each in entries if is_prefix(each))
        self._domains = frozenset(each.removeprefix("*") for each in entries if not is_prefix(each))

    def has_domain(self, domain: str) -> bool:
        """Whether requests for this domain may be sent on."""
        return self.anywhere or (bool(self._domains) and not self._domains.isdisjoint(_and_above(domain)))

    def has_number(self, number: str) -> bool:
        """Whether requests for this number may be sent on."""
        return self.anywhere or number.startswith(self._prefixes)


def is_prefix(entry: str) -> bool:
    """Whether an entry of a list means numbers: ``+`` and digits, or digits alone."""
    digits = entry.removeprefix("+")
    return bool(entry) and (not digits or (digits.isdigit() and digits.isascii()))


NOWHERE: Final = Destinations()
ANYWHERE: Final = Destinations(anywhere=True)


class Permissions:
    """Where each authenticated subscriber may send requests for other domains and for numbers."""

    __slots__ = ("_of", "everybody")

    def __init__(self, everybody: Destinations = NOWHERE, of: Mapping[str, Destinations] | None = None) -> None:
        """``of``: by address or domain of ours, in the place of what everybody may."""
        self.everybody = everybody
        self._of = dict(of or {})

    def of(self, identity: str | None) -> Destinations:
        """Where this subscriber may send to; nowhere for who has not proved to be one."""
        if identity is None:
            return NOWHERE
        if self._of:
            for who in (identity, identity.rpartition("@")[2]):
                own = self._of.get(who)
                if own is not None:
                    return own
        return self.everybody
