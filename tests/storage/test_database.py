from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sipserver.storage import database
from sipserver.storage.database import StoreError, connect, error_code, sqlite


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_connection_commits_durably_and_checks_references(tmp_path: Path) -> None:
    connection = connect(tmp_path / "new.db")
    settings = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert connection.isolation_level is None
    connection.close()


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_new_file_and_its_companions_have_the_asked_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "deep" / "er" / "new.db"
    before = os.umask(0o077 if mode == 0o640 else 0)
    try:
        connection = connect(path, mode=mode)
        connection.execute("CREATE TABLE t (a)")
    finally:
        os.umask(before)
    assert [permissions(path.with_name("new.db" + end)) for end in ("", "-wal", "-shm")] == [mode] * 3
    connection.close()


def test_existing_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connect(path).close()
    path.chmod(0o660)
    connect(path).close()
    assert permissions(path) == 0o660


def test_readonly_connection_reads_and_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "a file with spaces?#.db"
    writing = connect(path)
    writing.execute("CREATE TABLE t (a)")
    reading = connect(path, readonly=True)
    assert reading.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with pytest.raises(sqlite.OperationalError) as caught:
        reading.execute("INSERT INTO t VALUES (1)")
    assert error_code(caught.value) == 8
    reading.close()
    writing.close()


def test_readonly_connection_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist yet"):
        connect(tmp_path / "none.db", readonly=True)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("readonly", [False, True])
def test_file_that_is_no_database_is_refused(tmp_path: Path, readonly: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes " * 1000)
    with pytest.raises(StoreError, match=r"notes\.txt is not an SQLite database"):
        connect(path, readonly=readonly)
    assert path.read_text() == "notes " * 1000


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        connect(tmp_path)
    with pytest.raises(StoreError):
        connect(tmp_path, readonly=True)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(StoreError, match=r"new\.db cannot be written"):
        connect(tmp_path / "var" / "new.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any folder")
def test_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        connect(tmp_path / "new.db")
    tmp_path.chmod(0o700)


def test_only_the_owner_checkpoints_where_the_library_has_the_wal_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def autocheckpoint(checkpoint: bool) -> int:
        connection = connect(tmp_path / "a.db", checkpoint=checkpoint)
        pages = connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
        connection.close()
        assert isinstance(pages, int)
        return pages

    monkeypatch.setattr(database, "SAFE_TO_SHARE_CHECKPOINTS", (99, 0, 0))
    assert (autocheckpoint(False), autocheckpoint(True)) == (0, 1000)
    monkeypatch.setattr(database, "SAFE_TO_SHARE_CHECKPOINTS", (3, 0, 0))
    assert autocheckpoint(False) == 1000


def test_error_of_another_kind_has_no_code() -> None:
    assert error_code(ValueError()) == 0
