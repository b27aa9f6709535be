"""The shared tables of one piece of time: what hangs on which total, what is shown of it, and how it is counted.

Calls are counted in one tree. Every list stands below a total that is shown, and the same total stands in every table
that has it::

    all calls ── weekday ── day
              ── hour               weekday by hour has both totals
              ── device of the caller
              ── from               hour by from, from by to: likewise
              ── to (of calls that were not answered: nowhere)
              ── outcome ── answered ── duration
                                     ── video ── video codec
                                     ── content · audio codec · device of the called

So no two tables count the same calls below different totals, and what follows from several tables follows from the
totals. What is below a cell that is not shown is not shown either. Parties are no sum of days: a day of few is left
blank, and never alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sipserver.analysis.sharing.cells import ALL, NOBODY, OTHER, Cell, Facts, Key, Rules, count
from sipserver.analysis.sharing.facts import DURATIONS, HOURS, LONGER, NO, WEEKDAYS, YES
from sipserver.analysis.sharing.rounding import Rounding
from sipserver.analysis.sharing.suppression import Folded, fold, hide, merged
from sipserver.calls.outcomes import ANSWERED, CALL_OUTCOMES


@dataclass(slots=True, frozen=True)
class Table:
    """What is in a shared table."""

    title: str
    dimensions: tuple[str, ...]
    measure: str
    """The last column."""


TABLES: Final = {
    "calls_by_day": Table("Calls by day, with the totals of weekdays", ("weekday", "day"), "calls"),
    "calls_by_hour_of_week": Table("Calls by weekday and hour, with totals of both", ("weekday", "hour"), "calls"),
    "calls_by_hour_and_place": Table("Calls by hour and place of the caller", ("hour", "from"), "calls"),
    "places": Table("Calls by place of the caller and of who answered, with totals of both", ("from", "to"), "calls"),
    "outcomes": Table("Calls by what became of them", ("outcome",), "calls"),
    "durations": Table("Answered calls by talk time", ("duration",), "calls"),
    "features": Table("Answered calls with and without video and content", ("feature", "present"), "calls"),
    "codecs": Table("Answered calls by the first codec of audio, and of video", ("kind", "codec"), "calls"),
    "devices": Table("Calls by product of the calling device, answered calls by that of the called one",
        ("side", "product"), "calls"),
    "errors": Table("Errors by kind", ("kind",), "errors"),
    "active_parties": Table("Parties that signed in, called or answered, by day", ("day",), "parties"),
}  # fmt: skip
"""Every table by the name of its file."""

Row = tuple[str | int | None, ...]
"""Values of the dimensions, and a count; None: left blank."""


@dataclass(slots=True)
class Shared:
    """What may be shown of one piece of time."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    primary: int = 0
    """Cells that are not shown since they were not safe."""
    complementary: int = 0
    """Cells that are not shown since others would follow."""
    withheld: list[str] = field(default_factory=list)
    """Tables of which not even the total could be shown."""
    noise: dict[str, float] = field(default_factory=dict)
    """Of private tables: nineteen counts in twenty are no further than this from what was counted."""


def share(calls: Facts, errors: Facts, there: Facts, days: Mapping[str, str], rules: Rules, to: Rounding) -> Shared:
    """The tables of one piece of time; ``days`` are its days as far as they were recorded, with
    their weekdays, in order."""
    work = _Work(rules, to)
    work.calls(calls, days)
    work.errors(errors)
    work.parties(there, list(days))
    return work.found


