"""One call, from the INVITE to its end. Pure: events in (``calls.events``), rows to be written out (``calls.rows``).

    PLACED ──Rang──► RINGING ──Answered──► ANSWERED ──Confirmed──► CONFIRMED ──Ended──► ENDED
       │                │                     └────────Ended──────────────────────────►
       └──Answered──►   └──Failed───────────────────────────────────────────────────►

The first 2xx is the call; a later one is only noted on its branch. CANCEL does not end a call, the final response
that follows does: the callee may have answered first. The end is then the moment of the CANCEL, since nobody was
waiting any more. A BYE from the caller before the answer (RFC 3261 §15) counts as a CANCEL.

    setup_ms   INVITE to the first sign of a device: ringing, answer, or refusal (the session request delay of
               RFC 6076 §4.3, seen from here; successes and failures are told apart by ``outcome``)
    ring_ms    first ringing to the answer, or to the end of a call that was not answered
    talk_ms    answer to end; ringing is never in it

A device's row in ``call_branches`` is written when its part is over, so that most devices cost one row, not three.
What happens in ENDED changes nothing, but for a place that becomes known late. Times that run backwards give no
duration: unknown is None.
"""

from __future__ import annotations

from typing import Final

from sipserver.calls import outcomes
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
from sipserver.calls.media import MediaBook
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.rows import (
    CallAnswered,
    CallConfirmed,
    CallEnded,
    CallLocated,
    CallMedia,
    CallRang,
    InsertBranch,
    InsertCall,
    InsertEvent,
    Row,
)
from sipserver.sip import sdp
from sipserver.sip.sdp import Description

PLACED: Final = 0
RINGING: Final = 1
ANSWERED: Final = 2
CONFIRMED: Final = 3
ENDED: Final = 4

MAX_EVENTS: Final = 1_000
"""Lines of one call's timeline; its end is written whatever their number. More changes than that are kept as media."""


class _Branch:
    """A device that was tried and whose part is not over."""

    __slots__ = ("agent", "early_answer", "network", "place", "ringing_at", "transport", "tried_at")

    def __init__(self, tried_at: int, transport: str | None, network: str | None, place: Place = NOWHERE) -> None:
        self.tried_at = tried_at
        self.transport = transport
        self.network = network
        self.place = place
        self.ringing_at: int | None = None
        self.agent: str | None = None
        self.early_answer: Description | None = None


