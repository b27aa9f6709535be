"""Somebody who has the shared tables, knows how they are made, and wants to know what is not in them.

Every row is an equation over unknown counts; tables that count the same calls have equations with each other. Linear
programming then says between what any count has to lie. Counts are taken as exact: rounded ones tell less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from itertools import product
from random import Random
from typing import Any

from scipy.optimize import linprog
from scipy.sparse import lil_matrix

from sipserver.analysis.sharing.cells import ALL, OTHER, Facts, Key, Rules
from sipserver.analysis.sharing.facts import HOURS, WEEKDAYS
from sipserver.calls.outcomes import CALL_OUTCOMES

Rows = Mapping[str, Sequence[tuple[str | int | None, ...]]]

FAMILIES: dict[str, tuple[str, ...]] = {
    "calls_by_day": ("weekday", "day"),
    "calls_by_hour_of_week": ("weekday", "hour"),
    "calls_by_hour_and_place": ("hour", "from"),
    "places": ("from", "to"),
    "outcomes": ("outcome",),
    "durations": ("duration",),
}
"""Tables whose cells are unknown, with the columns of the facts that they are by."""


def draw_facts(seed: int, calls: int = 2_000, parties: int = 150, weeks: int = 1) -> Facts:
    """Calls of few parties, some of whom call most, from 2 November 2026 on; some places and hours are rare."""
    rng = Random(seed)
    columns: dict[str, list[str]] = {
        name: []
        for name in ("weekday", "day", "hour", "outcome", "duration", "video", "content", "device", "called_device",
            "from", "to", "audio_codec", "video_codec", "call")
    }  # fmt: skip
    first, second = [], []
    places = ["AT", "CH", "DE", "FR", "LI"]
    home = [rng.choices(places, (6, 4, 12, 5, 1))[0] for _ in range(parties)]
    eager = [rng.paretovariate(2.5) for _ in range(parties)]
    for number in range(calls):
        one, other = rng.choices(range(parties), eager, k=2)
        weekday = rng.choices(range(7), (5, 5, 5, 5, 4, 1, 1))[0]
        outcome = rng.choices(CALL_OUTCOMES, (60, 8, 4, 4, 12, 8, 2, 1, 3))[0]
        values = {
            "weekday": WEEKDAYS[weekday], "day": f"2026-11-{weekday + 2 + 7 * rng.randrange(weeks):02d}",
            "hour": f"{rng.choices(range(24), [1] * 7 + [9] * 12 + [4] * 5)[0]:02d}", "outcome": outcome,
            "duration": rng.choice(("under 10 s", "1 to 5 min", "60 min and more")), "video": rng.choice(("yes", "no")),
            "content": "no", "device": rng.choice(("Acme", "Halo", "Own build")), "called_device": "Halo",
            "from": home[one], "to": home[other] if outcome == "answered" else "(not answered)",
            "audio_codec": "opus", "video_codec": "VP8", "call": f"c{number:05d}",
        }  # fmt: skip
        for name, value in values.items():
            columns[name].append(value)
        first.append(one)
        second.append(-1 if other == one else other)
    return Facts(dict(columns), first, second)


@dataclass
class Truth:
    """What is to be protected: counted in the most obvious way."""

    facts: Facts
    rules: Rules

    def cells(self, names: tuple[str, ...], *, answered: bool = False) -> dict[Key, tuple[int, bool]]:
        """The count of every cell, and whether it may be known."""
        calls: dict[Key, list[int]] = {}
        for at in range(len(self.facts)):
            if answered and self.facts.columns["outcome"][at] != "answered":
                continue
            calls.setdefault(tuple(self.facts.columns[name][at] for name in names), []).append(at)
        return {key: (len(of), self._may_be_known(of)) for key, of in calls.items()}

    def _may_be_known(self, calls: list[int]) -> bool:
        shares: dict[int, int] = {}
        for at in calls:
            for party in {self.facts.first[at], self.facts.second[at]} - {-1}:
                shares[party] = shares.get(party, 0) + 1
        most = sum(sorted(shares.values())[-2:])
        return len(shares) >= self.rules.parties and 100 * most <= self.rules.dominance * len(calls)


@dataclass
class Attack:
    """Equations over unknown counts, each named by a table and a cell of it."""

    domains: Mapping[str, Sequence[str]]
    unknown: dict[tuple[str, Key], int] = field(default_factory=dict)
    equations: list[tuple[dict[int, float], float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for table, names in FAMILIES.items():
            for key in product(*(self.domains[name] for name in names)):
                self.unknown[table, key] = len(self.unknown)
        tables = list(FAMILIES)
        # The same calls, by the dimension that two tables share, or in all.
        for one, other in [(a, b) for at, a in enumerate(tables) for b in tables[at + 1 :]]:
            shared = set(FAMILIES[one]) & set(FAMILIES[other])
            for name in shared:
                for value in self.domains[name]:
                    self._same(one, {name: value}, other, {name: value})
            if not shared and "durations" not in (one, other):
                self._same(one, {}, other, {})
        # Everybody has a calendar.
        for (table, key), at in self.unknown.items():
            if table == "calls_by_day" and WEEKDAYS[date.fromisoformat(key[1]).weekday()] != key[0]:
                self.equations.append(({at: 1.0}, 0.0))
        self._same("durations", {}, "outcomes", {"outcome": "answered"})
        # Nobody is reached where nobody answers.
        rest = self._sum("places", lambda cell: cell["to"] != "(not answered)")
        self._equal(rest, self._sum("durations", lambda _: True))

    def read(self, rows: Rows) -> None:
        """What is published, and what is not: a value that is not listed is 0, or in what stands for the others."""
        for table, names in FAMILIES.items():
            if not rows[table]:
                continue
            listed = [{str(row[at]) for row in rows[table]} - {ALL} for at in range(len(names))]
            known: dict[Key, str | int | None] = {tuple(map(str, row[:-1])): row[-1] for row in rows[table]}
            for at, values in enumerate(listed):
                if names[at] == "day":
                    # Days stand below their weekday.
                    known = {**{(weekday, OTHER): 0 for weekday in listed[0] - {OTHER}}, **known}
                elif OTHER not in values and values:
                    known[tuple(OTHER if at == place else ALL for place in range(len(names)))] = 0
            for cell in product(*listed) if table == "places" else ():
                known.setdefault(cell, 0)
            for key, value in known.items():
                if value is not None:
                    equation = self._sum(table, partial(_is_inside, names, key, listed))
                    self.equations.append((equation, float(str(value))))

    def range_of(self, table: str, **wanted: str) -> tuple[float, float]:
        """Between what the count of this cell, or total, has to lie."""
        goal = self._sum(table, lambda cell: all(cell[name] == value for name, value in wanted.items()))
        size = len(self.unknown)
        matrix, values = self._matrix
        ends = []
        for sign in (1.0, -1.0):
            found = linprog(
                [sign * goal.get(at, 0.0) for at in range(size)], A_eq=matrix, b_eq=values, bounds=(0, None)
            )
            if found.status == 3:
                ends.append(float("inf"))
                continue
            assert found.status == 0, found.message
            ends.append(sign * float(found.fun))
        return round(ends[0], 6), round(ends[1], 6)

    @cached_property
    def _matrix(self) -> tuple[Any, list[float]]:
        """All equations, once everything was read."""
        matrix = lil_matrix((len(self.equations), len(self.unknown)))
        for at, (equation, _) in enumerate(self.equations):
            for column, factor in equation.items():
                matrix[at, column] = factor
        return matrix.tocsr(), [value for _, value in self.equations]

    def _sum(self, table: str, inside: Callable[[dict[str, str]], bool]) -> dict[int, float]:
        names = FAMILIES[table]
        return {
            at: 1.0
            for (of, key), at in self.unknown.items()
            if of == table and inside(dict(zip(names, key, strict=True)))
        }

    def _same(self, one: str, here: dict[str, str], other: str, there: dict[str, str]) -> None:
        def chosen(wanted: Mapping[str, str]) -> Callable[[dict[str, str]], bool]:
            return lambda cell: all(cell[name] == value for name, value in wanted.items())

        self._equal(self._sum(one, chosen(here)), self._sum(other, chosen(there)))

    def _equal(self, one: Mapping[int, float], other: Mapping[int, float]) -> None:
        both = dict(one)
        for at, value in other.items():
            both[at] = both.get(at, 0.0) - value
        self.equations.append((both, 0.0))


def domains(facts: Facts, extra: Iterable[tuple[str, Sequence[str]]] = ()) -> dict[str, Sequence[str]]:
    """What values there are: somebody who attacks knows them all."""
    found: dict[str, Sequence[str]] = {name: sorted(set(facts.columns[name])) for name in facts.columns}
    return {**found, "weekday": WEEKDAYS, "hour": HOURS, "outcome": CALL_OUTCOMES, **dict(extra)}


def _is_inside(names: Sequence[str], key: Key, listed: Sequence[set[str]], cell: Mapping[str, str]) -> bool:
    """Whether a published row, with what stands for several values, counts this cell."""
    return all(
        wanted in (ALL, cell[name]) or (wanted == OTHER and cell[name] not in values)
        for name, wanted, values in zip(names, key, listed, strict=True)
    )
