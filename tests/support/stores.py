"""Stores at the current schema with nothing in them: each is made once in this process, and copied after that.

Running every step of a schema takes a tenth of a second, which thousands of tests would pay for. That the steps
themselves are right is what ``test_migrations`` of each folder and the tests of whole servers show.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sipserver.accounts import schema as accounts
from sipserver.calls import schema as calls
from sipserver.location import schema as location
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import Migrations, open_store


def new_store(path: Path, migrations: Migrations, *, mode: int = 0o600, **options: Any) -> sqlite.Connection:
    """As ``open_store`` of a file that is not there yet."""
    put_store(path, migrations, mode)
    return open_store(path, migrations, mode=mode, **options)


def put_store(path: Path, migrations: Migrations, mode: int = 0o600) -> None:
    """An empty store as this file, where there is none."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileExistsError:
        return
    with open(descriptor, "wb") as file:
        file.write(_empty(migrations))


def put_stores(data_dir: Path) -> None:
    """Those of a server that has not run yet."""
    put_store(data_dir / accounts.FILE, accounts.MIGRATIONS)
    put_store(data_dir / "calls.db", calls.MIGRATIONS, 0o640)
    put_store(data_dir / "location.db", location.MIGRATIONS)


@cache
def _empty(migrations: Migrations) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        open_store(path, migrations).close()
        return path.read_bytes()
