"""The queries behind the figures, one for each, whichever source they are put to: the views of the store or the copy.

They are written in the SQL that SQLite and DuckDB have in common. What is said differently stands in braces, and the
source fills it in (``source.Source``):

    {cut:TABLE:TIME}    rows of a table with the ``piece`` of the period that TIME lies in
    {seconds}           how many calls began within each second of each piece, as ``n``
    {upgraded}          whether a call of ``v_call_facts`` got its video after the answer
    {refreshed}         who refreshed in each piece
    {scope}, {calls}    conditions on what was asked for, which begin with AND, or nothing

Times are parameters as the source has them: ``$from`` and ``$to`` bound the period, ``$first_day`` and ``$end_day`` are
its days of UTC.
"""

from __future__ import annotations

from typing import Final

from sipserver.calls.analysis_schema import RATIOS, VIDEO

PERCENTILES: Final = (50, 90, 95, 99)

# ``IS`` with a value is SQLite's alone; within a CASE, unknown is as good as false.
_RATIOS: Final = RATIOS.replace("end_cause IS 'bye'", "end_cause = 'bye'")
_IN_PERIOD: Final = "started_at >= $from AND started_at < $to"


def nearest_ranks(value: str, counted: str, columns: dict[str, int]) -> str:
    """The smallest values by piece that at least so many of a hundred do not exceed (nearest rank).

    ``counted`` has a row for each piece and value, with how many there are as ``n``.
    """
    ranks = ", ".join(
        f"min(CASE WHEN 100 * upto >= {percent} * n THEN {value} END) AS {name}" for name, percent in columns.items()
    )
    return f"""
        SELECT piece, max(n) AS n, {ranks}
        FROM (
            SELECT piece, {value}, sum(n) OVER (PARTITION BY piece ORDER BY {value}) AS upto,
                sum(n) OVER (PARTITION BY piece) AS n
            FROM ({counted}) AS counted
        ) AS ranked GROUP BY piece
"""  # noqa: S608 - made of constants


SESSIONS: Final = f"""
        SELECT piece, {_RATIOS},
            100.0 * sum(CASE WHEN outcome NOT IN ('offline', 'not_found', 'forbidden') THEN 1 ELSE 0 END)
                / nullif(sum(CASE WHEN outcome NOT IN ('not_found', 'forbidden') THEN 1 ELSE 0 END), 0)
                AS reachable_percent
        FROM {{cut:v_call_facts:started_at}} WHERE true {{scope}} GROUP BY piece
"""  # noqa: S608 - made of constants
OVERALL: Final = SESSIONS.replace(
    "AS reachable_percent", f"AS reachable_percent, {VIDEO.replace('sum(answered) AS answered,', '').strip()}"
)
"""The columns of SESSIONS and of FEATURES."""
PLACED: Final = """
        SELECT piece, count(*) AS calls, count(answered_at) AS answered, count(*) - count(ended_at) AS open
        FROM {cut:calls:started_at} WHERE true {scope} GROUP BY piece
"""
DELAYS_COUNTED: Final = """
                SELECT piece, setup_ms, count(*) AS n FROM {cut:v_call_facts:started_at}
                WHERE (answered = 1 OR ring_ms IS NOT NULL) AND setup_ms IS NOT NULL {scope} GROUP BY piece, setup_ms
            """
