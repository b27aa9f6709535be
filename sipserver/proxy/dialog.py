"""Where the two sides of a dialog are, and over which connection they are reached.

A contact that came over a connection is often reachable over nothing else (a browser, a client behind
NAT). So the connection is remembered together with the URI that later requests will name. This is a
memory, not a record: an entry that was evicted, or a server that was restarted, falls back to
resolving the URI.
"""

from __future__ import annotations

from typing import Final

from sipserver.proxy.bounded import Latest
from sipserver.proxy.record_route import ROUTE_PARAM
from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, Response
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

MAX_HOPS: Final = 8
"""Next hops remembered for one dialog: both sides, with what forks and target refreshes add."""


class DialogTable:
    """Flows by call key, side and next hop; bounded, the oldest dialogs go first."""

    def __init__(self, max_dialogs: int = 200_000) -> None:
        self.max_dialogs = max_dialogs
        self._dialogs: Latest[dict[tuple[str, str], Flow]] = Latest(max_dialogs)
        self.evicted = 0
        """Dialogs that were forgotten because the table was full."""

    def __len__(self) -> int:
        return len(self._dialogs)

    def learn(self, key: str, side: str, flow: Flow, next_hop_text: str) -> None:
        """Requests to this side of the call whose next hop is written like this may go over this flow."""
        hops = self._dialogs.get(key)
        if hops is None:
            hops = {}
            self.evicted += self._dialogs.put(key, hops)
        hops.pop((side, next_hop_text), None)
        if len(hops) >= MAX_HOPS:
            del hops[next(iter(hops))]
        hops[side, next_hop_text] = flow

    def flow_for(self, key: str, side: str, uri_text: str) -> Flow | None:
        """The flow to this side, where a connection was learned for a next hop written like this.

        Whether the connection still lives is for the caller to look at.
        """
        hops = self._dialogs.get(key)
        return None if hops is None else hops.get((side, uri_text))

    def follow(self, key: str, side: str, contact: str, flow: Flow) -> None:
        """This side's contact is reached over another connection from now on; whatever URI parameters it was named
        with (``ob``, say) are of no account."""
        hops, name = self._dialogs.get(key) or {}, contact.partition(";")[0]
        for hop, known in list(hops.items()):
            if hop[0] == side and known.connection and hop[1].partition(";")[0] == name:
                hops[hop] = flow

    def forget(self, key: str) -> None:
        """The dialog has ended."""
        self._dialogs.pop(key)


class RemoteTargets:
    """Where the requests inside a call may go: to whom its two sides named as their next hop, and nowhere else.

    A minted route proves that its sender is in a call, not where the call leads. This is a memory of the
    latest calls: of one that it does not know (after a restart, say) every next hop is believed, so that calls in
    progress can be ended.
    """

    def __init__(self, max_calls: int = 100_000) -> None:
        self._calls: Latest[str] = Latest(max_calls)
        """Side, host and port of each next hop, a line each, after an empty first: there is one text for each of very
        many calls. None of these holds a space."""

    def __len__(self) -> int:
        return len(self._calls)

    def learn(self, key: str, side: str, hop: str | None) -> None:
        """This side of the call named this URI; None where it named none."""
        if hop is None:
            return
        try:
            uri = Uri.parse(hop)
        except SipError:
            return
        known = self._calls.get(key)
        target = _target(side, uri)
        if known is None:
            known = "\n"
        elif target in known:
            return
        elif known.count("\n") > MAX_HOPS:
            known = known[known.index("\n", 1) :]
        self._calls.put(key, known + target[1:])

    def allows(self, key: str, side: str, uri: Uri) -> bool:
        """Whether a request inside this call may go to this next hop of that side."""
        known = self._calls.get(key)
        return known is None or _target(side, uri) in known or f"\n{side} " not in known

    def hosts(self, key: str, side: str) -> tuple[str, ...]:
        """The hosts of the URIs that this side named."""
        lines = [line.split(" ") for line in (self._calls.get(key) or "").split("\n") if line]
        return tuple([host for each, host, _ in lines if each == side])


def _target(side: str, uri: Uri) -> str:
    """A next hop as ``RemoteTargets`` keeps it, with the end of the line before it."""
    return f"\n{side} {uri.host} {uri.port}\n"


def sender_hop(request: Request) -> str | None:
    """What later requests to the sender will name as their next hop: its proxy's Record-Route, else its Contact."""
    try:
        recorded = request.values(names.RECORD_ROUTE)
        return Address.parse(recorded[0]).uri_text if recorded else _contact(request)
    except SipError:
        return None


def answerer_hop(response: Response, token: str) -> str | None:
    """What later requests to the answering side will name after our own route: the Record-Route above ours, or its
    Contact (RFC 3261 §12.1.2: the caller takes the route set in reverse order)."""
    try:
        above = None
        for value in response.values(names.RECORD_ROUTE):
            if token and f"{ROUTE_PARAM}={token}" in value:
                break
            above = value
        else:
            # Ours is not there (it was in a refresh, or the endpoint does not echo it): nothing can be said of others.
            above = None
        return Address.parse(above).uri_text if above is not None else _contact(response)
    except SipError:
        return None


def _contact(message: Message) -> str | None:
    contacts = message.values(names.CONTACT)
    return Address.parse(contacts[0]).uri_text if contacts and contacts[0] != "*" else None
