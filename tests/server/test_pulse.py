"""How long the loop was stopped."""

from __future__ import annotations

import pytest

from sipserver.server.pulse import BEAT, WINDOW, Pulse
from support.inprocess import ManualLoop


class Bench:
    """A pulse whose thread has worked as long as it is told."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.worked = 0.0
        self.pulse = Pulse(self.loop.time, self.loop.call_at, lambda: self.worked)
        self.pulse.start()

    def stop(self, seconds: float, worked: float) -> None:
        """The loop does nothing else for so long, and works for so long of it."""
        self.loop.now += BEAT + seconds
        self.worked += worked
        self.loop.advance(0)


def test_longest_stop_is_how_late_a_beat_was() -> None:
    bench = Bench()
    bench.loop.advance(1)
    assert bench.pulse.longest == 0
    bench.stop(0.03, 0.05)
    bench.stop(0.02, 0.05)
    assert bench.pulse.longest == pytest.approx(0.03)


def test_a_busy_machine_is_no_stop() -> None:
    bench = Bench()
    bench.stop(0.5, 0.004)
    assert bench.pulse.longest == pytest.approx(0.004)


def test_what_is_long_ago_is_forgotten() -> None:
    bench = Bench()
    bench.stop(0.03, 0.05)
    bench.loop.advance(WINDOW)
    assert bench.pulse.longest == pytest.approx(0.03)
    bench.loop.advance(WINDOW)
    assert bench.pulse.longest == 0
