"""Finding the flow that a request goes out on: a connection that is known to lead there, or a place to try.

What may not be had at once (a name to look up, a connection to open) is called back later. Where a name leads to
several places they are tried in their order (RFC 3263 §4.3): whoever sends asks the ``Search`` for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.plan import Target
from sipserver.server.dead_targets import DeadTargets
from sipserver.sip.flow import SECURED, Flow
from sipserver.sip.locate import TCP, UDP, Place
from sipserver.sip.uri import Uri
from sipserver.transport.base import Transports
from sipserver.transport.contract import is_ip
from sipserver.transport.resolver import Resolver

Found = Callable[[Flow | None], None]


class Search:
    """The places that one next hop has, tried one after the other."""

    __slots__ = ("_host", "_places", "_transports", "is_named", "place")

    def __init__(self, transports: Transports, host: str, places: list[Place]) -> None:
        self._transports = transports
        self._host = host
        """Who has to be there: the name that stands in the URI, which a certificate has to be for (RFC 5922 §4)."""
        self._places = places
        self.is_named = not is_ip(host)
        """Whether the places are those of a name."""
        self.place: Place | None = None
        """The one that was tried last."""

    @property
    def more(self) -> bool:
        """Whether there is another place."""
        return bool(self._places)

    @property
    def tried(self) -> Flow | None:
        """The place that was tried last as a flow that came to nothing, for the record."""
        if self.place is None:
            return None
        transport, host, port = self.place
        return Flow(transport, host, port, "", transport != UDP)

    def next(self, found: Found) -> None:
        """Call ``found`` with a flow to the next place, or with None where it cannot be reached."""
        if not self._places:
            found(None)
            return
        place = self._places.pop(0)
        self.place = place
        transport, host, port = place
        if transport == UDP:
            found(self._transports.flow_for(UDP, host, port))
        else:
            self._transports.connect(transport, host, port, found, name=self._host)

    def stream(self, found: Found) -> None:
        """The same for a stream to the place that was tried last."""
        if self.place is None:
            found(None)
            return
        transport = TCP if self.place[0] == UDP else self.place[0]
        self._transports.connect(transport, self.place[1], self.place[2], found, name=self._host)


class FlowFinder:
    """Answers the proxy's question where a request goes."""

    def __init__(
        self, transports: Transports, resolver: Resolver, dialogs: DialogTable, dead: DeadTargets,
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self.dead = dead
        """Which places are tried last."""
        self._transports = transports
        self._resolver = resolver
        self._dialogs = dialogs
        self._now = now

    def at_once(
        self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None, *, reliable: bool
    ) -> Flow | None:
        """The flow to this next hop where nothing has to be waited for, which is nearly always; else ask ``find``."""
        flow = self._known_connection(uri, target, dialog)
        if flow is not None or reliable or (target is not None and target.flow_only):
            return flow
        place = self._resolver.numeric(uri)
        if place is None or place[0] != UDP:
            return None
        return self._transports.flow_for(UDP, place[1], place[2])

    def mark_dead(self, place: Place, seconds: float | None = None) -> None:
        """Nothing came of this place, or it asked to be left alone for so many seconds."""
        self.dead.mark(place, self._now(), seconds)

    def live_way_first(self, target: Target) -> Target:
        """The target with its alternates: those that are known to be dead last."""
        ways = [target, *target.alternates]
        dead = [each for each in ways if self._is_dead(each.hop)]
        if not dead or len(dead) == len(ways):
            return target
        first, *others = [each for each in ways if each not in dead] + dead
        target.alternates = ()
        first.alternates = tuple(others)
        return first

    def _is_dead(self, hop: Uri | None) -> bool:
        place = self._resolver.numeric(hop) if hop is not None else None
        return place is not None and self.dead.is_dead(place, self._now())

    def search(self, uri: Uri, begin: Callable[[Search], None]) -> None:
        """Look up where this next hop is, and call ``begin`` with the places, the best first."""
        self._resolver.resolve(uri, partial(self._begin, uri.host, begin))

    def find(
        self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None, *, reliable: bool, found: Found
    ) -> None:
        """Call ``found`` with a flow to this next hop, or with None where there is none; at once where that is known.

        ``dialog`` is the call's key and the side to be reached. ``reliable`` asks for a stream instead of UDP. Of
        several places it is the first that can be sent to.
        """
        flow = self._known_connection(uri, target, dialog)
        if flow is not None or (target is not None and target.flow_only):
            found(flow)
            return
        self.search(uri, partial(self._first, reliable, found))

    def _known_connection(self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None) -> Flow | None:
        """The flow over which this contact registered, or this side of the dialog talks, while it is there.

        A contact that is reached over its flow alone has no other way (RFC 5626 §7).
        """
        flow: Flow | None = None
        if target is not None and target.flow_only:
            flow = self._transports.flow_of(target.transport, target.host, target.port, target.connection, target.local)
        elif target is not None and target.connection and not target.path:
            flow = self._alive(target.transport, target.host, target.port, target.connection)
        elif dialog is not None:
            flow = self._dialogs.flow_for(dialog[0], dialog[1], uri.raw)
            if flow is not None and flow.connection:
                flow = self._alive(flow.transport, flow.host, flow.port, flow.connection)
        # RFC 3261 §26.2.2: whatever was learned, SIPS leads to TLS.
        return flow if flow is None or uri.scheme != "sips" or flow.transport in SECURED else None

    def _alive(self, transport: str, host: str, port: int, connection: int) -> Flow | None:
        flow = self._transports.flow_for(transport, host, port, connection)
        return flow if flow is not None and flow.connection == connection else None

    def _begin(self, host: str, begin: Callable[[Search], None], places: list[Place] | None) -> None:
        begin(Search(self._transports, host, self.dead.live_first(places or [], self._now())))

    def _first(self, reliable: bool, found: Found, search: Search) -> None:
        if not search.more:
            found(None)
            return
        search.next(partial(self._or_next, reliable, found, search))

    def _or_next(self, reliable: bool, found: Found, search: Search, flow: Flow | None) -> None:
        if flow is None:
            self._first(reliable, found, search)
        elif reliable and not flow.reliable:
            search.stream(partial(self._or_next, True, found, search))
        else:
            found(flow)
