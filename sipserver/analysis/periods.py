"""Periods of a report: hours, days, weeks and months as clocks on the wall have them, and what was on record in them.

Buckets are cut in a time zone: a day has 23 or 25 hours where the clock is set that day, and the hour that comes twice
is two buckets. Weeks begin on Monday. The first and the last bucket may be cut short by the period itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from operator import itemgetter
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sipserver.calls.times import Stamp, parse_stamp
from sipserver.storage.database import sqlite

By = Literal["hour", "day", "week", "month"]
UNITS: Final[tuple[By, ...]] = ("hour", "day", "week", "month")
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
MAX_BUCKETS: Final = 100_000
"""More are refused: nobody reads them."""

_STAMP: Final = Stamp()


@dataclass(slots=True, frozen=True)
class Bucket:
    """A piece of time, from ``begin`` up to but without ``end``, in milliseconds."""

    begin: int
    end: int
    label: str
    """When it begins, as clocks in the zone show it."""

    @property
    def bounds(self) -> dict[str, str]:
        """The parameters ``from`` and ``to`` of a query, as the store writes times."""
        return {"from": stamp(self.begin), "to": stamp(self.end)}


def stamp(at: int) -> str:
    """A time as the store writes it."""
    return _STAMP(at) or ""


def zone(name: str) -> tzinfo:
    """The time zone of this name; raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone: use a name such as Europe/Berlin or UTC") from error


def buckets(begin: int, end: int, by: By, where: tzinfo) -> list[Bucket]:
    """The period in pieces; raises ValueError where there would be more than MAX_BUCKETS."""
    found: list[Bucket] = []
    at = begin
    while at < end:
        following = min(_next(at, by, where), end)
        found.append(Bucket(at, following, label(at, by, where)))
        if len(found) > MAX_BUCKETS:
            raise ValueError(f"more than {MAX_BUCKETS} rows: use longer pieces or a shorter period")
        at = following
    return found


def label(at: int, by: By, where: tzinfo) -> str:
    """What a bucket that begins then is called: a date, or a date with an hour and its distance from UTC."""
    local = datetime.fromtimestamp(at / 1000, where)
    return local.isoformat(timespec="minutes") if by == "hour" else local.date().isoformat()


def _next(at: int, by: By, where: tzinfo) -> int:
    """The end of the bucket that holds this moment."""
    local = datetime.fromtimestamp(at // 1000, where)
    if by == "hour":
        # On the line of true time, so that an hour which comes twice is two; most zones change at whole hours.
        into = (local.minute * 60 + local.second) * 1000 + at % 1000
        return at - into + HOUR_MS
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if by == "day":
        following = midnight + timedelta(days=1)
    elif by == "week":
        following = midnight + timedelta(days=7 - midnight.weekday())
    else:
        following = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    # Where the clock is set forward at midnight there is no such time, and the day begins at the next there is.
    found = int(following.astimezone(UTC).timestamp()) * 1000
    return found if found > at else at + HOUR_MS


@dataclass(slots=True, frozen=True)
class Recorded:
    """When servers wrote to this store; between them nothing was recorded, and a zero there would be invented."""

    spans: Sequence[tuple[int, int]]
    """From and to, in order and apart, in milliseconds."""

    def within(self, begin: int, end: int) -> int:
        """How much of a piece of time was recorded, in milliseconds."""
        found = 0
        for place in range(bisect_right(self.spans, begin, key=itemgetter(1)), len(self.spans)):
            since, to = self.spans[place]
            if since >= end:
                break
            found += min(end, to) - max(begin, since)
        return found

    @property
    def first(self) -> int | None:
        """When the record begins."""
        return self.spans[0][0] if self.spans else None

    @property
    def last(self) -> int | None:
        """Up to when it is known."""
        return max(to for _, to in self.spans) if self.spans else None


def recorded(connection: sqlite.Connection) -> Recorded:
    """When servers ran, by ``v_runs``; those of several nodes may overlap, and count once.

    A store without runs, as its first versions made them, is taken as recorded from its first call to its last.
    """
    rows = connection.execute(
        "SELECT started_at, max(coalesce(stopped_at, last_alive_at), started_at) FROM v_runs ORDER BY started_at"
    )
    spans = list(_joined((parse_stamp(since), parse_stamp(to)) for since, to in rows))
    if not spans:
        first, last = connection.execute(
            "SELECT min(started_at), max(coalesce(ended_at, started_at)) FROM calls"
        ).fetchone()
        if first is not None:
            spans = [(parse_stamp(first), parse_stamp(last) + 1)]
    return Recorded(spans)


def _joined(spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for since, to in spans:
        if current is None:
            current = since, to
        elif since <= current[1]:
            current = current[0], max(current[1], to)
        else:
            yield current
            current = since, to
    if current is not None:
        yield current
