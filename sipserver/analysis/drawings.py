"""Which charts belong to which report, made of the rows that it has anyway.

A chart belongs to a part of its report and is made where that part is; what it could show besides it does without where
that is not there. The summary borrows parts of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sipserver.analysis.axes import Number, Values, gaps_of, thinned, time_ticks, with_other
from sipserver.analysis.charts import NOTHING, Bars, Chart, Curve, Grid, Mark, Series, shown
from sipserver.analysis.periods import DAY_MS, HOUR_MS, Bucket, buckets
from sipserver.analysis.report import WEEKDAYS, Asked, Rows, change, make
from sipserver.analysis.text import visible

Found = Mapping[str, Rows]
"""The parts of a report by name."""

MOST_BARS: Final = 12
MOST_PLACES: Final = 9
MOST_TRANSPORTS: Final = 8
UNKNOWN: Final = "not known"


@dataclass(slots=True, frozen=True)
class Frame:
    """The period of a report, as charts need it."""

    asked: Asked
    zone: str
    pieces: tuple[Bucket, ...]
    gaps: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, asked: Asked, zone: str) -> Frame:
        """The frame of what was asked for; ``zone`` is what its time zone is called."""
        gaps = gaps_of(asked.recorded.spans, asked.begin, asked.end)
        return cls(asked, zone, tuple(asked.pieces()), gaps)

    def empty(self, sentence: str) -> str:
        """What to say where there is nothing: this, if it would be on record."""
        return sentence if self.asked.was_recorded(self.asked.whole) else NOTHING


@dataclass(slots=True, frozen=True)
class Drawing:
    """A chart of a part of a report."""

    part: str
    make: Callable[[Frame, Found], Chart]


def _curve(
    frame: Frame, rows: Rows, columns: Sequence[tuple[str, str]], *, name: str, title: str, subtitle: str, unit: str,
    upper: str = "", steps: bool = False, counts: bool = False, marks: Sequence[Mark] = (), empty: str = NOTHING,
) -> Curve:  # fmt: skip
    """A curve of some columns of rows, of which there is one for each piece; ``counts`` are whole."""
    wanted = [column for column, _ in columns] + ([upper] if upper else [])
    pieces, values, joined = thinned(frame.pieces, [tuple(row.get(column) for row in rows) for column in wanted])
    if joined > 1:
        subtitle += f"; of each {joined} {frame.asked.by}s the highest"
    cut = _cut_short(frame)
    if cut:
        subtitle += f"; the {cut} {frame.asked.by} cut short"
    return Curve(
        name, title, subtitle, unit, f"time, {frame.zone}", pieces,
        tuple(Series(label, each) for (_, label), each in zip(columns, values, strict=False)),
        time_ticks(frame.asked.begin, frame.asked.end, frame.asked.where), frame.gaps,
        upper=values[-1] if upper else (), marks=tuple(marks), steps=steps, whole=counts,
        empty=empty,
    )  # fmt: skip


def _cut_short(frame: Frame) -> str:
    """Which of the pieces at the edges the period cuts short."""
    asked = frame.asked
    edges = (("first", asked.begin), ("last", asked.end))
    # Where a piece begins, the moment before it belongs to another.
    whole = {name for name, at in edges if len(buckets(at - 1, at + 1, asked.by, asked.where)) > 1}
    return " and the ".join(name for name, _ in edges if name not in whole)


def traffic(frame: Frame, found: Found) -> Chart:
    """Carried traffic, with the busiest hour where it was."""
    marks, subtitle = [], f"calls that were up at once, mean of each {frame.asked.by}"
    for row in found.get("busy_hours", ()):
        if row["busy_hour"] == "time-consistent" and frame.asked.end - frame.asked.begin > 2 * DAY_MS:
            subtitle += f"; busy hour of most days from {row['begins']}, {shown(row['erlang'])} Erlang"
        if row["busy_hour"].startswith("fixed, busiest"):
            begins = datetime.fromisoformat(row["begins"])
            text = f"busiest hour, {begins.day} {begins:%b} {begins:%H:%M}: {shown(row['erlang'])} Erlang"
            marks.append(Mark(begins.timestamp() * 1000 + HOUR_MS / 2, row["erlang"], text))
    rows = [row for row in found["traffic"] if row.get("erlang") is not None]
    highest = max((row["erlang_most"] for row in rows), default=0)
    if any(row["erlang_most"] - row["erlang"] > highest / 30 for row in rows):
        subtitle += "; pale: what calls with an uncertain end may add"
    return _curve(
        frame, found["traffic"], [("erlang", "carried")], name="traffic", title="Carried traffic", subtitle=subtitle,
        unit="Erlang", upper="erlang_most", steps=True, marks=marks,
    )  # fmt: skip


def weekdays(frame: Frame, found: Found) -> Chart:
    """Traffic by weekday and hour."""
    rows = found["weekdays"]
    hours = tuple(row["hour"][:2] for row in rows)
    cells = tuple(tuple(row[day] for row in rows) for day in WEEKDAYS)
    return Grid(
        "weekdays", "When people talk", "carried traffic in Erlang, mean of each hour of the week", "Erlang",
        tuple(day[:3].capitalize() for day in WEEKDAYS), hours, f"hour of the day, {frame.zone}", "weekday",
        cells, "not recorded",
    )  # fmt: skip


_BINS: Final = ((1, "1"), (2, "2"), (5, "3 to 5"), (10, "6 to 10"), (20, "11 to 20"), (50, "21 to 50"),
    (100, "51 to 100"), (1 << 62, "more than 100"))  # fmt: skip


def parties(frame: Frame, found: Found) -> Chart:
    """How many parties placed how many calls."""
    counts = dict.fromkeys((text for _, text in _BINS), 0)
    for row in found["parties"]:
        counts[next(text for most, text in _BINS if row["placed"] <= most)] += row["parties"]
    while counts and not next(reversed(counts.values())):
        counts.popitem()
    total = sum(counts.values())
    return Bars(
        "parties", "How often people call", "parties by the calls that they placed in the period", "parties",
        tuple(f"{text} call{'s' * (text != '1')}" for text in counts), (Series("parties", tuple(counts.values())),),
        tuple(_share(count, total) for count in counts.values()),
        empty=frame.empty("Nobody placed a call in this period."),
    )  # fmt: skip


def delays(frame: Frame, found: Found) -> Chart:
    """Percentiles of the post-dial delay."""
    columns = [(f"pdd_p{percent}_ms", f"p{percent}") for percent in (99, 95, 90, 50)]
    return _curve(
        frame, found["quality"], columns, name="delays", title="How long people wait until it rings",
        subtitle=f"post-dial delay, percentiles of each {frame.asked.by}: p95 is what 95 in 100 calls do not exceed",
        unit="milliseconds", empty=frame.empty("No call rang or was answered in this period."),
    )  # fmt: skip


def ratios(frame: Frame, found: Found) -> Chart:
    """How much of what was tried came about."""
    columns = [("ner_percent", "NER"), ("seer_percent", "SEER"), ("ser_percent", "SER")]
    return _curve(
        frame, found["quality"], columns, name="ratios", title="How many calls come about",
        subtitle="SER answered; SEER answered, busy, declined or away; NER the network did its part", unit="% of calls",
        empty=frame.empty("There were no calls in this period."),
    )  # fmt: skip


def outcomes(frame: Frame, found: Found) -> Chart:
    """What became of calls."""
    counts: dict[str, int] = {}
    for row in found["outcomes"]:
        name = visible(row["outcome"] or "still up or ringing").replace("_", " ")
        counts[name] = counts.get(name, 0) + row["calls"]
    total = sum(counts.values())
    return _bars(
        [(name, (count,)) for name, count in counts.items()], ("calls",), name="outcomes", title="What became of calls",
        subtitle="calls that began in the period", unit="calls", notes=lambda count: _share(count, total),
        empty=frame.empty("There were no calls in this period."),
    )  # fmt: skip


def reported(frame: Frame, found: Found) -> Chart:
    """What endpoints measured."""
    return _curve(
        frame, found["reported"], [("mos_lq_p50", "median"), ("mos_lq_p5", "p5")], name="reported",
        title="How good calls sound", subtitle="listening quality that endpoints reported, and the worst 5 in 100",
        unit="MOS, 1 to 5", empty=frame.empty("No endpoint reported listening quality in this period."),
    )  # fmt: skip


def kinds(frame: Frame, found: Found) -> Chart:
    """Errors by kind, against the period before."""
    rows = found["kinds"]
    known = frame.asked.was_recorded(frame.asked.before)
    each = [(visible(f"{row['kind']} ({row['answered_by']})"), (row["errors"], row["before"] or 0)) for row in rows]
    kept = with_other(each, MOST_BARS)
    kept.sort(key=lambda one: -one[1][0])
    before = tuple(values[1] for _, values in kept) if known else ()
    return Bars(
        "kinds", "What went wrong",
        "errors by kind and by who answered; " + (
            "the line across each bar is the period before" if known else "nothing is known of the period before"
        ),
        "errors", tuple(label for label, _ in kept), (Series("errors", tuple(values[0] for _, values in kept)),),
        tuple(_changed(now, then) for _, (now, then) in kept) if known else (), before,
        empty=frame.empty("There were no errors in this period."),
    )  # fmt: skip


def products(frame: Frame, found: Found) -> Chart:
    """Error rates of the products with the most errors."""
    rows = sorted(found["products"], key=lambda row: -row["errors"])[:MOST_BARS]
    rows = sorted((row for row in rows if row["errors_per_100"] is not None), key=lambda row: -row["errors_per_100"])
    known = any(row["before"] is not None for row in rows)
    return Bars(
        "products", "Where it goes wrong",
        f"the {len(rows)} products and versions with the most errors" + (
            "; the line across each bar is the period before" if known else ""
        ),
        "errors for a hundred sign-ins and calls",
        tuple(visible(f"{row['product'] or UNKNOWN} {row['version'] or ''}".rstrip()) for row in rows),
        (Series("errors", tuple(row["errors_per_100"] for row in rows)),),
        tuple(_changed(row["errors_per_100"], row["before"] or 0) if row["before"] is not None else "" for row in rows),
        tuple(row["before"] for row in rows) if known else (), whole=False,
        empty=frame.empty("There were no errors of a known product in this period."),
    )  # fmt: skip


def errors(frame: Frame, found: Found) -> Chart:
    """Errors over time."""
    return _curve(
        frame, found["errors"], [("errors", "errors")], name="errors", title="When it went wrong",
        subtitle=f"errors in each {frame.asked.by}", unit="errors", steps=True, counts=True,
    )  # fmt: skip


def features(frame: Frame, found: Found) -> Chart:
    """The share of video and of content."""
    columns = [("video_percent", "video"), ("content_percent", "content")]
    return _curve(
        frame, found["features"], columns, name="features", title="How many calls have video, and content",
        subtitle="answered calls that had a picture, or a second, presenting one, at any time",
        unit="% of answered calls", empty=frame.empty("No call was answered in this period."),
    )  # fmt: skip


def media(frame: Frame, found: Found) -> Chart:
    """Codecs and resolutions."""
    each = [
        (
            visible(" ".join(row[key] for key in ("kind", "codec", "resolution") if row[key] is not None)),
            (row["calls"],),
        )
        for row in found["media"]
    ]
    return _bars(
        each, ("calls",), name="media", title="Codecs and resolutions", unit="calls",
        subtitle="answered calls that used them; a call that used several is in each",
        empty=frame.empty("No call agreed on media in this period."),
    )  # fmt: skip


def place(row: Mapping[str, Any], side: str) -> str:
    """The narrowest place that is known of a side."""
    country, region, site = (row[f"{side}_{what}"] for what in ("country", "region", "site"))
    if site is not None:
        return visible(f"{site}, {country}" if country is not None else site)
    return visible(next((each for each in (region, country) if each is not None), UNKNOWN))


def matrix(frame: Frame, found: Found) -> Chart:
    """Answered calls from where to where."""
    pairs = [(place(row, "caller"), place(row, "callee"), row["answered"]) for row in found["matrix"]]
    return _crossed(
        pairs, MOST_PLACES, name="matrix", title="From where to where people call",
        subtitle="answered calls; where the called side is, is known of these alone", across="to", down="from",
        empty=frame.empty("No call was answered in this period."),
    )  # fmt: skip


def agents(frame: Frame, found: Found) -> Chart:
    """Calls by agent."""
    each = [(visible(row["agent"]), (row["placed"], row["received"])) for row in found["agents"]]
    return _bars(
        each, ("placed", "received and answered"), name="agents", title="What people call with", unit="calls",
        subtitle="calls by agent", empty=frame.empty("No agent placed or answered a call in this period."),
    )  # fmt: skip


def transports(frame: Frame, found: Found) -> Chart:
    """Answered calls by the transports of both sides."""
    pairs = [
        (visible(row["caller_transport"] or UNKNOWN), visible(row["callee_transport"] or UNKNOWN), row["answered"])
        for row in found["transports"]
    ]
    return _crossed(
        pairs, MOST_TRANSPORTS, name="transports", title="Over which transports people call",
        subtitle="answered calls", across="transport of the called side", down="transport of the caller",
        empty=frame.empty("No call was answered in this period."),
    )  # fmt: skip


def active(frame: Frame, found: Found) -> Chart:
    """Parties that were there."""
    return _curve(
        frame, found["sign_ins"], [("active", "active"), ("signed_in", "signed in")], name="active",
        title="How many people are there", unit="parties",
        subtitle=f"parties that signed in, and with those that placed or answered calls, in each {frame.asked.by}",
        counts=True,
    )  # fmt: skip


def registrations(frame: Frame, found: Found) -> Chart:
    """New bindings and refusals."""
    return _curve(
        frame, found["sign_ins"], [("bound", "bound"), ("refused", "refused")], name="registrations",
        title="Sign-ins, and how many are refused", subtitle=f"without refreshes, in each {frame.asked.by}",
        unit="registrations", counts=True,
    )  # fmt: skip


def _bars(
    each: Sequence[tuple[str, Sequence[Number]]], names: Sequence[str], *, name: str, title: str, subtitle: str,
    unit: str, empty: str, notes: Callable[[Number], str] | None = None,
) -> Bars:  # fmt: skip
    """Bars of counts, the largest first and what is too much for a picture in the last."""
    kept = with_other([row for row in each if sum(row[1])], MOST_BARS)
    series = tuple(Series(title, tuple(values[at] for _, values in kept)) for at, title in enumerate(names))
    return Bars(
        name, title, subtitle, unit, tuple(label for label, _ in kept), series,
        tuple(notes(sum(values)) for _, values in kept) if notes else (), empty=empty,
    )  # fmt: skip


def _crossed(
    pairs: Sequence[tuple[str, str, int]], most: int, *, name: str, title: str, subtitle: str,
    across: str, down: str, empty: str,
) -> Grid:  # fmt: skip
    """Counts of pairs, of the names that are in most of them, in the same order on both sides."""
    pairs = [pair for pair in pairs if pair[2]]
    totals: dict[str, int] = {}
    for one, other, count in pairs:
        for label in dict.fromkeys((one, other)):
            if label != UNKNOWN:
                totals[label] = totals.get(label, 0) + count
    labels = [label for label, _ in with_other([(label, (count,)) for label, count in totals.items()], most)]
    if any(UNKNOWN in pair for pair in pairs):
        labels.append(UNKNOWN)
    rest = next((label for label in labels if label not in totals and label != UNKNOWN), "")
    counts: dict[tuple[str, str], int] = {}
    for one, other, count in pairs:
        key = one if one in labels else rest, other if other in labels else rest
        counts[key] = counts.get(key, 0) + count
    cells: tuple[Values, ...] = tuple(tuple(counts.get((one, other), 0) for other in labels) for one in labels)
    return Grid(
        name, title, subtitle, "answered calls", tuple(labels), tuple(labels), across, down, cells, UNKNOWN,
        numbers=True, empty=empty,
    )  # fmt: skip


def _share(count: Number, total: Number) -> str:
    return f"({100 * count / total:.1f} %)" if total else ""


def _changed(now: Number, then: Number) -> str:
    """How the figure of now stands to that of the period before."""
    much = change(now, then)
    if much is None:
        return "(new)" if now else ""
    return f"({much:+.0f} %)".replace("-", "\N{MINUS SIGN}") if round(much) else "(as before)"


CHARTS: Final[dict[str, tuple[Drawing, ...]]] = {
    "summary": (
        Drawing("traffic", traffic), Drawing("weekdays", weekdays), Drawing("quality", delays),
        Drawing("matrix", matrix), Drawing("kinds", kinds),
    ),
    "traffic": (Drawing("traffic", traffic), Drawing("weekdays", weekdays), Drawing("parties", parties)),
    "quality": (
        Drawing("quality", delays), Drawing("quality", ratios), Drawing("outcomes", outcomes),
        Drawing("reported", reported),
    ),
    "errors": (Drawing("kinds", kinds), Drawing("products", products), Drawing("errors", errors)),
    "features": (Drawing("features", features), Drawing("media", media)),
    "locations": (Drawing("matrix", matrix),),
    "devices": (Drawing("agents", agents), Drawing("transports", transports)),
    "sign-ins": (Drawing("sign_ins", active), Drawing("sign_ins", registrations)),
}  # fmt: skip
"""The charts of each report, in order."""


TITLES: Final = {
    "summary": "How people call", "traffic": "Traffic", "quality": "Quality of service", "errors": "Errors",
    "features": "Video, content and codecs", "locations": "From where to where", "devices": "Devices and transports",
    "sign-ins": "Sign-ins and active parties",
}  # fmt: skip
"""What each report is called above its charts."""


def drawn(name: str, found: Found, frame: Frame) -> list[tuple[str, Chart]]:
    """The charts of a report whose parts are there, each with the part that it belongs to."""
    return [(drawing.part, drawing.make(frame, found)) for drawing in CHARTS[name] if drawing.part in found]


def charts(name: str, found: Found, frame: Frame) -> list[Chart]:
    """The charts of a report whose parts are there."""
    return [chart for _, chart in drawn(name, found, frame)]


_LENT: Final = (("traffic", "traffic"), ("traffic", "busy_hours"), ("quality", "quality"), ("locations", "matrix"))
LENT_PASSES: Final = {"summary": 2}
"""How often they go through the period and tell of it, as ``report.PASSES``."""


def lent(name: str, asked: Asked, *, briefly: bool) -> dict[str, Rows]:
    """The parts of other reports that the charts of this one show; ``briefly`` those that cost nothing more."""
    if name != "summary":
        return {}
    rows = make("traffic", asked, "weekdays")
    if not briefly:
        for other, part in _LENT:
            rows |= make(other, asked, part)
        # Errors have no site.
        if asked.kpis.site is None:
            rows |= make("errors", asked, "kinds")
    return rows
