from __future__ import annotations

import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sipserver.storage.database import StoreError, connect
from sipserver.storage.writer import Writer

INSERT, CHILD, CLEAR = 0, 1, 2
STATEMENTS = (
    "INSERT INTO item (id, name) VALUES (?, ?)",
    "INSERT INTO child (item) VALUES (?)",
    "DELETE FROM item WHERE id = ?",
)


class Loop:
    """A loop's thread-safe entrance; the test is the loop."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.results: list[tuple[str, bool]] = []
        self.states: list[tuple[bool, str]] = []
        self.poison: list[tuple[int, tuple[Any, ...], str]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def callback(self, name: str) -> Callable[[bool], None]:
        return lambda committed: self.results.append((name, committed))

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._calls.get(timeout=10)()

    def run_for_results(self, count: int) -> list[tuple[str, bool]]:
        self.run_until(lambda: len(self.results) >= count)
        return self.results

    def run_rest(self) -> None:
        while not self._calls.empty():
            self._calls.get()()

    def on_state(self, working: bool, sentence: str) -> None:
        self.states.append((working, sentence))

    def on_poison(self, statement: int, row: tuple[Any, ...], sentence: str) -> None:
        self.poison.append((statement, row, sentence))


class Bench:
    """A database file and the writers on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop()
        self.other = connect(path)
        self.other.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT")
        self.other.execute("CREATE TABLE child (item INTEGER REFERENCES item (id)) STRICT")
        self._writers: list[Writer] = []

    def writer(self, *, keep_failed: bool = False, **options: Any) -> Writer:
        options.setdefault("interval", 0.0)
        writer = Writer(
            self.path,
            STATEMENTS,
            call_soon=self.loop.call_soon,
            keep_failed=keep_failed,
            on_state=self.loop.on_state,
            on_poison=self.loop.on_poison,
            **options,
        )
        self._writers.append(writer)
        return writer

    def write(self, writer: Writer, name: str, *rows: tuple[int, tuple[Any, ...]]) -> None:
        for statement, row in rows:
            assert writer.put(statement, row)
        writer.on_commit(self.loop.callback(name))

    def names(self) -> list[str]:
        return [name for (name,) in self.other.execute("SELECT name FROM item ORDER BY id")]

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self.other.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "items.db")
    yield bench
    bench.close()


def test_callback_comes_when_the_row_is_readable_by_others(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("a", True)]
    assert bench.names() == ["a"]
    assert (writer.rows_written, writer.commits, writer.pending) == (1, 1, 0)


def test_nothing_is_written_before_flush(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "a", (INSERT, (1, "a")))
    assert bench.names() == []
    assert writer.pending == 2


def test_statements_run_in_their_order_whatever_the_order_of_puts(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "a", (CHILD, (1,)), (INSERT, (1, "a")))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("a", True)]
    assert writer.poisoned == 0


def test_rows_of_one_batch_share_a_commit(bench: Bench) -> None:
    writer = bench.writer()
    for number in range(100):
        bench.write(writer, str(number), (INSERT, (number, "x")))
    writer.flush()
    bench.loop.run_for_results(100)
    assert (writer.commits, writer.rows_written) == (1, 100)
    assert [name for name, _ in bench.loop.results] == [str(number) for number in range(100)]


def test_rows_flushed_within_the_interval_share_a_commit(bench: Bench) -> None:
    writer = bench.writer(interval=0.3)
    bench.write(writer, "first", (INSERT, (1, "x")))
    writer.flush()
    bench.loop.run_for_results(1)
    for number in range(2, 6):
        bench.write(writer, str(number), (INSERT, (number, "x")))
        writer.flush()
    bench.loop.run_for_results(5)
    assert writer.commits == 2


def test_one_wake_up_releases_a_whole_batch(bench: Bench) -> None:
    calls: list[Callable[[], None]] = []
    writer = Writer(bench.path, STATEMENTS, call_soon=calls.append, keep_failed=False, interval=0.0)
    for number in range(10):
        bench.write(writer, str(number), (INSERT, (number, "x")))
    writer.close()
    assert len(calls) == 1
    calls[0]()
    assert len(bench.loop.results) == 10


