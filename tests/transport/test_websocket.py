"""WebSocket (RFC 6455, 7118): handshake, messages in both kinds of frames, keep-alive, and peers that misbehave."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Sequence

import pytest
from websockets.server import ServerProtocol

from sipserver.sip.flow import Flow
from sipserver.sip.message import Limits
from sipserver.transport.base import Settings, Transports
from sipserver.transport.contract import HandshakeRefused, WebSocketSettings
from sipserver.transport.websocket import WebSocketConnection
from support.transport import PATIENCE, Recorder, message, port_of, serving, stream_peer
from support.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    WebSocketPeer,
    frame,
    handshake,
    websocket_peer,
)

WS = "ws:127.0.0.1:0"
NO_LENGTH = b"MESSAGE sip:x@example.test SIP/2.0\r\n\r\nbody to the end"


def web(*, sweep_interval: float = 1.0, limits: Limits | None = None, **values: object) -> Settings:
    """Settings that differ in what concerns WebSocket."""
    websocket = WebSocketSettings(domains=("example.test",), **values)  # type: ignore[arg-type]
    return Settings(sweep_interval=sweep_interval, websocket=websocket, limits=limits or Limits())


def refusals(transports: Transports) -> list[HandshakeRefused]:
    """Handshakes that are refused from now on."""
    found: list[HandshakeRefused] = []
    transports.websockets.on_refused = found.append
    return found


def drops(transports: Transports) -> list[tuple[str, str]]:
    """Connections that are dropped from now on."""
    found: list[tuple[str, str]] = []
    assert transports.tcp is not None
    transports.tcp.on_dropped = lambda why, host, _detail: found.append((why, host))
    return found


async def flow_of(peer: WebSocketPeer, receiver: Recorder) -> Flow:
    """The server's side of a connection, once it has carried a message."""
    before = len(receiver.messages)
    peer.send(TEXT, message(99))
    await receiver.until(lambda: len(receiver.messages) > before)
    return receiver.messages[-1][1]


async def test_a_handshake_for_sip_is_accepted() -> None:
    async with serving(WS) as (transports, _):
        peer = await WebSocketPeer.connect(port_of(transports))
        status, head = await peer.ask(handshake("/any/path?x=1"))
        assert status == 101
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in head
        assert "Sec-WebSocket-Protocol: sip\r\n" in head
        assert "Extensions" not in head
        assert transports.websockets.opened == 1
        await peer.leave()


async def test_a_handshake_may_come_byte_by_byte() -> None:
    async with serving(WS) as (transports, receiver):
        peer = await WebSocketPeer.connect(port_of(transports))
        for byte in handshake():
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        assert (await peer.ask(b""))[0] == 101
        for byte in frame(TEXT, NO_LENGTH):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await receiver.until(lambda: receiver.data == [NO_LENGTH])
        await peer.leave()


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (handshake(lines=()), 400, "No Subprotocol sip"),
        (handshake(lines=["Sec-WebSocket-Protocol: chat, SIP"]), 400, "No Subprotocol sip"),
        (handshake(without="Upgrade"), 426, "No Upgrade To WebSocket"),
        (handshake(without="Sec-WebSocket-Key"), 400, "Bad WebSocket Handshake"),
        (handshake(without="Sec-WebSocket-Version"), 400, "Bad WebSocket Handshake"),
        (handshake().replace(b"GET", b"POST"), 405, "Method Not Allowed"),
        (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 505, "HTTP Version Not Supported"),
        (b"REGISTER sip:example.test SIP/2.0\r\n\r\n", 400, "No WebSocket Handshake"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", 400, "No WebSocket Handshake"),
        (handshake(lines=["X: " + "x" * 16_000]), 431, "Handshake Too Large"),
        (handshake(lines=[f"X-{i}: y" for i in range(200)]), 431, "Handshake Too Large"),
        (handshake("/" + "x" * 9_000), 431, "Handshake Too Large"),
        (handshake(lines=["X: " + "x" * 8_000] * 3), 431, "Handshake Too Large"),
        (handshake() + frame(TEXT, NO_LENGTH), 400, "Bytes After The Handshake"),
        (handshake() + b"\xff\xff\xff\xff", 400, "Bytes After The Handshake"),
    ],
)
async def test_a_wrong_handshake_is_refused(request_: bytes, status: int, reason: str) -> None:
    async with serving(WS) as (transports, receiver):
        noted = refusals(transports)
        peer = await WebSocketPeer.connect(port_of(transports))
        answered, head = await peer.ask(request_)
        assert answered == status, head
        assert (await peer.at_end()).decode() == f"{reason}.\n"
        assert [(each.host, each.status, each.reason) for each in noted] == [("127.0.0.1", status, reason)]
        await peer.leave()
        assert (receiver.messages, receiver.closed) == ([], [])
        assert transports.websockets.refused == 1


