"""Datagrams on real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from sipserver.sip.flow import Flow
from sipserver.transport.base import ListenError, Settings, Transports
from sipserver.transport.udp import BATCH, GIVE_UP_AFTER, MOST_HELD, UdpFlow, UdpListener
from support.transport import Recorder, datagram_peer, message, need_ipv6, port_of, serving

_SO_TIMESTAMPNS = 35


def echoing(transports: Transports, receiver: Recorder) -> None:
    """Answer each message with itself."""
    receiver.answer = lambda data, flow: transports.send(flow, data)


async def test_a_datagram_is_received_and_answered() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        echoing(transports, receiver)
        port = port_of(transports)
        peer.send(message(), "127.0.0.1", port)
        assert await peer.next() == (message(), "127.0.0.1", port)
        (flow,) = [flow for _, flow in receiver.messages]
        assert (flow.transport, flow.host, flow.port, flow.reliable) == ("UDP", "127.0.0.1", peer.port, False)
        assert flow.sent_by == f"127.0.0.1:{port}"
        assert flow.label == f"UDP 127.0.0.1:{peer.port}"
        assert flow.seen_at > 0
        assert (transports.udp[0].received, transports.udp[0].sent) == (1, 1)


async def test_a_datagram_over_ipv6_is_received_and_answered() -> None:
    need_ipv6()
    async with serving("udp:[::1]:0") as (transports, receiver), datagram_peer("::1") as peer:
        echoing(transports, receiver)
        port = port_of(transports)
        peer.send(message(), "::1", port)
        assert await peer.next() == (message(), "::1", port)
        assert receiver.messages[0][1].sent_by == f"[::1]:{port}"


async def test_a_wildcard_listener_answers_from_the_address_that_was_asked() -> None:
    async with serving("udp:0.0.0.0:0") as (transports, receiver), datagram_peer() as peer:
        echoing(transports, receiver)
        port = port_of(transports)
        for host in ("127.0.0.2", "127.0.0.1"):
            peer.send(message(), host, port)
            assert await peer.next() == (message(), host, port)
            flow = receiver.messages[-1][1]
            assert (flow.local_host, flow.sent_by) == (host, f"{host}:{port}")


async def test_a_wildcard_ipv6_listener_answers_and_leaves_ipv4_alone() -> None:
    need_ipv6()
    async with serving("udp:[::]:0") as (transports, receiver), datagram_peer("::1") as peer:
        echoing(transports, receiver)
        port = port_of(transports)
        peer.send(message(), "::1", port)
        assert await peer.next() == (message(), "::1", port)
        assert receiver.messages[-1][1].sent_by == f"[::1]:{port}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))


async def test_another_port_of_the_same_peer_is_reached_from_the_same_local_address() -> None:
    async with serving("udp:0.0.0.0:0") as (transports, receiver), datagram_peer() as peer, datagram_peer() as other:
        port = port_of(transports)
        peer.send(message(), "127.0.0.2", port)
        await receiver.until(lambda: bool(receiver.messages))
        came_on = receiver.messages[0][1]
        flow = transports.flow_for(
            "UDP", came_on.host, other.port, listener=came_on.listener, local_host=came_on.local_host
        )
        assert flow is not None
        assert transports.send(flow, message(2))
        assert await other.next() == (message(2), "127.0.0.2", port)


async def test_a_wildcard_listener_sends_first_from_the_address_of_the_route() -> None:
    async with serving("udp:0.0.0.0:0") as (transports, _), datagram_peer() as peer:
        flow = transports.flow_for("UDP", "127.0.0.1", peer.port)
        assert flow is not None
        assert flow.sent_by == f"127.0.0.1:{port_of(transports)}"
        assert transports.send(flow, message())
        assert (await peer.next())[1] == "127.0.0.1"


async def test_one_flow_serves_all_datagrams_of_a_peer() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        for number in range(3):
            peer.send(message(number), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: len(receiver.messages) == 3)
        assert len({id(flow) for _, flow in receiver.messages}) == 1
        assert transports.flow_for("UDP", "127.0.0.1", peer.port) is receiver.messages[0][1]


async def test_remembered_flows_are_bounded_and_those_in_use_stay() -> None:
    async with serving("udp:127.0.0.1:0", settings=Settings(udp_flows=20)) as (transports, _):
        listener = transports.udp[0]
        kept = listener.flow_to("127.0.0.1", 1)
        for port in range(2, 1000):
            listener.flow_to("127.0.0.1", port)
            assert listener.flow_to("127.0.0.1", 1) is kept
        assert len(listener._young) + len(listener._old) <= 20


async def test_keepalives_and_scraps_are_ignored() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        stun = b"\x00\x02\x00\x00\x21\x12\xa4\x42" + b"x" * 12
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", port_of(transports)))
        for scrap in (b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b"hello", stun, b"\r\n" * 40):
            peer.send(scrap, "127.0.0.1", port_of(transports))
        peer.send(b"\r\n" + message(), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: bool(receiver.messages))
        assert receiver.data == [message()]
        assert (transports.udp[0].ignored, transports.udp[0].received) == (7, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_stun_request_is_answered_on_the_sip_port_and_nobody_else_hears_of_it(host: str) -> None:
    async with serving(f"udp:{host}:0") as (transports, receiver), datagram_peer() as peer:
        port = port_of(transports)
        peer.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"x" * 12, "127.0.0.2" if host == "0.0.0.0" else host, port)
        data, source, _ = await peer.next()
        assert (data[:2], source) == (b"\x01\x01", "127.0.0.2" if host == "0.0.0.0" else host)
        assert int.from_bytes(data[26:28], "big") ^ 0x2112 == peer.port
        assert receiver.messages == []
        assert (transports.udp[0].stun, transports.udp[0].ignored) == (1, 0)


async def test_flow_is_found_again_by_both_of_its_ends() -> None:
    async with serving("udp:127.0.0.1:0", "udp:0.0.0.0:0", "tcp:127.0.0.1:0") as (transports, _):
        bound, wild = transports.udp
        for sent_by, listener in ((f"127.0.0.1:{bound.port}", 0), (f"127.0.0.2:{wild.port}", 1)):
            flow = transports.flow_of("UDP", "127.0.0.9", 5070, 0, sent_by)
            assert flow is not None
            assert (flow.sent_by, flow.listener, flow.host, flow.port) == (sent_by, listener, "127.0.0.9", 5070)
        for sent_by in ("", "127.0.0.1:1", f"127.0.0.2:{bound.port}", f"[::1]:{wild.port}"):
            assert transports.flow_of("UDP", "127.0.0.9", 5070, 0, sent_by) is None
        assert transports.flow_of("TCP", "127.0.0.9", 5070, 0, f"127.0.0.1:{bound.port}") is None
        assert transports.flow_of("TCP", "127.0.0.9", 5070, 77, f"127.0.0.1:{bound.port}") is None


async def test_many_datagrams_are_read_in_batches() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        for number in range(200):
            peer.send(message(number), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: len(receiver.messages) == 200)
        assert receiver.data == [message(number) for number in range(200)]
        assert receiver.batches < 200


async def test_a_fault_of_the_receiver_ends_one_batch_only() -> None:
    receiver = Recorder()

    def fail(data: bytes, flow: Flow) -> None:
        raise LookupError("a fault of our own")

    async with serving("udp:127.0.0.1:0", receiver=receiver) as (transports, _), datagram_peer() as peer:
        told: list[object] = []
        transports.udp[0]._loop.set_exception_handler(lambda loop, context: told.append(context))
        receiver.answer = fail
        peer.send(message(), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: receiver.batches > 0)
        receiver.answer = lambda data, flow: None
        peer.send(message(2), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: len(receiver.messages) == 2)
        assert len(told) == 1


async def test_nothing_goes_to_names_groups_or_port_zero() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _):
        for host, port in (("example.test", 5060), ("224.0.0.1", 5060), ("0.0.0.0", 5060), ("127.0.0.1", 0)):
            assert transports.flow_for("UDP", host, port) is None
        assert transports.flow_for("UDP", "127.0.0.1", 65536) is None
        assert not transports.send(Flow("UDP", "example.test", 5060, "", False), message())
        assert transports.udp[0].send_errors == 1


async def test_a_flow_of_another_maker_is_sent_on() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _), datagram_peer() as peer:
        assert transports.send(Flow("UDP", "127.0.0.1", peer.port, "", False), message())
        assert (await peer.next())[0] == message()


async def test_what_the_kernel_refuses_to_send_is_false() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _):
        flow = transports.flow_for("UDP", "127.0.0.1", 9)
        assert flow is not None
        assert not transports.send(flow, b"x" * 70_000)
        assert transports.udp[0].send_errors == 1


class StubbornSocket:
    """A socket whose send buffer is full until told otherwise."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.outcome: OSError | None = BlockingIOError()

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        if self.outcome is not None:
            raise self.outcome
        return self.real.sendto(data, address)


