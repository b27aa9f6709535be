"""From what the proxy saw to what the record says: SIP messages become the plain events of ``calls``.

Each call is also told to the operators here: ``call.placed``, ``call.ringing``, ``call.answered``,
``call.ended`` and ``call.failed``, all with the call's id in the record.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from sipserver.accounts.parties import Parties
from sipserver.calls import observe
from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    Confirmed,
    Ended,
    Event,
    Failed,
    Located,
    Placed,
    Rang,
    Tried,
)
from sipserver.calls.machine import Call
from sipserver.calls.places import Place
from sipserver.calls.quality import BYE, BYE_RESPONSE, QualityRecords, Sender
from sipserver.calls.recorder import Recorder
from sipserver.proxy import fork
from sipserver.proxy.fork import CallEvent
from sipserver.proxy.record_route import other_side
from sipserver.server.context import RETRY_LATER
from sipserver.server.locating import Locator, Settings
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request
from sipserver.sip.rtpstat import HEADERS as SUMMARY_HEADERS
from sipserver.sip.rtpstat import summaries
from sipserver.sip.sdp import Description
from sipserver.storage.database import StoreError
from sipserver.telemetry.log import Log

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
    ) -> None:
        self._recorder = recorder
        self._quality = quality
        self._parties = parties
        self._is_subscriber = is_subscriber
        self._log = log
        self._clock = wall_clock
        self._locator = locator or Locator(Settings(), wall_clock)
        self._makers: dict[str, Callable[[CallEvent, int], Event | None]] = {
            fork.TRIED: self._tried,
            fork.RANG: self._rang,
            fork.ANSWERED: self._answered,
            fork.BRANCH_FAILED: self._branch_failed,
            fork.FAILED: self._failed,
            fork.CANCELLED: self._cancelled,
            fork.CHANGED: self._changed,
            fork.ENDED: self._ended,
        }
        self._second = 0
        self._strangers = 0

    @property
    def full(self) -> bool:
        """Whether another call could not be written down, and so has to wait."""
        return self._recorder.full

    def placed(self, key: str, request: Request, flow: Flow, caller: str | None, callee: str | None) -> bool:
        """A call begins; False where it is none of those that are written down.

        Raises SipError(503) where there is no room for its row: no call goes on unrecorded.
        """
        at = int(self._clock() * 1000)
        if caller is None and callee is None and self._too_many_strangers(at):
            return False
        place = self._locator.of_request(request, flow, caller)
        call = self._recorder.place(
            Placed(
                at=at,
                key=key,
                call_id=request.call_id,
                caller=self.party(caller),
                callee=self.party(callee),
                agent=observe.agent(request),
                transport=flow.transport,
                network=self._recorder.network(flow.host),
                offer=observe.media(request),
                place=place,
            )
        )
        if self._recorder.find(key) is None:
            raise SipError(503, "Calls Cannot Be Recorded", RETRY_LATER)
        if self._locator.is_waiting(flow.host):
            self._locator.when_known(flow.host, partial(self._caller_located, call, request, flow, caller, place))
        self._log.info(
            "call.placed", call=call.id, call_id=request.call_id, caller=caller, callee=callee, source=flow.label
        )
        return True

    def event(self, key: str, event: CallEvent) -> None:
        """Something happened to the call of this key."""
        call = self._recorder.find(key)
        if call is None:
            return
        at = int(self._clock() * 1000)
        if event.kind == fork.ENDED:
            self._summarized(call, event, at)
        made = self._makers[event.kind](event, at)
        if made is not None:
            self._record(key, made)
        if isinstance(made, Tried):
            host = _host_of(event)
            if self._locator.is_waiting(host):
                self._locator.when_known(host, partial(self._device_located, call, event, made.place))

    def confirmed(self, key: str, ack: Request) -> None:
        """The ACK of a 2xx passes."""
        if self._recorder.find(key) is not None:
            self._recorder.handle(key, Confirmed(int(self._clock() * 1000), answer=observe.media(ack)))

    def refused(self, key: str, status: int, reason: str) -> None:
        """This server refuses the call itself; ``reason`` is for the log, the record has the status."""
        call = self._recorder.handle(key, Failed(int(self._clock() * 1000), status, SERVER))
        if call is not None:
            self._log.info("call.failed", call=call.id, status=status, by=SERVER, reason=reason, outcome=call.outcome)

    def _record(self, key: str, event: Event) -> None:
        call = self._recorder.handle(key, event)
        if call is not None:
            self._tell(call, event)

    def _tell(self, call: Call, event: Event) -> None:
        """The log line of an event, where it has one."""
        match event:
            case Answered():
                self._log.info("call.answered", call=call.id, status=event.status, agent=event.agent)
            case Rang():
                self._log.info("call.ringing", call=call.id, agent=event.agent)
            case Ended():
                self._log.info(
                    "call.ended", call=call.id, by=event.side, cause=event.cause, outcome=call.outcome,
                    talk_ms=call.talk_ms,
                )  # fmt: skip
            case Failed():
                self._log.info(
                    "call.failed", call=call.id, status=event.status, by=event.by, reason=event.reason,
                    outcome=call.outcome,
                )  # fmt: skip

    def _tried(self, event: CallEvent, at: int) -> Event:
        flow = event.flow
        assert flow is not None, "a branch that was tried has a flow"
        return Tried(
            at, event.branch, flow.transport, self._recorder.network(flow.host), self._place_of_device(event)
        )

    def _place_of_device(self, event: CallEvent) -> Place:
        target, host = event.target, _host_of(event)
        if target is None or not target.host:
            # Nobody registered it: what is known is somebody's server that the call goes to.
            return self._locator.of_next_hop(host)
        return self._locator.of_device(target.aor, target.uri_text, host, is_relayed=bool(target.path))

    def _caller_located(self, call: Call, request: Request, flow: Flow, caller: str | None, before: Place) -> None:
        place = self._locator.of_request(request, flow, caller)
        if place != before:
            self._recorder.locate(call, Located(place))

    def _device_located(self, call: Call, event: CallEvent, before: Place) -> None:
        place = self._place_of_device(event)
        if place != before:
            self._recorder.locate(call, Located(place, event.branch))

    def _rang(self, event: CallEvent, at: int) -> Event:
        return Rang(at, event.branch, *self._agent_and_media(event.message))

    def _answered(self, event: CallEvent, at: int) -> Event:
        agent, media = self._agent_and_media(event.message)
        return Answered(at, event.branch, event.status, agent, media)

    def _branch_failed(self, event: CallEvent, at: int) -> Event:
        message = event.message
        agent = observe.agent(message) if message is not None else None
        return BranchFailed(at, event.branch, event.status, event.cause, agent, event.heard)

    def _failed(self, event: CallEvent, at: int) -> Event:
        message = event.message
        reason = observe.reason(message) if message is not None else None
        return Failed(at, event.status, SERVER if message is None else CALLEE, reason)

    def _cancelled(self, event: CallEvent, at: int) -> Event:
        return Cancelled(at, observe.reason(event.message) if event.message is not None else None)

    def _changed(self, event: CallEvent, at: int) -> Event:
        offer = observe.media(event.request) if event.request is not None else None
        answer = observe.media(event.message) if event.message is not None else None
        return Changed(at, event.side or CALLER, offer, answer)

    def _ended(self, event: CallEvent, at: int) -> Event:
        request = event.request
        return Ended(at, event.side or SERVER, reason=observe.reason(request) if request is not None else None)

    def _summarized(self, call: Call, event: CallEvent, at: int) -> None:
        """What the endpoints say of their media in the BYE and in its response."""
        side = event.side or CALLER
        for message, source, sender_side in (
            (event.request, BYE, side), (event.message, BYE_RESPONSE, other_side(side)),
        ):  # fmt: skip
            if message is None or SUMMARY_HEADERS.isdisjoint(message.names):
                continue
            sender = Sender(source, observe.agent(message), call=call.id, side=sender_side)
            for summary in summaries(message):
                self._quality.summary(summary, sender, at)

    @staticmethod
    def _agent_and_media(message: Message | None) -> tuple[str | None, Description | None]:
        if message is None:
            return None, None
        return observe.agent(message), observe.media(message)

    def party(self, address: str | None) -> str | None:
        """The party of an address: made at first need, but never for an address of ours that nobody has."""
        if address is None:
            return None
        try:
            party = self._parties.party(address)
            if party is None and self._is_subscriber(address):
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
    """The host that a branch's device registered from, or that the branch goes to."""
    flow = event.flow
    assert flow is not None, "a branch that was tried has a flow"
    return event.target.host or flow.host if event.target is not None else flow.host