def test_callback_without_rows_is_called_in_turn(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    bench.write(writer, "b")
    writer.flush()
    assert bench.loop.run_for_results(2) == [("a", True), ("b", True)]
    assert writer.commits == 1


def test_full_queue_refuses_and_counts(bench: Bench) -> None:
    writer = bench.writer(max_rows=2)
    assert writer.put(INSERT, (1, "a"))
    assert writer.put(INSERT, (2, "b"))
    assert not writer.put(INSERT, (3, "c"))
    assert writer.refused == 1
    writer.on_commit(bench.loop.callback("done"))
    writer.flush()
    bench.loop.run_for_results(1)
    assert writer.put(INSERT, (3, "c"))


def test_dropping_writer_answers_false_while_another_holds_the_file(bench: Bench) -> None:
    writer = bench.writer()
    bench.other.execute("BEGIN EXCLUSIVE")
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("a", False)]
    assert bench.loop.states[0][0] is False
    bench.other.execute("ROLLBACK")
    bench.write(writer, "b", (INSERT, (2, "b")))
    writer.flush()
    assert bench.loop.run_for_results(2)[1] == ("b", True)
    assert bench.names() == ["b"]
    assert not writer.failing
    assert [working for working, _ in bench.loop.states] == [False, True]
    assert "locked" in bench.loop.states[0][1]


def test_keeping_writer_writes_when_the_file_is_free_again(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    bench.other.execute("BEGIN EXCLUSIVE")
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.states))
    assert bench.loop.results == []
    bench.write(writer, "b", (INSERT, (2, "b")))
    writer.flush()
    assert writer.pending == 4
    bench.other.execute("ROLLBACK")
    assert bench.loop.run_for_results(2) == [("a", True), ("b", True)]
    bench.loop.run_until(lambda: len(bench.loop.states) == 2)
    assert bench.names() == ["a", "b"]
    assert writer.failed_commits >= 1


def test_state_is_told_once_however_often_the_store_fails(bench: Bench) -> None:
    writer = bench.writer()
    bench.other.execute("BEGIN EXCLUSIVE")
    for number in range(3):
        bench.write(writer, str(number), (INSERT, (number, "x")))
        writer.flush()
        bench.loop.run_for_results(number + 1)
    assert writer.failed_commits == 3
    assert len(bench.loop.states) == 1
    bench.other.execute("ROLLBACK")


def test_full_disk_is_a_failure_that_passes(bench: Bench) -> None:
    pages = bench.other.execute("PRAGMA page_count").fetchone()[0]
    writer = bench.writer(keep_failed=True, pragmas={"max_page_count": pages + 4})
    bench.write(writer, "small", (INSERT, (1, "x" * 10_000)))
    writer.flush()
    bench.loop.run_for_results(1)
    bench.write(writer, "large", (INSERT, (2, "y" * 15_000)))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.states))
    assert "full" in bench.loop.states[0][1]
    bench.other.execute("DELETE FROM item WHERE id = 1")
    assert bench.loop.run_for_results(2)[1] == ("large", True)
    assert bench.names() == ["y" * 15_000]


def test_read_only_store_is_a_failure(bench: Bench) -> None:
    writer = bench.writer(pragmas={"query_only": 1})
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("a", False)]
    assert "readonly" in bench.loop.states[0][1]


def test_vanished_file_is_not_replaced_by_an_empty_one(bench: Bench) -> None:
    writer = bench.writer(pragmas={"query_only": 1})
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    bench.loop.run_for_results(1)
    bench.path.unlink()
    bench.write(writer, "b", (INSERT, (2, "b")))
    writer.flush()
    assert bench.loop.run_for_results(2)[1] == ("b", False)
    assert not bench.path.exists()


BAD_ROWS = [
    ((1, None), "NOT NULL"),
    ((1, b"blob"), "BLOB"),
    ((1, object()), "parameter"),
    ((2**70, "large"), "large"),
    ((1, "\ud800"), "surrogates"),
    ((1,), "bindings"),
]


@pytest.mark.parametrize(("row", "said"), BAD_ROWS)
def test_bad_row_is_set_aside_and_its_neighbours_are_kept(bench: Bench, row: tuple[Any, ...], said: str) -> None:
    writer = bench.writer(keep_failed=True)
    bench.write(writer, "before", (INSERT, (10, "before")))
    bench.write(writer, "bad", (INSERT, (11, "same group")), (INSERT, row))
    bench.write(writer, "after", (INSERT, (12, "after")))
    writer.flush()
    assert bench.loop.run_for_results(3) == [("before", True), ("bad", False), ("after", True)]
    assert bench.names() == ["before", "same group", "after"]
    assert (writer.poisoned, writer.rows_written) == (1, 3)
    assert bench.loop.poison[0][:2] == (INSERT, row)
    assert said in bench.loop.poison[0][2]
    assert not writer.failing


