"""Web clients that misbehave by the thousand, while others register and call as if they were not there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from support.endpoint import Endpoint
from support.listening import ListeningServer
from support.ports import free_port
from support.websocket import (
    BINARY,
    CONT,
    PING,
    TEXT,
    WebSocketEndpoint,
    WebSocketPeer,
    frame,
    handshake,
    websocket_peer,
)

CONFIG = """
[tcp]
write_buffer = 65536
[websocket]
handshake = 1.0
half_open = 200
"""
HALF_OPEN = 1_000
PER_SOURCE = 90
"""Connections from one address, fewer than what is refused."""
UNNOTICED = 2.0
"""Seconds within which every call is set up and ended, on a machine that does much else."""

EVIL = handshake(lines=["Sec-WebSocket-Protocol: sip", "Origin: https://evil.test"])
HOSTILE = [
    frame(TEXT, b"REGISTER sip:example.test SIP/2.0\r\n\r\n", masked=False),
    b"\x82\xff\x00\x00\x00\x7f\xff\xff\xff\xff" + b"x" * 100_000,
    frame(BINARY, b"x" * 60_000, fin=False) + frame(CONT, b"x" * 60_000),
    frame(TEXT, b"", fin=False) + 10_000 * frame(CONT, b"", fin=False),
    20_000 * frame(PING, b"x"),
    20_000 * frame(TEXT),
    frame(TEXT, b"\xff\xff"),
]


def sources() -> Iterator[str]:
    """Loopback addresses, none used too often, and not the one that others come from."""
    number = 0
    while True:
        yield f"127.0.1.{number // PER_SOURCE + 1}"
        number += 1


async def half_open(port: int, source: Iterator[str]) -> None:
    """Connections that say nothing, or half of what they should, until each is ended."""
    async with AsyncExitStack() as stack:
        peers = []
        for number in range(HALF_OPEN):
            peers.append(await WebSocketPeer.connect(port, source=next(source)))
            stack.push_async_callback(peers[-1].leave)
            if number % 2:
                peers[-1].writer.write(handshake()[:-20])
        for peer in peers:
            assert await peer.at_end() == b""


async def hostile_streams(port: int, source: Iterator[str]) -> None:
    """Streams that cannot go on, each of which is ended."""
    for stream in HOSTILE:
        async with websocket_peer(port, source=next(source)) as peer:
            peer.writer.write(stream)
            await peer.at_end()


async def foreign_pages(port: int, source: Iterator[str]) -> None:
    """Pages of somebody else's."""
    for _ in range(50):
        peer = await WebSocketPeer.connect(port, source=next(source))
        assert (await peer.ask(EVIL))[0] == 403
        await peer.leave()


async def reads_nothing(port: int, source: Iterator[str]) -> None:
    """Asks for much, and does not take it, until it is cut off."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.bind((next(source), 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    peer = WebSocketPeer(reader, writer)
    writer.write(handshake())
    padding = "x" * 6_000
    options = (
        f"OPTIONS sip:example.test SIP/2.0\r\nVia: SIP/2.0/WS a.invalid;branch=z9hG4bK%d;p={padding}\r\n"
        "From: <sip:x@other.test>;tag=1\r\nTo: <sip:example.test>\r\nCall-ID: %d\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    for number in range(2_000):
        if writer.transport.is_closing():
            break
        peer.send(TEXT, (options % (number, number)).encode())
        try:
            await asyncio.wait_for(writer.drain(), 5)
        except OSError:
            break
    else:
        raise AssertionError("it was not cut off")
    await peer.leave()


async def calls(endpoint: Endpoint, caller: str, callee: str, enough: asyncio.Event) -> list[float]:
    """Register and call, again and again; how long each round took."""
    taken: list[float] = []
    while not enough.is_set() or len(taken) < 3:
        began = time.monotonic()
        assert (await endpoint.register(caller)).status == 200
        assert (await endpoint.register(callee)).status == 200
        final, dialog = await endpoint.invite(caller, callee)
        assert final.status == 200
        assert (await endpoint.bye(dialog)).status == 200
        taken.append(time.monotonic() - began)
    return taken


async def test_others_notice_nothing(tmp_path: Path) -> None:
    web = free_port()
    listen = ("udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}", f"ws:127.0.0.1:{web}")
    with ListeningServer(tmp_path, ["alice", "bob", "carol", "dave"], config=CONFIG, listen=listen) as server:
        async with asyncio.timeout(60), Endpoint(server.port) as phone, WebSocketEndpoint(web) as page:
            enough = asyncio.Event()
            others = asyncio.gather(calls(phone, "alice", "bob", enough), calls(page, "carol", "dave", enough))
            source = sources()
            await asyncio.gather(
                half_open(web, source), hostile_streams(web, source), foreign_pages(web, source),
                reads_nothing(web, source),
            )  # fmt: skip
            enough.set()
            taken = [each for rounds in await others for each in rounds]
            assert max(taken) < UNNOTICED, taken
        assert all(row["outcome"] == "answered" for row in server.ended_calls(len(taken)))
        assert not [event for event in server.events if event["event"] == "internal.fault"]
        # How often something happened is written with the last of it.
        server.stop()
        rows = server.rows("SELECT kind, status, sum(count) AS count FROM errors GROUP BY kind, status")
        found = {(row["kind"], row["status"]): row["count"] for row in rows}
        assert found["handshake", 403] == 50
        assert found["connection_cut_off", None] == 1
        assert found["malformed", 513] == 2
        assert found["malformed", 400] == 5
        assert sum(found.get((f"connection_{why}", None), 0) for why in ("refused", "timeout")) == HALF_OPEN
