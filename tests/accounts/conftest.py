from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.accounts.credentials import Keyring
from sipserver.accounts.schema import open_accounts, open_keyring
from sipserver.accounts.subscribers import Subscribers
from sipserver.storage.database import sqlite


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite.Connection]:
    connection = open_accounts(tmp_path)
    yield connection
    connection.close()


@pytest.fixture
def keyring(tmp_path: Path, connection: sqlite.Connection) -> Keyring:
    return open_keyring(tmp_path, connection, {})


@pytest.fixture
def subscribers(connection: sqlite.Connection, keyring: Keyring) -> Subscribers:
    return Subscribers(connection, keyring)
