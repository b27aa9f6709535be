"""One call, from the INVITE to its end. Pure: events in (``calls.events``), rows to be written out (``calls.rows``).

    PLACED ──Rang──► RINGING ──Answered──► ANSWERED ──Confirmed──► CONFIRMED ──Ended──► ENDED
       │                │                     └────────Ended──────────────────────────►
       └──Answered──►   └──Failed───────────────────────────────────────────────────►

The first 2xx is the call; a later one is noted on its branch, unless that is the one that the caller keeps: then the
record follows (``calls.dialogs``). What belongs to another dialog than the call's changes nothing.

CANCEL does not end a call, the final response that follows does: the callee may have answered first. The end is then
the moment of the CANCEL, since nobody was waiting any more. A BYE from the caller before the answer (RFC 3261 §15)
counts as a CANCEL where no other device rings.

    setup_ms   INVITE to the first sign of a device: ringing, answer, or refusal (the session request delay of
               RFC 6076 §4.3, seen from here; successes and failures are told apart by ``outcome``)
    ring_ms    first ringing to the answer, or to the end of a call that was not answered
    talk_ms    answer to end; ringing is never in it

A device's row in ``call_branches`` is begun when it is tried, so that it is on record whatever happens to the server,
and completed when its part is over. In between it is written only in a fork: the first ringing of a call with one
device is that device's. An event of the timeline has a row where no column says it (``calls.timeline_schema``).
Of what two sides agree on before the answer, early media are written down as such (``calls.media``).
What happens in ENDED changes nothing, but for a place that becomes known late. Times that run backwards give no
duration: unknown is None.
"""

from __future__ import annotations

from typing import Final

from sipserver.calls import outcomes
from sipserver.calls.branch import Branch
from sipserver.calls.dialogs import Dialog, Dialogs
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
    Referred,
    Seen,
    Tried,
)
from sipserver.calls.media import MediaBook, offers_video
from sipserver.calls.negotiation import INVITE, PRACK, Agreement
from sipserver.calls.rows import (
    CallAnswered,
    CallConfirmed,
    CallEnded,
    CallLocated,
    CallMedia,
    CallRang,
    InsertCall,
    InsertEvent,
    Row,
    UpdateBranch,
)

PLACED: Final = 0
RINGING: Final = 1
ANSWERED: Final = 2
CONFIRMED: Final = 3
ENDED: Final = 4

UNKNOWN: Final = -1
"""Of a time that is not known."""

_NO_BRANCHES: Final[dict[int, Branch]] = {}
"""No devices; shared, never filled."""

MAX_EVENTS: Final = 1_000
"""Lines of one call's timeline; its end is written whatever their number. More changes than that are kept as media."""


