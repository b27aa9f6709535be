"""The response context: one request, its branches, and the answer that is made of theirs (RFC 3261 §16.7).

    RESOLVING   its flow was asked for; nothing is sent yet, so it can be dropped without a word
    CALLING     sent; a CANCEL has to wait for a provisional response (§9.1)
    PROCEEDING  a provisional response came; a CANCEL can go out
    ACCEPTED    INVITE only: a 2xx came; more of them are passed on until LINGER fires (RFC 6026)
    TERMINATED  a final response came, or none will
    ABANDONED   nothing came for so long that another branch took its place; what comes after all is cancelled

Where the next hop has several places (RFC 3263 §4.3), or the device several flows (RFC 5626 §5.1), and one of them
fails before anybody noticed the request, the next is tried: in a branch of its own, with the failed one's place in
the group. Only the last one's failure is a candidate for the answer.

Groups of targets are tried one after the other, a group's targets at once as far as Max-Breadth goes.
A 2xx goes upstream at once, and so does a provisional response until then; of everything else the best
is chosen when no branch is under way and no target is left. Timers are not cancelled: each branch
counts those it set, and one that it no longer wants is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sipserver.proxy.branch import (
    ABANDONED,
    ACCEPTED,
    CALLING,
    PROCEEDING,
    RESOLVING,
    TERMINATED,
    Branch,
    FinalAnswer,
    NoHop,
    as_told_upstream,
    choose_best_response,
    with_challenges,
)
from sipserver.proxy.effects import (
    BRANCH_FAILED,
    CANCELLED,
    CANCELLING,
    ENDED,
    FAILED,
    FAILOVER,
    LINGER,
    PROGRESSED,
    RANG,
    TRIED,
    TRYING,
    Abandon,
    CallEvent,
    Done,
    Forward,
    NeedContacts,
    NeedFlow,
    Reply,
    SetBranchTimer,
)
from sipserver.proxy.forward import forward, next_hop
from sipserver.proxy.notes import learn_answerer, learn_sender, note_success
from sipserver.proxy.plan import Plan, Settings, Target
from sipserver.proxy.record_route import CALLER, Minter, other_side
from sipserver.proxy.redirect import FOLLOWED, Contact, follow, group_contacts
from sipserver.proxy.secure import may_leave
from sipserver.proxy.session import complete_answer
from sipserver.sip import build, names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response
from sipserver.sip.timers import TIMER_C

_ELSEWHERE: Final = 'Reason: SIP;cause=200;text="Call completed elsewhere"'
_NO_ANSWER: Final = 'Reason: SIP;cause=408;text="Request Timeout"'

_NOTHING: Final[tuple[Effect, ...]] = ()


class ResponseContext:
    """RFC 3261 §16.7 for a request of any method but ACK and CANCEL."""

    __slots__ = (
        "_active", "_at_once", "_branches", "_call", "_cancelled", "_closed", "_final", "_finals", "_flow",
        "_followed", "_groups", "_invite", "_key", "_lingering", "_minter", "_new_branch", "_plan", "_request",
        "_settings", "_share", "_waiting", "done",
    )  # fmt: skip
    # Only for mypyc: what ``_end`` deletes.
    __deletable__ = ("_request", "_plan", "_flow", "_groups", "_waiting")

    def __init__(
        self,
        request: Request,
        plan: Plan,
        flow: Flow,
        settings: Settings,
        minter: Minter,
        key: str,
        new_branch: Callable[[], str],
    ) -> None:
        self._request = request
        self._plan = plan
        self._flow = flow
        self._settings = settings
        self._minter = minter
        self._key = key if plan.dialog is None else plan.dialog[0]
        self._new_branch = new_branch
        self._invite = request.method == "INVITE"
        self._call = self._invite and plan.dialog is None
        self._branches: list[Branch] = []
        # Lists, since they are short: a deque takes 700 bytes from its beginning.
        self._groups = plan.groups.copy()
        self._waiting: list[Target] = []
        self._at_once = self._share = plan.breadth
        self._active = 0
        self._lingering = 0
        self._finals: list[FinalAnswer] = []
        self._final = 0
        self._followed: set[str] | None = None
        self._closed = False
        self._cancelled = False
        self.done = False
        """Whether ``Done`` was returned; every event after it is ignored."""

    @property
    def final(self) -> int:
        """The status of the first final response that was returned, 0 before."""
        return self._final

    def start(self) -> Sequence[Effect]:
        """Begin; to be called once."""
        out: list[Effect] = []
        if self._invite:
            # §16.2: 100 at once for INVITE, which stops its retransmissions.
            out.append(Reply(100, build.reply(self._request, 100), durable=False))
        else:
            out.append(SetBranchTimer(0, TRYING, self._settings.trying_after))
        if self._plan.record_route and self._plan.dialog is None:
            learn_sender(self._request, self._plan, self._flow, self._key, CALLER, out)
        self._go_on(out)
        return out

    def keep(self, request: Request) -> None:
        """After the answer to a call: of its request no more than this is kept, which is never forwarded."""
        self._request = request

    def on_flow(self, branch: int, flow: Flow, *, more: bool = False) -> Sequence[Effect]:
        """The answer to NeedFlow; ``more`` where the next hop has further places."""
        each = self.branch(branch)
        if each is None or each.state != RESOLVING:
            return _NOTHING
        each.more = more
        out: list[Effect] = []
        assert each.hop is not None, "a branch without a hop has failed"
        if not may_leave(self._plan.secure, each.hop, flow):
            # RFC 3261 §26.2.2: rather not at all.
            out.append(NoHop(each.target))
            self._fail(each, 480, UNREACHABLE, out, "Temporarily Unavailable", gives_way=True)
            self._go_on(out)
            return out
        request = forward(
            self._request, self._plan, each.target, self._flow, flow, self._new_branch(), self._minter, self._key,
            self._share,
        )  # fmt: skip
        if (
            not flow.reliable
            and each.datagram is None
            and each.hop.transport is None
            and len(request.data) > self._settings.size_limit
        ):
            # §18.1.1: a request near the path's MTU goes over a stream, unless its URI insists on UDP.
            each.datagram = flow, request
            out.append(NeedFlow(branch, each.hop, self._located(each), self._dialog_to(), reliable=True))
        else:
            self._send(each, flow, request, out)
        return out

    def on_no_flow(
        self, branch: int, status: int, reason: str, *, more: bool = False, tried: Flow | None = None
    ) -> Sequence[Effect]:
        """The other answer to NeedFlow; the branch counts as answered with this status.

        ``tried`` says where no connection could be had, and ``more`` that the next hop has further places.
        """
        each = self.branch(branch)
        if each is None or each.state != RESOLVING:
            return _NOTHING
        out: list[Effect] = []
        if each.datagram is not None:
            # §18.1.1: where no stream can be had, UDP it is after all.
            self._send(each, *each.datagram, out)
        else:
            each.more, each.flow = more, tried
            self._fail(each, status, UNREACHABLE, out, reason, gives_way=True)
            self._go_on(out)
        return out

    def on_response(self, branch: int, response: Response) -> Sequence[Effect]:
        """A response to this branch's request; of an INVITE's 2xx each retransmission too."""
        each = self.branch(branch)
        if each is None or each.state == RESOLVING:
            return _NOTHING
        out: list[Effect] = []
        status = response.status
        if len(response.vias) < 2:
            # §16.7 step 3: without a second Via it is for nobody upstream.
            if status >= 200 and each.pending:
                self._fail(each, 502, None, out)
                self._go_on(out)
        elif status < 200:
            if each.pending:
                self._on_provisional(each, response, out)
            elif each.state == ABANDONED and self._invite:
                # §9.1: now it can be cancelled.
                each.cancel(None, self._settings.linger, out)
        elif status < 300:
            self._on_success(each, response, out)
        elif each.pending:
            if each.expired and status == 487:
                # It rang until timer C ended it: to the caller that is a time-out, not a cancellation of theirs.
                self._fail(each, 408, TIMED_OUT, out, heard=response)
            elif status in FOLLOWED and self._follows(each, response, out):
                pass
            else:
                # RFC 3263 §4.3: 503 is a failure of this place. RFC 5626 §11.5: 430 of this flow, not of its device.
                gives_way = status == 503 or (status == 430 and bool(each.others))
                each.more = each.more and status == 503
                self._fail(each, status, None, out, response=response, gives_way=gives_way)
            if status >= 600:
                # §16.7 step 5: one who speaks for all devices has declined; no other branch may go on.
                self._close(f"Reason: SIP;cause={status}", out)
            self._go_on(out)
        return out

    def on_failed(self, branch: int, cause: str) -> Sequence[Effect]:
        """The branch's transaction failed: TIMED_OUT counts as 408 and UNREACHABLE as 503 (§16.7, §16.9)."""
        each = self.branch(branch)
        if each is None or not each.pending:
            return _NOTHING
        out: list[Effect] = []
        gives_way = each.state == CALLING or cause != TIMED_OUT
        self._fail(each, 408 if cause == TIMED_OUT else 503, cause, out, gives_way=gives_way)
        self._go_on(out)
        return out

    def on_contacts(
        self, branch: int, contacts: Sequence[Contact], bindings: Sequence[Sequence[Target]]
    ) -> Sequence[Effect]:
        """The answer to NeedContacts: of each contact the bindings, none where it is no address of ours."""
        each = self.branch(branch)
        if each is None:
            return _NOTHING
        self._active -= 1
        out: list[Effect] = []
        groups = [] if self._closed else group_contacts(contacts, bindings, self._settings)
        if groups:
            self._waiting.extend(groups[0])
            self._groups[:0] = groups[1:]
        elif not self._final:
            # The same for the caller as for whoever was redirected: they are nowhere.
            self._finals.append(FinalAnswer(480, reason="Temporarily Unavailable", cause=UNREACHABLE))
        self._go_on(out)
        return out

    def on_refused(self, branch: int, status: int, reason: str) -> Sequence[Effect]:
        """This server did not send what ``Forward`` asked for; the branch counts as answered with this status."""
        each = self.branch(branch)
        if each is None or not each.pending:
            return _NOTHING
        out: list[Effect] = []
        self._fail(each, status, None, out, reason)
        self._go_on(out)
        return out

    def on_cancel(self, cancel: Request | None) -> Sequence[Effect]:
        """The sender's CANCEL, which the driver has answered 200; None where the server itself gives up (§16.10)."""
        if self.done or not self._invite or self._final or self._cancelled:
            return _NOTHING
        self._cancelled = True
        out: list[Effect] = []
        if self._call:
            out.append(CallEvent(CANCELLED, message=cancel))
        # RFC 3326 §2: the reason goes along.
        reasons = cancel.headers(names.REASON) if cancel is not None else []
        self._close(f"Reason: {', '.join(reasons)}" if reasons else None, out)
        self._go_on(out)
        return out

    def on_timer_c(self, branch: int) -> Sequence[Effect]:
        """``on_timer(branch, TIMER_C)``."""
        return self.on_timer(branch, TIMER_C)

    def on_timer(self, branch: int, timer: str) -> Sequence[Effect]:
        """A timer of SetBranchTimer is due."""
        if self.done:
            return _NOTHING
        out: list[Effect] = []
        if timer == TRYING:
            # RFC 4320 §4.1: 100 once the sender retransmits every T2 only.
            if not self._final:
                out.append(Reply(100, build.reply(self._request, 100), durable=False))
            return out
        each = self._branches[branch]
        if timer == LINGER:
            each.lingers -= 1
            if not each.lingers:
                each.state = TERMINATED
                self._lingering -= 1
                self._go_on(out)
        elif timer == FAILOVER and each.state == CALLING and each.can_give_way and not self._closed:
            self._abandon(each, out)
            self._go_on(out)
        elif timer == CANCELLING and each.pending:
            self._fail(each, 487 if self._cancelled else 408, TIMED_OUT, out)
            self._go_on(out)
        elif timer == TIMER_C:
            self._on_timer_c(each, out)
        return out

    def _on_timer_c(self, each: Branch, out: list[Effect]) -> None:
        """§16.8."""
        each.armed -= 1
        if each.armed or each.cancel_sent or not each.pending:
            return
        if each.rearm:
            each.rearm = False
            each.arm_timer_c(self._settings.timer_c, out)
        elif each.state == PROCEEDING:
            each.expired = True
            each.cancel(_NO_ANSWER, self._settings.linger, out)
        else:
            self._fail(each, 408, TIMED_OUT, out)
            self._go_on(out)

    def branch(self, index: int) -> Branch | None:
        """A branch, until the context is done."""
        return None if self.done else self._branches[index]

    def _located(self, each: Branch) -> Target | None:
        # Bindings that a redirection led to are known by the connection that they came over.
        return each.target if self._plan.located or each.target.connection else None

    def _dialog_to(self) -> tuple[str, str] | None:
        dialog = self._plan.dialog
        return None if dialog is None else (dialog[0], other_side(dialog[1]))

    def _go_on(self, out: list[Effect]) -> None:
        """Start what may start; where nothing is under way or left, answer and end."""
        while True:
            while self._waiting and not self._closed and self._active < self._at_once:
                self._launch(self._waiting.pop(0), out)
            if self._active:
                return
            if self._closed or not self._groups:
                break
            group = self._groups.pop(0)
            self._waiting.extend(group)
            # RFC 5393 §5.3.3: the shares of the branches under way never add up to more than came in.
            self._at_once = max(1, min(len(group), self._plan.breadth))
            self._share = self._plan.breadth // self._at_once
        if not self._final:
            self._send_best(out)
        if not self._lingering:
            self._end(out)

    def _end(self, out: list[Effect]) -> None:
        self.done = True
        out.append(Done())
        # Timers may hold the context for minutes; what it was made of need not wait for them.
        self._branches.clear()
        self._finals.clear()
        del self._request, self._plan, self._flow, self._groups, self._waiting

    def _launch(self, target: Target, out: list[Effect]) -> None:
        each = Branch(len(self._branches), target)
        self._branches.append(each)
        self._active += 1
        try:
            each.hop = next_hop(self._plan, target)
        except SipError:
            out.append(NoHop(target))
            self._fail(each, 503, UNREACHABLE, out, gives_way=True)
            return
        out.append(NeedFlow(each.index, each.hop, self._located(each), self._dialog_to(), reliable=False))

    def _replace(self, failed: Branch, out: list[Effect]) -> None:
        """The next place of the same next hop, or else the next flow of the same device, takes a failed one's place."""
        if failed.more:
            each = Branch(len(self._branches), failed.target)
            self._branches.append(each)
            self._active += 1
            each.hop, each.others = failed.hop, failed.others
            assert each.hop is not None, "a branch without a hop has no places"
            out.append(
                NeedFlow(
                    each.index, each.hop, self._located(each), self._dialog_to(), reliable=False, after=failed.index
                )
            )  # fmt: skip
        else:
            target = failed.others[0]
            target.alternates = failed.others[1:]
            self._launch(target, out)

    def _abandon(self, each: Branch, out: list[Effect]) -> None:
        """Nothing was heard, and there is another way. Should the request arrive after all, it is cancelled (§9.1)."""
        assert each.request is not None, "what waits for an answer was sent"
        assert each.flow is not None, "what waits for an answer was sent"
        out.append(Abandon(each.index, each.request, each.flow, each.target))
        self._fail(each, 408, TIMED_OUT, out, gives_way=True)
        each.state = ABANDONED
        if self._invite:
            self._linger(each, out)

    def _linger(self, each: Branch, out: list[Effect]) -> None:
        if not each.lingers:
            self._lingering += 1
        each.lingers += 1
        out.append(SetBranchTimer(each.index, LINGER, self._settings.linger))

    def _follows(self, each: Branch, response: Response, out: list[Effect]) -> bool:
        """§16.7 step 4: whether contacts of this 3xx are tried instead of it."""
        if not self._settings.redirects or self._plan.dialog is not None or self._plan.routes or self._closed:
            return False
        if self._followed is None:
            self._followed = set()
        contacts, left = follow(response, self._plan, self._settings, self._followed)
        if not contacts:
            return False
        self._fail(each, response.status, None, out, response=response, followed=True)
        if left is not None:
            self._finals.append(FinalAnswer(response.status, left))
        # The look-up counts as being under way.
        self._active += 1
        out.append(NeedContacts(each.index, contacts))
        return True

    def _send(self, each: Branch, flow: Flow, request: OutgoingRequest, out: list[Effect]) -> None:
        each.state, each.flow, each.request, each.datagram = CALLING, flow, request, None
        if self._call:
            out.append(CallEvent(TRIED, each.index, target=each.target, flow=flow))
        if self._invite:
            each.arm_timer_c(self._settings.timer_c, out)
        if each.can_give_way:
            out.append(SetBranchTimer(each.index, FAILOVER, self._settings.failover_after))
        out.append(Forward(each.index, request, flow))

    def _on_provisional(self, each: Branch, response: Response, out: list[Effect]) -> None:
        each.state = PROCEEDING
        status = response.status
        # RFC 4320 §4.1: no other request than INVITE is answered by anything provisional but 100.
        if not self._invite:
            return
        # §16.7 step 5: 100 goes no further than one hop, and what comes after the final answer comes too late.
        if status > 100:
            each.noticed = True
            if not each.cancel_wanted and not each.cancel_sent:
                each.arm_timer_c(self._settings.timer_c, out)
            if not self._final:
                dialog = self._plan.dialog
                if self._call and 180 <= status < 190 and each.rings_anew(response):
                    out.append(CallEvent(RANG, each.index, response, status=status, target=each.target, flow=each.flow))
                elif dialog is not None and response.body:
                    out.append(CallEvent(PROGRESSED, each.index, response, dialog[1], status, request=self._request))
                learn_answerer(self._request, self._plan, self._flow, self._key, each, response, out)
                out.append(Reply(status, build.without_top_via(response, self._flow.reliable), durable=False))
        if each.cancel_wanted:
            each.cancel(each.cancel_reason, self._settings.linger, out)

    def _on_success(self, each: Branch, response: Response, out: list[Effect]) -> None:
        """§16.7 step 5: a 2xx is passed on at once; of an INVITE's every one, of anything else the first."""
        status = response.status
        # RFC 4028 §8.2: every 2xx, those that are repeated as well.
        complete_answer(response, self._plan.timing)
        if each.answered:
            # A retransmission, or another endpoint behind this branch. The first may still wait for the disk, so
            # this waits as well.
            if self._call and each.answers_anew(response):
                note_success(self._request, self._plan, each, response, out)
            out.append(Reply(status, build.without_top_via(response, self._flow.reliable), durable=self._call))
            return
        if each.pending:
            self._active -= 1
        elif not self._invite and (each.state != ABANDONED or self._final):
            return
        # A branch that was given up, and answers after all, counts as well.
        each.state = TERMINATED
        if self._invite:
            each.state = ACCEPTED
            # It was kept for a CANCEL, and there will be none; the branch stays for half a minute.
            each.request = None
            each.answers_anew(response)
            self._linger(each, out)
        learn_answerer(self._request, self._plan, self._flow, self._key, each, response, out)
        durable = note_success(self._request, self._plan, each, response, out)
        out.append(Reply(status, build.without_top_via(response, self._flow.reliable), durable))
        self._final = self._final or status
        # §16.7 step 10.
        self._close(_ELSEWHERE, out)
        if self._invite:
            self._go_on(out)
        else:
            self._end(out)

    def _fail(
        self,
        each: Branch,
        status: int,
        cause: str | None,
        out: list[Effect],
        reason: str | None = None,
        response: Response | None = None,
        heard: Response | None = None,
        *,
        gives_way: bool = False,
        followed: bool = False,
    ) -> None:
        """The branch has ended without a 2xx; its answer is a candidate (§16.7 step 4), but what was only ``heard``.

        Where it ``gives_way`` and there is another way to the same target, that is tried instead; where its contacts
        are ``followed``, those are.
        """
        if self._call and each.state == RESOLVING:
            out.append(CallEvent(TRIED, each.index, target=each.target, flow=each.flow))
        each.state = TERMINATED
        self._active -= 1
        if self._call:
            out.append(
                CallEvent(
                    BRANCH_FAILED, each.index, response or heard, status=status, cause=cause, flow=each.flow,
                    heard=each.cancel_sent, followed=followed,
                )
            )  # fmt: skip
        if gives_way and each.can_give_way and not self._closed:
            self._replace(each, out)
        elif not self._final and not followed:
            self._finals.append(FinalAnswer(status, response, reason, cause))

    def _close(self, reason: str | None, out: list[Effect]) -> None:
        """No new branches; those under way are cancelled as soon as that is possible (§16.7 step 10)."""
        self._closed = True
        for each in self._branches:
            if each.state == RESOLVING:
                each.state = TERMINATED
                self._active -= 1
            elif self._invite and each.state == CALLING and not each.cancel_wanted:
                each.cancel_wanted, each.cancel_reason = True, reason
            elif self._invite and each.state == PROCEEDING:
                each.cancel(reason, self._settings.linger, out)

    def _send_best(self, out: list[Effect]) -> None:
        """§16.7 steps 6 to 9: answer with the best there is, 408 where there is nothing."""
        nothing = FinalAnswer(487) if self._cancelled else FinalAnswer(408, cause=TIMED_OUT)
        best = choose_best_response(self._finals or (nothing,), self._cancelled)
        status, dialog = best.status, self._plan.dialog
        ended = False
        if dialog is not None and self._request.method == "BYE":
            # RFC 3261 §15.1.1: after no answer, or one that knows of no dialog, nobody has it any longer.
            ended = status in (408, 481) or best.cause is not None
            if ended:
                out.append(
                    CallEvent(
                        ENDED, message=best.response, side=dialog[1], status=status, cause=best.cause,
                        request=self._request,
                    )
                )  # fmt: skip
        # RFC 4320 §4.2: a 408 to anything but INVITE comes too late by its very meaning, and none may be sent. The
        # server transaction is told all the same: it keeps the 408 to itself, and ends (sip.transaction.server).
        best = as_told_upstream(best, self._plan.located)
        self._final = status = best.status
        if self._call:
            out.append(CallEvent(FAILED, message=best.response, status=status, cause=best.cause))
        if best.response is not None:
            data = build.without_top_via(with_challenges(best.response, self._finals), self._flow.reliable)
        else:
            data = build.reply(self._request, status, best.reason, "p" + self._key)
        out.append(Reply(status, data, durable=ended))
