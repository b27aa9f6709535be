"""To whom: the address that a Request-URI names, and its targets in order (RFC 3261 §16.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipserver.proxy.plan import Settings, Target
from sipserver.sip.uri import Uri

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
