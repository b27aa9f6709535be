"""The one writer of a database file: rows in, one synced transaction for many of them, answers released.

    put, put, on_commit ─► gathered ──flush──► ready ──thread──► BEGIN … rows … COMMIT ──► callbacks

The loop's side only appends to a list and swaps lists. The thread sleeps until rows are ready, takes all that
there are, and writes them in one transaction; what is flushed meanwhile makes the next one, so that a batch is as
large as the load wants it. Commits begin at least ``interval`` apart.

Rows are accounted for in *groups*: what was put since the last ``on_commit``. When a row itself is at fault (a
constraint, a value of the wrong type) the batch is written again in small steps, to set the bad row aside and
lose nothing else; the callbacks of its group get False, those of other groups True.

What happens when the store fails (disk full, locked, read-only) is the owner's choice:

    keep_failed=False   the batch is dropped, its callbacks get False: nothing may look done that is not (bindings)
    keep_failed=True    the rows stay first in the queue and are tried again with growing pauses, their callbacks
                        get True once they are written (call records)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from sipserver.storage.batch import BatchStatement
from sipserver.storage.database import StoreError, connect, error_code, explain, sqlite

Row = tuple[Any, ...]
Entry = tuple[int, Any]
"""A statement's index and its row, or CALLBACK and a callback."""

_Step = tuple[int, list[Entry]]
"""The number of a group, and rows of it that are written together or not at all."""

_Fault = tuple[_Step, int, Row, str]
"""What was not written, and why: the statement, the row at fault, a sentence."""

CALLBACK = -1

BUSY_TIMEOUT = 0.15
"""Seconds to wait for another process's transaction: below the 200 ms that an answer waits for its row."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds between attempts while the store fails; the pause doubles from the first to the longest."""

CLOSING_TIME = 5.0
"""Seconds that ``close`` gives the rows which are still to be written."""

# What sqlite3 raises for a row it cannot take. The last three come from converting a value.
_BAD_ROW = (
    sqlite.IntegrityError,
    sqlite.ProgrammingError,
    sqlite.InterfaceError,
    sqlite.DataError,
    OverflowError,
    TypeError,
    ValueError,
)

_BUSY, _LOCKED, _FULL = 5, 6, 13


