"""An answered call and its sides, as ``liveness`` watches them. Times are milliseconds of ``CallWatch.steady``."""

from __future__ import annotations

from typing import Final

from sipserver.proxy.probe import DialogEnd
from sipserver.proxy.record_route import CALLER
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message

MAX_OTHERS: Final = 8
"""Answers beside the first one whose dialogs are followed."""


class Doubt:
    """What makes one side of a call doubtful; most sides have none, ever."""

    __slots__ = ("asking", "cause", "lost_at", "misses", "retry_at")

    def __init__(self) -> None:
        self.asking = False
        """Whether it was asked and has not answered yet."""
        self.lost_at = 0
        """When its connection or registration went; 0 where it is there."""
        self.cause = ""
        """Which of the two."""
        self.misses = 0
        """Questions in a row that it did not answer."""
        self.retry_at = 0
        """When it is asked again."""


class Side(DialogEnd):
    """One side of a call; a callee's is that of one dialog. Small, since there are two for each call that goes on."""

    __slots__ = ("address", "doubt", "expires_at", "flow", "instance", "seen", "tag")

    def __init__(
        self, end: DialogEnd, flow: Flow, address: str | None, instance: str | None, now: int, tag: str | None = None
    ) -> None:
        self.named = end.named
        self.routes = end.routes
        self.flow = flow
        """How it was heard last."""
        self.address = address
        """Its address of record, None where it is not ours."""
        self.instance = instance
        """Its +sip.instance, where it is known."""
        self.seen = now
        """Its last sign of life."""
        self.tag = tag
        """Of a callee: which dialog is meant."""
        self.expires_at = 0
        """Of a callee: when the session of its dialog expires; 0 for never."""
        self.doubt: Doubt | None = None
        """What is held against it, if anything is."""

    def doubted(self) -> Doubt:
        """``doubt``, to be added to."""
        found = self.doubt
        if found is None:
            found = self.doubt = Doubt()
        return found

    def believe(self) -> None:
        """It gave a sign of life. A question to it may still be under way."""
        doubt = self.doubt
        if doubt is not None:
            doubt.misses = doubt.lost_at = 0
            if not doubt.asking:
                self.doubt = None


class WatchedCall:
    """An answered call."""

    __slots__ = ("call_id", "callee", "caller", "key", "noted", "others", "probe_after")

    def __init__(self, key: str, call_id: str, caller: Side, callee: Side, probe_after: int) -> None:
        self.key = key
        self.call_id = call_id
        self.caller = caller
        self.callee = callee
        self.others: tuple[Side, ...] = ()
        """The callee's side of other dialogs that stand beside that one."""
        self.noted = caller.seen
        """The latest sign of life that stands in the timeline."""
        self.probe_after = probe_after
        """Silence after which a side is asked."""

    @property
    def seen(self) -> int:
        """Until when both sides are known to have been there."""
        return min(self.caller.seen, self.callee.seen)

    @property
    def sides(self) -> tuple[Side, ...]:
        """All of them."""
        return (self.caller, self.callee, *self.others)

    def side(self, side: str, message: Message, *, by_caller: bool) -> Side:
        """The side that is meant; of the callee's that of this message's dialog, whose request is the caller's or
        not."""
        if side == CALLER:
            return self.caller
        return self.callee_of(message.to_tag if by_caller else message.from_tag) if self.others else self.callee

    def may_have(self, tag: str | None) -> bool:
        """Whether an answer with this tag makes another dialog that is to be followed."""
        known = tag == self.callee.tag or tag in [each.tag for each in self.others]
        return len(self.others) < MAX_OTHERS and not known

    def callee_of(self, tag: str | None) -> Side:
        """The callee's side of this dialog; of one that is not known, that of the call."""
        for other in self.others:
            if other.tag == tag:
                return other
        return self.callee
