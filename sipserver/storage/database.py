"""Opening a database file: which SQLite, which settings, and what stands in the way, said in a sentence.

``sqlite`` is the module that everything of ours uses: ``pysqlite3`` where its wheel is installed, since it
brings a current SQLite, the standard library's ``sqlite3`` otherwise. The two have the same interface but
different exception classes, so errors are caught by the names in here and never by ``sqlite3``'s.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when two connections write and checkpoint at the same
moment. With such a library only the connection that owns a file (``checkpoint=True``) checkpoints it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3 as sqlite
else:
    try:
        sqlite = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        sqlite = importlib.import_module("sqlite3")

# Every value that is no plain number or text is offered to adapters, and NULL would be turned down by each of three
# look-ups that end in an exception: a seventh of the writer's time. {}.get(None) is None without a frame of its own.
_NOTHING: dict[None, None] = {}
sqlite.register_adapter(type(None), _NOTHING.get)

__all__ = [
    "BUSY_TIMEOUT",
    "SAFE_TO_SHARE_CHECKPOINTS",
    "StoreError",
    "connect",
    "error_code",
    "explain",
    "sqlite",
]

STATEMENTS_KEPT = 512
"""Prepared statements of a connection: that of the calls has 26, most of them in seven sizes."""

SAFE_TO_SHARE_CHECKPOINTS = (3, 51, 3)
"""The first SQLite in which two connections may checkpoint one file."""

BUSY_TIMEOUT = 5.0
"""Seconds that an operator's command waits for another connection's transaction."""

_CANTOPEN = 14
_NOTADB = 26


class StoreError(Exception):
    """A store that cannot be used, as one sentence for the operator that names the file."""


def connect(
    path: Path | str,
    *,
    readonly: bool = False,
    mode: int = 0o600,
    synchronous: str = "FULL",
    busy_timeout: float = BUSY_TIMEOUT,
    checkpoint: bool = False,
    pragmas: Mapping[str, int | str] | None = None,
) -> sqlite.Connection:
    """An open connection in autocommit mode: WAL, foreign keys on; ``BEGIN`` and ``COMMIT`` are the caller's.

    A file that is not there is made with the permissions ``mode`` whatever the umask says, and so is its folder;
    the ``-wal`` and ``-shm`` files take after it. The permissions of an existing file are the operator's and stay.
    ``readonly`` makes nothing and wants the file to exist. ``busy_timeout`` is in seconds. ``pragmas`` are set last.
    Raises StoreError.
    """
    path = Path(path)
    if readonly:
        if not path.exists():
            raise StoreError(f"{path} does not exist yet")
    else:
        _create(path, mode)
    try:
        connection = sqlite.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}",
            uri=True,
            isolation_level=None,
            timeout=busy_timeout,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error
    try:
        _set_up(connection, readonly=readonly, synchronous=synchronous, checkpoint=checkpoint, pragmas=pragmas or {})
    except sqlite.Error as error:
        connection.close()
        raise StoreError(explain(path, error)) from error
    return connection


def _create(path: Path, mode: int) -> None:
    """The file exists and may be written, or StoreError says why not."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        except FileExistsError:
            descriptor = os.open(path, os.O_WRONLY)
        else:
            os.fchmod(descriptor, mode)
        os.close(descriptor)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def _set_up(
    connection: sqlite.Connection,
    *,
    readonly: bool,
    synchronous: str,
    checkpoint: bool,
    pragmas: Mapping[str, int | str],
) -> None:
    if not readonly:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
    if not checkpoint and sqlite.sqlite_version_info < SAFE_TO_SHARE_CHECKPOINTS:
        connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA foreign_keys=ON")
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name}={value}")
    # Opening alone reads nothing: only this shows that the file is a database.
    connection.execute("PRAGMA user_version").fetchone()


def error_code(error: BaseException) -> int:
    """SQLite's primary result code, 0 where the error did not come from SQLite itself."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def explain(path: Path | str, error: BaseException) -> str:
    """One sentence for an operator about what SQLite said of this file."""
    match error_code(error):
        case code if code == _NOTADB:
            return f"{path} is not an SQLite database"
        case code if code == _CANTOPEN:
            return f"{path} cannot be opened: check that its folder may be written"
        case _:
            return f"{path}: {error}"
