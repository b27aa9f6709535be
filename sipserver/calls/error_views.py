"""Errors for people, and error rates by the agent's product and version: the SQL of schema step m006 and of queries.

What stands here was run on the stores there are: a change is another step of the schema, never an edit.

A User-Agent is a name and mostly a version (RFC 3261 §20.41): ``Acme-Phone/5.1.2 (x; y)``, ``acme v1.0.0 (x/y)``,
``Acme Desk Phone 66.84``. The name ends before the first ``/``, the first blank before a figure or before ``v`` and a
figure, or the first comment; the version is what follows, up to the next blank.
"""

from __future__ import annotations

from typing import Final

_FIGURES: Final = "0123456789"
_NOWHERE: Final = 9_999
"""Behind every agent: those in the store have at most 200 characters."""

_CUT: Final = ", ".join(
    f"coalesce(nullif(instr(agent, '{mark}'), 0), {_NOWHERE})"
    for mark in ("/", " (", *(f" {figure}" for figure in _FIGURES), *(f" v{figure}" for figure in _FIGURES))
)

_SPLIT: Final = f"""
    SELECT agent,
        coalesce(nullif(trim(substr(agent, 1, cut - 1)), ''), agent) AS product,
        nullif(CASE WHEN word GLOB '[vV][0-9]*' THEN substr(word, 2) ELSE word END, '') AS version
    FROM (
        SELECT agent, cut, substr(rest, 1, instr(rest || ' ', ' ') - 1) AS word
        FROM (
            SELECT agent, cut, CASE WHEN substr(agent, cut, 2) = ' (' THEN '' ELSE substr(agent, cut + 1) END AS rest
            FROM (SELECT agent, min({_CUT}) AS cut FROM (SELECT DISTINCT agent FROM activity))
        )
    )
"""  # noqa: S608 - made of constants only
"""Agents taken apart; ``activity`` is in front of it."""


def _activity(sign_ins: str, calls: str, errors: str) -> str:
    """What each agent did on each day; the arguments are conditions."""
    return f"""
        SELECT substr(at, 1, 10) AS day, agent, sum(count) AS sign_ins, 0 AS calls, 0 AS errors
        FROM sign_ins WHERE agent IS NOT NULL AND {sign_ins} GROUP BY 1, 2
        UNION ALL
        SELECT substr(started_at, 1, 10), caller_agent, 0, count(*), 0
        FROM calls WHERE caller_agent IS NOT NULL AND {calls} GROUP BY 1, 2
        UNION ALL
        SELECT substr(started_at, 1, 10), callee_agent, 0, count(*), 0
        FROM calls WHERE callee_agent IS NOT NULL AND {calls} GROUP BY 1, 2
        UNION ALL
        SELECT substr(at, 1, 10), agent, 0, 0, sum(count)
        FROM errors WHERE {errors} GROUP BY 1, 2
    """  # noqa: S608 - conditions are constants, values are parameters


def rates_query(*, by_day: bool, sign_ins: str = "1", calls: str = "1", errors: str = "1") -> str:
    """Error rates by product and version, on each day or in all; the other arguments are SQL conditions.

    A call counts for the agents of both sides, a sign-in for its own. ``errors_per_100`` is NULL where an agent did
    nothing that could be counted.
    """
    return rates_of(_activity(sign_ins, calls, errors), by_day=by_day)


def rates_of(activity: str, *, by_day: bool) -> str:
    """The same of what agents did, however that was found: a query for day, agent, sign_ins, calls and errors."""
    day = "day, " if by_day else ""
    return f"""
        WITH activity AS ({activity}), split AS ({_SPLIT})
        SELECT {day}product, version,
            sum(sign_ins) AS sign_ins, sum(calls) AS calls, sum(errors) AS errors,
            round(100.0 * sum(errors) / nullif(sum(sign_ins) + sum(calls), 0), 2) AS errors_per_100
        FROM activity LEFT JOIN split ON split.agent = activity.agent
        GROUP BY {day}product, version
    """  # noqa: S608 - as above


M006: Final = (
    """
    CREATE VIEW v_errors AS SELECT
        at AS first_at, last_at, count, kind, method, status, answered_by, detail, agent, party, target, call, network,
        id
    FROM errors
    """,
    f"CREATE VIEW v_error_rates AS {rates_query(by_day=False)}",
    f"CREATE VIEW v_error_rates_by_day AS {rates_query(by_day=True)}",
    """
    CREATE VIEW v_runs AS SELECT
        started_at, last_alive_at, stopped_at,
        CASE WHEN stopped_at IS NOT NULL THEN 'stopped' WHEN recovered_at IS NOT NULL THEN 'killed'
            ELSE 'running or killed' END AS state,
        recovered_at, recovered, placed, closed, lost, set_aside, node, id
    FROM server_runs
    """,
)
