"""From a URI to the addresses that a request for it can be sent to.

IP addresses and ``localhost`` need no look-up. Any other name is looked up by the system's own
means (A and AAAA records, /etc/hosts), outside of the event loop, for a bounded time and a bounded
number of names at once; answers are kept for a while, failures too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from sipserver.sip.uri import Uri
from sipserver.transport.contract import DEFAULT_PORT, Receiver, canonical_ip, is_ip

Target = tuple[str, str, int]
"""Transport (``UDP`` or ``TCP``), IP address without brackets, port."""
Callback = Callable[[list[Target] | None], None]

NUMERIC_NAMES = 4_096
"""URIs with an IP address in figures whose way is remembered; what it is does not change."""
NUMERIC_LENGTH = 200
"""Longer ones are not remembered, so that all together stay small."""

_LOCALHOST = ["127.0.0.1", "::1"]


@dataclass(slots=True)
class ResolverSettings:
    """Bounds of the look-ups; times in seconds."""

    timeout: float = 3.0
    """How long a look-up may take; whoever waits is then told that there is no address."""
    names: int = 1_000
    """Names remembered at most."""
    at_once: int = 32
    """Look-ups in progress, those included that took too long and have not ended."""
    waiters: int = 1_000
    """Requests that wait for a look-up."""
    keep: float = 60.0
    """How long an address is remembered."""
    keep_failure: float = 10.0
    """How long it is remembered that a name has none."""


class Resolver:
    """Looks names up for those who call."""

    def __init__(
        self,
        receiver: Receiver,
        settings: ResolverSettings,
        look_up: Callable[[str], Coroutine[None, None, list[str]]] | None = None,
    ) -> None:
        self.lookups = 0
        """Names looked up."""
        self.failed = 0
        """Look-ups that found nothing, or took too long."""
        self.refused = 0
        """Requests turned away: too many look-ups, or too many waiting."""
        self._look_up = look_up or system_addresses
        """What knows the IP addresses of a name; raises OSError where there are none."""
        self._receiver = receiver
        self._settings = settings
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._numeric: dict[str, Target] = {}
        self._waiting: dict[str, list[Callable[[list[str]], None]]] = {}
        self._waiters = 0
        self._busy: set[asyncio.Task[list[str]]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def resolve(self, uri: Uri, callback: Callback) -> None:
        """Call back with where a request for this URI may be sent, best first.

        An empty list: there is no address. None: the scheme or the transport is not available here
        (tls, ws, anything but a sip URI). The call comes before this returns where nothing has to be
        looked up, else from the loop, followed by the receiver's ``on_batch_end``.
        """
        known = self.numeric(uri)
        if known is not None:
            callback([known])
            return
        transport = _transport(uri)
        if transport is None:
            callback(None)
            return
        port = uri.port or DEFAULT_PORT
        self._addresses(uri.host, lambda found: callback([(transport, each, port) for each in found]))

    def numeric(self, uri: Uri) -> Target | None:
        """Where a request for a URI goes that has an IP address in figures; None for all others."""
        known = self._numeric.get(uri.raw)
        if known is not None:
            return known
        transport = _transport(uri)
        if transport is None or not is_ip(uri.host):
            return None
        address = transport, canonical_ip(uri.host), uri.port or DEFAULT_PORT
        self._remember_numeric(uri.raw, address)
        return address

    def _remember_numeric(self, text: str, address: Target) -> None:
        """A call asks for the same URI three times, and an endpoint's stays the same from call to call."""
        if len(text) <= NUMERIC_LENGTH:
            if len(self._numeric) >= NUMERIC_NAMES:
                self._numeric.clear()
            self._numeric[text] = address

    async def close(self) -> None:
        """Give up every look-up; nobody is called back."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()

    def _addresses(self, host: str, callback: Callable[[list[str]], None]) -> None:
        if host == "localhost":
            callback(list(_LOCALHOST))
            return
        loop = asyncio.get_running_loop()
        until, known = self._known.get(host, (0.0, []))
        if until > loop.time():
            callback(list(known))
            return
        waiting = self._waiting.get(host)
        too_many = waiting is None and max(len(self._busy), len(self._waiting)) >= self._settings.at_once
        if too_many or self._waiters >= self._settings.waiters:
            self.refused += 1
            callback([])
            return
        self._waiters += 1
        if waiting is not None:
            waiting.append(callback)
            return
        self._waiting[host] = [callback]
        task = loop.create_task(self._ask(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        self.lookups += 1
        found: list[str] = []
        # A thread that looks up a name cannot be stopped: it is let go after the time-out, and still counted.
        lookup = loop.create_task(self._look_up(host))
        self._busy.add(lookup)
        lookup.add_done_callback(self._ended)
        with contextlib.suppress(OSError, UnicodeError, TimeoutError):
            async with asyncio.timeout(self._settings.timeout):
                found = await asyncio.shield(lookup)
        if not found:
            self.failed += 1
        self._remember(host, found, loop.time())
        callbacks = self._waiting.pop(host)
        self._waiters -= len(callbacks)
        for callback in callbacks:
            # Each by itself: one that fails does not keep the others waiting.
            loop.call_soon(callback, list(found))
        loop.call_soon(self._receiver.on_batch_end)

    def _ended(self, lookup: asyncio.Task[list[str]]) -> None:
        self._busy.discard(lookup)
        if not lookup.cancelled():
            lookup.exception()  # looked at: a failure after the time-out is no news

    def _remember(self, host: str, found: list[str], now: float) -> None:
        if len(self._known) >= self._settings.names:
            self._known = {each: entry for each, entry in self._known.items() if entry[0] > now}
            if len(self._known) >= self._settings.names:
                self._known.clear()
        self._known[host] = now + (self._settings.keep if found else self._settings.keep_failure), found


def _transport(uri: Uri) -> str | None:
    """RFC 3263 §4.2: without a transport and without SRV records it is UDP; None for what is not available here.

    maddr is not followed: it would name another target than the one whose permission was looked at.
    """
    transport = (uri.transport or "udp").upper()
    return transport if uri.scheme == "sip" and transport in {"UDP", "TCP"} else None


async def system_addresses(host: str) -> list[str]:
    """The IP addresses that the system's resolver knows for a name. Raises OSError or UnicodeError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(canonical_ip(str(each[4][0])) for each in answers))
