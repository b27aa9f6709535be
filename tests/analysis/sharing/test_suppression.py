"""Which cells are not shown."""

from __future__ import annotations

from random import Random

import pytest

from sipserver.analysis.sharing.cells import Cell, Key, Rules
from sipserver.analysis.sharing.suppression import fold, hide, merged, range_needed

RULES = Rules(parties=5)


def safe(count: int) -> Cell:
    return Cell(count, max(5, count // 2), 2)


def few(count: int) -> Cell:
    return Cell(count, 1, count, {count: count})


def test_nothing_is_folded_where_all_are_safe() -> None:
    folded = fold({("a",): safe(50), ("b",): Cell(0, 0, 0)}, RULES)
    assert (list(folded.shown), folded.together, folded.primary) == ([("a",), ("b",)], [], 0)


def test_the_smallest_safe_cell_goes_with_the_only_unsafe_one() -> None:
    folded = fold({("a",): few(3), ("b",): safe(90), ("c",): safe(20), ("d",): Cell(0, 0, 0)}, RULES)
    assert set(folded.shown) == {("b",), ("d",)}
    assert set(folded.together) == {("a",), ("c",)}
    assert (folded.other.count, folded.primary) == (23, 1)


def test_enough_small_cells_need_no_other() -> None:
    cells: dict[Key, Cell] = {(str(number),): Cell(2, 1, 2, {number: 2}) for number in range(5)}
    folded = fold({**cells, ("big",): safe(100)}, RULES)
    assert set(folded.shown) == {("big",)}
    assert folded.other.is_safe(RULES)
    assert folded.primary == len(folded.together) == 5


def test_two_that_one_party_has_most_of_need_a_third() -> None:
    cells: dict[Key, Cell] = {
        ("a",): Cell(100, 9, 99),
        ("b",): Cell(3, 2, 3, {1: 2, 2: 1}),
        ("c",): safe(200),
        ("d",): safe(300),
    }
    folded = fold(cells, RULES)
    assert set(folded.together) == {("a",), ("b",), ("c",)}


def test_a_blank_cell_is_never_alone_in_a_line() -> None:
    cells: dict[Key, Cell] = {(row, column): safe(20) for row in "abc" for column in "xyz"}
    cells["a", "x"] = few(4)
    hidden = hide("abc", "xyz", cells, RULES)
    assert len(hidden.blank) == 4
    assert hidden.primary == 1
    for at in (0, 1):
        lines = [key[at] for key in hidden.blank]
        assert all(lines.count(name) == 2 for name in lines)


def test_two_pairs_that_only_a_single_cell_joins_do_not_protect_it() -> None:
    # Two blank cells in every line, but b-y is on no closed way: its value follows.
    rows, columns = "abcd", "wxyz"
    cells: dict[Key, Cell] = {(row, column): safe(40) for row in rows for column in columns}
    for key in (("a", "w"), ("a", "x"), ("b", "w"), ("b", "x"), ("c", "y"), ("c", "z"), ("d", "y"), ("d", "z"),
            ("b", "y")):  # fmt: skip
        cells[key] = Cell(30, 4, 10, dict.fromkeys(range(4), 8))
    hidden = hide(rows, columns, cells, RULES)
    assert hidden.primary == 9
    assert len(hidden.blank) > 9


def test_what_nothing_protects_takes_the_table_with_it() -> None:
    cells: dict[Key, Cell] = {("a", "x"): Cell(50, 9, 49), ("b", "y"): Cell(50, 9, 49)}
    assert len(hide("ab", "xy", cells, RULES).blank) == 4


def test_a_large_cell_needs_a_wide_range() -> None:
    assert range_needed(3, RULES) == 5
    assert range_needed(1_000, RULES) == 200


def test_values_are_merged_into_one() -> None:
    cells: dict[Key, Cell] = {("a", "x"): few(1), ("b", "x"): few(2), ("c", "x"): safe(9)}
    found = merged(cells, 0, [("a",), ("b",)], "(other)")
    assert set(found) == {("(other)", "x"), ("c", "x")}
    assert found["(other)", "x"].count == 3


@pytest.mark.parametrize("seed", range(20))
def test_lines_of_blank_cells_are_safe_together(seed: int) -> None:
    rng = Random(seed)
    rows, columns = "abcdef", "uvwxyz"
    cells: dict[Key, Cell] = {}
    for row in rows:
        for column in columns:
            parties = rng.choice((0, 1, 2, 4, 6, 9, 15))
            if parties:
                count = parties * rng.randrange(1, 5)
                shares = {rng.randrange(10_000): count // parties for _ in range(parties)}
                cells[row, column] = Cell(
                    count, parties, 2 * (count // parties), shares if parties < RULES.parties else None
                )
    hidden = hide(rows, columns, cells, RULES)
    assert {key for key, cell in cells.items() if not cell.is_safe(RULES)} <= hidden.blank
    if len(hidden.blank) == len(rows) * len(columns):
        return
    for at, names in ((0, rows), (1, columns)):
        for name in names:
            inside = [key for key in hidden.blank if key[at] == name and key in cells]
            assert len(inside) != 1
