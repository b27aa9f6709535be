"""Step ``m011`` of ``calls.db``: how long registrations take and how long it takes to hang up (RFC 6076 §4.1, §4.4).

What stands here was run on the stores there are: a change is another step of the schema, never an edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipserver.calls import analysis_schema
from sipserver.calls.analysis_schema import View

if TYPE_CHECKING:
    from sqlite_utils import Database

_STATEMENTS: Final = (
    # From a BYE to its answer; of one that nobody answered until it was given up (end_uncertainty_ms says which).
    "ALTER TABLE calls ADD COLUMN disconnect_ms INTEGER",
    """
    CREATE TABLE registration_delays (
        at TEXT NOT NULL,                   -- the first of them; the others came within about a minute
        outcome TEXT NOT NULL,              -- accepted or refused
        up_to_ms INTEGER NOT NULL,          -- and longer than the next lower bound
        count INTEGER NOT NULL,
        PRIMARY KEY (at, outcome, up_to_ms)
    ) STRICT, WITHOUT ROWID
    """,
    "DROP INDEX calls_facts",
    analysis_schema.INDICES[0].replace("video_ms, devices)", "video_ms, devices, disconnect_ms)"),
    "DROP VIEW v_call_facts",
)

_RANKS: Final = """
    min(CASE WHEN 2 * below >= total THEN {value} END) AS p50_ms,
        min(CASE WHEN 20 * below >= 19 * total THEN {value} END) AS p95_ms"""

_FACTS: Final = analysis_schema.VIEWS[0]

VIEWS: Final = (
    View(
        _FACTS.name, _FACTS.title, _FACTS.definition, _FACTS.source,
        _FACTS.select.replace("talk_ms, video_ms,", "talk_ms, video_ms, disconnect_ms,"),
    ),
    View(
        "v_registration_delays_by_day",
        "Registration request delay by day (UTC)",
        "From the arrival of a REGISTER, after any challenge, until its final response was sent; half and 95 in a "
        "hundred took at most so long, by bounds that are at most a half apart",
        "RFC 6076 §4.1, measured at this server",
        f"""
    SELECT day, outcome, max(total) AS registrations, {_RANKS.format(value="up_to_ms").strip()}
    FROM (
        SELECT day, outcome, up_to_ms,
            sum(n) OVER (PARTITION BY day, outcome ORDER BY up_to_ms) AS below,
            sum(n) OVER (PARTITION BY day, outcome) AS total
        FROM (SELECT substr(at, 1, 10) AS day, outcome, up_to_ms, sum(count) AS n
            FROM registration_delays GROUP BY 1, 2, 3)
    ) GROUP BY day, outcome
    """,  # noqa: S608 - made of constants
    ),
    View(
        "v_disconnect_delays_by_day",
        "Session disconnect delay by day (UTC)",
        "From a BYE to its answer; of those that nobody answered (answered = 0) until they were given up. By the day "
        "on which the calls began",
        "RFC 6076 §4.4, measured at this server",
        f"""
    SELECT day, answered, max(total) AS calls, {_RANKS.format(value="disconnect_ms").strip()}
    FROM (
        SELECT day, answered, disconnect_ms,
            sum(n) OVER (PARTITION BY day, answered ORDER BY disconnect_ms) AS below,
            sum(n) OVER (PARTITION BY day, answered) AS total
        FROM (SELECT substr(started_at, 1, 10) AS day, end_uncertainty_ms IS NULL AS answered, disconnect_ms,
                count(*) AS n
            FROM v_call_facts WHERE disconnect_ms IS NOT NULL GROUP BY 1, 2, 3)
    ) GROUP BY day, answered
    """,  # noqa: S608 - as above
    ),
)  # fmt: skip
"""Every view of this step; the first is one that there was."""


def create(database: Database) -> None:
    """The column, the table, and the index and views that have them."""
    for statement in _STATEMENTS:
        database.execute(statement)
    for view in VIEWS:
        database.execute(view.create())
