"""The proxy's side of the server: runs ``proxy.route`` and ``proxy.fork`` and carries out what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from sipserver.accounts.credentials import CredentialCache
from sipserver.calls import faults
from sipserver.calls.machine import Call
from sipserver.location.base import Location
from sipserver.proxy import effects, fork
from sipserver.proxy.branch import ACCEPTED, Branch, NoHop
from sipserver.proxy.dialog import DialogTable, RemoteTargets, answerer_hop, sender_hop
from sipserver.proxy.forward import next_hop, stateless
from sipserver.proxy.probe import ABSENT
from sipserver.proxy.record_route import CALLEE, CALLER, Minter, other_side
from sipserver.proxy.route import (
    ANSWER,
    COLLECT,
    CallPlaced,
    Examined,
    NeedTargets,
    Plan,
    Settings,
    Target,
    Unproven,
    admit_new,
    challenge,
    examine,
    is_inside,
    plan_inside,
)
from sipserver.registrar.binding import Binding
from sipserver.server.context import RETRY_LATER, Context
from sipserver.server.gate import CommitGate
from sipserver.server.liveness import Liveness
from sipserver.server.quality import Collector
from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction
from sipserver.server.watch import CallWatch, callee_tag
from sipserver.sip import build
from sipserver.sip.digest import MISSING, STALE, AuthenticationRequired, Authenticator
from sipserver.sip.effects import TIMED_OUT, Effect, NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response
from sipserver.sip.transaction import keys
from sipserver.storage.database import StoreError

_RETARGETING: Final = (effects.CHANGED, effects.REFERRED, effects.RETARGETED)


class Proxying:
    """Requests that are no REGISTER: admitted, forwarded, answered."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        authenticators: Sequence[Authenticator],
        minter: Minter,
        credentials: CredentialCache,
        location: Location,
        watch: CallWatch,
        gate: CommitGate,
        dialogs: DialogTable,
        timers: TimerQueue,
        collector: Collector,
        liveness: Liveness,
    ) -> None:
        self.context = context
        self.settings = settings
        self.watch = watch
        self.gate = gate
        self.dialogs = dialogs
        self.timers = timers
        self.liveness = liveness
        self.finder = liveness.finder
        self.minter = minter
        self.collector = collector
        self.forwarded = 0
        """Requests that went on to at least one target."""
        self.targets = RemoteTargets()
        """Where requests inside calls may go."""
        self.unanswered = 0
        """Answers that could not be sent, or were never acknowledged."""
        self._authenticators = authenticators
        self._credentials = credentials
        self._location = location

    def on_request(self, request: Request, flow: Flow, key: keys.Key) -> None:
        """A request without a transaction, neither ACK nor CANCEL nor REGISTER."""
        call_key = ""
        try:
            examined = examine(request, self.settings, self.minter)
            if is_inside(request):
                plan = plan_inside(request, examined, self.settings)
                self._check_target(plan)
                self._check_dialog(request, plan)
            else:
                authenticator = self._authenticators[flow.listener]
                now = self.context.wall_clock()
                refusal = challenge(request, self.settings, authenticator, now)
                if refusal is not None:
                    # Every call begins like this: to be asked who one is is no refusal.
                    self.context.answer_statelessly(request, flow, refusal)
                    self.context.challenges.sent(request, flow, refusal.status, now)
                    return
                plan, call_key = self._admit(request, examined, flow, authenticator)
        except _Refused as refused:
            self._refuse(request, flow, key, refused)
            return
        except SipError as error:
            self._refuse(request, flow, key, _Refused(error, ""))
            return
        if plan.kind == COLLECT:
            assert plan.caller is not None, "a report without a sender"
            self.collector.collect(request, flow, key, plan.caller)
            return
        transaction = self.context.transactions.serve(key, request, self.context.reply_flow(request, flow))
        if plan.kind == ANSWER:
            tag = self.context.tokens.hex16()
            headers = (*plan.headers, *self.context.server_header)
            transaction.respond(200, build.reply(request, 200, to_tag=tag, headers=headers))
            return
        self.forwarded += 1
        if plan.dialog is not None:
            self.liveness.asked_for(*plan.dialog, request, flow)
        relay = Relay(self, transaction, request, plan, flow, call_key or self.context.tokens.hex16())
        transaction.user = relay
        relay.begin()

    def on_ack(self, ack: Request, flow: Flow) -> bool:
        """The ACK of a 2xx, forwarded without a transaction (RFC 3261 §16.11); False where it has nowhere to go."""
        try:
            plan = plan_inside(ack, examine(ack, self.settings, self.minter), self.settings)
            self._check_target(plan)
            uri = next_hop(plan, plan.groups[0][0])
        except (_Refused, SipError):
            return False
        assert plan.dialog is not None, "an ACK is only admitted inside a dialog"
        key, side = plan.dialog
        self.watch.confirmed(key, ack, side)
        self.liveness.confirmed(key, side, ack, flow)
        to = key, other_side(side)
        flow_out = self.finder.at_once(uri, None, to, reliable=False)
        if flow_out is not None:
            self._send_statelessly(ack, plan, flow, flow_out)
        else:
            found = partial(self._send_statelessly, ack, plan, flow)
            self.finder.find(uri, None, to, reliable=False, found=found)
        return True

    def on_cancel(self, cancel: Request, flow: Flow, key: keys.Key) -> None:
        """RFC 3261 §9.2, §16.10: it cancels what this server is proxying, or nothing."""
        invite = self.context.transactions.find_server(keys.invite_key_for_cancel(cancel))
        if invite is None:
            error = SipError(481, "Call/Transaction Does Not Exist")
            self.context.refuse_statelessly(cancel, flow, error, kind=faults.CANCEL)
            return
        # Who did not send the INVITE may not take it back (RFC 3261 §9.1: they share Call-ID, From and CSeq number).
        if invite.flow.host != flow.host or (isinstance(invite.user, Relay) and not invite.user.is_of(cancel)):
            error = SipError(481, "Call/Transaction Does Not Exist")
            self.context.refuse_statelessly(cancel, flow, error, kind=faults.FORGED)
            return
        transaction = self.context.transactions.serve(key, cancel, self.context.reply_flow(cancel, flow))
        transaction.respond(200, build.reply(cancel, 200, to_tag=self.context.stateless_tag(cancel)))
        if invite.user is not None:
            invite.user.on_server_cancel(cancel)

    def _admit(
        self, request: Request, examined: Examined, flow: Flow, authenticator: Authenticator
    ) -> tuple[Plan, str]:
        """The plan for a request outside of a dialog, and the key of the call where it begins one."""
        call_key = ""
        steps = admit_new(request, examined, flow, self.settings, authenticator, self.context.wall_clock())
        answer: Any = None
        try:
            while True:
                effect = steps.send(answer)
                answer = None
                if isinstance(effect, NeedCredentials):
                    self.context.challenges.answered(request.call_id)
                    answer = self._credentials.get(effect.username, effect.realm, effect.algorithm)
                elif isinstance(effect, NeedTargets):
                    answer = self._targets(effect.aor)
                elif isinstance(effect, CallPlaced):
                    call_key = self._placed(request, flow, effect)
        except StopIteration as stop:
            return stop.value, call_key
        except SipError as error:
            raise _Refused(error, call_key, examined.plan) from None
        except StoreError:
            failing = SipError(503, "Store Unavailable", RETRY_LATER)
            raise _Refused(failing, call_key, examined.plan, faults.STORE) from None

    def _check_target(self, plan: Plan) -> None:
        """A request inside a call goes to the other side of it; elsewhere only where subscribers may go there."""
        if plan.dialog is None or self.settings.outbound:
            return
        key, side = plan.dialog
        try:
            uri = next_hop(plan, plan.groups[0][0])
        except SipError as error:
            raise _Refused(error, "", plan) from None
        if not self.targets.allows(key, other_side(side), uri):
            raise _Refused(SipError(403, "Target Not In This Dialog"), "", plan)

    def _check_dialog(self, request: Request, plan: Plan) -> None:
        """A BYE ends a dialog of its call; with tags of none it is not even passed on (RFC 3261 §12.2.2).

        The route proves the call and the caller's tag, the callee's is known from the answers. Any device that was
        tried has seen the route: without this, one that did not get the call could end it.
        """
        if plan.dialog is None:
            return
        key, side = plan.dialog
        if request.method == "BYE":
            tag = request.to_tag if side == CALLER else request.from_tag
            if not self.watch.has_dialog(key, tag):
                raise _Refused(SipError(481, "Call/Transaction Does Not Exist"), "", plan, faults.FORGED)
        elif request.method == "REFER":
            self.watch.referred(key, side, request)

    def _placed(self, request: Request, flow: Flow, effect: CallPlaced) -> str:
        if self.watch.full:
            raise SipError(503, "Too Many Calls", RETRY_LATER)
        key = self.context.tokens.hex16()
        return key if self.watch.placed(key, request, flow, effect.caller, effect.callee) else ""

    def _targets(self, aor: str) -> tuple[Target, ...] | None:
        """Where this address is now. Who is no subscriber (any more) is nowhere, whatever is registered."""
        # Both are looked up in any case: how long it takes tells a stranger nothing.
        known = self._credentials.exists(aor)
        bindings = self._location.get(aor, self.context.wall_clock())
        return tuple([_target(binding) for binding in bindings]) if known else None

    def _refuse(self, request: Request, flow: Flow, key: keys.Key, refused: _Refused) -> None:
        error = refused.error
        if isinstance(error, AuthenticationRequired) and error.cause in (MISSING, STALE):
            self.context.answer_statelessly(request, flow, error)
            context = self.context
            context.challenges.sent(request, flow, error.status, context.wall_clock())
            return
        if refused.kind == faults.CREDENTIALS:
            self.context.challenges.answered(request.call_id)
        party, target, call = self.whose(refused.plan, refused.call_key)
        if not refused.call_key:
            self.context.answer_statelessly(request, flow, error)
            self.context.rejected(request, flow, error, kind=refused.kind, party=party, target=target, call=call)
            return
        # A call that was let in has a transaction, so that its refusal arrives (RFC 3261 §17.2.1).
        self.watch.refused(refused.call_key, error.status, error.reason)
        if error.status not in faults.ORDINARY:
            self.context.rejected(request, flow, error, kind=refused.kind, party=party, target=target, call=call)
        transaction = self.context.transactions.serve(key, request, self.context.reply_flow(request, flow))
        tag, headers = self.context.tokens.hex16(), (*error.headers, *self.context.server_header)
        transaction.respond(error.status, build.reply(request, error.status, error.reason, tag, headers))

    def whose(self, plan: Plan | None, key: str) -> tuple[str | None, str | None, Call | None]:
        """For ``errors``: the party that sent a request, the party that it is for, and the call it is part of."""
        if plan is None:
            return None, None, None
        if plan.dialog is None:
            return self.watch.party_of(plan.caller), self.watch.party_of(plan.callee), self.watch.find(key)
        call = self.watch.find(plan.dialog[0])
        if call is None:
            return None, None, None
        return (call.callee, call.caller, call) if plan.dialog[1] == CALLEE else (call.caller, call.callee, call)

    def on_undelivered(self, transaction: ServerTransaction, cause: str, call: Call | None = None) -> None:
        """An answer was never acknowledged, or could not be sent."""
        self.unanswered += 1
        self.context.note_undelivered(transaction, cause, call)

    def _send_statelessly(self, ack: Request, plan: Plan, flow_in: Flow, flow: Flow | None) -> None:
        if flow is not None:
            request = stateless(ack, plan, flow_in, flow, self.context.tokens.hex16())
            self.context.transports.send(flow, request.data)


