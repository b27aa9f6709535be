"""Which cells of a table are not shown, so that what is shown gives none of them away.

Totals are always shown, and every table hangs on totals that other tables show as well, so a cell is what its total
leaves of the other cells. Two things follow:

* Of a list with a total (``fold``), the cells that are not safe are shown as one, ``(other)``. That one has to be safe,
  and of two cells at least; where it is not, the smallest of the safe cells go into it, too. Whoever takes what is
  shown from the total gets ``(other)``, and each cell in it may be anything between 0 and that.
* Of a table with totals of both directions (``hide``), a cell is left blank only together with others, so that facts
  can be moved around closed ways of blank cells: no total changes, so there are tables with other counts in the cell
  that look the same. How far that goes is the range that is open for the cell (a largest flow through the blank cells,
  so it is exact), and it has to be as wide as ``range_needed`` says. In every line the blank cells taken together have
  to be safe, too.

What is blank may be blank for its own sake or for another's, and nothing tells which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sipserver.analysis.sharing.cells import NOBODY, Cell, Key, Rules, joined

PROTECTED_PERCENT: Final = 20
"""How wide the range of a blank cell has to be, of its count; and at least k."""


def range_needed(count: int, rules: Rules) -> int:
    """How wide the range has to be that is left open for a blank cell with this count."""
    return max(rules.parties, -(-count * PROTECTED_PERCENT // 100))


@dataclass(slots=True)
class Folded:
    """A list with a total, as it may be shown."""

    shown: dict[Key, Cell]
    together: list[Key]
    """What is shown as one cell only."""
    other: Cell
    """That one; nothing where ``together`` is empty."""
    primary: int
    """How many of these were not safe by themselves."""


def fold(cells: Mapping[Key, Cell], rules: Rules) -> Folded:
    """The cells of a list whose total is safe and shown."""
    together = [key for key, cell in cells.items() if not cell.is_safe(rules)]
    shown = {key: cell for key, cell in cells.items() if cell.is_safe(rules)}
    primary = len(together)
    if not primary:
        return Folded(shown, [], NOBODY, 0)
    by_size = sorted((key for key in shown if shown[key].count), key=lambda key: (-shown[key].count, key))
    other = joined(cells[key] for key in together)
    while by_size and (len(together) < 2 or other.count < rules.parties or not other.is_safe(rules)):
        key = by_size.pop()
        together.append(key)
        other = joined((other, shown.pop(key)))
    # With nothing left it is the total, which is safe.
    return Folded(shown, together, other, primary)


@dataclass(slots=True)
class Hidden:
    """A table with totals of its rows and columns, as it may be shown."""

    blank: set[Key]
    primary: int
    """How many of these were not safe by themselves."""


def hide(rows: Sequence[str], columns: Sequence[str], cells: Mapping[Key, Cell], rules: Rules) -> Hidden:
    """The blank cells of a table whose totals are safe and shown; ``cells`` are those with something in them, by (row,
    column).

    Where nothing less protects a cell, all are blank.
    """
    unsafe = {key for key, cell in cells.items() if not cell.is_safe(rules)}
    blank = set(unsafe)
    # The largest are hardest to protect; what they take, smaller ones can use.
    waiting = sorted(unsafe, key=lambda key: (-cells[key].count, key))
    while waiting:
        _fill_lines(rows, columns, cells, blank, rules)
        waiting = [key for key in waiting if not _is_open(key, cells, blank, rules)]
        for key in waiting:
            corners = _corners(key, rows, columns, cells, blank)
            if not corners:
                return Hidden({(row, column) for row in rows for column in columns}, len(unsafe))
            blank.update(corners)
    return Hidden(blank, len(unsafe))


def _corners(
    key: Key, rows: Sequence[str], columns: Sequence[str], cells: Mapping[Key, Cell], blank: set[Key]
) -> tuple[Key, ...]:
    """Three more corners of a rectangle, not all blank yet, which widen the range of this cell for the least of what
    could be shown; none where there are none."""
    row, column = key
    mine = cells[key].count
    best = 0.0
    chosen: tuple[Key, ...] = ()
    along = [(name, cells[row, name].count) for name in columns if name != column and (row, name) in cells]
    for other in rows:
        down = cells.get((other, column), NOBODY).count
        if other == row or not down:
            continue
        for name, right in along:
            corners = ((row, name), (other, column), (other, name))
            across = cells.get((other, name), NOBODY).count
            cost = sum(
                1 + size for corner, size in zip(corners, (right, down, across), strict=True) if corner not in blank
            )
            # Up by what the neighbours have, down by what the cell and the corner across from it have.
            worth = (min(right, down) + min(mine, across)) / cost if cost else 0.0
            if worth > best:
                best, chosen = worth, corners
    return chosen


def _is_open(key: Key, cells: Mapping[Key, Cell], blank: set[Key], rules: Rules) -> bool:
    """Whether the range of this blank cell is as wide as needed."""
    needed = range_needed(cells[key].count, rules)
    down = _flow(key, cells, blank, min(needed, cells[key].count), up=False)
    return down >= needed or down + _flow(key, cells, blank, needed - down, up=True) >= needed


def _flow(key: Key, cells: Mapping[Key, Cell], blank: set[Key], wanted: int, *, up: bool) -> int:
    """By how much this cell can grow (``up``) or shrink while other blank cells even it out, up to what is wanted.

    A way leads from the cell's row to its column, from rows to columns by one cell and back by another: the first
    shrink and the second grow for ``up``, else the other way round. Growing has no bound, shrinking ends at nothing.
    """
    across: dict[str, list[str]] = {}
    back: dict[str, list[str]] = {}
    left: dict[Key, int] = {}
    for cell in blank:
        if cell != key:
            across.setdefault(cell[0], []).append(cell[1])
            back.setdefault(cell[1], []).append(cell[0])
            left[cell] = cells.get(cell, NOBODY).count
    done = 0
    while done < wanted:
        way = _way(key, across, back, left, up=up)
        if way is None:
            break
        step = min((left[cell] for cell, shrinks in way if shrinks), default=wanted)
        step = min(step, wanted - done)
        for cell, shrinks in way:
            left[cell] += -step if shrinks else step
        done += step
    return done


def _way(
    key: Key, across: Mapping[str, Sequence[str]], back: Mapping[str, Sequence[str]], left: Mapping[Key, int], *,
    up: bool,
) -> list[tuple[Key, bool]] | None:  # fmt: skip
    """The shortest way from the row to the column, as cells and whether they shrink. None where there is none."""
    start, goal = (key[0], True), (key[1], False)
    came: dict[tuple[str, bool], tuple[tuple[str, bool], Key] | None] = {start: None}
    queue = [start]
    for node in queue:
        name, is_row = node
        for other in (across if is_row else back).get(name, ()):
            cell: Key = (name, other) if is_row else (other, name)
            following = (other, not is_row)
            if following in came or (is_row == up and not left[cell]):
                continue
            came[following] = node, cell
            if following == goal:
                queue.clear()
                break
            queue.append(following)
    if goal not in came:
        return None
    way: list[tuple[Key, bool]] = []
    at = goal
    while (step := came[at]) is not None:
        at = step[0]
        way.append((step[1], at[1] == up))
    return way


def _fill_lines(
    rows: Sequence[str], columns: Sequence[str], cells: Mapping[Key, Cell], blank: set[Key], rules: Rules
) -> None:
    """Blank more cells until those of every row and of every column are safe together: their sum follows from the
    totals. More blank cells never spoil a rectangle."""
    lines: list[list[Key]] = [[(row, column) for column in columns] for row in rows]
    lines += [[(row, column) for row in rows] for column in columns]
    changed = True
    while changed:
        changed = False
        for line in lines:
            inside = [key for key in line if key in blank and key in cells]
            if not inside:
                continue
            rest = sorted(
                (key for key in line if key in cells and key not in blank), key=lambda key: (-cells[key].count, key)
            )
            sum_of = joined(cells[key] for key in inside)
            while rest and (len(inside) < 2 or not sum_of.is_safe(rules)):
                key = rest.pop()
                inside.append(key)
                blank.add(key)
                sum_of = joined((sum_of, cells[key]))
                changed = True


def merged(cells: Mapping[Key, Cell], place: int, members: Iterable[Key], name: str) -> dict[Key, Cell]:
    """The cells of a table with these values of one dimension, which is at ``place`` in the keys, as one value."""
    inside = {key[0] for key in members}
    found: dict[Key, list[Cell]] = {}
    for key, cell in cells.items():
        into = (*key[:place], name, *key[place + 1 :]) if key[place] in inside else key
        found.setdefault(into, []).append(cell)
    return {key: each[0] if len(each) == 1 else joined(each) for key, each in found.items()}
