"""What a chart shows, as data: whoever draws it, on a terminal, as a picture or in a page, decides nothing about it.

A value that is not known is None and is drawn as a gap, never as 0. Every chart can say in words what it shows, and
says so instead of an empty frame where there is nothing to show.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

from sipserver.analysis.axes import Tick, Values, scale_for
from sipserver.analysis.periods import Bucket

NOTHING: Final = "Nothing was recorded in this period."


@dataclass(slots=True, frozen=True)
class Mark:
    """A point that deserves a word."""

    at: float
    value: float
    text: str


@dataclass(slots=True, frozen=True)
class Series:
    """Values of one kind, in the order of the pieces of time or of the labels."""

    name: str
    values: Values


@dataclass(slots=True, frozen=True)
class Curve:
    """Figures over time."""

    name: str
    title: str
    subtitle: str
    unit: str
    """What stands at the axis of values."""
    time: str
    """What stands at the axis of time."""
    pieces: tuple[Bucket, ...]
    series: tuple[Series, ...]
    ticks: tuple[Tick, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    """When nothing was recorded, in milliseconds."""
    upper: Values = ()
    """Up to where the first series may be, where that is not certain."""
    marks: tuple[Mark, ...] = ()
    steps: bool = False
    """Whether each value holds for the whole of its piece, as a mean does, and is drawn so."""
    whole: bool = False
    """Whether the values are counts."""
    empty: str = NOTHING
    """What to say where no value is known."""

    @property
    def nothing(self) -> str:
        """What to say where there is nothing to draw; empty where there is."""
        if all(value is None for series in self.series for value in series.values):
            return self.empty
        return ""

    @property
    def scale(self) -> tuple[float, ...]:
        """The marks of the axis of values; the last is where it ends."""
        values = [value for series in self.series for value in series.values if value is not None]
        values += [value for value in self.upper if value is not None]
        # Marks have words above them.
        values += [1.12 * mark.value for mark in self.marks]
        return scale_for(max(values, default=0.0), whole=self.whole)

    @property
    def ends(self) -> list[tuple[float, int]]:
        """How far below the top, from 0 to 1, each series ends, and which it is: from the highest to the lowest."""
        found = []
        for number, series in enumerate(self.series):
            known = [value for value in series.values if value is not None]
            if known:
                # Where two end together the one that is higher elsewhere is.
                found.append((1 - known[-1] / self.scale[-1], -sum(known) / len(known), number))
        return [(place, number) for place, _, number in sorted(found)]

    @property
    def words(self) -> str:
        """The chart, for who does not see it."""
        said = []
        for series in self.series:
            known = [(value, piece.label) for value, piece in zip(series.values, self.pieces, strict=True)
                if value is not None]  # fmt: skip
            if known:
                low, high = min(known, key=lambda each: each[0]), max(known, key=lambda each: each[0])
                said.append(
                    f"{series.name}: lowest {shown(low[0])} ({low[1]}), highest {shown(high[0])} ({high[1]}), "
                    f"last {shown(known[-1][0])} ({known[-1][1]})"
                )
        said += [mark.text for mark in self.marks]
        if self.gaps:
            said.append("some of the period was not recorded")
        return self.nothing or f"{self.unit}. {'; '.join(said)}."


@dataclass(slots=True, frozen=True)
class Bars:
    """Figures of things that have names, the largest first."""

    name: str
    title: str
    subtitle: str
    unit: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    """More than one are parts of a whole, one after the other."""
    notes: tuple[str, ...] = ()
    """What stands after each bar besides its value."""
    before: Values = ()
    """What it was in the period before, drawn as a line across the bar."""
    whole: bool = True
    """Whether the values are counts."""
    empty: str = NOTHING
    """What to say where there are no bars."""

    @property
    def nothing(self) -> str:
        """What to say where there is nothing to draw; empty where there is."""
        return "" if self.labels else self.empty

    @property
    def totals(self) -> tuple[float, ...]:
        """How long each bar is."""
        return tuple(sum(each.values[at] or 0 for each in self.series) for at in range(len(self.labels)))

    @property
    def scale(self) -> tuple[float, ...]:
        """The marks of the axis of values; the last is where it ends."""
        values = [*self.totals, *(value for value in self.before if value is not None)]
        return scale_for(max(values, default=0.0), whole=self.whole)

    @property
    def texts(self) -> tuple[str, ...]:
        """What stands after each bar."""
        notes = self.notes or ("",) * len(self.labels)
        told = (shown(total) if self.whole else f"{total:.2f}" for total in self.totals)
        return tuple(f"{total}  {note}".rstrip() for total, note in zip(told, notes, strict=True))

    @property
    def words(self) -> str:
        """The chart, for who does not see it."""
        said = (f"{label}: {text}" for label, text in zip(self.labels, self.texts, strict=True))
        return self.nothing or f"{self.unit}. {'; '.join(said)}."


@dataclass(slots=True, frozen=True)
class Grid:
    """Figures of two things at once: rows and columns, the darker the more."""

    name: str
    title: str
    subtitle: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    across: str
    """What the columns are."""
    down: str
    """What the rows are."""
    cells: tuple[Values, ...]
    absent: str
    """What a cell without a value means."""
    numbers: bool = False
    """Whether the cells have room for their numbers, which are counts."""
    empty: str = NOTHING

    @property
    def nothing(self) -> str:
        """What to say where there is nothing to draw; empty where there is."""
        return self.empty if all(value is None for row in self.cells for value in row) else ""

    @property
    def incomplete(self) -> bool:
        """Whether there are cells without a value."""
        return any(value is None for row in self.cells for value in row)

    def scale(self, steps: int = 7) -> tuple[float, ...]:
        """The bounds of at most so many levels, from 0 on."""
        highest = max((value for row in self.cells for value in row if value is not None), default=0.0)
        return scale_for(highest, steps, (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), whole=self.numbers)

    @property
    def words(self) -> str:
        """The chart, for who does not see it."""
        known = [
            (value, row, column)
            for row, values in zip(self.rows, self.cells, strict=True)
            for column, value in zip(self.columns, values, strict=True)
            if value is not None
        ]
        if not known:
            return self.empty
        most = sorted(known, key=lambda each: -each[0])[:3]
        said = "; ".join(f"{row}, {column}: {shown(value)}" for value, row, column in most)
        return f"{self.unit}; rows: {self.down}, columns: {self.across}. The highest: {said}."


Chart = Curve | Bars | Grid


def shown(value: float) -> str:
    """A figure as people read it: three places that count, groups of three."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{round(value):,}"
    if not value:
        return "0"
    places = max(0, 2 - floor(log10(abs(value))))
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def level_of(scale: Sequence[float], value: float) -> int:
    """The level of a value: 0 for 0 alone, else the number of the bound that it does not exceed."""
    return bisect_left(scale, value)