def test_dropping_writer_writes_nothing_of_a_group_with_a_bad_row(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "before", (INSERT, (10, "before")))
    bench.write(writer, "bad", (INSERT, (11, "same group")), (INSERT, (12, None)))
    writer.flush()
    assert bench.loop.run_for_results(2) == [("before", True), ("bad", False)]
    assert bench.names() == ["before"]


def test_bad_rows_are_found_among_many(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    bad = {0, 17, 18, 255, 499}
    for number in range(500):
        # The child comes first here, and second in the order of the statements.
        name = None if number in bad else "x"
        bench.write(writer, str(number), (CHILD, (number,)), (INSERT, (number, name)))
    writer.flush()
    bench.loop.run_for_results(500)
    assert {int(name) for name, committed in bench.loop.results if not committed} == bad
    assert len(bench.names()) == 495
    # Neither a bad row nor the child that points at it can be written.
    assert {row[0] for _, row, _ in bench.loop.poison} == bad
    assert (writer.poisoned, writer.rows_written, writer.commits) == (10, 990, 1)


def test_bad_row_fails_a_callback_that_comes_after_the_flush(bench: Bench) -> None:
    writer = bench.writer()
    writer.put(INSERT, (1, None))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.poison))
    bench.write(writer, "late")
    bench.write(writer, "next", (INSERT, (2, "next")))
    writer.flush()
    assert bench.loop.run_for_results(2) == [("late", False), ("next", True)]


def test_failed_batch_fails_a_callback_that_comes_after_the_flush(bench: Bench) -> None:
    writer = bench.writer()
    bench.other.execute("BEGIN EXCLUSIVE")
    writer.put(INSERT, (1, "a"))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.states))
    bench.other.execute("ROLLBACK")
    bench.write(writer, "late")
    bench.write(writer, "next", (INSERT, (2, "next")))
    writer.flush()
    assert bench.loop.run_for_results(2) == [("late", False), ("next", True)]


def test_locked_store_is_a_failure_also_while_bad_rows_are_sorted_out(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    bench.write(writer, "bad", (INSERT, (1, None)))
    bench.write(writer, "good", (INSERT, (2, "good")))
    bench.other.execute("BEGIN EXCLUSIVE")
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.states))
    bench.other.execute("ROLLBACK")
    assert bench.loop.run_for_results(2) == [("bad", False), ("good", True)]


def test_callback_that_raises_does_not_stop_the_others(bench: Bench) -> None:
    writer = bench.writer()

    def broken(committed: bool) -> None:
        raise ZeroDivisionError

    writer.put(INSERT, (1, "a"))
    writer.on_commit(broken)
    writer.on_commit(bench.loop.callback("other"))
    writer.flush()
    with pytest.raises(ZeroDivisionError):
        bench.loop.run_for_results(1)
    assert bench.loop.run_for_results(1) == [("other", True)]


def test_state_of_one_group_does_not_reach_the_next(bench: Bench) -> None:
    writer = bench.writer()
    writer.put(INSERT, (1, None))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.poison))
    bench.write(writer, "same", (INSERT, (2, "x")))
    bench.write(writer, "next", (INSERT, (3, None)))
    bench.write(writer, "last", (INSERT, (4, "x")))
    writer.flush()
    assert bench.loop.run_for_results(3) == [("same", False), ("next", False), ("last", True)]


def test_bad_row_without_anyone_to_tell_is_counted(bench: Bench) -> None:
    calls: list[Callable[[], None]] = []
    writer = Writer(bench.path, STATEMENTS, call_soon=calls.append, keep_failed=True, interval=0.0)
    writer.put(INSERT, (1, None))
    assert writer.close() == 0
    assert (writer.poisoned, calls) == (1, [])


def test_close_writes_what_was_put_and_empties_the_log_file(bench: Bench) -> None:
    writer = bench.writer()
    bench.write(writer, "a", (INSERT, (1, "a")))
    assert writer.close() == 0
    bench.loop.run_rest()
    assert bench.loop.results == [("a", True)]
    assert bench.names() == ["a"]
    assert bench.path.with_name("items.db-wal").stat().st_size == 0


