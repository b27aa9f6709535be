"""Ports that are free on loopback, over UDP and TCP alike."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

# Below the range that the kernel gives to outgoing connections, and differently for each process that runs tests.
_candidates = random.Random(os.getpid())
_given: set[int] = set()


def free_port(together: int = 1, between: tuple[int, int] = (12_000, 30_000)) -> int:
    """The first of so many free ports in a row, never given before by this process."""
    for _ in range(1_000):
        first = _candidates.randrange(*between, 2)
        wanted = range(first, first + together)
        if not _given.intersection(wanted) and all(map(_is_free, wanted)):
            _given.update(wanted)
            return first
    raise AssertionError("no free port on loopback")


def _is_free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
