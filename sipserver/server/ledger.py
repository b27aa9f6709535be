"""Whether every call that was placed is accounted for: in memory, in the queue, and in the store itself.

    placed = closed + open + ends that wait for room + lost            what the recorder counts
    placed - lost = stored + waiting + set aside                       rows of calls, by the writer
    closed = ends stored + ends waiting + ends set aside               the ends of calls, by the writer
    stored = rows in calls.db that this run made                       by the store, asked through another connection

The first is about this program, the second and third about the way to the disk, the last about what is there. The
store is asked while rows go on arriving, so its figures have to lie between those of before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sipserver.calls.faults import STORE
from sipserver.calls.recorder import CALL_ROW, END_ROW, Recorder
from sipserver.storage.database import StoreError, connect, sqlite
from sipserver.storage.writer import Writer
from sipserver.telemetry.log import Log

_STORE = "SELECT (SELECT coalesce(max(rowid), 0) FROM calls), (SELECT count(*) FROM calls WHERE ended_at IS NULL)"


@dataclass(slots=True)
class _Books:
    """Rows of calls and of their ends, as the writer counts them."""

    stored: int
    waiting: int
    set_aside: int
    ends_stored: int
    ends_waiting: int
    ends_set_aside: int


class Ledger:
    """Looks every few seconds; an alarm is logged once, and once more when the sum is right again."""

    def __init__(self, recorder: Recorder, writer: Writer, path: Path, calls_before: int, log: Log) -> None:
        self._recorder = recorder
        self._writer = writer
        self._path = path
        self._calls_before = calls_before
        self._log = log
        self._connection: sqlite.Connection | None = None
        self.unaccounted = 0
        """Calls that one of the sums above missed when it was last looked at; 0 is how it should be."""
        self.waiting = 0
        """Rows of calls that were not committed then."""
        self.stored = 0
        """Rows of calls that this run had committed then."""
        self.set_aside = 0
        """Rows of calls that can never be written."""

    def look(self, at: int) -> None:
        """Add up. ``at`` is UNIX time in milliseconds."""
        recorder = self._recorder
        before = self._books()
        rows = self._rows()
        books = self._books()
        self.stored, self.waiting, self.set_aside = books.stored, books.waiting, books.set_aside
        counted = recorder.closed + recorder.open + recorder.ends_waiting + recorder.lost
        written = books.stored + books.waiting + books.set_aside
        ended = books.ends_stored + books.ends_waiting + books.ends_set_aside
        missing = [recorder.placed - counted, recorder.placed - recorder.lost - written, recorder.closed - ended]
        if rows is not None:
            missing += _outside(rows, before, books)
        found = max(map(abs, missing))
        if found and not self.unaccounted:
            self._log.error(
                "calls.unaccounted", calls=found, placed=recorder.placed, closed=recorder.closed, open=recorder.open,
                lost=recorder.lost, stored=books.stored, waiting=books.waiting, set_aside=books.set_aside,
                rows=rows[0] if rows is not None else None, rows_open=rows[1] if rows is not None else None,
            )  # fmt: skip
            recorder.error(at=at, kind=STORE, detail=f"{found} calls are not accounted for")
        elif self.unaccounted and not found:
            self._log.info("calls.accounted", placed=recorder.placed, stored=books.stored, waiting=books.waiting)
        self.unaccounted = found

    def close(self) -> None:
        """Close the reading connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _books(self) -> _Books:
        return _Books(*self._writer.tally(CALL_ROW), *self._writer.tally(END_ROW))

    def _rows(self) -> tuple[int, int] | None:
        """This run's rows of calls, and how many calls are open there; None while the store cannot be read."""
        try:
            if self._connection is None:
                self._connection = connect(self._path, readonly=True, busy_timeout=0.01)
            last, open_ = self._connection.execute(_STORE).fetchone()
        except (StoreError, sqlite.Error):
            # The writer tells of a store that fails.
            self.close()
            return None
        return last - self._calls_before, open_


def _outside(rows: tuple[int, int], before: _Books, after: _Books) -> list[int]:
    """How far the rows in the store, and those of open calls, are from what they may be."""
    stored, open_ = rows
    least = before.stored - after.ends_stored - after.ends_waiting
    most = after.stored + after.waiting - before.ends_stored
    return [
        max(before.stored - stored, stored - after.stored - after.waiting, 0),
        max(least - open_, open_ - most, 0),
    ]
