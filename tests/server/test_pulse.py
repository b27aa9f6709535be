"""How late the loop came."""

from __future__ import annotations

import pytest

from sipserver.server.pulse import WINDOW, Pulse
from support.inprocess import ManualLoop


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def pulse(loop: ManualLoop) -> Pulse:
    return Pulse(loop.time)


def test_the_longest_is_told(pulse: Pulse) -> None:
    assert pulse.longest == 0
    pulse.note(0.03)
    pulse.note(0.02)
    assert pulse.longest == 0.03


def test_what_is_long_ago_is_forgotten(loop: ManualLoop, pulse: Pulse) -> None:
    pulse.note(0.03)
    loop.advance(WINDOW)
    pulse.note(0.01)
    assert pulse.longest == 0.03
    loop.advance(WINDOW)
    assert pulse.longest == 0.01


def test_what_was_before_a_long_silence_is_forgotten(loop: ManualLoop, pulse: Pulse) -> None:
    pulse.note(0.03)
    loop.advance(2 * WINDOW)
    assert pulse.longest == 0
