"""What the server asks of the place where bindings live.

An address is *held* while one REGISTER for it is between look-up and commit; others for the same address stand in
line and go on in the order they came (RFC 3261 §10.3). Reading holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from sipserver.registrar.binding import Binding, Change

MAX_LINE: Final = 32
"""REGISTERs that may stand in line for one address."""
EXPIRED_AT_ONCE: Final = 100
"""Bindings that one ``expire`` takes out at most: a few milliseconds of the loop's time."""


class Location(Protocol):
    """Bindings by address of record. Times are UNIX seconds; all methods belong to the loop's thread."""

    @property
    def count(self) -> int:
        """Bindings that are kept; some may have expired a moment ago."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether there is more for ``expire`` to do at once."""
        ...

    def get(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The bindings of this address that have not expired, the latest registered first.

        Raises StoreError where they have to be read and cannot.
        """
        ...

    def acquire(self, aor: str, resume: Callable[[], None]) -> bool:
        """Hold this address. True: held now. False: ``resume`` is called once it is held for the caller.

        Raises SipError(503) where MAX_LINE callers wait already.
        """
        ...

    def release(self, aor: str) -> None:
        """Let go of an address that is held; who waits first is resumed from in here."""
        ...

    def replace(self, aor: str, changes: Sequence[Change], done: Callable[[bool], None]) -> None:
        """Make these changes to an address that the caller holds, all or none.

        ``done`` is told True when they are durable, and only then ``get`` shows them; False when nothing has
        changed. It may be called from in here.
        """
        ...

    def expire(self, now: float, limit: int = EXPIRED_AT_ONCE) -> list[Binding]:
        """Take out bindings that have expired, each reported once; the rest of more than ``limit`` next time.

        An address that is held is left for next time.
        """
        ...

    def addresses(self) -> list[str]:
        """Every address that has bindings in memory."""
        ...

    def __iter__(self) -> Iterator[Binding]:
        """Every binding in memory; nothing may change meanwhile."""
        ...

    def flush(self) -> None:
        """Hand over what was changed; called when everything that had arrived has been looked at."""
        ...

    def close(self) -> int:
        """Finish what is under way and let go of everything; how many rows could not be written. May block."""
        ...
