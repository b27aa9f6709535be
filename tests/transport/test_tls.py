"""TLS on real sockets: what passes, what is refused, and that nobody pays for those who only begin."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from support.certificates import Authority, Files
from support.transport import PATIENCE, message, port_of, serving


class Shown:
    """A ``Security`` with one certificate."""

    def __init__(self, authority: Authority, files: Files, demand: ssl.VerifyMode = ssl.CERT_NONE) -> None:
        self.server = authority.server(files, demand)
        self.client = authority.client(files)
        self.client.check_hostname = False

    def accepting(self, listener: int) -> ssl.SSLContext:
        return self.server

    def connecting(self) -> ssl.SSLContext:
        return self.client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def dial(
    port: int, context: ssl.SSLContext, name: str = "example.test"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TLS connection to a listener."""
    opening = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    return await asyncio.wait_for(opening, PATIENCE)


async def test_a_message_is_received_and_answered_over_tls(authority: Authority) -> None:
    security = Shown(authority, authority.issue("example.test"))
    async with serving("tls:127.0.0.1:0", security=security) as (transports, receiver):
        receiver.answer = lambda data, flow: transports.send(flow, data)
        reader, writer = await dial(port_of(transports), authority.client())
        writer.write(message(1, b"x" * 40_000) + message(2))
        expected = message(1, b"x" * 40_000) + message(2)
        assert await asyncio.wait_for(reader.readexactly(len(expected)), PATIENCE) == expected
        flow = receiver.messages[0][1]
        assert (flow.transport, flow.sent_by, flow.peer_names) == ("TLS", f"127.0.0.1:{port_of(transports)}", ())
        writer.close()
        await receiver.until(lambda: receiver.closed == [flow])
        assert transports.tcp is not None
        assert (transports.tcp.handshakes.done, transports.tcp.handshakes.open) == (1, 0)
