"""Bindings in memory and in ``location.db``: read from memory, changed on disk first.

    replace ──► writer ──commit──► memory ──► done(True)
                       ──failed──────────────► done(False), nothing changed

A binding that lived by a connection did not outlive the process that held it: at a start it is of no use any more, and
leaves the file in batches (``forget_orphans``).

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
from sipserver.location.memory import MemoryLocation
from sipserver.location.schema import MIGRATIONS, PRAGMAS, SELECT, UPSERT, from_row, to_row
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

_APPLY_REMOVALS: Final = """
    DELETE FROM bindings WHERE EXISTS (
        SELECT 1 FROM removals
        WHERE removals.aor = bindings.aor AND removals.key = bindings.key AND registered_at <= requested_at
    )
"""
_REMOVALS_AT_ONCE: Final = 100

Removed = Callable[[Sequence[Binding]], None]


class SqliteLocation(MemoryLocation):
    """A ``Location`` that survives the process. Raises StoreError where the file cannot be used.

    ``now`` is UNIX time in seconds: what has expired by then is not loaded. ``max_rows`` bounds the rows that wait for
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
        self._load(now)
        self._max_rows = max_rows
        self._waiting = 0
        """Rows that were put and not called back for."""
        self._expired: deque[Binding] = deque()
        """Gone from memory and not yet from the file."""
        self._on_removed = on_removed
        self._removing: set[int] = set()
        self._version = -1
        self.poll_failures = 0
        """How often removals could not be read."""
        # Never full, so that a group of rows is never taken in part: each row has one callback at most.
        self.writer = Writer(
            self.path, STATEMENTS, call_soon=call_soon, keep_failed=False, max_rows=2 * max_rows, interval=interval,
            on_state=on_state, on_poison=on_poison, synchronous=synchronous, pragmas=PRAGMAS,
        )  # fmt: skip
        self._reader = connect(self.path, readonly=True)

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
        return gone

    def forget_orphans(self, told: Callable[[list[Binding]], None]) -> None:
        """Take bindings out of the file whose connection the last process held; once a second, some at a time.

        ``told`` is called with them when that is durable; what has expired meanwhile needs no word.
        """
        batch = [self._orphans.popleft() for _ in range(min(len(self._orphans), EXPIRED_AT_ONCE))]
        rows: list[tuple[int, Row]] = [(_FORGET, (each.aor, each.key, each.registered_at)) for each in batch]
        if rows and not self._put(rows, partial(self._forgotten, batch, told)):
            self._orphans.extendleft(reversed(batch))

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

    def close(self) -> int:
        """See ``Location.close``."""
        self._reader.close()
        return self.writer.close()

    def _put(self, rows: Sequence[tuple[int, Row]], done: Callable[[int, bool], None]) -> bool:
        """Give the rows to the writer, all or none. ``done`` is called with their number and what became of them."""
        count = len(rows)
        if self._waiting + count > self._max_rows:
            self.writer.refused += count
            return False
        # A writer that is closing takes none of them, from the first on.
        if not all(self.writer.put(statement, row) for statement, row in rows):
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
        # What was registered after the request is not meant by it.
        found = [each for each in self._bindings.get(aor, ()) if each.key == key and each.registered_at <= requested_at]
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

    def _load(self, now: float) -> None:
        """Bring the file up to date and read it."""
        connection = open_store(self.path, MIGRATIONS, pragmas=PRAGMAS)
        try:
            with transaction(connection):
                connection.execute(_APPLY_REMOVALS)
                connection.execute("DELETE FROM removals")
                connection.execute("DELETE FROM bindings WHERE expires_at <= ?", (now,))
            # Thousands of endpoints say the same of themselves: one copy is enough.
            agents: dict[str | None, str | None] = {}
            for row in connection.execute(f"{SELECT} ORDER BY aor, registered_at DESC"):
                binding = from_row(row)
                binding.user_agent = agents.setdefault(binding.user_agent, binding.user_agent)
                if binding.is_connected:
                    self._orphans.append(binding)
                else:
                    self._add(binding)
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error
        finally:
            connection.close()
