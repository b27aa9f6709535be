"""The dialogs of one call: one for each tag of the callee's side (RFC 3261 §12, §13.2.2.4). Pure.

Two devices may answer at once, and then the caller has two dialogs, of which it ends at once the one that it does not
want. The call is the dialog that the caller kept, and only the caller says which that is:

    its BYEs     The dialog that it parts from first, while another one is there, is not the one that it kept. What
                 counts is when its BYE came, not when it was answered: answers overtake each other.
    its ACKs     A dialog that had no ACK for UNACKNOWLEDGED_MS was not what the caller kept, if another one had. Before
                 that its ACK may be lost or on its way, and tells only where BYEs do not.

A device that hangs up by itself says nothing about that: if the caller then parts from the other dialog at once, the
call was the first one; if it does not, it was the other. "At once" is AT_ONCE_MS. Where the dialog that is kept changes
while the call goes on, the record follows; it is the first one until something is known.

A BYE whose every copy is lost until the call itself has ended comes too late to tell: then the dialog that the caller
was heard to part from last is taken for the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipserver.calls.events import CALLEE, CALLER, Ended
from sipserver.calls.negotiation import Agreement, Negotiation
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.rows import InsertEvent, Row
from sipserver.sip.sdp import Description

AT_ONCE_MS: Final = 32_000
"""64*T1: as long as 2xx of other devices may come, their ACK may take, and a BYE counts as at once (RFC 3261 §13.2.2.4,
§13.3.1.4)."""
UNACKNOWLEDGED_MS: Final = 16_000
"""After that, and six copies of the 2xx, it is known that there is no ACK (RFC 3261 §13.3.1.4)."""
MAX_EARLY: Final = 16
"""Early dialogs of one call that are told apart."""
MAX_DIALOGS: Final = 32
"""Dialogs of one call that are told apart."""
MAX_AGREEMENTS: Final = 16
"""Agreements of one dialog that are remembered, in case that it was what the caller kept."""


class Dialog:
    """What is known of one dialog; before its 2xx it is an early one."""

    __slots__ = (
        "_negotiation", "_settled", "agent", "agreed_at", "agreements", "answer_number", "answered_at", "branch",
        "confirm_number", "confirmed_at", "end", "key", "left_at", "network", "place", "status", "transport",
    )  # fmt: skip

    def __init__(self, key: str, branch: int) -> None:
        self.key = key
        self.branch = branch
        self._negotiation: Negotiation | None = None
        self._settled = False
        self.agreed_at = 0
        """When its media were agreed on last; 0 for never."""
        self.agreements: tuple[tuple[int, Agreement], ...] = ()
        """What was agreed on and when, the oldest first; bounded, and nothing once it is settled."""
        self.answered_at = 0
        """0 for never, as all times here."""
        self.confirmed_at = 0
        self.answer_number = self.confirm_number = 0
        """Of its answer and ACK in the timeline, as far as they have no rows in it."""
        self.end: Ended | None = None
        """How it ended."""
        self.left_at = 0
        """When the caller's BYE for it came."""
        self.status = 200
        self.agent: str | None = None
        self.transport: str | None = None
        self.network: str | None = None
        self.place = NOWHERE
        """Where the device is."""

    @property
    def negotiation(self) -> Negotiation:
        """Its offers and answers."""
        found = self._negotiation
        if found is None:
            found = self._negotiation = Negotiation()
        return found

    def told(self, call: str) -> list[Row]:
        """Its answer and ACK as rows of the call's timeline, since its columns will tell those of another one."""
        rows: list[Row] = [InsertEvent(call, self.answer_number, self.answered_at, "answered", CALLEE, self.status)]
        if self.confirmed_at:
            rows.append(InsertEvent(call, self.confirm_number, self.confirmed_at, "confirmed", CALLER))
        return rows

    def settle(self) -> None:
        """It is the call and will stay that: no more is kept of its media than what happens next needs."""
        self._settled = True
        self.agreements = ()
        self._rest()

    def accepted(
        self, method: str, offer: Description | None, answer: Description | None, by_caller: bool, number: int
    ) -> Agreement | None:
        """``Negotiation.accepted``, once it is answered."""
        agreement = self.negotiation.accepted(method, offer, answer, by_caller, number)
        self._rest()
        return agreement

    def acknowledged(self, answer: Description | None, by_caller: bool, number: int) -> Agreement | None:
        """``Negotiation.acknowledged``."""
        found = self._negotiation
        if found is None:
            return None
        agreement = found.acknowledged(answer, by_caller, number)
        self._rest()
        return agreement

    def _rest(self) -> None:
        """Between two exchanges nothing has to be remembered of them."""
        if self._settled and self._negotiation is not None and self._negotiation.is_idle:
            self._negotiation = None

    def agreed(self, at: int, agreement: Agreement, *, forked: bool) -> None:
        """Its media are these from now on. What they were before is of interest as long as this may turn out to be what
        the caller kept: ``forked``, where there are other dialogs."""
        self.agreed_at = at
        if self._settled:
            return
        if not forked and at - (self.answered_at or at) > AT_ONCE_MS:
            self.agreements = ()
        self.agreements = (*self.agreements[-MAX_AGREEMENTS + 1 :], (at, agreement))

    def stands(self, at: int) -> bool:
        """Whether it is up, as far as can be told."""
        if not self.answered_at or self.end is not None:
            return False
        return self.confirmed_at > 0 or at - self.answered_at <= AT_ONCE_MS

    def rank(self, now: int) -> tuple[bool, bool, bool, int, bool]:
        """How likely it is what the caller kept, where all are over by ``now``: one that may have been acknowledged;
        that it had for long; that it did not part from; that was there last; that was acknowledged."""
        until = self.left_at or (now if self.end is None else self.end.at)
        had_for = until - self.answered_at
        confirmed = self.confirmed_at > 0
        return confirmed or had_for < UNACKNOWLEDGED_MS, had_for > AT_ONCE_MS, not self.left_at, until, confirmed

    def was_dropped(self, at: int) -> bool:
        """Whether the caller did not want it, since it ends at once or was never acknowledged."""
        return not self.confirmed_at or not self.answered_at or at - self.answered_at <= AT_ONCE_MS


