"""A dictionary in parts: one of a million entries is copied whole when it grows, and everybody waits for 50 ms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

PARTS: Final = 64
"""A power of two; of a million entries the copy of a part takes less than a millisecond."""

K = TypeVar("K")
V = TypeVar("V")


class Spread(Generic[K, V]):
    """What dictionaries do, as far as it is needed here; the order of entries is any."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[dict[K, V]] = [{} for _ in range(PARTS)]

    def __len__(self) -> int:
        return sum([len(part) for part in self._parts])

    def __iter__(self) -> Iterator[K]:
        for part in self._parts:
            yield from part

    def values(self) -> Iterator[V]:
        """Nothing may change meanwhile."""
        for part in self._parts:
            yield from part.values()

    def part(self, key: K) -> dict[K, V]:
        """Where this key is or would be."""
        return self._parts[hash(key) & (PARTS - 1)]

    def get(self, key: K) -> V | None:
        """What stands under this key."""
        return self._parts[hash(key) & (PARTS - 1)].get(key)

    def clear(self) -> None:
        """Forget everything."""
        self._parts = [{} for _ in range(PARTS)]
