"""Times as the record writes them, and identifiers that sort by them. Nothing here reads a clock.

In the machine a time is UNIX time in integer milliseconds; in the store it is UTC text with
milliseconds, ``2026-11-23T21:02:17.942Z``, which sorts as it reads.
"""

from __future__ import annotations

from calendar import timegm
from time import gmtime, strftime, strptime
from typing import Final

MAX_SECONDS: Final = 4_096
"""Seconds whose text is remembered."""
_MILLISECONDS: Final = [f"{number:03}Z" for number in range(1_000)]
"""How times end; a format takes five times as long as finding one of these."""


class Stamp:
    """Writes times; remembers the seconds it wrote, since the times of many calls share them."""

    __slots__ = ("_last_at", "_last_text", "_prefixes")

    def __init__(self) -> None:
        self._prefixes: dict[int, str] = {}
        self._last_at = -1
        self._last_text = ""

    def __call__(self, at: int | None) -> str | None:
        """The time as the store writes it; None stays None."""
        if at is None:
            return None
        # The rows of one event all carry its time.
        if at == self._last_at:
            return self._last_text
        second = at // 1_000
        prefix = self._prefixes.get(second)
        if prefix is None:
            if len(self._prefixes) >= MAX_SECONDS:
                self._prefixes.clear()
            prefix = self._prefixes[second] = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second))
        self._last_at = at
        self._last_text = text = prefix + _MILLISECONDS[at % 1_000]
        return text


def parse_stamp(text: str) -> int:
    """The time that the store wrote so, in milliseconds; raises ValueError."""
    if len(text) != 24 or text[19] != "." or text[23] != "Z":
        raise ValueError(text)
    return timegm(strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1_000 + int(text[20:23])


def uuid7(at: int, random: bytes) -> str:
    """A UUID of version 7 (RFC 9562 §5.7) from a time in milliseconds and ten random bytes.

    Those of one millisecond differ by 74 random bits; those of different ones sort by time, so that
    an index over them grows at its end whatever its size.
    """
    # A format takes three times as long.
    when, tail = hex(at & 0xFFFFFFFFFFFF)[2:].zfill(12), random.hex()  # noqa: FURB116
    variant = "89ab"[random[-1] & 3]
    return f"{when[:8]}-{when[8:]}-7{tail[:3]}-{variant}{tail[3:6]}-{tail[6:18]}"
