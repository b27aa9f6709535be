"""Where the columnar copy of a store is, who may write it, and how it is opened.

The file is made with the permissions of the store, or for its owner alone where it cannot have the store's group. One
process writes it, any number read it: a lock file beside it says which. A report waits for whoever writes it; one that
finds others reading leaves the copy as it is, where it can, and reads the rest from the store.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from sipserver.analysis.columns import Copy
from sipserver.analysis.columns_schema import CALLS, SETTLED_MS
from sipserver.analysis.columns_sync import (
    CopyError,
    State,
    Sync,
    changes,
    connected,
    forgotten_places,
    last_row,
    rows_to_copy,
    state_of,
)
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store

if TYPE_CHECKING:
    import duckdb

REST: Final = 20_000
"""Calls that may have come since the copy was written, and are read from the store with each report until it is."""
READER_MEMORY: Final = "250MB"


Watch = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def _unwatched(_: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def installed() -> bool:
    """Whether DuckDB is there."""
    return importlib.util.find_spec("duckdb") is not None


class Need(IntEnum):
    """Whether the copy has to be written before it is read."""

    NOTHING = 0
    """What it lacks is soon read from the store."""
    BETTER = 1
    """It lacks much."""
    MUST = 2
    """It is not there, or it says what is not true any more."""


@dataclass(slots=True)
class CopyFile:
    """The copy of the store at ``store_path``."""

    store_path: Path
    path: Path
    watch: Watch = field(default=_unwatched)
    """Told how many rows will be read, then of those that were."""
    waits: Callable[[], None] = lambda: None
    """Told that another process has to be waited for."""

    def prepare(self, *, anew: bool = False) -> None:
        """Make it, or bring it up to date. Raises CopyError."""
        with self._locked(fcntl.LOCK_EX):
            self._write(anew=anew)

    @contextmanager
    def opened(self, store: sqlite.Connection) -> Iterator[Copy]:
        """The copy to read from, brought up to date where that is needed; ``store`` is in no transaction.

        Raises CopyError where it cannot be used, before anything was read.
        """
        for last in (False, False, True):
            enough = Need.BETTER if last else Need.NOTHING
            with self._locked(fcntl.LOCK_SH), self._reading() as connection:
                # What is read of the store is of one moment, and read at once: a long transaction would keep the
                # server from tidying up its log of writes.
                copy = None
                store.execute("BEGIN")
                try:
                    state = None if connection is None else state_of(connection, store, "copy.")
                    need = _need(state, store, self._age_ms())
                    if connection is not None and forgotten_places(connection, store, "copy."):
                        need = Need.MUST
                    if connection is not None and state is not None and need <= enough:
                        copy = Copy(connection, store, state)
                        copy.read_rest()
                finally:
                    store.execute("ROLLBACK")
                if copy is not None:
                    yield copy
                    return
            if last:
                raise CopyError(f"{self.path} cannot be brought up to date")
            with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX, wait=need is Need.MUST):
                if need is Need.MUST or self._writable():
                    self._write()

    def _age_ms(self) -> float:
        """How long ago the copy was written."""
        try:
            return (time.time() - self.path.stat().st_mtime) * 1000
        except OSError:
            return inf

    def _writable(self) -> bool:
        return os.access(self.path.parent, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    @contextmanager
    def _locked(self, kind: int, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock; raises BlockingIOError where that takes waiting and ``wait`` is not meant."""
        name = self.path.with_name(f"{self.path.name}.lock")
        lock = None
        # Where the folder may not be written nobody else writes the copy either.
        with suppress(OSError):
            if self._writable():
                lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                _permit(name, self.store_path)
            else:
                lock = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if lock is not None:
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not wait:
                        raise
                    self.waits()
                    fcntl.flock(lock, kind)
            yield
        finally:
            if lock is not None:
                os.close(lock)

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """A connection with the copy attached; None where there is none that can be read."""
        import duckdb  # noqa: PLC0415

        if not self.path.exists():
            yield None
            return
        place = self.path.parent if os.access(self.path.parent, os.W_OK) else None
        with (
            TemporaryDirectory(prefix=f".{self.path.name}.", dir=place) as spill,
            connected(":memory:", memory=READER_MEMORY) as connection,
        ):
            connection.execute(f"SET temp_directory = {_literal(spill)}")
            try:
                connection.execute(f"ATTACH {_literal(self.path)} AS copy (READ_ONLY)")
            except duckdb.Error as error:
                if isinstance(error, duckdb.IOException) and "lock" in str(error):
                    raise CopyError(f"{self.path} is held by another program") from error
                yield None
                return
            yield connection

    def _write(self, *, anew: bool = False) -> None:
        """Write the copy, with the lock held."""
        import duckdb  # noqa: PLC0415

        if not self._writable():
            raise CopyError(f"{self.path} cannot be written")
        now = int(time.time() * 1000)
        # What reports have left that were killed: whoever reads holds the lock, too.
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            with closing(open_store(self.store_path, MIGRATIONS, readonly=True)) as store:
                if anew or not self._continues(store, now):
                    self._make(store, now)
        except duckdb.Error as error:
            raise CopyError(f"{self.path}: {str(error).splitlines()[0]}") from error
        except OSError as error:
            raise CopyError(f"{self.path} cannot be written: {error.strerror}") from error

    def _continues(self, store: sqlite.Connection, now: int) -> bool:
        """Bring the copy up to date; False where it has to be made anew."""
        import duckdb  # noqa: PLC0415

        if not self.path.exists():
            return False
        try:
            with connected(self.path) as copy:
                state = state_of(copy, store)
                if not state.fits:
                    return False
                with self.watch(rows_to_copy(store, state)) as progress:
                    Sync(copy, store, now, progress).run()
        except (duckdb.CatalogException, duckdb.SerializationException, duckdb.InternalException):
            return False
        except duckdb.IOException as error:
            if "lock" in str(error):
                raise
            return False
        return True

    def _make(self, store: sqlite.Connection, now: int) -> None:
        draft = self.path.with_name(f"{self.path.name}.part")
        for path in (draft, _log_of(draft)):
            path.unlink(missing_ok=True)
        # Nobody but its owner sees it before its permissions are set.
        umask = os.umask(0o077)
        try:
            with connected(draft) as copy, self.watch(rows_to_copy(store, None)) as progress:
                sync = Sync(copy, store, now, progress)
                sync.make()
                sync.run()
            _permit(draft, self.store_path)
            _log_of(self.path).unlink(missing_ok=True)
            draft.replace(self.path)
        finally:
            os.umask(umask)
            draft.unlink(missing_ok=True)


def _need(state: State | None, store: sqlite.Connection, age_ms: float) -> Need:
    if state is None or not state.fits or state.followed != changes(store):
        return Need.MUST
    at, _ = state.copied.get(CALLS.name, (0, None))
    rest = last_row(store, CALLS) - at
    # Sooner there is nothing gained: what was not settled then is not settled now.
    if age_ms > SETTLED_MS:
        rest += len(state.waiting.get(CALLS.name, ()))
    return Need.BETTER if rest > REST else Need.NOTHING


def _permit(path: Path, store: Path) -> None:
    """Let those read it who may read the store, where its group can be set; else its owner alone."""
    like = store.stat()
    with suppress(PermissionError):
        os.chown(path, -1, like.st_gid)
        path.chmod(like.st_mode & 0o660)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _literal(text: Path | str) -> str:
    escaped = str(text).replace("'", "''")
    return f"'{escaped}'"
