"""Step ``m010`` of ``calls.db``: what analysts count by, as views that any SQLite tool can read.

Each view says in its first comment what it is and where that comes from; the comment stays in the file, so
``sqlite_master`` has it, too. ``v_call_facts`` has one row for each call with the marks that every ratio is a mean of:
a view by day (UTC) and the reports (any period, any time zone) read the same marks. What stands here was run on the
stores there are: a change is another step of the schema, never an edit.

Its indices on ``calls`` are gone since step ``m013``: they were a tenth and more of what a call costs the writer, and
stores so large that they helped are read by a copy (``analysis.columns``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlite_utils import Database


@dataclass(slots=True)
class View:
    """A view, with what it means."""

    name: str
    title: str
    definition: str
    source: str
    """Where the definition comes from."""
    select: str

    def create(self) -> str:
        """The statement that makes it, with its definition as a comment."""
        return f"CREATE VIEW {self.name} AS\n-- {self.title}. {self.definition} ({self.source})\n{self.select.strip()}"


LONG_MS: Final = 14_400_000
"""Calls that may have lasted longer than this, from the INVITE on, have an index of their own: there are few."""
LASTED: Final = "ifnull(setup_ms, 0) + ifnull(ring_ms, 0) + talk_ms + ifnull(end_uncertainty_ms, 0)"
"""How long an answered call can have lasted at most, from the INVITE on, in milliseconds."""

INDICES: Final = (
    """
    CREATE INDEX calls_facts ON calls(started_at, answered_at, ended_at, outcome, sip_status, end_cause,
        end_uncertainty_ms, setup_ms, ring_ms, talk_ms, video, content, video_ms, devices)
    WHERE ended_at IS NOT NULL
    """,
    f"CREATE INDEX calls_long ON calls(started_at) WHERE {LASTED} > {LONG_MS} AND ended_at IS NOT NULL",
    # A row more for a party that refreshes on a day; what is counted there later leaves it alone.
    "CREATE INDEX sign_in_days_day ON sign_in_days(day)",
)

_MARKS: Final = (
    ("answered", "answered_at IS NOT NULL", ""),
    ("redirected", "answered_at IS NULL AND ifnull(sip_status BETWEEN 300 AND 399, 0)",
        "RFC 6076 §4.6: INVITEs with a 3xx response are left out."),
    ("effective", "answered_at IS NOT NULL OR ifnull(sip_status IN (480, 486, 600, 603), 0)",
        "RFC 6076 §4.7: the called user's own doing counts as effective."),
    ("ineffective", "answered_at IS NULL AND ifnull(sip_status IN (408, 500, 503, 504), 0)", "RFC 6076 §4.8."),
    ("completed", "answered_at IS NOT NULL AND end_cause IS 'bye' AND end_uncertainty_ms IS NULL",
        "RFC 6076 §4.9: both ends were there until a BYE that was answered."),
    ("failed", "answered_at IS NULL AND ifnull(sip_status >= 400 AND sip_status NOT IN (401, 402, 407, 487), 0)",
        "RFC 6076 §4.3.2; a CANCEL is no failure of the network, so 487 is left out as well."),
    ("seized", "ifnull(devices > 0, 0)", "ITU-T E.411: an attempt that reached a device is a seizure."),
    ("delivered", """answered_at IS NOT NULL OR outcome IN ('busy', 'declined', 'no_answer')
            OR (outcome = 'cancelled' AND ring_ms IS NOT NULL)""",
        "ITU-T E.425: the network did its part where somebody was asked and did not want to, or was not there."),
    ("video", "ifnull(video, 0)", ""),
    ("content", "ifnull(content, 0)", ""),
)  # fmt: skip
MARKS: Final = {name: expression for name, expression, _ in _MARKS}
"""The marks of ``v_call_facts``, and what each is of a row of ``calls``."""

_MARKED: Final = "\n        ".join(
    f"{f'-- {reason}{chr(10)}        ' if reason else ''}{expression} AS {name}," for name, expression, reason in _MARKS
)

_FACTS: Final = View(
    "v_call_facts",
    "One row for each call that is over, with the marks that figures are means and sums of",
    "A mark is 1 where the call counts for the numerator of a figure, else 0; "
    "a call that was never answered has no talk_ms",
    "RFC 6076, ITU-T E.411, E.425",
    f"""
    SELECT started_at, answered_at, ended_at, outcome, sip_status, end_cause, end_uncertainty_ms,
        setup_ms, ring_ms, talk_ms, video_ms,
        {_MARKED}
        caller, callee, caller_site, callee_site, caller_country, callee_country, caller_agent, callee_agent, id
    FROM calls WHERE ended_at IS NOT NULL
    """,  # noqa: S608 - made of constants
)

RATIOS: Final = """
        count(*) AS calls,
        sum(answered) AS answered,
        100.0 * sum(answered) / nullif(count(*) - sum(redirected), 0) AS ser_percent,
        100.0 * sum(effective) / nullif(count(*) - sum(redirected), 0) AS seer_percent,
        100.0 * sum(ineffective) / nullif(count(*), 0) AS isa_percent,
        100.0 * sum(completed) / nullif(count(*), 0) AS scr_percent,
        100.0 * sum(answered) / nullif(sum(seized), 0) AS asr_percent,
        100.0 * sum(delivered) / nullif(count(*), 0) AS ner_percent,
        100.0 * sum(answered) / nullif(count(*), 0) AS abr_percent,
        avg(talk_ms) / 1000.0 AS acd_s,
        avg(CASE WHEN completed THEN talk_ms END) / 1000.0 AS sdt_s,
        avg(CASE WHEN answered AND end_cause IS 'bye' AND end_uncertainty_ms IS NOT NULL
            THEN talk_ms + end_uncertainty_ms END) / 1000.0 AS sdt_failed_s,
        avg(CASE WHEN answered THEN setup_ms END) / 1000.0 AS srd_s,
        avg(CASE WHEN failed THEN setup_ms END) / 1000.0 AS srd_failed_s"""
"""The columns of session figures, over rows of ``v_call_facts``."""

VIDEO: Final = """
        sum(answered) AS answered,
        sum(video) AS with_video,
        100.0 * sum(video) / nullif(sum(answered), 0) AS video_percent,
        sum(content) AS with_content,
        100.0 * sum(content) / nullif(sum(answered), 0) AS content_percent,
        sum(talk_ms) / 60000.0 AS minutes,
        sum(video_ms) / 60000.0 AS video_minutes"""
"""The columns of feature figures, over the same rows."""

REGISTRATIONS: Final = """
        sum(count) AS attempts,
        sum(CASE WHEN outcome = 'refused' THEN count ELSE 0 END) AS ineffective,
        100.0 * sum(CASE WHEN outcome = 'refused' THEN count ELSE 0 END) / nullif(sum(count), 0) AS ira_percent"""
"""The columns of registration figures, over ``v_registration_attempts``."""

VIEWS: Final = (
    _FACTS,
    View(
        "v_session_figures_by_day",
        "SER, SEER, ISA, SCR, ASR, NER, ABR, ACD, session duration and request delay by day (UTC)",
        "Means over the calls that began on the day, see v_call_facts; open calls are not in it",
        "RFC 6076 §4.3, §4.5 to §4.9; ITU-T E.411, E.425",
        f"SELECT substr(started_at, 1, 10) AS day, {RATIOS}\n    FROM v_call_facts GROUP BY 1",  # noqa: S608
    ),
    View(
        "v_features_by_day",
        "Video and content by day (UTC)",
        "Of the answered calls that began on the day, those that had video or content at any time, and the minutes "
        "of talk and of video",
        "RFC 3264; RFC 4796 for content",
        f"SELECT substr(started_at, 1, 10) AS day, {VIDEO}\n    FROM v_call_facts GROUP BY 1",  # noqa: S608
    ),
    View(
        "v_registration_attempts",
        "Attempts to register, by when they came",
        "New bindings and refusals as they are on record, each with its count, and the refreshes of each day; "
        "challenges are no attempts of their own",
        "RFC 6076 §4.2",
        """
    SELECT at, outcome, count, agent, site FROM sign_ins WHERE outcome IN ('bound', 'refused')
    """,
    ),
    View(
        "v_registration_figures_by_day",
        "Ineffective registration attempts by day (UTC)",
        "Refused registrations among bound and refused ones; refreshes, which all succeeded, count as attempts, too",
        "RFC 6076 §4.2",
        f"""
    SELECT day, {REGISTRATIONS}
    FROM (
        SELECT substr(at, 1, 10) AS day, outcome, count FROM v_registration_attempts
        UNION ALL SELECT day, 'refreshed', refreshes FROM sign_in_days
    ) GROUP BY day
    """,  # noqa: S608 - made of constants
    ),
    View(
        "v_media_mix",
        "Which codecs and resolutions answered calls used",
        "Calls that had a stream of this kind, codec and resolution at any time after the answer",
        "RFC 3264, RFC 6236",
        """
    SELECT kind, codec, resolution, count(DISTINCT call) AS calls
    FROM call_media WHERE accepted = 1 AND early = 0 GROUP BY kind, codec, resolution
    """,
    ),
    View(
        "v_location_matrix",
        "Who calls from where to where",
        "Calls by country and site of both sides; the place of the called side is known of answered calls only",
        "the record",
        """
    SELECT caller_country, caller_site, callee_country, callee_site, count(*) AS calls,
        count(answered_at) AS answered, sum(talk_ms) / 60000.0 AS minutes
    FROM calls GROUP BY 1, 2, 3, 4
    """,
    ),
    View(
        "v_calls_per_party",
        "How many parties placed so many calls",
        "Parties by the number of calls that they placed; those who placed none are not known here",
        "the record",
        """
    SELECT placed, count(*) AS parties
    FROM (SELECT count(*) AS placed FROM calls WHERE caller IS NOT NULL GROUP BY caller) GROUP BY placed
    """,
    ),
    View(
        "v_retries",
        "What people do after a call did not get through",
        "Each call that was not answered, with how long after its end the same caller called the same callee again, "
        "NULL where they did not",
        "ITU-T E.600, repeated call attempt",
        """
    SELECT started_at, outcome,
        round((julianday(again) - julianday(ended_at)) * 86400.0, 3) AS again_after_s
    FROM (
        SELECT started_at, ended_at, answered_at, outcome,
            lead(started_at) OVER (PARTITION BY caller, callee ORDER BY started_at, id) AS again
        FROM calls WHERE caller IS NOT NULL AND callee IS NOT NULL
    ) WHERE answered_at IS NULL AND ended_at IS NOT NULL
    """,
    ),
    View(
        "v_active_parties_by_day",
        "How many parties did something on a day (UTC)",
        "Parties that signed in or refreshed, that placed a call, or that answered one",
        "the record",
        """
    SELECT day, count(DISTINCT party) AS active,
        count(DISTINCT CASE WHEN what = 1 THEN party END) AS signed_in,
        count(DISTINCT CASE WHEN what = 2 THEN party END) AS calling
    FROM (
        SELECT substr(at, 1, 10) AS day, party, 1 AS what FROM sign_ins WHERE outcome = 'bound'
        UNION ALL SELECT day, party, 1 FROM sign_in_days
        UNION ALL SELECT substr(started_at, 1, 10), caller, 2 FROM calls
        UNION ALL SELECT substr(answered_at, 1, 10), callee, 2 FROM calls WHERE answered_at IS NOT NULL
    ) WHERE party IS NOT NULL GROUP BY day
    """,
    ),
    View(
        "v_traffic_by_hour",
        "Carried traffic by hour (UTC), in Erlang",
        "The talk time within the hour over the length of an hour; a call counts in each hour that it was up in, and "
        "one with an uncertain end as long as it is known to have lasted",
        "ITU-T E.600",
        """
    WITH RECURSIVE part (hour, began, ended) AS (
        SELECT CAST(strftime('%s', answered_at) AS INTEGER) / 3600,
            (julianday(answered_at) - 2440587.5) * 86400.0, (julianday(ended_at) - 2440587.5) * 86400.0
        FROM calls WHERE answered_at IS NOT NULL AND ended_at IS NOT NULL
        UNION ALL SELECT hour + 1, began, ended FROM part WHERE (hour + 1) * 3600 < ended
    )
    SELECT strftime('%Y-%m-%dT%H:00:00.000Z', hour * 3600, 'unixepoch') AS hour,
        sum(min(ended, (hour + 1) * 3600) - max(began, hour * 3600)) / 3600.0 AS erlang
    FROM part GROUP BY hour
    """,
    ),
)
"""Every view of this step, in the order in which they are made."""


def create(database: Database) -> None:
    """The indices and the views of this step."""
    for statement in INDICES:
        database.execute(statement)
    for view in VIEWS:
        database.execute(view.create())
