"""P-Access-Network-Info (RFC 7315 §4.4, §5.4): which access network an endpoint is in, by whoever vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message
from sipserver.sip.values import parse_params

MAX_VALUES: Final = 8
"""Access networks of one message that are looked at."""

_CELLS: Final = ("cgi-3gpp", "utran-cell-id-3gpp", "utran-sai-3gpp")
_PLACES: Final = (
    *_CELLS, "i-wlan-node-id", "dsl-location", "eth-location", "fiber-location", "gstn-location", "ci-3gpp2",
    "ci-3gpp2-femto", "dvb-rcs2-node-id", "operator-specific-gi",
)  # fmt: skip


@dataclass(slots=True)
class AccessNetwork:
    """One access-net-spec."""

    kind: str
    """The access-type or access-class as written, such as ``3GPP-E-UTRAN-FDD``."""
    cell: str | None
    """The identity of a 3GPP cell or service area, which begins with the mobile country code."""
    identifiers: tuple[str, ...]
    """What tells the place, ``name=value`` with the name in lower case, such as ``dsl-location=line-17``."""
    network_provided: bool
    """Whether the network says it and not the endpoint."""


def parse(message: Message) -> list[AccessNetwork]:
    """The access networks that a message names; those that the network itself tells of come first.

    Raises SipError for one that cannot be read.
    """
    found: list[AccessNetwork] = []
    for value in message.values(names.P_ACCESS_NETWORK_INFO)[:MAX_VALUES]:
        kind, semicolon, rest = value.partition(";")
        params = parse_params(rest.strip(" \t")) if semicolon else {}
        identifiers = tuple([f"{name}={params[name]}" for name in _PLACES if params.get(name)])
        cell = next((params[name] for name in _CELLS if params.get(name)), None)
        kind = kind.strip(" \t")
        if not kind:
            raise SipError(400, "Bad P-Access-Network-Info")
        found.append(AccessNetwork(kind, cell, identifiers, "network-provided" in params))
    return [each for each in found if each.network_provided] + [each for each in found if not each.network_provided]
