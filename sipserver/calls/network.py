"""Where a client is, as coarsely as the record may know it: a network prefix."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

MAX_REMEMBERED: Final = 10_000
"""Hosts whose prefix is remembered."""


class NetworkPrefix:
    """Turns an address into its network, or into nothing. ``exact`` and ``none`` are 32/128 and 0/0."""

    def __init__(self, ipv4: int = 24, ipv6: int = 56) -> None:
        self._ipv4 = ipv4
        """Bits kept of an IPv4 address: 32 keeps the address, 0 nothing."""
        self._ipv6 = ipv6
        """Bits kept of an IPv6 address: 128 keeps the address, 0 nothing."""
        self._remembered: dict[str, str | None] = {}

    def __call__(self, host: str | None) -> str | None:
        """``192.0.2.0/24`` for ``192.0.2.7``; an address kept whole has no ``/``; None for what is not kept."""
        if host is None:
            return None
        try:
            return self._remembered[host]
        except KeyError:
            # A flood of senders must not fill the memory: what is forgotten is computed again.
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            prefix = self._remembered[host] = self._prefix(host)
            return prefix

    def _prefix(self, host: str) -> str | None:
        try:
            address = ip_address(host)
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is None:
                return _network(str(address).partition("%")[0], self._ipv6, 128)
            # A dual-stack socket shows IPv4 peers as ::ffff:192.0.2.7: the rule for IPv4 holds.
            address = address.ipv4_mapped
        return _network(str(address), self._ipv4, 32)


def _network(address: str, bits: int, whole: int) -> str | None:
    if bits == 0:
        return None
    return address if bits == whole else str(ip_network(f"{address}/{bits}", strict=False))
