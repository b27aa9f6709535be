"""Figures of one period: each a query over the views of the store, with what it means in ``views.FIGURES``.

A count of what was not there is 0, a ratio of nothing is None. Whoever asks for periods in which no server ran leaves
the figures out (``periods.Recorded``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sipserver.analysis.periods import DAY_MS, Bucket
from sipserver.analysis.traffic import PEAK_RATE_SQL
from sipserver.analysis.views import Query
from sipserver.calls.analysis_schema import RATIOS, REGISTRATIONS, VIDEO
from sipserver.storage.database import sqlite

PERCENTILES: Final = (50, 90, 95, 99)
AGAIN_S: Final = 900
"""Who calls again within so many seconds of a call that came to nothing has tried again."""

Values = dict[str, Any]

SESSIONS_SQL: Final = f"""
        SELECT {RATIOS},
            100.0 * sum(outcome NOT IN ('offline', 'not_found', 'forbidden'))
                / nullif(sum(outcome NOT IN ('not_found', 'forbidden')), 0) AS reachable_percent
        FROM v_call_facts WHERE started_at >= :from AND started_at < :to {{scope}}
"""  # noqa: S608 - made of constants
PLACED_SQL: Final = """
        SELECT count(*) AS calls, count(answered_at) AS answered, count(*) - count(ended_at) AS open
        FROM calls WHERE started_at >= :from AND started_at < :to {scope}
"""
DELAYS_SQL: Final = """
        SELECT setup_ms, count(*) AS calls FROM v_call_facts
        WHERE started_at >= :from AND started_at < :to AND (answered OR ring_ms IS NOT NULL) AND setup_ms IS NOT NULL
            {scope}
        GROUP BY setup_ms ORDER BY setup_ms
"""
FEATURES_SQL: Final = f"""
        SELECT {VIDEO}
        FROM v_call_facts WHERE started_at >= :from AND started_at < :to {{scope}}
"""  # noqa: S608
UPGRADED_SQL: Final = """
        SELECT count(*) AS upgraded FROM v_call_facts
        WHERE started_at >= :from AND started_at < :to AND video {scope} AND answered_at < (
            SELECT min(from_at) FROM call_media WHERE call = v_call_facts.id AND kind = 'video' AND accepted = 1
                AND early = 0)
"""
MEDIA_SQL: Final = """
        SELECT kind, codec, resolution, count(DISTINCT call) AS calls
        FROM v_call_facts JOIN call_media ON call_media.call = v_call_facts.id
        WHERE started_at >= :from AND started_at < :to AND accepted = 1 AND early = 0 {scope}
        GROUP BY kind, codec, resolution ORDER BY kind, calls DESC, codec, resolution
"""
OUTCOMES_SQL: Final = """
        SELECT outcome, sip_status, end_cause, count(*) AS calls
        FROM v_call_facts WHERE started_at >= :from AND started_at < :to {scope}
        GROUP BY outcome, sip_status, end_cause ORDER BY calls DESC, outcome, sip_status, end_cause
"""
# A plus before a column keeps SQLite from going through all calls of all parties by the index on them.
RETRIES_SQL: Final = """
        WITH attempts AS (
            SELECT started_at, ended_at, answered_at, outcome,
                lead(started_at) OVER (PARTITION BY caller, callee ORDER BY started_at, id) AS again
            FROM calls WHERE started_at >= :from AND started_at < :after AND +caller IS NOT NULL
                AND +callee IS NOT NULL {scope}
        )
        SELECT outcome, count(*) AS calls,
            sum(ifnull((julianday(again) - julianday(ended_at)) * 86400.0 < :within, 0)) AS again,
            100.0 * sum(ifnull((julianday(again) - julianday(ended_at)) * 86400.0 < :within, 0)) / count(*)
                AS again_percent
        FROM attempts WHERE started_at < :to AND answered_at IS NULL AND ended_at IS NOT NULL
        GROUP BY outcome ORDER BY calls DESC, outcome
