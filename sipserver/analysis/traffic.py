"""How many calls are up: carried traffic, peaks, busy hours, and how many channels that takes.

Calls are swept in order of their beginning, a piece of the period at a time, so memory holds what is up and no more.
A cell is a quarter of an hour, or less where a bucket begins or ends within one: whatever is asked of longer periods is
a sum or a maximum over cells.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

from sipserver.analysis.periods import DAY_MS, HOUR_MS, stamp
from sipserver.storage.database import sqlite

QUARTER_MS: Final = 900_000

_MS: Final = "CAST(round((julianday({}) - 2440587.5) * 86400000.0) AS INTEGER)"

SPANS_SQL: Final = f"""
        SELECT {_MS.format("answered_at")} AS began, {_MS.format("ended_at")} AS ended, end_uncertainty_ms
        FROM v_call_facts
        WHERE answered AND started_at >= $from AND started_at < $to {{scope}}
"""  # noqa: S608 - made of constants
"""When calls were up, of those that began in a piece of the period."""

BEFORE_SQL: Final = f"""
        SELECT {_MS.format("answered_at")} AS began, {_MS.format("ended_at")} AS ended, end_uncertainty_ms
        FROM v_call_facts
        WHERE answered AND started_at < $from AND (ended_at > $from OR end_uncertainty_ms > 0) {{scope}}
"""  # noqa: S608
"""The same of those that began before and may still have been up, however long ago that was."""

OPEN_SQL: Final = f"""
        SELECT {_MS.format("answered_at")} AS began FROM calls
        WHERE ended_at IS NULL AND answered_at < $to {{scope}}
"""  # noqa: S608
"""Those that go on; they are up as far as the record reaches."""


@dataclass(slots=True)
class Cell:
    """A quarter of an hour at most, in milliseconds."""

    begin: int
    end: int
    talk_ms: int = 0
    talk_most_ms: int = 0
    """With every uncertain end as late as it can have been."""
    peak: int = 0
    peak_most: int = 0


def cells(begin: int, end: int, cuts: Sequence[int]) -> list[Cell]:
    """Empty cells for a period, cut at quarter hours and at ``cuts``."""
    marks = {begin, end, *(cut for cut in cuts if begin < cut < end)}
    marks.update(range(begin - begin % QUARTER_MS + QUARTER_MS, end, QUARTER_MS))
    edges = sorted(marks)
    return [Cell(*pair) for pair in pairwise(edges)]


def sweep(
    connection: sqlite.Connection,
    found: list[Cell],
    *,
    scope: str,
    parameters: dict[str, Any],
    known_until: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Fill cells with the talk time in them and the most calls that were up at once.

    ``scope`` is a condition on ``v_call_facts`` and ``calls`` that begins with AND, or nothing; its parameters are
    ``parameters``. Calls that go on count up to ``known_until`` (milliseconds). ``progress`` is told milliseconds of
    the period.
    """
    if not found:
        return
    begin, end = found[0].begin, found[-1].end
    sure, most = _Line(), _Line()
    bounds = {**parameters, "from": stamp(begin), "to": stamp(end)}
    _take(sure, most, connection.execute(BEFORE_SQL.format(scope=scope), bounds), begin)
    for (began,) in connection.execute(OPEN_SQL.format(scope=scope), bounds):
        for line in (sure, most):
            line.add(max(began, begin), max(known_until, began))
    first = 0
    for at in range(begin, end, DAY_MS):
        until = min(at + DAY_MS, end)
        bounds = {**parameters, "from": stamp(at), "to": stamp(until)}
        _take(sure, most, connection.execute(SPANS_SQL.format(scope=scope), bounds), begin)
        last = bisect_left(found, until, key=lambda cell: cell.begin)
        # Nothing that begins later changes what was up before ``until``, whichever cell it is in.
        last = last if last == len(found) or found[last - 1].end <= until else last - 1
        piece = found[first:last]
        for cell, (talk, peak), (talk_most, peak_most) in zip(piece, sure.cut(piece), most.cut(piece), strict=True):
            cell.talk_ms, cell.peak, cell.talk_most_ms, cell.peak_most = talk, peak, talk_most, peak_most
        first = last
        progress(until - at)


def _take(sure: _Line, most: _Line, rows: Iterator[tuple[int, int, int | None]], begin: int) -> None:
    for began, ended, uncertain in rows:
        since = max(began, begin)
        latest = ended + uncertain if uncertain else ended
        if ended > since:
            sure.add(since, ended)
        if latest > since:
            most.add(since, latest)


class _Line:
    """Beginnings and ends that are still to come, and how many calls are up until then."""

    __slots__ = ("_up", "begins", "ends")

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        self._up = 0

    def add(self, began: int, ended: int) -> None:
        self.begins.append(began)
        self.ends.append(ended)

    def cut(self, piece: Sequence[Cell]) -> Iterator[tuple[int, int]]:
        """Talk time and peak of each of these cells, which follow each other; what is before their end is then done."""
        begins, ends = sorted(self.begins), sorted(self.ends)
        # One number for an event: twice its time, and one more where it is a beginning, so that at the same moment
        # ends come first: a call is up until just before its end.
        events = sorted([*[2 * at for at in ends], *[2 * at + 1 for at in begins]])
        up = list(accumulate((1 if event & 1 else -1 for event in events), initial=self._up))
        i = j = k = 0
        for cell in piece:
            ni, nj = bisect_left(begins, cell.end, i), bisect_left(ends, cell.end, j)
            nk = bisect_left(events, 2 * cell.end, k)
            talk = up[k] * (cell.end - cell.begin)
            talk += (ni - i) * cell.end - sum(begins[i:ni]) - (nj - j) * cell.end + sum(ends[j:nj])
            # An end at the very beginning of the cell was no part of it.
            at = k
            while at < nk and events[at] == 2 * cell.begin:
                at += 1
            yield talk, max(up[at : nk + 1])
            i, j, k = ni, nj, nk
        self._up = up[k]
        self.begins, self.ends = begins[i:], ends[j:]


@dataclass(slots=True)
class BusyHour:
    """An hour with the most traffic."""

    begin: str
    """``HH:MM`` for one that is the same on every day, date and time for one of a single day."""
    erlang: float


def hourly(found: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Every 60 minutes that begin at a quarter hour and lie in the period whole: beginning, and talk time in them."""
    quarters: dict[int, int] = {}
    for cell in found:
        quarter = cell.begin - cell.begin % QUARTER_MS
        quarters[quarter] = quarters.get(quarter, 0) + cell.talk_ms
    if not found:
        return
    begin, end = found[0].begin, found[-1].end
    # Cells follow each other, so the four quarters of an hour do.
    talk = list(quarters.values())
    for place, quarter in enumerate(quarters):
        if quarter >= begin and quarter + HOUR_MS <= end:
            yield quarter, sum(talk[place : place + 4])


def erlang_b(traffic: float, channels: int) -> float:
    """The share of calls that are lost when ``traffic`` Erlang are offered to so many channels (Erlang B)."""
    lost = 1.0
    for channel in range(1, channels + 1):
        lost = traffic * lost / (channel + traffic * lost)
    return lost


def channels_for(traffic: float, blocking: float) -> int:
    """The fewest channels that lose no more than this share of ``traffic`` Erlang; ``blocking`` is above 0."""
    channels, lost = 0, 1.0
    while lost > blocking:
        channels += 1
        lost = traffic * lost / (channels + traffic * lost)
    return channels
