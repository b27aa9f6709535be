"""Standing back: what reads a server's store beside it gets what is left of the processors, but never nothing.

``SCHED_IDLE`` is more than a high nice value. Whoever wakes up takes the processor from such a thread at once instead
of when its turn is over, so the loop and the writers of a server do not wait behind a report. The kernel takes input
and output of such threads last as well, where its scheduler knows classes.

On a machine that is busy for long such a thread would hardly run, and whoever asked would wait, and so would the locks
and transactions that it holds. So who has waited for most of some seconds goes on as a nice batch job instead.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

NICE = 10
WATCHED = 4.0
"""Seconds of which most may not be spent waiting for a processor."""
MOST = 0.75

_TASKS = Path("/proc/self/task")


def stand_back() -> None:
    """Let everybody else go first, from here on; threads and processes that are started later take after this one."""
    # Where a container forbids it, a report is as quick as anybody.
    with contextlib.suppress(OSError):
        if not hasattr(os, "SCHED_IDLE"):
            os.nice(NICE)
            return
        # The watch is started first, so that it does not wait itself.
        watch = threading.Thread(target=_watch, args=(threading.get_native_id(),), name="polite", daemon=True)
        watch.start()
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _watch(thread: int) -> None:
    """Let the process have its share once this thread of it has not."""
    waited = waited_for_turns(thread)
    while waited is not None:
        time.sleep(WATCHED)
        before, waited = waited, waited_for_turns(thread)
        # It may have been told otherwise.
        if waited is None or os.sched_getscheduler(thread) != os.SCHED_IDLE:
            return
        if waited - before > MOST * WATCHED:
            step_forward()
            return


def waited_for_turns(thread: int) -> float | None:
    """Seconds that a thread could have run and was not let; None where that is not told, or it is over."""
    try:
        return int((_TASKS / str(thread) / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def step_forward() -> None:
    """Make nice batch jobs of the threads that stand back."""
    for task in [int(each.name) for each in _TASKS.iterdir()]:
        # Some end meanwhile.
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(task) == os.SCHED_IDLE:
                os.setpriority(os.PRIO_PROCESS, task, max(NICE, os.getpriority(os.PRIO_PROCESS, task)))
                os.sched_setscheduler(task, os.SCHED_BATCH, os.sched_param(0))
