"""What a cell of a shared table counts, of how many parties, and whether it may be shown.

A *fact* is a call, an error, or a party's being there on a day; parties are those who have to do with it. A cell is
safe to show where at least k parties have to do with it, and no one or two of them with most of it: who knows their
own part of the cell could take it off, and would have the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Key = tuple[str, ...]
"""The values of a cell's dimensions."""

ALL: Final = "(all)"
"""The total over a dimension."""
OTHER: Final = "(other)"
"""What stands for all cells that are not shown by themselves."""


@dataclass(slots=True, frozen=True)
class Rules:
    """What has to hold of a cell that is shown."""

    parties: int = 10
    """k: the fewest parties."""
    dominance: int = 60
    """Of how many percent of a cell the two parties with the most of it may be."""
    base: int = 5
    """What counts are rounded to multiples of; 1 leaves them."""


@dataclass(slots=True)
class Cell:
    """A count, and of whom it is."""

    count: int
    """Facts."""
    parties: int
    """How many parties have to do with them; of cells taken together, at least so many."""
    largest: int
    """With how many of the facts the two parties with the most have to do, each counted, at most."""
    few: dict[int, int] | None = field(default=None, repr=False)
    """Facts by party, kept where there are less than k parties."""

    def is_safe(self, rules: Rules) -> bool:
        """Whether it may be shown. What is not there is of nobody; less than k facts have no room for others."""
        enough = min(self.parties, self.count) >= rules.parties
        return not self.count or (enough and 100 * self.largest <= rules.dominance * self.count)


NOBODY: Final = Cell(0, 0, 0, {})
"""A cell in which nothing happened."""


def joined(cells: Iterable[Cell]) -> Cell:
    """Several cells of different facts as one.

    Of cells of few parties it is exact; for others there are the bounds that make it no safer than it is: at least as
    many parties as the one with the most has, and its largest two at most as large as those of all.
    """
    count, parties, largest = 0, 0, 0
    few: dict[int, int] | None = {}
    for cell in cells:
        count += cell.count
        parties = max(parties, cell.parties)
        largest += cell.largest
        if few is not None and cell.few is not None:
            for party, facts in cell.few.items():
                few[party] = few.get(party, 0) + facts
        else:
            few = None
    if few is not None:
        return Cell(count, len(few), sum(sorted(few.values())[-2:]), few)
    return Cell(count, parties, largest)


@dataclass(slots=True)
class Facts:
    """Facts as columns of the same length."""

    columns: Mapping[str, Sequence[str]]
    """Dimensions by name."""
    first: Sequence[int]
    """Who did it: a party, by a number that means nothing elsewhere."""
    second: Sequence[int]
    """Who else has to do with it; -1 for nobody, and where it is the same."""
    weights: Sequence[int] | None = None
    """How often each happened; once for None."""

    def __len__(self) -> int:
        return len(self.first)

    def only(self, name: str, *values: str) -> Facts:
        """Those with one of these values in this dimension."""
        wanted = set(values)
        chosen = [at for at, value in enumerate(self.columns[name]) if value in wanted]

        def taken(column: Sequence[Any]) -> list[Any]:
            return [column[at] for at in chosen]

        return Facts(
            {each: taken(column) for each, column in self.columns.items()}, taken(self.first), taken(self.second),
            None if self.weights is None else taken(self.weights),
        )  # fmt: skip

    def keys(self, *names: str) -> Iterator[Key]:
        """The cell of each fact in a table with these dimensions."""
        return zip(*(self.columns[name] for name in names), strict=True) if names else iter([()] * len(self))


def count(facts: Facts, *names: str, rules: Rules) -> dict[Key, Cell]:
    """The cells of a table with these dimensions in which something happened."""
    totals: dict[Key, int] = {}
    shares: dict[Key, dict[int, int]] = {}
    weights = facts.weights or [1] * len(facts)
    for key, first, second, weight in zip(facts.keys(*names), facts.first, facts.second, weights, strict=True):
        mine = shares.get(key)
        if mine is None:
            mine = shares[key] = {}
            totals[key] = 0
        totals[key] += weight
        mine[first] = mine.get(first, 0) + weight
        if second >= 0:
            mine[second] = mine.get(second, 0) + weight
    return {key: _cell(totals[key], mine, rules) for key, mine in shares.items()}


def _cell(total: int, shares: dict[int, int], rules: Rules) -> Cell:
    if len(shares) < rules.parties:
        return Cell(total, len(shares), sum(sorted(shares.values())[-2:]), shares)
    one = two = 0
    for facts in shares.values():
        if facts > two:
            one, two = (facts, one) if facts > one else (one, facts)
    return Cell(total, len(shares), one + two)
