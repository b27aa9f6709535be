"""``calls.db``: what happened. Every change of the schema is another step at the end; none is ever edited.

Made for a hundred million calls:

* ``calls`` has an ordinary rowid, so its wide rows stay in a shallow tree, and its ``id`` is a UUIDv7, whose index
  grows at its end: an insert touches the same few pages however many rows there are.
* The tables below a call are clustered by ``(call, number)``: one tree each, again growing near its end.
* Indices cost every insert, so there are few. Those on ``caller`` and ``callee`` need no time in them: equal keys
  are in order of rowid, which is order of time. ``calls_open`` holds only what is open.

What a call had in the way of media are the rows of ``call_media`` with ``early = 0``.

Times are UTC text with milliseconds, durations integer milliseconds, unknown is NULL. Parties are pseudonyms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipserver.calls import analysis_schema, copy_schema, delay_schema, error_views, quality_schema, timeline_schema
from sipserver.storage.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

MIGRATIONS = Migrations("calls")

_TABLES: Final = (
    """
    CREATE TABLE calls (
        id TEXT NOT NULL PRIMARY KEY,
        call_id TEXT NOT NULL,              -- keyed hash of the SIP Call-ID
        caller TEXT, callee TEXT,           -- party ids
        started_at TEXT NOT NULL,           -- the INVITE was accepted from the caller
        ringing_at TEXT,                    -- first 180, 183 or other provisional response of a device
        answered_at TEXT,                   -- first 2xx
        confirmed_at TEXT,                  -- first ACK
        ended_at TEXT,                      -- NULL while the call is open
        setup_ms INTEGER,                   -- INVITE to the first sign of a device, or to the refusal
        ring_ms INTEGER,                    -- ringing to answer, or to the end
        talk_ms INTEGER,                    -- answer to end
        outcome TEXT, sip_status INTEGER, reason TEXT,
        ended_by TEXT, end_cause TEXT,
        end_uncertainty_ms INTEGER,         -- NULL: the end was observed
        watched_until TEXT,                 -- of a call cut short: until then its end would have been seen
        video INTEGER, content INTEGER, encrypted INTEGER, video_ms INTEGER,
        offered_video INTEGER,              -- the INVITE offered video; of calls that were never answered, too
        caller_country TEXT, caller_region TEXT, caller_site TEXT, caller_location_source TEXT,
        callee_country TEXT, callee_region TEXT, callee_site TEXT, callee_location_source TEXT,
        caller_agent TEXT, callee_agent TEXT, caller_transport TEXT, callee_transport TEXT,
        caller_network TEXT, callee_network TEXT,
        devices INTEGER,                    -- branches tried
        node TEXT
    ) STRICT
    """,
    """
    CREATE TABLE call_branches (
        call TEXT NOT NULL REFERENCES calls(id) ON DELETE CASCADE,
        branch INTEGER NOT NULL,
        tried_at TEXT NOT NULL, ringing_at TEXT, answered_at TEXT, ended_at TEXT,
        status INTEGER, outcome TEXT,
        agent TEXT, transport TEXT, network TEXT,
        PRIMARY KEY (call, branch)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE call_media (
        call TEXT NOT NULL REFERENCES calls(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,            -- of the row within the call
        stream INTEGER NOT NULL,            -- place in the session description, from 0
        kind TEXT NOT NULL,
        accepted INTEGER NOT NULL,          -- 0: offered and refused
        codec TEXT,
        direction TEXT,                     -- as the caller sees it
        bandwidth INTEGER,                  -- bits a second
        resolution TEXT, level TEXT, max_pixels INTEGER,
        encrypted INTEGER, ice INTEGER,
        from_at TEXT NOT NULL, to_at TEXT,
        PRIMARY KEY (call, number)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE call_events (
        call TEXT NOT NULL REFERENCES calls(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        side TEXT, status INTEGER, detail TEXT,
        PRIMARY KEY (call, number)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE sign_ins (
        id TEXT NOT NULL PRIMARY KEY,
        at TEXT NOT NULL,
        party TEXT,
        outcome TEXT NOT NULL, status INTEGER,
        agent TEXT, transport TEXT, network TEXT,
        country TEXT, region TEXT, site TEXT, location_source TEXT,
        detail TEXT,
        count INTEGER NOT NULL, last_at TEXT NOT NULL,  -- refusals of one kind from one network share a row
        node TEXT
    ) STRICT
    """,
    """
    CREATE TABLE errors (
        id TEXT NOT NULL PRIMARY KEY,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        method TEXT, status INTEGER,
        answered_by TEXT,                   -- server, peer or network
        agent TEXT, party TEXT, network TEXT,
        detail TEXT,
        count INTEGER NOT NULL, last_at TEXT NOT NULL,  -- floods of one kind from one network share a row
        node TEXT
    ) STRICT
    """,
    """
    CREATE TABLE server_runs (
        id TEXT NOT NULL PRIMARY KEY,
        node TEXT,
        started_at TEXT NOT NULL,
        last_alive_at TEXT NOT NULL,
        stopped_at TEXT                     -- NULL: running, or it was killed
    ) STRICT
    """,
    "CREATE INDEX calls_started ON calls(started_at)",
    "CREATE INDEX calls_caller ON calls(caller) WHERE caller IS NOT NULL",
    "CREATE INDEX calls_callee ON calls(callee) WHERE callee IS NOT NULL",
    "CREATE INDEX calls_open ON calls(id) WHERE ended_at IS NULL",
    "CREATE INDEX sign_ins_party ON sign_ins(party) WHERE party IS NOT NULL",
    "CREATE INDEX sign_ins_at ON sign_ins(at)",
    "CREATE INDEX errors_at ON errors(at)",
)

_VIEWS: Final = (
    """
    CREATE VIEW v_calls AS SELECT
        started_at AS started,
        caller, callee,
        coalesce(outcome, CASE WHEN ringing_at IS NULL THEN 'trying' ELSE 'ringing' END) AS outcome,
        ended_at IS NULL AS open,
        round(setup_ms / 1000.0, 1) AS setup_s,
        round(ring_ms / 1000.0, 1) AS ring_s,
        round(talk_ms / 1000.0, 1) AS talk_s,
        CASE WHEN talk_ms IS NOT NULL THEN
            printf('%d:%02d:%02d', talk_ms / 3600000, talk_ms / 60000 % 60, talk_ms / 1000 % 60) END AS talk,
        round(end_uncertainty_ms / 1000.0, 1) AS end_uncertain_s,
        round(video_ms / 1000.0, 1) AS video_s,
        video, content, encrypted,
        sip_status, reason, ended_by, end_cause, devices,
        caller_agent, callee_agent, caller_transport, callee_transport,
        caller_country, callee_country,
        id
    FROM calls
    """,
    """
    CREATE VIEW v_errors AS SELECT
        at AS first_at, last_at, count, kind, method, status, answered_by, detail, agent, party, network, id
    FROM errors
    """,
    """
    CREATE VIEW v_sign_ins AS SELECT
        at AS first_at, last_at, count, party, outcome, status, agent, transport, network, country, region, site,
        detail, id
    FROM sign_ins
    """,
)


@MIGRATIONS()
def m001_calls(database: Database) -> None:
    """Calls with their branches, media and timeline; sign-ins, errors, runs of the server; views for people."""
    for statement in (*_TABLES, *_VIEWS):
        database.execute(statement)


_PLACES: Final = (
    "ALTER TABLE calls ADD COLUMN caller_city TEXT",
    "ALTER TABLE calls ADD COLUMN callee_city TEXT",
    "ALTER TABLE sign_ins ADD COLUMN city TEXT",
    # RFC 4119: until when an endpoint lets its place be kept; it is then made NULL. NULL: no such limit.
    "ALTER TABLE calls ADD COLUMN caller_location_until TEXT",
    "ALTER TABLE calls ADD COLUMN callee_location_until TEXT",
    "ALTER TABLE sign_ins ADD COLUMN location_until TEXT",
    "CREATE INDEX calls_caller_until ON calls(caller_location_until) WHERE caller_location_until IS NOT NULL",
    "CREATE INDEX calls_callee_until ON calls(callee_location_until) WHERE callee_location_until IS NOT NULL",
    "CREATE INDEX sign_ins_until ON sign_ins(location_until) WHERE location_until IS NOT NULL",
    "DROP VIEW v_calls",
    "DROP VIEW v_sign_ins",
    """
    CREATE VIEW v_calls AS SELECT
        started_at AS started,
        caller, callee,
        coalesce(outcome, CASE WHEN ringing_at IS NULL THEN 'trying' ELSE 'ringing' END) AS outcome,
        ended_at IS NULL AS open,
        round(setup_ms / 1000.0, 1) AS setup_s,
        round(ring_ms / 1000.0, 1) AS ring_s,
        round(talk_ms / 1000.0, 1) AS talk_s,
        CASE WHEN talk_ms IS NOT NULL THEN
            printf('%d:%02d:%02d', talk_ms / 3600000, talk_ms / 60000 % 60, talk_ms / 1000 % 60) END AS talk,
        round(end_uncertainty_ms / 1000.0, 1) AS end_uncertain_s,
        round(video_ms / 1000.0, 1) AS video_s,
        video, content, encrypted,
        sip_status, reason, ended_by, end_cause, devices,
        caller_agent, callee_agent, caller_transport, callee_transport,
        caller_country, caller_region, caller_city, caller_site, caller_location_source,
        callee_country, callee_region, callee_city, callee_site, callee_location_source,
        id
    FROM calls
    """,
    """
    CREATE VIEW v_sign_ins AS SELECT
        at AS first_at, last_at, count, party, outcome, status, agent, transport, network,
        country, region, city, site, location_source, detail, id
    FROM sign_ins
    """,
)


@MIGRATIONS()
def m002_location(database: Database) -> None:
    """Cities, until when a place may be kept, and all of it in the views."""
    for statement in _PLACES:
        database.execute(statement)


@MIGRATIONS()
def m003_quality(database: Database) -> None:
    """Quality reports, devices, refreshes by day, activity by party."""
    quality_schema.create(database)


@MIGRATIONS()
def m005_media(database: Database) -> None:
    """Whose media a row is, hold, profile and encryption; calls that came of others by transfer or replacement."""
    for statement in (
        "ALTER TABLE call_media ADD COLUMN branch INTEGER",  # the device; NULL in rows of earlier versions
        "ALTER TABLE call_media ADD COLUMN early INTEGER NOT NULL DEFAULT 0",  # 1: before the answer
        "ALTER TABLE call_media ADD COLUMN held_by TEXT",  # caller, callee or both; NULL: nobody
        "ALTER TABLE call_media ADD COLUMN profile TEXT",
        "ALTER TABLE call_media ADD COLUMN encryption TEXT",  # sdes, dtls or tls
        """
        CREATE TABLE call_links (
            call TEXT NOT NULL REFERENCES calls(id) ON DELETE CASCADE,
            other TEXT NOT NULL REFERENCES calls(id) ON DELETE CASCADE,     -- the call that came of it
            kind TEXT NOT NULL,                 -- transfer, attended_transfer or replaced
            at TEXT NOT NULL,                   -- the other call was placed
            PRIMARY KEY (call, other, kind)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX call_links_other ON call_links(other)",
    ):
        database.execute(statement)
    quality_schema.view_activity(database, ("call_branches", "call_media", "call_events", "call_links"))


@MIGRATIONS()
def m006_errors(database: Database) -> None:
    """Errors know their call and who was asked; runs know what they counted; error rates by agent and version."""
    # New columns that are NULL in every row there is: no row is touched, whatever the size of the store.
    for statement in (
        "ALTER TABLE errors ADD COLUMN call TEXT REFERENCES calls(id) ON DELETE SET NULL",
        "ALTER TABLE errors ADD COLUMN target TEXT",
        "CREATE INDEX errors_call ON errors(call) WHERE call IS NOT NULL",
        # The last rowid of calls before this run: those above it, up to that of the next run, are its own.
        "ALTER TABLE server_runs ADD COLUMN calls_before INTEGER",
        # As of the last heartbeat.
        "ALTER TABLE server_runs ADD COLUMN placed INTEGER",
        "ALTER TABLE server_runs ADD COLUMN closed INTEGER",
        "ALTER TABLE server_runs ADD COLUMN lost INTEGER",
        "ALTER TABLE server_runs ADD COLUMN set_aside INTEGER",
        # By the start after it: when, and how many calls it closed that this run had left open.
        "ALTER TABLE server_runs ADD COLUMN recovered_at TEXT",
        "ALTER TABLE server_runs ADD COLUMN recovered INTEGER",
        "DROP VIEW v_errors",
        *error_views.M006,
    ):
        database.execute(statement)
    quality_schema.view_activity(database, ("call_branches", "call_media", "call_events", "call_links"))


@MIGRATIONS()
def m007_relayed_quality(database: Database) -> None:
    """Quality says who measured: an endpoint, or since this step a media relay (``source = 'relay'``)."""
    quality_schema.view_quality(database)


@MIGRATIONS()
def m010_analysis(database: Database) -> None:
    """What analysts count by: marks of every call and figures by day as views, and an index that has the marks."""
    analysis_schema.create(database)


@MIGRATIONS()
def m011_delays(database: Database) -> None:
    """How long registrations and hanging up take (RFC 6076 §4.1, §4.4)."""
    delay_schema.create(database)


@MIGRATIONS()
def m012_copy(database: Database) -> None:
    """What a columnar copy follows: which store this is, and the days of which rows changed out of turn."""
    copy_schema.create(database)


@MIGRATIONS()
def m013_fewer_indices(database: Database) -> None:
    """The indices of m010 on calls are gone: large stores have a columnar copy, and each call is written cheaper."""
    for name in ("calls_facts", "calls_long"):
        database.execute(f"DROP INDEX {name}")


@MIGRATIONS()
def m014_timeline(database: Database) -> None:
    """The timeline is a view: what the columns of calls say has no row of its own, and each call is written cheaper."""
    timeline_schema.create(database)
