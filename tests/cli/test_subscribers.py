"""``sipserver subscribers``."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Sipserver = Callable[..., Result]


def add(sipserver: Sipserver, address: str = "alice@example.test", *options: str) -> Result:
    return sipserver("subscribers", "add", address, "--password-stdin", *options, text="secret\n")


def shown(sipserver: Sipserver, address: str = "alice@example.test") -> dict[str, object]:
    (row,) = json.loads(sipserver("subscribers", "show", address, "--json").stdout)
    assert isinstance(row, dict)
    return row


def test_added_subscriber_is_shown(sipserver: Sipserver) -> None:
    result = add(sipserver, "sip:Alice@EXAMPLE.test", "--name", "Alice", "--email", "a@b", "--country", "DE")
    assert (result.exit_code, result.stdout) == (0, "Alice@example.test added\n")
    row = shown(sipserver, "Alice@example.test")
    assert (row["name"], row["email"], row["country"], row["disabled"]) == ("Alice", "a@b", "DE", False)
    assert "secret" not in json.dumps(row)
    text = sipserver("subscribers", "show", "Alice@example.test").stdout
    assert "name        Alice" in text


def test_list_is_a_table_json_or_csv(sipserver: Sipserver) -> None:
    add(sipserver, "alice@example.test", "--name", "=cmd()")
    add(sipserver, "bob@example.test")
    assert [line.split()[0] for line in sipserver("subscribers", "list").stdout.splitlines()] == [
        "ADDRESS", "alice@example.test", "bob@example.test",
    ]  # fmt: skip
    assert [row["address"] for row in json.loads(sipserver("subscribers", "list", "--json").stdout)] == [
        "alice@example.test", "bob@example.test",
    ]  # fmt: skip
    first, _ = csv.DictReader(io.StringIO(sipserver("subscribers", "list", "--csv").stdout))
    assert first["name"] == "'=cmd()"


def test_known_address_is_not_added_again(sipserver: Sipserver) -> None:
    add(sipserver)
    result = add(sipserver)
    assert (result.exit_code, result.stderr) == (1, "sipserver: alice@example.test exists already\n")


def test_no_address_is_refused_in_a_sentence(sipserver: Sipserver) -> None:
    result = add(sipserver, "alice")
    assert (result.exit_code, result.stderr) == (1, "sipserver: 'alice' is not an address like alice@example.com\n")


@pytest.mark.parametrize(
    ("arguments", "text", "expected"),
    [
        ((), None, "use --password-stdin"),
        (("--password-stdin",), "", "There is no password on standard input."),
        (("--password-stdin",), "\n", "There is no password on standard input."),
    ],
)
def test_missing_password_is_wrong_use(
    sipserver: Sipserver, arguments: tuple[str, ...], text: str | None, expected: str
) -> None:
    result = sipserver("subscribers", "add", "alice@example.test", *arguments, text=text)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_password_is_never_an_argument(sipserver: Sipserver) -> None:
    assert sipserver("subscribers", "add", "alice@example.test", "secret").exit_code == 2
    assert sipserver("subscribers", "add", "alice@example.test", "--password", "secret").exit_code == 2


def test_password_is_asked_for_at_a_terminal_without_echo(data_dir: Path) -> None:
    theirs, ours = pty.openpty()
    command = [sys.executable, "-m", "sipserver", "subscribers", "add", "a@example.test", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        command, stdin=ours, stdout=subprocess.PIPE, stderr=ours, start_new_session=True, text=True
    ) as process:
        os.close(ours)
        screen = b""
        for prompt in (b"Password: ", b"Repeat for confirmation: "):
            while prompt not in screen:
                screen += os.read(theirs, 1000)
            os.write(theirs, b"secret\n")
        out, _ = process.communicate(timeout=30)
    os.close(theirs)
    assert (process.returncode, out) == (0, "a@example.test added\n")
    assert b"secret" not in screen


def test_password_is_changed(sipserver: Sipserver) -> None:
    add(sipserver)
    before = shown(sipserver)["updated_at"]
    result = sipserver("subscribers", "passwd", "alice@example.test", "--password-stdin", text="other\n")
    assert (result.exit_code, result.stdout) == (0, "alice@example.test has a new password\n")
    assert shown(sipserver)["updated_at"] != before


def test_disabled_subscriber_is_enabled_again(sipserver: Sipserver) -> None:
    add(sipserver)
    assert sipserver("subscribers", "disable", "alice@example.test").stdout == "alice@example.test disabled\n"
    assert shown(sipserver)["disabled"] is True
    assert sipserver("subscribers", "enable", "alice@example.test").stdout == "alice@example.test enabled\n"
    assert shown(sipserver)["disabled"] is False


def test_removed_subscriber_is_gone(sipserver: Sipserver) -> None:
    add(sipserver)
    assert sipserver("subscribers", "remove", "alice@example.test", "--yes").exit_code == 0
    assert sipserver("subscribers", "list").stdout == "No subscribers.\n"


@pytest.mark.parametrize("command", ["show", "passwd", "disable", "enable", "remove"])
def test_unknown_subscriber_is_told(sipserver: Sipserver, command: str) -> None:
    add(sipserver)
    result = sipserver("subscribers", command, "bob@example.test", text="x\n")
    assert (result.exit_code, result.stderr) == (1, "sipserver: bob@example.test is not a subscriber\n")


def test_import_takes_all(sipserver: Sipserver, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("address,password,name\nalice@example.test,a,Alice\nbob@example.test,b,\n")
    result = sipserver("subscribers", "import", str(file))
    assert (result.exit_code, result.stdout) == (0, "2 subscribers imported\n")
    assert shown(sipserver)["name"] == "Alice"


def test_import_with_faults_takes_nothing_and_names_each_line(sipserver: Sipserver, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("address,password\nalice@example.test,a\nnobody,b\nbob@example.test,\n")
    result = sipserver("subscribers", "import", str(file))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "sipserver: line 3: 'nobody' is not an address like alice@example.com",
        "sipserver: line 4: the password is empty",
    ]
    assert sipserver("subscribers", "list").stdout == "No subscribers.\n"


def test_import_of_a_missing_file_is_told(sipserver: Sipserver, tmp_path: Path) -> None:
    result = sipserver("subscribers", "import", str(tmp_path / "none.csv"))
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory" in result.stderr


def test_store_that_is_not_there_is_told(sipserver: Sipserver, data_dir: Path) -> None:
    result = sipserver("subscribers", "list")
    assert (result.exit_code, result.stderr) == (1, f"sipserver: {data_dir}/accounts.db does not exist yet\n")
    assert not data_dir.exists()


def test_subscriber_can_be_removed_when_the_key_is_lost(sipserver: Sipserver, data_dir: Path) -> None:
    add(sipserver)
    (data_dir / "secret.key").unlink()
    result = add(sipserver, "bob@example.test")
    assert result.exit_code == 1
    assert "secret.key is gone" in result.stderr
    assert sipserver("subscribers", "remove", "alice@example.test").exit_code == 0
    assert add(sipserver).exit_code == 0


def test_wrong_configuration_exits_2(sipserver: Sipserver, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[log]\nlevel = 1\n")
    result = sipserver("subscribers", "list", "--config", str(file))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"sipserver: {file}: log.level: 1 is not allowed")