class Call:
    """A call and what is to be written of it."""

    __slots__ = (
        "_answered_branch", "_branches", "_cancel_reason", "_cancelled_at", "_devices", "_event_number", "_media",
        "_open_offer", "_placed", "_reached", "_setup_ms", "answered_at", "id", "outcome", "ringing_at", "state",
        "talk_ms",
    )  # fmt: skip

    def __init__(self, row_id: str, placed: Placed) -> None:
        self.id = row_id
        """What the row is known by (UUIDv7)."""
        self.state = PLACED
        self.outcome: str | None = None
        """Known once the call is answered or over."""
        self.ringing_at: int | None = None
        self.answered_at: int | None = None
        self.talk_ms: int | None = None
        """Known once an answered call is over."""
        self._placed = placed
        self._setup_ms: int | None = None
        self._branches: dict[int, _Branch] = {}
        self._devices = 0
        self._reached = False
        self._answered_branch = -1
        self._cancelled_at: int | None = None
        self._cancel_reason: str | None = None
        self._media = MediaBook()
        self._open_offer: tuple[Description, bool] | None = None
        self._event_number = 0

    def start(self) -> list[Row]:
        """The row of the call."""
        placed = self._placed
        return [
            InsertCall(
                self.id, placed.call_id, placed.caller, placed.callee, placed.at, placed.agent, placed.transport,
                placed.network, _offers_video(placed.offer), placed.place,
            ),
            self._event(placed.at, "placed", CALLER),
        ]  # fmt: skip

    def handle(self, event: Event) -> list[Row]:
        """What is to be written because of this event."""
        if self.state == ENDED and not isinstance(event, Located):
            return []
        match event:
            case Tried():
                return self._tried(event)
            case Rang():
                return self._rang(event)
            case Answered():
                return self._answered(event)
            case Confirmed():
                return self._confirmed(event)
            case Ended():
                return self._ended(event)
            case BranchFailed():
                return self._branch_failed(event)
            case Failed():
                return self._failed(event)
            case Cancelled():
                return self._cancelled(event.at, event.reason)
            case Changed():
                return self._changed(event)
            case Located():
                return self._located(event)

    # ------------------------------------------------------------------ before the answer

    def _tried(self, event: Tried) -> list[Row]:
        self._branches[event.branch] = _Branch(event.at, event.transport, event.network, event.place)
        self._devices += 1
        return []

    def _located(self, event: Located) -> list[Row]:
        if event.branch is None:
            return [CallLocated(self.id, True, event.place)]
        branch = self._branches.get(event.branch)
        if branch is not None:
            branch.place = event.place
        elif event.branch == self._answered_branch:
            return [CallLocated(self.id, False, event.place)]
        return []

    def _rang(self, event: Rang) -> list[Row]:
        self._reached = True
        branch = self._branches.get(event.branch)
        if branch is not None:
            if branch.ringing_at is None:
                branch.ringing_at = event.at
            branch.agent = event.agent or branch.agent
            branch.early_answer = event.answer or branch.early_answer
        if self.state != PLACED:
            return []
        self.state = RINGING
        self.ringing_at = event.at
        self._setup_ms = _span(self._placed.at, event.at)
        return [CallRang(self.id, event.at, self._setup_ms), self._event(event.at, "ringing", CALLEE)]

    def _answered(self, event: Answered) -> list[Row]:
        branch = self._branches.pop(event.branch, None)
        if self.state >= ANSWERED:
            # RFC 3261 §16.7 step 10: every 2xx is passed on; the call is the first one.
            if branch is None or event.branch == self._answered_branch:
                return []
            return [self._over(event.branch, branch, event.at, event.status, outcomes.ALSO_ANSWERED, event.agent)]
        if branch is None:
            branch = _Branch(self._placed.at, None, None)
        self.state = ANSWERED
        self.outcome = outcomes.ANSWERED
        self.answered_at = event.at
        self._answered_branch = event.branch
        self._reached = True
        if self.ringing_at is None:
            self._setup_ms = _span(self._placed.at, event.at)
        rows = self._first_media(event.at, event.answer, branch.early_answer)
        media = self._media
        return [
            CallAnswered(
                self.id, event.at, event.status, self._setup_ms, _span(self.ringing_at, event.at),
                event.agent or branch.agent, branch.transport, branch.network, self._devices,
                media.video, media.content, media.encrypted, branch.place,
            ),
            self._over(event.branch, branch, event.at, event.status, outcomes.ANSWERED, event.agent),
            self._event(event.at, "answered", CALLEE, event.status),
            *rows,
        ]  # fmt: skip

    def _branch_failed(self, event: BranchFailed) -> list[Row]:
        responded = event.cause is None
        self._reached = self._reached or responded or event.heard
        branch = self._branches.pop(event.branch, None)
        if branch is None:
            return []
        outcome = outcomes.branch_outcome(
            event.status,
            responded=responded,
            rang=branch.ringing_at is not None or (event.heard and not responded),
            answered_elsewhere=self.state >= ANSWERED,
        )
        return [self._over(event.branch, branch, event.at, event.status, outcome, event.agent)]

    def _cancelled(self, at: int, reason: str | None) -> list[Row]:
        if self.state >= ANSWERED or self._cancelled_at is not None:
            return []
        self._cancelled_at = at
        self._cancel_reason = reason
        return [self._event(at, "cancelled", CALLER, detail=reason)]

    def _failed(self, event: Failed) -> list[Row]:
        if self.state >= ANSWERED:
            return []
        by_server = event.by == SERVER
        self._reached = self._reached or not by_server
        tried = self._devices > 0
        outcome = outcomes.call_outcome(
            event.status,
            by_server=by_server,
            cancelled=self._cancelled_at is not None,
            tried=tried,
            reached=self._reached,
            rang=self.ringing_at is not None,
        )
        if self._cancelled_at is not None:
            reason = self._cancel_reason or event.reason
            return self._end(self._cancelled_at, outcome, CALLER, "cancel", event.status, reason)
        if tried and not self._reached:
            cause = "unreachable"
        else:
            cause = "timeout" if by_server and event.status == 408 else "refused"
        if self.ringing_at is None:
            self._setup_ms = _span(self._placed.at, event.at)
        rows = self._end(event.at, outcome, event.by, cause, event.status, event.reason)
        rows.append(self._event(event.at, "failed", event.by, event.status, event.reason))
        return rows

    # ------------------------------------------------------------------ after the answer

    def _confirmed(self, event: Confirmed) -> list[Row]:
        if self.state < ANSWERED:
            return []
        rows: list[Row] = []
        if self.state == ANSWERED:
            self.state = CONFIRMED
            rows = [CallConfirmed(self.id, event.at), self._event(event.at, "confirmed", CALLER)]
        if self._open_offer is not None:
            offer, by_caller = self._open_offer
            self._open_offer = None
            if event.answer is not None:
                rows += self._media_change(event.at, offer, event.answer, by_caller)
        return rows

    def _changed(self, event: Changed) -> list[Row]:
        if self.state < ANSWERED:
            return []
        rows: list[Row] = []
        by_caller = event.side == CALLER
        if event.offer is not None and event.answer is not None:
            rows = self._media_change(event.at, event.offer, event.answer, by_caller)
        elif event.answer is not None:
            # RFC 3264 §5, RFC 3261 §14.1: no offer in the request, so the response offers and the ACK answers.
            self._open_offer = event.answer, not by_caller
        if self._event_number < MAX_EVENTS:
            rows.append(self._event(event.at, "changed", event.side))
        return rows

    def _ended(self, event: Ended) -> list[Row]:
        if self.state < ANSWERED:
            if event.side == CALLER:
                return self._cancelled(event.at, event.reason)
            if event.side == CALLEE:
                # RFC 3261 §15: a callee sends no BYE before it has answered; the INVITE's final response counts.
                return []
        outcome = outcomes.ANSWERED if self.answered_at is not None else outcomes.FAILED
        rows = self._end(event.at, outcome, event.side, event.cause, None, event.reason, event.uncertainty_ms)
        rows.append(self._event(event.at, "ended", event.side, detail=event.cause))
        return rows

    def _end(
        self, at: int, outcome: str, by: str, cause: str, status: int | None, reason: str | None,
        uncertainty_ms: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """The call is over: what it was, and what was still open of it."""
        self.state = ENDED
        self.outcome = outcome
        self.talk_ms = _span(self.answered_at, at)
        left = outcomes.ELSEWHERE if self.answered_at is not None else outcomes.CANCELLED
        branches: list[Row] = [
            self._over(number, branch, at, None, left, None) for number, branch in self._branches.items()
        ]
        self._branches = {}
        # The media are closed first: how long there was video is known only then.
        media = self._media.close(self.id, at)
        ring_until = at if self.answered_at is None else self.answered_at
        return [
            CallEnded(
                self.id, at, outcome, status, reason, by, cause, uncertainty_ms, self._setup_ms,
                _span(self.ringing_at, ring_until), self.talk_ms, self._media.video_ms, self._devices,
            ),
            *branches,
            *media,
        ]  # fmt: skip

    # ------------------------------------------------------------------ media, branches, timeline

    def _first_media(self, at: int, answer: Description | None, early_answer: Description | None) -> list[Row]:
        """What the call is answered with (RFC 3264 §5, RFC 3261 §13.2.1)."""
        offer = self._placed.offer
        if offer is None:
            # A delayed offer: it is in the 2xx, or was in a reliable provisional response; the ACK answers the former.
            if answer is not None:
                self._open_offer = answer, False
            return []
        answer = answer or early_answer
        if answer is None:
            return []
        return self._media.change(self.id, at, offer, answer, offered_by_caller=True)

    def _media_change(self, at: int, offer: Description, answer: Description, by_caller: bool) -> list[Row]:
        media = self._media
        before = media.video, media.content, media.encrypted
        rows = media.change(self.id, at, offer, answer, by_caller)
        if before != (media.video, media.content, media.encrypted):
            rows.append(CallMedia(self.id, media.video, media.content, media.encrypted))
        return rows

    def _over(
        self, number: int, branch: _Branch, at: int, status: int | None, outcome: str, agent: str | None
    ) -> InsertBranch:
        """A device's part is over; of one that answered it is not, and its end is the call's."""
        answered = outcome == outcomes.ANSWERED
        return InsertBranch(
            self.id, number, branch.tried_at, branch.ringing_at, at if answered else None, None if answered else at,
            status, outcome, agent or branch.agent, branch.transport, branch.network,
        )  # fmt: skip

    def _event(
        self, at: int, kind: str, side: str | None, status: int | None = None, detail: str | None = None
    ) -> InsertEvent:
        self._event_number += 1
        return InsertEvent(self.id, self._event_number, at, kind, side, status, detail)


def _span(start: int | None, end: int) -> int | None:
    """From one moment to another in milliseconds; None where that is not known or makes no sense."""
    return None if start is None or end < start else end - start


def _offers_video(offer: Description | None) -> int | None:
    if offer is None or offer is sdp.UNREADABLE:
        return None
    return int(sdp.VIDEO in [stream.kind for stream in offer.streams])
