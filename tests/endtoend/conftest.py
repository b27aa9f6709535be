"""Servers for tests with real endpoints; each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.server import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with these users and this configuration; it is stopped when the test is over."""
    with ExitStack() as stack:

        def start(*users: str, config: str = "", port: int = 0) -> ServerProcess:
            return stack.enter_context(ServerProcess(tmp_path / "server", users, config=config, port=port))

        yield start
