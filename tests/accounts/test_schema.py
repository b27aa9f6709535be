from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sipserver.accounts.credentials import ENVIRONMENT, KEY_FILE, Keyring
from sipserver.accounts.schema import FILE, open_accounts, open_keyring
from sipserver.accounts.subscribers import Subscribers
from sipserver.storage.database import StoreError, sqlite

OTHER_KEY = "ab" * 32


def test_store_is_for_its_owner_only(tmp_path: Path, connection: sqlite.Connection) -> None:
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_deleted_addresses_are_overwritten(connection: sqlite.Connection) -> None:
    assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_tables_are_strict(connection: sqlite.Connection) -> None:
    strict = dict(connection.execute("SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE '%sqlite%'"))
    assert strict == {"subscribers": 1, "credentials": 1, "parties": 1}


def test_key_is_made_at_first_need(tmp_path: Path, connection: sqlite.Connection) -> None:
    keyring = open_keyring(tmp_path, connection, {})
    assert open_keyring(tmp_path, connection, {}).key_ids == keyring.key_ids


def test_lost_key_is_not_replaced(tmp_path: Path, connection: sqlite.Connection, subscribers: Subscribers) -> None:
    subscribers.add("alice@example.com", "secret")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(StoreError, match=r"secret\.key is gone: put it back from a backup"):
        open_keyring(tmp_path, connection, {})
    assert not (tmp_path / KEY_FILE).exists()


def test_key_lost_before_anything_was_sealed_is_replaced(tmp_path: Path, connection: sqlite.Connection) -> None:
    before = open_keyring(tmp_path, connection, {})
    (tmp_path / KEY_FILE).unlink()
    assert open_keyring(tmp_path, connection, {}).key_ids != before.key_ids


def test_other_key_is_refused(
    tmp_path: Path, connection: sqlite.Connection, keyring: Keyring, subscribers: Subscribers
) -> None:
    subscribers.add("alice@example.com", "secret")
    with pytest.raises(StoreError, match=f"under key {keyring.key_ids[0]}, which {ENVIRONMENT} does not have"):
        open_keyring(tmp_path, connection, {ENVIRONMENT: OTHER_KEY})


def test_new_key_before_the_old_one_is_accepted(tmp_path: Path, keyring: Keyring, subscribers: Subscribers) -> None:
    subscribers.add("alice@example.com", "secret")
    path = tmp_path / KEY_FILE
    path.write_text(OTHER_KEY + "\n" + path.read_text())
    connection = open_accounts(tmp_path)
    rotated = open_keyring(tmp_path, connection, {})
    assert rotated.key_ids[1:] == keyring.key_ids
    Subscribers(connection, rotated).passwd("alice@example.com", "new")
    used = {key_id for (key_id,) in connection.execute("SELECT key_id FROM credentials")}
    assert used == {rotated.key_ids[0]}
    connection.close()


def test_store_that_cannot_be_read_is_said_so(tmp_path: Path, connection: sqlite.Connection) -> None:
    connection.execute("DROP TABLE credentials")
    with pytest.raises(StoreError, match="no such table"):
        open_keyring(tmp_path, connection, {})
