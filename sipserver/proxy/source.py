"""From where the two sides of a call speak, and what a request inside it has to show that comes from elsewhere.

The route that this server minted and the tags prove that whoever sends a request has seen a message of its dialog.
So has everybody who was on the way of one, and devices that were tried and did not get the call. So each side is known
by the hosts that it has used:

    the caller    where its INVITE came from
    the callee    where the INVITE went that it answered
    both          where a request came from that was let through by what follows

A request from another host is let through where

    it comes from a configured peer: those have many hosts, and are trusted to know their own calls; from a named one
        (``peers``) only where its side spoke from a host of the same peer before, or its certificate proves the peer
    its side named this host as its next hop, by Contact or Record-Route: it is behind a proxy that left the path
    its side is one of our addresses, and is registered from there now
    its side is one of our addresses, and the request has the credentials of that address: people who roam have them

and refused otherwise: 407 where credentials would help (RFC 3261 §22.3), 403 where they would not. Ports do not count,
since NATs change them. A CANCEL and an ACK cannot be challenged: the former is held against its INVITE, the latter
changes nothing that its sender could not have.

This is a memory: of a call that is not known (after a restart, say) every host is believed, so that calls in progress
can be ended. Their record is closed by then.
"""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from sipserver.proxy.bounded import Latest
from sipserver.proxy.dialog import RemoteTargets
from sipserver.proxy.plan import NeedTargets, Settings, Unproven
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.digest import Authenticator
from sipserver.sip.effects import Effect
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request

MAX_HOSTS: Final = 8
"""Hosts of a call that are remembered beside the two that it began with."""


class _Call:
    """From where a call is made."""

    __slots__ = ("callee", "callee_address", "caller", "caller_address", "others")

    def __init__(self, caller: str, caller_address: str | None, callee_address: str | None) -> None:
        self.caller = caller
        """The caller's host."""
        self.callee = ""
        """That of the first device that answered; empty until then."""
        self.caller_address = caller_address
        """The caller's address of record, None for one that is not ours."""
        self.callee_address = callee_address
        """The callee's."""
        self.others: tuple[tuple[str, str], ...] = ()
        """Further hosts, each with its side."""


class Sources:
    """The hosts of calls; bounded, the oldest calls go first."""

    def __init__(self, max_calls: int = 200_000) -> None:
        self._calls: Latest[_Call] = Latest(max_calls)

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, key: str, host: str, caller: str | None, callee: str | None) -> None:
        """A call comes from this host; the addresses of record of its sides, None for one that is not ours."""
        self._calls.put(key, _Call(host, caller, callee))

    def answered(self, key: str, host: str, address: str) -> None:
        """A device at this host has answered; ``address`` is the one that it is registered for, or empty."""
        call = self._calls.get(key)
        if call is None:
            return
        if not call.callee:
            call.callee = host
            if address:
                # Not the one that was asked for, where that stands for another.
                call.callee_address = address
        elif call.callee != host:
            self.learn(key, CALLEE, host)

    def learn(self, key: str, side: str, host: str) -> None:
        """This side of the call speaks from this host, too."""
        call = self._calls.get(key)
        if call is not None and (side, host) not in call.others:
            call.others = (*call.others[-MAX_HOSTS + 1 :], (side, host))

    def knows(self, key: str, side: str, host: str) -> bool:
        """Whether this side of the call may speak from this host, as far as is known."""
        call = self._calls.get(key)
        if call is None:
            return True
        first = call.caller if side == CALLER else call.callee
        return host == first or not first or (side, host) in call.others

    def hosts(self, key: str, side: str) -> tuple[str, ...]:
        """Where this side of the call has spoken from."""
        call = self._calls.get(key)
        if call is None:
            return ()
        first = call.caller if side == CALLER else call.callee
        return (first, *[host for other, host in call.others if other == side])

    def address(self, key: str, side: str) -> str | None:
        """The address of record of this side, where it is one of ours."""
        call = self._calls.get(key)
        if call is None:
            return None
        return call.caller_address if side == CALLER else call.callee_address

    def forget(self, key: str) -> None:
        """The call is over."""
        self._calls.pop(key)


def prove_source(
    request: Request,
    dialog: tuple[str, str],
    flow: Flow,
    settings: Settings,
    authenticator: Authenticator,
    now: float,
    sources: Sources,
    targets: RemoteTargets,
) -> Generator[Effect, Any, None]:
    """Let a request inside this dialog through that comes over a flow from a host which its side has not used, or
    refuse it.

    Asks for targets and credentials as ``route.admit`` does. Raises SipError with the answer.
    """
    key, side = dialog
    host, address = flow.host, _plain(flow.host)
    if not (
        any([address in network for network in settings.peers])
        or _is_same_peer(flow, settings, sources.hosts(key, side))
        or address in [_plain(each) for each in targets.hosts(key, side)]
    ):
        owner = sources.address(key, side)
        if owner is None:
            raise Unproven(403, "Not From Where This Call Is")
        registered = yield NeedTargets(owner)
        if address not in [_plain(each.host) for each in registered or ()]:
            realm = owner.rpartition("@")[2]
            identity: str = yield from authenticator.authenticate(request, realm, now, proxy=True)
            if identity != owner:
                raise Unproven(403, "Not A Part Of This Call")
    sources.learn(key, side, host)


def _is_same_peer(flow: Flow, settings: Settings, hosts: tuple[str, ...]) -> bool:
    """Whether a named peer is at the other end of the flow, and these are its hosts, too."""
    peer = settings.named.of(flow) if settings.named else None
    return peer is not None and (bool(peer.certificates) or peer in [settings.named.at(host) for host in hosts])


def _plain(host: str) -> IPv4Address | IPv6Address | str:
    """A host so that it can be compared, however it is written; a name as it is."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host
    # A socket for both families shows IPv4 as ::ffff:192.0.2.7.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
