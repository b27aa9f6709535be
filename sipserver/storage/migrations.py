"""Moving a store to the schema of this version.

A store's schema is a ``Migrations`` of sqlite-utils: named steps, each recorded in the file when it has run.
Steps are only ever appended. A file that records a step unknown here was made by a later version and is refused:
writing to it could break what that version promises.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# sqlite-utils knows how to store the types of these, and imports them where they are installed: a tenth of a second of
# every start and every command, for values that never come here.
_ABSENT = [name for name in ("numpy", "pandas") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_ABSENT))  # type: ignore[arg-type] # None makes an import fail
from sqlite_utils import Database, Migrations  # noqa: E402

for _name in _ABSENT:
    del sys.modules[_name]

from sipserver.storage.database import StoreError, connect, explain, sqlite  # noqa: E402

__all__ = ["Database", "Migrations", "Version", "check_current", "migrate", "open_store", "transaction", "version_of"]


@dataclass(slots=True)
class Version:
    """The schema of a file, by its steps."""

    applied: list[str]
    """Steps that this file has, oldest first."""
    pending: list[str]
    """Steps of this version that it lacks."""

    def __str__(self) -> str:
        last = f" ({self.applied[-1]})" if self.applied else ""
        return f"schema version {len(self.applied)}{last}"


def open_store(
    path: Path | str,
    migrations: Migrations,
    *,
    readonly: bool = False,
    mode: int = 0o600,
    synchronous: str = "FULL",
    pragmas: Mapping[str, int | str] | None = None,
) -> sqlite.Connection:
    """A connection to the store at the current schema; a read-only one has to find it there. Raises StoreError."""
    connection = connect(path, readonly=readonly, mode=mode, synchronous=synchronous, pragmas=pragmas)
    try:
        if readonly:
            check_current(connection, migrations, path)
        else:
            migrate(connection, migrations, path)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> None:
    """Run the steps that this file lacks, all of them in one transaction. Raises StoreError.

    Whatever interrupts it leaves the file as it was, for the version that wrote it.
    """
    database = Database(connection)
    try:
        _refuse_later_version(database, migrations, path)
        if migrations.pending(database):
            # The write lock first: of two processes that start at once, one runs the steps and the other sees them
            # done, or sees that the other was of a later version.
            with transaction(connection):
                _refuse_later_version(database, migrations, path)
                migrations.apply(database)
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


def check_current(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> None:
    """The file has exactly the schema of this version, or StoreError."""
    database = Database(connection)
    try:
        _refuse_later_version(database, migrations, path)
        if migrations.pending(database):
            raise StoreError(f"{path} has an earlier schema: start the server once to bring it up to date")
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


def _refuse_later_version(database: Database, migrations: Migrations, path: Path | str) -> None:
    # On an empty set everything registered is pending, which makes this the list of what is known.
    applied = {step.name for step in migrations.applied(database)}
    unknown = applied - set(known_steps(migrations))
    if unknown:
        raise StoreError(f"{path} was written by a later version of sipserver (schema step {min(unknown)})")


def version_of(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> Version:
    """Which schema this file has. Raises StoreError, also for one of a later version."""
    database = Database(connection)
    try:
        _refuse_later_version(database, migrations, path)
        return Version(
            [step.name for step in migrations.applied(database)], [step.name for step in migrations.pending(database)]
        )
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


def known_steps(migrations: Migrations) -> list[str]:
    """The names of the steps of this version, oldest first."""
    with sqlite.connect(":memory:", isolation_level=None) as empty:
        steps = [step.name for step in migrations.pending(Database(empty))]
    empty.close()
    return steps


@contextmanager
def transaction(connection: sqlite.Connection) -> Iterator[None]:
    """All or nothing, with the write lock from the start so that it cannot fail half way for want of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