"""
PARTIES_SQL: Final = """
        SELECT placed, count(*) AS parties FROM (
            SELECT count(*) AS placed FROM calls
            WHERE started_at >= :from AND started_at < :to AND +caller IS NOT NULL {scope} GROUP BY caller
        ) GROUP BY placed ORDER BY placed
"""
REPORTED_SQL: Final = """
        SELECT {value} AS value, count(*) AS n FROM quality_reports
        WHERE at >= :from AND at < :to AND {value} IS NOT NULL AND kind IN ('session', 'summary') {{scope}}
        GROUP BY 1 ORDER BY 1
"""
KINDS_SQL: Final = """
        SELECT kind, answered_by, sum(count) AS errors FROM errors
        WHERE at >= :from AND at < :to {scope} GROUP BY kind, answered_by ORDER BY errors DESC, kind, answered_by
"""
ERRORS_SQL: Final = "        SELECT ifnull(sum(count), 0) AS errors FROM errors WHERE at >= :from AND at < :to {scope}"
MATRIX_SQL: Final = """
        SELECT caller_country, caller_region, caller_site, callee_country, callee_region, callee_site,
            count(*) AS calls, count(answered_at) AS answered, round(sum(talk_ms) / 60000.0, 1) AS minutes
        FROM calls WHERE started_at >= :from AND started_at < :to {scope}
        GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY calls DESC, 1, 2, 3, 4, 5, 6
"""
AGENTS_SQL: Final = """
        SELECT agent, sum(placed) AS placed, sum(received) AS received, sum(video) AS with_video,
            round(sum(minutes), 1) AS minutes
        FROM (
            SELECT caller_agent AS agent, count(*) AS placed, 0 AS received, sum(video) AS video,
                sum(talk_ms) / 60000.0 AS minutes
            FROM v_call_facts WHERE started_at >= :from AND started_at < :to {scope} GROUP BY 1
            UNION ALL
            SELECT callee_agent, 0, count(*), sum(video), sum(talk_ms) / 60000.0
            FROM v_call_facts WHERE started_at >= :from AND started_at < :to AND answered {scope} GROUP BY 1
        )
        WHERE agent IS NOT NULL GROUP BY agent ORDER BY placed + received DESC, agent
"""
TRANSPORTS_SQL: Final = """
        SELECT caller_transport, callee_transport, count(*) AS calls, count(answered_at) AS answered
        FROM calls WHERE started_at >= :from AND started_at < :to {scope}
        GROUP BY 1, 2 ORDER BY calls DESC, 1, 2
"""
REGISTRATIONS_SQL: Final = f"""
        SELECT {REGISTRATIONS}
        FROM v_registration_attempts WHERE at >= :from AND at < :to {{scope}}
"""  # noqa: S608
REFRESHES_SQL: Final = """
        SELECT ifnull(sum(refreshes), 0) AS refreshes FROM sign_in_days
        WHERE day >= substr(:from, 1, 10) AND day < substr(:to, 1, 10)
"""
SIGNED_IN_SQL: Final = """
        SELECT count(DISTINCT party) AS signed_in FROM (
            SELECT party FROM sign_ins WHERE at >= :from AND at < :to AND outcome = 'bound' {scope}
            {refreshed}
        )
"""
_REFRESHED: Final = """UNION ALL SELECT party FROM sign_in_days
                WHERE day >= substr(:from, 1, 10) AND day <= substr(:to, 1, 10)
                    AND ((first_at >= :from AND first_at < :to) OR (last_at >= :from AND last_at < :to))"""
ACTIVE_SQL: Final = """
        SELECT count(DISTINCT party) AS active FROM (
            SELECT party FROM sign_ins WHERE at >= :from AND at < :to AND outcome = 'bound' {scope}
            {refreshed}
            UNION ALL SELECT caller FROM calls WHERE started_at >= :from AND started_at < :to {calls}
            UNION ALL SELECT callee FROM calls
                WHERE started_at >= :from AND started_at < :to AND answered_at IS NOT NULL {calls}
        )