class _Refused(Exception):
    """A request that is not admitted."""

    def __init__(self, error: SipError, call_key: str, plan: Plan | None = None, kind: str = "") -> None:
        super().__init__(error.status, error.reason)
        self.error = error
        self.call_key = call_key
        self.plan = plan
        """As far as it had come."""
        self.kind = kind or _kind(error)
        """As it stands in ``errors``."""


def _kind(error: SipError) -> str:
    if isinstance(error, AuthenticationRequired):
        return faults.CREDENTIALS
    if isinstance(error, Unproven):
        return faults.FORGED
    return faults.OVERLOAD if error.status == 503 else faults.REFUSED


class Relay:
    """One request under way: the response context, and what its effects do."""

    __slots__ = ("_begun", "_call", "_context", "_hung_up_at", "_key", "_proxying", "_transaction")

    def __init__(
        self, proxying: Proxying, transaction: ServerTransaction, request: Request, plan: Plan, flow: Flow, key: str
    ) -> None:
        self._proxying = proxying
        self._transaction = transaction
        self._key = key if plan.dialog is None else plan.dialog[0]
        self._begun: tuple[Request, Plan] | None = (request, plan)
        """Kept until the context is done, for what it says of the caller's target."""
        self._call: Call | None = None
        """The call, once it has failed."""
        self._hung_up_at = proxying.watch.steady() if request.method == "BYE" else 0
        """When a BYE came (``CallWatch.steady``), for the case that nobody answers it."""
        self._context = fork.ResponseContext(
            request, plan, flow, proxying.settings, proxying.minter, key, proxying.context.tokens.hex16
        )

    def begin(self) -> None:
        """Start the response context."""
        self._run(self._context.start())

    def on_response(self, branch: int, response: Response) -> None:
        """From a client transaction."""
        if response.status >= 300 or len(response.vias) < 2:
            self._note_response(self._pending(branch), response)
        dialog = self._begun[1].dialog if self._begun is not None else None
        if dialog is not None and response.status > 100 and response.status not in ABSENT:
            self._proxying.liveness.responded(self._key, other_side(dialog[1]), response)
        self._run(self._context.on_response(branch, response))

    def on_failed(self, branch: int, cause: str) -> None:
        """From a client transaction."""
        each = self._pending(branch)
        if each is not None:
            self._note(faults.TIMEOUT if cause == TIMED_OUT else faults.UNREACHABLE, each.target, each.flow)
        self._run(self._context.on_failed(branch, cause))

    def on_branch_timer(self, branch: int, timer: str) -> None:
        """A timer that the context set for this branch is due."""
        self._run(self._context.on_timer(branch, timer))

    def on_server_cancel(self, cancel: Request) -> None:
        """The caller takes the request back."""
        self._run(self._context.on_cancel(cancel))

    def is_of(self, cancel: Request) -> bool:
        """Whether this CANCEL means the request by more than its branch (RFC 3261 §9.1)."""
        if self._begun is None:
            return True
        request = self._begun[0]
        return (
            cancel.call_id == request.call_id
            and cancel.from_tag == request.from_tag
            and cancel.cseq[0] == request.cseq[0]
        )

    def on_server_failed(self, cause: str) -> None:
        """The answer did not arrive. RFC 3261 §16.9: no reason to give up what the other side is doing."""
        proxying = self._proxying
        proxying.on_undelivered(self._transaction, cause, self._call or proxying.watch.find(self._key))

    def _pending(self, branch: int) -> Branch | None:
        """The branch while its part is not over: what comes later changes nothing, and goes on no record."""
        each = self._context.branch(branch)
        return each if each is not None and each.state < ACCEPTED else None

    def _note_response(self, each: Branch | None, response: Response) -> None:
        """An answer that is an error goes on record, whatever becomes of it."""
        if each is None or self._begun is None:
            return
        if len(response.vias) < 2:
            self._note(faults.MALFORMED_RESPONSE, each.target, each.flow, response, faults.SERVER)
        elif faults.is_error(self._begun[0].method, response.status):
            self._note(faults.PEER_ERROR, each.target, each.flow, response, faults.PEER)

    def _note(
        self, kind: str, asked: Target, flow: Flow | None, response: Response | None = None,
        answered_by: str = faults.NETWORK,
    ) -> None:  # fmt: skip
        """Put on record what went wrong where this request was sent on to, and for whom."""
        if self._begun is None:
            return
        proxying, (request, plan) = self._proxying, self._begun
        party, target, call = proxying.whose(plan, self._key)
        agent = proxying.context.agent_of(response) if response is not None else None
        proxying.context.note_failure(
            kind, request.method, flow.host if flow is not None else asked.host or None, response,
            answered_by=answered_by, agent=agent or asked.user_agent, party=party, target=target,
            call=call.id if call is not None else None,
        )  # fmt: skip

    def _run(self, asked: Sequence[Effect]) -> None:
        proxying = self._proxying
        for effect in asked:
            if isinstance(effect, effects.Reply):
                if effect.durable:
                    proxying.gate.hold(self._transaction, effect.status, effect.data)
                else:
                    self._transaction.respond(effect.status, effect.data)
            elif isinstance(effect, effects.CallEvent):
                if effect.kind == effects.FAILED:
                    self._call = proxying.watch.find(self._key)
                proxying.watch.event(self._key, effect, self._hung_up_at)
                self._learn(effect)
                if effect.kind == effects.ENDED:
                    self._forget(effect)
            elif isinstance(effect, effects.SetBranchTimer):
                proxying.timers.add(effect.after, _BranchTimer(self, effect.branch), effect.timer)
            elif isinstance(effect, effects.NeedFlow):
                self._find_flow(effect)
            elif isinstance(effect, effects.Forward):
                proxying.context.transactions.request(effect.request, effect.flow, self, effect.branch)
            elif isinstance(effect, effects.CancelBranch):
                proxying.context.transactions.request(effect.request, effect.flow, None)
            elif isinstance(effect, effects.Learn):
                proxying.dialogs.learn(effect.key, effect.side, effect.flow, effect.hop)
            elif isinstance(effect, NoHop):
                self._note(faults.UNREACHABLE, effect.target, None)
            elif isinstance(effect, effects.Done):
                self._begun = None
                # Whether a refusal of a call is acknowledged is still of interest, until its transaction ends.
                if self._call is None:
                    self._transaction.user = None

    def _forget(self, ended: effects.CallEvent) -> None:
        """A dialog has ended; one that the caller did not keep may end before the call does."""
        proxying, key = self._proxying, self._key
        if not proxying.watch.is_open(key):
            proxying.dialogs.forget(key)
            proxying.liveness.forget(key)
        elif ended.request is not None:
            proxying.liveness.dialog_ended(key, callee_tag(ended.request, ended.side or CALLER))

    def _learn(self, event: effects.CallEvent) -> None:
        """Remember where each side of the call wants its requests (RFC 3261 §12.1, §12.2), and how long its session
        lasts (RFC 4028 §8.2)."""
        proxying, key, message = self._proxying, self._key, event.message
        targets, sessions = proxying.targets, proxying.settings.sessions
        if not isinstance(message, Response):
            return
        # Until a call is answered its sides are believed: hardly anything is sent inside it by then.
        if event.kind == effects.ANSWERED and self._begun is not None:
            request, plan = self._begun
            targets.learn(key, CALLER, sender_hop(request))
            targets.learn(key, CALLEE, answerer_hop(message, plan.token))
            assert event.flow is not None, "who answers was sent the request over a flow"
            proxying.liveness.answered(
                key, request, plan, self._transaction.flow, message, event.target, event.flow,
                sessions.interval(message),
            )  # fmt: skip
        elif event.kind in _RETARGETING and event.side is not None and event.request is not None:
            targets.learn(key, event.side, sender_hop(event.request))
            targets.learn(key, other_side(event.side), answerer_hop(message, ""))
            # RFC 4028 §7.2: re-INVITE and UPDATE refresh a session; a PRACK or REFER only shows that both are there.
            if event.kind == effects.CHANGED and event.request.method in ("INVITE", "UPDATE"):
                proxying.liveness.refreshed(key, event.side, event.request, message, sessions.interval(message))

    def _find_flow(self, need: effects.NeedFlow) -> None:
        finder = self._proxying.finder
        flow = finder.at_once(need.uri, need.target, need.dialog, reliable=need.reliable)
        if flow is not None:
            self._run(self._context.on_flow(need.branch, flow))
        else:
            found = partial(self._on_flow, need.branch)
            finder.find(need.uri, need.target, need.dialog, reliable=need.reliable, found=found)

    def _on_flow(self, branch: int, flow: Flow | None) -> None:
        if flow is not None:
            self._run(self._context.on_flow(branch, flow))
        else:
            each = self._pending(branch)
            if each is not None and each.datagram is None:
                self._note(faults.UNREACHABLE, each.target, None)
            # Nobody is there: the same for the caller as an endpoint that is not registered.
            self._run(self._context.on_no_flow(branch, 480, "Temporarily Unavailable"))


class _BranchTimer:
    """Brings a timer back to its branch."""

    __slots__ = ("_branch", "_relay")

    def __init__(self, relay: Relay, branch: int) -> None:
        self._relay = relay
        self._branch = branch

    def on_timer(self, timer: str) -> None:
        """The timer is due."""
        self._relay.on_branch_timer(self._branch, timer)


def _target(binding: Binding) -> Target:
    """A binding as the proxy sees it."""
    return Target(
        binding.contact, binding.q, binding.path, binding.user_agent, binding.transport, binding.host, binding.port,
        binding.connection, binding.instance, binding.aor,
    )  # fmt: skip
