"""Addresses that sockets are bound to, and which of them the machine has lost.

An interface goes down for a moment, a lease ends, an address moves to the other machine of a pair: the socket stays
bound, and works again as soon as the address is back, so nothing is opened anew. What has to be done is to tell, and to
give up the connections over an address that stays away: their peers cannot be reached any more, and nothing says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

GRACE: Final = 10.0
"""Seconds that an address may be away until connections over it are dropped. A shorter absence they survive."""

Noticed = Callable[[str, bool], None]
"""Called with an address and whether the machine has it now."""


class Absences:
    """Which of some addresses are away, and since when."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        """The addresses that are away, with the seconds of the clock at which that was noticed."""
        self.on_change: Noticed = _ignore

    def look(self, addresses: Iterable[str], has: Callable[[str], bool], now: float) -> None:
        """Compare these addresses with what the machine has; others are forgotten.

        Loopback is always there, and link-local addresses are not looked at.
        """
        watched = {address for address in addresses if is_watched(address)}
        before, self.since = self.since, {}
        for address in watched:
            since, there = before.get(address), has(address)
            if not there:
                self.since[address] = now if since is None else since
            if there == (since is not None):
                self.on_change(address, there)

    def long_gone(self, now: float) -> frozenset[str]:
        """Those that have been away for GRACE."""
        return frozenset(address for address, since in self.since.items() if now - since >= GRACE)


def is_watched(address: str) -> bool:
    """Whether this is an address that the machine may lose."""
    return not address.startswith("127.") and address != "::1" and "%" not in address


def _ignore(_address: str, _there: bool) -> None:
    """Nobody wants to know yet."""
