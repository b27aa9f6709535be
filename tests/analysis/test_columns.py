"""The columnar copy follows the store, whatever happens to either."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sipserver.analysis.columns_file import CopyFile
from sipserver.analysis.columns_sync import CopyError, Sync, connected
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import By, Recorded, recorded, zone
from sipserver.analysis.report import REPORTS, Asked, make
from sipserver.analysis.source import Source, Views
from sipserver.storage.database import connect
from support.record import BEGIN, DAY, END, HOUR, Record, stamp

Figures = dict[str, Any]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    (tmp_path / "var").mkdir()
    made = Record(tmp_path / "var", 3)
    made.run(BEGIN, END + DAY)
    os.chmod(tmp_path / "var" / "calls.db", 0o640)
    yield made
    made.connection.close()


@pytest.fixture
def file(record: Record, tmp_path: Path) -> CopyFile:
    return CopyFile(tmp_path / "var" / "calls.db", tmp_path / "var" / "calls.duckdb")


def figures(record: Record, source: Source, names: Iterable[str], where: str) -> Figures:
    """What these reports say."""
    known = recorded(record.connection)
    return {name: make(name, Asked(Kpis(source), known, BEGIN, END, "day", zone(where))) for name in names}


def both(record: Record, file: CopyFile, names: Iterable[str] = REPORTS, where: str = "UTC") -> tuple[Figures, Figures]:
    """The figures of the copy and of the views."""
    with file.opened(record.connection) as copy:
        copied = figures(record, copy, names, where)
    return copied, figures(record, Views(record.connection), names, where)


def rows_in(file: CopyFile, sql: str) -> Any:
    with connected(file.path, readonly=True) as connection:
        return connection.execute(sql).fetchall()


def cells_in(file: CopyFile) -> list[Any]:
    """What is counted in cells, however many pieces a cell is in."""
    return [
        rows_in(file, f"SELECT {cell}, {sums} FROM {table} GROUP BY ALL HAVING {there} ORDER BY ALL")
        for table, cell, sums, there in (
            ("facts", "quarter", "sum(COLUMNS(* EXCLUDE (quarter)))", "sum(count_rows) > 0"),
            ("delays", "day, setup_ms", "sum(n)", "true"),
            ("parties", "block, party", "bit_or(signed), bit_or(active)", "bit_or(active) > 0"),
        )
    ]


def made_anew(file: CopyFile) -> CopyFile:
    again = CopyFile(file.store_path, file.path.with_name("again.duckdb"))
    again.prepare()
    return again


def test_copy_is_whole_is_read_by_whom_the_store_is_and_names_nobody(record: Record, file: CopyFile) -> None:
    for where in ("UTC", "Europe/Berlin", "Asia/Kathmandu"):
        copied, viewed = both(record, file, where=where)
        assert copied == viewed
    assert {each.name for each in file.path.parent.iterdir() if not each.name.startswith("calls.db")} == {
        "calls.duckdb", "calls.duckdb.lock",
    }  # fmt: skip
    for path in (file.path, file.path.with_name("calls.duckdb.lock")):
        assert path.stat().st_mode & 0o777 == 0o640
    assert b"p1" not in file.path.read_bytes()
    kinds = rows_in(file, "SELECT DISTINCT data_type FROM information_schema.columns "
        "WHERE column_name IN ('caller', 'callee', 'party')")  # fmt: skip
    assert kinds == [("UBIGINT",)]


def test_what_came_since_is_read_without_writing_and_then_copied(record: Record, file: CopyFile) -> None:
    file.prepare()
    before = file.path.read_bytes()
    for number, ended in enumerate((END - HOUR, None)):
        record.insert("calls", {"id": f"new{number}", "call_id": "h", "caller": "p9", "callee": "p1",
            "started_at": END - 3 * HOUR, "answered_at": END - 2 * HOUR, "ended_at": ended, "outcome": "answered",
            "talk_ms": HOUR if ended else None, "devices": 1, "end_cause": "bye" if ended else None})  # fmt: skip
    record.insert("sign_in_days", {"day": "2026-10-27", "party": "p0", "refreshes": 3, "first_at": END - HOUR,
        "last_at": END - HOUR})  # fmt: skip
    (calls,) = rows_in(file, "SELECT count(*) FROM calls")
    # Days that are over are copied whole; a row of such a day is no ordinary thing, and is noted.
    copied, viewed = both(record, file)
    assert copied["traffic"] == viewed["traffic"]
    assert file.path.read_bytes() == before
    file.prepare()
    assert rows_in(file, "SELECT count(*) FROM calls") == [(calls[0] + 1,)]
    assert both(record, file, ["quality"])[0] == {"quality": viewed["quality"]}


def test_call_that_went_on_is_copied_when_it_is_over(record: Record, file: CopyFile) -> None:
    file.prepare()
    waiting = rows_in(file, "SELECT number FROM waiting WHERE name = 'calls'")
    going_on = record.connection.execute("SELECT rowid FROM calls WHERE ended_at IS NULL").fetchall()
    assert going_on
    assert sorted(waiting) == sorted(going_on)
    record.connection.execute(
        "UPDATE calls SET ended_at = '2026-10-27T12:00:00.000Z', outcome = 'failed', end_cause = 'server_restart', "
        "end_uncertainty_ms = 3600000 WHERE ended_at IS NULL"
    )
    copied, viewed = both(record, file)
    assert copied == viewed
    file.prepare()
    assert rows_in(file, "SELECT number FROM waiting") == []
    assert both(record, file)[0] == viewed


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM calls WHERE started_at < '2026-10-25'",
        "UPDATE calls SET caller = NULL WHERE caller = 'p1'",
        "UPDATE calls SET started_at = '2026-10-23T09:00:00.000Z' WHERE rowid = 60",
        "DELETE FROM sign_ins WHERE party = 'p5'",
        "DELETE FROM sign_in_days WHERE party = 'p5'",
        "DELETE FROM errors WHERE kind = 'timeout'",
        "DELETE FROM quality_reports",
        "DELETE FROM calls",
    ],
)
def test_what_is_deleted_or_changed_out_of_turn_is_followed(record: Record, file: CopyFile, change: str) -> None:
    file.prepare()
    record.connection.execute(change)
    copied, viewed = both(record, file)
    assert copied == viewed
    (table,) = re.findall(r"(?:FROM|UPDATE) (\w+)", change)
    (count,) = record.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    (waiting,) = rows_in(file, f"SELECT count(*) FROM waiting WHERE name = '{table}'")
    assert rows_in(file, f"SELECT count(*) FROM {table}") == [(count - waiting[0],)]
    assert cells_in(file) == cells_in(made_anew(file))


def test_what_is_copied_bit_by_bit_is_counted_as_what_is_copied_at_once(record: Record, file: CopyFile) -> None:
    with connected(file.path) as copy:
        Sync(copy, record.connection, BEGIN, lambda _: None).make()
        for hour in (30, 31, 60, 61, 90, 200):
            Sync(copy, record.connection, BEGIN + hour * HOUR, lambda _: None).run()
    assert cells_in(file) == cells_in(made_anew(file))
    assert rows_in(file, "SELECT block, party FROM parties GROUP BY ALL HAVING count(*) > 1") == []
    assert rows_in(file, "SELECT day, setup_ms FROM delays GROUP BY ALL HAVING count(*) > 1") == []
    assert rows_in(file, "SELECT count(*) FROM calls") == rows_in(file, "SELECT sum(count_rows) FROM facts")


@pytest.mark.parametrize(
    ("by", "begin"),
    [("hour", BEGIN + 7 * HOUR + 60_000), ("day", BEGIN), ("week", BEGIN - 60 * DAY), ("month", BEGIN - 60 * DAY)],
)
def test_pieces_of_every_length_are_counted_by_cells_and_rows(
    record: Record, file: CopyFile, by: By, begin: int
) -> None:
    # Some of the last day is in the store alone.
    with connected(file.path) as copy:
        sync = Sync(copy, record.connection, BEGIN + 90 * HOUR, lambda _: None)
        sync.make()
        sync.run()
    known = Recorded([(begin, END + DAY)])
    with file.opened(record.connection) as copied:
        for where in ("UTC", "Asia/Kathmandu"):
            one, other = (
                [make(name, Asked(Kpis(source), known, begin, END + DAY, by, zone(where)))
                    for name in ("summary", "traffic", "quality", "features", "sign-ins")]
                for source in (copied, Views(record.connection))
            )  # fmt: skip
            assert one == other


def test_many_calls_that_are_not_settled_are_no_reason_to_write_the_copy_again(record: Record, file: CopyFile) -> None:
    file.prepare()
    record.connection.execute(
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20100) INSERT INTO calls (id, "
        "call_id, started_at, devices) SELECT printf('w%06d', x), 'h', '2026-10-27T20:00:00.000Z', 1 FROM n"
    )
    with file.opened(record.connection) as copy:
        assert copy.rest >= 20_100
    written = file.path.read_bytes()
    with file.opened(record.connection) as copy:
        assert copy.rest >= 20_100
    assert file.path.read_bytes() == written
    # Later some of them may be.
    os.utime(file.path, (0, 0))
    with file.opened(record.connection):
        assert file.path.stat().st_mtime > 0


def test_places_go_when_their_time_is_over(record: Record, file: CopyFile) -> None:
    record.connection.execute("UPDATE calls SET caller_location_until = '2026-11-30T00:00:00.000Z' WHERE rowid < 50")
    file.prepare()
    record.connection.execute(
        "UPDATE calls SET caller_country = NULL, caller_site = NULL, caller_location_until = NULL WHERE rowid < 50"
    )
    copied, viewed = both(record, file, ["locations"])
    assert copied == viewed
    assert rows_in(file, "SELECT count(caller_country) FROM calls WHERE number < 50") == [(0,)]


def test_copy_of_another_store_of_an_earlier_one_or_of_nothing_is_made_anew(
    record: Record, file: CopyFile, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with closing(Record(tmp_path / "other", 7).connection):
        CopyFile(tmp_path / "other" / "calls.db", file.path).prepare()
    copied, viewed = both(record, file, ["devices"])
    assert copied == viewed
    # As if a backup had been put back, and calls had come since.
    record.connection.execute("BEGIN")
    file_rows = record.connection.execute("SELECT max(rowid) FROM calls").fetchone()[0]
    record.connection.execute("UPDATE calls SET id = 'another' WHERE rowid = ?", (file_rows,))
    record.connection.execute("DELETE FROM changed_days")
    record.connection.execute("COMMIT")
    assert both(record, file, ["devices"])[0] == viewed
    for content in (b"", b"cut short", file.path.read_bytes()[:20_000]):
        file.path.write_bytes(content)
        file.path.with_name("calls.duckdb.part").write_bytes(content)
        assert both(record, file, ["devices"])[0] == viewed


def test_copy_of_another_version_is_made_anew(record: Record, file: CopyFile) -> None:
    file.prepare()
    with connected(file.path) as connection:
        connection.execute("UPDATE about SET format = 0")
        connection.execute("DELETE FROM calls")
    copied, viewed = both(record, file, ["devices"])
    assert copied == viewed


def test_work_that_is_cut_short_leaves_the_copy_as_it_was(record: Record, file: CopyFile) -> None:
    file.prepare()
    viewed = figures(record, Views(record.connection), ["devices"], "UTC")
    record.connection.execute("DELETE FROM calls WHERE rowid > 100")

    class Cut(Exception):
        pass

    def stop(_: int) -> None:
        raise Cut

    @contextmanager
    def watch(_: int) -> Iterator[Callable[[int], None]]:
        yield stop

    with pytest.raises(Cut):
        CopyFile(file.store_path, file.path, watch).prepare()
    assert rows_in(file, "SELECT count(*) > 0 FROM calls WHERE number > 100") == [(True,)]
    copied, now = both(record, file, ["devices"])
    assert copied == now != viewed


def write(file: CopyFile) -> tuple[int, int]:
    """Write something, and tidy up the log of writes as far as readers let it: pages in it, and those of them done."""
    with closing(connect(file.store_path, checkpoint=True)) as server:
        server.execute("BEGIN IMMEDIATE")
        number = server.execute("SELECT count(*) FROM errors").fetchone()[0]
        server.executemany(
            "INSERT INTO errors (id, at, kind, count, last_at) VALUES (?, ?, 'timeout', 1, ?)",
            [(f"w{number + each}", stamp(END), stamp(END)) for each in range(500)],
        )
        server.execute("COMMIT")
        _, pages, done = server.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return pages, done


def test_nothing_keeps_the_log_of_writes_from_being_tidied_up_while_a_report_is_made(
    record: Record, file: CopyFile
) -> None:
    file.prepare()
    with file.opened(record.connection) as copy:
        for _ in range(3):
            figures(record, copy, ["summary", "errors"], "UTC")
            pages, done = write(file)
            assert pages == done > 0


def test_copy_is_made_in_steps_that_read_one_moment_each(file: CopyFile) -> None:
    found: list[tuple[int, int]] = []

    @contextmanager
    def watch(_: int) -> Iterator[Callable[[int], None]]:
        yield lambda _: found.append(write(file))

    CopyFile(file.store_path, file.path, watch).prepare()
    assert len(found) >= 5
    for (before, _), (pages, done) in pairwise(found):
        # What came before a step is no longer kept for it; a log of which all is done begins again.
        assert done >= before or pages < before


def test_what_a_killed_report_has_left_goes(file: CopyFile) -> None:
    left = file.path.with_name(".calls.duckdb.x1y2")
    left.mkdir()
    (left / "spilled").write_text("rows")
    file.prepare()
    assert not left.exists()
    assert file.path.exists()


def test_reports_at_once_wait_for_who_writes_and_not_for_who_reads(record: Record, file: CopyFile) -> None:
    file.prepare()
    lock = os.open(file.path.with_name("calls.duckdb.lock"), os.O_RDWR)
    told = threading.Event()
    waiting = CopyFile(file.store_path, file.path, waits=told.set)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with waiting.opened(record.connection):
            assert not told.is_set()
        fcntl.flock(lock, fcntl.LOCK_EX)

        def let_go() -> None:
            told.wait(20)
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=let_go)
        thread.start()
        with waiting.opened(record.connection):
            assert told.is_set()
        thread.join()
    finally:
        os.close(lock)


def test_text_that_breaks_lines_is_not_copied(record: Record, file: CopyFile) -> None:
    record.connection.execute("UPDATE calls SET caller_agent = 'one\ntwo' WHERE rowid = 3")
    with pytest.raises(CopyError, match="control characters"):
        file.prepare()
    assert not file.path.exists()


def test_text_is_copied_as_it_is(record: Record, file: CopyFile) -> None:
    for number, agent in enumerate(("", "a\"b'c", "Ünï/1", "ünï/1", " x,y;\\z ", "NULL"), 1):
        record.connection.execute("UPDATE calls SET caller_agent = ? WHERE rowid = ?", (agent, number))
    copied, viewed = both(record, file, ["devices"])
    assert copied == viewed
    with file.opened(record.connection) as copy:
        for agent in ("ünï", "Ünï", "X,", "b'C"):
            kpis = [Kpis(source, agent=agent) for source in (copy, Views(record.connection))]
            one, other = (each.agents(Asked(each, recorded(record.connection), BEGIN, END, "day", zone("UTC")).whole)
                for each in kpis)  # fmt: skip
            assert one == other
