"""Step ``m014`` of ``calls.db``: what the columns of a call say has no row of its own in its timeline any more.

Most of what happens to an ordinary call is in columns of ``calls``: that it was placed, rang, was answered, confirmed,
and, of an answered one, that it ended. So the timeline, ``call_events``, is a view: the rows of ``stored_events``, and
of these five what a call has no row of. It has one where the columns say something else by now, since the call followed
another dialog or was closed by a restart; and all of them in the stores of before.

An event's number is its place in the timeline. For one of the five that has no row this is its place among the five,
and as many more as there are other events before it: those that came after fewer of the five.

Who reads the timeline of a call asks for ``ORDER BY number``. The view has no order of its own, since its first rows
would then be found after all calls have been looked at in a store that is of before.

What stands here was run on the stores there are: a change is another step of the schema, never an edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipserver.calls import quality_schema

if TYPE_CHECKING:
    from sqlite_utils import Database

_IN_COLUMNS: Final = {
    # Where it happened; its place among these then; its columns from ``at`` on.
    "placed": ("started_at IS NOT NULL", "1", "started_at, 'placed', 'caller', NULL, NULL"),
    "ringing": ("ringing_at IS NOT NULL", "2", "ringing_at, 'ringing', 'callee', NULL, NULL"),
    "answered": (
        "answered_at IS NOT NULL", "2 + (ringing_at IS NOT NULL)",
        "answered_at, 'answered', 'callee', sip_status, NULL",
    ),
    "confirmed": (
        "confirmed_at IS NOT NULL", "3 + (ringing_at IS NOT NULL)",
        "confirmed_at, 'confirmed', 'caller', NULL, NULL",
    ),
    "ended": (
        "answered_at IS NOT NULL AND ended_at IS NOT NULL",
        "3 + (ringing_at IS NOT NULL) + (confirmed_at IS NOT NULL)",
        "ended_at, 'ended', ended_by, NULL, end_cause",
    ),
}  # fmt: skip
_KINDS: Final = ", ".join(f"'{kind}'" for kind in _IN_COLUMNS)


def _in_columns(kind: str, happened: str, place: str, columns: str) -> str:
    """The events of this kind that have no row."""
    return f"""
        SELECT id, {place} + (
            SELECT count(*) FROM (
                SELECT number - row_number() OVER (ORDER BY number) AS before FROM stored_events
                WHERE call = calls.id AND kind NOT IN ({_KINDS})
            ) WHERE before < {place}
        ), {columns}
        FROM calls WHERE {happened}
            AND NOT EXISTS (SELECT 1 FROM stored_events WHERE call = calls.id AND kind = '{kind}')
    """  # noqa: S608 - constants


_VIEW: Final = f"""
    CREATE VIEW call_events (call, number, at, kind, side, status, detail) AS
    SELECT call, number, at, kind, side, status, detail FROM stored_events
    UNION ALL {" UNION ALL ".join(_in_columns(kind, *each) for kind, each in _IN_COLUMNS.items())}
"""  # noqa: S608 - constants


def create(database: Database) -> None:
    """The rows that there are stay where they are, under another name; the view takes the old one."""
    database.execute("DROP VIEW v_activity")
    database.execute("DROP VIEW activity_rows")
    database.execute("ALTER TABLE call_events RENAME TO stored_events")
    database.execute(_VIEW)
    quality_schema.view_activity(database, ("call_branches", "call_media", "stored_events", "call_links"))
