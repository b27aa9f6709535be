from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.accounts.turn import ENVIRONMENT, SECRET_FILE, SYSTEMD_CREDENTIAL, load_secret, make_credentials
from sipserver.storage.database import StoreError

SECRET = "north-of-the-river"


def test_credentials_are_the_expiry_and_the_party_with_their_mac() -> None:
    # printf 1800000000:p_abc | openssl dgst -sha1 -hmac north-of-the-river -binary | base64
    made = make_credentials(SECRET.encode(), "p_abc", 1_800_000_000)
    assert made.username == "1800000000:p_abc"
    assert made.credential == "m1JBzI9bSWZMu7vxy6nD6NaezJc="


def test_secret_comes_from_the_environment_then_systemd_then_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    file = tmp_path / SECRET_FILE
    file.write_text("# shared with coturn\nout-of-the-file-itself\n")
    file.chmod(0o600)
    given = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert load_secret(tmp_path, given) == b"out-of-the-file-itself"
    (folder / SYSTEMD_CREDENTIAL).write_text("out-of-systemd-itself\n")
    assert load_secret(tmp_path, given) == b"out-of-systemd-itself"
    assert load_secret(tmp_path, {**given, ENVIRONMENT: SECRET}) == SECRET.encode()


def test_secret_that_is_missing_short_or_open_to_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no secret"):
        load_secret(tmp_path, {})
    for text in ("short", "with spaces in between it", "käsekäsekäsekäsekäse"):
        with pytest.raises(StoreError, match="does not hold a secret") as caught:
            load_secret(tmp_path, {ENVIRONMENT: text})
        assert text not in str(caught.value)
    file = tmp_path / SECRET_FILE
    file.write_text(SECRET)
    file.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        load_secret(tmp_path, {})
    file.chmod(0o600)
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(StoreError, match="as text"):
        load_secret(tmp_path, {})
