"""One branch of a forked request, and which of all branches' answers is the best (RFC 3261 §16.7 steps 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sipserver.proxy.effects import CANCELLING, CancelBranch, SetBranchTimer
from sipserver.proxy.plan import Target
from sipserver.sip import build, names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import Effect
from sipserver.sip.flow import Flow
from sipserver.sip.message import Response
from sipserver.sip.timers import TIMER_C
from sipserver.sip.uri import Uri

RESOLVING: Final = 0
CALLING: Final = 1
PROCEEDING: Final = 2
ACCEPTED: Final = 3
TERMINATED: Final = 4
ABANDONED: Final = 5

_MAX_TIMERS_C: Final = 4
"""Of timer C that one branch may have running, however many provisional responses a peer sends."""

# What tells the caller how to do better goes first; what says least goes last.
_PREFERENCE: Final = {401: 0, 407: 0, 415: 1, 420: 1, 422: 1, 484: 1, 480: 3, 408: 4, 487: 5, 503: 5}


class Branch:
    """What the response context keeps of one branch; its states are told in ``fork``."""

    __slots__ = (
        "answer_tag", "answered", "armed", "cancel_reason", "cancel_sent", "cancel_wanted", "datagram", "expired",
        "flow", "hop", "index", "learned", "lingers", "more", "noticed", "others", "rang", "rearm", "request",
        "ring_tag", "state", "target",
    )  # fmt: skip

    def __init__(self, index: int, target: Target) -> None:
        self.index = index
        self.target = target
        self.state = RESOLVING
        self.hop: Uri | None = None
        """The next hop."""
        self.flow: Flow | None = None
        self.request: OutgoingRequest | None = None
        """What was sent, over this flow."""
        self.datagram: tuple[Flow, OutgoingRequest] | None = None
        """The way over UDP, to be taken after all where no stream can be had."""
        self.others = target.alternates
        """Further ways to the same device."""
        self.more = False
        """Whether the next hop has places that were not tried yet."""
        self.noticed = False
        """Whether anything but a 100 came, so that somebody may know of the request."""
        self.lingers = 0
        """Timers LINGER that are running."""
        self.answered = False
        """Whether a 2xx to an INVITE came."""
        self.answer_tag: str | None = None
        """The tag of its last 2xx."""
        self.armed = 0
        """Timers C that are running."""
        self.rearm = False
        """Whether timer C is set once more when the last of them fires."""
        self.rang = 0
        """The last 18x."""
        self.ring_tag: str | None = None
        """Its tag."""
        self.learned: str | None = None
        """The next hop that was learned of the answering side."""
        self.cancel_wanted = False
        """Whether a CANCEL goes out with the first provisional response."""
        self.cancel_reason: str | None = None
        self.cancel_sent = False
        self.expired = False
        """Whether timer C ended it."""

    def rings_anew(self, ringing: Response) -> bool:
        """Whether this 18x says what the one before did not: another status, another dialog, or anything of media."""
        status, tag = ringing.status, ringing.to_tag
        if status == self.rang and tag == self.ring_tag and not ringing.body:
            return False
        self.rang, self.ring_tag = status, tag
        return True

    def answers_anew(self, answer: Response) -> bool:
        """Whether this 2xx makes another dialog than the one before."""
        tag = answer.to_tag
        if self.answered and tag == self.answer_tag:
            return False
        self.answered, self.answer_tag = True, tag
        return True

    def arm_timer_c(self, after: float, out: list[Effect]) -> None:
        """Ring for so long from now on (RFC 3261 §16.6 step 11, §16.7 step 2)."""
        if self.armed < _MAX_TIMERS_C:
            self.armed += 1
            out.append(SetBranchTimer(self.index, TIMER_C, after))
        else:
            self.rearm = True

    def cancel(self, reason: str | None, patience: float, out: list[Effect]) -> None:
        """Send a CANCEL, once (§16.10), and wait for its outcome for so many seconds."""
        if self.cancel_sent:
            return
        self.cancel_sent = True
        assert self.request is not None, "only what was sent is cancelled"
        assert self.flow is not None, "only what was sent is cancelled"
        out.append(CancelBranch(self.index, build.cancel(self.request, reason), self.flow))
        out.append(SetBranchTimer(self.index, CANCELLING, patience))

    @property
    def can_give_way(self) -> bool:
        """Whether there is another way, and nobody can have noticed this one but by a 100."""
        return (self.more or bool(self.others)) and not (self.noticed or self.cancel_wanted or self.cancel_sent)

    @property
    def pending(self) -> bool:
        """Whether it was sent and has no final answer yet."""
        return self.state in (CALLING, PROCEEDING)


@dataclass(slots=True)
class NoHop(Effect):
    """This target cannot be sent to: its URI, or the route before it, leads nowhere. Its branch has failed."""

    target: Target


@dataclass(slots=True)
class FinalAnswer:
    """A final answer that may be passed on."""

    status: int
    response: Response | None = None
    """None where no response told the status."""
    reason: str | None = None
    """The phrase, where there is no response; None for the usual one."""
    cause: str | None = None
    """TIMED_OUT or UNREACHABLE where that is what happened."""


def choose_best_response(finals: Iterable[FinalAnswer], cancelled: bool) -> FinalAnswer:
    """§16.7 step 6: 6xx before all, then the lowest class, and within it what helps the caller most.

    Who has cancelled is told so, whatever else a device had said before.
    """

    def rank(final: FinalAnswer) -> tuple[int, int]:
        status = final.status
        if status >= 600:
            return 0, 0
        if status == 487 and cancelled:
            return 1, 0
        return status // 100, _PREFERENCE.get(status, 2)

    return min(finals, key=rank)


def as_told_upstream(best: FinalAnswer, located: bool) -> FinalAnswer:
    """The best answer as the sender of the request may see it."""
    if best.status == 430 and located:
        # RFC 5626 §11.5: no endpoint should be told about flows. All that it has to know: nobody is there.
        return FinalAnswer(480, reason="Temporarily Unavailable", cause=best.cause)
    if best.status == 503 and best.reason is None:
        # §16.7 step 6: a device's 503 would tell the caller that this server can serve nobody.
        return FinalAnswer(500, cause=best.cause)
    return best


def with_challenges(chosen: Response, finals: Sequence[FinalAnswer]) -> Response:
    """§16.7 step 7: a 401 or 407 carries the challenges of all the others too."""
    if chosen.status not in (401, 407):
        return chosen
    lines, found = chosen.lines.copy(), chosen.names.copy()
    for final in finals:
        other = final.response
        if other is None or other is chosen or other.status not in (401, 407):
            continue
        for line, name in zip(other.lines, other.names, strict=True):
            if name in (names.WWW_AUTHENTICATE, names.PROXY_AUTHENTICATE):
                lines.append(line)
                found.append(name)
    return Response(chosen.status, chosen.reason, lines, found, chosen.body)
