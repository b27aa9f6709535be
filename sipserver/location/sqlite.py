"""Bindings in memory and in ``location.db``: read from memory, changed on disk first.

    replace ──► writer ──commit──► memory ──► done(True)
                       ──failed──────────────► done(False), nothing changed

A binding that lived by a connection did not outlive the process that held it: at a start it is of no use any more, and
leaves the file in batches (``forget_orphans``).

A start reads the first FIRST_PORTIONS of the file, and the rest while it is in use (``load``, ``location.loading``).

Expired bindings leave memory at once and the file later, in batches; a start skips them. Operators ask for removals
through a table of the file (``location.query``), since only this process knows what is in its memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from sipserver.location.base import EXPIRED_AT_ONCE
from sipserver.location.loading import Loader
from sipserver.location.memory import MemoryLocation
from sipserver.location.rows import to_row
from sipserver.location.schema import MIGRATIONS, PRAGMAS, UPSERT
from sipserver.registrar.binding import Binding, Change
from sipserver.sip.errors import SipError
from sipserver.storage.database import StoreError, connect, explain, sqlite
from sipserver.storage.migrations import open_store, transaction
from sipserver.storage.writer import Row, Writer

_DELETE: Final = 0
_EXPIRE: Final = 1
_UPSERT: Final = 2
_DONE: Final = 3
_FORGET: Final = 4
STATEMENTS: Final = (
    # Before the insertion: what takes a binding's place may have its key.
    "DELETE FROM bindings WHERE aor = ? AND key = ?",
    # Not a binding that was made since under the same key.
    "DELETE FROM bindings WHERE aor = ? AND key = ? AND expires_at <= ?",
    UPSERT,
    "DELETE FROM removals WHERE id = ?",
    # Not the binding that an endpoint made when it came back.
    "DELETE FROM bindings WHERE aor = ? AND key = ? AND registered_at = ?",
)
"""What the writer of ``location.db`` is made with."""

_REMOVALS: Final = "SELECT aor, key, requested_at FROM removals"
_APPLY_REMOVAL: Final = "DELETE FROM bindings WHERE aor = ? AND key = ? AND registered_at <= ?"
_REMOVALS_AT_ONCE: Final = 100
_DELETE_EXPIRED: Final = """
    DELETE FROM bindings WHERE (aor, key) IN (SELECT aor, key FROM bindings WHERE expires_at <= ? LIMIT ?)
