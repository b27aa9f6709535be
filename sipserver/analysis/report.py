"""The reports: which figures belong together, period by period. Whoever prints them decides on the form.

A report is made of parts, each a list of rows. In a piece of the period in which no server ran nothing was recorded, so
everything but its name is None there; where one ran for some of it, the figures are what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Final

from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import HOUR_MS, Bucket, By, Recorded, buckets, label
from sipserver.analysis.traffic import Cell, cells, channels_for, hourly
from sipserver.analysis.views import Values

Rows = list[Values]


@dataclass(slots=True)
class Asked:
    """What a report is about. Times are milliseconds."""

    kpis: Kpis
    recorded: Recorded
    begin: int
    end: int
    by: By
    where: tzinfo
    blocking: float = 0.01
    """Which share of calls may be lost for want of channels."""
    progress: Callable[[int], None] = lambda _: None
    """Told how many milliseconds of the period are done since it was last told."""
    _cells: list[Cell] | None = field(default=None, init=False)

    @property
    def whole(self) -> Bucket:
        """The period in one piece."""
        return Bucket(self.begin, self.end, label(self.begin, "day", self.where))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the queries about the whole period are asked with."""
        return self.kpis.bounds(self.begin, self.end)

    @property
    def before(self) -> Bucket:
        """As long a period before it."""
        return Bucket(2 * self.begin - self.end, self.begin, "")

    def pieces(self) -> list[Bucket]:
        """The period as it was asked for: by hour, day, week or month."""
        return buckets(self.begin, self.end, self.by, self.where)

    def was_recorded(self, bucket: Bucket) -> bool:
        """Whether anything would be on record if it had happened then."""
        return self.recorded.within(bucket.begin, bucket.end) > 0

    def by_piece(self, *figures: Callable[[list[Bucket]], list[Values]]) -> Rows:
        """A row for each piece."""
        pieces = self.pieces()
        recorded = [self.recorded.within(bucket.begin, bucket.end) for bucket in pieces]
        known = [bucket for bucket, there in zip(pieces, recorded, strict=True) if there]
        columns = []
        for number, figure in enumerate(figures, 1):
            columns.append(figure(known))
            self._tell(number, len(figures))
        rows = {bucket.begin: row for bucket, *each in zip(known, *columns, strict=True) for row in [_joined(each)]}
        names = list(next(iter(rows.values()), {}))
        # Absent is absent, but in the same columns.
        return [
            {
                self.by: bucket.label,
                **rows.get(bucket.begin, dict.fromkeys(names)),
                "recorded_percent": 100.0 * there / (bucket.end - bucket.begin),
            }
            for bucket, there in zip(pieces, recorded, strict=True)
        ]

    def _tell(self, step: int, steps: int) -> None:
        """So many steps of one that goes through the period are done."""
        length = self.end - self.begin
        self.progress(length * step // steps - length * (step - 1) // steps)

    def once(self, figure: Callable[[Bucket], Rows]) -> Rows:
        """The rows for the whole period; none where nothing was recorded."""
        return figure(self.whole) if self.was_recorded(self.whole) else []

    def swept(self) -> list[Cell]:
        """The cells of the period, filled."""
        if self._cells is None:
            self._cells = cells(self.begin, self.end, [bucket.begin for bucket in self.pieces()])
            made = self.kpis.source.sweep(
                self._cells, self.kpis.of_calls, self.parameters, self.recorded.last or self.end, self.progress
            )
            for sql in made:
                self.kpis.note("traffic", sql, self.kpis.of_calls)
        return self._cells


@dataclass(slots=True, frozen=True)
class Part:
    """Some rows of a report, with what they are."""

    name: str
    title: str
    rows: Callable[[Asked], Rows]


def _traffic(asked: Asked) -> Rows:
    found = asked.swept()
    at = 0

    def carried(pieces: list[Bucket]) -> list[Values]:
        return [in_piece(bucket) for bucket in pieces]

    def in_piece(bucket: Bucket) -> Values:
        nonlocal at
        while at < len(found) and found[at].begin < bucket.begin:
            at += 1
        mine: list[Cell] = []
        while at < len(found) and found[at].begin < bucket.end:
            mine.append(found[at])
            at += 1
        # Calls were carried only while a server ran to see it.
        known = asked.recorded.within(bucket.begin, bucket.end)
        return {
            "erlang": sum(cell.talk_ms for cell in mine) / known,
            "erlang_most": sum(cell.talk_most_ms for cell in mine) / known,
            "peak_calls": max(cell.peak for cell in mine),
            "peak_calls_most": max(cell.peak_most for cell in mine),
        }

    return asked.by_piece(asked.kpis.placed_each, carried, asked.kpis.peak_rates)


def busy_hours(asked: Asked) -> Rows:
    """The time-consistent busy hour, the busiest full hour of any day, and the mean over days of each day's busiest."""
    # By minutes since midnight, and by the number of the day: a year has 35,000 of these hours.
    by_time: dict[int, list[int]] = {}
    dates: dict[int, set[int]] = {}
    by_day: dict[int, tuple[int, int]] = {}
    for begin, talk in hourly(asked.swept()):
        if asked.recorded.within(begin, begin + HOUR_MS) < HOUR_MS:
            continue
        local = datetime.fromtimestamp(begin / 1000, asked.where)
        day, minute = local.toordinal(), 60 * local.hour + local.minute
        by_time.setdefault(minute, []).append(talk)
        dates.setdefault(minute, set()).add(day)
        if not local.minute and talk > by_day.get(day, (-1, 0))[0]:
            by_day[day] = talk, begin
    if not by_time or not by_day:
        return []
    days = max(map(len, dates.values()))
    # Hours that few days have, as at the change of the clock, or at the edges of the period, are no habit.
    means = {time: sum(each) / len(each) for time, each in by_time.items() if 2 * len(dates[time]) > days}
    same = max(sorted(means), key=means.__getitem__)
    talk, begin = max(by_day.values(), key=lambda each: (each[0], -each[1]))
    mean = sum(each for each, _ in by_day.values()) / len(by_day)
    rows = [
        ("time-consistent", f"{same // 60:02}:{same % 60:02}", means[same], len(dates[same])),
        ("fixed, busiest of all", label(begin, "hour", asked.where), talk, 1),
        ("fixed, mean of the days", None, mean, len(by_day)),
    ]
    return [
        {
            "busy_hour": name, "begins": when, "days": count, "erlang": each / HOUR_MS,
            "channels": channels_for(each / HOUR_MS, asked.blocking), "blocking": asked.blocking,
        }
        for name, when, each, count in rows
    ]  # fmt: skip


WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def weekdays(asked: Asked) -> Rows:
    """The mean traffic at each hour of each weekday, as clocks in the zone show them; None where nothing was recorded.

    A cell lies within one hour of the clock, also in zones that differ from UTC by half or quarter hours. The hour that
    comes twice when the clock is set back counts twice, the one that is left out then is not missed.
    """
    talk: dict[tuple[int, int], int] = {}
    known: dict[tuple[int, int], int] = {}
    for cell in asked.swept():
        there = asked.recorded.within(cell.begin, cell.end)
        if there:
            local = datetime.fromtimestamp(cell.begin / 1000, asked.where)
            place = local.hour, local.weekday()
            talk[place] = talk.get(place, 0) + cell.talk_ms
            known[place] = known.get(place, 0) + there
    if not known:
        return []
    return [
        {"hour": f"{hour:02}:00", **{
            name: talk[hour, day] / known[hour, day] if (hour, day) in known else None
            for day, name in enumerate(WEEKDAYS)
        }}
        for hour in range(24)
    ]  # fmt: skip


def _quality(asked: Asked) -> Rows:
    kpis = asked.kpis
    return asked.by_piece(
        kpis.sessions_each, kpis.delays_each, kpis.disconnects_each, kpis.registration_delays_each
    )  # fmt: skip


def _changes(now: Iterable[Values], before: Iterable[Values] | None, keys: tuple[str, ...], value: str) -> Rows:
    """The rows of now with what there was before; those that were there only before come last, with 0 now."""
    if before is None:
        return [{**row, "before": None, "change_percent": None} for row in now]
    earlier = {tuple(row[key] for key in keys): row[value] or 0 for row in before}
    rows = [{**row, "before": earlier.pop(tuple(row[key] for key in keys), 0)} for row in now]
    rows += [{**dict(zip(keys, key, strict=True)), value: 0, "before": count} for key, count in earlier.items()]
    return [{**row, "change_percent": change(row[value], row["before"])} for row in rows]


def change(now: float | None, before: float | None) -> float | None:
    """How much more there is than before, in percent; None where there was nothing, or one of them is not known."""
    return None if now is None or not before else 100.0 * (now - before) / before


def _kinds(asked: Asked) -> Rows:
    before = asked.kpis.kinds(asked.before) if asked.was_recorded(asked.before) else None
    return _changes(asked.once(asked.kpis.kinds), before, ("kind", "answered_by"), "errors")


def _products(asked: Asked) -> Rows:
    """Error rates by product and version, now and before."""

    def rates(bucket: Bucket) -> Rows:
        return asked.kpis.source.error_rates(bucket.begin, bucket.end)

    before = rates(asked.before) if asked.was_recorded(asked.before) else []
    earlier = {(row["product"], row["version"]): row["errors_per_100"] for row in before}
    text = (asked.kpis.agent or "").lower()
    rows = [
        {**row, "before": earlier.get((row["product"], row["version"]))}
        for row in asked.once(rates)
        if text in f"{row['product'] or ''}/{row['version'] or ''}".lower()
    ]
    return [{**row, "change_percent": change(row["errors_per_100"], row["before"])} for row in rows]


def _by_error(asked: Asked) -> Rows:
    return asked.by_piece(asked.kpis.errors_each)


SUMMARY: Final = (
    "calls", "answered", "minutes", "ser_percent", "seer_percent", "isa_percent", "scr_percent", "asr_percent",
    "ner_percent", "abr_percent", "acd_s", "srd_s", "srd_failed_s", "pdd_p50_ms", "pdd_p95_ms", "reachable_percent",
    "video_percent", "video_minutes", "content_percent", "erlang", "peak_calls", "peak_calls_per_s", "active",
    "refused_percent", "errors",
)  # fmt: skip
"""The figures of the summary, in order."""


def _summary(asked: Asked) -> Rows:
    now = _figures(asked)
    before = _figures(
        Asked(
            asked.kpis, asked.recorded, asked.before.begin, asked.before.end, asked.by, asked.where,
            progress=asked.progress,
        )
    )  # fmt: skip
    rows: Rows = [
        {"figure": name, "value": now.get(name), "before": before.get(name),
            "change_percent": change(now.get(name), before.get(name))}
        for name in SUMMARY
    ]  # fmt: skip
    for row in busy_hours(asked)[:1]:
        rows.append({"figure": "busy_hour", "value": row["begins"], "before": None, "change_percent": None})
        rows.append({"figure": "channels", "value": row["channels"], "before": None, "change_percent": None})
    return rows


def _figures(asked: Asked) -> Values:
    """All figures of the summary for the whole period; empty where nothing was recorded."""
    whole, kpis = asked.whole, asked.kpis
    known = asked.recorded.within(whole.begin, whole.end)
    if not known:
        return {}
    found = asked.swept()
    return {
        **kpis.overall(whole), **kpis.delays(whole), **kpis.attempts_each([whole])[0],
        **kpis.active(whole),
        "errors": kpis.errors(whole), "peak_calls_per_s": kpis.peak_rate(whole),
        "erlang": sum(cell.talk_ms for cell in found) / known,
        "peak_calls": max((cell.peak for cell in found), default=0),
    }  # fmt: skip


REPORTS: Final[dict[str, tuple[Part, ...]]] = {
    "summary": (Part("figures", "Figures, and those of the period before", _summary),),
    "traffic": (
        Part("traffic", "Traffic", _traffic),
        Part("busy_hours", "Busy hours, and the channels that they take", busy_hours),
        Part("parties", "Parties by the calls that they placed", lambda asked: asked.once(asked.kpis.parties)),
        Part("weekdays", "Traffic by hour and weekday, in Erlang", weekdays),
    ),
    "quality": (
        Part("quality", "Quality of service", _quality),
        Part("outcomes", "What became of calls", lambda asked: asked.once(asked.kpis.outcomes)),
        Part("retries", "Tried again after a call came to nothing", lambda asked: asked.once(asked.kpis.retries)),
        Part("reported", "What endpoints and relays measured", lambda asked: asked.by_piece(asked.kpis.reported_each)),
    ),
    "errors": (
        Part("kinds", "Errors by kind", _kinds),
        Part("products", "Errors by product and version", _products),
        Part("errors", "Errors", _by_error),
    ),
    "features": (
        Part("features", "Video and content", lambda asked: asked.by_piece(asked.kpis.features_each)),
        Part("media", "Codecs and resolutions", lambda asked: asked.once(asked.kpis.media)),
    ),
    "locations": (
        Part("matrix", "Calls from where to where", lambda asked: asked.once(asked.kpis.matrix)),
    ),
    "devices": (
        Part("agents", "Calls by agent", lambda asked: asked.once(asked.kpis.agents)),
        Part("transports", "Calls by transport", lambda asked: asked.once(asked.kpis.transports)),
    ),
    "sign-ins": (
        Part("sign_ins", "Sign-ins and active parties", lambda asked: asked.by_piece(asked.kpis.registrations_each)),
    ),
}  # fmt: skip
"""Every report, and its parts in order."""


PASSES: Final = {"summary": 2, "traffic": 2, "quality": 2, "errors": 1, "features": 1, "sign-ins": 1}
"""How often a report goes through its period and tells of it."""


def make(name: str, asked: Asked, only: str | None = None) -> dict[str, Rows]:
    """The parts of a report; or ``only`` this one."""
    return {part.name: _rounded(part.rows(asked)) for part in REPORTS[name] if only in (None, part.name)}


def _joined(rows: Iterable[Values]) -> Values:
    """One row of the columns of several."""
    return {name: value for row in rows for name, value in row.items()}


def _rounded(rows: Rows) -> Rows:
    """Figures as far as they mean anything."""
    return [{key: _short(value) for key, value in row.items()} for row in rows]


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