def fill(listener: UdpListener) -> StubbornSocket:
    stubborn = StubbornSocket(listener._socket)
    listener._socket = stubborn  # type: ignore[assignment]
    return stubborn


async def test_datagrams_wait_for_the_kernel_in_order_and_within_a_bound() -> None:
    async with (
        serving("udp:127.0.0.1:0", settings=Settings(udp_send_queue=3)) as (transports, _),
        datagram_peer() as peer,
    ):
        listener = transports.udp[0]
        stubborn = fill(listener)
        flow = transports.flow_for("UDP", "127.0.0.1", peer.port)
        assert flow is not None
        for number in range(5):
            assert transports.send(flow, message(number))
        assert (listener.sent, listener.dropped) == (0, 2)
        stubborn.outcome = None
        assert [(await peer.next())[0] for _ in range(3)] == [message(number) for number in range(3)]
        assert listener.sent == 3
        assert transports.send(flow, message(9))
        assert (await peer.next())[0] == message(9)


async def test_a_queued_datagram_that_cannot_be_sent_is_counted() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        listener = transports.udp[0]
        stubborn = fill(listener)
        flow = transports.flow_for("UDP", "127.0.0.1", peer.port)
        assert flow is not None
        transports.send(flow, message())
        stubborn.outcome = OSError(errno.ENETUNREACH, "unreachable")
        # The loop serves the writer before, or in the same turn as, what arrives after it.
        peer.send(message(), "127.0.0.1", port_of(transports))
        peer.send(message(), "127.0.0.1", port_of(transports))
        await receiver.until(lambda: len(receiver.messages) == 2 and listener.send_errors == 1)
        assert not listener._queue


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_what_is_sent_while_messages_are_worked_on_leaves_together_at_the_end(host: str) -> None:
    async with serving(f"udp:{host}:0") as (transports, receiver), datagram_peer() as peer:
        listener = transports.udp[0]
        answers = [message(number) for number in range(3)]
        receiver.answer = lambda data, flow: [transports.send(flow, answer) for answer in answers]
        sent: list[int] = []
        receiver.at_batch_end = lambda: sent.append(listener.sent)
        peer.send(message(9), "127.0.0.1", port_of(transports))
        assert [(await peer.next())[0] for _ in answers] == answers
        assert sent == [0]
        # What is sent otherwise goes at once.
        transports.send(receiver.messages[0][1], message(4))
        assert listener.sent == 4


