"""aiosip (0.2.0, of 2017) as an endpoint that knows no more than RFC 2069: digest without qop, no transactions.

It was written for Python 3.4. Two names that it uses are gone from newer ones, and are put back for its import.
"""

from __future__ import annotations

import asyncio
import collections
import collections.abc
import importlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ports import free_port
from support.server import DOMAIN, ServerProcess

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def aiosip(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(asyncio, "coroutine", types.coroutine, raising=False)
    monkeypatch.setattr(collections, "MutableMapping", collections.abc.MutableMapping, raising=False)
    return importlib.import_module("aiosip")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server for old endpoints: one MD5 challenge, and no qop."""
    with ServerProcess(tmp_path, ["alice"], config="[authentication]\nqop = false\n") as running:
        yield running


async def test_aiosip_registers_with_the_digest_of_rfc_2069(aiosip: Any, server: ServerProcess) -> None:
    port = free_port()
    response = await registered(aiosip, server, port, "pwalice")
    assert response.status_code == 200
    assert f"sip:alice@127.0.0.1:{port}" in response.headers["Contact"]
    (row,) = server.rows("SELECT aor, contact, transport FROM bindings", store="location.db")
    assert row == {"aor": f"alice@{DOMAIN}", "contact": f"sip:alice@127.0.0.1:{port}", "transport": "UDP"}


async def test_aiosip_with_a_wrong_password_is_refused(aiosip: Any, server: ServerProcess) -> None:
    register_failed = importlib.import_module("aiosip.exceptions").RegisterFailed
    with pytest.raises(register_failed, match="Too many unauthorized attempts"):
        await registered(aiosip, server, free_port(), "wrong")
    assert not server.rows("SELECT * FROM bindings", store="location.db")


async def registered(aiosip: Any, server: ServerProcess, port: int, password: str) -> Any:
    """The final response to a REGISTER of alice's from this port."""
    application = aiosip.Application(loop=asyncio.get_running_loop())
    dialog = await application.start_dialog(
        from_uri=f"sip:alice@{DOMAIN}",
        to_uri=f"sip:alice@{DOMAIN}",
        contact_uri=f"sip:alice@127.0.0.1:{port}",
        local_addr=("127.0.0.1", port),
        remote_addr=("127.0.0.1", server.port),
        password=password,
    )
    try:
        return await asyncio.wait_for(dialog.register(), 10)
    finally:
        dialog.protocol.transport.close()
