"""What is told of who asks at the edge of the trust domain (RFC 3325), and what is kept from others (RFC 3323).

The trust domain is this server and the peers that the operator trusts. An identity is asserted by this server, of
subscribers who have proved theirs, or by a trusted peer. Whoever is not trusted is not believed, and is told of it only
where the operator wants endpoints to know and the caller does not object.

Of the levels of RFC 3323 a proxy can provide ``id`` (RFC 3325 §9.3), and ``user`` to whoever has left the name out of
From. ``header`` and ``session`` take a server that ends the call and begins another; a request that cannot do without
is refused, any other goes on as it came, so that somebody further on may do it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sipserver.proxy.dialling import DialPlan
from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.grammar import is_token
from sipserver.sip.message import Message, Request, Response
from sipserver.sip.uri import Uri, aor_uri
from sipserver.sip.values import Address

NOBODY: Final = "nobody"
"""No identity leaves this server."""
PEERS: Final = "peers"
"""Trusted peers are told."""
ENDPOINTS: Final = "endpoints"
"""Trusted peers and everybody else who is called are told."""

ANONYMOUS: Final = "anonymous.invalid"
"""The domain of who leaves the name out of From (RFC 3323 §4.1.1.3)."""
OPTION: Final = "privacy"
"""The option tag by which a caller asks that proxies know of this (RFC 3323 §4.2)."""

_MAX_IDENTITIES: Final = 2
"""RFC 3325 §9.1: a sip or sips URI, a tel URI, or one of each."""
_INFORMATIONAL: Final = frozenset(
    (names.SUBJECT, "call-info", "organization", names.USER_AGENT, "reply-to", "in-reply-to")
)
"""What is not told of a user who asks for privacy (RFC 3323 §5.3)."""
_FOR_EVERYBODY: Final = frozenset(("none", "critical", "session"))
"""Levels that keep no identity from anybody."""


@dataclass(slots=True, eq=False)
class Disclosure:
    """What is told of the sender of one request."""

    lines: tuple[str, ...] = ()
    """P-Asserted-Identity, for targets in the trust domain."""
    to_all: bool = False
    """Whether it is for all other targets as well."""
    changed: dict[int, str | None] = field(default_factory=dict)
    """By position, lines of the request that go on as this instead; None for not at all."""


def disclose(request: Request, identity: str | None, trusted: bool, asserted: str, dial_plan: DialPlan) -> Disclosure:
    """What is told of the sender of this request, who proved to be ``identity``, or came by a ``trusted`` peer.

    Raises SipError(500) where privacy is asked for that cannot be done without, and cannot be had.
    """
    levels = privacy_levels(request)
    found = Disclosure()
    if asserted != NOBODY:
        if identity is not None:
            found.lines = _own_lines(request, identity, dial_plan)
        elif trusted:
            # The name that stands with it is part of what is vouched for.
            values = _identities(request, names.P_ASSERTED_IDENTITY)
            found.lines = tuple([f"P-Asserted-Identity: {value}" for value, _ in values])
        # RFC 3325 §7: what came with Privacy: none may not be kept back.
        open_to_all = asserted == ENDPOINTS or (trusted and "none" in levels)
        found.to_all = open_to_all and _FOR_EVERYBODY.issuperset(levels)
    if levels and "none" not in levels:
        _provide(request, levels, found)
    return found


def privacy_levels(message: Message) -> list[str]:
    """The values of Privacy, in lower case."""
    if not message.has(names.PRIVACY):
        return []
    found = [level.strip(" \t").lower() for value in message.headers(names.PRIVACY) for level in value.split(";")]
    return [level for level in found if level]


def _provide(request: Request, levels: list[str], found: Disclosure) -> None:
    # RFC 3323 §5.3: From is for dialogs to be found by, so only its sender can leave the name out of it.
    nameless = request.from_.uri.host.removesuffix(".").endswith(ANONYMOUS)
    provided = ("id", "critical", "user") if nameless else ("id", "critical")
    missing = [level for level in levels if level not in provided]
    if missing and "critical" in levels:
        # §5: the phrase says what there is not.
        shown = ", ".join([level for level in missing if is_token(level)][:4])
        raise SipError(500, f"Privacy Failure: {shown[:80]}")
    if "user" in levels:
        # §5: what is done need not be done again. ``id`` is for every server at the edge of the trust domain.
        left = [level for level in levels if level != "user" or not nameless]
        _withhold(request, ";".join(left) if left not in ([], ["critical"]) else "", found)


def _withhold(request: Request, privacy: str, found: Disclosure) -> None:
    """What the lines of a request become for the level ``user``; ``privacy`` is the Privacy that is left."""
    said = False
    for position, name in enumerate(request.names):
        if name in _INFORMATIONAL:
            found.changed[position] = None
        elif name == names.PRIVACY:
            found.changed[position] = f"Privacy: {privacy}" if privacy and not said else None
            said = True
        elif name == names.PROXY_REQUIRE and not privacy:
            # §5: nobody has to know of it any more.
            tags = [tag for tag in request.value_at(position).split(",") if tag.strip(" \t").lower() != OPTION]
            found.changed[position] = f"Proxy-Require:{','.join(tags)}" if tags else None


def believed_identity(request: Request) -> str | None:
    """The address that a trusted peer vouches for: its sip or sips URI, else its tel URI."""
    found = identity_uris(request, names.P_ASSERTED_IDENTITY)
    for uri in found:
        if uri.is_sip:
            return uri.aor()
    return found[0].aor() if found else None


def identity_uris(message: Message, name: str) -> list[Uri]:
    """The URIs in P-Asserted-Identity or P-Preferred-Identity that can be read and may stand there."""
    return [uri for _, uri in _identities(message, name)]


def _identities(message: Message, name: str) -> list[tuple[str, Uri]]:
    """The same, each with the value that it stands in."""
    found: list[tuple[str, Uri]] = []
    for value in message.values(name)[:_MAX_IDENTITIES]:
        try:
            uri = Address.parse(value).uri
        except SipError:
            continue
        if uri.is_sip or uri.scheme == "tel":
            found.append((value, uri))
    return found


def withhold_identity(response: Response, *, from_trusted: bool, to_trusted: bool, asserted: str) -> None:
    """Take P-Asserted-Identity out of a response, in place, unless it may pass (RFC 3325 §5)."""
    if from_trusted and asserted != NOBODY:
        levels = privacy_levels(response)
        if to_trusted or (_FOR_EVERYBODY.issuperset(levels) and (asserted == ENDPOINTS or "none" in levels)):
            return
    for position in range(len(response.names) - 1, -1, -1):
        if response.names[position] == names.P_ASSERTED_IDENTITY:
            response.remove_line(position)


def _own_lines(request: Request, identity: str, dial_plan: DialPlan) -> tuple[str, ...]:
    """Of a subscriber: the identity of his that he prefers (RFC 3325 §6), or else his address and his number."""
    others = dial_plan.identities(identity)
    if request.has(names.P_PREFERRED_IDENTITY):
        for uri in identity_uris(request, names.P_PREFERRED_IDENTITY):
            aor = uri.aor()
            if aor == identity or aor in others:
                return (_line(aor),)
    numbers = [other for other in others if other.startswith("+") and "@" not in other]
    return (_line(identity), _line(numbers[0])) if len(numbers) == 1 else (_line(identity),)


def _line(aor: str) -> str:
    return f"P-Asserted-Identity: <{aor_uri(aor)}>"
