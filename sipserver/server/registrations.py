"""The registrar's side of the server: runs ``registrar.process`` and carries out what it asks for.

An address is held from its look-up to its commit (``location.base``), so that no update is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from sipserver.accounts.credentials import CredentialCache
from sipserver.accounts.parties import Parties
from sipserver.calls import faults
from sipserver.calls.activity import ActivityRecords
from sipserver.calls.places import Place
from sipserver.location.base import Location
from sipserver.registrar.binding import ADDED, REMOVED, Binding, Change
from sipserver.registrar.process import (
    NeedBindings,
    NeedGruus,
    Registered,
    Settings,
    UpdateBindings,
    challenge,
    register,
)
from sipserver.server.context import RETRY_LATER, Context
from sipserver.server.keeping import NO_ANSWER, RESTART, FlowKeeper
from sipserver.server.locating import Locator
from sipserver.server.locating import Settings as LocationSettings
from sipserver.server.transactions import ServerTransaction
from sipserver.sip import build
from sipserver.sip.digest import MISSING, STALE, AuthenticationRequired, Authenticator
from sipserver.sip.effects import Effect, NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.gruu import GruuMinter
from sipserver.sip.message import Request
from sipserver.sip.transaction.keys import Key
from sipserver.storage.database import StoreError


def _ignore(_binding: Binding, *, expired: bool) -> None:
    """Nobody wants to know."""


def _ignore_change(_change: Change) -> None:
    """Nobody wants to know."""


class Lost(Protocol):
    """Who wants to know of bindings that go."""

    def __call__(self, binding: Binding, /, *, expired: bool) -> None:
        """This one was taken out, or has expired."""


class Registrations:
    """REGISTER requests, and bindings that end by themselves."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        authenticators: Sequence[Authenticator],
        credentials: CredentialCache,
        location: Location,
        parties: Parties,
        activity: ActivityRecords,
        gruus: GruuMinter,
        keeper: FlowKeeper,
        locator: Locator | None = None,
    ) -> None:
        self.context = context
        self.settings = settings
        self.credentials = credentials
        self.location = location
        self.accepted = 0
        """REGISTERs answered 200."""
        self.refused = 0
        """REGISTERs refused, challenges not counted."""
        self.on_lost: Lost = _ignore
        """Called for every binding that is none any more."""
        self.on_reconnected: Callable[[Change], None] = _ignore_change
        """Called where a contact was registered over a connection that it had not before."""
        self.keeper = keeper
        """Who looks after the flows of bindings."""
        keeper.told = self.note_lost
        self.gruus = gruus
        self._began = context.wall_clock()
        self._authenticators = authenticators
        self._parties = parties
        self._locator = locator or Locator(LocationSettings(), context.wall_clock)
        self.activity = activity
        """Where devices and refreshes are counted."""

    def on_request(self, request: Request, flow: Flow, key: Key) -> None:
        """A REGISTER without a transaction."""
        now = self.context.wall_clock()
        authenticator = self._authenticators[flow.listener]
        try:
            asked = challenge(request, flow, self.settings, authenticator, now)
        except SipError as error:
            self.refuse_statelessly(request, flow, error, now)
            return
        if asked is not None:
            self.context.challenge(request, flow, 401, asked, now)
            return
        steps = register(request, flow, self.settings, authenticator, now)
        _Run(self, request, flow, key, now, steps).advance(None)

    def tick(self) -> None:
        """Once a second: what could not be done before."""
        self.keeper.tick()

    def expire(self) -> bool:
        """Some of the bindings that have expired; whether there are more. To be called once a second and until then."""
        now = self.context.wall_clock()
        for binding in self.location.expire(now):
            self._gone("expired", binding, now)
        return self.location.is_behind

    def note_removed(self, bindings: Sequence[Binding]) -> None:
        """An operator removed these."""
        now = self.context.wall_clock()
        for binding in bindings:
            self._gone("removed", binding, now)

    def note_orphans(self, bindings: Sequence[Binding]) -> None:
        """These lived by connections of the process before this one."""
        for binding in bindings:
            self.note_lost(binding, RESTART)

    def note_lost(self, binding: Binding, cause: str) -> None:
        """The flow of a binding failed, so that it is none any more."""
        # What a restart has cost was gone when it began, and may have come back since.
        now = self._began if cause == RESTART else self.context.wall_clock()
        # Whoever looks after calls has heard of connections, and knows who talks over which.
        if cause == NO_ANSWER:
            self.on_lost(binding, expired=False)
            self.context.recorder.error(
                at=int(now * 1000), kind=faults.FLOW_FAILED, method="OPTIONS", answered_by=faults.NETWORK,
                agent=binding.user_agent, source=binding.host, target=self.party(binding.aor),
            )  # fmt: skip
        self._write_down("lost", binding, now, cause)
        self._locator.gone(binding)
        if self.context.may_log(now):
            self.context.log.info(
                "binding.lost", address=binding.aor, contact=binding.contact, transport=binding.transport,
                agent=binding.user_agent, reason=cause, suppressed=self.context.log_suppressed or None,
            )  # fmt: skip

    def note_changes(self, registered: Registered, request: Request, now: float) -> None:
        """What this REGISTER changed, for the record and the log; a refresh from the same place is only counted."""
        for change in registered.changes:
            binding = change.after or change.before
            assert binding is not None, "a change of nothing"
            self.keeper.changed(change)
            is_new = change.kind == ADDED or _moved(change)
            if change.after is not None:
                self._locator.declare(change.after, request)
                self._note_device(binding, now, request, refreshed=not is_new)
                if binding.connection and (change.before is None or change.before.connection != binding.connection):
                    self.on_reconnected(change)
            if is_new:
                self._write_down("bound", binding, now)
                self._log("bound", binding)
            elif change.kind == REMOVED:
                self.on_lost(binding, expired=False)
                self._write_down("unbound", binding, now)
                self._log("unbound", binding)
                self._locator.gone(binding)
            else:
                self.context.log.debug("registration.refreshed", address=binding.aor, contact=binding.contact)

    def refuse_statelessly(self, request: Request, flow: Flow, error: SipError, now: float) -> None:
        """Answer a REGISTER that has no transaction, and note why."""
        if isinstance(error, AuthenticationRequired) and error.cause in (MISSING, STALE):
            # To be asked who one is is no refusal.
            self.context.challenge(request, flow, error.status, error.headers, now)
            return
        self.context.answer_statelessly(request, flow, error)
        self.note_refusal(request, flow, error, now)

    def note_refusal(
        self, request: Request, flow: Flow, error: SipError, now: float, *, authenticated: bool = False
    ) -> None:
        """A refusal: a sign-in that failed, for the record and the log."""
        cause = error.reason
        username = None
        if isinstance(error, AuthenticationRequired):
            self.context.challenges.answered(request.call_id)
            cause, username = error.cause, error.username
        self.refused += 1
        address = _claimed(request)
        self.context.recorder.sign_in(
            at=int(now * 1000), party=self.party(address), outcome="refused", status=error.status,
            agent=self.context.agent_of(request), transport=flow.transport, source=flow.host, detail=cause,
            place=self._locator.of_request(request, flow, None),
        )  # fmt: skip
        self.context.recorder.error(
            at=int(now * 1000), kind=_kind(error), method="REGISTER", status=error.status,
            agent=self.context.agent_of(request), party=self.party(address) if authenticated else None,
            detail=cause, source=flow.host,
        )  # fmt: skip
        if self.context.may_log(now):
            self.context.log.warning(
                "registration.refused", address=address, username=username, status=error.status, reason=cause,
                source=flow.label,
            )  # fmt: skip

    def party(self, address: str | None) -> str | None:
        """The party of an address, where it has one."""
        try:
            return self._parties.party(address) if address is not None else None
        except StoreError:
            return None

    def _note_device(self, binding: Binding, now: float, request: Request, *, refreshed: bool) -> None:
        party = self.party(binding.aor)
        if party is None:
            return
        at = int(now * 1000)
        self.activity.device(
            party, binding.instance, binding.user_agent, request, binding.transport, binding.host, at
        )  # fmt: skip
        if refreshed:
            self.activity.refreshed(party, at)

    def temporary_gruus(self, aor: str, devices: Mapping[str, float]) -> dict[str, str] | None:
        """A new temporary GRUU for each of these instances; None where nothing may stand for the address yet."""
        owner = self.party(aor)
        if owner is None:
            return None
        domain, tokens = aor.rpartition("@")[2], self.context.tokens
        return {
            instance: self.gruus.mint(owner, instance, since, domain, tokens.bytes10())
            for instance, since in devices.items()
        }

    def _gone(self, outcome: str, binding: Binding, now: float) -> None:
        """A binding has ended, and no REGISTER did it."""
        self.keeper.changed(Change(binding, None))
        self.on_lost(binding, expired=outcome == "expired")
        self._write_down(outcome, binding, now)
        # A million may expire in one second; each is a row of its own all the same.
        if self.context.may_log(now):
            self._log(outcome, binding)
        self._locator.gone(binding)

    def _log(self, outcome: str, binding: Binding) -> None:
        self.context.log.info(
            f"registration.{outcome}", address=binding.aor, contact=binding.contact, transport=binding.transport,
            agent=binding.user_agent,
        )  # fmt: skip

    def _write_down(self, outcome: str, binding: Binding, now: float, detail: str | None = None) -> None:
        place = self._locator.of_binding(binding)
        if self._locator.is_waiting(binding.host):
            self._locator.when_known(binding.host, partial(self._note_located, outcome, binding, now, detail))
        else:
            self._sign_in(outcome, binding, now, place, detail)

    def _note_located(self, outcome: str, binding: Binding, now: float, detail: str | None) -> None:
        self._sign_in(outcome, binding, now, self._locator.of_binding(binding), detail)

    def _sign_in(self, outcome: str, binding: Binding, now: float, place: Place, detail: str | None) -> None:
        self.context.recorder.sign_in(
            at=int(now * 1000), party=self.party(binding.aor), outcome=outcome, agent=binding.user_agent,
            transport=binding.transport, source=binding.host, detail=detail, place=place,
        )  # fmt: skip


