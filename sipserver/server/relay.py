"""One request on its way through ``proxy.fork``: carries out what the machine asks for, feeds back what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from sipserver.accounts.credentials import CredentialCache
from sipserver.calls import faults
from sipserver.calls.machine import Call
from sipserver.location.base import Location
from sipserver.proxy import effects, fork
from sipserver.proxy.branch import ACCEPTED, CALLING, Branch, NoHop
from sipserver.proxy.dialog import DialogTable, RemoteTargets, answerer_hop, sender_hop
from sipserver.proxy.media_relay import Exchange
from sipserver.proxy.plan import Plan, Settings, Target
from sipserver.proxy.privacy import withhold_identity
from sipserver.proxy.probe import ABSENT
from sipserver.proxy.record_route import CALLEE, CALLER, Minter, other_side
from sipserver.proxy.source import Sources
from sipserver.registrar.binding import Binding
from sipserver.server.context import Context
from sipserver.server.flows import Search
from sipserver.server.gate import CommitGate
from sipserver.server.liveness import Liveness
from sipserver.server.media import Media
from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction
from sipserver.server.watch import CallWatch, callee_tag
from sipserver.sip import names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import TIMED_OUT, Effect
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response

PORTION: Final = 40.0
"""Seconds that a timer of a branch is waited for in one go: longer than answers are repeated (64*T1)."""

_KEPT: Final = frozenset((names.FROM, names.CALL_ID, names.CSEQ, names.CONTACT, names.RECORD_ROUTE))

_RETARGETING: Final = (effects.CHANGED, effects.REFERRED, effects.RETARGETED)


class Desk:
    """What every request on its way uses: the proxy's settings, and who keeps what of calls and dialogs."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        minter: Minter,
        watch: CallWatch,
        gate: CommitGate,
        dialogs: DialogTable,
        timers: TimerQueue,
        liveness: Liveness,
        credentials: CredentialCache,
        location: Location,
    ) -> None:
        self.credentials = credentials
        self.context = context
        self.settings = settings
        self.watch = watch
        self.gate = gate
        self.dialogs = dialogs
        self.timers = timers
        self.liveness = liveness
        self.finder = liveness.finder
        self.minter = minter
        self.new_branch = context.tokens.hex16
        """Bound once, and not for each request."""
        self.targets = RemoteTargets()
        """Where requests inside calls may go."""
        self.sources = Sources()
        """From where the sides of calls speak."""
        self.media: Media | None = None
        """What puts media relays into calls; None where there are none."""
        self.unanswered = 0
        """Answers that could not be sent, or were never acknowledged."""
        self._location = location

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

    def locate(self, aor: str) -> tuple[Target, ...] | None:
        """Where this address is now. Who is no subscriber (any more) is nowhere, whatever is registered."""
        # Both are looked up in any case: how long it takes tells a stranger nothing.
        known = self.credentials.exists(aor)
        bindings = self._location.get(aor, self.context.wall_clock())
        return tuple([_target(binding) for binding in bindings]) if known else None

    def locate_all(self, aor: str) -> list[Target]:
        """The same of every subscriber that this address stands for."""
        found: list[Target] = []
        for each, _ in self.settings.dial_plan.meant(aor):
            found += self.locate(each) or ()
        return found

    def on_undelivered(self, transaction: ServerTransaction, cause: str, call: Call | None = None) -> None:
        """An answer was never acknowledged, or could not be sent."""
        self.unanswered += 1
        self.context.note_undelivered(transaction, cause, call)


