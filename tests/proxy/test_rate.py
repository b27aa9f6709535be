"""How much somebody may send (proxy/rate.py)."""

from __future__ import annotations

import pytest

from sipserver.proxy.rate import Meter, retry_after

NOW = 1_800_000_000.0


def taken(meter: Meter, sender: str, now: float, tries: int) -> int:
    """How many of so many tries are let through."""
    return sum(meter.take(sender, now) == 0.0 for _ in range(tries))


def test_a_burst_is_let_through_and_no_more() -> None:
    assert taken(Meter(2.0, 5), "alice", NOW, 20) == 5


def test_tokens_come_back_at_the_rate() -> None:
    meter = Meter(2.0, 5)
    taken(meter, "alice", NOW, 20)
    assert taken(meter, "alice", NOW + 1, 20) == 2
    assert taken(meter, "alice", NOW + 60, 20) == 5


def test_whoever_has_to_wait_is_told_how_long() -> None:
    meter = Meter(0.5)
    assert meter.take("alice", NOW) == 0.0
    assert meter.take("alice", NOW) == pytest.approx(2.0)
    assert meter.take("alice", NOW + 1.5) == pytest.approx(0.5)
    assert meter.take("alice", NOW + 2) == 0.0
    assert retry_after(1.2) == ("Retry-After: 2",)


def test_a_refusal_costs_nothing() -> None:
    meter = Meter(1.0)
    taken(meter, "alice", NOW, 1000)
    assert meter.take("alice", NOW + 1) == 0.0


def test_one_sender_takes_nothing_from_another() -> None:
    meter = Meter(1.0)
    assert meter.take("alice", NOW) == 0.0
    assert meter.take("bob", NOW) == 0.0


def test_the_average_is_the_rate() -> None:
    meter = Meter(10.0, 3)
    assert sum(taken(meter, "alice", NOW + tenth / 40, 1) for tenth in range(400)) in range(100, 104)


def test_no_rate_is_no_bound() -> None:
    meter = Meter(0.0)
    assert taken(meter, "alice", NOW, 1000) == 1000
    assert len(meter) == 0


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    meter = Meter(1.0, 3)
    taken(meter, "alice", NOW, 3)
    assert meter.take("alice", NOW - 3600) == 0.0


def test_the_memory_is_bounded() -> None:
    meter = Meter(1.0, max_senders=10)
    for number in range(1000):
        meter.take(f"sender {number}", NOW)
    assert len(meter) == 10
