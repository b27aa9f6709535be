"""UDP: one socket for each listener, drained at each wake-up, written to directly.

A reply leaves from the address and port its request came to (RFC 3581 §4). A socket that is bound
to one address does so by itself; on a wildcard address the kernel tells with each datagram which
local address it was for (IP_PKTINFO), and is told the same when the reply is sent.

What is sent while arrived messages are worked on is held and leaves at the end of the batch, one datagram right after
the other: whoever receives them is woken once, and waking is the dearest part of sending. A call costs 4 % less like
this, and where the server shares two processors with those who call it serves half as many again under overload.

One Flow serves all datagrams of a remote address, so an arriving datagram costs a dictionary
look-up and no object. Flows are kept in two generations: when the young one is full it becomes the
old one, and what is still in use moves back as it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
from collections import deque
from collections.abc import Callable
from time import time
from typing import Final

from sipserver.sip.flow import Flow
from sipserver.transport import stun
from sipserver.transport.contract import ListenError, Receiver, Settings, hostport, is_unicast, is_wildcard

BATCH: Final = 64
"""Datagrams read at one wake-up at most, so that timers and connections get their turn."""
CLOSE_TOGETHER: Final = 0.002
"""Seconds between two wake-ups that count as close together."""
MANY_IN_A_ROW: Final = 16
"""Wake-ups close together after which the socket is read by the clock."""
READ_EVERY: Final = 0.004
"""Seconds between two reads by the clock: what a datagram may wait for under load. Measured at 500 and at 1,000 calls a
second: reading every 1 ms costs 543 and 416 us a call, 2 ms 508 and 396, 3 ms 490 and 379, 4 ms 482 and 370, 8 ms 365
at 1,000."""
MOST_HELD: Final = 64
"""Datagrams that are held at most until they are sent."""
WORTH_WAITING: Final = 2
"""Datagrams for which the loop would have been woken more often than the clock has it."""
GIVE_UP_AFTER: Final = 4
"""Reads by the clock in a row that find less, after which the loop watches the socket again."""
LARGEST: Final = 65_535
"""RFC 3261 §18.1.1: datagrams up to the largest there are."""
SHORTEST: Final = 16
"""No SIP message is shorter; keep-alives are."""

_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
"""Nine counts of linux/sock_diag.h, the last of which are drops."""
_SIOCGSTAMPNS: Final = 0x8907
_TIMESPEC: Final = struct.Struct("@ll")
_NO_TIME: Final = bytes(_TIMESPEC.size)
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_IN_PKTINFO: Final = struct.Struct("=I4s4s")
_IN6_PKTINFO: Final = struct.Struct("=16sI")
_ANCILLARY_SPACE: Final = socket.CMSG_SPACE(_IN6_PKTINFO.size)

Address = tuple[str, int] | tuple[str, int, int, int]
Ancillary = list[tuple[int, int, bytes]]


class UdpFlow(Flow):
    """A flow with what the socket needs to send on it."""

    __slots__ = ("address", "ancillary")

    def __init__(
        self, address: Address, sent_by: str, listener: int, local_host: str, ancillary: Ancillary | None
    ) -> None:
        super().__init__(
            "UDP", address[0].partition("%")[0], address[1], sent_by, False, listener=listener, local_host=local_host
        )
        self.address = address
        """The remote address as the socket takes it."""
        self.ancillary = ancillary
        """Which local address to send from; None where the socket is bound to one."""


class UdpListener:
    """One UDP socket and the flows through it."""

    transport = "UDP"

    def __init__(self, index: int, receiver: Receiver, settings: Settings, source_for: Callable[[str], str]) -> None:
        self.index = index
        """Position of the listener in the configuration."""
        self.host = ""
        self.port = 0
        self.family = socket.AF_INET
        self.wildcard = False
        """Bound to every address of the machine."""
        self.received = 0
        """Messages read."""
        self.sent = 0
        """Datagrams given to the kernel."""
        self.ignored = 0
        """Keep-alives and datagrams too short to be a message."""
        self.stun = 0
        """STUN requests answered."""
        self.dropped = 0
        """Datagrams not sent because too many were waiting for the kernel."""
        self.send_errors = 0
        """Datagrams that the kernel refused to send."""
        self._waited = 0.0
        self._emptied_at = 0.0
        """When nothing was left to be read, the last time."""
        self._receiver = receiver
        self._settings = settings
        self._source_for = source_for
        self._young: dict[object, UdpFlow] = {}
        self._old: dict[object, UdpFlow] = {}
        self._held = False
        self._outbox: list[tuple[UdpFlow, bytes]] = []
        """What is sent by ``release``."""
        self._queue: deque[tuple[UdpFlow, bytes]] = deque()
        self._read: Callable[[float], int]
        self._woken_at = 0.0
        self._in_a_row = 0
        self._found_little = 0
        self._clock: asyncio.TimerHandle | None = None
        """When the socket is read next, where it is read by the clock."""

    def open(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        """Bind to an IP address and start reading. Raises ListenError."""
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.wildcard = is_wildcard(host)
        self._loop = loop
        try:
            self._socket = self._bound_socket(host, port)
        except OSError as error:
            raise ListenError(f"Cannot listen on udp:{hostport(host, port)}: {error.strerror}.") from error
        self.host, self.port = host, self._socket.getsockname()[1]
        self._read = self._drain_wildcard if self.wildcard else self._drain
        # From now on the kernel notes when datagrams arrive.
        self._arrived_at()
        loop.add_reader(self._socket, self._on_readable)

    def _bound_socket(self, host: str, port: int) -> socket.socket:
        sock = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if self.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                # Beyond net.core.rmem_max where we may; within it where not.
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._settings.udp_receive_buffer)
            except OSError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.udp_receive_buffer)
            if self.wildcard and self.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            elif self.wildcard:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def receive_drops(self) -> int:
        """Datagrams that the kernel dropped since there was no room for them here (``SO_MEMINFO``)."""
        try:
            return int(_MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1])
        except (OSError, struct.error):
            # Closed, or another system than Linux.
            return 0

    def take_waited(self) -> float:
        """How long datagrams have waited to be read at most since this was last asked, in seconds; 0 where one read
        took all that had arrived."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _note_waiting(self) -> None:
        """A read took as much as it may and more is there: how old what was read last is by now."""
        age = time() - self._arrived_at()
        # The clock may have been set since: nothing is older than the time when nothing was there.
        self._waited = max(self._waited, min(age, self._loop.time() - self._emptied_at))

    def _arrived_at(self) -> float:
        """When the datagram that was read last arrived, as the kernel noted it (UNIX time)."""
        try:
            seconds, nanoseconds = _TIMESPEC.unpack(fcntl.ioctl(self._socket, _SIOCGSTAMPNS, _NO_TIME))
        except OSError:
            # None was read yet, or another system than Linux.
            return time()
        return float(seconds) + float(nanoseconds) * 1e-9

    def close(self) -> None:
        """Stop reading, forget what waits, and close the socket."""
        if self._clock is not None:
            self._clock.cancel()
        self._loop.remove_reader(self._socket)
        self._outbox.clear()
        if self._queue:
            self._queue.clear()
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self.forget_flows()

    def local_host_of(self, sent_by: str) -> str | None:
        """The local address of flows with this ``sent_by``, empty where the socket is bound to one; None where they
        are another listener's."""
        if not self.wildcard:
            return "" if sent_by == hostport(self.host, self.port) else None
        host, _, port = sent_by.rpartition(":")
        bare = host.strip("[]")
        return bare if port == str(self.port) and (":" in bare) == (self.family == socket.AF_INET6) else None

    def flow_to(self, host: str, port: int, local_host: str = "") -> UdpFlow | None:
        """The flow to a remote IP address, from the given local address where the listener has several.

        None where it is no address of a single machine, or no route leads there.
        """
        if self.wildcard:
            local_host = local_host or self._source_for(host)
            key: object = (host, port, local_host)
        else:
            local_host, key = "", (host, port) if self.family == socket.AF_INET else (host, port, 0, 0)
        flow = self._young.get(key) or self._find(key)
        if flow is None:
            # A name must not get through: the socket would look it up, and everything would wait.
            if not is_unicast(host) or not 0 < port < 65536 or (self.wildcard and not local_host):
                return None
            address: Address = (host, port) if self.family == socket.AF_INET else (host, port, 0, 0)
            flow = self._new_flow(key, address, local_host, 0)
        return flow

    def send(self, flow: Flow, data: bytes) -> bool:
        """Send a datagram; False where the kernel says that it cannot be delivered.

        What is held is taken in any case, and the receiver hears of it (``on_unsent``) if it cannot be delivered.
        """
        if not isinstance(flow, UdpFlow):
            known = self.flow_to(flow.host, flow.port, flow.local_host)
            if known is None:
                self.send_errors += 1
                return False
            flow = known
        if self._held:
            self._outbox.append((flow, data))
            if len(self._outbox) >= MOST_HELD:
                self._send_held()
            return True
        return self._send(flow, data)

    def hold(self) -> None:
        """What is sent from now on waits for ``release``."""
        self._held = True

    def release(self) -> None:
        """Send what was held, in its order."""
        self._held = False
        if self._outbox:
            self._send_held()

    def _send_held(self) -> None:
        outbox, self._outbox = self._outbox, []
        for flow, data in outbox:
            if not self._send(flow, data):
                self._receiver.on_unsent(data, flow)

    def _send(self, flow: UdpFlow, data: bytes) -> bool:
        if self._queue:
            self._enqueue(flow, data)
            return True
        try:
            self._put(flow, data)
        except BlockingIOError:
            self._enqueue(flow, data)
            return True
        except OSError:
            self.send_errors += 1
            return False
        self.sent += 1
        return True

    def forget_flows(self) -> None:
        """The addresses of this machine, or its routes, have changed."""
        self._young, self._old = {}, {}

    def _put(self, flow: UdpFlow, data: bytes) -> None:
        if flow.ancillary is None:
            self._socket.sendto(data, flow.address)
        else:
            self._socket.sendmsg((data,), flow.ancillary, 0, flow.address)

    def _enqueue(self, flow: UdpFlow, data: bytes) -> None:
        # What is dropped here is lost as any datagram may be: its sender repeats it.
        if len(self._queue) >= self._settings.udp_send_queue:
            self.dropped += 1
            return
        if not self._queue:
            self._loop.add_writer(self._socket, self._send_queued)
        self._queue.append((flow, data))

    def _send_queued(self) -> None:
        queue = self._queue
        while queue:
            flow, data = queue[0]
            try:
                self._put(flow, data)
            except BlockingIOError:
                return
            except OSError:
                self.send_errors += 1
            else:
                self.sent += 1
            queue.popleft()
        self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        """The loop says that there is something to read.

        Each wake-up has its price, whatever it finds. So where they come thick and fast the socket is read by the
        clock instead, and by the loop again once that saves nothing: little comes, or from somebody who waits for each
        answer before he asks again.
        """
        now = self._loop.time()
        self._in_a_row = self._in_a_row + 1 if now - self._woken_at < CLOSE_TOGETHER else 0
        self._woken_at = now
        if self._read(now) < BATCH:
            self._emptied_at = now
        if self._in_a_row >= MANY_IN_A_ROW:
            self._in_a_row = self._found_little = 0
            self._loop.remove_reader(self._socket)
            self._clock = self._loop.call_later(READ_EVERY, self._read_by_the_clock)

    @property
    def by_the_clock(self) -> bool:
        """Whether the socket is read by the clock for now, since much arrives."""
        return self._clock is not None

    def _read_by_the_clock(self) -> None:
        found = 0
        try:
            now = self._loop.time()
            found = self._read(now)
            if found < BATCH:
                self._emptied_at = now
        finally:
            # Whatever happened, somebody reads on.
            self._found_little = 0 if found >= WORTH_WAITING else self._found_little + 1
            if self._found_little < GIVE_UP_AFTER:
                self._clock = self._loop.call_later(0 if found >= BATCH else READ_EVERY, self._read_by_the_clock)
            else:
                self._clock = None
                self._loop.add_reader(self._socket, self._on_readable)

    def _drain(self, now: float) -> int:
        """Hand over what arrived on a socket that is bound to one address; how many datagrams there were."""
        receive, on_message = self._socket.recvfrom, self._receiver.on_message
        found = 0
        self.hold()
        try:
            for found in range(BATCH + 1):
                if found == BATCH:
                    self._note_waiting()
                    break
                try:
                    data, address = receive(LARGEST)
                except BlockingIOError:
                    break
                except OSError:
                    # An ICMP error about something sent earlier; the transaction's timer finds out by itself.
                    continue
                if len(data) < SHORTEST or data[0] <= 32:
                    data = self._without_keepalive(data)
                    if not data:
                        continue
                    if data[0] == 0:
                        self._answer_stun(data, address, None)
                        continue
                flow = self._young.get(address) or self._find(address) or self._new_flow(address, address, "", 0)
                flow.seen_at = now
                self.received += 1
                on_message(data, flow)
        finally:
            self._end_batch()
        return found

    def _drain_wildcard(self, now: float) -> int:
        """The same for a socket that is bound to every address, which learns with each datagram where it was sent."""
        receive, on_message = self._socket.recvmsg, self._receiver.on_message
        found = 0
        self.hold()
        try:
            for found in range(BATCH + 1):
                if found == BATCH:
                    self._note_waiting()
                    break
                try:
                    data, ancillary, _flags, address = receive(LARGEST, _ANCILLARY_SPACE)
                except BlockingIOError:
                    break
                except OSError:
                    continue
                if len(data) < SHORTEST or data[0] <= 32:
                    data = self._without_keepalive(data)
                    if not data:
                        continue
                    if data[0] == 0:
                        self._answer_stun(data, address, self._ancillary_for(address, *self._local_address(ancillary)))
                        continue
                key = (address, ancillary[0][2]) if ancillary else address
                flow = self._young.get(key) or self._find(key)
                if flow is None:
                    local_host, interface = self._local_address(ancillary)
                    flow = self._new_flow(key, address, local_host or self._source_for(address[0]), interface)
                flow.seen_at = now
                self.received += 1
                on_message(data, flow)
        finally:
            self._end_batch()
        return found

    def _end_batch(self) -> None:
        try:
            self._receiver.on_batch_end()
        finally:
            self.release()

    def _without_keepalive(self, data: bytes) -> bytes:
        """The message after leading CRLFs, or one of STUN, which begins with a zero; nothing where the datagram only
        keeps a NAT's mapping alive: RFC 5626 defines no answer to CRLFs over UDP."""
        if data and data[0] == 0 and len(data) >= stun.SHORTEST:
            return data
        data = data.lstrip(b"\r\n")
        if len(data) < SHORTEST or data[0] < 32:
            self.ignored += 1
            return b""
        return data

    def _answer_stun(self, data: bytes, address: Address, ancillary: Ancillary | None) -> None:
        """RFC 5626 §8. An answer that the kernel has no room for is lost, as any datagram may be."""
        reply = stun.answer(data, address[0].partition("%")[0], address[1])
        if reply is None:
            self.ignored += 1
            return
        self.stun += 1
        with contextlib.suppress(OSError):
            if ancillary is None:
                self._socket.sendto(reply, address)
            else:
                self._socket.sendmsg((reply,), ancillary, 0, address)

    def _local_address(self, ancillary: Ancillary) -> tuple[str, int]:
        """The local address, and for IPv6 the interface, that the kernel reported with a datagram."""
        for _level, _kind, value in ancillary:
            if self.family == socket.AF_INET and len(value) >= _IN_PKTINFO.size:
                return socket.inet_ntop(socket.AF_INET, _IN_PKTINFO.unpack_from(value)[1]), 0
            if self.family == socket.AF_INET6 and len(value) >= _IN6_PKTINFO.size:
                packed, interface = _IN6_PKTINFO.unpack_from(value)
                if packed[0] == 0xFF:
                    break  # sent to a multicast group, from which nothing can be sent
                return socket.inet_ntop(socket.AF_INET6, packed), interface
        return "", 0

    def _find(self, key: object) -> UdpFlow | None:
        """A flow of the old generation, which becomes young again."""
        flow = self._old.pop(key, None)
        if flow is not None:
            self._remember(key, flow)
        return flow

    def _remember(self, key: object, flow: UdpFlow) -> None:
        if len(self._young) >= self._settings.udp_flows // 2:
            self._old, self._young = self._young, {}
        self._young[key] = flow

    def _new_flow(self, key: object, address: Address, local_host: str, interface: int) -> UdpFlow:
        sent_by = hostport(local_host or self.host, self.port)
        ancillary = self._ancillary_for(address, local_host, interface)
        flow = UdpFlow(address, sent_by, self.index, local_host, ancillary)
        self._remember(key, flow)
        return flow

    def _ancillary_for(self, address: Address, local_host: str, interface: int) -> Ancillary | None:
        """What tells the kernel which local address to send from."""
        if not local_host:
            return None
        with contextlib.suppress(OSError):
            packed = socket.inet_pton(self.family, local_host)
            if self.family == socket.AF_INET:
                return [(socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, packed, b""))]
            # Only a link-local address means nothing without its interface; all others go where the routes say.
            scope = interface if len(address) == 4 and address[3] else 0
            return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, scope))]
        return None
