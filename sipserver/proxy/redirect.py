"""Following a redirection instead of passing it on (RFC 3261 §16.5, §16.7 step 4).

A contact of a 3xx is tried in place of the device that named it where it is an address of ours, or where the one who
was called may call that domain: a redirection reaches nobody whom the redirecting side could not call. Nothing is tried
twice, and no more than so many contacts for one request; the others stay in the 3xx, which then is an answer like any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sipserver.proxy.plan import Plan, Settings, Target
from sipserver.proxy.targets import address_of, allowed, group_targets, in_domain
from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Response
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

FOLLOWED: Final = frozenset((300, 301, 302))
"""305 names a proxy and 380 another service: those are for the caller (RFC 3261 §21.3)."""


@dataclass(slots=True)
class Contact:
    """One contact that is followed."""

    uri_text: str
    q: int
    """Preference in thousandths."""
    aor: str | None
    """The address of ours that it names; None for one elsewhere."""


def follow(
    response: Response, plan: Plan, settings: Settings, known: set[str]
) -> tuple[list[Contact], Response | None]:
    """The contacts to follow, the best first, and the 3xx with the others; None where there are none.

    ``known`` is what was tried for this request so far, and grows.
    """
    try:
        contacts = response.addresses(names.CONTACT)
        chosen = [_choose(each, plan, settings, known) for each in contacts]
    except SipError:
        return [], response
    followed = [each for each in chosen if each is not None]
    if not followed:
        return [], response
    followed.sort(key=_preference)
    left = [contact.raw for contact, each in zip(contacts, chosen, strict=True) if each is None]
    return followed, _with_contacts(response, left) if left else None


def _choose(contact: Address, plan: Plan, settings: Settings, known: set[str]) -> Contact | None:
    uri = contact.uri
    if not uri.is_sip or uri.user is None or len(known) >= settings.redirects:
        return None
    # §16.7 step 4: what was asked for by SIPS goes on by SIPS, or not at all.
    if plan.secure and uri.scheme != "sips":
        return None
    aor = address_of(uri, settings, plan.callee)
    if aor is None and not allowed(plan.callee, settings).has_domain(uri.host.removesuffix(".")):
        return None
    key = aor or _elsewhere(uri)
    if key in known or key == (plan.callee or _elsewhere(Uri.parse(plan.uri_text))):
        return None
    known.add(key)
    return Contact(contact.uri_text, 1000 if "q" not in contact.params else round(contact.q * 1000), aor)


def _elsewhere(uri: Uri) -> str:
    return f"{uri.aor()} {uri.port}"


def _preference(contact: Contact) -> int:
    return -contact.q


def _with_contacts(response: Response, contacts: Sequence[str]) -> Response:
    kept = [i for i, name in enumerate(response.names) if name != names.CONTACT]
    lines = [response.lines[i] for i in kept] + [f"Contact: {each}" for each in contacts]
    found = [response.names[i] for i in kept] + [names.CONTACT] * len(contacts)
    return Response(response.status, response.reason, lines, found, response.body)


def group_contacts(
    contacts: Sequence[Contact], bindings: Sequence[Sequence[Target]], settings: Settings
) -> list[list[Target]]:
    """The targets behind these contacts by falling preference; ``bindings`` has those of each address of ours."""
    groups: list[list[Target]] = []
    start, q = 0, -1
    for contact, bound in zip(contacts, bindings, strict=True):
        if contact.q != q:
            start, q = len(groups), contact.q
        uri = Uri.parse(contact.uri_text)
        ways = bound
        if contact.aor is None:
            ways = in_domain(uri.host.removesuffix("."), contact.uri_text, uri, settings)
        found = group_targets(ways, uri, settings)
        for offset, group in enumerate(found):
            if start + offset < len(groups):
                groups[start + offset] += group
            else:
                groups.append(group)
    return groups
