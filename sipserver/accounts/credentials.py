"""Keys, what is sealed with them, and the fast look-up of credentials for the running server.

An HA1 is as good as the password it was made of. So it is stored encrypted (AES-256-GCM) and bound to its row:
moved to another address or algorithm it does not open. The keys live outside the database, in the first of

    SIPSERVER_SECRET_KEY                         the environment
    $CREDENTIALS_DIRECTORY/sipserver.key         a systemd credential
    <data_dir>/secret.key                        a file with mode 0600, made at first need

as 32 bytes in hexadecimal or base64, separated by blanks, commas or lines; ``#`` starts a comment. The first key
seals; all of them open, which is how keys rotate: put the new one first, drop the old one when nothing uses it.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sipserver.accounts.lru import Lru
from sipserver.sip.digest import Credentials
from sipserver.storage.database import StoreError, connect, explain, sqlite

KEY_FILE = "secret.key"
ENVIRONMENT = "SIPSERVER_SECRET_KEY"
SYSTEMD_CREDENTIAL = "sipserver.key"

KEY_BYTES = 32
NONCE_BYTES = 12


class _Key:
    """One key: its id is derived from it, so that it is the same wherever the key is kept."""

    __slots__ = ("cipher", "id", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.id = _derive(secret, "key id")[:4].hex()
        self.cipher = AESGCM(_derive(secret, "credentials"))


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=f"sipserver {purpose}".encode()).derive(secret)


class Keyring:
    """The keys of an installation, current one first."""

    def __init__(self, keys: Sequence[bytes], source: str) -> None:
        self._keys = {key.id: key for key in map(_Key, keys)}
        self._current = next(iter(self._keys.values()))
        self.source = source
        """Where the keys came from, for messages."""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Current one first."""
        return tuple(self._keys)

    @classmethod
    def load(cls, data_dir: Path, environ: Mapping[str, str]) -> Keyring | None:
        """The keys that are there; None when there are none. Raises StoreError when they cannot be used."""
        if text := environ.get(ENVIRONMENT):
            return cls(_parse(text, ENVIRONMENT), ENVIRONMENT)
        if folder := environ.get("CREDENTIALS_DIRECTORY"):
            path = Path(folder) / SYSTEMD_CREDENTIAL
            if path.exists():
                return cls(_parse(_read(path), str(path)), str(path))
        path = data_dir / KEY_FILE
        if not path.exists():
            return None
        if path.stat().st_mode & 0o077:
            raise StoreError(f"{path} may be read by others than its owner: chmod 600 {path}")
        return cls(_parse(_read(path), str(path)), str(path))

    @classmethod
    def create(cls, data_dir: Path) -> Keyring:
        """A new key in a new key file; the keys of whoever was faster, if the file appears meanwhile."""
        path = data_dir / KEY_FILE
        draft = data_dir / f"{KEY_FILE}.{secrets.token_hex(4)}"
        text = f"# Opens the credentials in accounts.db: keep a copy apart from its backups.\n{_new_key()}\n"
        try:
            descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            try:
                # A link, not a rename: it fails instead of replacing the key that another process made.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            _sync_folder(data_dir)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from error
        keyring = cls.load(data_dir, {})
        assert keyring is not None
        return keyring

    def derive(self, purpose: str) -> bytes:
        """32 bytes for another use (nonce signatures, route tokens), bound to the current key and this purpose."""
        return _derive(self._current.secret, purpose)

    def seal(self, address: str, algorithm: str, ha1: str) -> tuple[str, bytes]:
        """The current key's id and the encrypted HA1."""
        key = self._current
        nonce = os.urandom(NONCE_BYTES)
        return key.id, nonce + key.cipher.encrypt(nonce, ha1.encode("ascii"), _binding(address, algorithm, key.id))

    def unseal(self, address: str, algorithm: str, key_id: str, sealed: bytes) -> str | None:
        """The HA1; None when the key is unknown or the row was tampered with."""
        key = self._keys.get(key_id)
        if key is None or len(sealed) <= NONCE_BYTES:
            return None
        binding = _binding(address, algorithm, key_id)
        try:
            opened = key.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], binding)
        except InvalidTag:
            return None
        return opened.decode("ascii")


def _binding(address: str, algorithm: str, key_id: str) -> bytes:
    return f"{address}\0{algorithm}\0{key_id}".encode()


def _new_key() -> str:
    return base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii")