def test_closed_writer_refuses_and_answers_false(bench: Bench) -> None:
    writer = bench.writer()
    writer.close()
    assert writer.close() == 0
    assert not writer.put(INSERT, (1, "a"))
    writer.on_commit(bench.loop.callback("late"))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("late", False)]
    assert writer.refused == 1


def test_close_of_a_keeping_writer_says_how_many_rows_are_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.storage.writer.CLOSING_TIME", 0.3)
    writer = bench.writer(keep_failed=True)
    bench.other.execute("BEGIN EXCLUSIVE")
    bench.write(writer, "a", (INSERT, (1, "a")), (INSERT, (2, "b")))
    writer.flush()
    assert writer.close() == 2
    bench.other.execute("ROLLBACK")
    assert bench.names() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_fault_of_our_own_answers_false_and_refuses_what_follows(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    bench.write(writer, "a", (99, (1, "a")))
    writer.flush()
    assert bench.loop.run_for_results(1) == [("a", False)]
    assert bench.loop.states[0][0] is False
    assert "the writer ended" in bench.loop.states[0][1]
    assert not writer.put(INSERT, (1, "a"))
    assert writer.failing
    assert writer.close() == 1


def test_loop_that_is_closed_does_not_stop_the_writing(bench: Bench) -> None:
    def closed_loop(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    writer = Writer(bench.path, STATEMENTS, call_soon=closed_loop, keep_failed=True, interval=0.0)
    bench.write(writer, "a", (INSERT, (1, "a")))
    assert writer.close() == 0
    assert bench.names() == ["a"]


def test_writer_says_which_file_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database, only a text of some length" * 50)
    with pytest.raises(StoreError, match=r"text\.db is not an SQLite database"):
        Writer(path, STATEMENTS, call_soon=Loop().call_soon, keep_failed=False)


KILLED = """
import os, queue, sys
from sipserver.storage.writer import Writer

calls = queue.SimpleQueue()
writer = Writer(sys.argv[1], ["INSERT INTO item VALUES (?)"], call_soon=calls.put, keep_failed=True, interval=0.0)
acknowledged = []
number = 0
while len(acknowledged) < 300:
    for _ in range(7):
        number += 1
        writer.put(0, (number,))
        writer.on_commit(lambda committed, number=number: acknowledged.append(number))
    writer.flush()
    while not calls.empty():
        calls.get()()
os.write(1, "\\n".join(map(str, acknowledged)).encode())
os.kill(os.getpid(), 9)
"""


def test_rows_acknowledged_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    setup = connect(path)
    setup.execute("CREATE TABLE item (id INTEGER PRIMARY KEY) STRICT")
    setup.close()
    command = [sys.executable, "-c", KILLED, str(path)]
    root = Path(__file__).parents[2]
    child = subprocess.run(command, capture_output=True, check=False, cwd=root, timeout=60)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    acknowledged = {int(line) for line in child.stdout.split()}
    after = connect(path)
    stored = {number for (number,) in after.execute("SELECT id FROM item")}
    after.close()
    assert len(acknowledged) >= 300
    assert acknowledged <= stored


def test_tally_knows_where_each_row_is(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    for number in (1, 2, 1):
        assert writer.put(INSERT, (number, "x"))
    assert writer.put(CHILD, (1,))
    writer.on_commit(bench.loop.callback("a"))
    assert (writer.tally(INSERT), writer.tally(CHILD)) == ((0, 3, 0), (0, 1, 0))
    writer.flush()
    bench.loop.run_for_results(1)
    assert (writer.tally(INSERT), writer.tally(CHILD)) == ((2, 0, 1), (1, 0, 0))
    assert writer.put(INSERT, (4, "x"))
    assert writer.tally(INSERT) == (2, 1, 1)


def test_rows_that_a_failing_store_does_not_take_go_on_waiting(bench: Bench) -> None:
    writer = bench.writer(keep_failed=True)
    bench.other.execute("BEGIN IMMEDIATE")
    bench.write(writer, "a", (INSERT, (1, "a")))
    writer.flush()
    bench.loop.run_until(lambda: bool(bench.loop.states))
    assert writer.tally(INSERT) == (0, 1, 0)
    bench.other.execute("COMMIT")
    bench.loop.run_for_results(1)
    assert writer.tally(INSERT) == (1, 0, 0)
