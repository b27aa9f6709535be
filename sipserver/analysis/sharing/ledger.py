"""What was shared of a store, in ``shared.db`` beside it: so that asking again, or for more, tells nothing more.

It keeps the rules of the first release, which are those of all (other rules would show in one release what another
hides), the key of the rounding, every block as it was shared, and what private releases have spent. Blocks are given
out again as they stand here, even if the store has changed since: the difference would be what changed, such as one
person's calls. Whoever loses the file can share what was hidden, so it belongs into the backup.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

from sipserver.analysis.sharing.rounding import KEY_BYTES
from sipserver.analysis.sharing.tables import Shared
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import Migrations, open_store, transaction

if TYPE_CHECKING:
    from sqlite_utils import Database

FILE: Final = "shared.db"
MIGRATIONS: Final = Migrations("shared")


@MIGRATIONS()
def m001_shared(database: Database) -> None:
    """Rules, blocks, and what was spent."""
    for statement in (
        "CREATE TABLE settings (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """
        CREATE TABLE blocks (
            begins TEXT NOT NULL PRIMARY KEY,   -- its first day in the zone
            shared TEXT NOT NULL,               -- what was shared, as JSON
            made_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE spent (
            epsilon REAL NOT NULL,
            delta REAL NOT NULL,
            asked TEXT NOT NULL UNIQUE,         -- period and parameters, as JSON
            shared TEXT NOT NULL,
            made_at TEXT NOT NULL
        ) STRICT
        """,
    ):
        database.execute(statement)


@dataclass(slots=True, frozen=True)
class Spent:
    """What all private releases of a store have used up, of one party's privacy."""

    epsilon: float
    delta: float
    releases: int


class Ledger:
    """The ledger within a transaction: nothing of it stands before the end of the ``with`` that opened it."""

    def __init__(self, connection: sqlite.Connection) -> None:
        self._connection = connection

    def agree(self, rules: dict[str, Any]) -> None:
        """These are the rules of this store's releases, from the first on. Raises ValueError where there are others."""
        known = self._setting("rules")
        if known is None:
            self._set("rules", json.dumps(rules))
            return
        others = {name: value for name, value in json.loads(known).items() if rules.get(name) != value}
        if others:
            wanted = ", ".join(f"{name} {value}" for name, value in others.items())
            raise ValueError(
                f"this store was shared by other rules, and two kinds would tell what each hides: {wanted}"
            )

    @property
    def rounding_key(self) -> bytes:
        """The key of the rounding, made at first need."""
        known = self._setting("rounding_key")
        if known is None:
            known = token_bytes(KEY_BYTES).hex()
            self._set("rounding_key", known)
        return bytes.fromhex(known)

    def block(self, begins: str) -> Shared | None:
        """A block as it was shared."""
        row = self._connection.execute("SELECT shared FROM blocks WHERE begins = ?", (begins,)).fetchone()
        return None if row is None else _shared(row[0])

    def keep(self, begins: str, shared: Shared) -> None:
        """A block is shared so from now on."""
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", (begins, _text(shared), _now()))

    @property
    def spent(self) -> Spent:
        """In all; releases add up, whatever their periods: a party may be in each."""
        row = self._connection.execute("SELECT total(epsilon), total(delta), count(*) FROM spent").fetchone()
        return Spent(*row)

    def budget(self, wanted: float | None) -> float:
        """How much may ever be spent: what the first private release said. Raises ValueError for another."""
        known = self._setting("budget")
        if known is None:
            self._set("budget", repr(BUDGET if wanted is None else wanted))
            return BUDGET if wanted is None else wanted
        if wanted is not None and wanted != float(known):
            raise ValueError(f"the budget of this store is {float(known):g}, and was promised")
        return float(known)

    def private(self, asked: dict[str, Any]) -> Shared | None:
        """A private release as it was made: giving it out again tells nothing more, and costs nothing."""
        row = self._connection.execute(
            "SELECT shared FROM spent WHERE asked = ?", (json.dumps(asked, sort_keys=True),)
        ).fetchone()
        return None if row is None else _shared(row[0])

    def spend(self, asked: dict[str, Any], epsilon: float, delta: float, shared: Shared) -> None:
        """A private release was made."""
        self._connection.execute(
            "INSERT INTO spent (epsilon, delta, asked, shared, made_at) VALUES (?, ?, ?, ?, ?)",
            (epsilon, delta, json.dumps(asked, sort_keys=True), _text(shared), _now()),
        )

    def _setting(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set(self, name: str, value: str) -> None:
        self._connection.execute("INSERT INTO settings VALUES (?, ?)", (name, value))


BUDGET: Final = 4.0
"""How much may be spent where nobody said."""


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """The ledger in this file, for one release at a time. Raises StoreError."""
    with closing(open_store(path, MIGRATIONS)) as connection, transaction(connection):
        yield Ledger(connection)


def _text(shared: Shared) -> str:
    return json.dumps(
        {
            "rows": shared.rows, "primary": shared.primary, "complementary": shared.complementary,
            "withheld": shared.withheld, "noise": shared.noise,
        }
    )  # fmt: skip


def _shared(text: str) -> Shared:
    found = json.loads(text)
    rows = {name: [tuple(row) for row in rows] for name, rows in found["rows"].items()}
    return Shared(rows, found["primary"], found["complementary"], found["withheld"], found["noise"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
