"""Whether an endpoint is behind a NAT, as far as its messages show it (RFC 3581 §1, RFC 5626 §1).

An endpoint that knows nothing of the NAT names itself by an address that only its own side of the NAT can reach. What
counts is where it says that it is, in its Contact and its Via, and where its message came from.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from sipserver.sip.uri import Uri

NAME: Final = -1
"""``scope``: a name, not an address."""
NOWHERE: Final = 0
"""``scope``: the unspecified address."""
MACHINE: Final = 1
"""``scope``: loopback."""
SITE: Final = 2
"""``scope``: private and link-local networks (RFC 1918, 3927, 4193, 4291), and those of providers' NATs (RFC 6598)."""
WORLD: Final = 3
"""``scope``: everything else."""

_SITE4: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                                        "100.64.0.0/10")))  # fmt: skip
_SITE6: Final = tuple(map(IPv6Network, ("fc00::/7", "fe80::/10")))


@lru_cache(maxsize=4096)
def scope(host: str) -> int:
    """From where an address can be reached: from NOWHERE to WORLD; NAME for what is no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return NAME
    if address.is_unspecified:
        return NOWHERE
    if address.is_loopback:
        return MACHINE
    networks = _SITE4 if address.version == 4 else _SITE6
    return SITE if any([address in network for network in networks]) else WORLD


def is_behind_nat(contact: Uri, via_host: str, source: str) -> bool:
    """Whether who is at this contact cannot be reached by it, only by the way that its message came.

    ``via_host`` is the sent-by of the Via that the endpoint wrote itself, ``source`` the IP address that the message
    came from. Not asked where the endpoint wrote the truth: an asymmetric one sends from another port.
    """
    host = contact.host
    if host == source:
        return False
    reach = scope(host)
    if reach == NAME and (host.endswith(".local") or "." not in host):
        # RFC 6762 §3, or the name that a machine gives itself.
        return True
    if NAME < reach < scope(source):
        return True
    # Both name somebody else than the source: its address was changed on the way. A Contact that alone does names
    # another device on purpose.
    return via_host != source and scope(via_host) != NAME
