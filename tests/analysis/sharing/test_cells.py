"""What a cell counts, and whether it may be shown."""

from __future__ import annotations

from sipserver.analysis.sharing.cells import Cell, Facts, Rules, count, joined

RULES = Rules(parties=3, dominance=60)


def facts(*calls: tuple[str, int, int]) -> Facts:
    return Facts({"day": [each[0] for each in calls]}, [each[1] for each in calls], [each[2] for each in calls])


def test_both_sides_of_a_call_count_and_a_call_of_ones_own_counts_once() -> None:
    found = count(facts(("mon", 1, 2), ("mon", 1, 3), ("tue", 4, -1), ("tue", 4, -1)), "day", rules=RULES)
    assert (found["mon",].count, found["mon",].parties, found["mon",].largest) == (2, 3, 3)
    assert found["tue",] == Cell(2, 1, 2, {4: 2})


def test_what_happened_often_weighs_so_much() -> None:
    some = Facts({"kind": ["timeout", "timeout"]}, [1, 2], [-1, 3], [40, 2])
    assert count(some, "kind", rules=Rules(9))["timeout",] == Cell(42, 3, 42, {1: 40, 2: 2, 3: 2})


def test_parties_are_counted_and_not_calls() -> None:
    assert not Cell(1_000, 2, 1_000).is_safe(RULES)
    assert Cell(10, 3, 6).is_safe(RULES)
    assert Cell(0, 0, 0).is_safe(RULES)


def test_a_cell_that_two_parties_have_most_of_is_not_safe() -> None:
    assert not Cell(100, 50, 61).is_safe(RULES)
    assert Cell(100, 50, 60).is_safe(RULES)


def test_fewer_facts_than_k_leave_no_room_for_others() -> None:
    assert not Cell(2, 4, 1).is_safe(RULES)


def test_cells_of_few_parties_are_joined_exactly() -> None:
    assert joined([Cell(3, 1, 3, {1: 3}), Cell(2, 2, 2, {1: 1, 2: 1})]) == Cell(5, 2, 5, {1: 4, 2: 1})
    assert joined([]) == Cell(0, 0, 0, {})


def test_others_are_joined_to_nothing_safer_than_they_are() -> None:
    assert joined([Cell(30, 9, 8), Cell(2, 1, 2, {1: 2})]) == Cell(32, 9, 10)


def test_facts_are_chosen_by_value() -> None:
    found = facts(("mon", 1, 2), ("tue", 3, 4), ("mon", 5, 6)).only("day", "mon")
    assert (found.first, found.second, len(found)) == ([1, 5], [2, 6], 2)