class _Work:
    def __init__(self, rules: Rules, rounding: Rounding) -> None:
        self.found = Shared()
        self._rules = rules
        self._rounding = rounding

    def calls(self, facts: Facts, days: Mapping[str, str]) -> None:
        """Everything that counts calls."""
        every = count(facts, rules=self._rules).get((), NOBODY)
        if not every.is_safe(self._rules):
            self._nothing("calls", every)
            return
        self._put("outcomes", (ALL,), {}, every)
        weekdays = self._list(facts, "weekday", [name for name in WEEKDAYS if name in days.values()])
        hours = self._list(facts, "hour", HOURS)
        origins = self._list(facts, "from")
        outcomes = self._list(facts, "outcome", CALL_OUTCOMES)
        self._show("outcomes", outcomes, ("outcome",))
        self._show("devices", self._list(facts, "device"), ("device",), before=("calling",))
        self._days(facts, weekdays, days)
        self._matrix("calls_by_hour_of_week", facts, ("weekday", "hour"), (weekdays, hours), every)
        self._matrix("calls_by_hour_and_place", facts, ("hour", "from"), (hours, origins), every)
        if (ANSWERED,) in outcomes.shown:
            self._matrix("places", facts, ("from", "to"), (origins, self._list(facts, "to")), every, zeros=False)
            self._answered(facts.only("outcome", ANSWERED), outcomes.shown[ANSWERED,])
        else:
            self.found.withheld += ["places", "durations", "features", "codecs"]

    def _days(self, facts: Facts, weekdays: Folded, days: Mapping[str, str]) -> None:
        for (weekday,), cell in weekdays.shown.items():
            dates = [day for day in days if days[day] == weekday]
            self._put("calls_by_day", (weekday, ALL), {"weekday": weekday}, cell)
            if len(dates) == 1:
                self._put("calls_by_day", (weekday, dates[0]), {"weekday": weekday}, cell)
            elif dates:
                folded = self._list(facts.only("weekday", weekday), "day", dates)
                self._show("calls_by_day", folded, ("day",), before=(weekday,), below={"weekday": weekday})
        if weekdays.together:
            self._put("calls_by_day", (OTHER, ALL), {"weekday": OTHER}, weekdays.other)

    def _answered(self, facts: Facts, every: Cell) -> None:
        """Everything that counts answered calls."""
        below = {"outcome": ANSWERED}
        self._put("durations", (ALL,), below, every)
        durations = (*(name for _, name in DURATIONS), LONGER)
        self._show("durations", self._list(facts, "duration", durations), ("duration",), below=below)
        video = self._list(facts, "video", (YES, NO))
        self._show("features", video, ("video",), before=("video",), below=below)
        content = self._list(facts, "content", (YES, NO))
        self._show("features", content, ("content",), before=("content",), below=below)
        audio = self._list(facts, "audio_codec")
        self._show("codecs", audio, ("audio_codec",), before=("audio",), below=below)
        if (YES,) in video.shown:
            seen = self._list(facts.only("video", YES), "video_codec")
            self._show("codecs", seen, ("video_codec",), before=("video",), below={**below, "video": YES})
        self._show("devices", self._list(facts, "called_device"), ("called_device",), before=("called",), below=below)

    def errors(self, facts: Facts) -> None:
        """Errors by kind."""
        every = count(facts, rules=self._rules).get((), NOBODY)
        if not every.is_safe(self._rules):
            self._nothing("errors", every)
            return
        self._put("errors", (ALL,), {}, every)
        self._show("errors", self._list(facts, "kind"), ("kind",))

    def parties(self, facts: Facts, days: list[str]) -> None:
        """Parties by day, and how many different ones there were."""
        every = len(set(facts.first))
        if 0 < every < self._rules.parties:
            self._nothing("active_parties", Cell(every, every, 2))
            return
        self._put("active_parties", (ALL,), {}, Cell(every, every, 2))
        folded = self._list(facts, "day", days)
        for day in days:
            self._put("active_parties", (day,), {"day": day}, folded.shown.get((day,)))

    def _nothing(self, what: str, every: Cell) -> None:
        """Not even the total can be shown."""
        self.found.primary += bool(every.count)
        self.found.withheld += [name for name, table in TABLES.items() if what in (table.measure, name)]

    def _list(self, facts: Facts, name: str, domain: Iterable[str] = ()) -> Folded:
        """What can be shown of a list; a domain has zeros, too, in its order."""
        cells: dict[Key, Cell] = {(value,): NOBODY for value in domain}
        # In an order that tells nothing, such as when the first of them came.
        cells.update(sorted(count(facts, name, rules=self._rules).items()))
        folded = fold(cells, self._rules)
        self._count(folded.primary, len(folded.together))
        return folded

    def _count(self, primary: int, hidden: int) -> None:
        self.found.primary += primary
        self.found.complementary += hidden - primary

    def _show(
        self, table: str, folded: Folded, names: tuple[str, ...], *, before: Key = (),
        below: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        cells = list(folded.shown.items())
        if folded.together:
            cells.append(((OTHER,) * len(names), folded.other))
        for key, cell in cells:
            name = {**(below or {}), **dict(zip(names, key, strict=True))}
            self._put(table, (*before, *key), name, cell)

    def _put(self, table: str, key: Key, name: Mapping[str, str], cell: Cell | None) -> None:
        """A row; ``name`` says which cell it is, in whichever table."""
        value = None if cell is None else self._rounding(TABLES[table].measure, name, cell.count)
        self.found.rows[table].append((*key, value))

    def _matrix(
        self, table: str, facts: Facts, names: tuple[str, str], totals: tuple[Folded, Folded], every: Cell, *,
        zeros: bool = True,
    ) -> None:  # fmt: skip
        """A table with the totals of both of its dimensions, which are shown in any case."""
        cells: Mapping[Key, Cell] = count(facts, *names, rules=self._rules)
        lines: list[list[str]] = []
        for place, folded in enumerate(totals):
            line = [key[0] for key in folded.shown]
            if folded.together:
                cells = merged(cells, place, folded.together, OTHER)
                line.append(OTHER)
            lines.append(line)
        rows, columns = lines
        self._put(table, (ALL, ALL), {}, every)
        for place, folded in enumerate(totals):
            shown = dict(folded.shown)
            if folded.together:
                shown[OTHER,] = folded.other
            for (value,), cell in shown.items():
                self._put(table, (value, ALL) if not place else (ALL, value), {names[place]: value}, cell)
        hidden = hide(rows, columns, cells, self._rules)
        self._count(hidden.primary, len(hidden.blank))
        for row in rows:
            for column in columns:
                key = (row, column)
                found = None if key in hidden.blank else cells.get(key, NOBODY)
                if zeros or found is None or found.count:
                    self._put(table, key, dict(zip(names, key, strict=True)), found)
