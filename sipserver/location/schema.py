"""``location.db``: where endpoints are now. It holds addresses, so what is deleted in it is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sipserver.storage.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

PRAGMAS: Final[Mapping[str, int | str]] = {"secure_delete": "ON"}
"""For every connection that writes to this file."""

MIGRATIONS = Migrations("location")

SELECT: Final = """
    SELECT aor, contact, q, expires_at, call_id, cseq, instance, reg_id, path, user_agent, params, transport, host,
        port, registered_at, local, flow_only, natted, gruu_since
    FROM bindings
"""
"""Rows as ``rows.from_row`` takes them; a condition may follow."""

UPSERT: Final = """
    INSERT OR REPLACE INTO bindings (aor, key, contact, q, expires_at, call_id, cseq, instance, reg_id, path,
        user_agent, params, transport, host, port, registered_at, local, flow_only, natted, gruu_since)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
"""Takes rows as ``rows.to_row`` makes them."""


@MIGRATIONS()
def bindings(database: Database) -> None:
    """The bindings, and the requests of operators to remove some while the server runs."""
    # A path keeps its order in one column: nobody asks for its parts. Times are UNIX seconds.
    database.execute("""
        CREATE TABLE bindings (
            aor TEXT NOT NULL,
            key TEXT NOT NULL,
            contact TEXT NOT NULL,
            q INTEGER NOT NULL,
            expires_at REAL NOT NULL,
            call_id TEXT NOT NULL,
            cseq INTEGER NOT NULL,
            instance TEXT,
            reg_id INTEGER,
            path TEXT NOT NULL,
            user_agent TEXT,
            params TEXT NOT NULL,
            transport TEXT NOT NULL,
            host TEXT NOT NULL,
            port INTEGER NOT NULL,
            registered_at REAL NOT NULL,
            PRIMARY KEY (aor, key)
        ) STRICT, WITHOUT ROWID
    """)
    database.execute("""
        CREATE TABLE removals (
            id INTEGER PRIMARY KEY,
            aor TEXT NOT NULL,
            key TEXT NOT NULL,
            requested_at REAL NOT NULL
        ) STRICT
    """)


@MIGRATIONS()
def flows(database: Database) -> None:
    """By which flow a binding is reached, and since when its GRUUs are good."""
    database.execute("ALTER TABLE bindings ADD COLUMN local TEXT NOT NULL DEFAULT ''")
    database.execute("ALTER TABLE bindings ADD COLUMN flow_only INTEGER NOT NULL DEFAULT 0")
    database.execute("ALTER TABLE bindings ADD COLUMN natted INTEGER NOT NULL DEFAULT 0")
    database.execute("ALTER TABLE bindings ADD COLUMN gruu_since REAL NOT NULL DEFAULT 0")
    database.execute("UPDATE bindings SET flow_only = 1 WHERE transport <> 'UDP' AND path = ''")
