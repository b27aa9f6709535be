"""Shared tables under attack. Every attack succeeds on tables that only leave small cells out."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Any

import pytest

from sipserver.analysis.sharing.cells import ALL, Facts, Rules
from sipserver.analysis.sharing.facts import WEEKDAYS
from sipserver.analysis.sharing.rounding import Rounding
from sipserver.analysis.sharing.suppression import range_needed
from sipserver.analysis.sharing.tables import Shared, share
from support.attack import FAMILIES, Attack, Truth, domains, draw_facts

RULES = Rules(parties=10, dominance=60, base=1)
NO_ERRORS = Facts({"kind": []}, [], [], [])
NOBODY_THERE = Facts({"day": []}, [], [])
ATTACKED = 15
"""So many cells, drawn from those that may not be known."""


def shared(facts: Facts, rules: Rules = RULES) -> Shared:
    days = {day: WEEKDAYS[date.fromisoformat(day).weekday()] for day in sorted(set(facts.columns["day"]))}
    return share(facts, NO_ERRORS, NOBODY_THERE, days, rules, Rounding(b"k" * 32, rules.base, "w"))


def secret(facts: Facts, seed: int) -> list[tuple[str, dict[str, str], int]]:
    """Cells and totals that may not be known, with their counts."""
    truth = Truth(facts, RULES)
    found = [
        (table, dict(zip(by, key, strict=True)), count)
        for table, names in FAMILIES.items()
        for by in {names, *((name,) for name in names)}
        for key, (count, known) in sorted(truth.cells(by, answered=table == "durations").items())
        if not known
    ]
    return Random(seed).sample(found, min(ATTACKED, len(found)))


def revealed(attack: Attack, cells: list[tuple[str, dict[str, str], int]]) -> list[Any]:
    """Those of which the attacker learns more than allowed."""
    found = []
    for table, cell, count in cells:
        low, high = attack.range_of(table, **cell)
        assert low <= count <= high, "the equations are those of the tables"
        if high - low < range_needed(count, RULES):
            found.append((table, cell, count, low, high))
    return found


@pytest.mark.parametrize(("seed", "weeks"), [(0, 1), (1, 1), (2, 4)])
def test_nothing_follows_from_margins_and_linked_tables(seed: int, weeks: int) -> None:
    facts = draw_facts(seed, weeks=weeks)
    attack = Attack(domains(facts))
    attack.read(shared(facts).rows)
    cells = secret(facts, seed)
    assert len(cells) == ATTACKED
    assert not revealed(attack, cells)


def test_margins_give_away_what_is_only_left_out() -> None:
    facts = draw_facts(0)
    truth = Truth(facts, RULES)
    naive: dict[str, list[tuple[Any, ...]]] = {table: [] for table in FAMILIES}
    for table, names in FAMILIES.items():
        for at, name in enumerate(names):
            for (value,), (count, known) in truth.cells((name,), answered=table == "durations").items():
                key = (value if at == place else ALL for place in range(len(names)))
                naive[table].append((*key, count if known else None))
        if len(names) > 1:
            naive[table] += [(*key, count if known else None) for key, (count, known) in truth.cells(names).items()]
            naive[table].append((ALL, ALL, len(facts)))
    attack = Attack(domains(facts))
    attack.read(naive)
    assert revealed(attack, secret(facts, 0))


def test_linked_tables_give_away_what_each_hides_by_itself() -> None:
    facts = draw_facts(0)
    weekday = [
        "Saturday" if day == "Sunday" and party > 2 else day
        for day, party in zip(facts.columns["weekday"], facts.first, strict=True)
    ]
    dates = [f"2026-11-{WEEKDAYS.index(day) + 2:02d}" for day in weekday]
    facts = Facts({**facts.columns, "weekday": weekday, "day": dates}, facts.first, facts.second)
    truth = Truth(facts, RULES)
    weekdays = truth.cells(("weekday",))
    sunday, known = weekdays["Sunday",]
    assert sunday
    assert not known

    def naive(*hidden: str) -> list[tuple[Any, ...]]:
        return [(day, ALL, None if day in hidden else count) for (day,), (count, _) in weekdays.items()]

    nothing: dict[str, list[tuple[Any, ...]]] = {table: [] for table in FAMILIES}
    total = (ALL, ALL, len(facts))
    for rows in (naive("Saturday", "Sunday"), naive("Monday", "Sunday")):
        attack = Attack(domains(facts))
        attack.read({**nothing, "calls_by_hour_of_week": [*rows, total]})
        assert not revealed(attack, [("calls_by_hour_of_week", {"weekday": "Sunday"}, sunday)])
    attack = Attack(domains(facts))
    # What one of them hides the other shows.
    attack.read({**nothing, "calls_by_hour_of_week": [*naive("Sunday"), total]})
    assert attack.range_of("calls_by_hour_of_week", weekday="Sunday") == (sunday, sunday)
    attack = Attack(domains(facts))
    attack.read(shared(facts).rows)
    assert not revealed(attack, [("calls_by_hour_of_week", {"weekday": "Sunday"}, sunday)])


@pytest.mark.parametrize(("seed", "weeks"), [(0, 1), (1, 1), (2, 4)])
def test_every_count_that_is_shown_may_be_known(seed: int, weeks: int) -> None:
    facts = draw_facts(seed, weeks=weeks)
    truth = Truth(facts, RULES)
    rows = shared(facts).rows
    for table, names in FAMILIES.items():
        for by in {names, *((name,) for name in names)}:
            cells = truth.cells(by, answered=table == "durations")
            for row in rows[table]:
                values = dict(zip(names, row, strict=False))
                if any((values[name] == ALL) == (name in by) for name in names) or row[-1] is None:
                    continue
                count, known = cells.get(tuple(str(values[name]) for name in by), (row[-1], True))
                assert known
                assert row[-1] == count


def test_one_party_who_makes_most_of_a_cell_is_not_shown() -> None:
    facts = draw_facts(1)
    names = facts.columns
    more = 400
    lone = Facts(
        {name: [*column, *["Monday" if name == "weekday" else "05" if name == "hour" else column[0]] * more]
            for name, column in names.items()},
        [*facts.first, *[0] * more], [*facts.second, *(at % 90 + 20 for at in range(more))],
    )  # fmt: skip
    rows = shared(lone).rows["calls_by_hour_of_week"]
    (cell,) = [row for row in rows if row[:2] == ("Monday", "05")] or [("Monday", "05", None)]
    assert cell[2] is None
