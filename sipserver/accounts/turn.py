"""Credentials for a TURN server that live for a while (coturn's ``use-auth-secret``; draft-uberti-behave-turn-rest).

The TURN server and this one share a secret and talk about nothing: the username says until when it is good and whose it
is, and the password is its MAC. Whose it is is told by the party, so the TURN server's log names nobody.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sipserver.storage.database import StoreError

ENVIRONMENT: Final = "SIPSERVER_TURN_SECRET"
SYSTEMD_CREDENTIAL: Final = "sipserver.turn"
SECRET_FILE: Final = "turn.secret"  # noqa: S105 - a name
SHORTEST: Final = 16
"""Characters of a secret: whoever has one username with its password can try secrets as fast as they like."""


class TurnCredentials(NamedTuple):
    """What a client needs."""

    username: str
    """Seconds of UNIX time until which it is good, a colon, and the party."""
    credential: str
    """The password."""


def make_credentials(secret: bytes, party: str, until: int) -> TurnCredentials:
    """Credentials that a TURN server with this secret takes for allocations until this time."""
    username = f"{until}:{party}"
    mac = hmac.digest(secret, username.encode("ascii"), "sha1")
    return TurnCredentials(username, base64.b64encode(mac).decode("ascii"))


def load_secret(data_dir: Path, environ: Mapping[str, str]) -> bytes:
    """The secret, from the environment, a systemd credential or a file. Raises StoreError where there is none to use.

    In a file, what follows a ``#`` at the beginning of a line is a comment.
    """
    if text := environ.get(ENVIRONMENT):
        return _checked(text, ENVIRONMENT)
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / SYSTEMD_CREDENTIAL
        if path.exists():
            return _checked(_read(path), str(path))
    path = data_dir / SECRET_FILE
    if not path.exists():
        raise StoreError(f"there is no secret of a TURN server: put its static-auth-secret into {path} (mode 600)")
    if path.stat().st_mode & 0o077:
        raise StoreError(f"{path} may be read by others than its owner: chmod 600 {path}")
    return _checked(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StoreError(f"{path} does not hold a secret as text") from None
    return "".join(line.strip() for line in lines if not line.startswith("#"))


def _checked(text: str, source: str) -> bytes:
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise StoreError(
            f"{source} does not hold a secret; wanted are at least {SHORTEST} characters of ASCII without spaces"
        )
    return text.encode("ascii")