async def test_what_is_held_is_bounded_and_keeps_its_order() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _), datagram_peer() as peer:
        listener = transports.udp[0]
        flow = transports.flow_for("UDP", "127.0.0.1", peer.port)
        assert flow is not None
        transports.hold()
        for number in range(MOST_HELD + 1):
            assert listener.sent == (0 if number < MOST_HELD else MOST_HELD)
            assert transports.send(flow, message(number))
        transports.release()
        assert listener.sent == MOST_HELD + 1
        assert [(await peer.next())[0] for _ in range(MOST_HELD + 1)] == list(map(message, range(MOST_HELD + 1)))


async def test_the_receiver_hears_of_what_was_held_and_cannot_be_delivered() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        listener = transports.udp[0]
        stubborn = fill(listener)
        flow = transports.flow_for("UDP", "127.0.0.1", peer.port)
        assert flow is not None
        stubborn.outcome = OSError(errno.ENETUNREACH, "unreachable")
        assert not transports.send(flow, message(0))
        transports.hold()
        assert transports.send(flow, message(1))
        assert transports.send(flow, message(2))
        transports.release()
        assert receiver.unsent == [(message(1), flow), (message(2), flow)]
        assert (listener.sent, listener.send_errors) == (0, 3)


async def test_what_waits_is_forgotten_at_close() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _):
        listener = transports.udp[0]
        fill(listener)
        flow = transports.flow_for("UDP", "127.0.0.1", 9)
        assert isinstance(flow, UdpFlow)
        assert transports.send(flow, message())
    assert not listener._queue


async def test_the_receive_buffer_is_enlarged() -> None:
    async with serving("udp:127.0.0.1:0", settings=Settings(udp_receive_buffer=300_000)) as (transports, _):
        assert transports.udp[0]._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 212_992


async def test_a_port_in_use_is_a_sentence() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, _):
        port = port_of(transports)
        with pytest.raises(ListenError, match=rf"Cannot listen on udp:127\.0\.0\.1:{port}: Address already in use\."):
            async with serving(f"udp:127.0.0.1:{port}"):
                raise AssertionError("it listens twice")


