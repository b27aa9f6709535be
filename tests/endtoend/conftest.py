"""Servers for tests with real endpoints; each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.server import ServerProcess

StartServer = Callable[..., ServerProcess]

LONGEST = (
    "test_serving", "test_quality", "test_errors", "test_baresip", "test_nobody_hangs_up", "test_durability",
    "test_other_domains", "test_store_failure", "test_outbound", "test_check", "test_tls", "test_clock_that_is_set",
    "test_tools", "test_location", "test_explore",
)  # fmt: skip
"""Files that take longest: they come first, so that no processor is left with one of them when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with these users and this configuration; it is stopped when the test is over."""
    with ExitStack() as stack:

        def start(*users: str, config: str = "", port: int = 0) -> ServerProcess:
            return stack.enter_context(ServerProcess(tmp_path / "server", users, config=config, port=port))

        yield start
