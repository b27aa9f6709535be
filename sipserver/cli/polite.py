"""Standing back: what reads a server's store beside it gets what is left of the processors.

``SCHED_IDLE`` is more than a high nice value. Whoever wakes up takes the processor from such a thread at once instead
of when its turn is over, so the loop and the writers of a server do not wait behind a report. The kernel takes input
and output of such threads last as well, where its scheduler knows classes.
"""

from __future__ import annotations

import contextlib
import os

NICE = 10
"""Where there is no such policy."""


def stand_back() -> None:
    """Let everybody else go first, from here on; threads and processes that are started later take after this one."""
    # Where a container forbids it, a report is as quick as anybody.
    with contextlib.suppress(OSError):
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(NICE)
