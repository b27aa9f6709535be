"""Moving a store to the schema of this version.

A store's schema is a ``Migrations`` of sqlite-utils: named steps, each recorded in the file when it has run.
Steps are only ever appended. A file that records a step unknown here was made by a later version and is refused:
writing to it could break what that version promises.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from sipserver.storage.database import StoreError, connect, explain, sqlite

if TYPE_CHECKING:
    from sqlite_utils import Database

Step = TypeVar("Step", bound="Callable[[Database], None]")


class Migrations:
    """The steps to a schema, in the order in which they were defined: ``@migrations()`` above a function adds it.

    sqlite-utils runs them and notes in the file which have run. It is imported where one has to run only: that takes a
    fifth of a second, which most starts and commands can do without.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        """Unique in a file."""
        self._steps: dict[str, Callable[[Database], None]] = {}

    def __call__(self, *, name: str = "") -> Callable[[Step], Step]:
        """Add a step under this name, or that of the function."""

        def add(step: Step) -> Step:
            known = name or step.__name__
            if known in self._steps:
                raise ValueError(f"There is a step {known} already.")
            self._steps[known] = step
            return step

        return add

    @property
    def steps(self) -> list[str]:
        """The names of the steps, oldest first."""
        return list(self._steps)

    def applied(self, connection: sqlite.Connection) -> list[str]:
        """The steps that this file has, oldest first."""
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
            return []
        query = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid"
        return [str(name) for (name,) in connection.execute(query, (self.name,))]

    def pending(self, connection: sqlite.Connection) -> list[str]:
        """The steps that this file lacks, in the order in which they have to run."""
        applied = set(self.applied(connection))
        return [name for name in self._steps if name not in applied]

    def apply(self, connection: sqlite.Connection, *, stop_before: Iterable[str] = ()) -> None:
        """Run what is pending, up to the first of those before which to stop."""
        library = _sqlite_utils()
        runner = library.Migrations(self.name)
        for name, step in self._steps.items():
            runner(name=name)(step)
        runner.apply(library.Database(connection), stop_before=stop_before)


def _sqlite_utils() -> ModuleType:
    """sqlite-utils, without numpy and pandas, whose types it knows how to store and which it imports where they are
    installed: a tenth of a second for values that never come here."""
    absent = [name for name in ("numpy", "pandas") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # None makes an import fail
    try:
        return importlib.import_module("sqlite_utils")
    finally:
        for name in absent:
            del sys.modules[name]


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
    try:
        _refuse_later_version(connection, migrations, path)
        if migrations.pending(connection):
            # The write lock first: of two processes that start at once, one runs the steps and the other sees them
            # done, or sees that the other was of a later version.
            with transaction(connection):
                _refuse_later_version(connection, migrations, path)
                migrations.apply(connection)
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


def check_current(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> None:
    """The file has exactly the schema of this version, or StoreError."""
    try:
        _refuse_later_version(connection, migrations, path)
        if migrations.pending(connection):
            raise StoreError(f"{path} has an earlier schema: start the server once to bring it up to date")
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


def _refuse_later_version(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> None:
    unknown = set(migrations.applied(connection)) - set(migrations.steps)
    if unknown:
        raise StoreError(f"{path} was written by a later version of sipserver (schema step {min(unknown)})")


def version_of(connection: sqlite.Connection, migrations: Migrations, path: Path | str) -> Version:
    """Which schema this file has. Raises StoreError, also for one of a later version."""
    try:
        _refuse_later_version(connection, migrations, path)
        return Version(migrations.applied(connection), migrations.pending(connection))
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error


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