class Call:
    """A call and what is to be written of it."""

    __slots__ = (
        "_answered_at", "_branches", "_cancel_reason", "_cancelled_at", "_devices", "_dialogs", "_event_number",
        "_media", "_number", "_offer", "_placed", "_placed_at", "_rang_at", "_reached", "_setup_ms", "_tag", "call_id",
        "callee", "caller", "caller_agent", "confirmed", "id", "key", "outcome", "shift", "state", "talk_ms",
    )  # fmt: skip

    def __init__(self, row_id: str, placed: Placed) -> None:
        self.id = row_id
        """What the row is known by (UUIDv7)."""
        self.key = placed.key
        """The proxy's name for the call."""
        self.call_id = placed.call_id
        """The SIP Call-ID."""
        self.caller = placed.caller
        """The party that calls."""
        self.callee = placed.callee
        """The party that is called."""
        self.caller_agent = placed.agent
        """What the endpoint of the caller says it is."""
        self.state = PLACED
        self.outcome: str | None = None
        """Known once the call is answered or over."""
        self.talk_ms: int | None = None
        """Known once an answered call is over."""
        self.confirmed = False
        """Whether the ACK of the answer passed."""
        self.shift = 0
        """For whoever makes the events: how the clock that tells their times was set when the call was placed."""
        self._reached = False
        # Times are numbers without None, which take a fifth of the room: 0 stands for never.
        self._placed: Placed | None = placed
        """Until its row is made."""
        self._placed_at = placed.at
        self._rang_at = 0
        self._answered_at = 0
        self._cancelled_at = 0
        self._setup_ms = UNKNOWN
        self._tag = placed.tag
        """The caller's."""
        self._number = placed.number
        self._offer = placed.offer
        """What the INVITE offered, as long as another device may answer it."""
        self._branches = _NO_BRANCHES
        """The devices whose part is not over."""
        self._devices = 0
        self._dialogs = Dialogs()
        self._cancel_reason: str | None = None
        self._media = MediaBook()
        self._event_number = 1  # it was placed

    @property
    def ringing_at(self) -> int | None:
        """When it rang first."""
        return self._rang_at or None

    @property
    def answered_at(self) -> int | None:
        """When the device answered that the caller kept."""
        return self._answered_at or None

    @property
    def agreed_at(self) -> int:
        """When its two sides last agreed on something, its answer or media: by then both were there; 0 for never."""
        kept = self._dialogs.kept
        return 0 if kept is None else max(kept.answered_at, kept.agreed_at)

    def has_dialog(self, tag: str | None) -> bool:
        """Whether a request with this tag of the other side may belong to this call."""
        return self.state < ANSWERED or self._dialogs.knows(tag)

    @property
    def is_forked(self) -> bool:
        """Whether it has more than one dialog."""
        return len(self._dialogs) > 1

    def is_kept(self, tag: str | None) -> bool:
        """Whether the dialog of this tag is the call, as far as is known by now."""
        return self._dialogs.kept is not None and self._dialogs.find(tag) is self._dialogs.kept

    def is_between(self, one: str, other: str) -> bool:
        """Whether these two are the tags of one of its dialogs, whichever is whose."""
        mine = self._tag
        return (mine == one and self._dialogs.has(other)) or (mine == other and self._dialogs.has(one))

    def settle(self) -> None:
        """No other device will answer: what was kept for that case is forgotten."""
        self._offer = None
        if not self.is_forked and self._dialogs.kept is not None:
            self._dialogs.kept.settle()

    def start(self) -> InsertCall:
        """The row of the call; asked for once."""
        placed, self._placed = self._placed, None
        assert placed is not None, "a call has one row"
        return InsertCall(
            self.id, placed.call_id, placed.caller, placed.callee, placed.at, placed.agent, placed.transport,
            placed.network, offers_video(placed.offer), placed.place,
        )  # fmt: skip

    def handle(self, event: Event) -> list[Row]:
        """What is to be written because of this event."""
        if self.state == ENDED and not isinstance(event, Located):
            return []
        if isinstance(event, Tried):
            return self._tried(event)
        if isinstance(event, Rang):
            return self._rang(event)
        if isinstance(event, Answered):
            return self._answered(event)
        if isinstance(event, Confirmed):
            return self._confirmed(event)
        if isinstance(event, Ended):
            return self._ended(event)
        if isinstance(event, BranchFailed):
            return self._branch_failed(event)
        if isinstance(event, Failed):
            return self._failed(event)
        if isinstance(event, Cancelled):
            return self._cancelled(event.at, event.reason)
        if isinstance(event, Changed):
            return self._changed(event)
        if isinstance(event, Progressed):
            return self._progressed(event)
        if isinstance(event, Referred):
            return self._referred(event)
        if isinstance(event, Located):
            return self._located(event)
        if isinstance(event, HangingUp):
            return self._hanging_up(event)
        if isinstance(event, Seen):
            return [self._event(event.at, "seen", None)] if self._event_number < MAX_EVENTS else []
        assert isinstance(event, ClockStepped), "the last kind of event there is"
        return [self._event(event.at, "clock_stepped", SERVER, detail=f"{event.by_ms:+d} ms")]

    # ------------------------------------------------------------------ before the answer

    def _tried(self, event: Tried) -> list[Row]:
        rows: list[Row] = []
        if self._devices == 1:
            # From here on the record has to tell the devices' ringing apart.
            rows = [
                each.begun(self.id, number) for number, each in self._branches.items() if each.ringing_at is not None
            ]
        branch = Branch(event.at, event.transport, event.network, event.agent, event.place)
        if self._branches is _NO_BRANCHES:
            self._branches = {}
        self._branches[event.branch] = branch
        self._devices += 1
        return [*rows, branch.begun(self.id, event.branch)]

    def _located(self, event: Located) -> list[Row]:
        if event.branch is None:
            return [CallLocated(self.id, True, event.place)]
        branch = self._branches.get(event.branch)
        if branch is not None:
            branch.place = event.place
            return []
        self._dialogs.locate(event.branch, event.place)
        kept = self._dialogs.kept
        if kept is not None and kept.branch == event.branch:
            return [CallLocated(self.id, False, event.place)]
        return []

    def _rang(self, event: Rang) -> list[Row]:
        self._reached = True
        rows: list[Row] = []
        branch = self._branches.get(event.branch)
        if branch is not None:
            branch.agent = event.agent or branch.agent
            if branch.ringing_at is None:
                branch.ringing_at = event.at
                if self._devices > 1:
                    rows.append(branch.begun(self.id, event.branch))
        if self.state < ANSWERED and (event.tag is not None or event.answer is not None):
            dialog = self._dialogs.make(event.tag, event.branch, early=True)
            if dialog is not None and event.answer is not None:
                agreement = dialog.negotiation.early(
                    self._offer, event.answer, True, self._number, reliable=event.reliable, first=True
                )
                rows += self._agreed(event.at, dialog, agreement)
        if self.state != PLACED:
            return rows
        self.state = RINGING
        self._rang_at = event.at
        self._setup_ms = _span(self._placed_at, event.at)
        self._event_number += 1
        return [CallRang(self.id, event.at, _known(self._setup_ms)), *rows]

    def _answered(self, event: Answered) -> list[Row]:
        dialog = self._dialogs.make(event.tag, event.branch)
        if self.state >= ANSWERED:
            return self._also_answered(event, dialog)
        assert dialog is not None, "early dialogs leave room for the answer"
        branch = self._take_branch(event.branch)
        if branch is None:
            branch = Branch(self._placed_at, None, None)
        self.state = ANSWERED
        self.outcome = outcomes.ANSWERED
        self._reached = True
        if not self._rang_at:
            self._setup_ms = _span(self._placed_at, event.at)
        self._note_answer(event, dialog, branch)
        dialog.answer_number = self._event_number = self._event_number + 1
        return [
            *self._keep(dialog),
            branch.over(self.id, event.branch, event.at, event.status, outcomes.ANSWERED, event.agent),
            *self._media.close_early(self.id, event.at),
        ]

    def _take_branch(self, number: int) -> Branch | None:
        """The branch of this number, whose part is over."""
        branch = self._branches.pop(number, None)
        if not self._branches:
            # One that was filled keeps its room, for as long as the call lasts.
            self._branches = _NO_BRANCHES
        return branch

    def _note_answer(self, event: Answered, dialog: Dialog, branch: Branch | None) -> None:
        """What a 2xx says of its dialog; it is another device's where the branch was forked further on."""
        dialog.branch, dialog.answered_at, dialog.status = event.branch, event.at, event.status
        dialog.agent = event.agent
        if branch is not None:
            dialog.agent = event.agent or branch.agent
            dialog.transport, dialog.network, dialog.place = branch.transport, branch.network, branch.place
        negotiation = dialog.negotiation
        before = negotiation.agreed
        agreement = negotiation.accepted(INVITE, self._offer, event.answer, True, self._number) or before
        # What was agreed on early is the call's from now on.
        dialog.agreements, dialog.agreed_at = (), 0
        if agreement is not None:
            dialog.agreed(event.at, agreement, forked=self.is_forked)

    def _keep(self, dialog: Dialog) -> list[Row]:
        """This dialog is the call, and has been since it was answered."""
        self._dialogs.kept = dialog
        answered_at = self._answered_at = dialog.answered_at
        assert answered_at, "what is kept was answered"
        media = self._media
        rows: list[Row] = []
        for at, agreement in dialog.agreements:
            # A BYE that nobody answered has ended it when it came; what was agreed on since is no news.
            if dialog.end is None or at <= dialog.end.at:
                rows += media.change(self.id, at, agreement, dialog.branch)
        answer = CallAnswered(
            self.id, answered_at, dialog.status, _known(self._setup_ms), _known(_span(self._rang_at, answered_at)),
            dialog.agent, dialog.transport, dialog.network, self._devices, media.video, media.content, media.encrypted,
            dialog.place,
        )  # fmt: skip
        return [answer, *rows]

    def _also_answered(self, event: Answered, dialog: Dialog | None) -> list[Row]:
        """RFC 3261 §16.7 step 10: every 2xx is passed on; which is the call is for the caller to say."""
        if dialog is None or dialog.answered_at:
            return []
        branch = self._take_branch(event.branch)
        kept = self._dialogs.kept
        if branch is not None:
            self._note_answer(event, dialog, branch)
            return [branch.over(self.id, event.branch, event.at, event.status, outcomes.ALSO_ANSWERED, event.agent)]
        if kept is not None and kept.branch == event.branch:
            dialog.transport, dialog.network, dialog.place = kept.transport, kept.network, kept.place
        self._note_answer(event, dialog, None)
        return []

    def _branch_failed(self, event: BranchFailed) -> list[Row]:
        responded = event.cause is None
        self._reached = self._reached or responded or event.heard
        branch = self._take_branch(event.branch)
        if branch is None:
            return []
        outcome = (
            outcomes.REDIRECTED
            if event.followed
            else outcomes.branch_outcome(
                event.status,
                responded=responded,
                rang=branch.ringing_at is not None or (event.heard and not responded),
                answered_elsewhere=self.state >= ANSWERED,
                cancelled=self._cancelled_at > 0,
            )
        )
        over = branch.over(self.id, event.branch, event.at, event.status, outcome, event.agent)
        return [over, *self._media.close_early(self.id, event.at, event.branch)]

    def _cancelled(self, at: int, reason: str | None) -> list[Row]:
        if self.state >= ANSWERED or self._cancelled_at:
            return []
        self._cancelled_at = at
        self._cancel_reason = reason
        # Nobody waits any more: this is the end of whatever was heard before the answer.
        return [self._event(at, "cancelled", CALLER, detail=reason), *self._media.close_early(self.id, at)]

    def _failed(self, event: Failed) -> list[Row]:
        if self.state >= ANSWERED:
            return []
        by_server = event.by == SERVER
        self._reached = self._reached or not by_server
        tried = self._devices > 0
        outcome = outcomes.call_outcome(
            event.status,
            by_server=by_server,
            cancelled=self._cancelled_at > 0,
            tried=tried,
            reached=self._reached,
            rang=self._rang_at > 0,
        )
        if self._cancelled_at:
            reason = self._cancel_reason or event.reason
            return self._end(self._cancelled_at, outcome, CALLER, "cancel", event.status, reason)
        if tried and not self._reached:
            cause = "unreachable"
        else:
            cause = "timeout" if by_server and event.status == 408 else "refused"
        if not self._rang_at:
            self._setup_ms = _span(self._placed_at, event.at)
        rows = self._end(event.at, outcome, event.by, cause, event.status, event.reason)
        rows.append(self._event(event.at, "failed", event.by, event.status, event.reason))
        return rows

    # ------------------------------------------------------------------ after the answer

    def _confirmed(self, event: Confirmed) -> list[Row]:
        dialog = self._dialogs.find(event.tag) if self.state >= ANSWERED else None
        if dialog is None or not dialog.answered_at:
            return []
        rows: list[Row] = []
        by_caller = event.side == CALLER
        if by_caller and not dialog.confirmed_at:
            dialog.confirmed_at = event.at
            if dialog is self._dialogs.kept:
                self.state = CONFIRMED
                self.confirmed = True
                rows = [CallConfirmed(self.id, event.at)]
                if self._dialogs.followed:
                    rows.append(self._event(event.at, "confirmed", CALLER))
                else:
                    dialog.confirm_number = self._event_number = self._event_number + 1
        agreement = dialog.acknowledged(event.answer, by_caller, event.number)
        return rows if agreement is None else rows + self._agreed(event.at, dialog, agreement)

    def _changed(self, event: Changed) -> list[Row]:
        dialog = self._dialogs.find(event.tag)
        if dialog is None or (self.state < ANSWERED and event.method == INVITE):
            return []
        agreement = dialog.accepted(event.method, event.offer, event.answer, event.side == CALLER, event.number)
        rows = self._agreed(event.at, dialog, agreement)
        # A PRACK is none of the two sides' decisions.
        told = self.state >= ANSWERED and event.method != PRACK and dialog is self._dialogs.kept
        if told and self._event_number < MAX_EVENTS:
            rows.append(self._event(event.at, "changed", event.side))
        return rows

    def _progressed(self, event: Progressed) -> list[Row]:
        dialog = self._dialogs.find(event.tag) if self.state >= ANSWERED else None
        if dialog is not None:
            dialog.negotiation.early(
                event.offer, event.answer, event.side == CALLER, event.number, reliable=event.reliable, first=False
            )
        return []

    def _referred(self, event: Referred) -> list[Row]:
        if self._event_number >= MAX_EVENTS:
            return []
        return [self._event(event.at, "referred", event.side, detail="attended" if event.attended else None)]

    def _ended(self, event: Ended) -> list[Row]:
        if self.state < ANSWERED:
            if event.side == CALLER:
                # RFC 3261 §15: it ends one early dialog; the others go on ringing.
                return self._cancelled(event.at, event.reason) if len(self._branches) < 2 else []
            if event.side == CALLEE:
                # RFC 3261 §15: a callee sends no BYE before it has answered; the INVITE's final response counts.
                return []
            return self._finish(event)
        dialogs, dialog, before = self._dialogs, None, self._dialogs.kept
        if event.tag is not None and event.side != SERVER:
            dialog = dialogs.find(event.tag)
            if dialog is None or dialog.end is not None:
                return []
            dialog.end = event
            if event.side == CALLER:
                dialog.left_at = dialog.left_at or event.asked_at or event.at
        kept = dialogs.decide(dialog, event)
        if kept is not before:
            rows = self._follow(kept, event)
        elif dialog is not None and dialog is not kept:
            rows = self._dropped(dialog, event)
        else:
            rows = []
        if dialog is None or kept.end is not None:
            rows += self._finish(kept.end or event)
        return rows

    def _hanging_up(self, event: HangingUp) -> list[Row]:
        dialog = self._dialogs.find(event.tag)
        if dialog is not None and not dialog.left_at:
            dialog.left_at = event.at
        return []

    def _finish(self, event: Ended) -> list[Row]:
        outcome = outcomes.ANSWERED if self._answered_at else outcomes.FAILED
        # RFC 6076 §4.4: from the BYE to its answer, or until that was given up.
        delay = event.uncertainty_ms
        if delay is None or not event.asked_at:
            delay = _known(_span(event.asked_at, event.at))
        rows = self._end(
            event.at, outcome, event.side, event.cause, None, event.reason, event.uncertainty_ms, event.watched_until,
            delay,
        )  # fmt: skip
        if self._dialogs.followed or not self._answered_at:
            rows.append(self._event(event.at, "ended", event.side, detail=event.cause))
        return rows

    def _dropped(self, dialog: Dialog, event: Ended) -> list[Row]:
        """A dialog that is not the call, or not any more, has ended."""
        rows: list[Row] = []
        kept = self._dialogs.kept
        if dialog.answered_at and kept is not None and kept.branch != dialog.branch:
            # Its own BYE may still wait for its answer.
            over = dialog.end or (event if event.tag is None else None)
            rows.append(UpdateBranch(self.id, dialog.branch, outcomes.ALSO_ANSWERED, None if over is None else over.at))
        if self._event_number < MAX_EVENTS:
            rows.append(self._event(event.at, "dropped", event.side, detail=event.cause))
        return rows

    def _follow(self, heir: Dialog, event: Ended) -> list[Row]:
        """The caller kept another dialog than the one that was taken for the call: the record says so from its answer
        on."""
        dropped = self._dialogs.kept
        assert dropped is not None, "there is something else to follow"
        rows = self._media.drop(self.id) + self._dialogs.follow(self.id)
        if not self._rang_at:
            self._setup_ms = _span(self._placed_at, heir.answered_at or event.at)
        rows += self._keep(heir)
        media = self._media
        # What the media of the dropped one were may be written after answers.
        rows.append(CallMedia(self.id, media.video, media.content, media.encrypted))
        if heir.place != dropped.place:
            # The dropped device's place may have been put late, after its answer.
            rows.append(CallLocated(self.id, False, heir.place))
        if heir.confirmed_at and not self.confirmed:
            rows.append(self._event(heir.confirmed_at, "confirmed", CALLER))
        self.state = CONFIRMED if heir.confirmed_at else ANSWERED
        self.confirmed = heir.confirmed_at > 0
        rows.append(CallConfirmed(self.id, heir.confirmed_at or None))
        if heir.branch != dropped.branch:
            rows.append(UpdateBranch(self.id, heir.branch, outcomes.ANSWERED, None))
        return rows + self._dropped(dropped, event)

    def _end(
        self, at: int, outcome: str, by: str, cause: str, status: int | None, reason: str | None,
        uncertainty_ms: int | None = None, watched_until: int | None = None, disconnect_ms: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """The call is over: what it was, and what was still open of it."""
        self.state = ENDED
        self.outcome = outcome
        self.talk_ms = _known(_span(self._answered_at, at))
        left = outcomes.ELSEWHERE if self._answered_at else outcomes.CANCELLED
        branches: list[Row] = [
            branch.over(self.id, number, at, None, left, None) for number, branch in self._branches.items()
        ]
        self._branches = _NO_BRANCHES
        # The media are closed first: how long there was video is known only then.
        media = self._media.close(self.id, at)
        ring_until = self._answered_at or at
        return [
            CallEnded(
                self.id, at, outcome, status, reason, by, cause, uncertainty_ms, _known(self._setup_ms),
                _known(_span(self._rang_at, ring_until)), self.talk_ms, self._media.video_ms, self._devices,
                watched_until, disconnect_ms,
            ),
            *branches,
            *media,
        ]  # fmt: skip

    # ------------------------------------------------------------------ media, branches, timeline

    def _agreed(self, at: int, dialog: Dialog, agreement: Agreement | None) -> list[Row]:
        """A dialog has other media from now on; of others than the call's that is only remembered."""
        if agreement is None:
            return []
        dialog.agreed(at, agreement, forked=self.is_forked)
        if self.state < ANSWERED:
            if self._cancelled_at:
                return []
            return self._media.change_early(self.id, at, dialog.key, dialog.branch, agreement)
        if dialog is not self._dialogs.kept:
            return []
        media = self._media
        before = media.video, media.content, media.encrypted
        rows = media.change(self.id, at, agreement, dialog.branch)
        if before != (media.video, media.content, media.encrypted):
            rows.append(CallMedia(self.id, media.video, media.content, media.encrypted))
        return rows

    def _event(
        self, at: int, kind: str, side: str | None, status: int | None = None, detail: str | None = None
    ) -> InsertEvent:
        self._event_number += 1
        return InsertEvent(self.id, self._event_number, at, kind, side, status, detail)


def _span(start: int, end: int) -> int:
    """From one moment to another in milliseconds; UNKNOWN where the first is none (0) or that makes no sense."""
    return UNKNOWN if not start or end < start else end - start


def _known(span: int) -> int | None:
    """As the record has it."""
    return None if span == UNKNOWN else span
