"""The questions that analysts ask of ``calls.db``, each as one SQL query with parameters that any SQLite tool can run.

Every parameter is text and may be empty, which stands for what its description says; so a form can offer them all. A
time is UTC, as the store writes it, or the beginning of one (``2026-11-01``, ``2026-11-01T08:00``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sipserver.analysis.kpis import AGAIN_S
from sipserver.analysis.queries import PERCENTILES
from sipserver.analysis.views import FIGURES
from sipserver.calls.analysis_schema import REGISTRATIONS, VIDEO
from sipserver.calls.error_views import rates_query
from sipserver.calls.faults import KINDS
from sipserver.storage.database import sqlite

DAYS: Final = 30
"""The days up to that of the last call that are looked at where nobody says from when on."""
MANY: Final = 500_000
"""Calls that are too many to be looked at where nobody asked for them."""

PARAMETERS: Final = {
    "from": "from then on (UTC, such as 2026-11-01); empty: the last {days}",
    "to": "before then (UTC); empty: up to the end",
    "site": "only calls from or to this site; empty: all",
    "agent": "only endpoints with this in their User-Agent, on whichever side; empty: all",
    "k": "leave out rows with fewer parties than this; empty: 1",
    "utc_offset": "how far clocks are from UTC, such as +01:00; empty: UTC",
    "minutes": "at least so many minutes long; empty: 60",
    "call": "the beginning of the call's id, which no other call has",
    "kind": "only this kind; empty: all",
}
"""What each parameter means; ``Question.means`` fills in the days."""


@dataclass(slots=True, frozen=True)
class Question:
    """A question, and the query that answers it."""

    name: str
    group: str
    """What it is about; those of one group stand together."""
    title: str
    answer: str
    """What the columns mean, as far as they do not say it."""
    sql: str
    parameters: tuple[str, ...] = ("from", "to", "site", "agent")
    """In the order in which a form has them."""
    days: int = DAYS
    """How many are looked at where nobody says from when on."""

    def means(self, parameter: str) -> str:
        """What a parameter of it means."""
        return PARAMETERS[parameter].format(days="day" if self.days == 1 else f"{self.days} days")


_BACK: Final = f"'-{DAYS - 1} days'"
_FROM: Final = f"coalesce(nullif(:from, ''), (SELECT date(max(started_at), {_BACK}) FROM calls), '')"
_TO: Final = "coalesce(nullif(:to, ''), '~')"
_OF_SITE: Final = "(:site = '' OR caller_site = :site OR callee_site = :site)"
_OF_AGENTS: Final = (
    "(:agent = '' OR instr(lower(caller_agent), lower(:agent)) > 0 OR instr(lower(callee_agent), lower(:agent)) > 0)"
)
_OF_AGENT: Final = "(:agent = '' OR instr(lower(agent), lower(:agent)) > 0)"
_K: Final = "ifnull(nullif(CAST(:k AS INTEGER), 0), 1)"


def _within(column: str) -> str:
    return f"{column} >= {_FROM}\n    AND {column} < {_TO}"


_CALLS: Final = f"""{_within("started_at")}
    AND {_OF_SITE}
    AND {_OF_AGENTS}"""
_MS: Final = "CAST(round((julianday({}) - 2440587.5) * 86400000.0) AS INTEGER)"
_SHIFTED: Final = "coalesce(nullif(:utc_offset, ''), '+00:00')"

# The hours in which calls were up, each with the talk time in it: most calls are in one or two. The same by the clock
# on the wall, and all days from the first of them to the last.
_HOURS: Final = f"""WITH RECURSIVE up (began, ended) AS (
    SELECT {_MS.format("answered_at")}, {_MS.format("ended_at")}
    FROM v_call_facts
    WHERE answered AND {_CALLS.replace(chr(10), chr(10) + "    ")}
), part (hour, began, ended) AS (
    SELECT began / 3600000, began, ended FROM up
    UNION ALL
    SELECT hour + 1, began, ended FROM part WHERE (hour + 1) * 3600000 < ended
), hours (hour, talk_ms, calls) AS (
    SELECT hour, sum(min(ended, (hour + 1) * 3600000) - max(began, hour * 3600000)), count(*)
    FROM part GROUP BY hour
), clock (local, talk_ms, calls) AS (
    SELECT hour * 3600 + strftime('%s', 0, 'unixepoch', {_SHIFTED}), talk_ms, calls FROM hours
), days (day) AS (
    SELECT min(local) / 86400 FROM clock
    UNION ALL
    SELECT day + 1 FROM days WHERE day < (SELECT max(local) / 86400 FROM clock)
)"""
_UP: Final = (
    "Traffic is the talk time of the calls that began in the period, each in the hours that it was up in; means are "
    "over the days from the first with traffic to the last."
)


def _percentiles(value: str) -> str:
    """Nearest ranks, over rows with the value, and how many rows have at most that value, and how many there are."""
    return ",\n    ".join(
        f"min(CASE WHEN upto * 100 >= total * {percent} THEN {value} END) AS p{percent}_ms" for percent in PERCENTILES
    )


def _listed(*values: str) -> str:
    """Those that are not NULL, with commas between them; concat_ws is too new for many an SQLite."""
    return "substr(" + " || ".join(f"ifnull(', ' || {value}, '')" for value in values) + ", 3)"


def _kinds() -> str:
    rows = ",\n        ".join(
        "('{}', '{}')".format(kind, meaning.replace("'", "''")) for kind, meaning in KINDS.items()
    )
    return f"WITH meanings (kind, meaning) AS (VALUES\n        {rows}\n)"


_RATES: Final = "\n".join(
    line.strip()
    for line in rates_query(
        by_day=False, sign_ins=_within("at"), calls=_within("started_at"), errors=_within("at")
    ).splitlines()
    if line.strip()
)  # fmt: skip

_STREAM: Final = _listed(
    "CASE WHEN NOT accepted THEN 'refused' END", "codec", "resolution", "direction", "encryption",
    "CASE WHEN early THEN 'before the answer' END", "'until ' || to_at",
)  # fmt: skip

QUESTIONS: Final = (
    Question(
        "busy_hour", "When", "Which hour of the day is the busiest?",
        "Mean traffic in Erlang by hour of the day, the busiest first, which is the time-consistent busy hour (ITU-T "
        f"E.600), here of whole hours; most_erlang is that hour on its busiest day. {_UP}",
        f"""{_HOURS}
