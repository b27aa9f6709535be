"""Where log lines go: gathered, written together, and never waited for.

A reader that stops reading a pipe would stop the server if a write waited for it. So a descriptor that
can block is asked first whether it takes more, and gets at most so many bytes as a positive answer
promises; what it does not take waits in a bounded buffer, and beyond that lines are dropped and counted.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Final

PROMISED: Final = 4096
"""Bytes that a pipe or socket which is ready takes without blocking (POSIX: PIPE_BUF on Linux)."""

GATHER: Final = 65_536
"""Bytes at which lines are written without waiting for the end of the batch."""


class LineSink:
    """A file descriptor that lines are written to; it is the caller's to close."""

    def __init__(self, descriptor: int, *, dropped_line: Callable[[int], bytes], max_bytes: int = 4_194_304) -> None:
        self._descriptor = descriptor
        self._dropped_line = dropped_line
        """Makes the line that tells how many lines were lost."""
        self._max_bytes = max_bytes
        # One growing buffer, not a list of lines: keeping hundreds of fresh small objects costs 2 us a line in malloc.
        self._pending = bytearray()
        self._flush_at = GATHER
        self._unreported = 0
        self.dropped = 0
        """Lines that were lost since the start."""
        self.broken = False
        """Whether the last write failed: the reader is gone, the disk is full."""
        self._ready: Callable[[], bool] = lambda: True
        self._chunk = max_bytes
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            self._ready = lambda: bool(poll.poll(0))
            self._chunk = PROMISED

    def write(self, line: bytes) -> None:
        """Take a line, which ends with a newline."""
        if len(self._pending) + len(line) > self._max_bytes:
            self.dropped += 1
            self._unreported += 1
            return
        self._pending += line
        if len(self._pending) >= self._flush_at:
            self.flush()
            # What a slow reader left is not offered to it again with each line.
            self._flush_at = len(self._pending) + GATHER

    @property
    def waiting(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._pending)

    def flush(self) -> None:
        """Write as much as the descriptor takes now."""
        pending = self._pending
        if not pending:
            return
        at = 0
        try:
            with memoryview(pending) as view:
                while at < len(pending) and self._ready():
                    at += os.write(self._descriptor, view[at : at + self._chunk])
            self.broken = False
        except BlockingIOError:
            pass
        except OSError:
            # The server goes on, and tries again with the next lines.
            self.broken = True
        del pending[:at]
        if self._unreported and not pending:
            lost, self._unreported = self._unreported, 0
            pending += self._dropped_line(lost)

    def close(self, patience: float = 1.0) -> None:
        """Write the rest, waiting so many seconds at most for a slow reader."""
        deadline = time.monotonic() + patience
        self.flush()
        while self._pending and not self.broken and time.monotonic() < deadline:
            time.sleep(0.01)
            self.flush()