class _Run:
    """One REGISTER on its way through ``registrar.process``."""

    __slots__ = ("_aor", "_flow", "_key", "_now", "_registrations", "_request", "_steps", "_transaction")

    def __init__(
        self,
        registrations: Registrations,
        request: Request,
        flow: Flow,
        key: Key,
        now: float,
        steps: Generator[Effect, Any, None],
    ) -> None:
        self._registrations = registrations
        self._request = request
        self._flow = flow
        self._key = key
        self._now = now
        self._steps = steps
        self._aor = ""
        """The address that is held."""
        self._transaction: ServerTransaction | None = None

    def advance(self, answer: Any) -> None:
        """Go on with the answer to the last effect, until something has to be waited for."""
        try:
            self._advance(answer)
        except BaseException:
            # A fault of our own: the address is not to stay held for ever.
            self._release()
            raise

    def _advance(self, answer: Any) -> None:
        registrations = self._registrations
        try:
            while True:
                effect = self._steps.send(answer)
                if isinstance(effect, NeedCredentials):
                    registrations.context.challenges.answered(self._request.call_id)
                    answer = registrations.credentials.get(effect.username, effect.realm, effect.algorithm)
                elif isinstance(effect, NeedBindings):
                    # Whoever gets here has proved who they are: from now on there is a transaction.
                    self._serve()
                    if effect.update:
                        held = registrations.location.acquire(effect.aor, self.resume)
                        self._aor = effect.aor
                        if not held:
                            return
                    answer = registrations.location.get(effect.aor, self._now)
                elif isinstance(effect, NeedGruus):
                    answer = registrations.temporary_gruus(effect.aor, effect.devices)
                elif isinstance(effect, UpdateBindings):
                    registrations.location.replace(effect.aor, effect.changes, self.advance)
                    return
                elif isinstance(effect, Registered):
                    break
        except SipError as error:
            self._refuse(error)
        except StoreError:
            self._refuse(SipError(503, "Store Unavailable", RETRY_LATER))
        else:
            self._finish(effect)

    def resume(self) -> None:
        """The address is free, and held for this run."""
        self.advance(self._registrations.location.get(self._aor, self._now))

    def _serve(self) -> ServerTransaction:
        if self._transaction is None:
            context = self._registrations.context
            flow = context.reply_flow(self._request, self._flow)
            self._transaction = context.transactions.serve(self._key, self._request, flow)
        return self._transaction

    def _finish(self, registered: Registered) -> None:
        registrations = self._registrations
        context = registrations.context
        registrations.accepted += 1
        headers = (*registered.headers, *context.server_header)
        data = build.reply(self._request, 200, None, context.tokens.hex16(), headers)
        self._serve().respond(200, data)
        registrations.activity.delays.note(self._now, context.wall_clock(), accepted=True)
        registrations.note_changes(registered, self._request, self._now)
        if registered.flow_timer and self._flow.reliable:
            context.transports.expect_pings(self._flow, registered.flow_timer)
        self._release()

    def _refuse(self, error: SipError) -> None:
        registrations = self._registrations
        context = registrations.context
        if self._transaction is None:
            registrations.refuse_statelessly(self._request, self._flow, error, self._now)
        else:
            data = build.reply(
                self._request, error.status, error.reason, context.stateless_tag(self._request),
                (*error.headers, *context.server_header),
            )  # fmt: skip
            self._transaction.respond(error.status, data)
            registrations.activity.delays.note(self._now, context.wall_clock(), accepted=False)
            registrations.note_refusal(self._request, self._flow, error, self._now, authenticated=True)
        self._release()

    def _release(self) -> None:
        aor, self._aor = self._aor, ""
        if aor:
            self._registrations.location.release(aor)


def _moved(change: Change) -> bool:
    """Whether a refresh came from another place or device software than before."""
    before, after = change.before, change.after
    if before is None or after is None:
        return False
    return (before.contact, before.host, before.transport, before.user_agent) != (
        after.contact, after.host, after.transport, after.user_agent,
    )  # fmt: skip


def _kind(error: SipError) -> str:
    """What a refusal is called in ``errors``."""
    if isinstance(error, AuthenticationRequired):
        return faults.CREDENTIALS
    return faults.STORE if error.status == 503 else faults.REGISTRATION


def _claimed(request: Request) -> str | None:
    try:
        return request.to.uri.aor()
    except SipError:
        return None
