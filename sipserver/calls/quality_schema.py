"""Step ``m003`` of ``calls.db``: quality reports, devices, refreshes by day, and the activity of a party.

``v_activity`` is a sum over everything that names a party (``activity_rows``), and reads the whole store for it. For
one party, sum ``activity_rows WHERE party = …``: that goes through the indices on parties alone (``calls.query``).
Its columns:

    sign_ins, sign_ins_refused      endpoints that were bound, and refusals, by the address that was claimed
    refreshes                       registrations that only lasted longer
    calls_begun, calls_received     by who called; both sides of a call of one's own
    calls_answered, calls_ended     of these: answered at all; over
    calls_hung_up                   of the answered ones: ended by this party
    minutes                         of talk, from the answer to the end
    errors                          refused, failed or malformed requests
    quality_reports, devices        rows of those tables
    first_seen, last_seen           the earliest and the latest of all these rows
    bytes                           what the rows about this party hold: the lengths of their texts, eight for a number.
                                    A call and what belongs to it counts for both sides, a link for those of the call it
                                    leads from. Indices and free space of the file are not counted, so the file is
                                    larger than the sum, by about a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlite_utils import Database

_TABLES: Final = (
    """
    CREATE TABLE quality_reports (
        id TEXT NOT NULL PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,        -- keyed hash of what was reported: sent twice, it counts once
        at TEXT NOT NULL,                   -- it arrived
        call TEXT REFERENCES calls(id) ON DELETE CASCADE,  -- NULL: its sender had no such call
        party TEXT,                         -- whose endpoint reports
        side TEXT,                          -- which side of the call that is: caller or callee
        media INTEGER, stream INTEGER,      -- call_media.number and .stream, where only one fits
        source TEXT NOT NULL,               -- publish, notify, bye, or bye_response
        format TEXT NOT NULL,               -- vq-rtcpxr, x-rtp-stat, p-rtp-stat, rtp-rxstat, rtp-txstat
        kind TEXT NOT NULL,                 -- session, interval, alert, or summary (in a BYE)
        final INTEGER,                      -- 1: the session is over (CallTerm)
        direction TEXT NOT NULL,            -- local: the stream that the reporter received; remote: the one it sent
        from_at TEXT, to_at TEXT,           -- what was measured, by the endpoint's clock
        duration_ms INTEGER,
        media_kind TEXT,                    -- audio or video
        codec TEXT, payload_type INTEGER, sample_rate INTEGER, format_options TEXT,
        packets_per_second INTEGER, frame_ms INTEGER, frame_octets INTEGER, frames_per_packet INTEGER,
        loss_concealment INTEGER, silence_suppression TEXT,
        jitter_buffer_adaptive INTEGER,     -- 2: no, 3: yes (RFC 3611)
        jitter_buffer_rate INTEGER, jitter_buffer_ms INTEGER, jitter_buffer_max_ms INTEGER,
        jitter_buffer_abs_max_ms INTEGER,
        loss_percent REAL,                  -- lost in the network (NLR)
        discard_percent REAL,               -- came too late (JDR)
        burst_loss_percent REAL, burst_ms INTEGER, gap_loss_percent REAL, gap_ms INTEGER, gap_threshold INTEGER,
        round_trip_ms REAL, end_system_ms REAL, one_way_ms REAL, symmetric_one_way_ms REAL,
        jitter_ms REAL,                     -- interarrival jitter (RFC 3550)
        mean_jitter_ms REAL,                -- mean absolute jitter (ITU-T G.1020)
        signal_dbm INTEGER, noise_dbm INTEGER, echo_return_loss_db INTEGER,
        mos_lq REAL, mos_cq REAL,           -- listening and conversational quality, 1 to 5
        r_lq REAL, r_cq REAL, external_r_in REAL, external_r_out REAL,  -- 0 to 120
        algorithm TEXT, mos_lq_algorithm TEXT, mos_cq_algorithm TEXT, r_lq_algorithm TEXT, r_cq_algorithm TEXT,
        packets_received INTEGER, octets_received INTEGER, packets_lost INTEGER, packets_discarded INTEGER,
        packets_sent INTEGER, octets_sent INTEGER,
        alert_metric TEXT, alert_severity TEXT, alert_direction TEXT,
        receiver_ssrc TEXT, receiver_network TEXT,  -- where the measured stream goes
        source_ssrc TEXT, source_network TEXT,      -- where it comes from
        agent TEXT, node TEXT
    ) STRICT
    """,
    """
    CREATE TABLE devices (
        party TEXT NOT NULL,
        device TEXT NOT NULL,               -- keyed hash of its +sip.instance, or of its agent where it has none
        named INTEGER NOT NULL,             -- 1: by its instance; 0: those of one agent cannot be told apart
        agent TEXT, allow TEXT, supported TEXT,
        transport TEXT, network TEXT,
        first_seen TEXT NOT NULL,
        last_seen TEXT NOT NULL,            -- up to an hour early
        PRIMARY KEY (party, device)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE sign_in_days (
        day TEXT NOT NULL,                  -- UTC
        party TEXT NOT NULL,
        refreshes INTEGER NOT NULL,
        first_at TEXT NOT NULL, last_at TEXT NOT NULL,
        PRIMARY KEY (party, day)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX quality_reports_call ON quality_reports(call) WHERE call IS NOT NULL",
    "CREATE INDEX quality_reports_party ON quality_reports(party) WHERE party IS NOT NULL",
    "CREATE INDEX errors_party ON errors(party) WHERE party IS NOT NULL",
)

_QUALITY_VIEW: Final = """
    CREATE VIEW v_quality AS SELECT
        coalesce(calls.started_at, quality_reports.at) AS started,
        CASE side WHEN 'caller' THEN calls.caller WHEN 'callee' THEN calls.callee ELSE party END AS reporter,
        CASE side WHEN 'caller' THEN calls.callee WHEN 'callee' THEN calls.caller END AS other,
        side, direction, kind, format, media_kind, codec,
        round(coalesce(loss_percent, 100.0 * packets_lost / nullif(packets_lost + packets_received, 0)), 2)
            AS loss_percent,
        round(discard_percent, 2) AS discard_percent,
        round(jitter_ms, 1) AS jitter_ms, round(round_trip_ms, 1) AS round_trip_ms,
        mos_lq, mos_cq, r_lq, r_cq,
        burst_loss_percent, burst_ms,
        packets_received, packets_lost, packets_sent,
        alert_metric, alert_severity,
        stream, agent, call, quality_reports.id AS id
    FROM quality_reports LEFT JOIN calls ON calls.id = quality_reports.call
"""

_VIEW_WITH_SOURCE: Final = _QUALITY_VIEW.replace(
    "side, direction, kind, format,", "side, direction, source, kind, format,"
)


ACTIVITY_COLUMNS: Final = """party,
        ifnull(sum(sign_ins), 0) AS sign_ins,
        ifnull(sum(refused), 0) AS sign_ins_refused,
        ifnull(sum(refreshes), 0) AS refreshes,
        ifnull(sum(begun), 0) AS calls_begun,
        ifnull(sum(received), 0) AS calls_received,
        ifnull(sum(answered), 0) AS calls_answered,
        ifnull(sum(ended), 0) AS calls_ended,
        ifnull(sum(hung_up), 0) AS calls_hung_up,
        round(ifnull(sum(talk_ms), 0) / 60000.0, 2) AS minutes,
        ifnull(sum(errors), 0) AS errors,
        ifnull(sum(reports), 0) AS quality_reports,
        ifnull(sum(devices), 0) AS devices,
        min(first) AS first_seen, max(last) AS last_seen,
        sum(bytes) AS bytes"""

_PARTS: Final = ("call_branches", "call_media", "call_events")
"""What belongs to a call and holds no party, at this step."""


def create(database: Database) -> None:
    """The tables and views of this step."""
    for statement in (*_TABLES, _QUALITY_VIEW):
        database.execute(statement)
    view_activity(database, _PARTS)


def view_quality(database: Database) -> None:
    """``v_quality`` with who measured: since step m007 that may be a media relay."""
    database.execute("DROP VIEW v_quality")
    database.execute(_VIEW_WITH_SOURCE)


def view_activity(database: Database, parts: Sequence[str]) -> None:
    """The views of activity for the tables as they are now: a step that adds to what is counted makes them again.

    ``parts`` are the tables that belong to a call.
    """
    database.execute("DROP VIEW IF EXISTS v_activity")
    database.execute("DROP VIEW IF EXISTS activity_rows")
    sizes = {
        table: _size(database, table)
        for table in (*parts, "calls", "sign_ins", "errors", "devices", "sign_in_days", "quality_reports")
    }
    database.execute(_activity_rows(sizes, parts))
    columns = ACTIVITY_COLUMNS
    database.execute(f"CREATE VIEW v_activity AS SELECT {columns} FROM activity_rows GROUP BY party")  # noqa: S608


def _size(database: Database, table: str) -> str:
    """An expression for the bytes that a row of this table holds, as the table is now."""
    terms = [
        f"ifnull(length(t.{column.name}), 0)" if column.type == "TEXT" else f"8 * (t.{column.name} IS NOT NULL)"
        for column in database[table].columns
    ]
    return " + ".join(terms)


def _activity_rows(sizes: dict[str, str], parts: Sequence[str]) -> str:
    """``activity_rows``: an arm for each table and side, each of which an index on the party serves."""
    names = (
        "party", "first", "last", "sign_ins", "refused", "refreshes", "begun", "received", "answered", "ended",
        "hung_up", "talk_ms", "errors", "reports", "devices", "bytes",
    )  # fmt: skip

    def arm(source: str, **values: str) -> str:
        return "SELECT " + ", ".join(f"{values.get(name, 'NULL')} AS {name}" for name in names) + f" FROM {source}"  # noqa: S608

    arms = []
    for side, how in (("caller", "begun"), ("callee", "received")):
        arms.append(
            arm(
                f"calls t WHERE t.{side} IS NOT NULL", party=f"t.{side}", first="t.started_at",
                last="coalesce(t.ended_at, t.started_at)", answered="t.answered_at IS NOT NULL",
                ended="t.ended_at IS NOT NULL", hung_up=f"t.answered_at IS NOT NULL AND t.ended_by = '{side}'",
                talk_ms="t.talk_ms", bytes=sizes["calls"], **{how: "1"},
            )
        )  # fmt: skip
        arms += [
            arm(
                f"calls c JOIN {part} t ON t.call = c.id WHERE c.{side} IS NOT NULL", party=f"c.{side}",
                bytes=sizes[part],
            )
            for part in parts
        ]  # fmt: skip
    arms += [
        arm(
            "sign_ins t WHERE t.party IS NOT NULL", party="t.party", first="t.at", last="t.last_at",
            sign_ins="t.count * (t.outcome = 'bound')", refused="t.count * (t.outcome = 'refused')",
            bytes=sizes["sign_ins"],
        ),
        arm(
            "sign_in_days t", party="t.party", first="t.first_at", last="t.last_at", refreshes="t.refreshes",
            bytes=sizes["sign_in_days"],
        ),
        arm(
            "errors t WHERE t.party IS NOT NULL", party="t.party", first="t.at", last="t.last_at", errors="t.count",
            bytes=sizes["errors"],
        ),
        arm(
            "devices t", party="t.party", first="t.first_seen", last="t.last_seen", devices="1",
            bytes=sizes["devices"],
        ),
        arm(
            "quality_reports t WHERE t.party IS NOT NULL", party="t.party", first="t.at", last="t.at", reports="1",
            bytes=sizes["quality_reports"],
        ),
    ]  # fmt: skip
    return f"CREATE VIEW activity_rows AS {' UNION ALL '.join(arms)}"
