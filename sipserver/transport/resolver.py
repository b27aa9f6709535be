"""From a URI to the addresses that a request for it can be sent to (RFC 3263).

``sip.locate`` decides what to ask for; here the records are found: those that are remembered, those of the hosts file,
and of all others by name servers, for a bounded time, a bounded number at once. A record is remembered as long as its
TTL says, within bounds; that there is none, as long as its zone says (RFC 2308), within bounds as well. IP addresses
cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sipserver.sip.locate import (
    TLS,
    Place,
    Question,
    Records,
    Search,
    Usable,
    locate,
    numeric_place,
    transports_for,
)
from sipserver.sip.uri import Uri
from sipserver.transport.contract import Receiver, canonical_ip, is_ip
from sipserver.transport.nameservers import Answer, NoAnswer, WatchedFile, hosts_of

Target = Place
Callback = Callable[[list[Place] | None], None]

NUMERIC_NAMES = 4_096
"""URIs with an IP address in figures whose way is remembered; what it is does not change."""
NUMERIC_LENGTH = 200
"""Longer ones are not remembered, so that all together stay small."""

_LOCALHOST = ("127.0.0.1", "::1")
_NOTHING = Records()


@dataclass(slots=True)
class ResolverSettings:
    """Bounds of the look-ups; times in seconds."""

    questions: int = 5_000
    """Answers remembered at most."""
    at_once: int = 256
    """Questions in progress."""
    waiters: int = 1_000
    """Requests that wait for answers."""
    ttl_min: float = 5.0
    ttl_max: float = 3600.0
    """How long records are remembered at least and at most, whatever their TTL."""
    negative_max: float = 60.0
    """How long it is remembered at most that there are none."""
    keep_failure: float = 10.0
    """How long it is remembered that no name server answered."""


class _Pending:
    """A URI that waits for answers."""

    __slots__ = ("answers", "asked", "callback", "missing", "steps")

    def __init__(self, steps: Search, callback: Callback) -> None:
        self.steps = steps
        self.callback = callback
        self.asked: list[Question] = []
        """The questions that come next, and what is known of them."""
        self.answers: dict[Question, Records] = {}
        self.missing = 0
        """Answers that are waited for."""


class Resolver:
    """Looks names up for those who call."""

    def __init__(
        self,
        receiver: Receiver,
        settings: ResolverSettings,
        ask: Callable[[Question], Awaitable[Answer]],
        usable: Callable[[], Usable],
        fraction: Callable[[], float],
        hosts: Path = Path("/etc/hosts"),
    ) -> None:
        self.settings = settings
        self.lookups = 0
        """Questions asked."""
        self.failed = 0
        """Questions that no name server answered."""
        self.refused = 0
        """Questions that were not asked, since there were too many, or too many waited for answers."""
        self.ask = ask
        """Who knows records (``NameServers.ask``)."""
        self._receiver = receiver
        self._usable = usable
        self._fraction = fraction
        self._hosts_file = WatchedFile(hosts)
        self._hosts: dict[str, list[str]] = {}
        self._known: dict[Question, tuple[float, Records]] = {}
        self._numeric: dict[str, Place] = {}
        self._asking: dict[Question, list[_Pending]] = {}
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def resolve(self, uri: Uri, callback: Callback) -> None:
        """Call back with where a request for this URI may be sent, best first.

        An empty list: there is no address. None: the scheme or the transport is not available here (ws, tls where
        it is not used, anything but a SIP URI). The call comes before this returns where nothing has to be looked up,
        else from the loop, followed by the receiver's ``on_batch_end``.
        """
        known = self.numeric(uri)
        if known is not None:
            callback([known])
            return
        usable = self._usable()
        if not uri.is_sip or is_ip(uri.host) or not (uri.transport is None or transports_for(uri, usable)):
            callback(None)
            return
        pending = _Pending(locate(uri, usable, self._fraction), callback)
        try:
            pending.asked = next(pending.steps)
        except StopIteration as stop:
            callback(stop.value)
            return
        self._advance(pending)

    def numeric(self, uri: Uri) -> Place | None:
        """Where a request for a URI goes that has an IP address in figures; None for all others."""
        known = self._numeric.get(uri.raw)
        if known is not None:
            return known
        if not is_ip(uri.host):
            return None
        place = numeric_place(uri)
        if place is None or (place[0] == TLS and not transports_for(uri, self._usable())):
            return None
        found = place[0], canonical_ip(place[1]), place[2]
        self._remember_numeric(uri.raw, found)
        return found

    def _remember_numeric(self, text: str, place: Place) -> None:
        """A call asks for the same URI three times, and an endpoint's stays the same from call to call."""
        if len(text) <= NUMERIC_LENGTH:
            if len(self._numeric) >= NUMERIC_NAMES:
                self._numeric.clear()
            self._numeric[text] = place

    async def close(self) -> None:
        """Give up every look-up; nobody is called back."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._asking.clear()

    def forget(self) -> None:
        """Ask anew for everything: the name servers are others than before."""
        self._known.clear()

    def _advance(self, pending: _Pending) -> None:
        """Go on as far as what is known leads; ask for what is not."""
        while True:
            for question in pending.asked:
                if question not in pending.answers:
                    records = self._at_hand(question)
                    if records is not None:
                        pending.answers[question] = records
                    else:
                        self._ask_for(question, pending)
            if pending.missing:
                return
            answers = [pending.answers[each] for each in pending.asked]
            pending.answers = {}
            try:
                pending.asked = pending.steps.send(answers)
            except StopIteration as stop:
                pending.callback(stop.value)
                return

    def _at_hand(self, question: Question) -> Records | None:
        """The records that need no name server; None where one has to be asked."""
        name, kind = question
        if kind == "SRV" and name.startswith(("_sip._", "_sips._")):
            name = name.split(".", 2)[2]
        if name == "localhost" or name.endswith(".localhost"):
            return _addresses(_LOCALHOST, kind)
        # RFC 6761 §6.4, RFC 7686 §2: these are in no DNS. Browsers name themselves like this (RFC 7118 §5).
        if name.endswith((".invalid", ".onion")):
            return _NOTHING
        if self._hosts_file.changed():
            self._hosts = hosts_of(self._hosts_file.text())
        known = self._hosts.get(name)
        if known is not None:
            # Whoever writes an address there means this address, and no servers that the DNS knows.
            return _addresses(known, kind)
        until, records = self._known.get(question, (0.0, _NOTHING))
        return records if until > asyncio.get_running_loop().time() else None

    def _ask_for(self, question: Question, pending: _Pending) -> None:
        waiting = self._asking.get(question)
        too_many = waiting is None and len(self._asking) >= self.settings.at_once
        if too_many or self._waiting >= self.settings.waiters:
            self.refused += 1
            pending.answers[question] = _NOTHING
            return
        self._waiting += 1
        pending.missing += 1
        if waiting is not None:
            waiting.append(pending)
            return
        self._asking[question] = [pending]
        task = asyncio.get_running_loop().create_task(self._ask(question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, question: Question) -> None:
        loop = asyncio.get_running_loop()
        self.lookups += 1
        settings = self.settings
        records, keep = _NOTHING, settings.keep_failure
        try:
            answer = await self.ask(question)
        except NoAnswer:
            self.failed += 1
        else:
            records = answer.records
            # What one server or forger says is forgotten after a time, and what has no TTL is not asked for each time.
            found = records.naptr or records.srv or records.addresses
            keep = max(settings.ttl_min, min(answer.ttl, settings.ttl_max if found else settings.negative_max))
        self._remember(question, records, loop.time(), keep)
        for pending in self._asking.pop(question):
            self._waiting -= 1
            pending.missing -= 1
            pending.answers[question] = records
            if not pending.missing:
                # Each by itself: one that fails does not keep the others waiting.
                loop.call_soon(self._advance, pending)
        loop.call_soon(self._receiver.on_batch_end)

    def _remember(self, question: Question, records: Records, now: float, keep: float) -> None:
        if len(self._known) >= self.settings.questions:
            self._known = {each: entry for each, entry in self._known.items() if entry[0] > now}
            if len(self._known) >= self.settings.questions:
                self._known.clear()
        self._known[question] = now + keep, records


def _addresses(known: Sequence[str], kind: str) -> Records:
    """Those of the IP version that is asked for."""
    if kind not in ("A", "AAAA"):
        return _NOTHING
    return Records(addresses=[each for each in known if (":" in each) == (kind == "AAAA")])