SELECT strftime('%H:%M', local, 'unixepoch') AS hour,
    round(sum(talk_ms) / 3600000.0 / (SELECT count(*) FROM days), 3) AS erlang,
    sum(calls) AS calls_up,
    round(max(talk_ms) / 3600000.0, 3) AS most_erlang
FROM clock GROUP BY 1 ORDER BY erlang DESC, 1""",
        ("from", "to", "site", "agent", "utc_offset"),
    ),
    Question(
        "week", "When", "On which days of the week, and at which hours?",
        f"Mean traffic in Erlang by weekday (1 is Monday) and hour. {_UP}",
        f"""{_HOURS}
SELECT (local / 86400 + 3) % 7 + 1 AS weekday, local / 3600 % 24 AS hour,
    round(sum(talk_ms) / 3600000.0
        / (SELECT count(*) FROM days WHERE (day + 3) % 7 = (local / 86400 + 3) % 7), 3) AS erlang
FROM clock GROUP BY 1, 2 ORDER BY 1, 2""",
        ("from", "to", "site", "agent", "utc_offset"),
    ),
    Question(
        "busiest_hours", "When", "Which hours of the calendar had the most traffic?",
        f"The hundred busiest hours, and how many calls were up in them. {_UP}",
        f"""{_HOURS}
SELECT strftime('%Y-%m-%d %H:%M', local, 'unixepoch') AS hour,
    round(talk_ms / 3600000.0, 3) AS erlang, calls AS calls_up
FROM clock ORDER BY talk_ms DESC LIMIT 100""",
        ("from", "to", "site", "agent", "utc_offset"),
    ),
    Question(
        "calls_by_day", "When", "How many calls are there on each day, and what becomes of them?",
        "Calls that began on the day (UTC) and are over, by outcome.",
        f"""SELECT substr(started_at, 1, 10) AS day, outcome, count(*) AS calls,
    round(sum(talk_ms) / 60000.0, 1) AS minutes
