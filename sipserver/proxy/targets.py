"""To whom: the address that a Request-URI names, and its targets in order (RFC 3261 §16.5)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Final

from sipserver.proxy.dialling import number_of
from sipserver.proxy.plan import NeedTargets, Plan, Settings, Target
from sipserver.proxy.static_routes import ANYWHERE, Destinations
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri, aor_uri, escape_user

MAX_ALTERNATES: Final = 4
"""Further flows of one device that are tried."""


def names_us(uri: Uri, settings: Settings) -> bool:
    """Whether a URI names one of our domains or listeners; the port counts only for the latter."""
    if not uri.is_sip:
        return False
    return uri.host.removesuffix(".") in settings.domains or settings.is_us(uri.host, uri.effective_port)


def address_of(uri: Uri, settings: Settings, identity: str | None) -> str | None:
    """The address of ours that a Request-URI names; None for a foreign domain.

    A tel URI is looked up as a number. A user at one of our IP addresses means that user of the
    caller's own domain, or of the only domain there is.
    """
    if uri.scheme == "tel":
        return uri.aor()
    if uri.host.removesuffix(".") in settings.domains:
        return uri.aor()
    if not settings.is_us(uri.host, uri.effective_port):
        return None
    user = uri.aor().rpartition("@")[0]
    if identity is not None:
        return f"{user}@{identity.rpartition('@')[2]}"
    if len(settings.domains) == 1:
        return f"{user}@{next(iter(settings.domains))}"
    return uri.aor()


def find_targets(plan: Plan, uri: Uri, identity: str | None, settings: Settings) -> Generator[Effect, Any, None]:
    """Fills ``plan.groups``. Raises SipError where there is no target, or none that this sender may reach."""
    callee = plan.callee
    if callee is None:
        # RFC 3261 §16.5: the target of a domain that is not ours is the Request-URI itself.
        host = uri.host.removesuffix(".")
        if not allowed(identity, settings).has_domain(host):
            raise SipError(403, "Relaying Not Allowed")
        plan.groups = group_targets(in_domain(host, plan.uri_text, uri, settings), uri, settings)
        if not plan.groups:
            # RFC 3261 §26.2.2: there are ways, but none is secure.
            raise SipError(480, "No Secure Way")
        return
    if settings.dial_plan or settings.static.has_numbers:
        yield from _find_meant(plan, callee, uri, identity, settings)
        return
    targets = yield NeedTargets(callee)
    plan.groups = group_targets(targets or (), uri, settings)
    plan.located = True
    if not plan.groups:
        raise _nowhere(known=targets is not None, identity=identity)


def leads_on(callee: str | None, uri: Uri, identity: str | None, settings: Settings) -> bool:
    """Whether an address that no subscriber may have is somebody's all the same, as far as this sender may know."""
    if callee is None:
        return uri.is_sip and allowed(identity, settings).has_domain(uri.host.removesuffix("."))
    if settings.dial_plan and settings.dial_plan.meant(callee) != [(callee, False)]:
        return True
    if not settings.static.has_numbers:
        return False
    number = number_of(callee)
    return number is not None and allowed(identity, settings).has_number(number)


def _find_meant(
    plan: Plan, callee: str, uri: Uri, identity: str | None, settings: Settings
) -> Generator[Effect, Any, None]:
    """The same where an address may stand for others, and a number may be somewhere else."""
    found: list[Target] = []
    known = refused = False
    for aor, by_alias in settings.dial_plan.meant(callee):
        allowed_to = ANYWHERE if by_alias else allowed(identity, settings)
        host = aor.rpartition("@")[2] if "@" in aor else ""
        if aor == callee or not host or host in settings.domains:
            targets = yield NeedTargets(aor)
            number = number_of(aor)
            if targets is not None:
                known = True
                found += targets
            elif number is not None and settings.static.for_number(number):
                known = True
                if allowed_to.has_number(number):
                    found += _to_number(number, uri, settings)
                else:
                    refused = True
        elif allowed_to.has_domain(host):
            known = True
            found += in_domain(host, aor_uri(aor, uri.scheme if uri.is_sip else "sip"), uri, settings)
        else:
            known = refused = True
    plan.groups = group_targets(found, uri, settings)
    plan.located = True
    if not plan.groups:
        if refused and identity is not None:
            raise SipError(403, "Relaying Not Allowed")
        raise _nowhere(known=known, identity=identity)