class Writer:
    """Writes rows of fixed statements to one database file, from one thread, in group commits.

    ``statements`` run in this order inside each transaction, each over its rows in the order they were put.
    ``call_soon`` brings a call to the loop's thread (``loop.call_soon_threadsafe``); callbacks, ``on_state`` and
    ``on_poison`` come that way. ``on_state(working, sentence)`` tells of each change between working and failing,
    ``on_poison(statement, row, sentence)`` of each row that was set aside.

    A commit whose sync failed may turn out to have happened: where failed rows are kept, an INSERT should say
    ``ON CONFLICT DO NOTHING``, or its second attempt is taken for a bad row.

    Raises StoreError where the file cannot be opened. All methods belong to the loop's thread.
    """

    def __init__(
        self,
        path: Path | str,
        statements: Sequence[str],
        *,
        call_soon: Callable[[Callable[[], None]], object],
        keep_failed: bool,
        max_rows: int = 100_000,
        interval: float = 0.004,
        on_state: Callable[[bool, str], None] | None = None,
        on_poison: Callable[[int, Row, str], None] | None = None,
        synchronous: str = "FULL",
        mode: int = 0o600,
        pragmas: Mapping[str, int | str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.rows_written = 0
        """Rows in committed transactions."""
        self.commits = 0
        self.failed_commits = 0
        """Transactions that the store refused."""
        self.refused = 0
        """Rows not taken because the queue was full or closed."""
        self.poisoned = 0
        """Rows set aside because they cannot be written at all."""
        self.failing = False
        """Whether the store refused the last transaction."""
        self._statements = tuple(map(BatchStatement, statements))
        self._call_soon = call_soon
        self._keep_failed = keep_failed
        self._max_rows = max_rows
        self._interval = interval
        self._on_state = on_state
        self._on_poison = on_poison
        self._connect = partial(
            connect,
            self.path,
            mode=mode,
            synchronous=synchronous,
            busy_timeout=BUSY_TIMEOUT,
            checkpoint=True,
            pragmas=dict(pragmas or {}),
        )
        # The loop's side.
        self._gathered: list[Entry] = []
        self._room = max_rows
        # Shared, under the lock, which the condition has as well: taken by itself it costs a fraction.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ready: list[Entry] = []
        self._in_flight: list[Entry] = []
        self._stored = [0] * len(self._statements)
        self._set_aside = [0] * len(self._statements)
        self._asleep = False
        self._closing_at: float | None = None
        # The thread's side.
        self._connection: sqlite.Connection | None = self._connect()
        self._prepared: sqlite.Connection | None = None
        self._open_group_failed = False
        self._worker = threading.Thread(target=self._run, name=f"writer-{self.path.stem}", daemon=True)
        self._worker.start()

    # ---- the loop's side

    def put(self, statement: int, row: Row) -> bool:
        """Queue a row for the statement with this index; False when the queue is full (counted in ``refused``)."""
        if len(self._gathered) >= self._room:
            self.refused += 1
            return False
        self._gathered.append((statement, row))
        return True

    def on_commit(self, callback: Callable[[bool], None]) -> None:
        """Call back once everything put so far is committed (True), or will not be (False)."""
        self._gathered.append((CALLBACK, callback))

    def flush(self) -> None:
        """Hand over what was gathered. Cheap when there is nothing."""
        if not self._gathered:
            return
        if self._closing_at is not None:
            # Only callbacks can have come since: their rows were refused.
            self._to_loop(partial(self._call_each, self._failures(self._gathered)))
            self._gathered = []
            return
        with self._lock:
            if self._ready:
                self._ready.extend(self._gathered)
            else:
                self._ready = self._gathered
            self._gathered = []
            self._room = self._free()
            if self._asleep:
                self._changed.notify()

    @property
    def gathered(self) -> bool:
        """Whether anything was put and not handed over by ``flush``."""
        return bool(self._gathered)

    @property
    def pending(self) -> int:
        """Rows and callbacks that are neither committed nor given up."""
        return len(self._gathered) + len(self._ready) + len(self._in_flight)

    def tally(self, statement: int) -> tuple[int, int, int]:
        """Rows of one statement since the start, as of one moment: committed, waiting, set aside."""
        with self._lock:
            waiting = sum(
                1
                for entries in (self._gathered, self._ready, self._in_flight)
                for each, _ in entries
                if each == statement
            )
            return self._stored[statement], waiting, self._set_aside[statement]

    def close(self) -> int:
        """Write what is pending, checkpoint and stop; how many rows could not be written within CLOSING_TIME.

        Blocks. Callbacks still come through ``call_soon``, so they run only if the loop goes on.
        """
        with self._lock:
            if self._closing_at is None:
                self._closing_at = monotonic() + CLOSING_TIME
            self._ready.extend(self._gathered)
            self._gathered = []
            self._room = 0
            self._changed.notify()
        # The thread looks at its deadline between attempts: one may still be under way when the time is up.
        self._worker.join(CLOSING_TIME + 1.0)
        with self._lock:
            return sum(1 for statement, _ in self._in_flight + self._ready if statement != CALLBACK)

    def _free(self) -> int:
        """How many more entries may be gathered; call with the lock held."""
        return 0 if self._closing_at is not None else self._max_rows - len(self._ready) - len(self._in_flight)

    @staticmethod
    def _failures(entries: list[Entry]) -> list[tuple[Callable[[bool], None], bool]]:
        return [(item, False) for statement, item in entries if statement == CALLBACK]

    # ---- the thread's side

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            # A fault of our own: without the thread nothing can be written, so nothing more is taken.
            with self._lock:
                self._closing_at = monotonic()
                self._room = 0
                self.failing = True
                waiting = self._failures(self._in_flight + self._ready)
            self._tell_state(False, f"{self.path}: the writer ended: {error!r}")
            self._to_loop(partial(self._call_each, waiting))
            raise
        finally:
            self._close_connection()

    def _work(self) -> None:
        """Write batches until the writer is closed and there is nothing left, or no time."""
        began = -self._interval
        pause = 0.0
        while self._wait_for_work():
            self._sleep(max(began + self._interval - monotonic(), pause))
            began = monotonic()
            entries = self._take()
            error = self._attempt(entries)
            if error is None:
                pause = 0.0
                continue
            self.failed_commits += 1
            self._report(error)
            if self._keep_failed:
                pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
                self._put_back(entries)
                if self._out_of_time():
                    break
            else:
                self._give_up(entries)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to write; False when there is nothing and never will be."""
        with self._lock:
            while not self._ready:
                if self._closing_at is not None:
                    return False
                self._asleep = True
                self._changed.wait()
                self._asleep = False
            return True

    def _sleep(self, seconds: float) -> None:
        """Let rows gather; cut short when the writer closes, and short between its last attempts."""
        if seconds <= 0:
            return
        until = monotonic() + seconds
        with self._lock:
            while self._closing_at is None and (left := until - monotonic()) > 0:
                self._changed.wait(left)
            if self._closing_at is not None and self.failing:
                self._changed.wait(min(FIRST_PAUSE, max(self._closing_at - monotonic(), 0)))

    def _out_of_time(self) -> bool:
        return self._closing_at is not None and monotonic() >= self._closing_at

    def _take(self) -> list[Entry]:
        with self._lock:
            entries, self._ready = self._ready, []
            self._in_flight = entries
            return entries

    def _put_back(self, entries: list[Entry]) -> None:
        with self._lock:
            entries.extend(self._ready)
            self._ready = entries
            self._in_flight = []

    def _finished(self, stored: Sequence[list[Row]] = (), aside: Sequence[int] = ()) -> None:
        """The batch in flight is done with: rows by statement that were committed, and statements of rows set aside."""
        with self._lock:
            for statement, rows in enumerate(stored):
                self._stored[statement] += len(rows)
            for statement in aside:
                self._set_aside[statement] += 1
                self._stored[statement] -= 1
            self._in_flight = []
            self._room = self._free()

    # ---- one batch

    def _attempt(self, entries: list[Entry]) -> Exception | None:
        """Write the batch and release its callbacks; the error when the store refuses it."""
        lists: list[list[Row]] = [[] for _ in self._statements]
        callbacks: list[Callable[[bool], None]] = []
        for statement, item in entries:
            if statement == CALLBACK:
                callbacks.append(item)
            else:
                lists[statement].append(item)
        rows = len(entries) - len(callbacks)
        if rows and (error := self._write(lists)) is not None:
            if not isinstance(error, _BAD_ROW):
                return error
            return self._attempt_in_steps(entries, lists)
        self._committed(rows, lists)
        if self._open_group_failed:
            # The batch before this ended inside a group and failed: the group's callback may not say otherwise.
            self._open_group_failed = False
            self._release_groups(entries, bad={0})
        elif callbacks:
            self._to_loop(partial(self._call_each, [(callback, True) for callback in callbacks]))
        return None

    def _write(self, lists: list[list[Row]]) -> Exception | None:
        """One transaction; the error when it was rolled back."""
        try:
            connection = self._prepared_connection()
            connection.execute("BEGIN IMMEDIATE")
            self._run_all(connection, lists)
            connection.execute("COMMIT")
        except (sqlite.Error, StoreError, *_BAD_ROW) as error:
            self._roll_back(error)
            return error
        return None

    def _attempt_in_steps(self, entries: list[Entry], lists: list[list[Row]]) -> Exception | None:
        """Write a batch that holds bad rows, leaving these out; the error when the store refuses it.

        Where failed rows are kept each other row is written; where they are dropped a group is written whole
        or not at all, since its owner was promised that nothing changes when the callback says False.
        """
        groups = _groups(entries)
        steps: list[_Step] = list(enumerate(groups))
        if self._keep_failed:
            rows = [(number, [row]) for number, group in steps for row in group]
            steps = sorted(rows, key=lambda step: step[1][0][0])
        try:
            connection = self._prepared_connection()
            connection.execute("BEGIN IMMEDIATE")
            faults = self._write_steps(connection, steps)
            connection.execute("COMMIT")
        except (sqlite.Error, StoreError) as error:
            self._roll_back(error)
            return error
        aside = [statement for (_, rows), *_ in faults for statement, _ in rows]
        self._committed(sum(map(len, groups)) - len(aside), lists, aside)
        self.poisoned += len(faults)
        if self._on_poison is not None:
            for _, statement, row, sentence in faults:
                self._to_loop(partial(self._on_poison, statement, row, sentence))
        bad = {number for (number, _), *_ in faults}
        if self._open_group_failed:
            bad.add(0)
        self._release_groups(entries, bad)
        self._open_group_failed = entries[-1][0] != CALLBACK and len(groups) - 1 in bad
        return None

    def _write_steps(self, connection: sqlite.Connection, steps: list[_Step]) -> list[_Fault]:
        """Write all but the steps with a bad row, which it finds by halves; lets errors of the store through."""
        lists: list[list[Row]] = [[] for _ in self._statements]
        for _, rows in steps:
            for statement, row in rows:
                lists[statement].append(row)
        connection.execute("SAVEPOINT step")
        fault: tuple[int, Row, str] | None = None
        try:
            if len(steps) == 1:
                # Row by row, to learn which one it is.
                fault = self._run_rows(connection, lists)
            else:
                self._run_all(connection, lists)
        except _BAD_ROW:
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")
            half = len(steps) // 2
            return self._write_steps(connection, steps[:half]) + self._write_steps(connection, steps[half:])
        if fault is not None:
            connection.execute("ROLLBACK TO step")
        connection.execute("RELEASE step")
        return [] if fault is None else [(steps[0], *fault)]

    def _run_all(self, connection: sqlite.Connection, lists: list[list[Row]]) -> None:
        for statement, rows in zip(self._statements, lists, strict=True):
            if rows:
                statement.run(connection, rows)

    def _run_rows(self, connection: sqlite.Connection, lists: list[list[Row]]) -> tuple[int, Row, str] | None:
        """The statement, the row and a sentence where a row is bad."""
        for number, rows in enumerate(lists):
            for row in rows:
                try:
                    connection.execute(self._statements[number].sql, row)
                except _BAD_ROW as error:
                    return number, row, f"{type(error).__name__}: {error}"
        return None

    def _committed(self, rows: int, lists: list[list[Row]], aside: Sequence[int] = ()) -> None:
        if rows:
            self.commits += 1
            self.rows_written += rows
            if self.failing:
                self.failing = False
                self._tell_state(True, f"{self.path} is written again")
        self._finished(lists, aside)

    def _give_up(self, entries: list[Entry]) -> None:
        """Tell everyone who waits for this batch that it failed."""
        self._open_group_failed = entries[-1][0] != CALLBACK
        self._finished()
        callbacks = self._failures(entries)
        if callbacks:
            self._to_loop(partial(self._call_each, callbacks))

    def _release_groups(self, entries: list[Entry], bad: set[int]) -> None:
        outcomes = _outcomes(entries, bad)
        if outcomes:
            self._to_loop(partial(self._call_each, outcomes))

    # ---- connection and loop

    def _reconnect(self) -> sqlite.Connection:
        if not self.path.exists():
            # A new, empty file in its place would have no tables and hide that everything else is gone.
            raise StoreError(f"{self.path} is no longer there")
        self._connection = self._connect()
        return self._connection

    def _prepared_connection(self) -> sqlite.Connection:
        connection = self._connection or self._reconnect()
        if connection is not self._prepared:
            for statement in self._statements:
                statement.prepare(connection)
            self._prepared = connection
        return connection

    def _roll_back(self, error: Exception) -> None:
        """Leave no transaction open, and no connection that an I/O error may have left unsure of its file."""
        connection = self._connection
        if connection is None:
            return
        # The error that led here is the one to report, not what follows from it.
        with suppress(sqlite.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, _BAD_ROW) or error_code(error) in {_BUSY, _LOCKED, _FULL}:
                return
        with suppress(sqlite.Error):
            connection.close()
        self._connection = None

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite.Error as error:
                # Nothing is lost: the rows are in the WAL file, and the next start checkpoints it.
                self._tell_state(False, explain(self.path, error))
            connection.close()

    def _report(self, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            self._tell_state(False, str(error) if isinstance(error, StoreError) else explain(self.path, error))

    def _tell_state(self, working: bool, sentence: str) -> None:
        if self._on_state is not None:
            self._to_loop(partial(self._on_state, working, sentence))

    def _call_each(self, outcomes: list[tuple[Callable[[bool], None], bool]]) -> None:
        """Runs on the loop's thread. A callback that raises is the loop's to report, and does not stop the others."""
        done = 0
        try:
            for callback, committed in outcomes:
                done += 1
                callback(committed)
        finally:
            if done < len(outcomes):
                self._to_loop(partial(self._call_each, outcomes[done:]))

    def _to_loop(self, call: Callable[[], None]) -> None:
        # A closed loop raises RuntimeError: nobody is left who could be told.
        with suppress(RuntimeError):
            self._call_soon(call)


def _groups(entries: list[Entry]) -> list[list[Entry]]:
    """The batch's rows, split where a row follows a callback."""
    groups: list[list[Entry]] = [[]]
    closed = False
    for entry in entries:
        if entry[0] == CALLBACK:
            closed = True
            continue
        if closed:
            groups.append([])
            closed = False
        groups[-1].append(entry)
    return groups


def _outcomes(entries: list[Entry], bad: set[int]) -> list[tuple[Callable[[bool], None], bool]]:
    """What each callback is told: False for those of the groups with these numbers."""
    outcomes: list[tuple[Callable[[bool], None], bool]] = []
    number = 0
    closed = False
    for statement, item in entries:
        if statement == CALLBACK:
            outcomes.append((item, number not in bad))
            closed = True
        elif closed:
            number += 1
            closed = False
    return outcomes
