from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.accounts.credentials import ENVIRONMENT, KEY_FILE, CredentialCache, Keyring
from sipserver.accounts.schema import FILE
from sipserver.accounts.subscribers import Subscribers
from sipserver.sip.digest import Credentials, ha1
from sipserver.storage.database import StoreError, sqlite

ALICE = "alice@example.com"
SECRET = bytes(range(32))
HEX = SECRET.hex()


@pytest.fixture
def cache(tmp_path: Path, keyring: Keyring) -> Iterator[CredentialCache]:
    cache = CredentialCache(tmp_path / FILE, keyring)
    yield cache
    cache.close()


# ---- keys


def test_no_key_is_none(tmp_path: Path) -> None:
    assert Keyring.load(tmp_path, {}) is None


def test_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    Keyring.create(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_second_maker_gets_the_first_ones_key(tmp_path: Path) -> None:
    assert Keyring.create(tmp_path).key_ids == Keyring.create(tmp_path).key_ids
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_folder_that_takes_no_key_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"secret\.key cannot be written"):
        Keyring.create(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    Keyring.create(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(StoreError, match="chmod 600"):
        Keyring.load(tmp_path, {})


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.upper(),
        base64.b64encode(SECRET).decode(),
        base64.b64encode(SECRET).decode().rstrip("="),
        base64.urlsafe_b64encode(bytes([255] * 31 + [62])).decode(),
        f"  {HEX}  \n",
    ],
)
def test_key_may_be_hexadecimal_or_base64(tmp_path: Path, text: str) -> None:
    keyring = Keyring.load(tmp_path, {ENVIRONMENT: text})
    assert keyring is not None
    assert len(keyring.key_ids) == 1
    assert keyring.source == ENVIRONMENT


@pytest.mark.parametrize("text", ["secret", "ab" * 31, "zz" * 32, "# only a comment", f"{HEX} short", "ä" * 64])
def test_text_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreError, match="32 bytes in hexadecimal or base64"):
        Keyring.load(tmp_path, {ENVIRONMENT: text})


def test_key_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(b"\xff\xfe" * 16)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="does not hold a key as text"):
        Keyring.load(tmp_path, {})


def test_folder_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir(mode=0o700)
    with pytest.raises(StoreError, match=r"secret\.key cannot be read"):
        Keyring.load(tmp_path, {})


def test_systemd_credential_comes_before_the_file(tmp_path: Path) -> None:
    Keyring.create(tmp_path)
    folder = tmp_path / "credentials"
    folder.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    from_file = Keyring.load(tmp_path, environ)
    (folder / "sipserver.key").write_text(HEX)
    from_systemd = Keyring.load(tmp_path, environ)
    assert from_file is not None
    assert from_systemd is not None
    assert from_file.key_ids != from_systemd.key_ids
    assert from_systemd.key_ids == Keyring([SECRET], "").key_ids


def test_derived_keys_differ_by_purpose_and_stay(tmp_path: Path) -> None:
    keyring = Keyring([SECRET, bytes(32)], "")
    assert keyring.derive("nonce") == Keyring([SECRET], "").derive("nonce")
    assert len({SECRET, keyring.derive("nonce"), keyring.derive("route"), keyring.derive("credentials")}) == 4
    assert len(keyring.derive("nonce")) == 32


# ---- sealing


def test_sealed_opens_with_any_key_of_the_ring() -> None:
    key_id, sealed = Keyring([SECRET], "").seal(ALICE, "MD5", "abc")
    assert Keyring([bytes(32), SECRET], "").unseal(ALICE, "MD5", key_id, sealed) == "abc"


def test_sealed_is_different_each_time_and_does_not_show() -> None:
    keyring = Keyring([SECRET], "")
    first, second = keyring.seal(ALICE, "MD5", "a" * 32)[1], keyring.seal(ALICE, "MD5", "a" * 32)[1]
    assert first != second
    assert b"aaaa" not in first + second


def test_sealed_opens_in_its_own_row_only() -> None:
    keyring = Keyring([SECRET, bytes(32)], "")
    key_id, sealed = keyring.seal(ALICE, "MD5", "abc")
    assert keyring.unseal("bob@example.com", "MD5", key_id, sealed) is None
    assert keyring.unseal(ALICE, "SHA-256", key_id, sealed) is None
    assert keyring.unseal(ALICE, "MD5", keyring.key_ids[1], sealed) is None
    assert keyring.unseal(ALICE, "MD5", "unknown", sealed) is None
    assert keyring.unseal(ALICE, "MD5", key_id, sealed[:-1]) is None
    assert keyring.unseal(ALICE, "MD5", key_id, b"") is None


# ---- the cache


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512-256"])
def test_cache_finds_credentials_of_each_algorithm(
    cache: CredentialCache, subscribers: Subscribers, algorithm: str
) -> None:
    subscribers.add(ALICE, "secret")
    expected = Credentials(ALICE, ha1("alice", "example.com", "secret", algorithm))
    assert cache.get("alice", "example.com", algorithm) == expected
    assert cache.get("alice", "example.com", algorithm) == expected


