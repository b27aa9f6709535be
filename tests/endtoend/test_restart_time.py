"""How long a restart takes: measured while nothing else runs (``scripts/test``)."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.server import ServerProcess


def test_restart_serves_within_two_seconds(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("alice")
    server.stop()
    before = time.monotonic()
    server.start()
    assert time.monotonic() - before < 2
