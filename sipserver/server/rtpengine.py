"""The media relays: questions to them, which of them answer, and which is asked next.

They are asked in the order of the configuration. One that does not answer in time is down until it answers a ping;
meanwhile it costs nobody any time. All attempts of a question together take no longer than ``patience``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sipserver.server.timers import TimerQueue
from sipserver.transport.ng import NgError, decode_answer, encode

PING_EVERY: Final = 5
"""Seconds between two pings of a relay that is up and was not asked anything."""
MAX_WAITING: Final = 10_000
"""Questions to one relay at once."""

_AGAIN: Final = "again"
_PATIENCE: Final = "patience"
_PING: Final[dict[str, Any]] = {"command": "ping"}

Done = Callable[[int, dict[str, Any] | None], None]
"""Called with the position of the relay that answered and its answer, which may be an error; None for no answer."""


class Line(Protocol):
    """What a relay is talked to over (``transport.ng.NgSocket``)."""

    def send(self, data: bytes) -> bool:
        """Send; False where that is in vain."""


class Relay:
    """One relay."""

    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        """``host:port``."""
        self.line = line
        self.up = True
        """Whether it is asked. Until it fails for the first time it is believed."""
        self.heard = False
        """Whether it has answered since the last look."""
        self.waiting: dict[bytes, _Question] = {}
        """Questions that it has not answered, by their cookies."""


class Relays:
    """All of them. ``on_state`` is told of each that goes down or comes back, and why."""

    def __init__(
        self,
        relays: Sequence[Relay],
        timers: TimerQueue,
        patience: float,
        cookie: str,
        on_state: Callable[[Relay, bool, str], None],
    ) -> None:
        self.relays = list(relays)
        self.patience = patience
        """Seconds that a question takes at most."""
        self.asked = 0
        """Commands sent, pings aside."""
        self.timed_out = 0
        """Commands that a relay did not answer in time."""
        self._timers = timers
        self._cookie = cookie
        self._number = 0
        self._on_state = on_state
        self._seconds = 0

    @property
    def states(self) -> dict[str, int]:
        """1 for each relay that is up, else 0."""
        return {relay.name: int(relay.up) for relay in self.relays}

    def ask(self, fields: dict[str, Any], first: int, done: Done, *, others: bool) -> None:
        """Put a command to the relay at this position (-1: to any), and where ``others`` may do it as well to those."""
        order = [first] if first >= 0 else []
        if others:
            order += [i for i in range(len(self.relays)) if i != first]
        order = [i for i in order if self.relays[i].up]
        # All may have to be tried.
        share = self.patience / max(1, len(order))
        _Question(self, encode(fields), order, share, done).go_on()

    def on_data(self, position: int, data: bytes) -> None:
        """A datagram of this relay."""
        try:
            cookie, answer = decode_answer(data)
        except NgError:
            return
        relay = self.relays[position]
        relay.heard = True
        question = relay.waiting.pop(cookie, None)
        if not relay.up:
            relay.up = True
            self._on_state(relay, True, "it answers")
        if question is not None:
            question.on_answer(answer)

    def failed(self, position: int, why: str) -> None:
        """Take this relay out of use, and let its questions go on elsewhere."""
        relay = self.relays[position]
        if relay.up:
            relay.up = False
            self._on_state(relay, False, why)
        waiting, relay.waiting = relay.waiting, {}
        for question in waiting.values():
            question.go_on()

    def tick(self) -> None:
        """Once a second: ping those that are down, and now and then those that were not heard of."""
        look = self._seconds % PING_EVERY == 0
        self._seconds += 1
        for position, relay in enumerate(self.relays):
            if not relay.up or (look and not relay.heard):
                _Question(self, encode(_PING), [position], self.patience, _ignore).go_on()
            if look:
                relay.heard = False

    def send(self, question: _Question, position: int) -> bool:
        """Send a question to a relay and wait for its answer; False where that is in vain."""
        relay = self.relays[position]
        if len(relay.waiting) >= MAX_WAITING:
            return False
        self._number += 1
        question.cookie = f"{self._cookie}{self._number}".encode()
        relay.waiting[question.cookie] = question
        if not relay.line.send(question.cookie + b" " + question.data):
            relay.waiting.pop(question.cookie, None)
            self.failed(position, "it cannot be reached")
            return False
        for part in (1, 2):
            self._timers.add(question.share * part / 3, _Timer(self, question, position), _AGAIN)
        self._timers.add(question.share, _Timer(self, question, position), _PATIENCE)
        return True

    def on_timer(self, question: _Question, cookie: bytes, position: int, timer: str) -> None:
        """A question was not answered yet."""
        relay = self.relays[position]
        if relay.waiting.get(cookie) is not question:
            return
        if timer == _AGAIN:
            relay.line.send(cookie + b" " + question.data)
            return
        self.timed_out += 1
        self.failed(position, "it does not answer")


class _Timer:
    """Brings a timer back to a question, with the cookie that it had."""

    __slots__ = ("_cookie", "_position", "_question", "_relays")

    def __init__(self, relays: Relays, question: _Question, position: int) -> None:
        self._relays = relays
        self._question = question
        self._cookie = question.cookie
        self._position = position

    def on_timer(self, timer: str) -> None:
        """The timer is due."""
        self._relays.on_timer(self._question, self._cookie, self._position, timer)


class _Question:
    """A command on its way, from relay to relay until one does it."""

    __slots__ = ("_done", "_last", "_left", "_relays", "cookie", "data", "share")

    def __init__(self, relays: Relays, data: bytes, order: list[int], share: float, done: Done) -> None:
        self.data = data
        self.share = share
        """Seconds that one relay has."""
        self.cookie = b""
        self._relays = relays
        self._left = order
        self._done = done
        self._last: tuple[int, dict[str, Any] | None] = (-1, None)

    def go_on(self) -> None:
        """Ask the next relay, or give up."""
        while self._left:
            position = self._left.pop(0)
            self._last = (position, self._last[1])
            if self._relays.send(self, position):
                return
        self._done(*self._last)

    def on_answer(self, answer: dict[str, Any]) -> None:
        """A relay has answered; one that cannot do it leaves it to the next."""
        if answer.get("result") in (b"error", b"load limit") and self._left:
            self._last = (self._last[0], answer)
            self.go_on()
        else:
            self._done(self._last[0], answer)


def _ignore(_position: int, _answer: dict[str, Any] | None) -> None:
    """A ping: what it shows is noted by whoever received it."""
