"""Stores of random calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.record import Record


@pytest.fixture(params=range(3), scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Record]:
    made = Record(tmp_path_factory.mktemp("record"), request.param)
    yield made
    made.connection.close()


@pytest.fixture
def record(drawn: Record) -> Iterator[Record]:
    """A store; what a test writes into it is gone after the test."""
    drawn.connection.execute("BEGIN")
    yield drawn
    drawn.connection.execute("ROLLBACK")
