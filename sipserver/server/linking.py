"""Which call came of which: what the proxy sees of REFER and Replaces, and the links that are put on record.

A call that began before the server was last started is not in memory. Where somebody refers to such a call, it is
found by the hash of its Call-ID among those that the restart cut short; its tags were never stored, and it is the
other side that accepts the REFER or the Replaces, or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sipserver.calls import transfers
from sipserver.calls.events import CALLEE, CALLER, Answered, Event, Referred
from sipserver.calls.machine import ENDED, Call
from sipserver.calls.recorder import Recorder
from sipserver.calls.recovery import CutShort
from sipserver.calls.transfers import OUTSIDE, Link, Transfers
from sipserver.proxy.effects import CallEvent
from sipserver.sip import names
from sipserver.sip.message import Request
from sipserver.telemetry.log import Log

MAX_OUTSIDE: Final = 1_000
"""REFERs outside of calls whose answer is waited for."""


class Linker:
    """Puts links into the record. Times are milliseconds; ``now`` is ``CallWatch.steady``."""

    def __init__(self, recorder: Recorder, log: Log, cut_short: Mapping[str, CutShort]) -> None:
        """``cut_short`` by the hash of their Call-ID."""
        self.transfers = Transfers()
        self._recorder = recorder
        self._log = log
        self._cut_short = cut_short
        self._outside: dict[str, tuple[str, str]] = {}
        """Of a REFER outside of the call that it is about: that call's key, and the side of its sender."""

    def placed(self, request: Request, call: Call, callee: str | None, now: int, at: int) -> None:
        """Note whether a new call was asked for by a REFER, or is to replace another one."""
        replaces = None
        if request.has(names.REPLACES):
            replaces = transfers.parse_replaces(request.header(names.REPLACES) or "")
            if replaces is not None:
                open_call = self._recorder.find_dialog(replaces.call_id, replaces.to_tag, replaces.from_tag)
                earlier = self._earlier(replaces.call_id) if open_call is None else None
                if open_call is not None:
                    self.transfers.may_replace(call.id, open_call.id)
                elif earlier is not None:
                    self.transfers.may_replace(call.id, earlier.id)
        if len(self.transfers):
            self._put(self.transfers.placed(request, call.id, call.caller, callee, replaces, now), at)

    def referred(self, key: str, side: str, request: Request, now: int) -> None:
        """A REFER inside a call is passed on (RFC 3515)."""
        call = self._recorder.find(key) or self._earlier(request.call_id)
        if call is not None:
            transferee = call.callee if side == CALLER else call.caller
            self.transfers.referred(key, side, request, call.id, transferee, now)

    def referred_outside(
        self, key: str, request: Request, transferor: str | None, transferee: str | None,
        calls_of_transferee: Callable[[], Iterable[str]], now: int,
    ) -> None:  # fmt: skip
        """A REFER that is in no dialog is passed on, from this party to that one; ``key`` is the request's own."""
        if transferee is None:
            return
        call: Call | CutShort | None
        if request.has(names.TARGET_DIALOG):
            dialog = transfers.parse_target_dialog(request.header(names.TARGET_DIALOG) or "")
            call = None
            if dialog is not None:
                call = self._recorder.find_dialog(*dialog) or self._earlier(dialog[0])
        else:
            call = self._between(transferor, transferee, calls_of_transferee())
        # Whoever is asked knows whether the dialog is its own; that it may be is seen here.
        if call is None or transferee not in (call.caller, call.callee):
            return
        self.transfers.referred(key, OUTSIDE, request, call.id, transferee, now)
        if isinstance(call, Call):
            while len(self._outside) >= MAX_OUTSIDE:
                del self._outside[next(iter(self._outside))]
            self._outside[key] = call.key, CALLER if transferee == call.callee else CALLEE

    def accepted(self, key: str, event: CallEvent, now: int, shift: int) -> None:
        """A REFER got its 2xx; ``shift`` is for calls that are not known, see ``Call.shift``."""
        request = event.request
        if request is None:
            return
        accepted = self.transfers.accepted(key, event.side or OUTSIDE, request.cseq[0])
        call_key, side = self._outside.pop(key, (key, event.side))
        if accepted is None:
            return
        link, attended = accepted
        call = self._recorder.find(call_key)
        at = now + (shift if call is None else call.shift)
        if side is not None:
            self._recorder.handle(call_key, Referred(at, side, attended))
        self._put(link, at)

    def happened(self, call: Call, event: Event, at: int) -> None:
        """A call that may be to replace another one is answered, or over."""
        if isinstance(event, Answered):
            self._put(self.transfers.answered(call.id), at)
        elif call.state == ENDED:
            self.transfers.over(call.id)

    def _between(self, one: str | None, other: str, keys: Iterable[str]) -> Call | None:
        """The only one of these calls that these two parties have with each other."""
        parties = sorted((one or "", other))
        found = []
        for key in keys:
            call = self._recorder.find(key)
            if call is not None and sorted((call.caller or "", call.callee or "")) == parties:
                found.append(call)
        return found[0] if len(found) == 1 and one is not None else None

    def _earlier(self, call_id: str) -> CutShort | None:
        """The call of this Call-ID that was up when the server stopped."""
        return self._cut_short.get(self._recorder.hash_call_id(call_id)) if self._cut_short else None

    def _put(self, link: Link | None, at: int) -> None:
        if link is not None:
            self._recorder.link(link.call, link.other, link.kind, at)
            self._log.info("call.linked", call=link.call, other=link.other, kind=link.kind)