ORIGINS = [
    ((), "https://example.test", 101),
    ((), "https://phone.example.test:8443", 101),
    ((), "http://127.0.0.1:8000", 101),
    ((), "http://localhost:8000", 101),
    ((), "https://evil.test", 403),
    ((), "https://example.test.evil.test", 403),
    ((), "https://notexample.test", 403),
    ((), "null", 403),
    ((), "file://", 403),
    ((), "https://user@example.test", 403),
    ((), "https://[::", 403),
    (("https://phone.example.com",), "https://phone.example.com", 101),
    (("https://phone.example.com",), "HTTPS://Phone.example.com", 101),
    (("https://phone.example.com",), "https://example.test", 403),
    (("https://phone.example.com",), "http://phone.example.com", 403),
    (("https://phone.example.com",), "https://phone.example.com:8443", 403),
    (("https://*.example.com",), "https://a.b.example.com", 101),
    (("https://*.example.com",), "https://example.com", 403),
    (("https://*.example.com",), "https://evil.test/.example.com", 403),
    (("https://*.example.com:8443",), "https://a.example.com:8443", 101),
    (("null",), "null", 101),
    (("*",), "https://evil.test", 101),
]  # fmt: skip


@pytest.mark.parametrize(("origins", "origin", "status"), ORIGINS)
async def test_pages_of_foreign_origins_are_refused(origins: Sequence[str], origin: str, status: int) -> None:
    async with serving(WS, settings=web(origins=tuple(origins))) as (transports, _):
        noted = refusals(transports)
        peer = await WebSocketPeer.connect(port_of(transports))
        answered, _ = await peer.ask(handshake(lines=["Sec-WebSocket-Protocol: sip", f"Origin: {origin}"]))
        assert answered == status
        assert [(each.origin, each.agent) for each in noted] == ([(origin, "test browser")] if status == 403 else [])
        await peer.leave()


async def test_two_origins_are_refused() -> None:
    async with serving(WS) as (transports, _):
        peer = await WebSocketPeer.connect(port_of(transports))
        lines = ["Sec-WebSocket-Protocol: sip", "Origin: http://localhost", "Origin: https://evil.test"]
        assert (await peer.ask(handshake(lines=lines)))[0] == 400
        await peer.leave()


async def test_another_path_than_the_configured_is_not_there() -> None:
    async with serving(WS, settings=web(path="/sip")) as (transports, _):
        for path, status in (("/sip", 101), ("/sip?token=1", 101), ("/", 404), ("/sip/", 404)):
            peer = await WebSocketPeer.connect(port_of(transports))
            assert (await peer.ask(handshake(path)))[0] == status
            await peer.leave()


async def test_a_message_is_a_message_in_both_directions_and_in_the_kind_of_the_peer() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        receiver.answer = lambda data, flow: transports.send(flow, b"answer to " + data[:7])
        for kind in (TEXT, BINARY, TEXT):
            peer.send(kind, NO_LENGTH)
            assert await peer.next() == (kind, b"answer to MESSAGE")
        data, flow = receiver.messages[0]
        assert data == NO_LENGTH
        port = port_of(transports)
        assert (flow.transport, flow.host, flow.sent_by, flow.reliable) == (
            "WS",
            "127.0.0.1",
            f"127.0.0.1:{port}",
            True,
        )
        assert flow.connection
        assert transports.flow_for("WS", "127.0.0.1", 1, flow.connection) is flow
        assert transports.flow_for("TCP", flow.host, flow.port) is None


