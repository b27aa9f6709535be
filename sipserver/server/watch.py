"""From what the proxy saw to what the record says: SIP messages become the plain events of ``calls``.

Each call is also told to the operators here: ``call.placed``, ``call.ringing``, ``call.answered``,
``call.ended`` and ``call.failed``, all with the call's id in the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from sipserver.accounts.parties import Parties
from sipserver.calls import faults, observe
from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    ClockStepped,
    Confirmed,
    Ended,
    Event,
    Failed,
    HangingUp,
    Located,
    Placed,
    Progressed,
    Rang,
    Seen,
    Tried,
)
from sipserver.calls.machine import ENDED, Call
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.quality import BYE, BYE_RESPONSE, QualityRecords, Sender
from sipserver.calls.recorder import Recorder
from sipserver.calls.recovery import CutShort
from sipserver.proxy import effects
from sipserver.proxy.effects import CallEvent
from sipserver.proxy.record_route import other_side
from sipserver.server.context import RETRY_LATER
from sipserver.server.linking import Linker
from sipserver.server.locating import Locator, Settings
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, Response
from sipserver.sip.rtpstat import HEADERS as SUMMARY_HEADERS
from sipserver.sip.rtpstat import summaries
from sipserver.sip.sdp import UNREADABLE, Description
from sipserver.storage.database import StoreError
from sipserver.telemetry.log import Log

STEPS_AT_ONCE: Final = 200
"""Calls in which a step of the clock is noted in one go."""
STRANGERS_PER_SECOND: Final = 20
"""Refused calls of strangers that get a row each second; a flood of more is only counted, in ``errors``."""


class CallWatch:
    """Feeds the recorder. All its methods are called by the proxy's side of the server, in order of time."""

    def __init__(
        self,
        recorder: Recorder,
        quality: QualityRecords,
        parties: Parties,
        is_subscriber: Callable[[str], bool],
        log: Log,
        wall_clock: Callable[[], float],
        locator: Locator | None = None,
        cut_short: Mapping[str, CutShort] | None = None,
    ) -> None:
        """``cut_short`` are the calls that restarts cut short, see ``linking``."""
        self._recorder = recorder
        self._quality = quality
        self._parties = parties
        self._is_subscriber = is_subscriber
        self._log = log
        self._clock = wall_clock
        self._locator = locator or Locator(Settings(), wall_clock)
        self._linker = Linker(recorder, log, cut_short or {})
        self._transfers = self._linker.transfers
        self._unreadable = False
        self._steps: deque[tuple[str, int, int]] = deque()
        """The calls in which a step of the clock is still to be noted: their key, when it was, and by how much."""
        self._shift = 0
        """Milliseconds that the clock was set forward by since the server started."""
        self._makers: dict[str, Callable[[CallEvent, int], Event | None]] = {
            effects.TRIED: self._tried,
            effects.RANG: self._rang,
            effects.ANSWERED: self._answered,
            effects.BRANCH_FAILED: self._branch_failed,
            effects.FAILED: self._failed,
            effects.CANCELLED: self._cancelled,
            effects.CHANGED: self._changed,
            effects.PROGRESSED: self._progressed,
            effects.ENDED: self._ended,
        }
        self._second = 0
        self._strangers = 0

    @property
    def full(self) -> bool:
        """Whether another call could not be written down, and so has to wait."""
        return self._recorder.full

    def steady(self) -> int:
        """UNIX time in milliseconds as if the clock had never been set; a call's own time is this plus its shift."""
        return int(self._clock() * 1000) - self._shift

    def is_open(self, key: str) -> bool:
        """Whether the call of this key goes on."""
        return self._recorder.find(key) is not None

    def clock_stepped(self, seconds: float) -> None:
        """The clock was set by so much. Calls that go on keep the time that they began with, and say so."""
        by_ms = round(seconds * 1000)
        self._shift += by_ms
        now = self.steady()
        self._steps.extend([(key, now, by_ms) for key in self._recorder.open_keys()])

    def note_steps(self) -> bool:
        """Write some of this down; whether there is more. To be called until there is not."""
        for _ in range(min(len(self._steps), STEPS_AT_ONCE)):
            key, at, by_ms = self._steps.popleft()
            call = self._recorder.find(key)
            if call is not None:
                self._recorder.handle(key, ClockStepped(at + call.shift, by_ms))
        return bool(self._steps)

    def placed(
        self, key: str, request: Request, flow: Flow, caller: str | None, callee: str | None, leads_on: bool = False
    ) -> bool:
        """A call begins; False where it is none of those that are written down. ``leads_on``: the callee is somebody
        though no subscriber.

        Raises SipError(503) where there is no room for its row: no call goes on unrecorded.
        """
        at = int(self._clock() * 1000)
        if caller is None and callee is None and self._too_many_strangers(at):
            return False
        place = self._locator.of_request(request, flow, caller)
        party = self.party(caller, is_somebody=True)
        offer = observe.media(request)
        # From now on its times are told by the clock as it is set at this moment, so that no duration is distorted.
        call = self._recorder.place(
            Placed(
                at=at,
                key=key,
                call_id=request.call_id,
                caller=party,
                callee=self.party(callee, is_somebody=leads_on),
                agent=observe.agent(request),
                transport=flow.transport,
                network=self._recorder.network(flow.host),
                offer=offer,
                tag=request.from_tag,
                number=request.cseq[0],
                place=place,
            )
        )
        call.shift = self._shift
        if offer is UNREADABLE:
            self._note_unreadable(request, "INVITE", 0, party, flow.host, call)
        if self._recorder.find(key) is None:
            raise SipError(503, "Calls Cannot Be Recorded", RETRY_LATER)
        if self._locator.is_waiting(flow.host):
            self._locator.when_known(flow.host, partial(self._caller_located, call, request, flow, caller, place))
        self._log.info(
            "call.placed", call=call.id, call_id=request.call_id, caller=caller, callee=callee, source=flow.label
        )
        self._linker.placed(request, call, callee, self.steady(), at)
        return True

    def has_dialog(self, key: str, tag: str | None) -> bool:
        """Whether a request with this tag of the callee's side may belong to this call; calls that are not known are
        believed."""
        call = self._recorder.find(key)
        return call is None or call.has_dialog(tag)

    def hanging_up(self, key: str, tag: str | None) -> None:
        """A BYE of the caller for this dialog is passed on."""
        call = self._recorder.find(key)
        if call is not None and call.is_forked:
            self._recorder.handle(key, HangingUp(self.steady() + call.shift, tag))

    def settled(self, key: str) -> None:
        """No other device will answer the call of this key, since its INVITE is over."""
        call = self._recorder.find(key)
        if call is not None:
            call.settle()

    def find(self, key: str) -> Call | None:
        """The open call of this key."""
        return self._recorder.find(key)

    def party_of(self, address: str | None) -> str | None:
        """The party of an address, where it has one; none is made."""
        try:
            return self._parties.party(address) if address is not None else None
        except StoreError:
            return None

    def event(self, key: str, event: CallEvent, hung_up_at: int = 0) -> None:
        """Something happened to the call of this key; ``hung_up_at`` (``steady`` time) is when a BYE came."""
        if event.kind == effects.REFERRED:
            self._linker.accepted(key, event, self.steady(), self._shift)
            return
        call = self._recorder.find(key)
        if call is None:
            return
        at = self.steady() + call.shift
        maker = self._makers.get(event.kind)
        made = maker(event, at) if maker is not None else None
        if made is None:
            return
        if isinstance(made, Ended):
            made.asked_at = hung_up_at + call.shift
            if event.cause is not None:
                # Whoever sent the BYE is gone since then, and the other side never said that it is there.
                made.at = max(made.asked_at, call.agreed_at)
                made.uncertainty_ms = at - made.at or None
        if self._unreadable:
            self._unreadable = False
            self._note_media(made, event, call)
        if isinstance(made, (Rang, Answered)):
            self._hear_place(call, event)
        self._record(key, made)
        if isinstance(made, Tried):
            self._await_place(call, event, made.place)
        elif isinstance(made, Ended):
            # Its own BYE may show that this dialog was not the one that the caller kept.
            self._summarized(call, event, made, at)
        if self._transfers.waits:
            self._linker.happened(call, made, at)

    def confirmed(self, key: str, ack: Request, side: str = CALLER) -> None:
        """The ACK of a 2xx passes."""
        call = self._recorder.find(key)
        if call is None:
            return
        at, answer = self.steady() + call.shift, observe.media(ack)
        if answer is UNREADABLE:
            self._note_unreadable(ack, "ACK", 0, call.caller if side == CALLER else call.callee, None, call)
        self._recorder.handle(key, Confirmed(at, answer, callee_tag(ack, side), side, ack.cseq[0]))

    def referred(self, key: str, side: str, request: Request) -> None:
        """A REFER within the call is passed on (RFC 3515)."""
        self._linker.referred(key, side, request, self.steady())

    def referred_outside(
        self, key: str, request: Request, transferor: str | None, transferee: str | None,
        calls_of: Callable[[str | None], Iterable[str]],
    ) -> None:  # fmt: skip
        """A REFER that is in no dialog is passed on from this address to that one, None for one that is not ours.

        ``key`` is its own. ``calls_of`` knows the calls of an address by their keys.
        """
        self._linker.referred_outside(
            key, request, self.party_of(transferor), self.party_of(transferee), partial(calls_of, transferee),
            self.steady(),
        )  # fmt: skip

    def seen(self, key: str, at: int) -> None:
        """Both sides of the call gave a sign of life until then (``steady`` time) that stands nowhere yet."""
        call = self._recorder.find(key)
        if call is not None:
            self._recorder.handle(key, Seen(at + call.shift))

    def presume_ended(self, key: str, cause: str, seen: int, watched_until: int | None) -> None:
        """The call is taken to be over for want of evidence, which there was last at ``seen`` (``steady`` time, like
        ``watched_until``)."""
        call = self._recorder.find(key)
        if call is None:
            return
        now, shift = self.steady() + call.shift, call.shift
        at = max(seen + shift, call.agreed_at)
        until = None if watched_until is None else max(watched_until + shift, at)
        self._record(key, Ended(at, SERVER, cause, uncertainty_ms=max(now - at, 0), watched_until=until))

    def refused(self, key: str, status: int, reason: str) -> None:
        """This server refuses the call itself; ``reason`` is for the log, the record has the status."""
        call = self._recorder.find(key)
        if call is not None:
            self._recorder.handle(key, Failed(self.steady() + call.shift, status, SERVER))
            self._log.info("call.failed", call=call.id, status=status, by=SERVER, reason=reason, outcome=call.outcome)

    def _record(self, key: str, event: Event) -> None:
        call = self._recorder.handle(key, event)
        if call is not None:
            self._tell(call, event)

    def _tell(self, call: Call, event: Event) -> None:
        """The log line of an event, where it has one."""
        # Of another dialog of the same call the record tells.
        if isinstance(event, Answered):
            if event.at == call.answered_at:
                self._log.info("call.answered", call=call.id, status=event.status, agent=event.agent)
        elif isinstance(event, Rang):
            if event.at == call.ringing_at:
                self._log.info("call.ringing", call=call.id, agent=event.agent)
        elif isinstance(event, Ended):
            if call.state == ENDED:
                self._log.info(
                    "call.ended", call=call.id, by=event.side, cause=event.cause, outcome=call.outcome,
                    talk_ms=call.talk_ms, uncertainty_ms=event.uncertainty_ms,
                )  # fmt: skip
        elif isinstance(event, Failed):
            self._log.info(
                "call.failed", call=call.id, status=event.status, by=event.by, reason=event.reason,
                outcome=call.outcome,
            )  # fmt: skip

    def _tried(self, event: CallEvent, at: int) -> Event:
        flow, target = event.flow, event.target
        agent = observe.printable(target.user_agent) if target is not None else None
        place = self._place_of_device(event)
        if flow is not None:
            network = self._recorder.network(flow.host)
            return Tried(at, event.branch, flow.transport, network, agent, place)
        # Nothing could be sent: where it registered from is what is known of it.
        network = self._recorder.network(target.host) if target is not None and target.host else None
        transport = (target.transport or None) if target is not None else None
        return Tried(at, event.branch, transport, network, agent, place)

    def _place_of_device(self, event: CallEvent) -> Place:
        target, host = event.target, _host_of(event)
        if not host:
            return NOWHERE
        if target is None or not target.host:
            # Nobody registered it: what is known is somebody's server that the call goes to.
            return self._locator.of_next_hop(host)
        return self._locator.of_device(target.aor, target.uri_text, host, is_relayed=bool(target.path))

    def _hear_place(self, call: Call, event: CallEvent) -> None:
        """A device may say itself where it is when it rings or answers."""
        message, target = event.message, event.target
        if not isinstance(message, Response):
            return
        registered = target is not None and bool(target.host)
        relayed = not registered or (target is not None and bool(target.path))
        place = self._locator.of_response(message, _host_of(event), is_registered=registered, is_relayed=relayed)
        if place is not NOWHERE:
            self._recorder.locate(call, Located(place, event.branch))

    def _await_place(self, call: Call, event: CallEvent, before: Place) -> None:
        host = _host_of(event)
        if self._locator.is_waiting(host):
            self._locator.when_known(host, partial(self._device_located, call, event, before))

    def _caller_located(self, call: Call, request: Request, flow: Flow, caller: str | None, before: Place) -> None:
        place = self._locator.of_request(request, flow, caller)
        if place != before:
            self._recorder.locate(call, Located(place))

    def _device_located(self, call: Call, event: CallEvent, before: Place) -> None:
        place = self._place_of_device(event)
        if place != before:
            self._recorder.locate(call, Located(place, event.branch))

    def _rang(self, event: CallEvent, at: int) -> Event:
        message = event.message
        if message is None:
            return Rang(at, event.branch)
        return Rang(
            at, event.branch, observe.agent(message), self._media(message), message.to_tag,
            observe.is_reliable(message),
        )  # fmt: skip

    def _answered(self, event: CallEvent, at: int) -> Event:
        message = event.message
        if message is None:
            return Answered(at, event.branch, event.status)
        return Answered(at, event.branch, event.status, observe.agent(message), self._media(message), message.to_tag)

    def _branch_failed(self, event: CallEvent, at: int) -> Event:
        message = event.message
        agent = observe.agent(message) if message is not None else None
        return BranchFailed(at, event.branch, event.status, event.cause, agent, event.heard, event.followed)

    def _failed(self, event: CallEvent, at: int) -> Event:
        message = event.message
        reason = observe.reason(message) if message is not None else None
        return Failed(at, event.status, SERVER if message is None else CALLEE, reason)

    def _cancelled(self, event: CallEvent, at: int) -> Event:
        return Cancelled(at, observe.reason(event.message) if event.message is not None else None)

    def _changed(self, event: CallEvent, at: int) -> Event:
        request, message, side = event.request, event.message, event.side or CALLER
        answer = self._media(message) if message is not None else None
        if request is None:
            return Changed(at, side, None, answer)
        return Changed(
            at, side, self._media(request), answer, callee_tag(request, side), request.method, request.cseq[0]
        )

    def _progressed(self, event: CallEvent, at: int) -> Event | None:
        request, message, side = event.request, event.message, event.side or CALLER
        answer = self._media(message) if message is not None else None
        if request is None or message is None or answer is None:
            return None
        return Progressed(
            at, side, self._media(request), answer, callee_tag(request, side), request.cseq[0],
            observe.is_reliable(message),
        )  # fmt: skip

    def _ended(self, event: CallEvent, at: int) -> Event:
        request, side = event.request, event.side or SERVER
        if request is None:
            return Ended(at, side)
        return Ended(at, side, reason=observe.reason(request), tag=callee_tag(request, side))

    def _summarized(self, call: Call, event: CallEvent, ended: Ended, at: int) -> None:
        """What the endpoints say of their media in the BYE and in its response."""
        side = event.side or CALLER
        for message, source, sender_side in (
            (event.request, BYE, side), (event.message, BYE_RESPONSE, other_side(side)),
        ):  # fmt: skip
            if message is None or SUMMARY_HEADERS.isdisjoint(message.names):
                continue
            kept = call.is_kept(ended.tag)
            sender = Sender(source, observe.agent(message), call=call.id, side=sender_side, is_kept=kept)
            for summary in summaries(message):
                self._quality.summary(summary, sender, at)

    # Which offers and answers cannot be read.

    def _media(self, message: Message) -> Description | None:
        found = observe.media(message)
        if found is UNREADABLE:
            self._unreadable = True
        return found

    def _note_media(self, made: Event, event: CallEvent, call: Call) -> None:
        """Note a description that could not be read; the call goes on, with its media unknown."""
        source = event.flow.host if event.flow is not None else None
        if isinstance(made, Rang | Answered):
            if made.answer is UNREADABLE and event.message is not None:
                self._note_unreadable(event.message, "INVITE", event.status, call.callee, source, call)
        elif isinstance(made, Changed | Progressed):
            caller, callee = call.caller, call.callee
            asking, answering = (caller, callee) if made.side == CALLER else (callee, caller)
            method = event.request.method if event.request is not None else None
            if made.offer is UNREADABLE and event.request is not None:
                self._note_unreadable(event.request, method, 0, asking, None, call)
            if made.answer is UNREADABLE and event.message is not None:
                self._note_unreadable(event.message, method, event.status, answering, source, call)

    def _note_unreadable(
        self, message: Message, method: str | None, status: int, party: str | None, source: str | None, call: Call
    ) -> None:
        self._recorder.error(
            at=int(self._clock() * 1000), kind=faults.UNREADABLE_SDP, method=method, status=status or None,
            agent=observe.agent(message), party=party, detail=observe.why_unreadable(message), source=source,
            answered_by="peer", call=call.id if self._recorder.find(call.key) is call else None,
            offset=call.shift - self._shift,
        )  # fmt: skip

    def party(self, address: str | None, *, is_somebody: bool = False) -> str | None:
        """The party of an address: made at first need, but never for an address that nobody is known to have."""
        if address is None:
            return None
        try:
            party = self._parties.party(address)
            if party is None and (is_somebody or self._is_subscriber(address)):
                party = self._parties.ensure(address)
        except StoreError:
            return None
        return party

    def _too_many_strangers(self, at: int) -> bool:
        if at // 1000 != self._second:
            self._second, self._strangers = at // 1000, 0
        self._strangers += 1
        return self._strangers > STRANGERS_PER_SECOND


def _host_of(event: CallEvent) -> str:
    """The host that a branch's device registered from, or that the branch goes to; empty where neither is known."""
    if event.target is not None and event.target.host:
        return event.target.host
    return event.flow.host if event.flow is not None else ""


def callee_tag(request: Request, side: str) -> str | None:
    """Which of the call's dialogs a request of this side belongs to."""
    return request.to_tag if side == CALLER else request.from_tag