class ReadsByTheClock:
    """Whether a listener is read by the clock."""

    def __init__(self, listener: UdpListener) -> None:
        self._listener = listener

    def now(self) -> bool:
        return self._listener.by_the_clock

    async def end(self) -> None:
        while self.now():  # noqa: ASYNC110 - nobody is told when the last read found nothing
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_under_load_a_socket_is_read_by_the_clock_and_nothing_is_missed(host: str) -> None:
    async with serving(f"udp:{host}:0") as (transports, receiver), datagram_peer() as peer:
        echoing(transports, receiver)
        port, reads = port_of(transports), ReadsByTheClock(transports.udp[0])
        sent = 0
        async with asyncio.timeout(10):
            # Whether wake-ups come close together is up to the machine, so there is no fixed number of them.
            last = 0
            while not last or sent < last:
                sent += 1
                peer.send(message(sent), "127.0.0.1", port)
                assert (await peer.next())[0] == message(sent)
                if not last and reads.now():
                    last = sent + 200
            await reads.end()
            # The loop watches it again.
            peer.send(message(0), "127.0.0.1", port)
            assert (await peer.next())[0] == message(0)
        assert receiver.data == [message(each) for each in (*range(1, sent + 1), 0)]


async def test_somebody_who_waits_for_each_answer_does_not_wait_for_the_clock_for_long() -> None:
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        echoing(transports, receiver)
        port, reads = port_of(transports), ReadsByTheClock(transports.udp[0])
        by_the_clock = 0
        async with asyncio.timeout(10):
            while not by_the_clock or reads.now():
                peer.send(message(), "127.0.0.1", port)
                await peer.next()
                by_the_clock += reads.now()
        assert by_the_clock <= GIVE_UP_AFTER


async def test_a_receiver_that_fails_does_not_stop_the_reading_by_the_clock() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
    async with serving("udp:127.0.0.1:0") as (transports, receiver), datagram_peer() as peer:
        echoing(transports, receiver)
        port, reads = port_of(transports), ReadsByTheClock(transports.udp[0])
        async with asyncio.timeout(10):
            while not reads.now():
                peer.send(message(), "127.0.0.1", port)
                await peer.next()

            def fail(data: bytes, flow: Flow) -> None:
                if data == message(13):
                    raise ValueError(data)
                transports.send(flow, data)

            receiver.answer = fail
            peer.send(message(13), "127.0.0.1", port)
            peer.send(message(14), "127.0.0.1", port)
            assert (await peer.next())[0] == message(14)
    assert [type(each) for each in faults] == [ValueError]


async def test_datagrams_that_found_no_room_in_the_kernel_are_counted() -> None:
    async with serving("udp:127.0.0.1:0", settings=Settings(udp_receive_buffer=4096)) as (transports, _):
        (listener,) = transports.udp
        assert listener.receive_drops == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(200):
                sock.sendto(message(number), ("127.0.0.1", listener.port))
        if not listener.receive_drops:
            pytest.skip("this kernel does not tell")
    assert listener.receive_drops == 0


@pytest.fixture
def arrivals_noted() -> Iterator[None]:
    """The kernel notes when datagrams arrive from the beginning to the end of this.

    Where it did not yet it begins in its own time after it was asked, which a test of these times must not depend on.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        give_up_at = time.monotonic() + 10
        while True:
            sock.sendto(b"", sock.getsockname())
            time.sleep(0.01)
            ((_, _, noted),) = sock.recvmsg(16, 64)[1]
            seconds, nanoseconds = struct.unpack("@ll", noted)
            if time.time() - seconds - nanoseconds * 1e-9 >= 0.01:
                break
            assert time.monotonic() < give_up_at, "this kernel does not note when datagrams arrive"
        yield


@pytest.mark.usefixtures("arrivals_noted")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_it_is_known_how_long_datagrams_have_waited_where_one_read_does_not_take_all(host: str) -> None:
    async with serving(f"udp:{host}:0") as (transports, receiver):
        (listener,) = transports.udp
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(message(0), ("127.0.0.1", listener.port))
            await receiver.until(lambda: len(receiver.messages) == 1)
            assert transports.take_waited() == 0
            for number in range(3 * BATCH):
                sock.sendto(message(number), ("127.0.0.1", listener.port))
        # Nobody reads meanwhile.
        time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up
        await receiver.until(lambda: len(receiver.messages) == 1 + 3 * BATCH)
        assert 0.05 <= transports.take_waited() < 5
        assert transports.take_waited() == 0
