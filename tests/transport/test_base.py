"""Listeners together: which is chosen, what is ours, and connections that the server opens."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from sipserver.sip.flow import Flow
from sipserver.transport.base import ListenAddress, ListenError, Settings, Transports
from support.transport import PATIENCE, Recorder, datagram_peer, message, need_ipv6, port_of, serving


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Answers:
    """Collects what ``connect`` calls back with."""

    def __init__(self) -> None:
        self.flows: list[Flow | None] = []
        self._called = asyncio.Event()

    def __call__(self, flow: Flow | None) -> None:
        self.flows.append(flow)
        self._called.set()

    async def until(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.flows) < count:
                self._called.clear()
                await self._called.wait()


async def test_listening_shows_the_ports_that_were_chosen() -> None:
    need_ipv6()
    async with serving("tcp:127.0.0.1:0", "udp:[::1]:0", "udp:127.0.0.1:0") as (transports, _):
        shown = transports.listening
        assert [each.rpartition(":")[0] for each in shown] == ["tcp:127.0.0.1", "udp:[::1]", "udp:127.0.0.1"]
        assert "0" not in [each.rpartition(":")[2] for each in shown]


async def test_a_listener_may_be_named() -> None:
    async with serving("udp:localhost:0") as (transports, _):
        port = port_of(transports)
        assert transports.listening == [f"udp:127.0.0.1:{port}"]
        assert transports.is_us("localhost", port)
        assert transports.is_us("127.0.0.1", port)


async def test_a_name_without_address_is_a_sentence() -> None:
    with pytest.raises(
        ListenError, match=r"Cannot listen on udp:no-such-host\.invalid:5060: the name has no address\."
    ):
        async with serving("udp:no-such-host.invalid:5060"):
            raise AssertionError("it listens on nothing")


async def test_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(ListenError, match=r"Cannot listen on tcp:198\.51\.100\.1:0: "):
        async with serving("tcp:198.51.100.1:0"):
            raise AssertionError("it listens elsewhere")


async def test_the_listener_of_the_same_ip_version_is_chosen() -> None:
    need_ipv6()
    async with serving("udp:127.0.0.1:0", "udp:[::1]:0") as (transports, _):
        four, six = transports.flow_for("UDP", "127.0.0.1", 5060), transports.flow_for("UDP", "0:0::1", 5060)
        assert four is not None
        assert six is not None
        assert (four.listener, six.listener) == (0, 1)
        assert six.host == "::1"


async def test_without_a_listener_of_that_ip_version_there_is_no_flow() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _):
        assert transports.flow_for("UDP", "::1", 5060) is None
        assert transports.flow_for("TCP", "127.0.0.1", 5060) is None
        assert transports.flow_for("TLS", "127.0.0.1", 5061) is None


async def test_of_several_listeners_the_preferred_one_is_chosen_then_the_one_of_the_route() -> None:
    async with serving("udp:127.0.0.2:0", "udp:127.0.0.1:0", "udp:127.0.0.3:0") as (transports, _):

        def chosen(listener: int | None) -> int:
            flow = transports.flow_for("UDP", "127.0.0.1", 5060, listener=listener)
            assert flow is not None
            return flow.listener

        assert chosen(None) == 1
        assert chosen(2) == 2
        assert chosen(7) == 1


async def test_where_no_route_leads_through_a_listener_the_first_is_chosen() -> None:
    async with serving("udp:127.0.0.2:0", "udp:127.0.0.3:0") as (transports, _):
        flow = transports.flow_for("UDP", "127.0.0.1", 5060)
        assert flow is not None
        assert flow.listener == 0


async def test_only_the_addresses_of_listeners_are_ours() -> None:
    need_ipv6()
    async with serving("udp:127.0.0.1:0", "tcp:[::1]:0") as (transports, _):
        four, six = port_of(transports), port_of(transports, 1)
        assert transports.is_us("127.0.0.1", four)
        assert transports.is_us("::1", six)
        assert transports.is_us("0:0:0:0:0:0:0:1", six)
        assert not transports.is_us("127.0.0.2", four)
        assert not transports.is_us("127.0.0.1", None)
        assert not transports.is_us("127.0.0.1", six)
        assert not transports.is_us("example.test", four)


async def test_a_wildcard_listener_makes_every_address_of_the_machine_ours() -> None:
    async with serving("udp:0.0.0.0:0") as (transports, _):
        port = port_of(transports)
        assert transports.is_us("127.0.0.1", port)
        assert transports.is_us("127.1.2.3", port)
        assert not transports.is_us("127.evil.test", port)
        assert not transports.is_us("198.51.100.1", port)
        assert not transports.is_us("::1", port)
        assert not transports.is_us("127.0.0.1", port + 1)


async def test_flows_of_a_wildcard_listener_are_made_anew_when_addresses_change() -> None:
    async with serving("udp:0.0.0.0:0", "udp:127.0.0.1:0") as (transports, _):
        before = [transports.flow_for("UDP", "127.0.0.1", 5060, listener=each) for each in (0, 1)]
        transports._on_addresses_changed()
        after = [transports.flow_for("UDP", "127.0.0.1", 5060, listener=each) for each in (0, 1)]
        assert after[0] is not before[0]
        assert after[1] is before[1]


async def test_nothing_is_sent_before_the_start_or_after_the_end() -> None:
    transports = Transports()
    flow = Flow("UDP", "127.0.0.1", 5060, "", False)
    answers = Answers()
    assert not transports.send(flow, message())
    assert not transports.send(Flow("TCP", "127.0.0.1", 5060, "", True, connection=1), message())
    transports.connect("TCP", "127.0.0.1", 5060, answers)
    assert answers.flows == [None]
    assert transports.listening == []
    await transports.close()
    assert transports.send_errors == 1


async def test_a_connection_is_opened_used_both_ways_and_used_again() -> None:
    async with (
        serving("tcp:127.0.0.1:0") as (there, remote),
        serving("tcp:127.0.0.1:0") as (here, receiver),
    ):
        remote.answer = lambda data, flow: there.send(flow, data)
        answers = Answers()
        for _ in range(3):
            here.connect("TCP", "127.0.0.1", port_of(there), answers)
        await answers.until(3)
        flow = answers.flows[0]
        assert flow is not None
        assert answers.flows == [flow] * 3
        assert (flow.host, flow.port, flow.reliable) == ("127.0.0.1", port_of(there), True)
        assert flow.sent_by == f"127.0.0.1:{port_of(here)}"
        assert here.send(flow, message())
        await receiver.until(lambda: receiver.data == [message()])
        assert receiver.messages[0][1] is flow
        assert here.flow_for("TCP", "127.0.0.1", port_of(there)) is flow
        here.connect("TCP", "127.0.0.1", port_of(there), answers)
        assert answers.flows == [flow] * 4
        assert there.tcp is not None
        assert there.tcp.accepted == 1


async def test_a_connection_over_ipv6_leaves_from_a_wildcard_listener() -> None:
    need_ipv6()
    async with serving("tcp:[::1]:0") as (there, _), serving("tcp:[::]:0") as (here, _):
        answers = Answers()
        here.connect("TCP", "0::1", port_of(there), answers)
        await answers.until(1)
        flow = answers.flows[0]
        assert flow is not None
        assert flow.sent_by == f"[::1]:{port_of(here)}"


async def test_a_connection_that_the_server_opened_need_not_speak_first() -> None:
    settings = Settings(sweep_interval=0.01, tcp_silent=0.02)
    async with (
        serving("tcp:127.0.0.1:0") as (there, _),
        serving("tcp:127.0.0.1:0", settings=settings) as (here, receiver),
    ):
        answers = Answers()
        here.connect("TCP", "127.0.0.1", port_of(there), answers)
        await answers.until(1)
        flow = answers.flows[0]
        assert flow is not None
        assert here.tcp is not None
        connection = here.tcp.find(flow.connection)
        assert connection is not None
        assert not connection.overdue(connection.made_at + 1.0)
        connection.accepted = True
        await receiver.until(lambda: receiver.closed == [flow])


async def test_a_refused_connection_is_none_at_once_for_a_while() -> None:
    async with serving("tcp:127.0.0.1:0") as (transports, receiver):
        answers, port = Answers(), free_port()
        transports.connect("TCP", "127.0.0.1", port, answers)
        assert answers.flows == []
        await answers.until(1)
        await receiver.until(lambda: receiver.batches == 1)
        transports.connect("TCP", "127.0.0.1", port, answers)
        assert answers.flows == [None, None]
        assert transports.connector is not None
        assert transports.connector.failed == 1


async def test_a_failure_is_forgotten_after_its_time() -> None:
    async with serving("tcp:127.0.0.1:0", settings=Settings(connect_retry_after=0.0)) as (transports, _):
        answers, port = Answers(), free_port()
        for count in (1, 2):
            transports.connect("TCP", "127.0.0.1", port, answers)
            await answers.until(count)
        assert transports.connector is not None
        assert transports.connector.failed == 2


async def test_nobody_is_connected_to_without_a_tcp_listener_or_at_no_address() -> None:
    async with serving("udp:127.0.0.1:0") as (only_udp, _), serving("tcp:127.0.0.1:0") as (transports, _):
        answers = Answers()
        only_udp.connect("TCP", "127.0.0.1", 5060, answers)
        transports.connect("TCP", "example.test", 5060, answers)
        transports.connect("TCP", "224.0.0.1", 5060, answers)
        transports.connect("TCP", "127.0.0.1", 0, answers)
        transports.connect("TCP", "::1", 5060, answers)
        assert answers.flows == [None] * 5


async def test_connections_being_opened_are_bounded() -> None:
    async with serving("tcp:127.0.0.1:0", settings=Settings(connects=1, connect_waiters=2)) as (transports, _):
        answers, more = Answers(), Answers()
        one, two = free_port(), free_port()
        transports.connect("TCP", "127.0.0.1", one, answers)
        transports.connect("TCP", "127.0.0.1", two, more)
        assert more.flows == [None]
        transports.connect("TCP", "127.0.0.1", one, answers)
        transports.connect("TCP", "127.0.0.1", one, more)
        assert more.flows == [None, None]
        await answers.until(2)
        assert transports.connector is not None
        assert transports.connector.refused == 2


async def test_a_server_with_too_many_connections_opens_no_more() -> None:
    settings = Settings(tcp_connections=1)
    async with serving("tcp:127.0.0.1:0") as (there, _), serving("tcp:127.0.0.1:0", settings=settings) as (here, _):
        answers = Answers()
        here.connect("TCP", "127.0.0.1", port_of(there), answers)
        await answers.until(1)
        here.connect("TCP", "127.0.0.2", port_of(there), answers)
        await answers.until(2)
        assert [flow is None for flow in answers.flows] == [False, True]


async def test_a_connection_that_takes_too_long_is_given_up() -> None:
    # A listener with a full backlog leaves those who connect without an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        try:
            for _ in range(3):
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
                waiting.append(sock)
            async with serving("tcp:127.0.0.1:0", settings=Settings(connect_timeout=0.05)) as (transports, _):
                answers = Answers()
                transports.connect("TCP", "127.0.0.1", port, answers)
                await answers.until(1)
                assert answers.flows == [None]
        finally:
            for sock in waiting:
                sock.close()


async def test_close_gives_up_what_is_being_opened() -> None:
    answers = Answers()
    async with serving("tcp:127.0.0.1:0") as (transports, _):
        transports.connect("TCP", "127.0.0.1", free_port(), answers)
    assert answers.flows == []


async def test_one_server_listens_on_udp_and_tcp() -> None:
    receiver = Recorder()
    transports = Transports()
    addresses = [ListenAddress.parse(f"{scheme}:127.0.0.1:0") for scheme in ("udp", "tcp")]
    await transports.start(addresses, receiver, Settings())
    async with datagram_peer() as peer:
        peer.send(message(), "127.0.0.1", port_of(transports))
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(transports, 1))
        writer.write(message(2))
        await receiver.until(lambda: len(receiver.messages) == 2)
        writer.close()
    await transports.close()
    assert {flow.transport for _, flow in receiver.messages} == {"UDP", "TCP"}


@pytest.mark.parametrize(("transport", "port"), [("udp", 5060), ("tcp", 5060), ("ws", 80)])
async def test_a_port_that_goes_without_saying_is_that_of_the_transport(transport: str, port: int) -> None:
    # An address for each process that runs tests.
    host = f"127.5.{os.getpid() % 250}.7"
    try:
        async with serving(f"{transport}:{host}:{port}") as (transports, _):
            assert transports.is_us(host, None)
            assert not transports.is_us("127.5.6.255", None)
            assert transports.is_us(host, 5060) == (port == 5060)
    except ListenError as error:
        pytest.skip(f"this port is for others here: {error}")