"""
"""The others are met when they are read."""
_EXPIRED_AT_START: Final = 10_000
FIRST_PORTIONS: Final = 40
"""What is read before the start goes on: all of it, where there are not thousands."""

Removed = Callable[[Sequence[Binding]], None]


def _ignore(_binding: Binding) -> None:
    """Nobody wants to know."""


class SqliteLocation(MemoryLocation):
    """A ``Location`` that survives the process. Raises StoreError where the file cannot be used.

    ``now`` is UNIX time in seconds: what has expired by then is of no use. ``max_rows`` bounds the rows that wait for
    the disk; more changes are told False. ``on_removed`` is called with what operators removed. The
    other options are those of ``storage.writer.Writer``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        now: float,
        call_soon: Callable[[Callable[[], None]], object],
        max_rows: int = 100_000,
        interval: float = 0.004,
        synchronous: str = "FULL",
        on_state: Callable[[bool, str], None] | None = None,
        on_poison: Callable[[int, Row, str], None] | None = None,
        on_removed: Removed | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self._orphans: deque[Binding] = deque()
        """Of the last process, and only in the file."""
        self._expired: deque[Binding] = deque()
        """Gone from memory, or never in it, and not yet from the file."""
        self.on_loaded: Callable[[Binding], None] = _ignore
        """Called with every binding that comes into memory from the file."""
        self._began = now
        self._prepare(now)
        self._max_rows = max_rows
        self._waiting = 0
        """Rows that were put and not called back for."""
        self._on_removed = on_removed
        self._removing: set[int] = set()
        self._version = -1
        self.poll_failures = 0
        """How often removals could not be read."""
        self.load_failures = 0
        """How often a portion could not be read."""
        # Never full, so that a group of rows is never taken in part: each row has one callback at most.
        self.writer = Writer(
            self.path, STATEMENTS, call_soon=call_soon, keep_failed=False, max_rows=2 * max_rows, interval=interval,
            on_state=on_state, on_poison=on_poison, synchronous=synchronous, pragmas=PRAGMAS,
        )  # fmt: skip
        self._reader = connect(self.path, readonly=True)
        self._loader: Loader | None = Loader(self._reader)
        for _ in range(FIRST_PORTIONS):
            self.load()

    @property
    def is_loading(self) -> bool:
        """Whether there is something in the file that is not in memory."""
        return self._loader is not None

    def load(self) -> bool:
        """Read another portion; whether there is more to be read now. What cannot be read is tried again next time."""
        loader = self._loader
        if loader is None:
            return False
        try:
            groups = loader.take_next()
        except sqlite.Error:
            self.load_failures += 1
            return False
        for group in groups:
            self._take_in(group)
        if loader.is_done:
            self._loader = None
        return self._loader is not None

    def get(self, aor: str, now: float) -> tuple[Binding, ...]:
        """See ``Location.get``."""
        if self._loader is not None:
            self._read(aor)
        return super().get(aor, now)

    def replace(self, aor: str, changes: Sequence[Change], done: Callable[[bool], None]) -> None:
        """See ``Location.replace``."""
        rows: list[tuple[int, Row]] = []
        for change in changes:
            before, after = change.before, change.after
            if before is not None and (after is None or after.key != before.key):
                rows.append((_DELETE, (aor, before.key)))
            if after is not None:
                rows.append((_UPSERT, to_row(after)))
        if not self._put(rows, partial(self._replaced, aor, changes, done)):
            done(False)

    def expire(self, now: float, limit: int = EXPIRED_AT_ONCE) -> list[Binding]:
        """See ``Location.expire``."""
        gone = super().expire(now, limit)
        self._expired.extend(gone)
        batch = [self._expired.popleft() for _ in range(min(len(self._expired), EXPIRED_AT_ONCE))]
        rows: list[tuple[int, Row]] = [(_EXPIRE, (each.aor, each.key, each.expires_at)) for each in batch]
        if rows and not self._put(rows, partial(self._deleted, batch)):
            self._expired.extendleft(reversed(batch))
        elif self._expired:
            self.is_behind = True
        return gone

    def forget_orphans(self, told: Callable[[list[Binding]], None]) -> bool:
        """Take some of the bindings out of the file whose connection the last process held; whether there are more.

        ``told`` is called with them when that is durable; what has expired meanwhile needs no word.
        """
        batch = [self._orphans.popleft() for _ in range(min(len(self._orphans), EXPIRED_AT_ONCE))]
        rows: list[tuple[int, Row]] = [(_FORGET, (each.aor, each.key, each.registered_at)) for each in batch]
        if rows and not self._put(rows, partial(self._forgotten, batch, told)):
            self._orphans.extendleft(reversed(batch))
            return False
        return bool(self._orphans)

    def poll_removals(self) -> None:
        """Carry out what operators asked for; called once a second. Costs a few microseconds where there is nothing."""
        try:
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return
            requests = self._reader.execute(
                "SELECT id, aor, key, requested_at FROM removals ORDER BY id LIMIT ?", (_REMOVALS_AT_ONCE,)
            ).fetchall()
        except sqlite.Error:
            # The writer tells of a store that does not work; whoever asked sees that nothing happens.
            self.poll_failures += 1
            return
        # Each change of the file gives it another version, also ours when a removal is done.
        self._version = version
        for number, aor, key, requested_at in requests:
            if number not in self._removing:
                self._begin_removal(number, aor, key, requested_at)

    @property
    def pending(self) -> int:
        """Rows whose fate nobody was told yet: while there are some, answers wait."""
        return self._waiting

    def flush(self) -> None:
        """See ``Location.flush``."""
        self.writer.flush()

    def stop_reading(self) -> None:
        """Close the reading connection: what is only in the file stays there, and asking for it raises StoreError.

        To be called by the thread that reads. A connection that is closed under a query takes the process with it.
        """
        self._reader.close()

    def close(self) -> int:
        """See ``Location.close``."""
        self.stop_reading()
        return self.writer.close()

    def _put(self, rows: Sequence[tuple[int, Row]], done: Callable[[int, bool], None]) -> bool:
        """Give the rows to the writer, all or none. ``done`` is called with their number and what became of them."""
        count = len(rows)
        if self._waiting + count > self._max_rows:
            self.writer.refused += count
            return False
        for statement, row in rows:
            # A writer that is closing takes none of them, from the first on.
            if not self.writer.put(statement, row):
                return False
        self._waiting += count
        self.writer.on_commit(partial(done, count))
        return True

    def _replaced(
        self, aor: str, changes: Sequence[Change], done: Callable[[bool], None], count: int, committed: bool
    ) -> None:
        self._waiting -= count
        if committed:
            self._apply(aor, changes)
        done(committed)
        # What was resumed by this may have put rows, and no message need follow that would have them flushed.
        self.flush()

    def _deleted(self, batch: list[Binding], count: int, committed: bool) -> None:
        self._waiting -= count
        if not committed:
            self._expired.extendleft(reversed(batch))

    def _forgotten(
        self, batch: list[Binding], told: Callable[[list[Binding]], None], count: int, committed: bool
    ) -> None:
        self._waiting -= count
        if committed:
            told(batch)
        else:
            self._orphans.extendleft(reversed(batch))

    def _begin_removal(self, number: int, aor: str, key: str, requested_at: float) -> None:
        go_on = partial(self._remove, number, aor, key, requested_at)
        self._removing.add(number)
        try:
            if self.acquire(aor, go_on):
                go_on()
        except SipError:
            self._removing.discard(number)
            self._version = -1

    def _remove(self, number: int, aor: str, key: str, requested_at: float) -> None:
        """Carry out one request for an address that is held."""
        try:
            if self._loader is not None:
                self._read(aor)
        except StoreError:
            self._removed(number, aor, [], 0, False)
            return
        # What was registered after the request is not meant by it.
        bindings = self._bindings.part(aor).get(aor, ())
        found = [each for each in bindings if each.key == key and each.registered_at <= requested_at]
        rows: list[tuple[int, Row]] = [(_DELETE, (aor, key)) for _ in found]
        rows.append((_DONE, (number,)))
        if not self._put(rows, partial(self._removed, number, aor, found)):
            self._removed(number, aor, found, 0, False)
        self.flush()

    def _removed(self, number: int, aor: str, found: list[Binding], count: int, committed: bool) -> None:
        self._waiting -= count
        self._removing.discard(number)
        if committed:
            self._apply(aor, [Change(each, None) for each in found])
            if found and self._on_removed is not None:
                self._on_removed(found)
        else:
            # Look again, though nothing in the file may have changed.
            self._version = -1
        self.release(aor)

    def _prepare(self, now: float) -> None:
        """Bring the file up to date, and count what is in it."""
        connection = open_store(self.path, MIGRATIONS, pragmas=PRAGMAS)
        try:
            with transaction(connection):
                connection.executemany(_APPLY_REMOVAL, connection.execute(_REMOVALS).fetchall())
                connection.execute("DELETE FROM removals")
                connection.execute(_DELETE_EXPIRED, (now, _EXPIRED_AT_START))
            (self.count,) = connection.execute("SELECT count(*) FROM bindings WHERE expires_at > ?", (now,)).fetchone()
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error
        finally:
            connection.close()

    def _read(self, aor: str) -> None:
        """Have this address in memory. Raises StoreError."""
        loader = self._loader
        if loader is None or not loader.is_missing(aor):
            return
        try:
            group = loader.take(aor)
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error
        self._take_in(group)

    def _take_in(self, group: list[Binding]) -> None:
        """Keep what was read of an address, and see to what is of no use any more."""
        kept = []
        for binding in group:
            if binding.expires_at <= self._began:
                self._expired.append(binding)
            elif binding.is_connected:
                self._orphans.append(binding)
                self.count -= 1
            else:
                kept.append(binding)
        if kept:
            self._put_in(kept)
            for binding in kept:
                self.on_loaded(binding)
