"""Calls that nobody hangs up: what shows that a call is up, and when its record is closed for want of it.

Each side of an answered call gives signs of life: its requests, ACKs and responses inside the dialog. A call is known
to have been up until the earlier of both sides' last signs. Its record is closed there, with how much later it may have
ended, when

    session_expired     the session was not refreshed in time (RFC 4028 §8.3)
    connection_lost     the connection of a side broke, no sign came over another within the grace, and it is not found
    registration_lost   the same, but what went is the registration of the contact
    probe_failed        a side did not answer when it was asked, or knew of no such call, twice in a row
    no_evidence         there was no sign at all for too long

Nothing is sent to end the call: a proxy may not (RFC 4028 §8.3), and what the endpoints still say to each other
passes.

A connection or a registration that goes is a reason to ask, not an answer: endpoints reconnect, and some sign off in
the middle of a call. So after the grace that side is asked once (``proxy.probe``), over whatever way leads to it now.
The same question is put at intervals where the operator wants it (``probe``).

Where several devices answered, the call is the dialog that the caller keeps (``calls.dialogs``). Until the others are
ended each of them has its own callee side here, and one without evidence is given up before the call is.

There is one object for each side of a call and no timer: each second a part of the calls is looked at, some at a time,
all of them within SWEEP seconds. Times are milliseconds of ``CallWatch.steady``, which no setting of the clock moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sipserver.location.base import Location
from sipserver.location.spread import Spread
from sipserver.proxy import probe
from sipserver.proxy.forward import next_hop
from sipserver.proxy.plan import Plan, Target
from sipserver.proxy.probe import ABSENT
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.registrar.binding import Binding
from sipserver.server.context import Context
from sipserver.server.flows import FlowFinder
from sipserver.server.sides import Side, WatchedCall
from sipserver.server.watch import CallWatch
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response
from sipserver.sip.values import Address
from sipserver.storage.database import StoreError

SESSION_EXPIRED: Final = "session_expired"
CONNECTION_LOST: Final = "connection_lost"
REGISTRATION_LOST: Final = "registration_lost"
PROBE_FAILED: Final = "probe_failed"
NO_EVIDENCE: Final = "no_evidence"

SWEEP: Final = 10
"""Seconds within which every call is looked at."""
AT_ONCE: Final = 500
"""Calls that are looked at each second at least."""
LOOKS: Final = 500
"""Calls that are looked at in one go at most: a millisecond or two."""
MISSES: Final = 2
"""Questions without an answer that are enough."""
ASK_AGAIN_MS: Final = 12_000
"""From one of them to the next: longer than a destination is left alone that could not be connected to."""
NOTE_EVERY_MS: Final = 300_000
"""How often signs of life that are no event of the call are noted in its timeline, for the case of a crash."""
MAX_PROBES: Final = 1_000
"""Questions under way."""
MAX_SEARCHES: Final = 50
"""Of those, such whose side lost its connection or registration: they may need a connection each."""
MAX_IN_TUPLE: Final = 16
"""Calls at one place of an index that stand in a tuple; more of them in a set."""
MAX_TOLD_APART: Final = 64
"""Calls of one address that are looked at for the one that somebody means."""


Keys = str | tuple[str, ...] | set[str]
"""Of the calls at one place of an index. Most are one alone, and a few take a fifth of the room in a tuple."""


@dataclass(slots=True)
class Settings:
    """What an operator decides about evidence; times in milliseconds."""

    grace: int = 32_000
    """How long a sign may come late: after a session has expired, and after a connection or registration went."""
    probe: int = 0
    """How long a side may be silent until it is asked; 0 for never."""
    silence: int = 24 * 3_600_000
    """How long a call may go without a sign of both sides."""


class Liveness:
    """The evidence of every answered call. ``jitter`` gives numbers from 0 to 1, so that questions spread."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        watch: CallWatch,
        finder: FlowFinder,
        location: Location,
        jitter: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.closed: dict[str, int] = {}
        """Records that were closed for want of evidence, by cause."""
        self.asked = 0
        """Questions that were put."""
        self.finder = finder
        """Finds the ways to the sides of calls."""
        self._context = context
        self._watch = watch
        self._location = location
        self._jitter = jitter
        self._calls: Spread[str, WatchedCall] = Spread()
        self._ring: deque[str] = deque()
        """Every key of ``_calls``, and those of calls that ended since it was last looked at them."""
        self._over_connection: Spread[int, Keys] = Spread()
        """Keys by connection."""
        self._of_address: Spread[str, Keys] = Spread()
        """The same by address."""
        self._due = 0
        """Calls that are still to be looked at in this second."""
        self._expiries_count_from = 0
        self._asking = 0
        self._searching = 0

    def __len__(self) -> int:
        return len(self._calls)

    # ------------------------------------------------------------------ what the proxy sees

    def answered(
        self, key: str, invite: Request, plan: Plan, flow_in: Flow, answer: Response, target: Target | None,
        flow_out: Flow, interval: int,
    ) -> None:  # fmt: skip
        """A call is answered, or once more by another device; ``interval`` is the session interval of this dialog in
        seconds, 0 for none."""
        call = self._calls.get(key)
        if not self._watch.is_open(key) or (call is not None and not call.may_have(answer.to_tag)):
            return
        now = self._watch.steady()
        instance = target.instance if target is not None else None
        end = probe.callee_end(answer, plan.token)
        # The one that its binding has is kept anyway.
        address = target.aor if target is not None and target.aor == plan.callee else plan.callee
        callee = Side(end, flow_out, address, instance, now, answer.to_tag)
        if interval:
            callee.expires_at = now + interval * 1000
        self._index(key, callee)
        if call is not None:
            call.others = (*call.others, callee)
            return
        caller = Side(probe.caller_end(invite), flow_in, plan.caller, None, now)
        self._index(key, caller)
        after = self.settings.probe
        call = WatchedCall(
            key, invite.call_id, caller, callee, int(after * (0.9 + 0.2 * self._jitter())) if after else 0
        )
        self._calls.part(key)[key] = call
        self._ring.append(key)

    def asked_for(self, key: str, side: str, request: Request, flow: Flow) -> None:
        """This side sent a request inside the call over this flow."""
        call = self._calls.get(key)
        if call is not None:
            self._alive(call, call.side(side, request, by_caller=side == CALLER), flow)

    def responded(self, key: str, side: str, response: Response) -> None:
        """This side responded to a request inside the call."""
        call = self._calls.get(key)
        if call is not None:
            self._alive(call, call.side(side, response, by_caller=side == CALLEE), None)

    def confirmed(self, key: str, side: str, ack: Request, flow: Flow) -> None:
        """An ACK of this side passes: what it acknowledges has just come from the other."""
        call = self._calls.get(key)
        if call is not None:
            by_caller = side == CALLER
            callee = call.side(CALLEE, ack, by_caller=by_caller)
            self._alive(call, call.caller if by_caller else callee, flow)
            call.caller.seen = callee.seen = self._watch.steady()
            if callee is call.callee:
                call.noted = callee.seen

    def refreshed(self, key: str, side: str, request: Request, answer: Response, interval: int) -> None:
        """A session refresh request of this side was accepted: the session expires so many seconds from now, or never
        for 0 (RFC 4028 §8.2)."""
        call = self._calls.get(key)
        if call is None:
            return
        now = self._watch.steady()
        callee = call.side(CALLEE, request, by_caller=side == CALLER)
        sender, other = (call.caller, callee) if side == CALLER else (callee, call.caller)
        sender.refresh(request)
        other.refresh(answer)
        sender.seen = other.seen = now
        callee.expires_at = now + interval * 1000 if interval else 0
        if callee is call.callee:
            call.noted = now

    def dialog_ended(self, key: str, tag: str | None) -> None:
        """The dialog with this tag of the callee's has ended, and the call has not: the caller keeps another."""
        call = self._calls.get(key)
        if call is None or not call.others:
            return
        callee = call.callee_of(tag)
        if callee is not call.callee or callee.tag == tag:
            self._drop(call, callee)

    def _drop(self, call: WatchedCall, callee: Side) -> None:
        """One of several dialogs is not the call's, or not any more."""
        if callee is call.callee:
            # As ``calls.dialogs`` has it: the first of those that stand.
            call.callee, call.others = call.others[0], call.others[1:]
            # What the caller did not answer was asked in the dialog that it has no more.
            doubt = call.caller.doubt
            if doubt is not None:
                doubt.misses = 0
                doubt.asking = False
        else:
            call.others = tuple([each for each in call.others if each is not callee])
        left = call.sides
        if callee.flow.connection not in [each.flow.connection for each in left]:
            _leave(self._over_connection.part(callee.flow.connection), callee.flow.connection, call.key)
        if callee.address is not None and callee.address not in [each.address for each in left]:
            _leave(self._of_address.part(callee.address), callee.address, call.key)

    def forget(self, key: str) -> None:
        """The call has ended."""
        call = self._calls.part(key).pop(key, None)
        if call is None:
            return
        for side in call.sides:
            if side.flow.connection:
                _leave(self._over_connection.part(side.flow.connection), side.flow.connection, key)
            if side.address is not None:
                _leave(self._of_address.part(side.address), side.address, key)

    def _index(self, key: str, side: Side) -> None:
        if side.flow.connection:
            _join(self._over_connection.part(side.flow.connection), side.flow.connection, key)
        if side.address is not None:
            _join(self._of_address.part(side.address), side.address, key)

    def calls_of(self, address: str | None) -> tuple[str, ...]:
        """The keys of the answered calls of this address; none where there are too many to tell them apart."""
        keys = _keys(self._of_address.get(address)) if address is not None else ()
        return keys if len(keys) <= MAX_TOLD_APART else ()

    # ------------------------------------------------------------------ what goes

    def connection_lost(self, flow: Flow) -> None:
        """A connection is gone."""
        for key in _keys(self._over_connection.part(flow.connection).pop(flow.connection, None)):
            call = self._calls.get(key)
            if call is not None:
                for side in call.sides:
                    if side.flow.connection == flow.connection:
                        self._suspect(side, CONNECTION_LOST)

    def binding_lost(self, binding: Binding, *, expired: bool) -> None:
        """A contact is no longer registered."""
        keys = _keys(self._of_address.get(binding.aor))
        if not keys or (expired and self._watch.steady() < self._expiries_count_from):
            return
        for key in keys:
            call = self._calls.part(key)[key]
            for side in call.sides:
                if side.address == binding.aor and _is_of(binding, side):
                    side.instance = binding.instance or side.instance
                    self._suspect(side, REGISTRATION_LOST)

    def distrust_expiries(self, seconds: float) -> None:
        """The clock was set: for so long, registrations expire that nobody let expire."""
        self._expiries_count_from = self._watch.steady() + int(seconds * 1000)

    def _suspect(self, side: Side, cause: str) -> None:
        doubt = side.doubted()
        if not doubt.lost_at:
            doubt.lost_at, doubt.cause = self._watch.steady(), cause

    # ------------------------------------------------------------------ once a second

    def tick(self) -> None:
        """Another second: ``look`` is to be called until all are looked at whose turn it is."""
        self._due = min(len(self._ring), max(AT_ONCE, len(self._ring) // SWEEP))

    def look(self) -> bool:
        """Look at some of the calls whose turn it is; whether there are more."""
        now = self._watch.steady()
        looks = min(self._due, LOOKS)
        self._due -= looks
        for _ in range(looks):
            key = self._ring.popleft()
            call = self._calls.get(key)
            if call is None:
                continue
            if self._watch.is_open(key):
                self._ring.append(key)
                self._look_at(call, now)
            else:
                self.forget(key)
        return self._due > 0

    def _look_at(self, call: WatchedCall, now: int) -> None:
        settings, seen = self.settings, call.seen
        expires_at = call.callee.expires_at
        if expires_at and now >= expires_at + settings.grace:
            if seen <= expires_at:
                self._give_up(call, SESSION_EXPIRED)
                return
            # Both sides go on without refreshing: their timer says nothing.
            call.callee.expires_at = 0
        if now >= seen + settings.silence:
            self._give_up(call, NO_EVIDENCE)
            return
        if seen - call.noted >= NOTE_EVERY_MS:
            call.noted = seen
            self._watch.seen(call.key, seen)
        for side in (call.caller, call.callee):
            if self._is_to_be_asked(call, side, now):
                self._ask(call, side)
                # What it could not be asked may have been the last.
                if self._calls.get(call.key) is None:
                    return

    def _is_to_be_asked(self, call: WatchedCall, side: Side, now: int) -> bool:
        due, doubt = side.seen + call.probe_after, side.doubt
        if doubt is not None:
            if doubt.asking:
                return False
            if doubt.lost_at:
                return now >= doubt.lost_at + self.settings.grace and self._searching < MAX_SEARCHES
            if doubt.misses:
                due = doubt.retry_at
        return bool(call.probe_after) and now >= due and self._asking < MAX_PROBES

    def _give_up(self, call: WatchedCall, cause: str, lost_at: int = 0) -> None:
        """There is no evidence of the dialog that was taken for the call: it may be another one, which is then looked
        at, or none."""
        if call.others:
            self._drop(call, call.callee)
            return
        self.closed[cause] = self.closed.get(cause, 0) + 1
        # While the connection stood, a BYE would have come over it.
        until = lost_at if lost_at and cause == CONNECTION_LOST else None
        self._watch.presume_ended(call.key, cause, call.seen, until)
        self.forget(call.key)

    # ------------------------------------------------------------------ questions

    def _ask(self, call: WatchedCall, side: Side) -> None:
        question = _Question(self, call, side)
        doubt = side.doubted()
        doubt.asking = True
        self.asked += 1
        self._asking += 1
        self._searching += question.searches
        is_caller = side is call.caller
        other = call.callee if is_caller else call.caller
        try:
            request, plan = probe.options(call.call_id, side, other)
            hop = next_hop(plan, plan.groups[0][0])
        except SipError:
            question.on_failed(0, "")
            return
        question.ready(request, plan)
        flow = self._known_flow(side)
        if flow is not None and not doubt.misses and not plan.routes:
            question.on_flow(flow)
            return
        dialog = call.key, CALLER if is_caller else CALLEE
        self.finder.find(hop, self._registered(side), dialog, reliable=False, found=question.on_flow)

    def _known_flow(self, side: Side) -> Flow | None:
        """The way by which this side was heard last, while it is there."""
        flow = side.flow
        if not flow.connection:
            return flow
        found = self._context.transports.flow_for(flow.transport, flow.host, flow.port, flow.connection)
        return found if found is not None and found.connection == flow.connection else None

    def _registered(self, side: Side) -> Target | None:
        """The connection over which this device is registered now, if it is."""
        if side.address is None:
            return None
        try:
            bindings = self._location.get(side.address, self._context.wall_clock())
        except StoreError:
            return None
        contact = _contact_uri(side)
        for binding in bindings:
            same_device = side.instance is not None and binding.instance == side.instance
            if (binding.contact == contact or same_device) and binding.connection:
                return Target(
                    binding.contact, path=binding.path, transport=binding.transport, host=binding.host,
                    port=binding.port, connection=binding.connection,
                )  # fmt: skip
        return None

    def send(self, question: _Question, request: Request, plan: Plan, flow: Flow) -> None:
        """Put the question over this flow."""
        tokens = self._context.tokens
        self._context.transactions.request(probe.outgoing(request, plan, flow, tokens.hex16()), flow, question)

    def note_answer(self, question: _Question, *, alive: bool, flow: Flow | None) -> None:
        """A question was answered, or will not be."""
        call, side = question.call, question.side
        doubt = side.doubted()
        if question.dialog is call.callee:
            doubt.asking = False
        self._asking -= 1
        self._searching -= question.searches
        if self._calls.get(call.key) is not call or question.dialog is not call.callee:
            return
        if alive:
            self._alive(call, side, flow)
            return
        doubt.misses += 1
        doubt.retry_at = self._watch.steady() + ASK_AGAIN_MS
        if doubt.lost_at:
            self._give_up(call, doubt.cause, doubt.lost_at)
        elif doubt.misses >= MISSES:
            self._give_up(call, PROBE_FAILED)

    # ------------------------------------------------------------------ signs

    def _alive(self, call: WatchedCall, side: Side, flow: Flow | None) -> None:
        side.seen = self._watch.steady()
        side.believe()
        before = side.flow
        if flow is None or flow is before:
            return
        side.flow = flow
        if flow.connection != before.connection:
            if before.connection not in [each.flow.connection for each in call.sides]:
                _leave(self._over_connection.part(before.connection), before.connection, call.key)
            if flow.connection:
                _join(self._over_connection.part(flow.connection), flow.connection, call.key)


class _Question:
    """An OPTIONS to one side of a call (``transactions.ClientUser``)."""

    __slots__ = ("_flow", "_liveness", "_over", "_plan", "_request", "call", "dialog", "searches", "side")

    def __init__(self, liveness: Liveness, call: WatchedCall, side: Side) -> None:
        self.call = call
        self.side = side
        self.dialog = call.callee
        """The callee's side of the dialog in which it is put."""
        self.searches = int(side.doubt is not None and side.doubt.lost_at > 0)
        """1 where its side's connection or registration went."""
        self._liveness = liveness
        self._flow: Flow | None = None
        self._over = False
        self._request: Request | None = None
        self._plan: Plan | None = None

    def ready(self, request: Request, plan: Plan) -> None:
        """What is to be asked."""
        self._request, self._plan = request, plan

    def on_flow(self, flow: Flow | None) -> None:
        """This is the way to that side; None where there is none."""
        if flow is None or self._request is None or self._plan is None:
            self._finish(alive=False)
            return
        self._flow = flow
        self._liveness.send(self, self._request, self._plan, flow)

    def on_response(self, branch: int, response: Response) -> None:
        """From the transaction."""
        if response.status > 100:
            self._finish(alive=response.status not in ABSENT)

    def on_failed(self, branch: int, cause: str) -> None:
        """From the transaction."""
        self._finish(alive=False)

    def _finish(self, *, alive: bool) -> None:
        if not self._over:
            self._over = True
            self._liveness.note_answer(self, alive=alive, flow=self._flow)


def _join(index: dict[Any, Keys], at: Any, key: str) -> None:
    """Put a call into an index."""
    found = index.get(at)
    if found is None:
        index[at] = key
    elif isinstance(found, set):
        found.add(key)
    elif isinstance(found, str):
        if found != key:
            index[at] = found, key
    elif key not in found:
        index[at] = (*found, key) if len(found) < MAX_IN_TUPLE else {*found, key}


def _leave(index: dict[Any, Keys], at: Any, key: str) -> None:
    """Take a call out of an index."""
    found = index.get(at)
    if isinstance(found, set):
        found.discard(key)
        if not found:
            del index[at]
    elif isinstance(found, tuple):
        left = tuple([each for each in found if each != key])
        index[at] = left if len(left) > 1 else left[0]
    elif found == key:
        del index[at]


def _keys(found: Keys | None) -> tuple[str, ...]:
    """The calls at one place of an index."""
    if found is None:
        return ()
    return (found,) if isinstance(found, str) else tuple(found)


def _contact_uri(side: Side) -> str | None:
    """The contact of this side as a registration names it."""
    try:
        return Address.parse(side.contact).uri_text if side.contact else None
    except SipError:
        return None


def _is_of(binding: Binding, side: Side) -> bool:
    """Whether a registration is that of this side's device."""
    flow = side.flow
    if side.instance is not None and binding.instance == side.instance:
        return True
    if (binding.transport, binding.host, binding.port) == (flow.transport, flow.host, flow.port):
        return True
    return binding.contact == _contact_uri(side)
