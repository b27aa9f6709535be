"""Media relays in the path of calls: messages that wait for one, in order, and what is written down at the end.

``proxy.media_relay`` decides; here its questions are put to the relays (``server.rtpengine``) and the messages go on
with what came back. While a message of a call waits, what comes after it in that call waits as well, as far as it
passes here: requests, the responses to those that carry media, and ACKs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from sipserver.calls import faults
from sipserver.calls.quality import QualityRecords
from sipserver.proxy.effects import Forward
from sipserver.proxy.media_relay import AskRelay, Exchange, Leg, MediaRelay, Settings, delete, end_of
from sipserver.proxy.plan import Plan, Target
from sipserver.proxy.record_route import CALLER
from sipserver.proxy.relay_statistics import measured, packets
from sipserver.server.context import Context
from sipserver.server.rtpengine import Relay, Relays
from sipserver.server.timers import TimerQueue
from sipserver.server.watch import CallWatch
from sipserver.sip import body, names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, Response, Rewritten
from sipserver.sip.values import Address
from sipserver.transport.contract import hostport
from sipserver.transport.ng import NgSocket

MAX_WAITING: Final = 32
"""Messages of one call that wait at most; more are dropped, and will be repeated."""
LOOK_EVERY: Final = 10
"""Seconds between two looks for legs of calls that ended without a message."""

REFUSAL: Final = "Media Relay Unavailable"

_CARRIERS: Final = ("INVITE", "UPDATE", "PRACK")
"""Requests that may carry an offer or an answer, or whose responses may (RFC 6337 §2.2)."""

Step = Callable[[], bool]
"""Does something for a call; False where it goes on later and calls ``Media._next`` then."""


class Passenger(Protocol):
    """A request under way (``server.relay.Relay``)."""

    def send(self, forward: Forward, request: OutgoingRequest) -> None:
        """Send the request, which may have been changed."""

    def refuse(self, branch: int, status: int, reason: str) -> None:
        """Give up the branch, which was not sent."""

    def receive(self, branch: int, response: Response) -> None:
        """Go on with a response, which may have been changed."""


class Media:
    """For all calls."""

    def __init__(
        self, context: Context, watch: CallWatch, quality: QualityRecords, machine: MediaRelay, relays: Relays
    ) -> None:
        self.machine = machine
        self.relays = relays
        self.failures = 0
        """Descriptions for which a relay was needed and none was there."""
        self.dropped = 0
        """Messages dropped since too many of their call were waiting."""
        self._context = context
        self._watch = watch
        self._quality = quality
        self._lines: dict[str, deque[Step]] = {}
        self._seconds = 0

    def start(self, loop: asyncio.AbstractEventLoop, on_batch_end: Callable[[], None]) -> None:
        """Open a socket to each relay. One that cannot be is down, as if it did not answer."""
        for position, relay in enumerate(self.relays.relays):
            if isinstance(relay.line, NgSocket):
                try:
                    relay.line.open(loop, partial(self.relays.on_data, position), on_batch_end)
                except OSError as error:
                    self.relays.failed(position, error.strerror or "it cannot be reached")
        self.relays.tick()

    def close(self) -> None:
        """Close the sockets. What is relayed goes on; without its BYE the relay's time-out ends it."""
        for relay in self.relays.relays:
            if isinstance(relay.line, NgSocket):
                relay.line.close()

    @property
    def waiting(self) -> int:
        """Calls in which a message waits."""
        return len(self._lines)

    # ------------------------------------------------------------------ messages

    def forward(
        self, key: str, request: Request, plan: Plan, flow_in: Flow, target: Target, effect: Forward,
        passenger: Passenger,
    ) -> Exchange | None:  # fmt: skip
        """Send this request, now or later. What it returns is for its responses; None where they need not pass here."""
        exchange = None
        if request.method in _CARRIERS:
            exchange = _exchange(request, plan, flow_in, target, effect)
        if key not in self._lines and (exchange is None or not request.body):
            passenger.send(effect, effect.request)
        else:
            self._enter(key, partial(self._forward, key, request, exchange, effect, passenger))
        return exchange

    def _forward(
        self, key: str, request: Request, exchange: Exchange | None, effect: Forward, passenger: Passenger
    ) -> bool:
        span = body.find_description(request) if exchange is not None else None
        if exchange is None or span is None:
            if exchange is not None and request.body:
                # It may hold an offer that is not to be touched: then its answer is not, either.
                exchange.offered = True
            passenger.send(effect, effect.request)
            return True
        description = request.body[span[0] : span[1]]
        found = self.machine.on_request(key, request.method, exchange, request.to_tag or "", description)
        if isinstance(found, AskRelay):
            self._ask(found, partial(self._forward_with, key, span, effect, passenger, found))
            return False
        passenger.send(effect, effect.request if found is None else _changed(effect.request, span, found))
        return True

    def _forward_with(
        self, key: str, span: tuple[int, int], effect: Forward, passenger: Passenger, ask: AskRelay,
        became: bytes | None,
    ) -> None:  # fmt: skip
        if became is not None:
            passenger.send(effect, _changed(effect.request, span, became))
        elif self._failed(ask, effect.request.method):
            passenger.refuse(effect.branch, 503, REFUSAL)
        else:
            passenger.send(effect, effect.request)
        self._next(key)

    def response(self, key: str, exchange: Exchange, branch: int, response: Response, passenger: Passenger) -> None:
        """Go on with a response to a request that passed here, now or later."""
        if key not in self._lines and not response.body:
            passenger.receive(branch, response)
        else:
            self._enter(key, partial(self._response, key, exchange, branch, response, passenger))

    def _response(
        self, key: str, exchange: Exchange, branch: int, response: Response, passenger: Passenger
    ) -> bool:  # fmt: skip
        span = body.find_description(response) if 100 < response.status < 300 else None
        if span is None:
            passenger.receive(branch, response)
            return True
        description = response.body[span[0] : span[1]]
        found = self.machine.on_response(key, exchange, response.to_tag or "", description)
        if isinstance(found, AskRelay):
            self._ask(found, partial(self._response_with, key, span, branch, response, passenger, found))
            return False
        passenger.receive(branch, response if found is None else _changed_response(response, span, found))
        return True

    def _response_with(
        self, key: str, span: tuple[int, int], branch: int, response: Response, passenger: Passenger, ask: AskRelay,
        became: bytes | None,
    ) -> None:  # fmt: skip
        if became is None:
            # It is too late to refuse: whoever answered has answered.
            self._failed(ask, response.cseq[1])
        passenger.receive(branch, response if became is None else _changed_response(response, span, became))
        self._next(key)

    def ack(
        self, key: str, ack: Request, plan: Plan, flow_in: Flow, made: OutgoingRequest, flow_out: Flow,
        send: Callable[[OutgoingRequest], None],
    ) -> None:  # fmt: skip
        """Send the ACK of a 2xx, which may close an offer that was made in that."""
        if key not in self._lines and (not ack.body or key not in self.machine):
            send(made)
            return
        exchange = _exchange(ack, plan, flow_in, plan.groups[0][0], Forward(0, made, flow_out))
        self._enter(key, partial(self._ack, key, ack, exchange, made, send))

    def _ack(
        self, key: str, ack: Request, exchange: Exchange, made: OutgoingRequest,
        send: Callable[[OutgoingRequest], None],
    ) -> bool:  # fmt: skip
        span = body.find_description(ack)
        if span is None:
            send(made)
            return True
        found = self.machine.on_request(key, "ACK", exchange, ack.to_tag or "", ack.body[span[0] : span[1]])
        if isinstance(found, AskRelay):
            self._ask(found, partial(self._ack_with, key, span, made, send, found))
            return False
        send(made if found is None else _changed(made, span, found))
        return True

    def _ack_with(
        self, key: str, span: tuple[int, int], made: OutgoingRequest, send: Callable[[OutgoingRequest], None],
        ask: AskRelay, became: bytes | None,
    ) -> None:  # fmt: skip
        if became is None:
            self._failed(ask, "ACK")
        send(made if became is None else _changed(made, span, became))
        self._next(key)

    # ------------------------------------------------------------------ order

    def _enter(self, key: str, step: Step) -> None:
        """Do this for a call, after everything that waits in it."""
        line = self._lines.get(key)
        if line is None:
            # Where it has to wait there is a line from now on (``_ask``).
            step()
        elif len(line) < MAX_WAITING:
            line.append(step)
        else:
            self.dropped += 1

    def _next(self, key: str) -> None:
        line = self._lines.get(key)
        while line:
            if not line.popleft()():
                return
        self._lines.pop(key, None)

    # ------------------------------------------------------------------ relays

    def _ask(self, ask: AskRelay, go_on: Callable[[bytes | None], None]) -> None:
        # What was offered can only be answered where it was; an offer can be made anywhere.
        others = ask.command == "offer"
        # The line is there before anything comes back, even at once.
        self._lines.setdefault(ask.leg.key, deque())
        self.relays.asked += 1
        self.relays.ask(ask.fields, ask.leg.relay, partial(self._answered, ask, go_on), others=others)

    def _answered(
        self, ask: AskRelay, go_on: Callable[[bytes | None], None], relay: int, answer: dict[str, Any] | None
    ) -> None:
        became = self.machine.on_reply(ask, relay, answer) if answer is not None else None
        if ask.leg.gone and became is not None:
            # The call has ended meanwhile.
            self._delete([ask.leg])
        go_on(became)

    def _failed(self, ask: AskRelay, method: str) -> bool:
        """Note that no relay helped; True where the message is to be refused."""
        self.failures += 1
        context, now = self._context, self._context.wall_clock()
        refuse = self.machine.on_failed(ask)
        call, found = ask.leg.call, self._watch.find(ask.leg.key)
        context.recorder.error(
            at=int(now * 1000), kind=faults.MEDIA_RELAY, method=method, status=503 if refuse else None, call=call,
            detail=f"{ask.command}: no media relay", answered_by=faults.SERVER if refuse else faults.NETWORK,
            party=found.caller if found is not None else None, target=found.callee if found is not None else None,
        )  # fmt: skip
        if context.may_log(now):
            context.log.warning("media.not_relayed", call=call, method=method, command=ask.command, refused=refuse)
        return refuse

    # ------------------------------------------------------------------ ends

    def branch_over(self, key: str, branch: int) -> None:
        """A device refused or was given up."""
        self._delete(self.machine.branch_over(key, branch))

    def dialog_over(self, key: str, tag: str | None) -> None:
        """A dialog of a call that goes on has ended."""
        self._delete(self.machine.dialog_over(key, tag))

    def call_over(self, key: str) -> None:
        """The call has ended."""
        self._delete(self.machine.call_over(key))

    def tick(self) -> None:
        """Once a second: look after the relays, and now and then for calls that ended without a message."""
        self.relays.tick()
        self._seconds += 1
        if self._seconds % LOOK_EVERY == 0:
            for key in self.machine.calls():
                if key not in self._lines and not self._watch.is_open(key):
                    self.call_over(key)

    def _delete(self, legs: list[Leg]) -> None:
        for leg in legs:
            if leg.relay >= 0:
                self.relays.asked += 1
                self.relays.ask(delete(leg), leg.relay, partial(self._deleted, leg), others=False)

    def _deleted(self, leg: Leg, _relay: int, answer: dict[str, Any] | None) -> None:
        """What went through the leg goes on record."""
        if answer is None or leg.call is None:
            return
        count = packets(answer)
        self._context.log.info("media.relayed", call=leg.call, leg=leg.id, packets=count)
        if not count:
            return
        at = int(self._context.wall_clock() * 1000)
        for each in measured(answer):
            side = leg.tags.get(each.tag)
            if side is not None:
                self._quality.relayed(leg.call, side, each.direction, each.kind, each.ssrc, each.metrics, at)


