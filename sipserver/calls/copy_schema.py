"""Step ``m012`` of ``calls.db``: what a columnar copy of it has to know (``analysis.columns``).

A copy is brought up to date by reading what came since. That is all there is to do as long as rows come in order and
settle, which is all that a server does to them. What changes otherwise, because a retention, an erasure or a person
with an SQL shell deletes rows or has them name somebody else, is noted in ``changed_days`` by triggers, and the copy
reads the whole day again. They fire on deletions and on updates of columns that a server writes once and never sets
again, so its own writing runs no trigger. Places that expire (RFC 4119) are looked up for the rows that have a limit.

``store_identity`` tells one store from another that was put in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlite_utils import Database

WATCHED: Final = {
    "calls": ("started_at", "id, started_at, caller, callee, caller_agent, caller_transport"),
    "sign_ins": ("at", "id, at, party, outcome, agent"),
    "sign_in_days": ("day", "day, party, first_at"),
    "registration_delays": ("at", "at, outcome, up_to_ms, count"),
    "errors": ("at", "id, at, kind, answered_by, agent"),
    "quality_reports": ("at", "id, at, kind, agent, mos_lq, loss_percent, jitter_ms, round_trip_ms"),
}
"""The time of a row, and the columns that nothing sets again once it is there."""


def _noting(table: str, rows: str, time: str) -> str:
    return "".join(
        f"""
        INSERT INTO changed_days (name, day, times) VALUES ('{table}', substr({row}.{time}, 1, 10), 1)
            ON CONFLICT (name, day) DO UPDATE SET times = times + 1;"""  # noqa: S608 - made of constants
        for row in rows.split()
    )


def create(database: Database) -> None:
    """The tables and triggers of this step."""
    database.execute("CREATE TABLE store_identity (id TEXT NOT NULL) STRICT")
    database.execute("INSERT INTO store_identity VALUES (lower(hex(randomblob(16))))")
    database.execute(
        """
        CREATE TABLE changed_days (
            name TEXT NOT NULL,                 -- of the table
            day TEXT NOT NULL,                  -- UTC
            times INTEGER NOT NULL,             -- rows deleted or changed out of turn, ever
            PRIMARY KEY (name, day)
        ) STRICT, WITHOUT ROWID
        """
    )
    for table, (time, columns) in WATCHED.items():
        database.execute(
            f"CREATE TRIGGER {table}_deleted AFTER DELETE ON {table} BEGIN {_noting(table, 'OLD', time)}\n END"
        )
        database.execute(
            f"CREATE TRIGGER {table}_changed AFTER UPDATE OF {columns} ON {table} BEGIN "
            f"{_noting(table, 'OLD NEW', time)}\n END"
        )
