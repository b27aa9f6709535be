"""Connections on real sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sipserver.sip.flow import Flow
from sipserver.sip.message import Limits
from sipserver.transport.base import ListenError, Settings, Transports
from support.transport import PATIENCE, message, need_ipv6, port_of, serving, stream_peer


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), PATIENCE)


async def at_end(reader: asyncio.StreamReader) -> bytes:
    """What still arrives until the connection is closed, in whatever way."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionResetError:
        return b""


def hasty(**changes: float) -> Settings:
    """Settings whose time-outs are looked at often."""
    settings = Settings(sweep_interval=0.01)
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


async def test_a_message_is_received_and_answered_on_its_connection() -> None:
    async with serving("tcp:127.0.0.1:0") as (transports, receiver):
        receiver.answer = lambda data, flow: transports.send(flow, data)
        async with stream_peer(port_of(transports)) as (reader, writer):
            writer.write(message())
            assert await read(reader, len(message())) == message()
            flow = receiver.messages[0][1]
            host, port = writer.get_extra_info("sockname")
            assert (flow.transport, flow.host, flow.port, flow.reliable) == ("TCP", host, port, True)
            assert flow.sent_by == f"127.0.0.1:{port_of(transports)}"
            assert transports.flow_for("TCP", "192.0.2.1", 5060, flow.connection) is flow
            assert transports.flow_for("TCP", host, port) is flow
            assert transports.flow_for("TCP", host, port, 99) is flow
        await receiver.until(lambda: receiver.closed == [flow])
        assert transports.flow_for("TCP", host, port, flow.connection) is None
        assert not transports.send(flow, message())
        assert transports.tcp is not None
        assert (transports.tcp.received, transports.tcp.sent, transports.tcp.send_errors) == (1, 1, 1)
        assert (transports.tcp.accepted, transports.tcp.connections) == (1, 0)


async def test_connections_over_ipv6_and_wildcard_addresses() -> None:
    need_ipv6()
    async with serving("tcp:[::]:0", "tcp:0.0.0.0:0") as (transports, receiver):
        async with stream_peer(port_of(transports), "::1") as (_, writer):
            writer.write(message())
            await receiver.until(lambda: len(receiver.messages) == 1)
        async with stream_peer(port_of(transports, 1), "127.0.0.2") as (_, writer):
            writer.write(message())
            await receiver.until(lambda: len(receiver.messages) == 2)
        flows = [flow for _, flow in receiver.messages]
        assert [flow.sent_by for flow in flows] == [
            f"[::1]:{port_of(transports)}",
            f"127.0.0.2:{port_of(transports, 1)}",
        ]
        assert [flow.listener for flow in flows] == [0, 1]


async def test_many_messages_in_one_read_and_one_in_many() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (transports, receiver),
        stream_peer(port_of(transports)) as (_, writer),
    ):
        messages = [message(number, b"x" * number) for number in range(100)]
        writer.write(b"".join(messages))
        await receiver.until(lambda: len(receiver.messages) == 100)
        assert receiver.data == messages
        assert receiver.batches < 100
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message(7, b"body"):
            writer.write(bytes([byte]))
            await writer.drain()
        await receiver.until(lambda: len(receiver.messages) == 101)
        assert receiver.data[-1] == message(7, b"body")


async def test_a_ping_is_answered_with_a_pong() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.write(b"\r\n\r\n")
        assert await read(reader, 2) == b"\r\n"
        writer.write(message() + b"\r\n\r\n")
        assert await read(reader, 2) == b"\r\n"
        assert receiver.data == [message()]


async def test_a_stream_that_cannot_go_on_is_answered_then_closed() -> None:
    async with serving("tcp:127.0.0.1:0") as (transports, receiver):

        def refuse(flow: Flow) -> None:
            assert transports.send(flow, b"refused")

        receiver.answer_malformed = refuse
        async with stream_peer(port_of(transports)) as (reader, writer):
            writer.write(message() + b"MESSAGE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n" + b"more" * 10_000)
            assert await at_end(reader) == b"refused"
            (error, flow) = receiver.malformed[0]
            assert (error.status, error.reason) == (400, "Bad Content-Length")
            assert not transports.send(flow, b"too late")
        await receiver.until(lambda: receiver.closed == [flow])
        assert receiver.data == [message()]
        assert transports.tcp is not None
        assert transports.tcp.malformed == 1


async def test_a_peer_that_stays_after_its_fault_is_dropped() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=hasty(tcp_linger=0.05)) as (transports, receiver),
        stream_peer(port_of(transports)) as (_, writer),
    ):
        writer.write(b"\0")
        await receiver.until(lambda: bool(receiver.closed))
        assert len(receiver.malformed) == 1


