"""The proxy's side of the server: runs ``proxy.route`` and ``proxy.fork`` and carries out what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from sipserver.accounts.credentials import CredentialCache
from sipserver.calls import faults
from sipserver.location.base import Location
from sipserver.proxy import effects, ways
from sipserver.proxy.device import NeedOwner, is_temporary, of_device
from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.forward import next_hop, stateless
from sipserver.proxy.identity import challenge, find_sender
from sipserver.proxy.plan import (
    ANSWER,
    COLLECT,
    CallPlaced,
    Examined,
    NeedRoom,
    NeedTargets,
    Plan,
    Settings,
    TooMany,
    Unproven,
)
from sipserver.proxy.record_route import CALLER, Minter, other_side
from sipserver.proxy.route import admit_new, examine, is_inside, plan_inside
from sipserver.proxy.secure import may_leave
from sipserver.proxy.source import prove_source
from sipserver.server.context import RETRY_LATER, Context
from sipserver.server.devices import Devices
from sipserver.server.gate import CommitGate
from sipserver.server.liveness import Liveness
from sipserver.server.quality import Collector
from sipserver.server.relay import Desk, Relay
from sipserver.server.timers import TimerQueue
from sipserver.server.watch import CallWatch
from sipserver.sip import build
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.digest import MISSING, STALE, AuthenticationRequired, Authenticator
from sipserver.sip.effects import NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.transaction import keys
from sipserver.sip.uri import Uri
from sipserver.storage.database import StoreError

_RETARGETING: Final = (effects.CHANGED, effects.REFERRED, effects.RETARGETED)


class Proxying(Desk):
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
        *,
        devices: Devices,
    ) -> None:
        super().__init__(context, settings, minter, watch, gate, dialogs, timers, liveness, credentials, location)
        self.collector = collector
        self.forwarded = 0
        """Requests that went on to at least one target."""
        self.too_many = 0
        """Requests refused since their sender, or the peer that they were for, has had as many as it may."""
        self._authenticators = authenticators
        self._devices = devices

    def on_request(self, request: Request, flow: Flow, key: keys.Key) -> None:
        """A request without a transaction, neither ACK nor CANCEL nor REGISTER."""
        call_key = ""
        try:
            examined = examine(request, self.settings, self.minter)
            if is_inside(request):
                plan = plan_inside(request, examined, self.settings)
                self._check_target(plan)
                dialog = plan.dialog
                if dialog is not None and not self.sources.knows(dialog[0], dialog[1], flow.host):
                    self._check_source(request, plan, dialog, flow)
                self._check_dialog(request, plan)
                self._find_way(plan)
            else:
                authenticator = self._authenticators[flow.listener]
                now = self.context.wall_clock()
                find_sender(request, examined, flow, self.settings)
                asked = challenge(request, examined, authenticator, now)
                if asked is not None:
                    # Every call begins like this: to be asked who one is is no refusal.
                    self.context.challenge(request, flow, 407, asked, now)
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
        if plan.kind == ANSWER:
            # Anybody may ask, so nothing is kept of it: a retransmission is answered the same (RFC 3261 §8.2.7).
            headers = (*plan.headers, *self.context.server_header)
            data = build.reply(request, 200, to_tag=self.context.stateless_tag(request), headers=headers)
            self.context.transports.send(self.context.reply_flow(request, flow), data)
            return
        transaction = self.context.transactions.serve(key, request, self.context.reply_flow(request, flow))
        self.forwarded += 1
        if plan.dialog is not None:
            self.liveness.asked_for(plan.dialog[0], plan.dialog[1], request, flow)
        elif call_key:
            self.sources.begin(call_key, flow.host, plan.caller, plan.callee)
        relay_key = call_key or self.context.tokens.hex16()
        if request.method == "REFER" and plan.dialog is None:
            self.watch.referred_outside(relay_key, request, plan.caller, plan.callee, self.liveness.calls_of)
        relay = Relay(self, transaction, request, plan, flow, relay_key)
        transaction.user = relay
        relay.begin()

    def on_ack(self, ack: Request, flow: Flow) -> bool:
        """The ACK of a 2xx, forwarded without a transaction (RFC 3261 §16.11); False where it has nowhere to go."""
        try:
            plan = plan_inside(ack, examine(ack, self.settings, self.minter), self.settings)
            self._check_target(plan)
            self._find_way(plan)
            target = plan.groups[0][0]
            uri = next_hop(plan, target)
        except (_Refused, SipError):
            return False
        assert plan.dialog is not None, "an ACK is only admitted inside a dialog"
        key, side = plan.dialog
        self.watch.confirmed(key, ack, side)
        if self.sources.knows(key, side, flow.host):
            self.liveness.confirmed(key, side, ack, flow)
        to = key, other_side(side)
        located = target if plan.located else None
        flow_out = self.finder.at_once(uri, located, to, reliable=False)
        if flow_out is not None:
            self._send_statelessly(ack, plan, uri, to, flow, flow_out)
        else:
            found = partial(self._send_statelessly, ack, plan, uri, to, flow)
            self.finder.find(uri, located, to, reliable=False, found=found)
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
                    answer = self.credentials.get(effect.username, effect.realm, effect.algorithm)
                elif isinstance(effect, NeedTargets):
                    answer = self.locate(effect.aor)
                elif isinstance(effect, NeedOwner):
                    answer = self._devices.owner(effect.uri)
                elif isinstance(effect, CallPlaced):
                    call_key = self._placed(request, flow, effect)
                elif isinstance(effect, NeedRoom):
                    answer = effect.peer.has_room(self.context.wall_clock(), self.watch.is_open)
                    if answer and call_key:
                        effect.peer.began(call_key)
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

    def _find_way(self, plan: Plan) -> None:
        """For a request inside a call: the flow that our Record-Route remembers where we do not, and the contact of a
        side that names itself by a GRUU."""
        if plan.dialog is None or (not plan.flow_token and plan.gruu is None):
            return
        key, side = plan.dialog
        side = other_side(side)
        hop = plan.groups[0][0].uri_text
        known = self.dialogs.flow_for(key, side, hop) is not None
        if plan.flow_token and not known and not plan.routes:
            way = ways.unseal(self.minter.sealer, key, plan.flow_token).get(side)
            flow = self.context.transports.flow_of("UDP", way.host, way.port, 0, way.local) if way is not None else None
            if flow is not None:
                self.dialogs.learn(key, side, flow, hop)
                known = True
        if plan.gruu is not None:
            try:
                self._aim(plan, plan.gruu, known=known)
            except StoreError:
                raise _Refused(SipError(503, "Store Unavailable", RETRY_LATER), "", plan, faults.STORE) from None

    def _aim(self, plan: Plan, uri: Uri, *, known: bool) -> None:
        """RFC 5627 §6.1: the contact of the device takes the place of its GRUU, unless there are routes left
        its Path as well. A call may outlive the registration: then the flow of the dialog has to do."""
        aor, instance = uri.aor(), None
        if is_temporary(uri):
            owner = self._devices.owner(uri)
            if owner is not None:
                aor, instance = owner
        found = of_device(self.locate(aor) or (), uri, instance)
        if found:
            target = found[0]
            if plan.routes:
                target.path = ()
            plan.groups, plan.located = [[target]], not plan.routes
        elif not known and not plan.routes:
            raise _Refused(SipError(480, "Temporarily Unavailable"), "", plan)

    def _check_source(self, request: Request, plan: Plan, dialog: tuple[str, str], flow: Flow) -> None:
        """A request inside a call from a host that its side has not used has to prove itself."""
        steps = prove_source(
            request, dialog, flow, self.settings, self._authenticators[flow.listener], self.context.wall_clock(),
            self.sources, self.targets,
        )  # fmt: skip
        answer: Any = None
        try:
            while True:
                effect = steps.send(answer)
                answer = None
                if isinstance(effect, NeedCredentials):
                    self.context.challenges_inside.answered(_inside(request, flow))
                    answer = self.credentials.get(effect.username, effect.realm, effect.algorithm)
                elif isinstance(effect, NeedTargets):
                    answer = self.locate(effect.aor)
        except StopIteration:
            return
        except SipError as error:
            raise _Refused(error, "", plan) from None
        except StoreError:
            raise _Refused(SipError(503, "Store Unavailable", RETRY_LATER), "", plan, faults.STORE) from None

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
            if side == CALLER:
                self.watch.hanging_up(key, tag)
        elif request.method == "REFER":
            self.watch.referred(key, side, request)

    def _placed(self, request: Request, flow: Flow, effect: CallPlaced) -> str:
        if self.watch.full:
            raise SipError(503, "Too Many Calls", RETRY_LATER)
        key = self.context.tokens.hex16()
        return key if self.watch.placed(key, request, flow, effect.caller, effect.callee, effect.leads_on) else ""

    def _refuse(self, request: Request, flow: Flow, key: keys.Key, refused: _Refused) -> None:
        error = refused.error
        plan = refused.plan
        if refused.kind == faults.RATE:
            self.too_many += 1
        if plan is not None and plan.dialog is not None:
            self._refuse_inside(request, flow, key, refused)
            return
        if isinstance(error, AuthenticationRequired) and error.cause in (MISSING, STALE):
            self.context.challenge(request, flow, error.status, error.headers, self.context.wall_clock())
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

    def _refuse_inside(self, request: Request, flow: Flow, key: keys.Key, refused: _Refused) -> None:
        """By a transaction: the ACK of a refused INVITE is for that, and nobody but its To tag says that it is not one
        of the call's."""
        error, context = refused.error, self.context
        transaction = context.transactions.serve(key, request, context.reply_flow(request, flow))
        headers = (*error.headers, *context.server_header)
        data = build.reply(request, error.status, error.reason, headers=headers)
        transaction.respond(error.status, data)
        party, target, call = self.whose(refused.plan, "")
        if isinstance(error, AuthenticationRequired) and error.cause in (MISSING, STALE):
            context.challenges_inside.sent(
                request, flow, error.status, context.wall_clock(), data, _inside(request, flow),
                call.id if call is not None else None, context.offset(call),
            )  # fmt: skip
        else:
            context.rejected(request, flow, error, kind=refused.kind, party=party, target=target, call=call)

    def _send_statelessly(
        self, ack: Request, plan: Plan, hop: Uri, to: tuple[str, str], flow_in: Flow, flow: Flow | None
    ) -> None:
        if flow is None or not may_leave(plan.secure, hop, flow):
            return
        request = stateless(ack, plan, flow_in, flow, self.context.tokens.hex16())
        if flow.reliable or hop.transport is not None or len(request.data) <= self.settings.size_limit:
            self._send_ack(ack, plan, flow_in, request, flow)
        else:
            # RFC 3261 §18.1.1: an ACK may bring an answer, and be as large as any request.
            found = partial(self._send_large, ack, plan, flow_in, flow)
            self.finder.find(hop, None, to, reliable=True, found=found)

    def _send_large(self, ack: Request, plan: Plan, flow_in: Flow, datagram: Flow, stream: Flow | None) -> None:
        flow = stream or datagram
        self._send_ack(ack, plan, flow_in, stateless(ack, plan, flow_in, flow, self.context.tokens.hex16()), flow)

    def _send_ack(self, ack: Request, plan: Plan, flow_in: Flow, request: OutgoingRequest, flow: Flow) -> None:
        media = self.media
        if media is None or plan.dialog is None:
            self.context.transports.send(flow, request.data)
        else:
            media.ack(plan.dialog[0], ack, plan, flow_in, request, flow, partial(self._send_made, flow))

    def _send_made(self, flow: Flow, request: OutgoingRequest) -> None:
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


def _inside(request: Request, flow: Flow) -> str:
    """By what a challenge inside a call is known."""
    return f"{request.call_id} {flow.host}"


def _kind(error: SipError) -> str:
    if isinstance(error, AuthenticationRequired):
        return faults.CREDENTIALS
    if isinstance(error, Unproven):
        return faults.FORGED
    if isinstance(error, TooMany):
        return faults.RATE
    return faults.OVERLOAD if error.status == 503 else faults.REFUSED
