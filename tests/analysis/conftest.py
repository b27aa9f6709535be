"""Stores of random calls, read by their views and by a columnar copy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.copies import SOURCES, Copies
from support.record import BEGIN, DAY, Record


@pytest.fixture(params=range(3), scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Record, Copies]]:
    folder = tmp_path_factory.mktemp("record")
    made = Record(folder, request.param)
    # Some of it is in the copy, some is read from the store; in one of them all is in the copy.
    copies = Copies(folder, made.connection, BEGIN + (3 + 9 * (request.param == 1)) * DAY)
    yield made, copies
    copies.close()
    made.connection.close()


@pytest.fixture(params=SOURCES)
def record(drawn: tuple[Record, Copies], request: pytest.FixtureRequest) -> Iterator[Record]:
    """A store; what a test writes into it is gone after the test."""
    made, copies = drawn
    before = made.changes
    made.connection.execute("BEGIN")
    made.copies = copies if request.param == "copy" else None
    yield made
    made.connection.execute("ROLLBACK")
    copies.forget(before)
    made.changes = before
    made.copies = None


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    made = Record(tmp_path_factory.mktemp("record"), 7)
    yield made
    made.connection.close()


@pytest.fixture
def one(kept: Record) -> Iterator[Record]:
    """The same, of a single seed: for what is slow and has less to do with what was drawn."""
    kept.connection.execute("BEGIN")
    yield kept
    kept.connection.execute("ROLLBACK")