"""


@dataclass(slots=True)
class Kpis:
    """Asks a store for figures, of all calls or of those of a site and of agents, and keeps the queries that did it."""

    connection: sqlite.Connection
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
            condition += " AND (caller_site = :site OR callee_site = :site)"
        if self.agent is not None:
            condition += (
                " AND (instr(lower(caller_agent), lower(:agent)) > 0 OR instr(lower(callee_agent), lower(:agent)) > 0)"
            )
        return condition

    @property
    def of_sign_ins(self) -> str:
        """The condition on sign-ins."""
        condition = " AND site = :site" if self.site is not None else ""
        return condition + self.of_agent

    @property
    def of_agent(self) -> str:
        """The condition on what has one agent and no site."""
        return " AND instr(lower(agent), lower(:agent)) > 0" if self.agent is not None else ""

    def ask(self, part: str, sql: str, bucket: Bucket, scope: str, **more: Any) -> list[Values]:
        """The rows of a query about a piece of time."""
        text = self.note(part, sql, scope)
        cursor = self.connection.execute(text, {**self.parameters, **bucket.bounds, **more})
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def note(self, part: str, sql: str, scope: str) -> str:
        """The query with its condition, kept for whoever wants to know what made a figure."""
        text = sql.replace("{scope}", scope)
        self.queries.setdefault(f"{part} {text}", Query(part, text))
        return text

    def sessions(self, bucket: Bucket) -> Values:
        """SER, SEER, ISA, SCR, ASR, NER, ABR, durations, request delays and reachability of calls that began then."""
        (row,) = self.ask("sessions", SESSIONS_SQL, bucket, self.of_calls)
        return {**row, "answered": row["answered"] or 0}

    def delays(self, bucket: Bucket) -> Values:
        """Percentiles of the post-dial delay, in milliseconds."""
        found = self.ask("delays", DELAYS_SQL, bucket, self.of_calls)
        return _percentiles("pdd", "_ms", [(row["setup_ms"], row["calls"]) for row in found])

    def placed(self, bucket: Bucket) -> Values:
        """Calls that began then, those that go on as well, and how many of them were answered."""
        return self.ask("traffic", PLACED_SQL, bucket, self.of_calls)[0]

    def features(self, bucket: Bucket) -> Values:
        """Video, content and upgrades of calls that began then."""
        (more,) = self.ask("features", UPGRADED_SQL, bucket, self.of_calls)
        return {**self.minutes(bucket), **more}

    def minutes(self, bucket: Bucket) -> Values:
        """Video and content of calls that began then, and minutes of both; no media are looked at for it."""
        (row,) = self.ask("features", FEATURES_SQL, bucket, self.of_calls)
        zero = {name: row[name] or 0 for name in ("answered", "with_video", "with_content", "minutes", "video_minutes")}
        return {**row, **zero}

    def media(self, bucket: Bucket) -> list[Values]:
        """Calls by kind, codec and resolution of a stream."""
        return self.ask("media", MEDIA_SQL, bucket, self.of_calls)

    def outcomes(self, bucket: Bucket) -> list[Values]:
        """Calls by outcome, status and cause of the end."""
        return self.ask("outcomes", OUTCOMES_SQL, bucket, self.of_calls)

    def retries(self, bucket: Bucket) -> list[Values]:
        """Calls that came to nothing, by outcome, and how many were tried again."""
        # The next try may come when the period is over.
        after = Bucket(bucket.begin, bucket.end + DAY_MS, "").bounds["to"]
        return self.ask("retries", RETRIES_SQL, bucket, self.of_calls, after=after, within=AGAIN_S)

    def parties(self, bucket: Bucket) -> list[Values]:
        """How many parties placed so many calls."""
        return self.ask("parties", PARTIES_SQL, bucket, self.of_calls)

    def peak_rate(self, bucket: Bucket) -> int:
        """The most calls that began within a second."""
        (row,) = self.ask("traffic", PEAK_RATE_SQL.replace("max(n)", "max(n) AS n"), bucket, self.of_calls)
        return row["n"] or 0

    def reported(self, bucket: Bucket) -> Values:
        """What endpoints and relays measured: how many reports, and percentiles."""
        found: Values = {}
        for value, name in (("mos_lq", "mos_lq"), ("loss_percent", "loss_percent"), ("jitter_ms", "jitter_ms"),
                ("round_trip_ms", "round_trip_ms")):  # fmt: skip
            sql = REPORTED_SQL.format(value=value)
            rows = [(row["value"], row["n"]) for row in self.ask("reported", sql, bucket, self.of_agent)]
            found.setdefault("reports", 0)
            found["reports"] = max(found["reports"], sum(count for _, count in rows))
            # Of what is good when it is high, the low end is what people complain about.
            worst = 5 if value == "mos_lq" else 95
            found[f"{name}_p50"] = _nearest_rank(rows, 50)
            found[f"{name}_p{worst}"] = _nearest_rank(rows, worst)
        return found

    def errors(self, bucket: Bucket) -> int:
        """How many errors there were."""
        (row,) = self.ask("errors", ERRORS_SQL, bucket, self.of_agent)
        return int(row["errors"])

    def kinds(self, bucket: Bucket) -> list[Values]:
        """Errors by kind and by who answered."""
        return self.ask("kinds", KINDS_SQL, bucket, self.of_agent)

    def matrix(self, bucket: Bucket) -> list[Values]:
        """Calls from where to where."""
        return self.ask("matrix", MATRIX_SQL, bucket, self.of_calls)

    def agents(self, bucket: Bucket) -> list[Values]:
        """Calls by agent: placed, and received and answered."""
        return self.ask("agents", AGENTS_SQL, bucket, self.of_calls)

    def transports(self, bucket: Bucket) -> list[Values]:
        """Calls by the transports of both sides."""
        return self.ask("transports", TRANSPORTS_SQL, bucket, self.of_calls)

    def registrations(self, bucket: Bucket) -> Values:
        """Attempts to register, refused ones, and the parties that were there."""
        (row,) = self.ask("registrations", REGISTRATIONS_SQL, bucket, self.of_sign_ins)
        attempts, refused = row["attempts"] or 0, row["ineffective"] or 0
        # Refreshes are counted for a party and a day of UTC, whatever its agent and site.
        whole = not self.parameters and not bucket.begin % DAY_MS and not bucket.end % DAY_MS
        refreshes = self.ask("registrations", REFRESHES_SQL, bucket, "")[0]["refreshes"] if whole else None
        total = None if refreshes is None else attempts + refreshes
        return {
            "bound": attempts - refused,
            "refused": refused,
            "refused_percent": 100.0 * refused / attempts if attempts else None,
            "refreshes": refreshes,
            "ira_percent": 100.0 * refused / total if total else None,
            **self.ask("registrations", self._of_parties(SIGNED_IN_SQL), bucket, self.of_sign_ins)[0],
            **self.active(bucket),
        }

    def active(self, bucket: Bucket) -> Values:
        """Parties that did something."""
        return self.ask("registrations", self._of_parties(ACTIVE_SQL), bucket, self.of_sign_ins)[0]

    def _of_parties(self, sql: str) -> str:
        refreshed = "" if self.parameters else _REFRESHED
        return sql.replace("{refreshed}", refreshed).replace("{calls}", self.of_calls)


def _percentiles(name: str, unit: str, found: list[tuple[int, int]]) -> Values:
    return {f"{name}_p{percent}{unit}": _nearest_rank(found, percent) for percent in PERCENTILES}


def _nearest_rank(found: list[tuple[Any, int]], percent: int) -> Any:
    """The smallest value that at least so many of a hundred do not exceed; ``found`` is in order, with counts."""
    rank = -(-sum(count for _, count in found) * percent // 100)
    for value, count in found:
        rank -= count
        if rank <= 0:
            return value
    return None
