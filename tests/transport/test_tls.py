"""TLS on real sockets: what passes, what is refused, and that nobody pays for those who only begin."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sipserver.sip.flow import Flow
from sipserver.transport import tls
from sipserver.transport.base import ListenAddress, ListenError, Settings, Transports
from sipserver.transport.tcp import Connection
from sipserver.transport.tls import TlsSession
from support.certificates import Authority, Files
from support.transport import PATIENCE, Recorder, message, port_of, serving, stream_peer

DOMAIN = "example.test"
LISTENER = "tls:127.0.0.1:0"


class Shown:
    """A ``Security`` with one certificate."""

    def __init__(self, authority: Authority, files: Files, demand: ssl.VerifyMode = ssl.CERT_NONE) -> None:
        self.server = authority.server(files, demand)
        self.server.minimum_version = ssl.TLSVersion.TLSv1_2
        self.client = authority.client(files)
        self.client.check_hostname = False

    def accepting(self, listener: int) -> ssl.SSLContext:
        return self.server

    def connecting(self) -> ssl.SSLContext:
        return self.client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def security(authority: Authority) -> Shown:
    return Shown(authority, authority.issue(DOMAIN))


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def peer(
    port: int, context: ssl.SSLContext, name: str = DOMAIN, host: str = "127.0.0.1"
) -> AsyncIterator[Streams]:
    """A TLS connection to a listener, from this address."""
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name, local_addr=(host, 0)), PATIENCE
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), PATIENCE)


async def at_end(reader: asyncio.StreamReader) -> bytes:
    """What still arrives until the connection is closed, in whatever way."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except OSError:
        return b""


def told(transports: Transports) -> list[tuple[str, str]]:
    """Why connections are dropped from now on, in words."""
    found: list[tuple[str, str]] = []
    assert transports.tcp is not None
    transports.tcp.on_dropped = lambda why, _host, detail: found.append((why, detail))
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until this is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what is looked at tells nobody
            await asyncio.sleep(0.005)


def handshakes(transports: Transports) -> tls.Handshakes:
    assert transports.tcp is not None
    return transports.tcp.handshakes


# ---- what passes


async def test_a_message_is_received_and_answered(authority: Authority, security: Shown) -> None:
    async with serving(LISTENER, security=security) as (transports, receiver):
        receiver.answer = lambda data, flow: transports.send(flow, data)
        async with peer(port_of(transports), authority.client()) as (reader, writer):
            sent = message(1, b"x" * 40_000) + message(2)
            writer.write(sent)
            assert await read(reader, len(sent)) == sent
            flow = receiver.messages[0][1]
            assert (flow.transport, flow.sent_by, flow.peer_names) == ("TLS", f"127.0.0.1:{port_of(transports)}", ())
            found = transports.flow_for("TLS", flow.host, flow.port, flow.connection)
            assert found is flow
            assert transports.flow_for("TCP", flow.host, flow.port) is None
        await receiver.until(lambda: receiver.closed == [flow])
        assert (handshakes(transports).done, handshakes(transports).open) == (1, 0)


async def test_a_listener_may_be_known_by_a_name(authority: Authority, security: Shown) -> None:
    transports, receiver = Transports(), Recorder()
    address = replace(ListenAddress.parse(LISTENER), name="sip.example.test")
    await transports.start([address], receiver, Settings(), security)
    port = port_of(transports)
    async with peer(port, authority.client()) as (_, writer):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.data))
    assert receiver.messages[0][1].sent_by == f"sip.example.test:{port}"
    assert transports.is_us("sip.example.test", port)
    assert transports.is_us("127.0.0.1", port)
    assert transports.listening == [f"tls:127.0.0.1:{port}"]
    await transports.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_are_spoken(authority: Authority, security: Shown, version: ssl.TLSVersion) -> None:
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    async with (
        serving(LISTENER, security=security) as (transports, receiver),
        peer(port_of(transports), context) as (_, writer),
    ):
        writer.write(message())
        await receiver.until(lambda: receiver.data == [message()])