async def test_what_is_no_text_goes_into_a_binary_frame() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        flow = await flow_of(peer, receiver)
        for data, kind in (("größe".encode(), TEXT), (b"\xff\xfe", BINARY), (b"plain", TEXT)):
            assert transports.send(flow, data)
            assert await peer.next() == (kind, data)


async def test_a_message_in_fragments_is_put_together() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        peer.writer.write(frame(TEXT, NO_LENGTH[:10], fin=False))
        peer.writer.write(frame(CONT, NO_LENGTH[10:20], fin=False))
        peer.send(PING, b"between")
        assert await peer.next() == (PONG, b"between")
        peer.writer.write(frame(CONT, NO_LENGTH[20:]))
        await receiver.until(lambda: receiver.data == [NO_LENGTH])


async def test_text_may_be_cut_within_a_character() -> None:
    whole = "MESSAGE sip:x SIP/2.0\r\n\r\nö".encode()
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        peer.writer.write(frame(TEXT, whole[:-1], fin=False) + frame(CONT, whole[-1:]))
        await receiver.until(lambda: receiver.data == [whole])


async def test_several_messages_in_one_read_are_handed_over_in_order() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        messages = [message(number, b"x" * 3_000) for number in range(20)]
        peer.writer.write(b"".join(frame(BINARY, each) for each in messages))
        await receiver.until(lambda: receiver.data == messages)


async def test_a_message_as_large_as_allowed_passes_both_ways() -> None:
    large = b"MESSAGE sip:x SIP/2.0\r\n\r\n" + b"x" * (65_535 - 25)
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        peer.send(TEXT, large)
        await receiver.until(lambda: receiver.data == [large])
        receiver.messages.clear()
        flow = await flow_of(peer, receiver)
        assert transports.send(flow, large + b"more than 65,535")
        assert await peer.next() == (TEXT, large + b"more than 65,535")


async def test_keepalives_are_answered_and_are_no_messages() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        peer.send(TEXT, b"\r\n\r\n")
        assert await peer.next() == (TEXT, b"\r\n")
        peer.send(TEXT, b"\r\n")
        peer.send(TEXT)
        peer.send(TEXT, b"\r\n" + NO_LENGTH)
        await receiver.until(lambda: receiver.data == [NO_LENGTH])


