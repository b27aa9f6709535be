"""Which descriptions of a dialog belong together as offer and answer. Pure.

    INVITE(offer)   18x(answer) or 2xx(answer)     RFC 3264, RFC 3261 §13.2.1: the first answer counts
    INVITE()        2xx(offer)  ACK(answer)        RFC 3261 §13.2.1
    INVITE()        18x(offer)  PRACK(answer)      RFC 3262 §5, where the 18x is reliable
    PRACK(offer)    2xx(answer)                    RFC 3262 §5
    UPDATE(offer)   2xx(answer)                    RFC 3311 §5, before the INVITE's final response as well

Nothing is agreed by a request that is refused (RFC 3261 §14.1), so the answer in an 18x to a re-INVITE waits for the
2xx, unless another exchange is built on it before. What was exchanged after an early answer is not undone by a 2xx that
repeats it. A request is known by its side and the number of its CSeq.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.sip.sdp import UNREADABLE, Description

INVITE: Final = "INVITE"
UPDATE: Final = "UPDATE"
PRACK: Final = "PRACK"

Transaction = tuple[bool, int]
"""Whether the caller sent it, and its CSeq number."""


@dataclass(slots=True)
class Agreement:
    """An offer and its answer."""

    offer: Description
    answer: Description
    by_caller: bool
    """Whether the offer is the caller's."""


class Negotiation:
    """The offers and answers of one dialog. Each method returns what is agreed by what happened, None for nothing."""

    __slots__ = ("_early", "_offer", "_offered_early", "_offered_in", "_pending", "_settled", "agreed")

    def __init__(self) -> None:
        self.agreed: Agreement | None = None
        """The last agreement."""
        self._offer: Description | None = None
        """An offer in a response, which waits for its PRACK or ACK."""
        self._offered_in: Transaction = True, 0
        self._offered_early = False
        """Whether that was an 18x, so that its PRACK answers, which the 2xx to the INVITE may overtake."""
        self._early: Transaction | None = None
        """The INVITE that was answered early."""
        self._pending: Agreement | None = None
        """What that answer comes to, where it waits for the 2xx."""
        self._settled: Transaction | None = None
        """The INVITE whose exchange is over although its 2xx is still to come."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for what is still to come; what was agreed on last may then be forgotten."""
        return self._offer is None and self._early is None and self._settled is None

    def early(
        self, offer: Description | None, description: Description, by_caller: bool, number: int, *, reliable: bool,
        first: bool,
    ) -> Agreement | None:  # fmt: skip
        """An 18x to an INVITE carries a description. ``first``: that INVITE began the dialog."""
        transaction = by_caller, number
        if self._settled == transaction:
            return None
        if offer is None:
            # RFC 3262 §5: only a response that is acknowledged can offer.
            if reliable:
                self._offer, self._offered_in, self._offered_early = description, transaction, True
            return None
        agreement = Agreement(offer, description, by_caller)
        self._early = transaction
        if first:
            return self._agree(agreement)
        self._pending = agreement
        return None

    def accepted(
        self, method: str, offer: Description | None, answer: Description | None, by_caller: bool, number: int
    ) -> Agreement | None:
        """A request has got its 2xx; ``offer`` and ``answer`` are what the two carried."""
        if method == INVITE:
            return self._invite_accepted(offer, answer, by_caller, number)
        opened = self._offer
        if method == PRACK and opened is not None and self._offered_in[0] == by_caller:
            self._offer, self._settled = None, self._offered_in
            return None if offer is None else self._agree(Agreement(opened, offer, not by_caller))
        if offer is None or answer is None:
            return None
        if self._early is not None:
            self._settled = self._early
            self._early = self._pending = None
        return self._agree(Agreement(offer, answer, by_caller))

    def _invite_accepted(
        self, offer: Description | None, answer: Description | None, by_caller: bool, number: int
    ) -> Agreement | None:
        transaction = by_caller, number
        pending = self._pending if self._early == transaction else None
        self._early = self._pending = None
        if self._settled == transaction:
            self._settled = None
            return None
        if offer is None:
            waits = self._offer is not None and self._offered_early and self._offered_in == transaction
            if answer is not None and not waits:
                self._offer, self._offered_in, self._offered_early = answer, transaction, False
            return None
        if answer is not None:
            return self._agree(Agreement(offer, answer, by_caller))
        if pending is not None:
            return self._agree(pending)
        # What cannot be read may have been anything.
        return self._agree(Agreement(offer, offer, by_caller)) if offer is UNREADABLE else None

    def acknowledged(self, answer: Description | None, by_caller: bool, number: int) -> Agreement | None:
        """The ACK of a 2xx passes, for the INVITE with this number; 0 where that is not known."""
        opened = self._offer
        if opened is None or self._offered_in[0] != by_caller or (number and self._offered_in[1] != number):
            return None
        if answer is None and self._offered_early:
            return None
        self._offer = None
        return None if answer is None else self._agree(Agreement(opened, answer, not by_caller))

    def _agree(self, agreement: Agreement) -> Agreement:
        self.agreed = agreement
        return agreement