async def test_a_body_beyond_the_bound_ends_the_stream() -> None:
    settings = Settings(limits=Limits(body=10))
    async with (
        serving("tcp:127.0.0.1:0", settings=settings) as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.write(message(1, b"x" * 11))
        await at_end(reader)
        assert receiver.malformed[0][0].status == 413


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"MESSAGE sip:a"])
async def test_a_silent_connection_is_closed(sent: bytes) -> None:
    async with serving("tcp:127.0.0.1:0", settings=hasty(tcp_silent=0.05)) as (transports, receiver):
        dropped = told(transports)
        async with stream_peer(port_of(transports)) as (reader, writer):
            writer.write(sent)
            await at_end(reader)
        await receiver.until(lambda: bool(receiver.closed))
        assert transports.tcp is not None
        assert transports.tcp.timed_out == 1
        assert dropped == [("timed_out", "127.0.0.1")]


def told(transports: Transports) -> list[tuple[str, str]]:
    """Why connections were dropped, from now on."""
    dropped: list[tuple[str, str]] = []
    assert transports.tcp is not None
    transports.tcp.on_dropped = lambda why, host, _detail: dropped.append((why, host))
    return dropped


async def test_a_message_that_does_not_become_whole_closes_its_connection() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=hasty(tcp_partial=0.05)) as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.write(message() + message()[:20])
        await at_end(reader)
        assert receiver.data == [message()]
        assert transports.tcp is not None
        assert transports.tcp.timed_out == 1


async def test_dripping_bytes_do_not_stretch_the_time_of_a_message() -> None:
    async with serving("tcp:127.0.0.1:0", settings=hasty(tcp_partial=0.1)) as (transports, receiver):
        async with stream_peer(port_of(transports)) as (_, writer):
            writer.write(message() + b"MESSAGE sip:a SIP/2.0\r\nSubject: ")
            async with asyncio.timeout(PATIENCE):
                while not receiver.closed:
                    writer.write(b"a")
                    await asyncio.sleep(0.005)
        assert transports.tcp is not None
        assert transports.tcp.timed_out == 1


async def test_an_idle_connection_is_closed_and_a_keepalive_keeps_it() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=hasty(tcp_idle=0.4)) as (transports, receiver),
        stream_peer(port_of(transports)) as (idle, one),
        stream_peer(port_of(transports)) as (alive, other),
    ):
        one.write(message(1))
        other.write(message(2))
        ended = asyncio.ensure_future(at_end(idle))
        while not ended.done():
            other.write(b"\r\n\r\n")
            assert await read(alive, 2) == b"\r\n"
            await asyncio.wait([ended], timeout=0.02)
        assert len(receiver.closed) == 1
        other.write(message(3))
        await receiver.until(lambda: message(3) in receiver.data)


async def test_connection_that_is_to_be_pinged_is_dropped_when_it_is_not() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=hasty(ping_grace=0.2)) as (transports, receiver),
        stream_peer(port_of(transports)) as (idle, one),
        stream_peer(port_of(transports)) as (alive, other),
    ):
        one.write(message(1))
        other.write(message(2))
        await receiver.until(lambda: len(receiver.messages) == 2)
        for _, flow in receiver.messages:
            transports.expect_pings(flow, 0.1)
        ended = asyncio.ensure_future(at_end(idle))
        while not ended.done():
            other.write(b"\r\n\r\n")
            assert await read(alive, 2) == b"\r\n"
            await asyncio.wait([ended], timeout=0.02)
        assert len(receiver.closed) == 1


async def test_a_peer_that_does_not_read_is_cut_off_at_the_bound() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=Settings(tcp_write_bound=300_000)) as (transports, receiver),
        stream_peer(port_of(transports)) as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        flow, dropped = receiver.messages[0][1], told(transports)
        sent = 0
        while transports.send(flow, b"x" * 50_000):
            sent += 50_000
            assert sent < 100_000_000
            await asyncio.sleep(0)
        await receiver.until(lambda: receiver.closed == [flow])
        assert transports.tcp is not None
        assert transports.tcp.cut_off == 1
        assert dropped == [("cut_off", "127.0.0.1")]


async def fill_up(transports: Transports, flow: Flow) -> None:
    """Send until the kernel takes no more."""
    assert transports.tcp is not None
    connection = transports.tcp.find(flow.connection)
    assert connection is not None
    while not connection.blocked_since:
        assert transports.send(flow, b"x" * 50_000)
        await asyncio.sleep(0)