BAD_STREAMS = [
    (frame(TEXT, NO_LENGTH, masked=False), 1002, 400, "WebSocket Protocol Error"),
    (frame(3, NO_LENGTH), 1002, 400, "WebSocket Protocol Error"),
    (frame(TEXT, NO_LENGTH, reserved=0x40), 1002, 400, "WebSocket Protocol Error"),
    (frame(CONT, NO_LENGTH), 1002, 400, "WebSocket Protocol Error"),
    (frame(TEXT, b"M", fin=False) + frame(TEXT, b"E"), 1002, 400, "WebSocket Protocol Error"),
    (frame(PING, b"x" * 126), 1002, 400, "WebSocket Protocol Error"),
    (frame(PING, b"x", fin=False), 1002, 400, "WebSocket Protocol Error"),
    (frame(CLOSE, b"\x00"), 1002, 400, "WebSocket Protocol Error"),
    (frame(TEXT, b"\xff\xfe"), 1007, 400, "Text frame is not UTF-8"),
    (b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", 1009, 513, "Message Too Large"),
    (frame(BINARY, b"x" * 60_000, fin=False) + frame(CONT, b"x" * 6_000), 1009, 513, "Message Too Large"),
    (frame(TEXT, b"", fin=False) + 100 * frame(CONT, b"", fin=False), 1008, 400, "Too many WebSocket frames"),
    (101 * frame(PING), 1008, 400, "Too many WebSocket frames"),
    (101 * frame(PONG), 1008, 400, "Too many WebSocket frames"),
    (101 * frame(TEXT), 1008, 400, "Too many WebSocket frames"),
]


@pytest.mark.parametrize(("stream", "code", "status", "reason"), BAD_STREAMS)
async def test_a_stream_that_cannot_go_on_is_closed_with_a_code(
    stream: bytes, code: int, status: int, reason: str
) -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        peer.send(TEXT, NO_LENGTH)
        peer.writer.write(stream)
        assert await peer.closed_with() == code
        await peer.leave()
        await receiver.until(lambda: bool(receiver.closed))
        assert receiver.data == [NO_LENGTH]
        ((fault, flow),) = receiver.malformed
        assert (fault.status, fault.reason, fault.message) == (status, reason, None)
        assert receiver.closed == [flow]
        assert not transports.send(flow, b"too late")


async def test_a_peer_that_closes_is_answered_and_gone() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        flow = await flow_of(peer, receiver)
        peer.send(CLOSE, b"\x03\xe9bye")
        assert await peer.next() == (CLOSE, b"\x03\xe9bye")
        assert not transports.send(flow, b"too late")
        assert await peer.at_end() == b""
        await peer.leave()
        await receiver.until(lambda: receiver.closed == [flow])
        assert receiver.malformed == []


async def test_a_peer_that_does_not_end_its_side_is_dropped() -> None:
    async with (
        serving(WS, settings=Settings(sweep_interval=0.02, tcp_linger=0.05)) as (transports, receiver),
        websocket_peer(port_of(transports)) as peer,
    ):
        peer.send(CLOSE)
        await receiver.until(lambda: bool(receiver.closed))


async def test_the_server_says_when_it_goes_away() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        await flow_of(peer, receiver)
        closing = asyncio.ensure_future(transports.close())
        assert await peer.closed_with() == 1001
        await peer.leave()
        await closing


async def test_a_silent_peer_is_pinged_and_dropped_without_a_pong() -> None:
    settings = web(sweep_interval=0.02, ping=0.1, pong=0.3)
    async with (
        serving(WS, settings=settings) as (transports, receiver),
        websocket_peer(port_of(transports)) as peer,
    ):
        dropped = drops(transports)
        for _ in range(3):
            assert await peer.next() == (PING, b"")
            peer.send(PONG)
        assert await peer.next() == (PING, b"")
        assert receiver.closed == []
        await receiver.until(lambda: bool(receiver.closed))
        assert dropped == [("dead", "127.0.0.1")]
        assert transports.websockets.dead == 1


async def test_a_pong_is_a_sign_of_life_but_no_traffic() -> None:
    settings = web(sweep_interval=0.02, ping=0.05, pong=5.0)
    settings.tcp_idle = 0.4
    async with serving(WS, settings=settings) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        while not receiver.closed:
            try:
                await peer.next()
            except asyncio.IncompleteReadError:
                break
            peer.send(PONG)
        await receiver.until(lambda: bool(receiver.closed))
        assert receiver.closed[0].seen_at > 0


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_handshake_that_does_not_end_is_dropped(said: bytes) -> None:
    async with (
        serving(WS, settings=web(sweep_interval=0.02, handshake=0.1)) as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        dropped = drops(transports)
        writer.write(said)
        assert await reader.read() == b""
        assert dropped == [("timed_out", "127.0.0.1")]
        assert receiver.closed == []
        assert transports.websockets.half_open == {}


async def test_a_handshake_that_takes_too_long_is_not_one_too_many_as_well() -> None:
    async with serving(WS, settings=web(handshake=60.0)) as (transports, _):
        dropped = drops(transports)
        peer = await WebSocketPeer.connect(port_of(transports))
        async with asyncio.timeout(10):
            while not transports.websockets.half_open:  # noqa: ASYNC110 - nobody is told of a handshake that begins
                await asyncio.sleep(0.001)
        (connection,) = transports.websockets.half_open
        assert connection.overdue(asyncio.get_running_loop().time() + 61.0)
        assert transports.websockets.half_open == {}
        assert dropped == [("timed_out", "127.0.0.1")]
        connection.abort()
        assert await peer.at_end() == b""
        await peer.leave()


async def test_of_too_many_handshakes_the_oldest_is_dropped() -> None:
    async with serving(WS, settings=web(half_open=2)) as (transports, _):
        dropped = drops(transports)
        slow = [await WebSocketPeer.connect(port_of(transports)) for _ in range(3)]
        assert await slow[0].at_end() == b""
        assert dropped == [("refused", "127.0.0.1")]
        assert transports.websockets.crowded_out == 1
        # Those that are quick get in all the same.
        async with websocket_peer(port_of(transports)):
            await slow[2].open()
        for each in slow:
            await each.leave()


async def test_a_frame_that_does_not_end_is_dropped() -> None:
    settings = web(sweep_interval=0.02)
    settings.tcp_partial = 0.2
    async with serving(WS, settings=settings) as (transports, receiver):
        for stream in (frame(TEXT, NO_LENGTH)[:-1], frame(TEXT, b"MESS", fin=False) + frame(CONT, b"A", fin=False)):
            async with websocket_peer(port_of(transports)) as peer:
                dropped, before = drops(transports), len(receiver.closed)
                peer.writer.write(stream)
                await receiver.until(lambda before=before: len(receiver.closed) > before)  # type: ignore[misc]
                assert dropped == [("timed_out", "127.0.0.1")]


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    settings = web()
    settings.tcp_write_bound = 300_000
    async with serving(WS, settings=settings) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        flow, dropped = await flow_of(peer, receiver), drops(transports)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while transports.send(flow, b"x" * 50_000):
            sent += 50_000
            assert sent < 100_000_000
            await asyncio.sleep(0)
        await receiver.until(lambda: receiver.closed == [flow])
        assert dropped == [("cut_off", "127.0.0.1")]


async def test_a_killed_connection_is_told() -> None:
    async with serving(WS) as (transports, receiver), websocket_peer(port_of(transports)) as peer:
        flow = await flow_of(peer, receiver)
        sock = peer.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.writer.transport.abort()
        await receiver.until(lambda: receiver.closed == [flow])


async def test_the_server_opens_no_connection_from_a_websocket_listener() -> None:
    async with serving(WS) as (transports, _):
        answers: list[Flow | None] = []
        transports.connect("TCP", "127.0.0.1", port_of(transports), answers.append)
        assert answers == [None]


async def test_connections_leave_nothing_for_the_collector() -> None:
    async with serving(WS) as (transports, receiver):
        port = port_of(transports)

        async def every_end() -> None:
            for stream in (frame(TEXT, b"x", masked=False), frame(CLOSE), frame(TEXT, b"\xff"), 200 * frame(PING)):
                async with websocket_peer(port) as peer:
                    peer.writer.write(stream)
                    await peer.at_end()
            for request in (handshake(lines=()), handshake(without="Upgrade"), b"no HTTP\r\n\r\n", b"x" * 20_000):
                peer = await WebSocketPeer.connect(port)
                peer.writer.write(request)
                await peer.at_end()
                await peer.leave()
            async with websocket_peer(port) as peer:
                peer.send(TEXT, NO_LENGTH)
            await (await WebSocketPeer.connect(port)).leave()
            await receiver.until(lambda: len(receiver.closed) == 5)
            receiver.messages.clear()
            receiver.closed.clear()
            receiver.malformed.clear()

        gc.collect()
        gc.disable()
        try:
            await every_end()
            # The last of them may still be on their way.
            async with asyncio.timeout(PATIENCE):
                while _alive():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


def _alive() -> bool:
    return any([isinstance(each, WebSocketConnection | ServerProtocol) for each in gc.get_objects()])
