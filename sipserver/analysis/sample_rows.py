"""The rows of a store from the model of a service (``sample_model``), day by day. No store, no clock.

They are what a server would have written: ``sipserver check`` finds nothing wrong with them.
"""

from __future__ import annotations

import heapq
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Final

from sipserver.analysis.periods import stamp
from sipserver.analysis.sample_model import (
    DAY_MS,
    HOUR_MS,
    QUANTILES,
    Call,
    Hour,
    Population,
    draw_call,
    hours,
    lognormal,
    runs,
)
from sipserver.calls.delays import ACCEPTED, BOUNDS
from sipserver.calls.times import uuid7

BATCH: Final = 5_000
"""Calls that are written at once."""

TABLES: Final = {
    "calls": """id call_id caller callee started_at ringing_at answered_at confirmed_at ended_at setup_ms ring_ms
        talk_ms disconnect_ms outcome sip_status ended_by end_cause end_uncertainty_ms video content encrypted video_ms
        offered_video
        caller_country caller_region caller_city caller_site caller_location_source callee_country callee_region
        callee_city callee_site callee_location_source caller_agent callee_agent caller_transport callee_transport
        caller_network callee_network devices node""",
    "call_branches": """call branch tried_at ringing_at answered_at ended_at status outcome agent transport network""",
    "call_media": """call number stream kind accepted codec direction bandwidth resolution max_pixels encrypted
        from_at to_at branch""",
    "stored_events": "call number at kind side status detail",
    "sign_ins": """id at party outcome status agent transport network country region city site location_source count
        last_at node""",
    "sign_in_days": "day party refreshes first_at last_at",
    "errors": "id at kind method status answered_by agent party network detail count last_at node call target",
    "quality_reports": """id digest at call party side source format kind final direction media_kind codec loss_percent
        jitter_ms round_trip_ms mos_lq mos_cq agent node""",
    "registration_delays": "at outcome up_to_ms count",
    "server_runs": "id node started_at last_alive_at stopped_at calls_before placed closed lost set_aside recovered_at "
        "recovered",
}  # fmt: skip
"""Which columns are written, in this order."""

NODE: Final = "sample"

RETRIED: Final = {"cancelled": 0.25, "no_answer": 0.3, "busy": 0.45, "offline": 0.2, "failed": 0.6, "declined": 0.05}
"""How often somebody tries again after a call came to this."""
FIRST_TRIES: Final = 0.91
"""How many calls are no such second try."""
QUIET_MS: Final = 120_000
"""Nobody calls so shortly before the end, so that no call is left without one."""

_PAUSE_MS: Final = lognormal(11.2, 1.0)
"""Before somebody tries again."""
_BYE_MS: Final = lognormal(4.2, 0.7)
_WRITTEN_MS: Final = lognormal(1.6, 0.8)

_NOWHERE: Final = (None,) * 5

Rows = dict[str, list[tuple[Any, ...]]]
Counts = dict[int, tuple[int, int]]
"""By the number of a run of the server: calls that it placed, and those that the next one had to close."""
Batch = tuple[Rows, Counts | None]
"""Some rows; the last ones of a day come with its counts."""


@dataclass(slots=True, frozen=True)
class Service:
    """What the sample is of. Times are milliseconds and whole hours."""

    calls: int
    subscribers: int
    begin: int
    end: int
    seed: int

    @property
    def days(self) -> list[int]:
        """The days (UTC) of it, by their beginnings."""
        return list(range(self.begin - self.begin % DAY_MS, self.end, DAY_MS))


class Stamps(dict[int | None, str | None]):
    """Times as the store writes them (``calls.times.Stamp``); the rows of a call have each of its times often."""

    def __init__(self) -> None:
        super().__init__({None: None})
        self._days: dict[int, str] = {}
        self._seconds = [
            f"T{hour:02}:{minute:02}:{second:02}." for hour in range(24) for minute in range(60) for second in range(60)
        ]
        self._milliseconds = [f"{each:03}Z" for each in range(1000)]

    def __missing__(self, at: int) -> str:
        day, rest = divmod(at, DAY_MS)
        text = self._days.get(day)
        if text is None:
            text = self._days[day] = stamp(at)[:10]
        second, millisecond = divmod(rest, 1000)
        found = self[at] = text + self._seconds[second] + self._milliseconds[millisecond]
        return found

    def forget(self) -> None:
        """What was written; others come next."""
        self.clear()
        self[None] = None


