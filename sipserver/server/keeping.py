"""The flows that bindings live by: which are gone, and which a NAT forgets unless something passes (RFC 5626 §5.4, §7).

    its connection ends ─────────────────────┐
    so many pings in a row have no answer ───┴──► its address is held ──► gone from location.db, then from memory

A binding behind a NAT is pinged at intervals: by an OPTIONS, whose answer (any answer) shows that the flow leads to
somebody, or by CRLFs, which keep the NAT's mapping where nobody can be asked. There is no timer for each binding but a
wheel: a slot for each STEP of the interval, with the bindings whose turn comes then, AT_ONCE of them at most. A ping is
one datagram and is not repeated; the next one is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from sipserver.location.base import Location
from sipserver.location.spread import Spread
from sipserver.proxy.forward import request_uri
from sipserver.registrar.binding import Binding, Change
from sipserver.server.context import Context
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Response
from sipserver.sip.values import MAGIC_COOKIE

OFF: Final = "off"
CRLF: Final = "crlf"
OPTIONS: Final = "options"

CONNECTION_LOST: Final = "connection closed"
NO_ANSWER: Final = "pings not answered"
RESTART: Final = "server restarted"

PAUSE: Final = 0.005
"""Seconds between one portion and the next of what is done in portions."""
STEP: Final = 0.1
"""Seconds between two slots of the wheel."""
LOST_AT_ONCE: Final = 100
"""Bindings of a connection that are taken out of use in one go."""
SEEN_AT_ONCE: Final = 1_000
"""Addresses that are gone through in one go for what is to be kept open."""
AT_ONCE: Final = 400
"""Bindings that are pinged in one step at most; the others wait for the next."""
_CRLFS: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Settings:
    """What an operator decides about bindings behind NATs."""

    ping: str = OPTIONS
    """OFF, CRLF or OPTIONS."""
    interval: float = 25.0
    """Seconds between two pings of a binding at most, and nine tenths of it at least."""
    misses: int = 3
    """OPTIONS in a row without an answer after which a binding is taken out of use; 0 for never."""


def _ignore(_binding: Binding, _cause: str) -> None:
    """Nobody wants to know yet."""


class _Kept:
    """A binding that is pinged."""

    __slots__ = ("binding", "branch", "misses")

    def __init__(self, binding: Binding) -> None:
        self.binding: Binding | None = binding
        """None once it is none any more."""
        self.branch = ""
        """Of the OPTIONS that was not answered yet."""
        self.misses = 0
        """Those in a row that were not answered in time."""


class FlowKeeper:
    """Takes bindings out of use whose flow is gone, and keeps the flows of others open."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        location: Location,
        later: Callable[[float, Callable[[], None]], object],
        domain: str,
    ) -> None:
        self.lost: dict[str, int] = {}
        """Bindings taken out of use, by cause."""
        self.pings = 0
        """Pings sent."""
        self.answered = 0
        """OPTIONS that were answered."""
        self.unanswered = 0
        """OPTIONS that were not."""
        self._context = context
        self._location = location
        self._later = later
        """Calls back after so many seconds."""
        self._from = f"<sip:{domain}>"
        self.told: Callable[[Binding, str], None] = _ignore
        """Called with every binding that is none any more, and why."""
        self._settings = settings
        self._over: dict[int, Binding | set[Binding]] = {}
        """Bindings by the connection that they live by; one alone stands without a set, since most are."""
        self._kept: Spread[Binding, _Kept] = Spread()
        self._asked: dict[str, _Kept] = {}
        """Those that were asked, by branch."""
        self._wheel: list[list[_Kept]] = []
        self._at = 0
        self._turning = False
        self._losing: set[Binding] = set()
        """Being taken out of use."""
        self._again: list[tuple[Binding, str]] = []
        """Could not be taken out of use."""
        self._broken: deque[Binding] = deque()
        """Lived by connections that are gone."""
        self._unseen: list[str] = []
        """Addresses of which it is not known whether they have something to keep open."""
        self._make_wheel()

    @property
    def kept(self) -> int:
        """Bindings whose flows are kept open."""
        return len(self._kept)

    def use(self, settings: Settings) -> None:
        """Go on with these settings."""
        self._settings = settings
        self._kept.clear()
        self._asked.clear()
        self._make_wheel()
        self.start()

    def start(self) -> None:
        """Keep what is in the location already, some of it at once and the rest soon."""
        self._unseen = self._location.addresses()
        self._see()

    def loaded(self, binding: Binding) -> None:
        """This one came into memory from the disk."""
        if binding.natted:
            self._keep(binding, None)

    def _see(self) -> None:
        now = self._context.wall_clock()
        for aor in self._unseen[-SEEN_AT_ONCE:]:
            for binding in self._location.get(aor, now):
                if binding.natted and binding not in self._kept.part(binding) and binding not in self._losing:
                    self._keep(binding, None)
        del self._unseen[-SEEN_AT_ONCE:]
        if self._unseen:
            self._later(PAUSE, self._see)

    def changed(self, change: Change) -> None:
        """A binding has come, gone, or taken the place of another."""
        before, after = change.before, change.after
        kept: _Kept | None = None
        if before is not None:
            if before.connection:
                self._leave(before)
            if before.natted:
                kept = self._kept.part(before).pop(before, None)
        if after is not None:
            if after.connection and after.flow_only:
                self._join(after)
            if after.natted:
                self._keep(after, kept)
                return
        self._let_go(kept)

    def connection_lost(self, flow: Flow) -> None:
        """A connection is gone, and with it what lived by it (RFC 5626 §7)."""
        found = self._over.pop(flow.connection, None)
        if isinstance(found, Binding):
            self.lose(found, CONNECTION_LOST)
        elif found is not None:
            is_at_it = bool(self._broken)
            self._broken.extend(found)
            if not is_at_it:
                self._lose_broken()

    def _lose_broken(self) -> None:
        for _ in range(min(len(self._broken), LOST_AT_ONCE)):
            self.lose(self._broken.popleft(), CONNECTION_LOST)
        self._location.flush()
        if self._broken:
            self._later(PAUSE, self._lose_broken)

    def lose(self, binding: Binding, cause: str) -> None:
        """Take a binding out of use: first on disk, unless its endpoint is just coming back."""
        if binding in self._losing:
            return
        self._losing.add(binding)
        # Nobody is there: nothing more is sent, however long the disk takes.
        self._let_go(self._kept.part(binding).pop(binding, None))
        go_on = partial(self._remove, binding, cause)
        try:
            if self._location.acquire(binding.aor, go_on):
                go_on()
        except SipError:
            self._try_again(binding, cause)

    def tick(self) -> None:
        """Once a second: what could not be taken out of use."""
        if self._again:
            again, self._again = self._again, []
            for binding, cause in again:
                self.lose(binding, cause)

    def turn(self) -> None:
        """The wheel turns by a slot."""
        self._turning = False
        if not self._kept:
            return
        self._turn()
        due = self._wheel[self._at]
        self._at = (self._at + 1) % len(self._wheel)
        self._wheel[self._at - 1] = []
        # Those that wait for the next step come before those whose turn it is then.
        self._wheel[self._at][:0] = due[AT_ONCE:]
        for kept in due[:AT_ONCE]:
            if kept.binding is not None:
                self._ping(kept, kept.binding)
                self._put(kept, 0.9 + 0.1 * self._context.tokens.fraction())
        self._location.flush()

    def on_response(self, response: Response, flow: Flow) -> bool:
        """An answer that belongs to no transaction; whether it is that to an OPTIONS from here."""
        kept = self._asked.get(response.top_via.branch or "")
        if kept is None or kept.binding is None or kept.binding.host != flow.host:
            return False
        del self._asked[kept.branch]
        kept.branch = ""
        kept.misses = 0
        self.answered += 1
        return True

    # ------------------------------------------------------------------ taking out of use

    def _remove(self, binding: Binding, cause: str) -> None:
        """The address is held."""
        if binding not in self._location.get(binding.aor, self._context.wall_clock()):
            # Its endpoint came back meanwhile, or went by itself.
            self._losing.discard(binding)
            self._location.release(binding.aor)
            return
        self._location.replace(binding.aor, [Change(binding, None)], partial(self._removed, binding, cause))

    def _removed(self, binding: Binding, cause: str, stored: bool) -> None:
        if stored:
            self._losing.discard(binding)
            self.changed(Change(binding, None))
            self.lost[cause] = self.lost.get(cause, 0) + 1
            self.told(binding, cause)
        else:
            self._try_again(binding, cause)
        self._location.release(binding.aor)

    def _try_again(self, binding: Binding, cause: str) -> None:
        self._losing.discard(binding)
        self._again.append((binding, cause))

    def _join(self, binding: Binding) -> None:
        if self._flow(binding) is None:
            # It broke while the answer waited for the disk.
            self.lose(binding, CONNECTION_LOST)
            return
        found = self._over.get(binding.connection)
        if found is None:
            self._over[binding.connection] = binding
        elif isinstance(found, Binding):
            self._over[binding.connection] = {found, binding}
        else:
            found.add(binding)

    def _leave(self, binding: Binding) -> None:
        found = self._over.get(binding.connection)
        if found is binding:
            del self._over[binding.connection]
        elif isinstance(found, set):
            found.discard(binding)
            if not found:
                del self._over[binding.connection]

    # ------------------------------------------------------------------ keeping open

    def _make_wheel(self) -> None:
        self._at = 0
        self._wheel = [[] for _ in range(max(2, round(self._settings.interval / STEP) + 1))]

    def _keep(self, binding: Binding, kept: _Kept | None) -> None:
        """Ping this binding from now on; ``kept`` was what it takes the place of."""
        # RFC 5626 §4.4.1: who registers a connection as its flow pings it, and WebSocket has pings of its own.
        by_itself = binding.is_connected and (binding.reg_id is not None or binding.transport in ("WS", "WSS"))
        if self._settings.ping == OFF or by_itself:
            self._let_go(kept)
            return
        if kept is None:
            kept = _Kept(binding)
            # Many come at once after an outage.
            self._put(kept, self._context.tokens.fraction())
        else:
            kept.binding, kept.misses = binding, 0
        self._kept.part(binding)[binding] = kept
        self._turn()

    def _let_go(self, kept: _Kept | None) -> None:
        """Ping this one no more."""
        if kept is not None:
            self._asked.pop(kept.branch, None)
            kept.binding = None

    def _put(self, kept: _Kept, part: float) -> None:
        """Have its turn come after this part of the interval."""
        slots = len(self._wheel)
        self._wheel[(self._at + max(1, int(part * (slots - 1)))) % slots].append(kept)

    def _turn(self) -> None:
        if not self._turning:
            self._turning = True
            self._later(STEP, self.turn)

    def _ping(self, kept: _Kept, binding: Binding) -> None:
        settings = self._settings
        if kept.branch:
            del self._asked[kept.branch]
            kept.branch = ""
            kept.misses += 1
            self.unanswered += 1
            if settings.misses and kept.misses >= settings.misses:
                self.lose(binding, NO_ANSWER)
                return
        flow = self._flow(binding)
        if flow is None:
            return
        self.pings += 1
        if settings.ping == CRLF:
            self._context.transports.send(flow, _CRLFS)
            return
        kept.branch = f"{MAGIC_COOKIE}k{self._context.tokens.hex16()}"
        self._asked[kept.branch] = kept
        self._context.transports.send(flow, self._options(binding, flow, kept.branch))

    def _options(self, binding: Binding, flow: Flow, branch: str) -> bytes:
        """RFC 3261 §11.1."""
        token = self._context.tokens.hex16()
        uri = request_uri(binding.contact)
        lines = (
            f"OPTIONS {uri} SIP/2.0", f"Via: SIP/2.0/{flow.transport} {flow.sent_by};branch={branch};rport",
            "Max-Forwards: 70", f"From: {self._from};tag={token}", f"To: <{uri}>", f"Call-ID: {token}",
            "CSeq: 1 OPTIONS", "Content-Length: 0", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode("latin-1")

    def _flow(self, binding: Binding) -> Flow | None:
        """The flow that the binding came by, while it is there."""
        return self._context.transports.flow_of(
            binding.transport, binding.host, binding.port, binding.connection, binding.local
        )
