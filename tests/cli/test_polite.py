"""What stands back gets what is left of the processors, but never nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from sipserver.cli import polite

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no SCHED_IDLE")


def in_a_thread(work: Callable[[], object]) -> None:
    """What a thread changes of itself is gone with it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_threads_that_are_started_later_stand_back_too() -> None:
    found = []

    def work() -> None:
        polite.stand_back()
        found.append(os.sched_getscheduler(0))
        in_a_thread(lambda: found.append(os.sched_getscheduler(0)))

    in_a_thread(work)
    assert set(found) <= {os.SCHED_IDLE, os.SCHED_BATCH}
    assert len(found) == 2
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_who_waited_for_long_is_a_nice_batch_job_and_nobody_else() -> None:
    found = []

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        polite.step_forward()
        found.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))

    before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    in_a_thread(work)
    assert found == [(os.SCHED_BATCH, max(polite.NICE, before[1]))]
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before


def test_time_spent_waiting_is_known_of_threads_that_are_there() -> None:
    waited = polite.waited_for_turns(threading.get_native_id())
    assert waited is None or waited >= 0
    assert polite.waited_for_turns(2**22 + 1) is None
