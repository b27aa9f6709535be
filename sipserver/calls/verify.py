"""Whether a store of calls holds what it promises, at rest or while a server writes to it. Reads only.

Every statement here is true of a store whatever happened to the server: a kill leaves calls open that were going on,
and the next start closes them. What a reader is told is a sentence for each thing that is not so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sipserver.calls.faults import KINDS
from sipserver.calls.outcomes import CALL_OUTCOMES
from sipserver.calls.recovery import SERVER_RESTART
from sipserver.calls.times import parse_stamp
from sipserver.storage.database import sqlite

ALIVE_MS: Final = 30_000
"""A server that has said nothing for this long is not running; it says so every 5 seconds."""
EXAMPLES: Final = 3

_OUTCOMES: Final = ", ".join(f"'{outcome}'" for outcome in CALL_OUTCOMES)
_KINDS: Final = ", ".join(f"'{kind}'" for kind in KINDS)


def _ms(column: str) -> str:
    """A time in the store as milliseconds, in SQL."""
    return f"(CAST(strftime('%s', {column}) AS INTEGER) * 1000 + CAST(substr({column}, 21, 3) AS INTEGER))"


def _has_event(*kinds: str) -> str:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    return f"EXISTS (SELECT 1 FROM stored_events WHERE call = calls.id AND kind IN ({listed}))"  # noqa: S608 - constants


_CALLS: Final = {
    "closed without saying how it ended": f"""ended_at IS NOT NULL AND (outcome IS NULL OR ended_by IS NULL
        OR end_cause IS NULL OR outcome NOT IN ({_OUTCOMES}))""",
    "open, and yet with an end": "ended_at IS NULL AND coalesce(ended_by, end_cause, talk_ms) IS NOT NULL",
    "at odds with itself about being answered": "(outcome IS 'answered') <> (answered_at IS NOT NULL)",
    "not in order of time": """ended_at < started_at OR ringing_at < started_at OR answered_at < started_at
        OR ended_at < answered_at OR confirmed_at < answered_at""",
    "with a talk_ms that is not the time from answer to end": f"""ended_at >= answered_at
        AND talk_ms IS NOT {_ms("ended_at")} - {_ms("answered_at")}""",
    "with a talk_ms and never answered": "answered_at IS NULL AND talk_ms IS NOT NULL",
    "with a negative duration": "min(coalesce(setup_ms, 0), coalesce(ring_ms, 0), coalesce(talk_ms, 0), "
        "coalesce(video_ms, 0), coalesce(end_uncertainty_ms, 0), coalesce(disconnect_ms, 0)) < 0",
    # The end of an answered one is in its columns.
    "closed without an end in its timeline": f"""ended_at IS NOT NULL AND answered_at IS NULL
        AND NOT {_has_event("ended", "failed", "cancelled")}""",
    "open with an end in its timeline": f"ended_at IS NULL AND {_has_event('ended', 'failed')}",
}  # fmt: skip
"""What no call may be."""

# A call that was cancelled ends with the CANCEL, and one whose end nobody saw with the last that is known of it: its
# devices' parts may end after that. So may those of a call whose caller ended the dialog that it kept before another
# device had given up its own: that it was the call was known only then.
_WHOLE: Final = """calls.outcome IS NOT 'cancelled' AND calls.end_uncertainty_ms IS NULL AND NOT EXISTS (
        SELECT 1 FROM stored_events WHERE call = calls.id AND kind = 'dropped' AND at > calls.ended_at)"""

_CHILDREN: Final = (
    (
        "call_branches", "branch", "devices",
        {
            "not in order of time": """it.ringing_at < it.tried_at OR it.answered_at < it.tried_at
                OR it.ended_at < it.tried_at""",
            "outside the time of their call": f"""it.tried_at < calls.started_at OR ({_WHOLE} AND
                max(it.tried_at, coalesce(it.answered_at, ''), coalesce(it.ended_at, '')) > calls.ended_at)""",
            "without an outcome in a call that is over": "it.outcome IS NULL AND calls.ended_at IS NOT NULL",
            "over, and yet without an outcome": "it.outcome IS NULL AND coalesce(it.ended_at, it.answered_at) NOT NULL",
        },
    ),
    (
        "call_media", "number", "streams",
        {
            "not in order of time": "it.to_at < it.from_at",
            "outside the time of their call": """it.from_at < calls.started_at OR it.from_at > calls.ended_at
                OR it.to_at > calls.ended_at""",
            "open in a call that is over": "it.to_at IS NULL AND calls.ended_at IS NOT NULL",
        },
    ),
    ("stored_events", "number", "events", {"earlier than their call": "it.at < calls.started_at"}),
)  # fmt: skip

_COUNTED: Final = (
    ("errors", "errors", "of a kind that is not known", f"kind NOT IN ({_KINDS})"),
    ("errors", "errors", "with a count or a last time that cannot be", "count < 1 OR last_at < at"),
    ("sign_ins", "sign-ins", "with a count or a last time that cannot be", "count < 1 OR last_at < at"),
)


@dataclass(slots=True)
class Summary:
    """What there is. Times are UTC text, None where there was no run."""

    calls: int
    open: int
    runs: int
    killed: int
    """Runs that did not stop in order, the present one not counted."""
    running: bool
    """Whether a server writes to this store now."""
    last_alive: str | None
    stopped: bool
    """Whether the last run stopped in order."""
    recovered: int
    """Calls that a start had to close, since the run before it left them open."""


def summary(connection: sqlite.Connection, now: int) -> Summary:
    """How many calls and runs there are; ``now`` in milliseconds."""
    (count,) = connection.execute("SELECT count(*) FROM calls").fetchone()
    (open_,) = connection.execute("SELECT count(*) FROM calls WHERE ended_at IS NULL").fetchone()
    runs, unstopped, recovered = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE stopped_at IS NULL), coalesce(sum(recovered), 0) FROM server_runs"
    ).fetchone()
    last = connection.execute(
        "SELECT last_alive_at, stopped_at, recovered_at FROM server_runs ORDER BY rowid DESC LIMIT 1"
    ).fetchone()
    if last is None:
        return Summary(count, open_, 0, 0, False, None, False, 0)
    last_alive, stopped_at, recovered_at = last
    running = stopped_at is None and recovered_at is None and abs(now - parse_stamp(last_alive)) < ALIVE_MS
    return Summary(count, open_, runs, unstopped - running, running, last_alive, stopped_at is not None, int(recovered))


STEPS: Final = 4 + len(_CHILDREN) + len(_COUNTED)
"""How many parts ``verify`` has, for a progress bar."""


def verify(connection: sqlite.Connection) -> Iterator[list[str]]:
    """A sentence for each thing that is not as it has to be; one list for each of STEPS.

    Everything is looked at as of one moment, so a server may write meanwhile. Raises sqlite.Error where the file
    cannot be read.
    """
    connection.execute("BEGIN")
    try:
        yield quick_check(connection)
        yield _foreign_keys(connection)
        yield _calls(connection)
        for table, number, name, conditions in _CHILDREN:
            yield _children(connection, table, number, name, conditions)
        for table, name, what, condition in _COUNTED:
            found = connection.execute(f"SELECT id FROM {table} WHERE {condition}")  # noqa: S608 - constants
            yield list(_sentence(name, what, found))
        yield [*_runs(connection), *_open_calls(connection)]
    finally:
        connection.execute("ROLLBACK")


def quick_check(connection: sqlite.Connection) -> list[str]:
    """What SQLite finds wrong with the file itself."""
    found = [str(row[0]) for row in connection.execute(f"PRAGMA quick_check({EXAMPLES})")]
    return [] if found == ["ok"] else [f"the file is damaged: {each}" for each in found]


def _foreign_keys(connection: sqlite.Connection) -> list[str]:
    """Rows whose call is not there, in any table that refers to one."""
    missing: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        missing[table, parent] = missing.get((table, parent), 0) + 1
    return [
        f"{table} has {count} {'row' if count == 1 else 'rows'} without their row of {parent}"
        for (table, parent), count in missing.items()
    ]


def _calls(connection: sqlite.Connection) -> list[str]:
    """One pass over all calls for all that may be wrong with one."""
    columns = ", ".join(f"({condition})" for condition in _CALLS.values())
    either = " OR ".join(f"({condition})" for condition in _CALLS.values())
    found: dict[str, list[str]] = {what: [] for what in _CALLS}
    counts = dict.fromkeys(_CALLS, 0)
    for row in connection.execute(f"SELECT id, {columns} FROM calls WHERE {either}"):  # noqa: S608 - constants
        for what, wrong in zip(_CALLS, row[1:], strict=True):
            if wrong:
                counts[what] += 1
                if len(found[what]) < EXAMPLES:
                    found[what].append(row[0])
    return [_named("calls", what, counts[what], found[what]) for what in _CALLS if counts[what]]


def _children(
    connection: sqlite.Connection, table: str, number: str, name: str, conditions: dict[str, str]
) -> list[str]:
    sentences: list[str] = []
    for what, condition in conditions.items():
        found = connection.execute(
            f"SELECT it.call || ' ' || it.{number} FROM {table} AS it JOIN calls ON calls.id = it.call"  # noqa: S608
            f" WHERE {condition}"
        )
        sentences += _sentence(name, what, found)
    return sentences


def _runs(connection: sqlite.Connection) -> Iterator[str]:
    """What each run counted against the rows that it left: all of them where it stopped in order, else at least."""
    runs = connection.execute(
        """SELECT started_at, stopped_at, calls_before, coalesce(placed, 0), coalesce(closed, 0), coalesce(lost, 0),
            coalesce(set_aside, 0), lead(calls_before) OVER (ORDER BY rowid)
        FROM server_runs WHERE calls_before IS NOT NULL ORDER BY rowid"""
    ).fetchall()
    for started_at, stopped_at, first, placed, closed, lost, set_aside, last in runs:
        rows, ended = connection.execute(
            """SELECT count(*), count(*) FILTER (WHERE ended_at IS NOT NULL AND end_cause IS NOT ?)
            FROM calls WHERE rowid > ? AND rowid <= ?""",
            (SERVER_RESTART, first, last if last is not None else (1 << 62)),
        ).fetchone()
        expected = placed - lost - set_aside
        # As of its last heartbeat; a run that was killed, or goes on, may have written more since.
        if rows < expected or (stopped_at is not None and rows > expected):
            yield (
                f"the run of {started_at} counted {placed} calls, {lost} of them lost and {set_aside} set aside, "
                f"and has {rows} rows of calls"
            )
        if ended < closed - set_aside or (stopped_at is not None and ended > closed):
            yield f"the run of {started_at} counted {closed} calls that ended, and {ended} of its rows say so"


def _open_calls(connection: sqlite.Connection) -> Iterator[str]:
    """Open calls belong to the last run: each start closes what was left open."""
    last = connection.execute(
        "SELECT calls_before, recovered_at FROM server_runs ORDER BY rowid DESC LIMIT 1"
    ).fetchone()
    if last is None:
        yield from _sentence(
            "calls", "open, and no server has run", connection.execute("SELECT id FROM calls WHERE ended_at IS NULL")
        )
        return
    calls_before, recovered_at = last
    limit = calls_before if calls_before is not None and recovered_at is None else -1
    if recovered_at is not None:
        limit = 1 << 62
    yield from _sentence(
        "calls",
        "open since an earlier run of the server",
        connection.execute("SELECT id FROM calls WHERE ended_at IS NULL AND rowid <= ?", (limit,)),
    )


def _sentence(name: str, what: str, found: Any) -> Iterator[str]:
    """One sentence, where a query found anything."""
    examples = [str(row[0]) for row in found.fetchmany(EXAMPLES)]
    count = len(examples) + sum(1 for _ in found)
    if count:
        yield _named(name, what, count, examples)


def _named(name: str, what: str, count: int, examples: list[str]) -> str:
    more = ", …" if count > len(examples) else ""
    return f"{count} {name.removesuffix('s') if count == 1 else name} {what}: {', '.join(examples)}{more}"
