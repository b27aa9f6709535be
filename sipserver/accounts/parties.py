"""Parties: the random ids that stand for addresses in the call record.

An id says nothing about its address. Only ``parties`` in ``accounts.db`` connects the two; when that row goes,
nobody can say any more whose calls they were.
"""

from __future__ import annotations

import base64
import os
from functools import partial
from pathlib import Path

from sipserver.accounts.lru import Lru
from sipserver.accounts.schema import utc_now
from sipserver.storage.database import StoreError, connect, explain, sqlite
from sipserver.storage.writer import Writer

INSERT = "INSERT INTO parties (address, party, created_at) VALUES (?, ?, ?) ON CONFLICT (address) DO NOTHING"

STATEMENTS = (INSERT,)
"""What the writer that is given to ``Parties`` has to be made with."""

WARM = 50_000
"""Parties read at the start, in one go (0.05 s and 15 MB for so many); one that is asked for later costs 15 us."""

_MISSING = ""


def new_party() -> str:
    """A random party id: ``p_`` and 80 bits."""
    return "p_" + base64.b32encode(os.urandom(10)).decode("ascii").lower()


def party_of(connection: sqlite.Connection, aor: str) -> str | None:
    """The party that stands for this address, None when it has none."""
    row = connection.execute("SELECT party FROM parties WHERE address = ?", (aor,)).fetchone()
    return None if row is None else str(row[0])


def address_of(connection: sqlite.Connection, party: str) -> str | None:
    """The address that this party stands for, None when nobody knows any more."""
    row = connection.execute("SELECT address FROM parties WHERE party = ?", (party,)).fetchone()
    return None if row is None else str(row[0])


class Parties:
    """Party ids for the running server: remembered, read, and made at first need. Belongs to the loop's thread.

    A new id counts at once and goes to disk through the writer, whose queue keeps it while the store fails.
    """

    def __init__(self, path: Path, writer: Writer, limit: int = 100_000) -> None:
        self.path = path
        self._writer = writer
        self._connection = connect(path, readonly=True)
        self._known: Lru[str, str | None] = Lru(limit)
        self._unwritten: dict[str, str] = {}
        """Made here and not known to be on disk: these outlive a ``refresh``."""
        self._refused: dict[str, str] = {}
        """Of these, what the writer's full queue did not take: put again at the next ``refresh``."""
        # Asked before anything is read, so that what changes meanwhile is noticed.
        self._version = self._data_version()
        self._warm(min(limit, WARM))

    def party(self, aor: str) -> str | None:
        """The party that stands for this address, None when it has none. Raises StoreError when it cannot tell."""
        party = self._known.get(aor, _MISSING)
        if party != _MISSING:
            return party
        party = self._unwritten.get(aor)
        if party is None:
            try:
                party = party_of(self._connection, aor)
            except UnicodeEncodeError:
                # Half a surrogate pair is in no address of ours.
                return None
            except sqlite.Error as error:
                raise StoreError(explain(self.path, error)) from error
        self._known.put(aor, party)
        return party

    def ensure(self, aor: str) -> str:
        """The party that stands for this address, made if it has none. Raises StoreError when it cannot tell."""
        party = self.party(aor)
        if party is None:
            party = new_party()
            self._unwritten[aor] = party
            self._known.put(aor, party)
            self._write(aor, party)
            self._writer.flush()
        return party

    def address(self, party: str) -> str | None:
        """The address that this party stands for, None when nobody knows. Raises StoreError when it cannot tell."""
        for aor, made in self._unwritten.items():
            if made == party:
                return aor
        try:
            return address_of(self._connection, party)
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error

    def refresh(self) -> bool:
        """Forget what may have changed on disk since the last call; whether anything did. Cheap, never raises."""
        if self._refused:
            refused, self._refused = self._refused, {}
            for aor, party in refused.items():
                self._write(aor, party)
            self._writer.flush()
        try:
            version = self._data_version()
        except StoreError:
            return False
        if version == self._version:
            return False
        self._version = version
        self._known.clear()
        return True

    def close(self) -> None:
        """Close the reading connection."""
        self._connection.close()

    def _warm(self, most: int) -> None:
        try:
            for aor, party in self._connection.execute("SELECT address, party FROM parties LIMIT ?", (most,)):
                self._known.put(aor, party)
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error

    def _write(self, aor: str, party: str) -> None:
        if self._writer.put(0, (aor, party, utc_now())):
            self._writer.on_commit(partial(self._written, aor))
        else:
            self._refused[aor] = party

    def _written(self, aor: str, _committed: bool) -> None:
        """Read from disk from now on: if another process gave this address an id first, that one counts."""
        self._unwritten.pop(aor, None)
        self._known.pop(aor)

    def _data_version(self) -> int:
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error
        assert isinstance(version, int)
        return version
