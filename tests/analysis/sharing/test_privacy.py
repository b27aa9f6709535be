"""Differential privacy: bounds, noise, and somebody who compares stores with and without one party."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from statistics import mean, pstdev

import pytest

from sipserver.analysis.sharing.cells import Facts
from sipserver.analysis.sharing.facts import WEEKDAYS
from sipserver.analysis.sharing.privacy import DAYS, Counted, Settings, bounded, counted, laplace, privately
from support.attack import draw_facts

PERIOD = {f"2026-11-{day + 2:02d}": WEEKDAYS[day] for day in range(7)}
NOBODY = Facts({"day": []}, [], [])
NO_ERRORS = Facts({"kind": []}, [], [])
EAGER = 7
"""A party who makes ten thousand calls."""
DRAWS = 20_000


def without(facts: Facts, party: int) -> Facts:
    """The same without what this party did."""
    kept = [at for at, each in enumerate(facts.first) if each != party]
    return Facts(
        {name: [column[at] for at in kept] for name, column in facts.columns.items()},
        [facts.first[at] for at in kept], [facts.second[at] for at in kept],
        None if facts.weights is None else [facts.weights[at] for at in kept],
    )  # fmt: skip


@pytest.fixture(scope="module")
def eager() -> Facts:
    facts = draw_facts(3)
    more = 10_000
    columns = {name: [*column, *[column[at % len(facts)] for at in range(more)]]
        for name, column in facts.columns.items()}  # fmt: skip
    columns["call"] = [f"c{number}" for number in range(len(facts) + more)]
    return Facts(columns, [*facts.first, *[EAGER] * more], [*facts.second, *(at % 150 for at in range(more))])


def distances(one: dict[str, Counted], other: dict[str, Counted]) -> dict[str, tuple[int, int, int]]:
    """How far tables are apart: in all, in one cell, and in how many cells."""
    found = {}
    for name, table in one.items():
        counts = other[name].counts
        apart = [abs(table.counts.get(key, 0) - counts.get(key, 0)) for key in {*table.counts, *counts}]
        found[name] = sum(apart), max(apart, default=0), sum(map(bool, apart))
    return found


def test_a_party_counts_with_so_many_facts_and_the_same_ones_whoever_else_is_there(eager: Facts) -> None:
    kept = bounded(eager, 20, by="call")
    assert max(Counter(kept.first).values()) == Counter(kept.first)[EAGER] == 20
    others = without(eager, 11)
    assert sorted(without(kept, 11).columns["call"]) == sorted(bounded(others, 20, by="call").columns["call"])


def test_facts_that_happened_often_count_as_often() -> None:
    found = bounded(Facts({"kind": ["a", "b"]}, [1, 1], [2, 3], [15, 90]), 20, by="kind")
    assert len(found) == 20
    assert found.second == [-1] * 20


def test_neighbouring_stores_are_no_further_apart_than_the_noise_allows_for(eager: Facts) -> None:
    errors = Facts({"kind": ["timeout"] * 300}, [EAGER if at < 200 else at for at in range(300)], [-1] * 300, [3] * 300)
    there = Facts(
        {"day": [day for day in PERIOD for _ in range(50)]}, [at % 50 for at in range(350)], [-1] * 350,
    )  # fmt: skip
    whole = counted(eager, errors, there, PERIOD, 20)
    for party in (EAGER, 11, 12):
        less = counted(without(eager, party), without(errors, party), without(there, party), PERIOD, 20)
        for name, (most, in_one, cells) in distances(whole, less).items():
            assert most <= whole[name].most, name
            assert in_one <= whole[name].in_one, name
            assert cells <= whole[name].most, name
    assert whole["active_parties"].most == DAYS


def test_without_bounds_one_party_shows(eager: Facts) -> None:
    stores = [counted(each, NO_ERRORS, NOBODY, PERIOD, 10**9) for each in (eager, without(eager, EAGER))]
    assert distances(*stores)["calls_by_day"][0] > 10_000


def test_noise_is_as_wide_as_it_says() -> None:
    values, scale, spent = laplace([500] * DRAWS, 20, 0.5)
    assert spent <= 0.5
    assert scale == pytest.approx(40)
    assert mean(values) == pytest.approx(500, abs=5 * scale * math.sqrt(2 / DRAWS))
    assert pstdev(values) == pytest.approx(scale * math.sqrt(2), rel=0.05)
    inside = sum(abs(value - 500) <= scale * math.log(20) for value in values)
    assert inside / DRAWS == pytest.approx(0.95, abs=0.01)


def loss(one: Sequence[int], other: Sequence[int]) -> float:
    """The most that an attacker who sees a count learns: how much likelier it is to be beyond a bound in one store."""
    found = 0.0
    first, second = sorted(one), sorted(other)
    # Of rarer ones chance decides.
    least = len(one) // 20
    for bound in {*first[::100], *second[::100]}:
        below = bisect_left(first, bound), bisect_left(second, bound)
        for seen in (below, (len(one) - below[0], len(other) - below[1])):
            if max(seen) >= least:
                found = max(found, abs(math.log(max(seen[0], 1) / max(seen[1], 1))))
    return found


def test_likelihoods_of_neighbouring_stores_are_within_epsilon() -> None:
    epsilon = 0.5

    def seen(count: int, spent: float = epsilon) -> list[int]:
        return laplace([count] * 8_000, 20, spent)[0]

    base = seen(480)
    # Four hundred draws say it to some eight percent.
    assert 0.25 < loss(base, seen(500)) < 0.95
    assert loss(base, seen(10_480)) > 5, "ten thousand calls that are not bounded"
    assert loss(seen(480, 10.0), seen(500, 10.0)) > 2, "noise that is too small"


def test_values_that_one_party_brings_are_not_shown(eager: Facts) -> None:
    rare = Facts(
        {**eager.columns, "device": ["My own" if party == EAGER else "Acme" for party in eager.first]}, eager.first,
        eager.second,
    )  # fmt: skip
    made = privately(rare, NO_ERRORS, NOBODY, PERIOD, Settings(20.0))
    assert [row[:2] for row in made.shared.rows["devices"]] == [("calling", "Acme")]
    assert (made.epsilon, made.delta) == (20.0, 1e-6)


def test_known_values_are_all_there_with_noise_on_zeros_too() -> None:
    none = Facts({name: [] for name in draw_facts(0, 1).columns}, [], [])
    shared = privately(none, NO_ERRORS, NOBODY, PERIOD, Settings(1.0)).shared
    hours = shared.rows["calls_by_hour_of_week"]
    assert len(hours) == 7 * 24
    assert any(row[-1] for row in hours)
    assert all(isinstance(row[-1], int) and row[-1] >= 0 for row in hours)
    assert [row[:2] for row in shared.rows["calls_by_day"]] == [(weekday, day) for day, weekday in PERIOD.items()]
    assert shared.rows["places"] == []
    assert set(shared.noise) == {name for name in shared.rows if name != "calls_by_hour_and_place"}
