"""Ports that are free on loopback, over UDP and TCP alike, and stay this process' own as long as it runs."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

BLOCK = 100
"""So many ports are claimed at once: a port that was given may be bound much later, or let go and bound again,
and no other process that runs tests may be given it in between."""

_random = random.Random(os.getpid())
_claims: dict[int, socket.socket] = {}
"""First port of a block, and the abstract address that says to others that it is taken; the kernel gives it back
when this process ends, however it does."""
_refused: set[int] = set()
_given: set[int] = set()


def free_port(together: int = 1, between: tuple[int, int] = (12_000, 30_000)) -> int:
    """The first of so many free ports in a row, an even one, never given before by this or another process.

    The range is below that which the kernel gives to outgoing connections.
    """
    blocks = list(range(between[0], between[1] - BLOCK + 1, BLOCK))
    _random.shuffle(blocks)
    blocks.sort(key=lambda block: block not in _claims)
    for block in blocks:
        if not _claimed(block):
            continue
        for first in range(block + block % 2, block + BLOCK - together + 1, 2):
            wanted = range(first, first + together)
            if not _given.intersection(wanted) and all(map(_is_free, wanted)):
                _given.update(wanted)
                return first
    raise AssertionError("no free port on loopback")


def _claimed(block: int) -> bool:
    if block in _claims:
        return True
    if block in _refused:
        return False
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0sipserver tests: ports {block} to {block + BLOCK - 1}")
    except OSError:
        claim.close()
        _refused.add(block)
        return False
    _claims[block] = claim
    return True


def _is_free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
