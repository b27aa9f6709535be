"""Closing, at the start, what the last run of the server left open.

``ended_at`` is the last evidence that the call was up, and only something that the call itself did is evidence:
placed, a device tried, ringing, answered, confirmed, changed, seen, or other media agreed on. That the server was
alive is none, for a call whose endpoints lose power says nothing. So the true end lies within ``end_uncertainty_ms``
of ``ended_at``, and ``talk_ms`` is the least that the call can have lasted. (A call may outlive the restart, since
media do not pass here: then ``server_restart`` says that nobody was watching its end.)

Endpoints that hang up do say so, though, and the server would have seen it while it ran: ``watched_until`` tells how
long that was, from the heartbeat in ``server_runs``. It is the better guess for calls that ended in order.

A device whose part was not over has a row since it was tried (``calls.machine``). What became of it nobody saw, so its
outcome is ``cut_short`` and it ends with the call; only that it was told to stop is known, where the call was answered
by another device or given up by the caller.

The times of a call go on by the clock as it was set when the call began; how it was set since stands in the timeline.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from sipserver.calls import outcomes
from sipserver.calls.events import SERVER
from sipserver.calls.media import covered, shows_video
from sipserver.calls.times import Stamp, parse_stamp
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import transaction

SERVER_RESTART: Final = "server_restart"

BATCH: Final = 1_000
"""Calls closed in one transaction."""
LATEST: Final = 50_000
"""Calls that are looked at for such as may still go on between their endpoints."""


@dataclass(slots=True)
class CutShort:
    """A call that was up when the server stopped. What it leads to may be seen after the restart."""

    id: str
    caller: str | None
    callee: str | None
    """Party ids."""


def last_call(connection: sqlite.Connection) -> int:
    """The rowid of the newest call, 0 where there is none: calls above it belong to the run that begins now."""
    (found,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()
    return int(found)


def cut_short(connection: sqlite.Connection) -> dict[str, CutShort]:
    """The answered calls among the LATEST that a restart cut short, by the hash of their Call-ID; without those of
    which several have the same."""
    calls = connection.execute(
        """SELECT call_id, id, caller, callee FROM calls
            WHERE rowid > (SELECT max(rowid) FROM calls) - ? AND end_cause = ? AND answered_at IS NOT NULL""",
        (LATEST, SERVER_RESTART),
    ).fetchall()
    times = Counter(call[0] for call in calls)
    return {call_id: CutShort(*call) for call_id, *call in calls if times[call_id] == 1}


def recover(connection: sqlite.Connection, now: int) -> int:
    """Close every open call; how many there were. ``now`` in milliseconds.

    Call it before the writer of this run puts anything. Interrupted half way, the next start does the rest.
    """
    last_run = connection.execute("SELECT last_alive_at, id FROM server_runs ORDER BY rowid DESC LIMIT 1").fetchone()
    last_alive = last_run[0] if last_run else None
    stamp = Stamp()
    closed = 0
    while True:
        with transaction(connection):
            calls = connection.execute(
                "SELECT id, started_at, ringing_at, answered_at FROM calls WHERE ended_at IS NULL LIMIT ?", (BATCH,)
            ).fetchall()
            for call in calls:
                _close(connection, call, now, last_alive, stamp)
            if last_run is not None:
                connection.execute(
                    """UPDATE server_runs SET recovered_at = coalesce(recovered_at, ?),
                        recovered = coalesce(recovered, 0) + ? WHERE id = ?""",
                    (stamp(now), len(calls), last_run[1]),
                )
        closed += len(calls)
        if len(calls) < BATCH:
            return closed


def _close(connection: sqlite.Connection, call: Any, now: int, last_alive: str | None, stamp: Stamp) -> None:
    row_id, started_at, ringing_at, answered_at = call
    last_event, cancelled, number, shift = connection.execute(
        """SELECT max(at) FILTER (WHERE kind != 'clock_stepped'), max(kind = 'cancelled'), max(number),
            coalesce(sum(CAST(detail AS INTEGER)) FILTER (WHERE kind = 'clock_stepped'), 0)
            FROM call_events WHERE call = ?""",
        (row_id,),
    ).fetchone()
    (agreed,) = connection.execute(
        "SELECT max(max(from_at, coalesce(to_at, ''))) FROM call_media WHERE call = ?", (row_id,)
    ).fetchone()
    tried, last_tried = connection.execute(
        "SELECT count(*), max(max(tried_at, coalesce(ringing_at, ''))) FROM call_branches WHERE call = ?", (row_id,)
    ).fetchone()
    if shift:
        now -= shift
        last_alive = stamp(parse_stamp(last_alive) - shift) if last_alive else None
    evidence = max(filter(None, (last_event, started_at, ringing_at, answered_at, agreed, last_tried)))
    ended = parse_stamp(evidence)
    # A clock that was set back leaves the restart before the evidence.
    uncertainty = max(now - ended, 0)
    watched_until = max(evidence, last_alive) if last_alive else evidence
    outcome = outcomes.CANCELLED if cancelled else outcomes.FAILED
    if answered_at:
        outcome = outcomes.ANSWERED
    connection.execute(
        """UPDATE calls SET ended_at = ?, outcome = ?, ended_by = ?, end_cause = ?, end_uncertainty_ms = ?,
            watched_until = ?, ring_ms = ?, talk_ms = ?, video_ms = ?, devices = coalesce(devices, ?)
            WHERE id = ?""",
        (
            evidence, outcome, SERVER, SERVER_RESTART, uncertainty, watched_until,
            _span(ringing_at, answered_at or evidence), _span(answered_at, evidence),
            _video_ms(connection, row_id, ended) if answered_at else None, tried, row_id,
        ),
    )  # fmt: skip
    if tried:
        _close_branches(connection, row_id, outcome, answered_at or evidence, ringing_at if tried == 1 else None)
    connection.execute("UPDATE call_media SET to_at = ? WHERE call = ? AND to_at IS NULL", (evidence, row_id))
    connection.execute(
        "INSERT INTO stored_events (call, number, at, kind, side, detail) VALUES (?, ?, ?, 'ended', ?, ?)",
        (row_id, (number or 0) + 1, stamp(max(now, ended)), SERVER, SERVER_RESTART),
    )


def _close_branches(connection: sqlite.Connection, row_id: str, outcome: str, at: str, ringing_at: str | None) -> None:
    """Close what was open of a call's devices; ``ringing_at`` is that of the only one."""
    left = {outcomes.ANSWERED: outcomes.ELSEWHERE, outcomes.CANCELLED: outcomes.CANCELLED}
    connection.execute(
        """UPDATE call_branches SET outcome = ?, ringing_at = coalesce(ringing_at, ?),
            ended_at = max(?, tried_at, coalesce(ringing_at, ?, '')) WHERE call = ? AND outcome IS NULL""",
        (left.get(outcome, outcomes.CUT_SHORT), ringing_at, at, ringing_at, row_id),
    )


def _span(start: str | None, end: str) -> int | None:
    return None if start is None or end < start else parse_stamp(end) - parse_stamp(start)


def _video_ms(connection: sqlite.Connection, row_id: str, ended: int) -> int | None:
    """How long the call had video until then; None where its media are not known."""
    streams = connection.execute(
        "SELECT kind, accepted, direction, from_at, to_at FROM call_media WHERE call = ? AND early = 0", (row_id,)
    ).fetchall()
    if not streams:
        return None
    return covered(
        (parse_stamp(from_at), parse_stamp(to_at) if to_at else ended)
        for kind, accepted, direction, from_at, to_at in streams
        if shows_video(kind, accepted, direction)
    )