async def test_a_peer_that_does_not_read_for_too_long_is_cut_off() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=hasty(tcp_blocked=0.05)) as (transports, receiver),
        stream_peer(port_of(transports)) as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        dropped = told(transports)
        await fill_up(transports, receiver.messages[0][1])
        await receiver.until(lambda: bool(receiver.closed))
        assert transports.tcp is not None
        assert transports.tcp.cut_off == 1
        assert dropped == [("cut_off", "127.0.0.1")]


async def test_a_peer_that_reads_again_is_no_longer_watched() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        flow = receiver.messages[0][1]
        await fill_up(transports, flow)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert transports.tcp is not None
        connection = transports.tcp.find(flow.connection)
        assert connection is not None
        async with asyncio.timeout(PATIENCE):
            while connection.blocked_since:
                await reader.read(1_000_000)


async def test_connections_of_one_source_are_capped() -> None:
    async with serving("tcp:127.0.0.1:0", settings=Settings(tcp_connections_per_source=2)) as (transports, receiver):
        port = port_of(transports)
        async with stream_peer(port) as (_, one), stream_peer(port) as (_, two):
            one.write(message(1))
            two.write(message(2))
            await receiver.until(lambda: len(receiver.messages) == 2)
            dropped = told(transports)
            async with stream_peer(port) as (reader, writer):
                writer.write(message(3))
                assert await at_end(reader) == b""
            assert transports.tcp is not None
            assert transports.tcp.refused_connections == 1
            assert dropped == [("refused", "127.0.0.1")]
            assert (len(receiver.messages), receiver.closed) == (2, [])
        await receiver.until(lambda: len(receiver.closed) == 2)
        async with stream_peer(port) as (_, writer):
            writer.write(message(4))
            await receiver.until(lambda: message(4) in receiver.data)


async def test_all_connections_together_are_capped() -> None:
    async with serving("tcp:127.0.0.1:0", settings=Settings(tcp_connections=1)) as (transports, receiver):
        port = port_of(transports)
        async with stream_peer(port) as (_, writer):
            writer.write(message())
            await receiver.until(lambda: bool(receiver.messages))
            async with stream_peer(port) as (reader, _):
                assert await at_end(reader) == b""
            assert transports.tcp is not None
            assert transports.tcp.refused_connections == 1


async def test_hosts_of_one_ipv6_network_share_a_cap() -> None:
    need_ipv6()
    async with (
        serving("tcp:[::1]:0", settings=Settings(tcp_connections_per_source=1)) as (transports, receiver),
        stream_peer(port_of(transports), "::1") as (_, writer),
    ):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        async with stream_peer(port_of(transports), "::1") as (reader, _):
            assert await at_end(reader) == b""


async def test_what_waits_to_be_sent_still_arrives_at_close() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        assert transports.send(receiver.messages[0][1], b"last words")
        await transports.close()
        assert await at_end(reader) == b"last words"
        assert receiver.closed == []


async def test_close_does_not_wait_for_a_peer_that_does_not_read() -> None:
    async with (
        serving("tcp:127.0.0.1:0", settings=Settings(tcp_linger=0.05)) as (transports, receiver),
        stream_peer(port_of(transports)) as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        await fill_up(transports, receiver.messages[0][1])
        async with asyncio.timeout(PATIENCE):
            await transports.close()
        assert transports.tcp is not None
        assert transports.tcp.connections == 0


async def test_a_port_in_use_is_a_sentence() -> None:
    async with serving("tcp:127.0.0.1:0") as (transports, _):
        port = port_of(transports)
        with pytest.raises(ListenError, match=rf"Cannot listen on tcp:127\.0\.0\.1:{port}: Address already in use\."):
            async with serving(f"udp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"):
                raise AssertionError("it listens twice")
        # Nothing is left of the half that could be opened.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", port))


async def test_a_peer_that_has_finished_ends_its_connection() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (transports, receiver),
        stream_peer(port_of(transports)) as (reader, writer),
    ):
        writer.write(message())
        writer.write_eof()
        await receiver.until(lambda: bool(receiver.closed))
        assert receiver.data == [message()]
        assert await at_end(reader) == b""


async def test_connections_over_an_address_that_the_machine_lost_are_dropped() -> None:
    async with serving("tcp:127.0.0.1:0") as (transports, receiver), stream_peer(port_of(transports)) as (_, writer):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.messages))
        flow = receiver.messages[0][1]
        assert transports.tcp is not None
        assert transports.tcp.local_hosts() == {"127.0.0.1"}
        transports.tcp.drop_over({"192.0.2.1"})
        assert transports.send(flow, b"still there")
        transports.tcp.drop_over({"127.0.0.1"})
        await receiver.until(lambda: receiver.closed == [flow])
