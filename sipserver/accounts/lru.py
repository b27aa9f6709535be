"""A bounded memory of look-ups."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

PART: Final = 2_048
"""Entries of a part. A dictionary that is full and changes is copied whole now and then: 40 ms for 100,000 entries."""


class Lru(Generic[K, V]):
    """Keeps the ``limit`` entries used last, of many about these: each part forgets by itself, and sees what is used
    from when it is full. Values may be None: ``get`` says by ``missing`` that it has nothing."""

    __slots__ = ("_limit", "_mask", "_parts", "is_used")

    def __init__(self, limit: int) -> None:
        count = 1
        while count * PART < limit:
            count *= 2
        self._mask = count - 1
        self._limit = -(-limit // count)
        """Of a part."""
        self._parts: list[OrderedDict[K, V]] = [OrderedDict() for _ in range(count)]
        self.is_used = False
        """Whether anything was put since it was made or cleared."""

    def get(self, key: K, missing: V) -> V:
        """The value kept for this key, which counts as a use; ``missing`` when there is none."""
        entries = self._parts[hash(key) & self._mask]
        value = entries.get(key, missing)
        # Who was used when counts for nothing as long as nobody has to go.
        if len(entries) >= self._limit and key in entries:
            entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep this value; what was used longest ago goes when there are too many."""
        entries = self._parts[hash(key) & self._mask]
        self.is_used = True
        entries[key] = value
        if len(entries) > self._limit:
            entries.popitem(last=False)

    def pop(self, key: K) -> None:
        """Forget this entry, if it is there."""
        self._parts[hash(key) & self._mask].pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.is_used = False
        for entries in self._parts:
            entries.clear()

    def __len__(self) -> int:
        return sum([len(entries) for entries in self._parts])
