"""How late a time may be, and by which clock it is told."""

from __future__ import annotations

import pytest

from support.generator.probe import ASKED_EVERY, Probe
from support.generator.record import Clockwork, ahead
from support.generator.world import ClockSet


def asked(seconds: float, **late: float) -> Probe:
    """A probe that was answered at once, but for the questions with these numbers."""
    probe = Probe([number * ASKED_EVERY for number in range(int(seconds / ASKED_EVERY))])
    for number, at in enumerate(probe.asked):
        probe.answered[number] = at + late.get(f"n{number}", 0.001)
    return probe


def test_server_that_answers_at_once_did_not_stand_still() -> None:
    assert Clockwork(asked(10.0)).stall(1.0, 9.0) == 0.0


def test_longest_wait_for_an_answer_counts_while_it_concerns_the_time_that_is_asked_for() -> None:
    clock = Clockwork(asked(10.0), asked(10.0, n100=0.5))
    assert clock.stall(2.2, 2.3) == 0.5
    assert clock.stall(2.6, 9.0) == clock.stall(1.0, 1.9) == 0.0


def test_who_asks_may_have_stood_still() -> None:
    probe = asked(10.0)
    probe.asked[101:] = [at + 0.3 for at in probe.asked[101:]]
    probe.answered = {number: at + 0.001 for number, at in enumerate(probe.asked)}
    assert Clockwork(probe).stall(2.1, 2.2) == pytest.approx(0.3)


def test_clock_of_a_call_is_that_of_its_beginning() -> None:
    settings = [ClockSet(0.0, 0.0, 0.0), ClockSet(100.0, 101.0, 3600.0), ClockSet(200.0, 201.0, -3600.0)]
    assert ahead(settings, 50.0, "1970-01-01T00:00:50.000Z") == 0.0
    assert ahead(settings, 150.0, "1970-01-01T01:02:30.000Z") == 3600.0
    # What an hour too much says is no other setting where none was near.
    assert ahead(settings, 50.0, "1970-01-01T01:00:50.000Z") == 0.0
    # Between the moment at which it was set and that at which the server noticed either may be.
    assert ahead(settings, 100.5, "1970-01-01T00:01:40.500Z") == 0.0
    assert ahead(settings, 100.5, "1970-01-01T01:01:40.500Z") == 3600.0
