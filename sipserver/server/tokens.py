"""Random tokens for tags, branches and call keys, drawn from the kernel a page at a time."""

from __future__ import annotations

import os


class Tokens:
    """An endless supply of unguessable tokens (RFC 3261 §19.3: at least 32 bits; these have 64)."""

    def __init__(self) -> None:
        self._page = ""
        self._at = 0

    def hex16(self) -> str:
        """Sixteen hexadecimal characters."""
        at = self._at
        if at >= len(self._page):
            self._page = os.urandom(4096).hex()
            at = 0
        self._at = at + 16
        return self._page[at : at + 16]

    def fraction(self) -> float:
        """A number from 0 to 1, to spread what would otherwise happen all at once."""
        return int(self.hex16(), 16) / 2.0**64

    def bytes10(self) -> bytes:
        """Ten random bytes, as a UUIDv7 needs."""
        return bytes.fromhex(self.hex16() + self.hex16()[:4])
