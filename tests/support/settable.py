"""A server whose wall clock a test can set: setting the machine's own would set it for everybody on it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from support.server import ServerProcess

_START = """
import sys, time
from pathlib import Path
ahead, real = Path(sys.argv.pop(1)), time.time
# The file is read first: it may take its time.
time.time = lambda: float(ahead.read_text()) + real()
from sipserver.cli.main import main
main()
"""


class SettableServer(ServerProcess):
    """A ``ServerProcess`` whose wall clock is ahead of the real one by what stands in a file."""

    def __init__(self, folder: Path, users: Iterable[str] = (), *, config: str = "", port: int = 0) -> None:
        super().__init__(folder, users, config=config, port=port)
        self.ahead = folder / "ahead"
        self.ahead.write_text("0")

    def program(self) -> list[str]:
        """What is run, without its arguments."""
        return [sys.executable, "-c", _START, str(self.ahead)]

    def set_clock(self, ahead: float) -> None:
        """Set the clock, and wait until the server has noticed, which it does within a second."""
        before = self._steps()
        aside = self.folder / "ahead.new"
        aside.write_text(str(ahead))
        aside.replace(self.ahead)
        with self._arrived:
            noticed = self._arrived.wait_for(lambda: self._steps() > before, 15.0)
        assert noticed, self.log_text

    def _steps(self) -> int:
        return sum(event["event"] == "clock.stepped" for event in self.events)
