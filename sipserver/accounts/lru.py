"""A bounded memory of look-ups."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Keeps the ``limit`` entries used last. Values may be None: ``get`` says by ``missing`` that it has nothing."""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, missing: V) -> V:
        """The value kept for this key, which counts as a use; ``missing`` when there is none."""
        entries = self._entries
        if key not in entries:
            return missing
        entries.move_to_end(key)
        return entries[key]

    def put(self, key: K, value: V) -> None:
        """Keep this value; what was used longest ago goes when there are too many."""
        self._entries[key] = value
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def pop(self, key: K) -> None:
        """Forget this entry, if it is there."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
