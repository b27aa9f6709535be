"""Requests for one device of an address, named by a GRUU (RFC 5627 §6)."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from sipserver.proxy.plan import NeedTargets, Plan, Settings, Target
from sipserver.proxy.targets import group_targets
from sipserver.sip import gruu, names
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address


@dataclass(slots=True)
class NeedOwner(Effect):
    """Whose is this temporary GRUU? Answered with address of record and instance; None where it is none that counts."""

    uri: Uri


def is_gruu(uri: Uri, settings: Settings) -> bool:
    """Whether a URI is a GRUU of one of our domains."""
    return gruu.PARAM in uri.params and uri.user is not None and uri.host.removesuffix(".") in settings.domains


def is_temporary(uri: Uri) -> bool:
    """Whether a GRUU says nothing of whose it is."""
    return uri.user is not None and uri.user.startswith(gruu.TEMPORARY)


def of_device(targets: Iterable[Target], uri: Uri, instance: str | None) -> list[Target]:
    """The targets that are this device: that of a temporary GRUU, or else what ``gr`` says."""
    if instance is not None:
        return [each for each in targets if each.instance == instance]
    value = uri.params.get(gruu.PARAM) or ""
    return [each for each in targets if gruu.is_of(value, each.instance)]


def find_device(
    plan: Plan, aor: str, uri: Uri, instance: str | None, identity: str | None, settings: Settings
) -> Generator[Effect, Any, None]:
    """Fills ``plan.groups`` for a request to a GRUU of this address (§6.1). Raises SipError where it leads nowhere."""
    targets: tuple[Target, ...] | None = yield NeedTargets(aor)
    plan.groups = group_targets(of_device(targets or (), uri, instance), uri, settings)
    plan.located = True
    if not plan.groups:
        # As with any other address, strangers are not told which there are.
        if targets is None and identity is not None:
            raise SipError(404, "Not Found")
        raise SipError(480, "Temporarily Unavailable")


def check_contact(request: Request, identity: str, settings: Settings) -> Generator[Effect, Any, None]:
    """RFC 5627 §6.2: who sends a dialog's first request may name itself by a GRUU of its own only. Raises
    SipError(403)."""
    values = request.values(names.CONTACT)
    if not values or f";{gruu.PARAM}" not in values[0]:
        return
    try:
        uri = Address.parse(values[0]).uri
    except SipError:
        return
    if not is_gruu(uri, settings):
        return
    owner: str | None = uri.aor()
    if is_temporary(uri):
        found: tuple[str, str] | None = yield NeedOwner(uri)
        owner = found[0] if found is not None else None
    if owner != identity:
        raise SipError(403, "GRUU Of Another")
