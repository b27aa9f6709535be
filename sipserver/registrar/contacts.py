"""The Contact values of a REGISTER, as the bindings that they ask for (RFC 3261 §10.2, RFC 5626 §4.2).

What is stored for longer than the request lives is bounded here, and free of control characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Final

from sipserver.registrar import outbound
from sipserver.registrar.binding import Binding
from sipserver.sip import gruu, names
from sipserver.sip.errors import SipError
from sipserver.sip.flow import SECURED, Flow
from sipserver.sip.message import Request, text
from sipserver.sip.nat import is_behind_nat
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address, parse_delta, split_params

MAX_STORED: Final = 1024
"""Bytes of text stored for one binding."""
MAX_AGENT: Final = 128
"""Characters kept of a User-Agent."""
REJECTABLE: Final = 3600
"""An interval of an hour or more may not be called too brief (RFC 3261 §10.3 step 7)."""

# A tab is white space to SIP; the other control characters are nothing that a contact needs.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 5627 §5.1: what an endpoint says of its GRUUs is ignored.
_OURS: Final = frozenset(("expires", "pub-gruu", "temp-gruu"))
_INSTANCE: Final = "+sip.instance"
_DISPLAY: Final = re.compile(r'[ \t]*(?:"(?:[^"\\]|\\.)*+"|[^"<;]*)[ \t]*', re.DOTALL)


@dataclass(slots=True)
class Settings:
    """What an operator decides about registrations; intervals in seconds."""

    domains: frozenset[str]
    """The domains whose addresses are ours, canonical."""
    min_expires: int = 60
    """Shorter ones are refused with 423."""
    max_expires: int = 3600
    """Longer ones are shortened."""
    default_expires: int = 3600
    """Where the request asks for nothing."""
    max_contacts: int = 10
    """How many bindings one address may have."""
    flow_timer: int = 0
    """Seconds after which endpoints that register flows over connections are to ping; 0 leaves it to them."""
    flow_timer_udp: int = 0
    """The same over UDP."""


def is_wildcard(request: Request, values: Sequence[str]) -> bool:
    """Whether these Contact values remove every binding of the address (RFC 3261 §10.2.2). Raises SipError(400)."""
    if not any(value.startswith("*") for value in values):
        return False
    # RFC 3261 §10.3 step 6: the star stands alone, and the request is about removal and nothing else.
    if len(values) > 1 or values[0] != "*":
        raise SipError(400, "Contact * must stand alone")
    expires = request.header(names.EXPIRES)
    if expires is None or not expires.isascii() or not expires.isdigit() or expires.strip("0"):
        raise SipError(400, "Contact * needs Expires: 0")
    return True


def read_contacts(
    request: Request,
    values: Sequence[str],
    current: Sequence[Binding],
    aor: str,
    flow: Flow,
    settings: Settings,
    now: float,
) -> list[Binding]:
    """The bindings that these Contact values ask for, in their order; one to be removed expires at ``now``.

    A URI that one of the ``current`` bindings has was looked at when that was made. Raises SipError: 400 for what
    cannot be stored, 403 for more contacts than one request can need, 423.
    """
    if not values:
        raise SipError(400, "Bad Contact")
    # A device that moves replaces each of its contacts: as many to remove as to add.
    if len(values) > 2 * settings.max_contacts:
        raise SipError(403, "Too many contacts")
    path = _read_path(request)
    call_id, cseq = request.call_id, request.cseq[0]
    agent = _agent(request)
    header_expires = request.header(names.EXPIRES)
    default = settings.default_expires if header_expires is None else parse_delta(header_expires)
    _check_text(call_id)
    shared = len(call_id) + sum(map(len, path))
    # Who is behind a proxy that left no Path is reached as its Contact says.
    direct = not path and len(request.vias) == 1
    has_flows = direct or outbound.first_hop_has_flows(path)
    found = []
    for value in values:
        address = _read_contact(value, current)
        # RFC 3261 §26.2.2: who is to be called over TLS shows that there is TLS, here and now.
        if flow.transport not in SECURED and address.uri_text[:5].lower() == "sips:":
            raise SipError(403, "SIPS Contact Needs TLS")
        params = contact_params(address)
        instance, reg_id = _device(address)
        if reg_id is not None and not has_flows:
            outbound.check_first_hop(request)
            reg_id = None
        known = _known(address, current)
        if instance is not None and known is None:
            _check_loop(address, aor, settings)
        if len(address.uri_text) + len(params) + shared > MAX_STORED:
            raise SipError(400, "Contact too long")
        expires_at = now + _interval(address, default, settings)
        natted = False
        if direct:
            # A refresh from the same host is what it was: its URI need not be parsed again.
            is_same = known is not None and known.host == flow.host and known.local != ""
            natted = known.natted if known is not None and is_same else _is_natted(address, request, flow)
        binding = Binding(
            aor, address.uri_text, _thousandths(address), expires_at, call_id, cseq, instance, reg_id, path, agent,
            params, flow.transport, flow.host, flow.port, flow.connection, now, intern(flow.sent_by),
            direct and (flow.reliable or natted or reg_id is not None), natted,
            0.0 if instance is None else outbound.gruu_since(instance, reg_id, call_id, current, now),
        )  # fmt: skip
        found.append(binding)
    # RFC 5626 §6: who registers a flow registers nothing else with it.
    if len(found) > 1 and any(each.reg_id is not None for each in found):
        if sum(each.expires_at > now for each in found) > 1:
            raise SipError(400, "Only one Contact with reg-id")
    return found


def same_contact(wanted: Binding, other: Binding, parsed: dict[str, Uri]) -> bool:
    """Whether the one takes the place of the other. ``parsed`` remembers URIs from call to call.

    The same device does (RFC 5626 §6), also one that names no reg-id: it has several contacts only
    because it was restarted (RFC 5627 §6.1). So does an equivalent URI (RFC 3261 §10.3 step 7), unless it belongs to
    a flow and the request names a device: flows of one device may share their URI.
    """
    if wanted.instance is not None:
        if other.instance == wanted.instance and other.reg_id == wanted.reg_id:
            return True
        if other.reg_id is not None:
            return False
    if wanted.contact == other.contact:
        return True
    return _uri(wanted.contact, parsed).equivalent(_uri(other.contact, parsed))


def _uri(contact: str, parsed: dict[str, Uri]) -> Uri:
    uri = parsed.get(contact)
    if uri is None:
        uri = parsed[contact] = Uri.parse(contact)
    return uri


def contact_params(address: Address) -> str:
    """The header parameters as written, each with its semicolon in front, without those that only we may say."""
    params = address.params
    if not params or (len(params) == 1 and "expires" in params):
        return ""
    raw = address.raw
    if raw[0] == "<":
        tail = raw[len(address.uri_text) + 2 :]
    elif raw.startswith(address.uri_text):
        tail = raw[len(address.uri_text) :]
    else:
        # A display name stands before the bracket. It was parsed, so it matches.
        match = _DISPLAY.match(raw)
        tail = raw[(match.end() if match else 0) + len(address.uri_text) + 2 :]
    parts = [part.strip(" \t") for part in split_params(tail.lstrip(" \t;"))]
    kept = "".join([f";{part}" for part in parts if part.partition("=")[0].rstrip(" \t").lower() not in _OURS])
    _check_text(kept)
    return kept


def _read_contact(value: str, current: Sequence[Binding]) -> Address:
    try:
        address = Address.parse(value)
        if _known(address, current) is not None:
            return address
        is_sip = address.uri.is_sip
    except SipError:
        raise SipError(400, "Bad Contact") from None
    # Others cannot be called from here: they would be stored for nothing.
    if not is_sip:
        raise SipError(400, "Contact is no SIP URI")
    return address


def _known(address: Address, current: Sequence[Binding]) -> Binding | None:
    """The binding with this very contact."""
    for binding in current:
        if binding.contact == address.uri_text:
            return binding
    return None


def _is_natted(address: Address, request: Request, flow: Flow) -> bool:
    return is_behind_nat(address.uri, request.top_via.host, flow.host)


def _check_loop(address: Address, aor: str, settings: Settings) -> None:
    """RFC 5627 §5.1: a device is not to be found at the address, or GRUU, that leads to it. Raises SipError(403)."""
    uri = address.uri
    if uri.host.removesuffix(".") in settings.domains and uri.port is None:
        user = uri.user or ""
        if uri.aor() == aor or (gruu.PARAM in uri.params and user.startswith(gruu.TEMPORARY)):
            raise SipError(403, "Contact leads here")


def _check_text(value: str) -> None:
    # The first question is answered without a regular expression for nearly every value.
    if not (value.isascii() and value.isprintable()) and _CONTROL.search(value):
        raise SipError(400, "Control character in a stored value")


def _thousandths(address: Address) -> int:
    return 1000 if "q" not in address.params else round(address.q * 1000)


def _interval(address: Address, default: int, settings: Settings) -> int:
    """The seconds granted to this contact; 0 removes it. Raises SipError(423)."""
    # RFC 3261 §10.3 step 7: the contact's own parameter counts before the header, and that before our default.
    wanted = address.expires if "expires" in address.params else default
    assert wanted is not None
    if 0 < wanted < settings.min_expires and wanted < REJECTABLE:
        raise SipError(423, "Interval Too Brief", (f"Min-Expires: {settings.min_expires}",))
    return min(wanted, settings.max_expires)


def _device(address: Address) -> tuple[str | None, int | None]:
    """Instance and reg-id; RFC 5626 §6: a reg-id without an instance is ignored. Raises SipError(400)."""
    instance = address.params.get(_INSTANCE)
    if not instance:
        return None, None
    # RFC 8141 §3.1, RFC 4122 §3: the hexadecimal digits of a UUID may be written in either case.
    if instance[:10].lower() == "<urn:uuid:":
        instance = instance.lower()
    reg_id = address.params.get("reg-id")
    if reg_id is None:
        return instance, None
    if not reg_id.isascii() or not reg_id.isdigit() or len(reg_id) > 10 or not 0 < int(reg_id) < 2**31:
        raise SipError(400, "Bad reg-id")
    return instance, int(reg_id)


def _agent(request: Request) -> str | None:
    value = request.header(names.USER_AGENT)
    return _agent_text(value[: 4 * MAX_AGENT]) if value else None


# Thousands of endpoints say the same of themselves: their bindings share one copy.
@lru_cache(maxsize=1024)
def _agent_text(value: str) -> str:
    return text(value)[:MAX_AGENT]


def _read_path(request: Request) -> tuple[str, ...]:
    """The path vector of RFC 3327 §5.3, in the order it is written. Raises SipError(400)."""
    if not request.has(names.PATH):
        return ()
    found = []
    for address in request.addresses(names.PATH):
        try:
            is_sip = address.uri.is_sip
        except SipError:
            is_sip = False
        if not is_sip:
            raise SipError(400, "Bad Path")
        _check_text(address.raw)
        found.append(address.raw)
    return tuple(found)
