"""Whose media cannot be reached, by what a side says of itself and where that came from.

An endpoint that names a private address (RFC 1918, 6598, 4193, link-local) while its packets come from another one is
behind a NAT and knows nothing of it. One that names the address it sends from is not, or shares the network with this
server. A public address that is another than the source is a gateway's, and believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.nat import NOWHERE, WORLD, scope
from sipserver.sip.uri import Uri

MAX_ADDRESSES: Final = 16
"""Connection lines of a description that are looked at."""

_CONNECTION: Final = b"\nc=IN IP"
_NOWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound to it


def has_ice(description: bytes) -> bool:
    """Whether this session description offers or accepts ICE (RFC 8839 §5.4)."""
    return b"\na=ice-ufrag:" in description


def has_dtls(description: bytes) -> bool:
    """Whether its media are encrypted with keys by DTLS (RFC 5763)."""
    return b"\na=fingerprint:" in description


def media_addresses(description: bytes) -> list[str]:
    """The addresses that its connection lines name (RFC 4566 §5.7), without those that say "nowhere"."""
    found = []
    for rest in description.split(_CONNECTION, MAX_ADDRESSES + 1)[1 : MAX_ADDRESSES + 1]:
        # "4 192.0.2.1", maybe "/ttl".
        address = rest[:64].split(b"\n", 1)[0].strip()[1:].strip().partition(b"/")[0].decode("latin-1")
        if address and address not in _NOWHERE:
            found.append(address)
    return found


def is_behind_nat(named: Iterable[str], source: str) -> bool:
    """Whether whoever names these addresses, and sends from ``source``, is behind a NAT."""
    return any([address != source and is_private(address) for address in named])


def is_private(address: str) -> bool:
    """Whether this is an IP address that means something within a network alone; a name is not."""
    return NOWHERE < scope(address) < WORLD


def host_of(uri_text: str) -> str:
    """The host of a contact; empty where it cannot be read."""
    try:
        return Uri.parse(uri_text).host
    except SipError:
        return ""
