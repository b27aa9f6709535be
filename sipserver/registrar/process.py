"""What a REGISTER does (RFC 3261 §10.3): a generator that reads top to bottom as the RFC's steps.

    check_domain        steps 1 and 5   is this address one of ours?
    check_extensions    step 2          is everything understood that has to be?
    authenticate        step 3          whose request is it?          NeedCredentials
    authorize           step 4          is the address theirs?
                        step 5          what is bound already?        NeedBindings
    plan_changes        steps 6 and 7   which bindings change?
                                        are they on disk?             UpdateBindings
                        RFC 5627 §5.2   what are its devices called?  NeedGruus
    answer_headers      step 8          what the 200 says

It yields what it needs, is sent the answer, raises SipError for a refusal, and yields last what was decided:
``Registered``. Nothing has changed before. From the answer to a ``NeedBindings`` with ``update`` until then, or until
it raises, no other REGISTER for that address may be let in: this is what makes look-up and update one step.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sipserver.registrar import outbound
from sipserver.registrar.binding import ADDED, REMOVED, Binding, Change, apply_changes
from sipserver.registrar.contacts import Settings, is_wildcard, read_contacts, same_contact
from sipserver.sip import gruu, names
from sipserver.sip.digest import Authenticator
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.grammar import bracketed
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import quote

__all__ = ["NeedBindings", "NeedGruus", "Registered", "Settings", "UpdateBindings", "challenge", "register"]

SUPPORTED: Final = frozenset({"path", "outbound", "gruu"})
"""Option tags that a Require may name."""
RETRY_AFTER: Final = 5
"""Seconds after which to try again what could not be stored."""
MAX_ANSWER: Final = 32_768
"""Bytes of contacts that the 200 may list: it has to fit into one datagram."""

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(slots=True)
class NeedBindings(Effect):
    """Which bindings has this address now? Answered with a tuple of those that have not expired."""

    aor: str
    update: bool
    """Whether an update may follow: then the address is held until the generator ends."""


@dataclass(slots=True)
class UpdateBindings(Effect):
    """Make these changes, all or none. Answered when they are on disk (True), or are not going to be (False)."""

    aor: str
    changes: list[Change]


@dataclass(slots=True)
class NeedGruus(Effect):
    """What are these devices called? Answered with a new temporary GRUU for each; None where none can be had."""

    aor: str
    devices: dict[str, float]
    """By instance, since when its temporary GRUUs are good (UNIX time in seconds)."""


@dataclass(slots=True)
class Registered(Effect):
    """What the 200 says, and what led to it. Not answered: it is done."""

    aor: str
    headers: list[str]
    """Header lines for the 200: Contact, Path, Require, Flow-Timer, Date."""
    changes: Sequence[Change]
    """What changed; nothing for a mere question."""
    bindings: tuple[Binding, ...]
    """What holds now."""
    flow_timer: int = 0
    """How often the endpoint was told to ping the flow that it registered, in seconds; 0 for not at all."""


def register(
    request: Request, flow: Flow, settings: Settings, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, None]:
    """The outcome of a REGISTER that ``sip.validate`` let pass. ``now`` is UNIX time in seconds.

    Raises SipError with the refusal.
    """
    aor, domain = check_domain(request, flow, settings)
    check_extensions(request)
    identity = yield from authenticator.authenticate(request, domain, now, proxy=False)
    authorize(identity, aor)
    # RFC 3261 §10.3 step 6: without a Contact it is a question.
    update = request.has(names.CONTACT)
    current: tuple[Binding, ...] = yield NeedBindings(aor, update)
    if not update:
        names_of = yield from device_names(request, aor, current)
        yield Registered(aor, answer_headers(request, current, now, names_of), (), current)
        return
    values = request.values(names.CONTACT)
    if is_wildcard(request, values):
        changes = plan_removal_of_all(request, current)
    else:
        wanted = read_contacts(request, values, current, aor, flow, settings, now)
        changes = plan_changes(wanted, current, now)
    after = current
    if changes:
        after = apply_changes(current, changes)
        check_bounds(after, changes, settings)
        stored = yield UpdateBindings(aor, changes)
        if not stored:
            raise SipError(503, "Registration cannot be stored", (f"Retry-After: {RETRY_AFTER}",))
    names_of = yield from device_names(request, aor, after)
    headers = answer_headers(request, after, now, names_of)
    timer = 0
    if changes and outbound.is_registered(request, changes):
        headers.append(f"Require: {outbound.TAG}")
        timer = outbound.flow_timer(request, flow, settings.flow_timer, settings.flow_timer_udp)
        if timer:
            headers.append(f"Flow-Timer: {timer}")
    # Yielded, not returned: outside of the generator that would be an exception, which costs more than this function.
    yield Registered(aor, headers, changes, after, timer)


def challenge(
    request: Request, flow: Flow, settings: Settings, authenticator: Authenticator, now: float
) -> list[str] | None:
    """The challenge that ``register`` would raise for a REGISTER without credentials, as header lines for the 401;
    None where it has some. Raises SipError."""
    if request.has(names.AUTHORIZATION):
        return None
    domain = check_domain(request, flow, settings)[1]
    check_extensions(request)
    return authenticator.first_challenge(request, domain, now, proxy=False)


def check_domain(request: Request, flow: Flow, settings: Settings) -> tuple[str, str]:
    """The address of record and its domain (RFC 3261 §10.3 steps 1 and 5). Raises SipError.

    All our domains are served alike, so an address of any of them is valid whichever the Request-URI names. A
    user in the Request-URI (§10.2 forbids it, old endpoints write it) is overlooked, and so is our own
    address in place of a domain, which endpoints send that were given a server and no domain.
    """
    uri = request.uri
    if not uri.is_sip:
        raise SipError(416, "Unsupported URI Scheme")
    if uri.host.removesuffix(".") not in settings.domains:
        host, _, port = flow.sent_by.rpartition(":")
        if bracketed(uri.host) != host or (uri.port is not None and str(uri.port) != port):
            raise SipError(404, "Domain is not served here")
    to = request.to.uri
    if not to.is_sip or to.user is None:
        raise SipError(404, "No address of a domain served here")
    aor = to.aor()
    domain = aor.rpartition("@")[2]
    if domain not in settings.domains:
        raise SipError(404, "Domain is not served here")
    return aor, domain


def check_extensions(request: Request) -> None:
    """RFC 3261 §10.3 step 2, §8.2.2.3: refuse what has to be understood and is not. Raises SipError(420)."""
    if request.has(names.REQUIRE):
        unknown = [tag for tag in request.option_tags(names.REQUIRE) if tag not in SUPPORTED]
        if unknown:
            raise SipError(420, "Bad Extension", (f"Unsupported: {', '.join(unknown)}",))
    # RFC 3327 §5.3: a path that the endpoint knows nothing of was put there by somebody it may not want.
    if request.has(names.PATH) and "path" not in request.option_tags(names.SUPPORTED):
        raise SipError(420, "Bad Extension", ("Unsupported: path",))


def authorize(identity: str, aor: str) -> None:
    """RFC 3261 §10.3 step 4: credentials register the address that they belong to. Raises SipError(403)."""
    if identity != aor:
        raise SipError(403, "Address belongs to others")


def plan_removal_of_all(request: Request, current: Sequence[Binding]) -> list[Change]:
    """RFC 3261 §10.3 step 6, for ``Contact: *``. Raises SipError(500)."""
    call_id, cseq = request.call_id, request.cseq[0]
    for binding in current:
        _check_order(call_id, cseq, binding)
    return [Change(binding, None) for binding in current]


def plan_changes(wanted: Sequence[Binding], current: Sequence[Binding], now: float) -> list[Change]:
    """RFC 3261 §10.3 step 7: the changes of every contact together, or SipError for one of them and none at all."""
    changes: list[Change] = []
    parsed: dict[str, Uri] = {}
    left = list(current)
    for position, new in enumerate(wanted):
        # Which of the two would count is a guess; the RFC's own rule has the second fail for its CSeq.
        if position and any(same_contact(new, other, parsed) for other in wanted[:position]):
            raise SipError(400, "Same Contact twice")
        after = new if new.expires_at > now else None
        for binding in current:
            if same_contact(new, binding, parsed):
                _check_order(new.call_id, new.cseq, binding)
                # A contact may match two bindings, by its device and by its URI: both go, and it comes once.
                if binding in left:
                    left.remove(binding)
                    changes.append(Change(binding, after))
                    after = None
        if after is not None:
            changes.append(Change(None, after))
    return changes


def _check_order(call_id: str, cseq: int, binding: Binding) -> None:
    """RFC 3261 §10.3 steps 6 and 7: of one Call-ID only a higher CSeq may touch a binding. Raises SipError.

    The RFC names no status; 500 is what it gives a CSeq out of order elsewhere (§12.2.2).
    """
    if binding.call_id == call_id and cseq <= binding.cseq:
        raise SipError(500, "CSeq out of order")


def check_bounds(after: Sequence[Binding], changes: Sequence[Change], settings: Settings) -> None:
    """The bound on the contacts of one address. Raises SipError(403).

    Who has more already, because the bound was lowered, may refresh them.
    """
    if len(after) < 2:
        return
    kinds = [change.kind for change in changes]
    growth = kinds.count(ADDED) - kinds.count(REMOVED)
    if growth > 0 and len(after) > settings.max_contacts:
        raise SipError(403, "Too many contacts")
    if sum(len(each.contact) + len(each.params) for each in after) > MAX_ANSWER:
        raise SipError(403, "Contacts too long")


def device_names(request: Request, aor: str, bindings: Sequence[Binding]) -> Generator[Effect, Any, dict[str, str]]:
    """The GRUUs of each device, as parameters of its contacts (RFC 5627 §5.2); none where nobody asked for them."""
    devices: dict[str, float] = {}
    for binding in bindings:
        if binding.instance is not None:
            devices[binding.instance] = max(binding.gruu_since, devices.get(binding.instance, 0.0))
    if not devices or not request.has(names.SUPPORTED) or "gruu" not in request.option_tags(names.SUPPORTED):
        return {}
    temporary: dict[str, str] | None = yield NeedGruus(aor, devices)
    found = {}
    for instance in devices:
        found[instance] = f";pub-gruu={quote(gruu.public(aor, instance))}"
        if temporary is not None:
            found[instance] += f";temp-gruu={quote(temporary[instance])}"
    return found


def answer_headers(request: Request, bindings: Sequence[Binding], now: float, names_of: Mapping[str, str]) -> list[str]:
    """RFC 3261 §10.3 step 8: every binding with the time it has left, the Path of this request (RFC 3327 §5.3), Date.

    All contacts stand in one line, since some old endpoints read only one. ``names_of`` has the parameters of devices.
    """
    lines = []
    if bindings:
        contacts = [f"<{each.contact}>{each.params};expires={each.remaining(now)}" for each in bindings]
        if names_of:
            for position, each in enumerate(bindings):
                if each.instance is not None:
                    contacts[position] += names_of[each.instance]
        lines.append(f"Contact: {', '.join(contacts)}")
    if request.has(names.PATH):
        lines.append(f"Path: {', '.join(request.values(names.PATH))}")
    lines.append(date_line(int(now)))
    return lines


@lru_cache(maxsize=4)
def date_line(now: int) -> str:
    """``Date: Mon, 23 Nov 2026 22:42:12 GMT`` for a UNIX time in seconds (RFC 3261 §20.17)."""
    date = datetime.fromtimestamp(now, UTC)
    # By hand: strftime speaks the language of the locale.
    day, month = _DAYS[date.weekday()], _MONTHS[date.month - 1]
    return f"Date: {day}, {date.day:02} {month} {date.year} {date:%H:%M:%S} GMT"
