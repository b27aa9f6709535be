"""What goes on now, from ``calls.db`` alone: calls that are up, what came lately, which server runs.

Each query goes through an index, so asking once a second costs the same on ten million calls as on ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sipserver.analysis.periods import stamp
from sipserver.calls.query import Record, records
from sipserver.calls.times import parse_stamp
from sipserver.calls.verify import ALIVE_MS
from sipserver.storage.database import sqlite

MOST_CALLS: Final = 1_000
"""Calls that are listed; all are counted."""

_COUNTS: Final = """
    SELECT count(*) AS open, count(answered_at) AS answered,
        count(CASE WHEN answered_at IS NULL THEN ringing_at END) AS ringing,
        ifnull(sum(video), 0) AS with_video, ifnull(sum(content), 0) AS with_content
    FROM calls WHERE ended_at IS NULL
"""
# What is agreed for now, of each stream: rows of streams that changed or ended have an end.
_CALLS: Final = """
    SELECT id, started_at, ringing_at, answered_at, ended_at, caller, callee, video, content, encrypted, offered_video,
        caller_site, callee_site, caller_country, callee_country, caller_agent, callee_agent, caller_transport,
        callee_transport, devices,
        (SELECT group_concat(kind, '+') FROM (
            SELECT DISTINCT kind FROM call_media
            WHERE call = calls.id AND to_at IS NULL AND early = 0 AND accepted = 1 ORDER BY stream)) AS media,
        (SELECT max(held_by) FROM call_media
            WHERE call = calls.id AND to_at IS NULL AND early = 0 AND accepted = 1) AS held_by
    FROM calls WHERE ended_at IS NULL ORDER BY id DESC LIMIT ?
"""
_LATELY: Final = """
    SELECT
        (SELECT count(*) FROM calls WHERE started_at >= :since) AS placed,
        (SELECT ifnull(sum(count), 0) FROM sign_ins WHERE at >= :since AND outcome = 'bound') AS bound,
        (SELECT ifnull(sum(count), 0) FROM sign_ins WHERE at >= :since AND outcome = 'refused') AS refused
"""
_ERRORS: Final = """
    SELECT kind, sum(count) AS errors, max(last_at) AS last_at FROM errors WHERE at >= ?
    GROUP BY kind ORDER BY errors DESC, kind
"""
_RUN: Final = "SELECT * FROM v_runs ORDER BY started_at DESC LIMIT 1"


@dataclass(slots=True)
class Now:
    """What the record says of this moment. Times are milliseconds."""

    at: int
    counts: Record
    """``open``, ``answered``, ``ringing``, ``with_video``, ``with_content``: calls."""
    calls: list[Record]
    """The newest MOST_CALLS of them."""
    lately: Record
    """``placed``, ``bound``, ``refused``: since ``lately_ms`` before."""
    lately_ms: int
    errors: list[Record]
    """``kind``, ``errors``, ``last_at``: since ``errors_ms`` before, the most frequent first."""
    errors_ms: int
    run: Record | None
    """The last row of ``v_runs``; None before the first start."""

    @property
    def is_running(self) -> bool:
        """Whether a server was heard of lately and has not said that it stops."""
        return (
            self.run is not None
            and self.run["stopped_at"] is None
            and self.at - parse_stamp(self.run["last_alive_at"]) < ALIVE_MS
        )


def now(connection: sqlite.Connection, at: int, *, lately_ms: int = 10_000, errors_ms: int = 300_000) -> Now:
    """What goes on at this time (milliseconds). Calls that a killed server left open are in it until the next start."""
    connection.execute("BEGIN")
    try:
        values: Any = {"since": stamp(at - lately_ms)}
        return Now(
            at, records(connection, _COUNTS, ())[0], records(connection, _CALLS, (MOST_CALLS,)),
            records(connection, _LATELY, values)[0], lately_ms,
            records(connection, _ERRORS, (stamp(at - errors_ms),)), errors_ms,
            next(iter(records(connection, _RUN, ())), None),
        )  # fmt: skip
    finally:
        connection.execute("COMMIT")
