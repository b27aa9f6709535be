"""Answers that wait until the row that says so is on disk (DESIGN: what is acknowledged is on disk)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from sipserver.server.timers import Entry, TimerQueue
from sipserver.server.transactions import ServerTransaction

PATIENCE: Final = 0.2
"""Seconds that the answer of a call waits for its row at most: calls go on when the store does not."""
LINGER: Final = 0.02
"""Seconds that a row which no answer waits for may wait for company: each commit has its price."""


class CommitLog(Protocol):
    """The part of ``storage.writer.Writer`` that is needed here."""

    @property
    def failing(self) -> bool:
        """Whether the store refused the last transaction."""
        ...

    def on_commit(self, callback: Callable[[bool], None], /) -> None:
        """Call back once everything put so far is committed, or will not be."""

    @property
    def gathered(self) -> bool:
        """Whether rows were put and not handed over."""
        ...

    def flush(self) -> None:
        """Hand over what was put."""


class _Batch:
    """The answers of one batch; released by the commit or by the timer, whichever is first."""

    __slots__ = ("answers", "gate", "patience", "released")

    def __init__(self, gate: CommitGate) -> None:
        self.gate = gate
        self.answers: list[tuple[ServerTransaction, int, bytes]] = []
        self.released = 0
        """How many of them have left."""
        self.patience: Entry | None = None
        """The timer."""

    def on_commit(self, committed: bool) -> None:
        self._release()

    def on_timer(self, timer: str) -> None:
        self.gate.released_late += len(self.answers) - self.released
        self._release()

    def _release(self) -> None:
        # One by one: where an answer fails by a fault of ours, the timer still finds those behind it.
        while self.released < len(self.answers):
            transaction, status, data = self.answers[self.released]
            self.released += 1
            transaction.respond(status, data)
        if self.patience is not None:
            self.patience.cancel()


class CommitGate:
    """Holds answers back until the rows put before them are committed, 200 ms at most."""

    def __init__(self, writer: CommitLog, timer_queue: TimerQueue) -> None:
        self._writer = writer
        self._timers = timer_queue
        self._batch: _Batch | None = None
        self._lingering = False
        self.released_late = 0
        """Answers that did not wait any longer for their row."""

    def hold(self, transaction: ServerTransaction, status: int, data: bytes) -> None:
        """Answer once everything that was put into the writer so far is committed."""
        if self._writer.failing:
            # The rows are kept and written when the store is back; the callers need not wait for that.
            self.released_late += 1
            transaction.respond(status, data)
            return
        if self._batch is None:
            self._batch = _Batch(self)
        self._batch.answers.append((transaction, status, data))

    def flush(self) -> None:
        """Hand over what was put; called at the end of each batch of messages.

        Rows that no answer waits for share the next commit, or one of their own after LINGER.
        """
        batch, self._batch = self._batch, None
        if batch is not None:
            self._writer.on_commit(batch.on_commit)
            batch.patience = self._timers.add(PATIENCE, batch, "patience")
            self._writer.flush()
        elif not self._lingering and self._writer.gathered:
            self._lingering = True
            self._timers.add(LINGER, self, "linger")

    def on_timer(self, timer: str) -> None:
        """Rows have lingered for long enough."""
        self._lingering = False
        self._writer.flush()
