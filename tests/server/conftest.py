"""A server in this process for the tests of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.inprocess import Server

MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes a server with these users and this configuration, with no fault of its own when the test is over."""
    with ExitStack() as stack:

        def make(*users: str, config: str = "", faults: int = 0) -> Server:
            server = stack.enter_context(Server(tmp_path / "server", *users, config=config))
            stack.callback(lambda: _check(server, faults))
            return server

        yield make


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """A server with three subscribers."""
    return make_server("alice", "bob", "carol")


def _check(server: Server, faults: int) -> None:
    assert server.driver.faults == faults, server.log("internal.fault")