class Sample:
    """Draws the calls of a day in order of their beginning, and all that belongs to them.

    Each day has generators of its own, so days can be drawn side by side and come out the same.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._calls = service.calls
        self._begin, self._end = service.begin, service.end
        self._population = Population(Random(service.seed), service.subscribers)  # noqa: S311 - as below
        self._runs = runs(service.begin, service.end)
        self._hours = self._hourly()
        self._stamp = Stamps()
        self._rows: Rows = {}
        self._retries: list[tuple[int, int, int]] = []
        self._day = ""
        self._counts: dict[str, list[Any]] = {}
        self._seed_for(0)

    def _seed_for(self, day: int) -> None:
        self._rng = Random(f"{self._service.seed} {day}")  # noqa: S311 - a sample has to come out the same again
        self._delays = Random(f"{self._service.seed} {day} delays")  # noqa: S311 - as above
        self._population.rng = self._rng

    def batches(self, day: int) -> Iterator[Batch]:
        """Rows of the day that begins then, BATCH calls at a time."""
        self._seed_for(day)
        self._rows = {table: [] for table in TABLES}
        counts: Counts = {}
        for number, (since, until, _) in enumerate(self._runs):
            begin, end = max(since, day), min(until, day + DAY_MS)
            if begin >= end:
                continue
            last = number == len(self._runs) - 1
            following = None if last else self._runs[number + 1][0]
            placed = recovered = 0
            for at, caller, callee in self._placed(begin, min(end, until - QUIET_MS) if last else end):
                recovered += self._call(at, caller, callee, until, following)
                placed += 1
                if len(self._rows["calls"]) >= BATCH:
                    yield self._taken(), None
            counts[number] = placed, recovered
        self._write_days()
        yield self._taken(), counts

    def _taken(self) -> Rows:
        rows = self._rows
        self._rows = {table: [] for table in TABLES}
        self._stamp.forget()
        return rows

    def _placed(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """When who calls whom, in order of time, from ``begin`` to ``end``, which are of one day.

        Nobody tries again past midnight.
        """
        rng, population = self._rng, self._population
        self._retries = []
        for hour, count in self._hours[(begin - self._begin) // HOUR_MS : -((self._begin - end) // HOUR_MS)]:
            for at in sorted(hour.at + int(rng.random() * HOUR_MS) for _ in range(count)):
                while self._retries and self._retries[0][0] <= at:
                    again = heapq.heappop(self._retries)
                    if begin <= again[0] < end:
                        yield again
                if begin <= at < end:
                    caller = population.caller(bisect(hour.homes, rng.random() * hour.homes[-1]))
                    yield at, caller, population.callee(caller)

    def _hourly(self) -> list[tuple[Hour, int]]:
        """How many calls begin in each hour, with those who try again left out."""
        found = list(hours(self._begin, self._end))
        noise = Random(self._calls)  # noqa: S311 - as above
        weights = [hour.weight * max(noise.gauss(1, 0.06), 0.2) for hour in found]
        sums = list(accumulate(weights))
        first = self._calls * FIRST_TRIES / sums[-1]
        edges = [round(each * first) for each in (0.0, *sums)]
        return [(hour, after - before) for hour, before, after in zip(found, edges, edges[1:], strict=False)]

    def _id(self, at: int) -> str:
        return uuid7(at, self._rng.getrandbits(80).to_bytes(10, "little"))

    def _call(self, at: int, caller: int, callee: int, end: int, following: int | None) -> int:
        """The rows of one call that begins at ``at`` in a run of the server; 1 where the next run has to close it."""
        rng, people = self._rng, self._population.people
        progress = (at - self._begin) / (self._end - self._begin)
        call = draw_call(rng, self._id(at), at, people[caller], people[callee], progress)
        cut = 0
        if call.over + (call.uncertainty or 0) >= end:
            if following is None:
                call.hang_up(end - 1)
            else:
                call.cut_short(end, following)
                cut = 1
        self._write_call(call)
        self._write_events(call)
        if call.tried:
            self._write_branch(call)
        if call.answered is not None:
            self._write_media(call, call.answered)
            if rng.random() < 0.05:
                self._write_quality(call)
        elif call.status in (500, 503, 488) or (call.outcome == "forbidden"):
            self._write_error(call)
        self._seen(call)
        again = RETRIED.get(call.outcome, 0.0)
        if again and rng.random() < again:
            heapq.heappush(self._retries, (call.over + int(_PAUSE_MS[int(rng.random() * QUANTILES)]), caller, callee))
        return cut

    def _write_call(self, call: Call) -> None:
        one, other, stamp = call.one, call.other, self._stamp
        up = call.answered is not None
        seen = call.over if call.answered is None else call.answered
        self._rows["calls"].append(
            (
                call.id, f"{self._rng.getrandbits(96):024x}",
                one.party, None if call.outcome == "not_found" else other.party,
                stamp[call.at], stamp[call.ringing], stamp[call.answered], stamp[call.confirmed], stamp[call.over],
                call.reached - call.at if call.reached <= call.over else None,
                None if call.ringing is None else seen - call.ringing,
                None if call.answered is None else call.over - call.answered, self._hanging_up(call),
                call.outcome, call.status, call.by, call.cause, call.uncertainty,
                int(call.video_from is not None) if up else None, int(call.content_from is not None) if up else None,
                min(one.product.encrypted, other.product.encrypted) if up else None,
                None if not up else 0 if call.video_from is None else call.over - call.video_from, call.offered_video,
                one.home.country, one.home.region, one.home.city, one.site, "network",
                *((other.home.country, other.home.region, other.home.city, other.site, "network") if up else _NOWHERE),
                call.agent, call.its_agent if up else None, one.transport, other.transport if up else None,
                one.network, other.network if up else None, int(call.tried), NODE,
            )
        )  # fmt: skip

    def _hanging_up(self, call: Call) -> int | None:
        """From a BYE to its answer."""
        if call.cause != "bye" or call.answered is None:
            return None
        return int(_BYE_MS[int(self._delays.random() * QUANTILES)]) if call.uncertainty is None else call.uncertainty

    def _write_branch(self, call: Call) -> None:
        stamp = self._stamp
        outcome = "cut_short" if call.cause == "server_restart" and call.answered is None else call.outcome
        self._rows["call_branches"].append(
            (
                call.id, 0, stamp[call.at], stamp[call.ringing], stamp[call.answered], stamp[call.over], call.status,
                outcome, call.its_agent if call.reached <= call.over else None, call.other.transport,
                call.other.network,
            )
        )  # fmt: skip

    def _write_media(self, call: Call, answered: int) -> None:
        stamp, video, encrypted = self._stamp, call.video, min(call.one.product.encrypted, call.other.product.encrypted)
        over, rows = stamp[call.over], self._rows["call_media"]

        def stream(place: int, kind: str, codec: str, rate: int, size: tuple[str | None, int | None], at: int) -> None:
            rows.append(
                (call.id, place + 1, place, kind, 1, codec, "sendrecv", rate, *size, encrypted, stamp[at], over, 0)
            )

        stream(0, "audio", call.audio, 64_000, (None, None), answered)
        if call.video_from is not None and video is not None:
            stream(1, "video", video[0], 2_048_000, video[1], call.video_from)
        if call.content_from is not None:
            stream(2, "content", "H264", 1_024_000, ("1920x1080", 2_073_600), call.content_from)

    def _write_events(self, call: Call) -> None:
        # All else of the timeline is in the columns of the call.
        over, rows = self._stamp[call.over], self._rows["stored_events"]
        number = 2 + sum(at is not None for at in (call.ringing, call.answered, call.confirmed))
        if call.cause == "server_restart":
            rows.append((call.id, number, over, "ended", call.by, None, call.cause))
        elif call.answered is None:
            if call.outcome == "cancelled":
                rows.append((call.id, number, over, "cancelled", "caller", None, None))
                number += 1
            rows.append((call.id, number, over, "failed", call.by, call.status, None))

    def _write_error(self, call: Call) -> None:
        kind, by = ("refused", "server") if call.outcome == "forbidden" else ("peer_error", "peer")
        at = self._stamp[call.over]
        self._rows["errors"].append(
            (
                self._id(call.over), at, kind, "INVITE", call.status, by,
                call.agent if by == "server" else call.its_agent, call.one.party, call.other.network, None, 1, at, NODE,
                call.id, call.other.party,
            )
        )  # fmt: skip

    def _write_quality(self, call: Call) -> None:
        rng = self._rng
        loss = min(rng.expovariate(2.2), 60.0)
        listening = max(1.0, 4.4 - 0.25 * loss - rng.random() * 0.3)
        at = call.over + 40
        self._rows["quality_reports"].append(
            (
                self._id(at), f"{rng.getrandbits(128):032x}", self._stamp[at], call.id, call.one.party, "caller",
                "publish", "vq-rtcpxr", "session", 1, "local", "audio", call.audio, round(loss, 2),
                round(rng.lognormvariate(2.0, 0.7), 1), round(rng.lognormvariate(3.9, 0.6), 1), round(listening, 2),
                round(max(1.0, listening - rng.random() * 0.3), 2), call.agent, NODE,
            )
        )  # fmt: skip

    def _seen(self, call: Call) -> None:
        """Who calls is signed in: now and then anew, at times with a wrong password first, else by refreshes."""
        rng, one = self._rng, call.one
        at = self._stamp[call.at] or ""
        if at[:10] != self._day:
            self._write_days()
            self._day = at[:10]
        count = self._counts.setdefault(one.party, [1 + int(rng.random() * 23), at, at])
        count[2] = at
        luck = rng.random()
        if luck < 0.25:
            place = (one.home.country, one.home.region, one.home.city, one.site, "network")
            rest = (call.agent, one.transport, one.network, *place)
            if luck < 0.012:
                many = 1 + int(rng.random() * 5)
                line = (self._id(call.at), at, one.party, "refused", 403, *rest, many, at, NODE)
                self._rows["sign_ins"].append(line)
                self._rows["errors"].append(
                    (
                        self._id(call.at), at, "credentials", "REGISTER", 403, "server", call.agent, None, one.network,
                        None, many, at, NODE, None, None,
                    )
                )  # fmt: skip
            outcome = "bound" if luck < 0.2 else "unbound"
            self._rows["sign_ins"].append((self._id(call.at), at, one.party, outcome, 200, *rest, 1, at, NODE))

    def _write_days(self) -> None:
        """Refreshes of the day, and how long it took to write them down."""
        counted: dict[tuple[str, int], int] = {}
        for _, first_at, _ in self._counts.values():
            hour = f"{first_at[:13]}:00:00.000Z"
            place = min(bisect(BOUNDS, _WRITTEN_MS[int(self._delays.random() * QUANTILES)]), len(BOUNDS) - 1)
            counted[hour, BOUNDS[place]] = counted.get((hour, BOUNDS[place]), 0) + 1
        self._rows["registration_delays"] += [
            (hour, ACCEPTED, up_to, count) for (hour, up_to), count in sorted(counted.items())
        ]
        self._rows["sign_in_days"] += [(self._day, party, *count) for party, count in sorted(self._counts.items())]
        self._counts.clear()


def run_rows(service: Service, counts: Counts) -> Rows:
    """The runs of the server, by how many calls each placed and how many of them the next one had to close."""
    rng, stamps, ran = Random(f"{service.seed} runs"), Stamps(), runs(service.begin, service.end)  # noqa: S311 - as above
    before, rows = 0, []
    for number, (begin, end, killed) in enumerate(ran):
        placed, recovered = counts.get(number, (0, 0))
        following = ran[number + 1][0] if number + 1 < len(ran) else None
        rows.append(
            (
                uuid7(begin, rng.randbytes(10)), NODE, stamps[begin], stamps[end], None if killed else stamps[end],
                before, placed, placed - recovered, 0, 0, stamps[following] if recovered or killed else None,
                recovered if recovered or killed else None,
            )
        )  # fmt: skip
        before += placed
    return {"server_runs": rows}