async def test_keepalives_pass_and_the_end_is_told(authority: Authority, security: Shown) -> None:
    async with (
        serving(LISTENER, security=security) as (transports, _),
        peer(port_of(transports), authority.client()) as (reader, writer),
    ):
        writer.write(b"\r\n\r\n")
        assert await read(reader, 2) == b"\r\n"
        closing = asyncio.ensure_future(transports.close())
        assert await at_end(reader) == b""
        await closing


async def test_a_fault_in_the_stream_is_answered_before_the_end(authority: Authority, security: Shown) -> None:
    async with serving(LISTENER, security=security) as (transports, receiver):
        receiver.answer_malformed = lambda flow: transports.send(flow, b"SIP/2.0 400 No\r\n\r\n")
        async with peer(port_of(transports), authority.client()) as (reader, writer):
            writer.write(b"MESSAGE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n")
            assert await at_end(reader) == b"SIP/2.0 400 No\r\n\r\n"


async def test_a_handshake_that_drips_in_byte_by_byte_is_one(authority: Authority, security: Shown) -> None:
    session, incoming, outgoing = client_session(authority.client())
    async with serving(LISTENER, security=security) as (transports, receiver):
        async with stream_peer(port_of(transports)) as (reader, writer):
            await shake_hands(session, incoming, outgoing, reader, writer)
            session.write(message())
            await drip(writer, outgoing.read())
            await receiver.until(lambda: receiver.data == [message()])
        assert handshakes(transports).failed == 0