def _sync_folder(folder: Path) -> None:
    """The folder's entries are on disk: without this a power cut can take a new file away."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StoreError(f"{path} does not hold a key as text") from None


def _parse(text: str, source: str) -> list[bytes]:
    words = " ".join(line.partition("#")[0] for line in text.splitlines()).replace(",", " ").split()
    keys = [_decode(word) for word in words]
    good = [key for key in keys if key is not None]
    if not keys or len(good) != len(keys):
        raise StoreError(f"{source} must hold keys of {KEY_BYTES} bytes in hexadecimal or base64")
    return good


def _decode(word: str) -> bytes | None:
    try:
        if len(word) == 2 * KEY_BYTES:
            key = bytes.fromhex(word)
        else:
            padded = word + "=" * (-len(word) % 4)
            key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


WARM = 50_000
"""Credentials read and opened at the start, in one go (0.26 s and 35 MB for so many); one that is asked for later
costs a look-up of 20 us. More than these are looked up as they are needed."""
WARM_ALGORITHM = "MD5"
"""The one that nearly every endpoint uses; the others of each subscriber are read when somebody does."""

_UNKNOWN = Credentials("", "")
"""In a cache: not looked up yet."""


class CredentialCache:
    """Credentials for the running server: read once, opened once, kept while the file does not change.

    Has its own read-only connection. Unknown names are remembered apart from known ones, so that a flood of guesses
    cannot push subscribers out. Belongs to one thread.
    """

    def __init__(self, path: Path, keyring: Keyring, limit: int = 100_000, unknown_limit: int = 10_000) -> None:
        self.path = path
        self.unreadable = 0
        """Rows found that do not open: tampered with, or sealed under a key that is not there."""
        self._keyring = keyring
        self._connection = connect(path, readonly=True)
        self._known: Lru[tuple[str, str, str], Credentials] = Lru(limit)
        self._unknown: Lru[tuple[str, str, str], bool] = Lru(unknown_limit)
        self._active: Lru[str, bool | None] = Lru(limit)
        # Asked before anything is read, so that what changes meanwhile is noticed.
        self._version = self._data_version()
        self._warm(min(limit, WARM))

    def get(self, username: str, realm: str, algorithm: str) -> Credentials | None:
        """Whose credentials these are; None for unknown and disabled ones. Raises StoreError when it cannot tell."""
        key = (username, realm, algorithm)
        credentials = self._known.get(key, _UNKNOWN)
        if credentials is not _UNKNOWN:
            return credentials
        if self._unknown.get(key, False):
            return None
        found = self._look_up(f"{username}@{realm}", algorithm)
        if found is None:
            self._unknown.put(key, True)
        else:
            self._known.put(key, found)
            # Whose credentials were found is a subscriber, and who has registered is soon called.
            self._active.put(found.aor, True)
        return found

    def exists(self, aor: str) -> bool:
        """Whether this is the address of a subscriber who is not disabled. Raises StoreError when it cannot tell."""
        active = self._active.get(aor, None)
        if active is None:
            active = self._row("SELECT 1 FROM subscribers WHERE address = ? AND disabled = 0", (aor,)) is not None
            self._active.put(aor, active)
        return active

    def refresh(self) -> bool:
        """Forget everything if the file has changed since the last call; whether it has. Cheap, never raises."""
        try:
            version = self._data_version()
        except StoreError:
            # What is remembered was true when the store last answered: keep to it, and ask again next time.
            return False
        if version == self._version:
            return False
        self._version = version
        self._known.clear()
        self._unknown.clear()
        self._active.clear()
        return True

    def close(self) -> None:
        """Close the reading connection."""
        self._connection.close()

    def _warm(self, most: int) -> None:
        sql = (
            "SELECT address, algorithm, key_id, sealed FROM credentials JOIN subscribers USING (address)"
            " WHERE algorithm = ? AND disabled = 0 LIMIT ?"
        )
        try:
            for aor, algorithm, key_id, sealed in self._connection.execute(sql, (WARM_ALGORITHM, most)):
                ha1 = self._keyring.unseal(aor, algorithm, key_id, sealed)
                username, at, realm = aor.rpartition("@")
                # What does not open is counted when somebody asks for it.
                if ha1 is not None and at:
                    self._known.put((username, realm, algorithm), Credentials(aor, ha1))
                    self._active.put(aor, True)
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error

    def _look_up(self, aor: str, algorithm: str) -> Credentials | None:
        row = self._row(
            "SELECT key_id, sealed FROM credentials JOIN subscribers USING (address)"
            " WHERE address = ? AND algorithm = ? AND disabled = 0",
            (aor, algorithm),
        )
        if row is None:
            return None
        ha1 = self._keyring.unseal(aor, algorithm, *row)
        if ha1 is None:
            self.unreadable += 1
            return None
        return Credentials(aor, ha1)

    def _data_version(self) -> int:
        (version,) = self._row("PRAGMA data_version", ()) or (0,)
        assert isinstance(version, int)
        return version

    def _row(self, sql: str, values: tuple[str, ...]) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        except UnicodeEncodeError:
            # Half a surrogate pair is in no address of ours.
            return None
        except sqlite.Error as error:
            raise StoreError(explain(self.path, error)) from error
        return row