def _nowhere(*, known: bool, identity: str | None) -> SipError:
    """RFC 3261 §16.5: 404 for what does not exist, 480 for what is nowhere; to strangers both look the same."""
    if not known and identity is not None:
        return SipError(404, "Not Found")
    return SipError(480, "Temporarily Unavailable")


def allowed(identity: str | None, settings: Settings) -> Destinations:
    """Where this sender may send requests to that are not for us."""
    if settings.outbound and identity is not None:
        return ANYWHERE
    return settings.permissions.of(identity)


def in_domain(domain: str, uri_text: str, uri: Uri, settings: Settings) -> list[Target]:
    """The ways to a foreign domain: the operator's, or else what DNS says of it."""
    routes = settings.static.for_domain(domain)
    if not routes:
        return [Target(uri_text)]
    return _in_turn([Target(uri_text, hop=route.hop, peer=route.peer) for route in routes], uri)


def _to_number(number: str, uri: Uri, settings: Settings) -> list[Target]:
    """The way to a number: who is there takes it as one of its own users (RFC 3261 §19.1.6)."""
    user, ways = escape_user(number), []
    for route in settings.static.for_number(number):
        hop = route.hop
        ways.append(Target(f"{hop.scheme}:{user}@{hop.hostport};user=phone", hop=hop, peer=route.peer))
    return _in_turn(ways, uri)


def _in_turn(ways: list[Target], uri: Uri) -> list[Target]:
    """The first of these ways, with the others to be taken where it fails."""
    # RFC 3261 §26.2.2: what was asked for by SIPS goes on by SIPS, or not at all.
    usable = [each for each in ways if uri.scheme != "sips" or (each.hop is not None and each.hop.scheme == "sips")]
    if not usable:
        return []
    usable[0].alternates = tuple(usable[1:])
    return usable[:1]


def group_targets(targets: Iterable[Target], uri: Uri, settings: Settings) -> list[list[Target]]:
    """Targets by falling q, equal ones together (§16.6); each URI and each device once (§16.5, RFC 5626 §5.1).

    A device that registered several times is one target: what it registered last, with its other flows as alternates.
    """
    seen: dict[str, Target] = {}
    chosen = []
    for target in targets:
        # RFC 3261 §26.2.2: what was asked for by SIPS goes on by SIPS, or not at all.
        if uri.scheme == "sips" and target.uri_text[:5].lower() != "sips:":
            continue
        device = seen.get(target.instance) if target.instance else None
        if device is not None:
            others = (device, *device.alternates)
            if len(others) <= MAX_ALTERNATES and not any([_is_same_way(each, target) for each in others]):
                device.alternates += (target,)
            continue
        if target.uri_text in seen:
            continue
        seen[target.uri_text] = target
        if target.instance:
            seen[target.instance] = target
        chosen.append(target)
    chosen.sort(key=_preference)
    groups: list[list[Target]] = []
    for target in chosen[: settings.max_targets]:
        if groups and groups[-1][0].q == target.q:
            groups[-1].append(target)
        else:
            groups.append([target])
    return groups


def _is_same_way(one: Target, other: Target) -> bool:
    """Whether two bindings of a device are reached alike; several flows may have the same contact (RFC 5626 §4.2)."""
    return (
        one.uri_text == other.uri_text
        and one.path == other.path
        and (one.transport, one.host, one.port, one.connection)
        == (other.transport, other.host, other.port, other.connection)
    )


def _preference(target: Target) -> int:
    return -target.q