def media_of(
    context: Context, watch: CallWatch, quality: QualityRecords, timers: TimerQueue, settings: Settings,
    addresses: Sequence[tuple[str, int]], patience: float,
) -> Media:  # fmt: skip
    """What relays media at these addresses; ``patience`` in seconds."""

    def call_of(key: str) -> str | None:
        call = watch.find(key)
        return call.id if call is not None else None

    def on_state(relay: Relay, up: bool, why: str) -> None:
        if up:
            context.log.info("media.relay_up", relay=relay.name, reason=why)
            return
        context.log.error("media.relay_down", relay=relay.name, reason=why)
        context.recorder.error(
            at=int(context.wall_clock() * 1000), kind=faults.MEDIA_RELAY, detail=why, answered_by=faults.NETWORK
        )

    relays = [Relay(hostport(host, port), NgSocket(host, port)) for host, port in addresses]
    pool = Relays(relays, timers, patience, context.tokens.hex16()[:8] + ".", on_state)
    return Media(context, watch, quality, MediaRelay(settings, call_of), pool)


def _exchange(request: Request, plan: Plan, flow_in: Flow, target: Target, effect: Forward) -> Exchange:
    """What the request tells of the two sides, before anything is known of its description."""
    side = plan.dialog[1] if plan.dialog is not None else CALLER
    return Exchange(
        leg=None,
        sender=request.from_tag or "",
        near=end_of(flow_in, _contact(request)),
        far=end_of(effect.flow, target.uri_text, target.host),
        branch=effect.branch if plan.dialog is None else -1,
        side=side,
        offered=False,
    )


def _contact(message: Message) -> str:
    """The sender's contact, as far as it can be read."""
    values = message.values(names.CONTACT)
    try:
        return Address.parse(values[0]).uri_text if values else ""
    except SipError:
        return ""


def _changed(request: OutgoingRequest, span: tuple[int, int], description: bytes) -> OutgoingRequest:
    """The request with another description."""
    whole = body.replaced(request.body, span, description)
    lines = body.with_length(request.lines, len(whole))
    return OutgoingRequest(request.method, request.uri_text, lines, whole, request.branch)


def _changed_response(response: Response, span: tuple[int, int], description: bytes) -> Response:
    whole = body.replaced(response.body, span, description)
    lines = body.with_length(response.lines, len(whole))
    return Rewritten(response.status, response.reason, lines, response.names, whole, response.body)
