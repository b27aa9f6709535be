"""Rounding to multiples of a base, at random but always in the same way for the same cell.

A count goes up to the next multiple as likely as it is near to it, so sums are right on average. The draw depends on
the cell's name and on a key that the ledger keeps to itself, not on the count and not on when it is asked for: asking
again brings the same, and so does the same cell in another table. Without the key nobody can tell which way a count
went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

KEY_BYTES: Final = 32
_RANGE: Final = 1 << 64


@dataclass(slots=True, frozen=True)
class Rounding:
    """Rounds counts of cells of one piece of time."""

    key: bytes
    base: int
    period: str
    """Which piece."""

    def __call__(self, measure: str, cell: Mapping[str, str], count: int) -> int:
        """The multiple of the base for this cell: what is counted, and its dimensions by name, in any order."""
        below = count - count % self.base
        name = "\x00".join((self.period, measure, *(f"{each}\x01{cell[each]}" for each in sorted(cell))))
        draw = int.from_bytes(blake2b(name.encode(), key=self.key, digest_size=8).digest())
        return below + self.base if draw * self.base < (count - below) * _RANGE else below