class Relay:
    """One request under way: the response context, and what its effects do."""

    __slots__ = (
        "_begun", "_call", "_context", "_desk", "_exchanges", "_flow", "_hung_up_at", "_key", "_line", "_searches",
        "_transaction",
    )  # fmt: skip

    def __init__(
        self, desk: Desk, transaction: ServerTransaction, request: Request, plan: Plan, flow: Flow, key: str
    ) -> None:
        self._desk = desk
        self._transaction = transaction
        self._key = key if plan.dialog is None else plan.dialog[0]
        self._begun: tuple[Request, Plan] | None = (request, plan)
        """Kept until the context is done, for what it says of the caller's target."""
        self._call: Call | None = None
        """The call, once it has failed."""
        self._flow = flow
        """That the request came over."""
        self._exchanges: dict[int, Exchange] | None = None
        """Of branches whose media may be relayed."""
        self._hung_up_at = desk.watch.steady() if request.method == "BYE" else 0
        """When a BYE came (``CallWatch.steady``), for the case that nobody answers it."""
        self._line: _Line | None = None
        """By which its timers reach it."""
        self._searches: dict[int, Search] | None = None
        """The places of those next hops that had to be looked up, by the branch that tries the latest."""
        self._context = fork.ResponseContext(request, plan, flow, desk.settings, desk.minter, key, desk.new_branch)

    def begin(self) -> None:
        """Start the response context."""
        if self._desk.finder.dead and self._begun is not None:
            for group in self._begun[1].groups:
                group[:] = [self._desk.finder.live_way_first(each) if each.hop else each for each in group]
        self._run(self._context.start())

    def on_response(self, branch: int, response: Response) -> None:
        """From a client transaction."""
        exchange = self._exchanges.get(branch) if self._exchanges is not None else None
        media = self._desk.media
        if exchange is None or media is None:
            self.receive(branch, response)
        else:
            media.response(self._key, exchange, branch, response, self)

    def receive(self, branch: int, response: Response) -> None:
        """Go on with a response, whose media are as they are to be."""
        if response.has(names.P_ASSERTED_IDENTITY):
            self._withhold_identity(branch, response)
        if response.status >= 300 or len(response.vias) < 2:
            self._note_response(self._pending(branch), response)
        if self._searches is not None or self._desk.finder.dead:
            self._judge_place(branch, response)
        dialog = self._begun[1].dialog if self._begun is not None else None
        if dialog is not None and response.status > 100 and response.status not in ABSENT:
            self._desk.liveness.responded(self._key, other_side(dialog[1]), response)
        self._run(self._context.on_response(branch, response))

    def _forward(self, media: Media, effect: effects.Forward) -> None:
        """Send the request, once its media are as they are to be."""
        each = self._context.branch(effect.branch)
        if self._begun is None or each is None:
            self.send(effect, effect.request)
            return
        request, plan = self._begun
        exchange = media.forward(self._key, request, plan, self._flow, each.target, effect, self)
        if exchange is not None:
            if self._exchanges is None:
                self._exchanges = {}
            self._exchanges[effect.branch] = exchange

    def send(self, forward: effects.Forward, request: OutgoingRequest) -> None:
        """Send a request with a client transaction of its own, unless nobody wants it any more."""
        each = self._context.branch(forward.branch)
        if each is None or not each.pending:
            return
        if each.cancel_wanted:
            # It was taken back while it waited, so nobody has to be told (RFC 3261 §9.1).
            self.refuse(forward.branch, 487, "Request Terminated")
            return
        self._desk.context.transactions.request(request, forward.flow, self, forward.branch)

    def refuse(self, branch: int, status: int, reason: str) -> None:
        """This server does not send the request; its branch counts as answered so."""
        self._run(self._context.on_refused(branch, status, reason))

    def _withhold_identity(self, branch: int, response: Response) -> None:
        each = self._context.branch(branch)
        peer = each.target.peer if each is not None else None
        withhold_identity(
            response, from_trusted=peer is not None and peer.trusted,
            to_trusted=self._begun is not None and self._begun[1].trusted, asserted=self._desk.settings.asserted,
        )  # fmt: skip

    def on_failed(self, branch: int, cause: str) -> None:
        """From a client transaction."""
        each = self._pending(branch)
        if each is not None:
            self._note(faults.TIMEOUT if cause == TIMED_OUT else faults.UNREACHABLE, each.target, each.flow)
            if each.state == CALLING or cause != TIMED_OUT:
                self._mark_dead(each.target, each.flow)
        self._run(self._context.on_failed(branch, cause))

    def on_branch_timer(self, timed: _BranchTimer, timer: str) -> None:
        """A timer that the context set for this branch is due, or a portion of it."""
        if timed.left:
            timed.left -= 1
            self._desk.timers.add(timed.portion, timed, timer)
            return
        self._run(self._context.on_timer(timed.branch, timer))

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
        desk = self._desk
        desk.on_undelivered(self._transaction, cause, self._call or desk.watch.find(self._key))

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
        desk, (request, plan) = self._desk, self._begun
        party, target, call = desk.whose(plan, self._key)
        agent = desk.context.agent_of(response) if response is not None else None
        desk.context.note_failure(
            kind, request.method, flow.host if flow is not None else asked.host or None, response,
            answered_by=answered_by, agent=agent or asked.user_agent, party=party, target=target,
            call=call,
        )  # fmt: skip

    def _run(self, asked: Sequence[Effect]) -> None:
        desk = self._desk
        for effect in asked:
            if isinstance(effect, effects.Reply):
                if effect.durable:
                    desk.gate.hold(self._transaction, effect.status, effect.data)
                else:
                    self._transaction.respond(effect.status, effect.data)
            elif isinstance(effect, effects.CallEvent):
                if effect.kind == effects.FAILED:
                    self._call = desk.watch.find(self._key)
                    desk.sources.forget(self._key)
                desk.watch.event(self._key, effect, self._hung_up_at)
                self._learn(effect)
                if effect.kind == effects.ENDED:
                    self._forget(effect)
                elif desk.media is not None:
                    if effect.kind == effects.BRANCH_FAILED:
                        desk.media.branch_over(self._key, effect.branch)
                    elif effect.kind == effects.FAILED:
                        desk.media.call_over(self._key)
            elif isinstance(effect, effects.SetBranchTimer):
                self._set_timer(effect)
            elif isinstance(effect, effects.NeedFlow):
                self._find_flow(effect)
            elif isinstance(effect, effects.Forward):
                if desk.media is None:
                    desk.context.transactions.request(effect.request, effect.flow, self, effect.branch)
                else:
                    self._forward(desk.media, effect)
            elif isinstance(effect, effects.CancelBranch):
                desk.context.transactions.request(effect.request, effect.flow, None)
            elif isinstance(effect, effects.Abandon):
                self._abandon(effect)
            elif isinstance(effect, effects.NeedContacts):
                self._find_contacts(effect)
            elif isinstance(effect, effects.Learn):
                desk.dialogs.learn(effect.key, effect.side, effect.flow, effect.hop)
            elif isinstance(effect, NoHop):
                self._note(faults.UNREACHABLE, effect.target, None)
            elif isinstance(effect, effects.Done):
                if self._begun is not None and self._begun[1].dialog is None:
                    desk.watch.settled(self._key)
                self._begun = self._searches = None
                if self._line is not None:
                    self._line.relay = None
                    self._line = None
                # Whether a refusal of a call is acknowledged is still of interest, until its transaction ends.
                if self._call is None:
                    self._transaction.user = None

    def _set_timer(self, effect: effects.SetBranchTimer) -> None:
        line = self._line
        if line is None:
            line = self._line = _Line(self)
        portions = 1 + int(effect.after / PORTION)
        timer = _BranchTimer(line, effect.branch, effect.after / portions, portions - 1)
        self._desk.timers.add(timer.portion, timer, effect.timer)

    def _forget(self, ended: effects.CallEvent) -> None:
        """A dialog has ended; one that the caller did not keep may end before the call does."""
        desk, key = self._desk, self._key
        if not desk.watch.is_open(key):
            desk.dialogs.forget(key)
            desk.liveness.forget(key)
            desk.sources.forget(key)
            if desk.media is not None:
                desk.media.call_over(key)
        elif ended.request is not None:
            tag = callee_tag(ended.request, ended.side or CALLER)
            desk.liveness.dialog_ended(key, tag)
            if desk.media is not None:
                desk.media.dialog_over(key, tag)

    def _learn(self, event: effects.CallEvent) -> None:
        """Remember where each side of the call wants its requests (RFC 3261 §12.1, §12.2), and how long its session
        lasts (RFC 4028 §8.2)."""
        desk, key, message = self._desk, self._key, event.message
        targets, sessions = desk.targets, desk.settings.sessions
        if not isinstance(message, Response):
            return
        # Until a call is answered its sides are believed: hardly anything is sent inside it by then.
        if event.kind == effects.ANSWERED and self._begun is not None:
            request, plan = self._begun
            targets.learn(key, CALLER, sender_hop(request))
            targets.learn(key, CALLEE, answerer_hop(message, plan.token))
            assert event.flow is not None, "who answers was sent the request over a flow"
            desk.sources.answered(key, event.flow.host, event.target.aor if event.target is not None else "")
            desk.liveness.answered(
                key, request, plan, self._transaction.flow, message, event.target, event.flow,
                sessions.interval(message),
            )  # fmt: skip
            self._keep_little(request, plan)
        elif event.kind in _RETARGETING and event.side is not None and event.request is not None:
            call = desk.watch.find(key)
            # Before the answer there are as many early dialogs as devices that ring: where one of them wants its
            # requests says nothing of the others.
            is_early = call is not None and call.answered_at is None
            for side, hop in (
                (event.side, sender_hop(event.request)), (other_side(event.side), answerer_hop(message, "")),
            ):  # fmt: skip
                if side == CALLER or not is_early:
                    targets.learn(key, side, hop)
            # RFC 4028 §7.2: re-INVITE and UPDATE refresh a session; a PRACK or REFER only shows that both are there.
            if event.kind == effects.CHANGED and event.request.method in ("INVITE", "UPDATE"):
                desk.liveness.refreshed(key, event.side, event.request, message, sessions.interval(message))

    def _keep_little(self, request: Request, plan: Plan) -> None:
        """Once a call is answered, of the INVITE only what answers of other devices and a late CANCEL are held against
        is kept for the half minute in which they may come: it has a body and credentials, and is one of very many."""
        kept = [place for place, name in enumerate(request.names) if name in _KEPT]
        lines, found = [request.lines[place] for place in kept], [request.names[place] for place in kept]
        outline = Request(request.method, request.uri_text, lines, found, start_line=request.start_line)
        plan.lines = None
        self._begun = outline, plan
        self._context.keep(outline)

    def _find_flow(self, need: effects.NeedFlow) -> None:
        finder = self._desk.finder
        searches = self._searches
        search = None
        if searches is not None:
            search = searches.pop(need.after, None) if need.after >= 0 else searches.get(need.branch)
        if search is not None:
            self._try_place(need.branch, need.reliable, search)
            return
        flow = finder.at_once(need.uri, need.target, need.dialog, reliable=need.reliable)
        if flow is not None:
            self._run(self._context.on_flow(need.branch, flow))
        elif need.reliable or (need.target is not None and need.target.flow_only):
            found = partial(self._on_flow, need.branch, None)
            finder.find(need.uri, need.target, need.dialog, reliable=need.reliable, found=found)
        else:
            finder.search(need.uri, partial(self._try_place, need.branch, False))

    def _try_place(self, branch: int, reliable: bool, search: Search) -> None:
        """The next place of a next hop, or a stream to the place that is being tried."""
        if self._begun is None:
            return
        if search.is_named:
            if self._searches is None:
                self._searches = {}
            self._searches[branch] = search
        found = partial(self._on_flow, branch, search)
        if reliable:
            search.stream(found)
        else:
            search.next(found)

    def _on_flow(self, branch: int, search: Search | None, flow: Flow | None) -> None:
        more = search is not None and search.more
        if flow is not None:
            self._run(self._context.on_flow(branch, flow, more=more))
            return
        tried = search.tried if search is not None else None
        each = self._pending(branch)
        if each is not None and each.datagram is None:
            self._note(faults.UNREACHABLE, each.target, tried)
            self._mark_dead(each.target, tried)
        # Nobody is there: the same for the caller as an endpoint that is not registered.
        self._run(self._context.on_no_flow(branch, 480, "Temporarily Unavailable", more=more, tried=tried))

    def _mark_dead(self, target: Target, flow: Flow | None, seconds: float | None = None) -> None:
        """Nothing came of this way, or it asked to be left alone for so many seconds. Endpoints are not judged: where
        they are is theirs to say."""
        if flow is not None and not target.aor and (self._searches is not None or target.hop is not None):
            self._desk.finder.mark_dead((flow.transport, flow.host, flow.port), seconds)

    def _judge_place(self, branch: int, response: Response) -> None:
        """Who answers is there; but one that asks to be left alone for a while is (RFC 3261 §21.5.4)."""
        each = self._context.branch(branch)
        if each is None or each.flow is None:
            return
        flow = each.flow
        if response.status != 503:
            self._desk.finder.dead.answered((flow.transport, flow.host, flow.port))
            return
        seconds = (response.header(names.RETRY_AFTER) or "").partition("(")[0].partition(";")[0].strip()
        if seconds.isascii() and seconds.isdigit():
            self._mark_dead(each.target, flow, float(seconds[:6]))

    def _abandon(self, effect: effects.Abandon) -> None:
        self._note(faults.TIMEOUT, effect.target, effect.flow)
        self._mark_dead(effect.target, effect.flow)
        self._desk.context.transactions.abandon(effect.request)

    def _find_contacts(self, need: effects.NeedContacts) -> None:
        found = [self._desk.locate_all(each.aor) if each.aor is not None else () for each in need.contacts]
        self._run(self._context.on_contacts(need.branch, need.contacts, found))


class _Line:
    """Leads from timers to their relay until that is done: nothing is cancelled, and they would keep it until they are
    due."""

    __slots__ = ("relay",)

    def __init__(self, relay: Relay) -> None:
        self.relay: Relay | None = relay


class _BranchTimer:
    """Brings a timer back to its branch.

    Timer C is set for minutes, and most calls are answered in seconds: so it is waited for in portions, and is not kept
    for a call that goes on.
    """

    __slots__ = ("_line", "branch", "left", "portion")

    def __init__(self, line: _Line, branch: int, portion: float, left: int) -> None:
        self._line = line
        self.branch = branch
        self.portion = portion
        """Seconds."""
        self.left = left
        """Portions after the one that is being waited for."""

    def on_timer(self, timer: str) -> None:
        """A portion is over."""
        relay = self._line.relay
        if relay is not None:
            relay.on_branch_timer(self, timer)


def _target(binding: Binding) -> Target:
    """A binding as the proxy sees it."""
    return Target(
        binding.contact, binding.q, binding.path, binding.user_agent, binding.transport, binding.host, binding.port,
        binding.connection, binding.instance, binding.aor, reg_id=binding.reg_id, local=binding.local,
        flow_only=binding.flow_only,
    )  # fmt: skip
