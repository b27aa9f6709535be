"""Where axes have their marks, how much of a curve is drawn, and when nothing was recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from math import ceil, floor, log10
from typing import Final

from sipserver.analysis.periods import DAY_MS, HOUR_MS, MINUTE_MS, Bucket

Number = int | float
Values = tuple[Number | None, ...]

MOST_POINTS: Final = 800
"""A curve with more has its neighbours joined: no picture and no screen has room for them."""

_STEPS: Final = (
    ("minute", 1, MINUTE_MS), ("minute", 5, 5 * MINUTE_MS), ("minute", 15, 15 * MINUTE_MS),
    ("hour", 1, HOUR_MS), ("hour", 2, 2 * HOUR_MS), ("hour", 3, 3 * HOUR_MS), ("hour", 6, 6 * HOUR_MS),
    ("hour", 12, 12 * HOUR_MS), ("day", 1, DAY_MS), ("day", 2, 2 * DAY_MS), ("week", 1, 7 * DAY_MS),
    ("week", 2, 14 * DAY_MS), ("month", 1, 30 * DAY_MS), ("month", 2, 60 * DAY_MS), ("month", 3, 91 * DAY_MS),
    ("month", 6, 182 * DAY_MS), ("year", 1, 365 * DAY_MS), ("year", 2, 730 * DAY_MS), ("year", 5, 1826 * DAY_MS),
    ("year", 10, 3652 * DAY_MS), ("year", 50, 18262 * DAY_MS), ("year", 200, 73050 * DAY_MS),
)  # fmt: skip
"""Distances between marks: unit, how many of it, and how long that is at least, in milliseconds."""


@dataclass(slots=True, frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


def scale_for(
    highest: float, steps: int = 5, sizes: Sequence[float] = (1, 2, 2.5, 5, 10), *, whole: bool = False
) -> tuple[float, ...]:
    """Round values from 0 up to the first that is not below ``highest``; more ``sizes`` come closer to ``steps``.

    Of things that are counted there are only ``whole`` ones.
    """
    if highest <= 0:
        return 0.0, 1.0
    raw = highest / steps
    power = 10.0 ** floor(log10(raw))
    step = next(each * power for each in sizes if each * power >= raw * (1 - 1e-9))
    if whole:
        step = float(ceil(round(step, 9)))
    count = 1
    while count * step < highest * (1 - 1e-9):
        count += 1
    return tuple(round(step * number, 12) for number in range(count + 1))


def time_ticks(begin: int, end: int, where: tzinfo, most: int = 9) -> tuple[Tick, ...]:
    """Marks for a period in milliseconds, at round times of the zone; at least one, and about ``most``."""
    unit, count, _ = next((step for step in _STEPS if (end - begin) / step[2] <= most), _STEPS[-1])
    if unit == "minute":
        step = count * MINUTE_MS
        times = [datetime.fromtimestamp(at / 1000, where) for at in range(begin + -begin % step, end + 1, step)]
        return tuple(Tick(time.timestamp() * 1000, f"{time:%H:%M}") for time in times)
    found: list[Tick] = []
    for time in _times(begin, end, where, unit, count):
        at = time.timestamp() * 1000
        # Where the clock was set forward there is no such time.
        there = datetime.fromtimestamp(at / 1000, where).replace(tzinfo=None) == time.replace(tzinfo=None)
        if begin <= at <= end and there:
            found.append(Tick(at, _written(time, unit, first=not found)))
    return tuple(found) or (Tick(begin, datetime.fromtimestamp(begin / 1000, where).date().isoformat()),)


def _times(begin: int, end: int, where: tzinfo, unit: str, count: int) -> Iterator[datetime]:
    day = datetime.fromtimestamp(begin / 1000, where).date()
    last = datetime.fromtimestamp(end / 1000, where).date()
    while day <= last:
        if unit == "hour":
            yield from (datetime(day.year, day.month, day.day, hour, tzinfo=where) for hour in range(0, 24, count))
        elif _marked(day, unit, count):
            yield datetime(day.year, day.month, day.day, tzinfo=where)
        day += timedelta(days=1)


def _marked(day: date, unit: str, count: int) -> bool:
    if unit == "day":
        return not day.toordinal() % count
    if unit == "week":
        # Day 1 of the calendar was a Monday.
        return not (day.toordinal() - 1) % (7 * count)
    months = 12 * day.year + day.month - 1
    return day.day == 1 and not months % (count if unit == "month" else 12 * count)


def _written(time: datetime, unit: str, *, first: bool) -> str:
    if unit == "hour":
        return f"{time:%H:%M}" if time.hour else f"{time.day} {time:%b}"
    if unit == "year":
        return str(time.year)
    if unit == "month":
        return f"{time:%b %Y}" if first or time.month == 1 else f"{time:%b}"
    return f"{time.day} {time:%b}"


def with_other(
    rows: Sequence[tuple[str, Sequence[Number]]], most: int, other: str = "other"
) -> list[tuple[str, list[Number]]]:
    """The rows with the largest sums; where there are more than ``most``, the last is the sum of all others."""
    ordered = sorted(rows, key=lambda row: -sum(row[1]))
    kept = [(label, list(values)) for label, values in ordered[: most if len(ordered) <= most else most - 1]]
    rest = ordered[len(kept) :]
    if rest:
        kept.append(
            (f"{other} ({len(rest)})", [sum(column) for column in zip(*(each for _, each in rest), strict=True)])
        )
    return kept


def spread(places: Sequence[float], apart: float, end: float) -> list[float]:
    """Places in order, moved as little as it takes for them to be ``apart``, and before ``end`` where there is room."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + apart) if found else place)
    limit = end
    for at in range(len(found) - 1, -1, -1):
        found[at] = min(found[at], limit)
        limit = found[at] - apart
    return found


def thinned(
    pieces: Sequence[Bucket], values: Sequence[Values], most: int = MOST_POINTS
) -> tuple[tuple[Bucket, ...], list[Values], int]:
    """Neighbours joined until no more than ``most`` are left, each with its highest values; and how many in one."""
    of = -(-len(pieces) // most) if pieces else 1
    if of <= 1:
        return tuple(pieces), list(values), 1
    groups = range(0, len(pieces), of)
    joined = tuple(
        Bucket(pieces[at].begin, pieces[min(at + of, len(pieces)) - 1].end, pieces[at].label) for at in groups
    )
    found = [
        tuple(max((value for value in each[at : at + of] if value is not None), default=None) for at in groups)
        for each in values
    ]
    return joined, found, of


def gaps_of(spans: Sequence[tuple[int, int]], begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """When nothing was recorded between ``begin`` and ``end``, of what is long enough to be seen there."""
    found = []
    at = begin
    for since, to in spans:
        if since > at:
            found.append((at, min(since, end)))
        at = max(at, to)
        if at >= end:
            break
    if at < end:
        found.append((at, end))
    shortest = (end - begin) / MOST_POINTS
    return tuple((since, to) for since, to in found if to - since >= shortest)
