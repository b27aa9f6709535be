"""What is done when everything that had arrived has been looked at: rows and log lines are handed over."""

from __future__ import annotations

import asyncio
from typing import Final

from sipserver.location.sqlite import SqliteLocation
from sipserver.server.gate import CommitGate
from sipserver.server.pressure import Pressure
from sipserver.telemetry.log import Log

LOG_DELAY: Final = 0.05
"""Seconds that a log line may wait for others to be written with it."""


class Handover:
    """The end of each batch of messages, and of whatever else made rows or lines."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Log) -> None:
        self._loop = loop
        self._log = log
        self._lines_wait = False
        self._location: SqliteLocation
        self._gate: CommitGate
        self._pressure: Pressure

    def use(self, location: SqliteLocation, gate: CommitGate, pressure: Pressure) -> None:
        """Who is handed over to; called once, before the first message. They need the timers, which end in this."""
        self._location, self._gate, self._pressure = location, gate, pressure

    def __call__(self) -> None:
        """A batch is over."""
        self._gate.flush()
        self._location.flush()
        if not self._pressure.looking:
            self._pressure.begin()
        if not self._lines_wait and self._log.waiting:
            self._lines_wait = True
            self._loop.call_at(self._loop.time() + LOG_DELAY, self._write_lines)

    def _write_lines(self) -> None:
        self._lines_wait = False
        self._log.flush()
