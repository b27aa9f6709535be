"""Figures of one period: each a query of ``queries``, with what it means in ``views.FIGURES``.

A count of what was not there is 0, a ratio of nothing is None. Whoever asks for periods in which no server ran leaves
the figures out (``periods.Recorded``). Figures by time are asked for all pieces of a period at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sipserver.analysis import queries
from sipserver.analysis.periods import DAY_MS, Bucket
from sipserver.analysis.source import Source, more_values
from sipserver.analysis.views import Query, Values

AGAIN_S: Final = 900
"""Who calls again within so many seconds of a call that came to nothing has tried again."""

_ZERO: Final = {
    "calls", "answered", "open", "with_video", "with_content", "minutes", "video_minutes", "upgraded", "n", "errors",
    "attempts", "ineffective", "signed_in", "active", "reports",
}  # fmt: skip
"""Columns that are 0 where there is nothing to count."""


@dataclass(slots=True)
class Kpis:
    """Asks a source for figures, of all calls or of those of a site and of agents, and keeps the queries it asked."""

    source: Source
    site: str | None = None
    """Only what has to do with this site, on whichever side."""
    agent: str | None = None
    """Only what has to do with agents that have this text in them, on whichever side."""
    queries: dict[str, Query] = field(default_factory=dict, init=False)

    @property
    def parameters(self) -> dict[str, str]:
        """What the conditions ask for."""
        found = {}
        if self.site is not None:
            found["site"] = self.site
        if self.agent is not None:
            found["agent"] = self.agent
        return found

    @property
    def of_calls(self) -> str:
        """The condition on calls; nothing, or it begins with AND."""
        condition = ""
        if self.site is not None:
            condition += " AND (caller_site = $site OR callee_site = $site)"
        if self.agent is not None:
            condition += (
                f" AND ({self.source.has('caller_agent', 'agent')} OR {self.source.has('callee_agent', 'agent')})"
            )
        return condition

    @property
    def of_sign_ins(self) -> str:
        """The condition on sign-ins."""
        condition = " AND site = $site" if self.site is not None else ""
        return condition + self.of_agent

    @property
    def of_agent(self) -> str:
        """The condition on what has one agent and no site."""
        return f" AND {self.source.has('agent', 'agent')}" if self.agent is not None else ""

    def bounds(self, begin: int, end: int) -> Values:
        """What queries about a piece of time are asked with."""
        source = self.source
        return {
            **self.parameters, "from": source.moment(begin), "to": source.moment(end),
            "first_day": source.day(begin), "end_day": source.day(end), **more_values(source, end),
            "within_ms": AGAIN_S * 1_000,
        }  # fmt: skip

    def ask(self, part: str, sql: str, bucket: Bucket, scope: str) -> list[Values]:
        """The rows of a query about a piece of time."""
        names, rows = self._ask(part, sql, bucket, scope)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _ask(self, part: str, sql: str, bucket: Bucket, scope: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return self.source.ask(self.note(part, sql, scope), self.bounds(bucket.begin, bucket.end))

    def ask_each(self, part: str, sql: str, pieces: Sequence[Bucket], scope: str) -> list[Values]:
        """A row for each piece, in their order; ``sql`` gives rows that begin with the number of a piece."""
        if not pieces:
            return []
        self.source.cut(pieces)
        names, rows = self._ask(part, sql, Bucket(pieces[0].begin, pieces[-1].end, ""), scope)
        zero = {name: 0 if name in _ZERO else None for name in names[1:]}
        found = [dict(zero) for _ in pieces]
        for number, *row in rows:
            found[number].update((name, value) for name, value in zip(names[1:], row, strict=True) if value is not None)
        return found

    def note(self, part: str, sql: str, scope: str) -> str:
        """The query with its condition, kept for whoever wants to know what made a figure."""
        text = self.source.fill(sql, scope).replace("{calls}", self.of_calls)
        self.queries.setdefault(f"{part} {text}", Query(part, text))
        return text

    def sessions(self, bucket: Bucket) -> Values:
        """See ``sessions_each``."""
        return self.sessions_each([bucket])[0]

    def sessions_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """SER, SEER, ISA, SCR, ASR, NER, ABR, durations, request delays and reachability of calls that began then."""
        return self.ask_each("sessions", queries.SESSIONS, pieces, self.of_calls)

    def overall(self, bucket: Bucket) -> Values:
        """What ``sessions`` and ``minutes`` say, in one query."""
        return self.ask_each("sessions", queries.OVERALL, [bucket], self.of_calls)[0]

    def delays(self, bucket: Bucket) -> Values:
        """See ``delays_each``."""
        return self.delays_each([bucket])[0]

    def delays_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Percentiles of the post-dial delay, in milliseconds."""
        found = self.ask_each("delays", queries.DELAYS, pieces, self.of_calls)
        return [_without(row, "n") for row in found]

    def disconnects_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Percentiles of the session disconnect delay of calls that began then, in milliseconds."""
        found = self.ask_each("disconnects", queries.DISCONNECTS, pieces, self.of_calls)
        return [_without(row, "n") for row in found]

    def registration_delays_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Percentiles of the registration request delay, in milliseconds; it has neither site nor agent."""
        if self.parameters:
            return [{"rrd_p50_ms": None, "rrd_p95_ms": None} for _ in pieces]
        found = self.ask_each("registration_delays", queries.REGISTRATION_DELAYS, pieces, "")
        return [_without(row, "n") for row in found]

    def placed(self, bucket: Bucket) -> Values:
        """See ``placed_each``."""
        return self.placed_each([bucket])[0]

    def placed_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Calls that began then, those that go on as well, and how many of them were answered."""
        return self.ask_each("traffic", queries.PLACED, pieces, self.of_calls)

    def features(self, bucket: Bucket) -> Values:
        """See ``features_each``."""
        return self.features_each([bucket])[0]

    def features_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Video, content and upgrades of calls that began then."""
        more = self.ask_each("features", queries.UPGRADED, pieces, self.of_calls)
        return [{**row, **each} for row, each in zip(self.minutes_each(pieces), more, strict=True)]

    def minutes(self, bucket: Bucket) -> Values:
        """See ``minutes_each``."""
        return self.minutes_each([bucket])[0]

    def minutes_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Video and content of calls that began then, and minutes of both; no media are looked at for it."""
        return self.ask_each("features", queries.FEATURES, pieces, self.of_calls)

    def media(self, bucket: Bucket) -> list[Values]:
        """Calls by kind, codec and resolution of a stream."""
        return self.ask("media", self.source.media(), bucket, self.of_calls)

    def outcomes(self, bucket: Bucket) -> list[Values]:
        """Calls by outcome, status and cause of the end."""
        return self.ask("outcomes", queries.OUTCOMES, bucket, self.of_calls)

    def retries(self, bucket: Bucket) -> list[Values]:
        """Calls that came to nothing, by outcome, and how many were tried again."""
        sql, found = self.source.retries(self.of_calls, self.bounds(bucket.begin, bucket.end))
        self.note("retries", sql, self.of_calls)
        return [{**row, "again_percent": 100.0 * row["again"] / row["calls"]} for row in found]

    def parties(self, bucket: Bucket) -> list[Values]:
        """How many parties placed so many calls."""
        return self.ask("parties", queries.PARTIES, bucket, self.of_calls)

    def peak_rate(self, bucket: Bucket) -> int:
        """See ``peak_rates``."""
        found: int = self.peak_rates([bucket])[0]["peak_calls_per_s"]
        return found

    def peak_rates(self, pieces: Sequence[Bucket]) -> list[Values]:
        """The most calls that began within a second."""
        found = self.ask_each("traffic", queries.PEAK_RATE, pieces, self.of_calls)
        return [{"peak_calls_per_s": row["n"]} for row in found]

    def reported(self, bucket: Bucket) -> Values:
        """See ``reported_each``."""
        return self.reported_each([bucket])[0]

    def reported_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """What endpoints and relays measured: how many reports, and percentiles."""
        found: list[Values] = [{"reports": 0} for _ in pieces]
        for value in queries.REPORTED_COLUMNS:
            each = self.ask_each("reported", queries.reported(value), pieces, self.of_agent)
            for row, more in zip(found, each, strict=True):
                row["reports"] = max(row["reports"], more.pop("n"))
                row.update(more)
        return found

    def errors(self, bucket: Bucket) -> int:
        """See ``errors_each``."""
        found: int = self.errors_each([bucket])[0]["errors"]
        return found

    def errors_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """How many errors there were."""
        return self.ask_each("errors", queries.ERRORS, pieces, self.of_agent)

    def kinds(self, bucket: Bucket) -> list[Values]:
        """Errors by kind and by who answered."""
        return self.ask("kinds", queries.KINDS, bucket, self.of_agent)

    def matrix(self, bucket: Bucket) -> list[Values]:
        """Calls from where to where."""
        return _minutes(self.ask("matrix", queries.MATRIX, bucket, self.of_calls))

    def agents(self, bucket: Bucket) -> list[Values]:
        """Calls by agent: placed, and received and answered."""
        return _minutes(self.ask("agents", queries.AGENTS, bucket, self.of_calls))

    def transports(self, bucket: Bucket) -> list[Values]:
        """Calls by the transports of both sides."""
        return self.ask("transports", queries.TRANSPORTS, bucket, self.of_calls)

    def registrations(self, bucket: Bucket) -> Values:
        """See ``registrations_each``."""
        return self.registrations_each([bucket])[0]

    def registrations_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Attempts to register, refused ones, and the parties that were there."""
        found = self.attempts_each(pieces)
        for row, each in zip(found, self.active_each(pieces), strict=True):
            row.update(each)
        return found

    def attempts_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Attempts to register, and refused ones."""
        rows = self.ask_each("registrations", queries.REGISTRATIONS, pieces, self.of_sign_ins)
        return [
            _attempts(row["attempts"], row["ineffective"], refreshes)
            for row, refreshes in zip(rows, self._refreshes(pieces), strict=True)
        ]

    def _refreshes(self, pieces: Sequence[Bucket]) -> list[int | None]:
        """Refreshes are counted for a party and a day of UTC, whatever its agent and site: None for other pieces."""
        whole = [each for each in pieces if not each.begin % DAY_MS and not each.end % DAY_MS]
        if self.parameters or not whole:
            return [None] * len(pieces)
        rows = self.ask("registrations", queries.REFRESHES, Bucket(whole[0].begin, whole[-1].end, ""), "")
        by_day = {row["day"]: row["refreshes"] for row in rows}
        return [
            sum(by_day.get(self.source.day(day), 0) for day in range(each.begin, each.end, DAY_MS))
            if not each.begin % DAY_MS and not each.end % DAY_MS else None
            for each in pieces
        ]  # fmt: skip

    def active(self, bucket: Bucket) -> Values:
        """See ``active_each``."""
        return self.active_each([bucket])[0]

    def active_each(self, pieces: Sequence[Bucket]) -> list[Values]:
        """Parties that signed in, and those that did something."""
        sql = queries.ACTIVE.replace("{refreshed}", "") if self.parameters else queries.ACTIVE
        return self.ask_each("registrations", sql, pieces, self.of_sign_ins)


def _attempts(attempts: int, refused: int, refreshes: int | None) -> Values:
    total = None if refreshes is None else attempts + refreshes
    return {
        "bound": attempts - refused,
        "refused": refused,
        "refused_percent": 100.0 * refused / attempts if attempts else None,
        "refreshes": refreshes,
        "ira_percent": 100.0 * refused / total if total else None,
    }


def _without(row: Values, name: str) -> Values:
    return {key: value for key, value in row.items() if key != name}


def _minutes(rows: list[Values]) -> list[Values]:
    """Minutes with one place. Not in SQL: there halves are rounded in more ways than one."""
    return [{**row, "minutes": None if row["minutes"] is None else round(row["minutes"], 1)} for row in rows]