@pytest.mark.parametrize(
    "question",
    [
        ("bob", "example.com", "MD5"),
        ("alice", "example.net", "MD5"),
        ("alice", "example.com", "CRC32"),
        ("Alice", "example.com", "MD5"),
        ("\ud800", "example.com", "MD5"),
        ("", "", ""),
    ],
)
def test_cache_knows_no_others(
    cache: CredentialCache, subscribers: Subscribers, question: tuple[str, str, str]
) -> None:
    subscribers.add(ALICE, "secret")
    assert cache.get(*question) is None
    assert cache.get(*question) is None


def test_disabled_subscriber_has_no_credentials(cache: CredentialCache, subscribers: Subscribers) -> None:
    subscribers.add(ALICE, "secret")
    subscribers.disable(ALICE)
    assert cache.get("alice", "example.com", "MD5") is None
    assert not cache.exists(ALICE)
    subscribers.enable(ALICE)
    assert cache.refresh()
    assert cache.get("alice", "example.com", "MD5") is not None
    assert cache.exists(ALICE)


def test_change_counts_from_the_next_refresh(cache: CredentialCache, subscribers: Subscribers) -> None:
    assert not cache.exists(ALICE)
    assert cache.get("alice", "example.com", "MD5") is None
    subscribers.add(ALICE, "secret")
    assert not cache.exists(ALICE)
    assert cache.refresh()
    assert cache.exists(ALICE)
    before = cache.get("alice", "example.com", "MD5")
    subscribers.passwd(ALICE, "other")
    assert cache.get("alice", "example.com", "MD5") == before
    assert cache.refresh()
    assert cache.get("alice", "example.com", "MD5") != before
    subscribers.remove(ALICE)
    assert cache.refresh()
    assert cache.get("alice", "example.com", "MD5") is None


def test_refresh_keeps_everything_while_nothing_changes(cache: CredentialCache, subscribers: Subscribers) -> None:
    subscribers.add(ALICE, "secret")
    cache.refresh()
    first = cache.get("alice", "example.com", "MD5")
    assert not cache.refresh()
    assert cache.get("alice", "example.com", "MD5") is first


def test_tampered_row_gives_no_credentials_and_is_counted(
    cache: CredentialCache, subscribers: Subscribers, connection: sqlite.Connection
) -> None:
    subscribers.add(ALICE, "secret")
    subscribers.add("mallory@example.com", "known")
    connection.execute(
        "UPDATE credentials SET sealed = (SELECT sealed FROM credentials AS other"
        " WHERE other.address = 'mallory@example.com' AND other.algorithm = credentials.algorithm)"
        " WHERE address = ?",
        (ALICE,),
    )
    assert cache.get("alice", "example.com", "MD5") is None
    assert cache.unreadable == 1


def test_who_was_there_at_the_start_is_not_looked_up(
    tmp_path: Path, keyring: Keyring, subscribers: Subscribers, connection: sqlite.Connection
) -> None:
    for address in (ALICE, "bob@example.com", "mallory@example.com"):
        subscribers.add(address, "secret")
    subscribers.disable("bob@example.com")
    connection.execute("UPDATE credentials SET sealed = x'00' WHERE address = 'mallory@example.com'")
    cache = CredentialCache(tmp_path / FILE, keyring)
    cache.close()
    assert cache.get("alice", "example.com", "MD5") == Credentials(ALICE, ha1("alice", "example.com", "secret", "MD5"))
    assert cache.exists(ALICE)
    # Who is disabled, and whose row does not open, has to be looked up.
    for address in ("bob@example.com", "mallory@example.com"):
        with pytest.raises(StoreError):
            cache.exists(address)
    assert cache.unreadable == 0


def test_whose_credentials_were_found_is_known_to_exist(cache: CredentialCache, subscribers: Subscribers) -> None:
    subscribers.add(ALICE, "secret")
    assert cache.get("alice", "example.com", "MD5") is not None
    cache.close()
    assert cache.exists(ALICE)


def test_flood_of_unknown_names_pushes_nobody_out(
    tmp_path: Path, keyring: Keyring, subscribers: Subscribers, connection: sqlite.Connection
) -> None:
    subscribers.add(ALICE, "secret")
    cache = CredentialCache(tmp_path / FILE, keyring, limit=2, unknown_limit=5)
    first = cache.get("alice", "example.com", "MD5")
    for number in range(50):
        cache.get(f"guess{number}", "example.com", "MD5")
    assert cache.get("alice", "example.com", "MD5") is first
    cache.close()


def test_store_that_fails_raises_but_refresh_does_not(cache: CredentialCache, connection: sqlite.Connection) -> None:
    connection.execute("DROP TABLE credentials")
    with pytest.raises(StoreError, match="no such table"):
        cache.get("alice", "example.com", "MD5")
    cache.close()
    assert not cache.refresh()
