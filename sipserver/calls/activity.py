"""What endpoints tell of themselves, and refreshes: counted in memory, written now and then.

A refresh changes nothing, so it costs no row of its own: refreshes of a party in a day are one row in
``sign_in_days``, written every few seconds and at the stop. A crash loses what was counted since: a few seconds of
refreshes, and nothing else. A device's row is written when the device is new or says something else of itself, and at
most once an hour beyond that.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import Final

from sipserver.calls import delays
from sipserver.calls.delays import RegistrationDelays
from sipserver.calls.network import NetworkPrefix
from sipserver.calls.observe import printable
from sipserver.calls.recorder import Sink
from sipserver.calls.times import Stamp
from sipserver.sip import names
from sipserver.sip.message import Message

SEEN_EVERY_MS: Final = 3_600_000
"""How old ``devices.last_seen`` may be."""
MAX_COUNTED: Final = 20_000
"""Parties whose refreshes wait to be written; at more they are written at once."""
PUT_AT_ONCE: Final = 2_000
"""Counts that are put in one go, some milliseconds; with so many waiting they are put early."""
MAX_DEVICES: Final = 100_000
"""Devices that are remembered as written; beyond them all are forgotten, and written again when seen."""

_DAY: Final = 0
_DEVICE: Final = 1
_OLD_DEVICES: Final = 2
_DELAYS: Final = 3

STATEMENTS: Final = (
    # Where a commit's failure was reported too late the same row comes again, and its last_at is known.
    """INSERT INTO sign_in_days (party, day, refreshes, first_at, last_at) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (party, day) DO UPDATE SET refreshes = refreshes + excluded.refreshes, last_at = excluded.last_at
        WHERE last_at IS NOT excluded.last_at""",
    """INSERT INTO devices (party, device, named, agent, allow, supported, transport, network, first_seen, last_seen)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (party, device) DO UPDATE SET agent = excluded.agent, allow = excluded.allow,
            supported = excluded.supported, transport = excluded.transport, network = excluded.network,
            last_seen = excluded.last_seen""",
    # A party may have 50; the ones not seen for longest go first.
    """DELETE FROM devices WHERE (party, device) IN (
        SELECT party, device FROM devices WHERE party = ? ORDER BY last_seen DESC
        LIMIT -1 OFFSET 50)""",
    delays.STATEMENT,
)
"""For the writer of ``calls.db``, in this order."""


class _Count:
    """Refreshes of one party in one day that are not written yet."""

    __slots__ = ("first_at", "last_at", "refreshes")

    def __init__(self, at: int) -> None:
        self.refreshes = 0
        self.first_at = at
        self.last_at = at


class ActivityRecords:
    """Puts rows of ``sign_in_days`` and ``devices``; ``first`` is the number of STATEMENTS[0] in the writer's list.

    Times are UNIX milliseconds. ``key`` keys the hash of what names a device.
    """

    def __init__(
        self,
        writer: Sink,
        first: int,
        *,
        key: bytes,
        network: NetworkPrefix,
        max_counted: int = MAX_COUNTED,
        max_devices: int = MAX_DEVICES,
    ) -> None:
        self.refreshes = 0
        """Refreshes counted since the start."""
        self.lost = 0
        """Counts that were given up, because the store did not take them for too long."""
        self.delays = RegistrationDelays(writer.put, first + _DELAYS)
        """How long registrations take."""
        self._put = writer.put
        self._first = first
        self._hash = blake2b(digest_size=12, key=key)
        self._network = network
        self._max_counted = max_counted
        self._early = min(PUT_AT_ONCE, max_counted)
        self._max_devices = max_devices
        self._stamp = Stamp()
        self._day = -1
        self._counts: dict[str, _Count] = {}
        self._seen: dict[tuple[str, str], tuple[int, str | None]] = {}
        self._parties: set[str] = set()

    def refreshed(self, party: str, at: int) -> None:
        """A registration of this party lasts longer and is otherwise as it was."""
        day = at // 86_400_000
        if day != self._day or len(self._counts) >= self._early:
            self._put_days(PUT_AT_ONCE if day == self._day else self._max_counted)
            if day != self._day:
                self.lost += len(self._counts)
                self._counts.clear()
                self._day = day
            elif len(self._counts) >= self._max_counted:
                self.lost += 1
                return
        count = self._counts.get(party)
        if count is None:
            count = self._counts[party] = _Count(at)
        count.refreshes += 1
        count.last_at = at
        self.refreshes += 1

    def flush(self, *, stopping: bool = False) -> None:
        """Put what was counted, to be called every few seconds and at the stop; what the queue does not take waits."""
        self.delays.flush(stopping=stopping)
        self._put_days(self._max_counted if stopping else PUT_AT_ONCE)

    def _put_days(self, most: int) -> None:
        counts, stamp = self._counts, self._stamp
        for party, count in list(islice(counts.items(), most)):
            first_at = stamp(count.first_at) or ""
            row = party, first_at[:10], count.refreshes, first_at, stamp(count.last_at)
            if not self._put(self._first + _DAY, row):
                return
            del counts[party]

    def device(
        self, party: str, instance: str | None, agent: str | None, request: Message, transport: str, host: str, at: int
    ) -> None:
        """A device of this party registered, or lasts longer; ``instance`` is its +sip.instance."""
        name = instance or f"agent {agent}"
        seen = self._seen.get((party, name))
        if seen is not None and seen[1] == agent and abs(at - seen[0]) < SEEN_EVERY_MS:
            return
        if len(self._seen) >= self._max_devices:
            self._seen.clear()
            self._parties.clear()
        self._seen[party, name] = at, agent
        digest = self._hash.copy()
        digest.update(name.encode("utf-8", "replace"))
        when = self._stamp(at)
        self._put(
            self._first + _DEVICE,
            (
                party, digest.hexdigest(), int(instance is not None), printable(agent), _list(request, names.ALLOW),
                _list(request, names.SUPPORTED), transport, self._network(host), when, when,
            ),
        )  # fmt: skip
        if seen is None:
            # Most have one device, and then there is nothing to look for.
            if party in self._parties:
                self._put(self._first + _OLD_DEVICES, (party,))
            self._parties.add(party)


def _list(message: Message, name: str) -> str | None:
    """A list of words, in one order whatever order they came in; None where there is no such header."""
    if not message.has(name):
        return None
    return printable(", ".join(sorted({value for value in message.values(name) if value})))
