"""Who is behind a temporary GRUU: the address and the device, as long as it counts (RFC 5627 §5.1, §6.1)."""

from __future__ import annotations

from collections.abc import Callable

from sipserver.accounts.parties import Parties
from sipserver.location.base import Location
from sipserver.sip.gruu import GruuMinter
from sipserver.sip.uri import Uri


class Devices:
    """Reads temporary GRUUs. ``clock`` gives UNIX time in seconds."""

    def __init__(self, minter: GruuMinter, parties: Parties, location: Location, clock: Callable[[], float]) -> None:
        self._minter = minter
        self._parties = parties
        self._location = location
        self._clock = clock

    def owner(self, uri: Uri) -> tuple[str, str] | None:
        """The address of record and the instance that this GRUU was made for; None for one that does not count, or not
        any more. Raises StoreError."""
        found = self._minter.read(uri)
        if found is None:
            return None
        aor = self._parties.address(found.owner)
        if aor is None or aor.rpartition("@")[2] != uri.host.removesuffix("."):
            return None
        instance, since = None, 0.0
        for binding in self._location.get(aor, self._clock()):
            # Of all flows of the device what holds for the latest Call-ID.
            if binding.instance is not None and self._minter.device(binding.instance) == found.device:
                instance, since = binding.instance, max(since, binding.gruu_since)
        return (aor, instance) if instance is not None and found.since >= round(since * 1000) else None
