"""Memories of what came last, as dictionaries in the order in which their entries came."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, Generic, TypeVar

_PART: Final = 128
_ENTRIES: Final = 4_096
"""Of a dictionary, or a few times as many. One that grows is copied whole, which takes 50 ns an entry: everybody would
wait for 10 ms at two hundred thousand."""
_PARTS: Final = 16
"""Dictionaries at most: as many as one character of a key tells apart."""

V = TypeVar("V")


class Latest(Generic[V]):
    """What is kept of the latest calls, by their keys, which are random and end in hexadecimal: of about so many. It is
    in parts, and each of them forgets by itself; the oldest go first."""

    __slots__ = ("_limit", "_mask", "_parts")

    def __init__(self, limit: int) -> None:
        count = 1
        while count < _PARTS and count * _ENTRIES < limit:
            count *= 2
        self._mask = count - 1
        self._limit = limit // count
        """Of a part."""
        self._parts: list[dict[str, V]] = [{} for _ in range(count)]

    def __len__(self) -> int:
        return sum([len(part) for part in self._parts])

    def get(self, key: str) -> V | None:
        """What is kept under this key."""
        return self._part(key).get(key)

    def put(self, key: str, value: V) -> int:
        """Keep this; how many others were forgotten for want of room."""
        part = self._part(key)
        forgotten = 0
        if len(part) >= self._limit and key not in part:
            forgotten = forget_oldest(part)
        part[key] = value
        return forgotten

    def pop(self, key: str) -> None:
        """Forget this, if it is there."""
        self._part(key).pop(key, None)

    def _part(self, key: str) -> dict[str, V]:
        # By the digit that its last character is: half of all hashes are too large to be handled quickly.
        code = ord(key[-1]) if key else 0
        return self._parts[(code + 9 * (code >> 6)) & self._mask]


def forget_oldest(entries: dict[Any, Any]) -> int:
    """Make room: forget the oldest entry, of very many the oldest hundredth or so; how many these were.

    Behind each that goes a gap stays in the dictionary for a while, and whoever looks for its first entry passes them
    all: at a hundred thousand entries that took 70 us for each new one when they went one by one.
    """
    oldest = list(islice(entries, max(1, len(entries) // _PART)))
    for key in oldest:
        del entries[key]
    return len(oldest)