@pytest.mark.parametrize(
    "said", [b"\x17\x03\x03\x00\x05hello", b"MESSAGE sip:a SIP/2.0\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_what_is_not_of_the_session_ends_it(authority: Authority, security: Shown, said: bytes) -> None:
    session, incoming, outgoing = client_session(authority.client())
    async with serving(LISTENER, security=security) as (transports, receiver):
        async with stream_peer(port_of(transports)) as (reader, writer):
            await shake_hands(session, incoming, outgoing, reader, writer)
            session.write(message())
            writer.write(outgoing.read() + said)
            await at_end(reader)
        assert receiver.data == [message()]
        await receiver.until(lambda: len(receiver.closed) == 1)


async def shake_hands(
    session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:  # fmt: skip
    """The client's side of a handshake, a byte at a time."""
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            await drip(writer, outgoing.read())
            incoming.write(await asyncio.wait_for(reader.read(65_536), PATIENCE))
        else:
            return


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0)


def client_session(context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client without a socket."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing, server_hostname=DOMAIN), incoming, outgoing


# ---- client certificates


@pytest.mark.parametrize("demand", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_names_of_a_client_are_known(authority: Authority, demand: ssl.VerifyMode) -> None:
    security = Shown(authority, authority.issue(DOMAIN), demand)
    client = authority.client(authority.issue("ignored.test", uris=("sip:peer.test", "sip:gw.peer.test")))
    async with serving(LISTENER, security=security) as (transports, receiver):
        async with peer(port_of(transports), client) as (_, writer):
            writer.write(message())
            await receiver.until(lambda: bool(receiver.data))
        assert receiver.messages[0][1].peer_names == ("peer.test", "gw.peer.test")


async def test_who_shows_no_certificate_has_no_names(authority: Authority) -> None:
    security = Shown(authority, authority.issue(DOMAIN), ssl.CERT_OPTIONAL)
    async with serving(LISTENER, security=security) as (transports, receiver):
        async with peer(port_of(transports), authority.client()) as (_, writer):
            writer.write(message())
            await receiver.until(lambda: bool(receiver.data))
        assert receiver.messages[0][1].peer_names == ()


async def refused_detail(security: Shown, client: ssl.SSLContext) -> str:
    """Why this client is refused."""
    async with serving(LISTENER, security=security) as (transports, receiver):
        dropped = told(transports)
        with suppress(OSError):
            async with peer(port_of(transports), client) as (reader, writer):
                writer.write(message())
                await at_end(reader)
        await until(lambda: dropped)
        assert receiver.data == []
        assert receiver.closed == []
        assert handshakes(transports).failed == 1
        ((why, detail),) = dropped
        assert why == "insecure"
        return detail


async def test_a_client_without_a_certificate_is_refused_where_one_is_required(authority: Authority) -> None:
    security = Shown(authority, authority.issue(DOMAIN), ssl.CERT_REQUIRED)
    assert await refused_detail(security, authority.client()) == "peer did not return a certificate"


async def test_a_certificate_of_somebody_else_is_refused_even_where_none_is_needed(
    authority: Authority, tmp_path: Path
) -> None:
    security = Shown(authority, authority.issue(DOMAIN), ssl.CERT_OPTIONAL)
    client = authority.client(Authority(tmp_path, "stranger").issue("peer.test"))
    assert "certificate not verified: " in await refused_detail(security, client)


async def test_an_old_certificate_is_refused(authority: Authority) -> None:
    security = Shown(authority, authority.issue(DOMAIN), ssl.CERT_OPTIONAL)
    client = authority.client(authority.issue("peer.test", days=-1))
    assert await refused_detail(security, client) == "certificate not verified: certificate has expired"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_tls_1_1_is_refused(authority: Authority, security: Shown) -> None:
    client = authority.client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    assert await refused_detail(security, client) == "unsupported protocol"


@pytest.mark.parametrize(
    "said",
    [b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b"\x17" * 9000],
)
async def test_what_is_no_tls_is_refused_at_once(security: Shown, said: bytes) -> None:
    async with serving(LISTENER, security=security) as (transports, _):
        dropped = told(transports)
        async with stream_peer(port_of(transports)) as (reader, writer):
            writer.write(said)
            writer.write_eof()
            await at_end(reader)
        await until(lambda: dropped)
        assert dropped[0][0] == "insecure"


async def test_a_handshake_without_end_is_refused(security: Shown) -> None:
    async with serving(LISTENER, security=security) as (transports, _):
        dropped = told(transports)
        async with stream_peer(port_of(transports)) as (reader, writer):
            with suppress(OSError):
                # The header of a record that never comes to its end, over and over.
                writer.write(b"\x16\x03\x01\xff\xff" + bytes(tls.MAX_HANDSHAKE))
                await writer.drain()
            await at_end(reader)
        await until(lambda: dropped)
        assert dropped[0][0] == "insecure"
        assert len(dropped) == 1


# ---- many who begin


async def test_a_handshake_that_takes_too_long_ends(security: Shown) -> None:
    settings = Settings(sweep_interval=0.01, handshake_timeout=0.05)
    async with serving(LISTENER, security=security, settings=settings) as (transports, receiver):
        dropped = told(transports)
        async with stream_peer(port_of(transports)) as (reader, _):
            await at_end(reader)
        assert dropped == [("insecure", tls.TOO_SLOW)]
        assert receiver.closed == []
        assert handshakes(transports).open == 0


async def test_one_source_may_not_have_too_many(authority: Authority, security: Shown) -> None:
    settings = Settings(handshakes_per_source=2)
    async with serving(LISTENER, security=security, settings=settings) as (transports, _):
        dropped = told(transports)
        silent = [socket.create_connection(("127.0.0.1", port_of(transports))) for _ in range(4)]
        try:
            await until(lambda: len(dropped) == 2)
            assert dropped == [("insecure", tls.TOO_MANY)] * 2
            assert handshakes(transports).refused == 2
            async with peer(port_of(transports), authority.client(), host="127.0.0.2") as (_, writer):
                assert not writer.is_closing()
        finally:
            for each in silent:
                each.close()


async def test_of_too_many_the_oldest_gives_way(authority: Authority, security: Shown) -> None:
    settings = Settings(handshakes=3)
    async with serving(LISTENER, security=security, settings=settings) as (transports, _):
        dropped = told(transports)
        silent = [socket.create_connection(("127.0.0.1", port_of(transports))) for _ in range(3)]
        try:
            await until(lambda: handshakes(transports).open == 3)
            async with peer(port_of(transports), authority.client()):
                assert dropped == [("insecure", tls.TOO_MANY)]
                assert silent[0].recv(1) == b""
                await until(lambda: handshakes(transports).open == 2)
        finally:
            for each in silent:
                each.close()


async def test_handshakes_are_computed_beside_the_loop(authority: Authority, security: Shown) -> None:
    threads = set()

    def note(_object: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        threads.add(threading.current_thread().name.partition("_")[0])

    security.server.sni_callback = note
    async with (
        serving(LISTENER, security=security) as (transports, receiver),
        peer(port_of(transports), authority.client()) as (_, writer),
    ):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.data))
        assert threads == {"tls"}


# ---- connections that the server opens


class Answers:
    """Collects what ``connect`` calls back with."""

    def __init__(self) -> None:
        self.flows: list[Flow | None] = []

    def __call__(self, flow: Flow | None) -> None:
        self.flows.append(flow)


async def connected(
    here: Transports, port: int, name: str = DOMAIN, transport: str = "TLS", host: str = "127.0.0.1"
) -> Flow | None:
    answers = Answers()
    here.connect(transport, host, port, answers, name=name)
    await until(lambda: answers.flows)
    return answers.flows[0]


async def test_a_connection_is_opened_verified_and_used_both_ways(authority: Authority, security: Shown) -> None:
    there_security = Shown(authority, authority.issue("far.test", into="far"), ssl.CERT_REQUIRED)
    async with (
        serving(LISTENER, security=there_security) as (there, remote),
        serving(LISTENER, security=security) as (here, receiver),
    ):
        remote.answer = lambda data, flow: there.send(flow, data)
        flow = await connected(here, port_of(there), "FAR.test.")
        assert flow is not None
        assert (flow.transport, flow.peer_names) == ("TLS", ("far.test",))
        assert here.send(flow, message())
        await receiver.until(lambda: receiver.data == [message()])
        # Who is asked shows its own certificate.
        assert remote.messages[0][1].peer_names == (DOMAIN,)
        assert await connected(here, port_of(there), "FAR.test.") is flow


async def test_a_peer_that_cannot_prove_its_name_is_not_connected_to(authority: Authority, security: Shown) -> None:
    wild = Shown(authority, authority.issue("*.far.test"))
    async with serving(LISTENER, security=wild) as (there, _), serving(LISTENER, security=security) as (here, receiver):
        dropped = told(here)
        for name in ("sip.far.test", "127.0.0.1", ""):
            assert await connected(here, port_of(there), name) is None
        assert dropped == [("insecure", tls.OTHER_NAME)] * 3
        assert receiver.closed == []
        assert here.connector is not None
        assert here.connector.failed == 3


async def test_a_peer_of_another_authority_is_not_connected_to(
    authority: Authority, security: Shown, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with (
        serving(LISTENER, security=Shown(stranger, stranger.issue("far.test"))) as (there, _),
        serving(LISTENER, security=security) as (here, _),
    ):
        dropped = told(here)
        assert await connected(here, port_of(there), "far.test") is None
        assert dropped[0][1].startswith("certificate not verified: ")
        assert "far.test" not in dropped[0][1]


async def test_a_connection_proves_one_name_and_serves_no_other(authority: Authority, security: Shown) -> None:
    both = Shown(authority, authority.issue("one.test", "two.test"))
    async with (
        serving(LISTENER, "tcp:127.0.0.1:0", security=both) as (there, _),
        serving(LISTENER, "tcp:127.0.0.1:0", security=security) as (here, _),
    ):
        one = await connected(here, port_of(there), "one.test")
        two = await connected(here, port_of(there), "two.test")
        assert one is not None
        assert two is not None
        assert one is not two
        assert here.flow_for("TCP", "127.0.0.1", port_of(there)) is None
        # A TCP connection to a TLS port is no TLS connection.
        plain = await connected(here, port_of(there), "one.test", "TCP")
        assert plain is not None
        assert plain.transport == "TCP"
        assert await connected(here, port_of(there), "one.test") is one


async def test_an_address_is_proved_by_its_own_certificate(authority: Authority, security: Shown) -> None:
    there_security = Shown(authority, authority.issue("127.0.0.1"))
    async with (
        serving(LISTENER, security=there_security) as (there, _),
        serving(LISTENER, security=security) as (here, _),
    ):
        flow = await connected(here, port_of(there), "")
        assert flow is not None
        assert flow.peer_names == ("127.0.0.1",)


async def test_a_peer_that_does_not_shake_hands_is_given_up(security: Shown) -> None:
    settings = Settings(connect_timeout=0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        async with serving(LISTENER, security=security, settings=settings) as (here, receiver):
            assert await connected(here, silent.getsockname()[1]) is None
            await until(lambda: here.tcp is not None and here.tcp.connections == 0)
            assert receiver.closed == []


async def test_without_certificates_there_is_no_tls() -> None:
    with pytest.raises(ListenError, match="there is no certificate"):
        async with serving(LISTENER):
            raise AssertionError("it listens without a certificate")
    async with serving("tcp:127.0.0.1:0") as (here, _):
        assert await connected(here, 5061) is None


# ---- a peer that does not read


async def test_a_peer_that_does_not_read_is_cut_off(authority: Authority, security: Shown) -> None:
    settings = Settings(tcp_write_bound=200_000)
    async with (
        serving(LISTENER, security=security, settings=settings) as (transports, receiver),
        peer(port_of(transports), authority.client()) as (_, writer),
    ):
        writer.write(message())
        await receiver.until(lambda: bool(receiver.data))
        flow = receiver.messages[0][1]
        # Nobody reads, and its own buffer of 64 KiB is soon full.
        await until(lambda: not transports.send(flow, message(1, b"x" * 50_000)))
        assert transports.tcp is not None
        assert transports.tcp.cut_off == 1
        await receiver.until(lambda: receiver.closed == [flow])


# ---- nothing is left over


def alive() -> int:
    """Connections and sessions that are still there."""
    return sum(isinstance(each, (Connection, TlsSession)) for each in gc.get_objects())


async def test_connections_leave_nothing_for_the_collector(authority: Authority, security: Shown) -> None:
    async with serving(LISTENER, security=security) as (transports, receiver):
        port = port_of(transports)
        gc.collect()
        gc.disable()
        try:
            assert alive() == 0
            async with peer(port, authority.client()) as (_, writer):
                writer.write(message())
                await receiver.until(lambda: bool(receiver.data))
                assert alive() == 2
            with suppress(OSError):
                async with stream_peer(port) as (reader, writer):
                    writer.write(b"no TLS")
                    await at_end(reader)
            assert await connected(transports, port, "far.test") is None
            await until(lambda: alive() == 0)
        finally:
            gc.enable()


async def test_wss_is_websocket_over_tls(authority: Authority, security: Shown) -> None:
    async with (
        serving("wss:127.0.0.1:0", security=security) as (transports, receiver),
        peer(port_of(transports), authority.client()) as (reader, writer),
    ):
        writer.write(
            b"GET / HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: sip\r\n\r\n"
        )
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).startswith(b"HTTP/1.1 101 ")
        data = message()
        writer.write(bytes((0x82, 0x80 | len(data), 0, 0, 0, 0)) + data)
        await receiver.until(lambda: receiver.data == [data])
        assert receiver.messages[0][1].transport == "WSS"