DELAYS: Final = nearest_ranks("setup_ms", DELAYS_COUNTED, {f"pdd_p{percent}_ms": percent for percent in PERCENTILES})
DISCONNECTS: Final = nearest_ranks(
    "disconnect_ms",
    """
                SELECT piece, disconnect_ms, count(*) AS n FROM {cut:v_call_facts:started_at}
                WHERE disconnect_ms IS NOT NULL AND end_uncertainty_ms IS NULL {scope} GROUP BY piece, disconnect_ms
            """,
    {"sdd_p50_ms": 50, "sdd_p95_ms": 95},
)
REGISTRATION_DELAYS: Final = nearest_ranks(
    "up_to_ms",
    """
                SELECT piece, up_to_ms, sum(count) AS n FROM {cut:registration_delays:at}
                WHERE outcome = 'accepted' GROUP BY piece, up_to_ms
            """,
    {"rrd_p50_ms": 50, "rrd_p95_ms": 95},
)
FEATURES: Final = f"""
        SELECT piece, {VIDEO}
        FROM {{cut:v_call_facts:started_at}} WHERE true {{scope}} GROUP BY piece
"""  # noqa: S608
UPGRADED: Final = """
        SELECT piece, count(*) AS upgraded FROM {cut:v_call_facts:started_at}
        WHERE video = 1 AND {upgraded} {scope} GROUP BY piece
"""
PEAK_RATE: Final = """
        SELECT piece, max(n) AS n FROM ({seconds}) AS seconds GROUP BY piece
"""
OUTCOMES: Final = f"""
        SELECT outcome, sip_status, end_cause, count(*) AS calls
        FROM v_call_facts WHERE {_IN_PERIOD} {{scope}}
        GROUP BY outcome, sip_status, end_cause ORDER BY calls DESC, outcome, sip_status, end_cause
"""  # noqa: S608
PARTIES: Final = f"""
        SELECT placed, count(*) AS parties FROM (
            SELECT count(*) AS placed FROM calls WHERE {_IN_PERIOD} AND +caller IS NOT NULL {{scope}} GROUP BY caller
        ) AS each_party GROUP BY placed ORDER BY placed
"""  # noqa: S608
REPORTED_COLUMNS: Final = {"mos_lq": 5, "loss_percent": 95, "jitter_ms": 95, "round_trip_ms": 95}
"""What endpoints and relays measure, and the percentile that people complain about: the low end of what is good when it
is high."""
KINDS: Final = """
        SELECT kind, answered_by, sum(count) AS errors FROM errors
        WHERE "at" >= $from AND "at" < $to {scope}
        GROUP BY kind, answered_by ORDER BY errors DESC, kind, answered_by
"""
ERRORS: Final = """
        SELECT piece, sum(count) AS errors FROM {cut:errors:at} WHERE true {scope} GROUP BY piece
"""
MATRIX: Final = f"""
        SELECT caller_country, caller_region, caller_site, callee_country, callee_region, callee_site,
            count(*) AS calls, count(answered_at) AS answered, sum(talk_ms) / 60000.0 AS minutes
        FROM calls WHERE {_IN_PERIOD} {{scope}}
        GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY calls DESC, 1, 2, 3, 4, 5, 6
"""  # noqa: S608
AGENTS: Final = f"""
        SELECT agent, sum(placed) AS placed, sum(received) AS received, sum(with_video) AS with_video,
            sum(talk_ms) / 60000.0 AS minutes
        FROM (
            SELECT caller_agent AS agent, count(*) AS placed, 0 AS received, sum(video) AS with_video,
                sum(talk_ms) AS talk_ms
            FROM v_call_facts WHERE {_IN_PERIOD} {{scope}} GROUP BY 1
            UNION ALL
            SELECT callee_agent, 0, count(*), sum(video), sum(talk_ms)
            FROM v_call_facts WHERE {_IN_PERIOD} AND answered = 1 {{scope}} GROUP BY 1
        ) AS sides
        WHERE agent IS NOT NULL GROUP BY agent ORDER BY sum(placed) + sum(received) DESC, agent
"""  # noqa: S608
TRANSPORTS: Final = f"""
        SELECT caller_transport, callee_transport, count(*) AS calls, count(answered_at) AS answered
        FROM calls WHERE {_IN_PERIOD} {{scope}}
        GROUP BY 1, 2 ORDER BY calls DESC, 1, 2
"""  # noqa: S608
REGISTRATIONS: Final = """
        SELECT piece, sum(count) AS attempts, sum(CASE WHEN outcome = 'refused' THEN count ELSE 0 END) AS ineffective
        FROM {cut:v_registration_attempts:at} WHERE true {scope} GROUP BY piece
"""
REFRESHES: Final = """
        SELECT day, sum(refreshes) AS refreshes FROM sign_in_days
        WHERE day >= $first_day AND day < $end_day GROUP BY day
"""
ACTIVE: Final = """
        SELECT piece, sum(signed_in) AS signed_in, count(*) AS active FROM (
            SELECT piece, party, max(signed_in) AS signed_in FROM (
                SELECT piece, party, 1 AS signed_in FROM {cut:sign_ins:at} WHERE outcome = 'bound' {scope}
                {refreshed}
                UNION ALL SELECT piece, caller, 0 FROM {cut:calls:started_at} WHERE true {calls}
                UNION ALL SELECT piece, callee, 0 FROM {cut:calls:started_at} WHERE answered_at IS NOT NULL {calls}
            ) AS there WHERE party IS NOT NULL GROUP BY piece, party
        ) AS parties GROUP BY piece
"""


def reported(value: str) -> str:
    """The median of what was measured, and the percentile that people complain about."""
    percent = REPORTED_COLUMNS[value]
    counted = f"""
                SELECT piece, {value}, count(*) AS n FROM {{cut:quality_reports:at}}
                WHERE {value} IS NOT NULL AND kind IN ('session', 'summary') {{scope}} GROUP BY piece, {value}
            """  # noqa: S608 - a column of ours
    return nearest_ranks(value, counted, {f"{value}_p50": 50, f"{value}_p{percent}": percent})