FROM v_call_facts
WHERE {_CALLS}
GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    Question(
        "going_on", "When", "Which calls are going on now?",
        "Open calls, the oldest first; call leads to the whole record.",
        f"""SELECT started_at, CASE WHEN answered_at IS NOT NULL THEN 'answered' WHEN ringing_at IS NOT NULL
        THEN 'ringing' ELSE 'trying' END AS state,
    answered_at, video, caller_site, callee_site, caller_agent, callee_agent, devices, id AS call
FROM calls
WHERE ended_at IS NULL
    AND {_OF_SITE}
    AND {_OF_AGENTS}
ORDER BY started_at LIMIT 500""",
        ("site", "agent"),
    ),
    Question(
        "setup_delays", "How well", "How long does it take until it rings?",
        f"{FIGURES['pdd_p50_ms'].meaning}, in milliseconds, by day (UTC): p95_ms is what 95 in a hundred did not "
        "exceed (ITU-T E.721).",
        f"""WITH delays AS (
    SELECT substr(started_at, 1, 10) AS day, setup_ms, count(*) AS n
    FROM v_call_facts
    WHERE (answered OR ring_ms IS NOT NULL) AND setup_ms IS NOT NULL
    AND {_CALLS}
    GROUP BY 1, 2
), ranked AS (
    SELECT day, setup_ms, n, sum(n) OVER (PARTITION BY day ORDER BY setup_ms) AS upto,
        sum(n) OVER (PARTITION BY day) AS total
    FROM delays
)
SELECT day, sum(n) AS calls, {_percentiles("setup_ms")}
FROM ranked GROUP BY day ORDER BY day""",
    ),
    Question(
        "outcomes", "How well", "What becomes of calls?",
        "Calls by outcome, final response and cause of the end.",
        f"""SELECT outcome, sip_status, end_cause, count(*) AS calls,
    round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
FROM v_call_facts
WHERE {_CALLS}
GROUP BY 1, 2, 3 ORDER BY calls DESC, 1, 2, 3""",
    ),
    Question(
        "retries", "How well", "Do people try again after a call came to nothing?",
        f"Calls that were not answered, by outcome; again is how many of them the same caller followed by another to "
        f"the same callee within {AGAIN_S // 60} minutes.",
        f"""WITH attempts AS (
    SELECT started_at, ended_at, answered_at, outcome,
        lead(started_at) OVER (PARTITION BY caller, callee ORDER BY started_at, id) AS again
    FROM calls
    WHERE +caller IS NOT NULL AND +callee IS NOT NULL
    AND {_CALLS}
)
SELECT outcome, count(*) AS calls,
    sum(ifnull((julianday(again) - julianday(ended_at)) * 86400.0 < {AGAIN_S}, 0)) AS again,
    round(100.0 * sum(ifnull((julianday(again) - julianday(ended_at)) * 86400.0 < {AGAIN_S}, 0)) / count(*), 2)
        AS again_percent
FROM attempts WHERE answered_at IS NULL AND ended_at IS NOT NULL
GROUP BY outcome ORDER BY calls DESC, outcome""",
    ),
    Question(
        "quality", "How well", "Which endpoints hear badly?",
        "What endpoints and relays measured, by the agent that reported, the worst first: loss in percent, jitter and "
        "round trip in milliseconds, mos_lq from 1 to 5.",
        f"""SELECT agent, count(*) AS reports, count(DISTINCT party) AS parties, round(avg(mos_lq), 2) AS mos_lq,
    round(min(mos_lq), 2) AS worst_mos_lq, round(avg(loss_percent), 2) AS loss_percent,
    round(avg(jitter_ms), 1) AS jitter_ms, round(avg(round_trip_ms), 1) AS round_trip_ms
FROM quality_reports
WHERE kind IN ('session', 'summary')
    AND {_within("at")}
    AND {_OF_AGENT}
GROUP BY agent HAVING parties >= {_K} OR {_K} = 1 ORDER BY mos_lq IS NULL, mos_lq, loss_percent DESC""",
        ("from", "to", "agent", "k"),
    ),
    Question(
        "errors_by_kind", "Where it goes wrong", "What goes wrong?",
        "Errors by kind, with what the kind means.",
        f"""{_kinds()}
SELECT errors.kind, answered_by, sum(count) AS errors, count(DISTINCT party) AS parties, meaning
FROM errors LEFT JOIN meanings ON meanings.kind = errors.kind
WHERE (:kind = '' OR errors.kind = :kind)
    AND {_within("at")}
    AND {_OF_AGENT}
GROUP BY 1, 2 ORDER BY errors DESC, 1, 2""",
        ("from", "to", "agent", "kind"),
    ),
    Question(
        "errors_by_day", "Where it goes wrong", "Since when does it go wrong?",
        "Errors by day (UTC) and kind.",
        f"""SELECT substr(at, 1, 10) AS day, kind, sum(count) AS errors
FROM errors
WHERE (:kind = '' OR kind = :kind)
    AND {_within("at")}
    AND {_OF_AGENT}
GROUP BY 1, 2 ORDER BY 1, 2""",
        ("from", "to", "agent", "kind"),
    ),
    Question(
        "errors_by_agent", "Where it goes wrong", "Which endpoints fail, and in which version?",
        "Errors against sign-ins and calls, by product and version. A call counts for the endpoints of both sides; "
        "without a product are senders that do not say what they are.",
        f"""SELECT product, version, sign_ins, calls, errors, errors_per_100
FROM ({_RATES})
WHERE :agent = '' OR instr(lower(product || '/' || ifnull(version, '')), lower(:agent)) > 0
ORDER BY errors DESC, product, version""",
        ("from", "to", "agent"),
    ),
    Question(
        "refused_sign_ins", "Where it goes wrong", "Who cannot sign in?",
        "Refused registrations by agent, status and reason.",
        f"""SELECT agent, status, detail, sum(count) AS refused, count(DISTINCT network) AS networks,
    max(last_at) AS last_at
FROM sign_ins
WHERE outcome = 'refused'
    AND {_within("at")}
    AND (:site = '' OR site = :site)
    AND {_OF_AGENT}
GROUP BY 1, 2, 3 ORDER BY refused DESC, 1, 2, 3""",
    ),
    Question(
        "matrix", "Where", "From where to where do people call?",
        "Calls by country and site of both sides; the called side's place is known of answered calls only.",
        f"""SELECT caller_country, caller_site, callee_country, callee_site, count(*) AS calls,
    count(answered_at) AS answered, round(sum(talk_ms) / 60000.0, 1) AS minutes, count(DISTINCT caller) AS callers
FROM calls
WHERE {_CALLS}
GROUP BY 1, 2, 3, 4 HAVING callers >= {_K} OR {_K} = 1 ORDER BY calls DESC, 1, 2, 3, 4""",
        ("from", "to", "site", "agent", "k"),
    ),
    Question(
        "features", "With what", "How much video and content is there?",
        "Answered calls by the day on which they began (UTC): how many had video or a presenting stream at any time, "
        "and minutes of talk and of video.",
        f"""SELECT substr(started_at, 1, 10) AS day,{VIDEO}
FROM v_call_facts
WHERE {_CALLS}
GROUP BY 1 ORDER BY 1""",
    ),
    Question(
        "media", "With what", "Which codecs and resolutions?",
        "Answered calls that had such a stream at any time after the answer.",
        f"""SELECT kind, codec, resolution, encryption, count(DISTINCT call) AS calls
FROM v_call_facts JOIN call_media ON call_media.call = v_call_facts.id
WHERE accepted = 1 AND early = 0
    AND {_CALLS}
GROUP BY 1, 2, 3, 4 ORDER BY kind, calls DESC, 2, 3, 4""",
    ),
    Question(
        "calls_by_agent", "With what", "Which devices do people call with?",
        "Calls by agent: placed, and received and answered; with_video of both.",
        f"""SELECT agent, sum(placed) AS placed, sum(received) AS received, sum(video) AS with_video,
    round(sum(talk_ms) / 60000.0, 1) AS minutes, count(DISTINCT party) AS parties
FROM (
    SELECT caller_agent AS agent, caller AS party, count(*) AS placed, 0 AS received, sum(video) AS video,
        sum(talk_ms) AS talk_ms
    FROM v_call_facts
    WHERE {_CALLS}
    GROUP BY 1, 2
    UNION ALL
    SELECT callee_agent, callee, 0, count(*), sum(video), sum(talk_ms)
    FROM v_call_facts
    WHERE answered AND {_CALLS}
    GROUP BY 1, 2
)
WHERE agent IS NOT NULL GROUP BY agent HAVING parties >= {_K} OR {_K} = 1
ORDER BY sum(placed) + sum(received) DESC, agent""",
        ("from", "to", "site", "agent", "k"),
    ),
    Question(
        "sign_ins_by_day", "Who", "How many sign in, and how many are refused?",
        "Registrations by day (UTC): attempts are bound and refused ones; refreshes and parties are of all sites and "
        f"agents. ira_percent: {FIGURES['refused_percent'].meaning.lower()}.",
        f"""SELECT day, attempts, ineffective, ira_percent, refreshes, parties
FROM (
    SELECT substr(at, 1, 10) AS day,{REGISTRATIONS}
    FROM v_registration_attempts
    WHERE {_within("at")}
    AND (:site = '' OR site = :site)
    AND {_OF_AGENT}
    GROUP BY 1
) LEFT JOIN (
    SELECT day, sum(refreshes) AS refreshes, count(*) AS parties FROM sign_in_days
    WHERE day >= substr({_FROM}, 1, 10) AND day < {_TO}
    GROUP BY 1
) USING (day)
ORDER BY day""",
    ),
    Question(
        "habits", "Who", "How often do people call?",
        "How many parties placed so many calls: a distribution that names nobody.",
        f"""SELECT placed, count(*) AS parties
FROM (
    SELECT count(*) AS placed FROM calls
    WHERE +caller IS NOT NULL
    AND {_CALLS}
    GROUP BY caller
) GROUP BY placed ORDER BY placed""",
    ),
    Question(
        "long_calls", "One by one", "Which calls last the longest?",
        "The hundred longest calls that are over. uncertain_s: by how much later they may have ended, in seconds; "
        "empty where the end was observed.",
        f"""SELECT started_at, round(talk_ms / 60000.0, 1) AS minutes, end_cause,
    round(end_uncertainty_ms / 1000.0, 1) AS uncertain_s, video, caller_site, callee_site, caller_agent,
    callee_agent, id AS call
FROM v_call_facts
WHERE talk_ms >= 60000 * coalesce(nullif(CAST(:minutes AS REAL), 0), 60)
    AND {_CALLS}
ORDER BY talk_ms DESC LIMIT 100""",
        ("minutes", "from", "to", "site", "agent"),
    ),
    Question(
        "story", "One by one", "What happened in one call?",
        "Everything on record of a call in order of time: its timeline, devices, media, errors and calls that came "
        "of it.",
        f"""WITH one AS (
    SELECT id FROM calls WHERE length(:call) >= 8 AND id >= lower(:call) AND id < lower(:call) || '~'
    ORDER BY id LIMIT 1
)
SELECT at, what, side, status, detail FROM (
    SELECT at, 0 AS part, number, kind AS what, side, status, detail
    FROM call_events WHERE call = (SELECT id FROM one)
    UNION ALL
    SELECT tried_at, 1, branch, 'device ' || branch || ' was tried', NULL, status,
        {_listed("outcome", "agent", "transport")}
    FROM call_branches WHERE call = (SELECT id FROM one)
    UNION ALL
    SELECT from_at, 2, number, 'media: ' || kind, held_by, NULL,
        {_STREAM}
    FROM call_media WHERE call = (SELECT id FROM one)
    UNION ALL
    SELECT at, 3, 0, 'error: ' || kind, answered_by, status, {_listed("method", "agent", "detail")}
    FROM errors WHERE call = (SELECT id FROM one)
    UNION ALL
    SELECT at, 4, 0, 'led to another call: ' || kind, NULL, NULL, other
    FROM call_links WHERE call = (SELECT id FROM one)
) ORDER BY at, part, number""",
        ("call",),
    ),
)  # fmt: skip
"""Every question, those of one group after each other."""


def fitting_days(connection: sqlite.Connection) -> int:
    """How many days of this store can be looked at in a moment: DAYS, or fewer where very many call."""
    (last,) = connection.execute("SELECT max(started_at) FROM calls").fetchone()
    for days in (DAYS, 7):
        query = f"SELECT count(*) FROM (SELECT 1 FROM calls WHERE started_at >= date(?, '-{days} days') LIMIT ?)"
        (calls,) = connection.execute(query, (last, MANY)).fetchone()
        if calls < MANY:
            return days
    return 1


def within_days(days: int) -> tuple[Question, ...]:
    """The questions, with so many days where nobody says from when on."""
    return tuple(replace(each, sql=each.sql.replace(_BACK, f"'-{days - 1} days'"), days=days) for each in QUESTIONS)