class Dialogs:
    """The dialogs of one call, by tag; bounded."""

    __slots__ = ("_dialogs", "_overflowed", "followed", "kept")

    def __init__(self) -> None:
        self._dialogs: tuple[Dialog, ...] = ()
        self._overflowed = False
        self.kept: Dialog | None = None
        """The one that is the call, once it is answered."""
        self.followed = False
        """Whether that was another one before: then the columns of the call do not tell its timeline."""

    def follow(self, call: str) -> list[Row]:
        """Another one becomes the call: what the timeline has of the first one gets rows."""
        if self.followed or self.kept is None:
            return []
        self.followed = True
        return self.kept.told(call)

    def __len__(self) -> int:
        return len(self._dialogs)

    def make(self, tag: str | None, branch: int, *, early: bool = False) -> Dialog | None:
        """The dialog of this tag, new or known; None where there are too many. A peer without tags has one a branch."""
        key = f" {branch}" if tag is None else tag
        found = self._of(key)
        if found is None:
            if len(self._dialogs) >= (MAX_EARLY if early else MAX_DIALOGS):
                self._overflowed = True
                return None
            found = Dialog(key, branch)
            self._dialogs = (*self._dialogs, found)
        return found

    def _of(self, key: str) -> Dialog | None:
        # Nearly always there is one.
        for dialog in self._dialogs:
            if dialog.key == key:
                return dialog
        return None

    def find(self, tag: str | None) -> Dialog | None:
        """The dialog of this tag; without one, or with a callee that sent none, the one that is the call."""
        if tag is None or (self.kept is not None and self.kept.key[0] == " "):
            return self.kept
        return self._of(tag)

    def knows(self, tag: str | None) -> bool:
        """Whether a request with this tag of the callee's may belong to the call."""
        return self._overflowed or self.find(tag) is not None

    def has(self, tag: str) -> bool:
        """Whether this is the tag of a dialog that is not over."""
        found = self._of(tag)
        return found is not None and found.end is None

    def locate(self, branch: int, place: Place) -> None:
        """Where the device of this branch is has become known after its answer."""
        for dialog in self._dialogs:
            if dialog.branch == branch:
                dialog.place = place

    def decide(self, ended: Dialog | None, event: Ended) -> Dialog:
        """Which dialog is the call now that this one has ended (None: all have). Where that is over, so is the call."""
        kept = self.kept
        assert kept is not None, "an answered call has a dialog"
        if ended is None:
            return self._best(kept, self._dialogs, event.at)
        if not ended.answered_at:
            # An early dialog, whose BYE says nothing of one that was answered (RFC 3261 §15).
            return kept
        others = self._others(ended, event)
        if not others:
            over = [each for each in self._dialogs if each.end is not None or each.left_at or each is kept]
            return self._best(ended, over, event.at)
        if ended is not kept:
            return kept
        return others[0] if kept.was_dropped(event.at) else kept

    def _others(self, ended: Dialog, event: Ended) -> list[Dialog]:
        """Those that stand and may be what the caller keeps."""
        # What it had not heard of yet is not why it hung up.
        known_at = ended.left_at if event.side == CALLER else event.at
        return [
            each for each in self._dialogs
            if each is not ended and each.stands(event.at) and not each.left_at and each.answered_at <= known_at
        ]  # fmt: skip

    def _best(self, first: Dialog, among: Iterable[Dialog], now: int) -> Dialog:
        best = first
        for each in among:
            # What was answered after the end that is told is nothing that the end can be of.
            if 0 < each.answered_at <= now and each.rank(now) > best.rank(now):
                best = each
        return best
