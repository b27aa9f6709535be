"""``accounts.db``: who people are. The only store, beside the bindings, that holds addresses.

What is deleted in here is overwritten in the file (``secure_delete``): a person who leaves is to be gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sipserver.accounts.credentials import KEY_FILE, Keyring
from sipserver.storage.database import StoreError, explain, sqlite
from sipserver.storage.migrations import Migrations, open_store

if TYPE_CHECKING:
    from sqlite_utils import Database

FILE = "accounts.db"

PRAGMAS: Mapping[str, int | str] = {"secure_delete": "ON"}
"""For every connection that writes to this file."""

MIGRATIONS = Migrations("accounts")


@MIGRATIONS()
def subscribers(database: Database) -> None:
    """Subscribers, one sealed HA1 for each algorithm, and the party ids that stand for addresses in records."""
    database.execute("""
        CREATE TABLE subscribers (
            address TEXT NOT NULL PRIMARY KEY,
            name TEXT,
            email TEXT,
            company TEXT,
            country TEXT,
            disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
    """)
    database.execute("""
        CREATE TABLE credentials (
            address TEXT NOT NULL REFERENCES subscribers (address) ON DELETE CASCADE ON UPDATE CASCADE,
            algorithm TEXT NOT NULL,
            key_id TEXT NOT NULL,
            sealed BLOB NOT NULL,
            PRIMARY KEY (address, algorithm)
        ) STRICT, WITHOUT ROWID
    """)
    # No reference to subscribers: addresses elsewhere take part in calls too.
    database.execute("""
        CREATE TABLE parties (
            address TEXT NOT NULL PRIMARY KEY,
            party TEXT NOT NULL UNIQUE,
            created_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
    """)


def utc_now() -> str:
    """The current time as the stores write it: UTC text with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def open_accounts(data_dir: Path | str) -> sqlite.Connection:
    """A writing connection to ``accounts.db`` in this folder, at the current schema. Raises StoreError."""
    return open_store(Path(data_dir) / FILE, MIGRATIONS, pragmas=PRAGMAS)


def open_keyring(data_dir: Path | str, connection: sqlite.Connection, environ: Mapping[str, str]) -> Keyring:
    """The keys for this store, made at first need; never anew while something is sealed under lost ones.

    Raises StoreError.
    """
    data_dir = Path(data_dir)
    path = data_dir / FILE
    try:
        used = {key_id for (key_id,) in connection.execute("SELECT DISTINCT key_id FROM credentials")}
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error
    keyring = Keyring.load(data_dir, environ)
    if keyring is None:
        if used:
            raise StoreError(
                f"{path} holds credentials, but their key {data_dir / KEY_FILE} is gone: put it back from a backup, "
                "or remove the subscribers and add them again"
            )
        return Keyring.create(data_dir)
    if lost := used - set(keyring.key_ids):
        raise StoreError(
            f"{path} holds credentials under key {min(lost)}, which {keyring.source} does not have: "
            "add that key after the current one, or set these subscribers' passwords again"
        )
    return keyring
