"""A store of calls for tests: rows go straight into it, in the order in which the writer would put them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sipserver.calls import activity, quality
from sipserver.calls.activity import ActivityRecords
from sipserver.calls.quality import QualityRecords
from sipserver.calls.recorder import STATEMENTS as CALL_STATEMENTS
from sipserver.calls.recorder import Recorder
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.database import sqlite
from support.stores import new_store

STATEMENTS = (*CALL_STATEMENTS, *quality.STATEMENTS, *activity.STATEMENTS)

T = 1_795_467_737_942
"""2026-11-23T21:02:17.942Z"""


class Store:
    """``storage.writer.Writer`` without its thread: ``commit`` writes what was put."""

    def __init__(self, folder: Path) -> None:
        self.connection: sqlite.Connection = new_store(folder / "calls.db", MIGRATIONS)
        self.rows: list[tuple[int, tuple[Any, ...]]] = []
        self.room = 1_000_000

    def put(self, statement: int, row: tuple[Any, ...], /) -> bool:
        if len(self.rows) >= self.room:
            return False
        self.rows.append((statement, row))
        return True

    def commit(self) -> None:
        """One transaction, statement by statement."""
        self.connection.execute("BEGIN")
        for number, sql in enumerate(STATEMENTS):
            self.connection.executemany(sql, [row for statement, row in self.rows if statement == number])
        self.connection.execute("COMMIT")
        self.rows = []

    def all(self, table: str) -> list[dict[str, Any]]:
        """Every row of a table or view, in the order in which they were written; of timelines in their own."""
        self.commit()
        order = " ORDER BY call, number" if table == "call_events" else ""
        cursor = self.connection.execute(f"SELECT * FROM {table}{order}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def one(self, table: str) -> dict[str, Any]:
        """The only row."""
        (row,) = self.all(table)
        return row


class Numbers:
    """Ten bytes that are not random, so that identifiers are the same in every run and none is there twice."""

    def __init__(self) -> None:
        self._next = 0

    def skip(self, numbers: int) -> None:
        """Leave out so many, as another run of the server would."""
        self._next += numbers

    def __call__(self) -> bytes:
        self._next += 1
        # The first digits stand in the middle of the identifier; the last byte hardly counts.
        return (self._next << 16).to_bytes(10, "big")


def recorder(store: Store, **options: Any) -> Recorder:
    """A recorder that puts into this store."""
    return Recorder(store, node="node-1", call_id_key=b"k" * 32, random=Numbers(), **options)


def quality_records(store: Store, calls: Recorder) -> QualityRecords:
    """What puts quality reports into this store, beside the recorder of its calls."""
    return QualityRecords(
        store, len(CALL_STATEMENTS), node="node-1", call_id_hash=calls.hash_call_id, digest_key=b"d" * 32,
        random=Numbers(), network=calls.network,
    )  # fmt: skip


def activity_records(store: Store, calls: Recorder, **options: Any) -> ActivityRecords:
    """What puts devices and refreshes into this store."""
    first = len(CALL_STATEMENTS) + len(quality.STATEMENTS)
    return ActivityRecords(store, first, key=b"k" * 32, network=calls.network, **options)
