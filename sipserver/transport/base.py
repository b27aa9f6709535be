"""The transports as the rest of the server sees them: listeners, flows, and sending on a flow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from sipserver.sip.flow import SECURED, Flow
from sipserver.sip.locate import Usable
from sipserver.transport.bound import GRACE, Absences, is_watched
from sipserver.transport.connecting import Connector
from sipserver.transport.contract import (
    DEFAULT_PORTS,
    ListenAddress,
    ListenError,
    Receiver,
    Security,
    Settings,
    canonical_ip,
    is_ip,
    is_unicast,
)
from sipserver.transport.netlink import LocalAddresses
from sipserver.transport.tcp import TcpConnections, TcpListener
from sipserver.transport.udp import UdpListener
from sipserver.transport.websocket import WebSockets

__all__ = ["ListenAddress", "ListenError", "Receiver", "Security", "Settings", "Transports"]

_DEFAULT: Final = 0
"""Stands for the port that is not named."""

Listener = TypeVar("Listener", UdpListener, TcpListener)


class Transports:
    """Every socket of the server. Everything but ``start`` and ``close`` is synchronous."""

    def __init__(self) -> None:
        self.udp: list[UdpListener] = []
        """Every UDP listener, with its counts."""
        self.tcp: TcpConnections | None = None
        """Listeners and connections that are streams, with their counts; None until started."""
        self.websockets = WebSockets()
        """Counts of WebSocket, and who hears of refused handshakes."""
        self.connector: Connector | None = None
        """What opens connections, with its counts; None until started."""
        self.local = LocalAddresses(self._on_addresses_changed)
        """The machine's addresses; kept up to date where a listener is bound to another one than loopback."""
        self.bound = Absences()
        """Which addresses of listeners the machine has lost."""
        self._over = Absences()
        """The same of connections."""
        self._next_look: asyncio.TimerHandle | None = None
        self.send_errors = 0
        """Messages for a listener that does not exist."""
        self._udp_by_index: dict[int, UdpListener] = {}
        self._names: list[tuple[str, int]] = []
        self._ours: frozenset[tuple[str, int]] = frozenset()
        self._wildcards: list[tuple[str, int]] = []
        self._usable: Usable = frozenset()

    async def start(
        self,
        listeners: Sequence[ListenAddress],
        receiver: Receiver,
        settings: Settings,
        security: Security | None = None,
    ) -> None:
        """Open every listener, in this order, or none. Raises ListenError with a sentence for the operator.

        Without ``security`` there are no listeners with TLS, and nobody is connected to by it.
        """
        loop = asyncio.get_running_loop()
        self.tcp = TcpConnections(loop, receiver, settings)
        self.tcp.connecting = security.connecting if security is not None else None
        self.connector = Connector(loop, self.tcp, receiver, settings)
        try:
            for index, address in enumerate(listeners):
                host = await _numeric(loop, address)
                if address.transport == "UDP":
                    udp = UdpListener(index, receiver, settings, self.local.source_for)
                    udp.open(loop, host, address.port)
                    self.udp.append(udp)
                    self._udp_by_index[index] = udp
                    port = udp.port
                else:
                    port = await self._listen(index, replace(address, host=host), security)
                names = [address.name, *([] if is_ip(address.host) else [address.host])]
                self._names += [(name, each) for name in names if name for each in _ports(address.transport, port)]
            self._wildcards = [
                (each.host, port)
                for each in self._listeners()
                if each.wildcard
                for port in _ports(each.transport, each.port)
            ]
            if self._wildcards or any([is_watched(each.host) for each in self._listeners()]):
                await self.local.start()
            self._collect_ours()
        except BaseException:
            await self.close()
            raise

    async def _listen(self, index: int, address: ListenAddress, security: Security | None) -> int:
        """Accept connections at an IP address; the port."""
        assert self.tcp is not None, "listens while it starts"
        make = self.websockets.connection if address.transport in ("WS", "WSS") else None
        accepting = None
        if address.transport in SECURED:
            if security is None:
                raise ListenError(f"Cannot listen on {address}: there is no certificate.")
            accepting = partial(security.accepting, index)
        return (await self.tcp.listen(index, address, accepting, make)).port

    async def close(self) -> None:
        """Close every socket; what waits to be sent on a connection gets a moment, and nobody is called back."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self.connector is not None:
            await self.connector.close()
        if self.tcp is not None:
            await self.tcp.close()
        for listener in self.udp:
            listener.close()
        self.udp.clear()
        self._udp_by_index.clear()
        await self.local.close()

    def send(self, flow: Flow, data: bytes) -> bool:
        """Put the bytes on the flow; False where they are known not to arrive.

        A datagram that finds too many others waiting is dropped and counted, as the network might drop it. Of one that
        is held, as all are while datagrams that arrived are worked on, the receiver hears if it cannot be delivered.
        """
        if flow.connection:
            return self.tcp is not None and self.tcp.send(flow, data)
        listener = self._udp_by_index.get(flow.listener)
        if listener is None:
            self.send_errors += 1
            return False
        return listener.send(flow, data)

    def hold(self) -> None:
        """Datagrams that are sent from now on wait for ``release`` (``transport.udp`` says why)."""
        for listener in self.udp:
            listener.hold()

    def release(self) -> None:
        """Send what was held."""
        for listener in self.udp:
            listener.release()

    def flow_for(
        self, transport: str, host: str, port: int, connection: int = 0, *, listener: int | None = None,
        local_host: str = "",
    ) -> Flow | None:  # fmt: skip
        """A flow that exists, to an IP address: for UDP always, where a listener of that IP version exists.

        A connection is found by its number, or else by its remote address. ``listener`` and
        ``local_host`` (both as in the flow a request came on) say where a reply has to leave from.
        None where there is no such flow: then ``connect`` may make one.
        """
        host = canonical_ip(host) if ":" in host else host
        if transport == "UDP":
            udp = self._choose(self.udp, host, listener)
            return udp.flow_to(host, port, local_host) if udp is not None else None
        if self.tcp is None:
            return None
        found = (self.tcp.find(connection) if connection else None) or self.tcp.find_remote(transport, host, port)
        return found.flow if found is not None else None

    def flow_of(self, transport: str, host: str, port: int, connection: int, local: str) -> Flow | None:
        """Exactly this flow and no other, while it is there (RFC 5626 §7).

        ``local`` is its ``sent_by``: over UDP it leads on through a restart, as long as we listen where we did. A
        connection is this very one.
        """
        if transport != "UDP":
            flow = self.flow_for(transport, host, port, connection) if connection else None
            return flow if flow is not None and flow.connection == connection else None
        for udp in self.udp:
            local_host = udp.local_host_of(local)
            if local_host is not None:
                return udp.flow_to(host, port, local_host)
        return None

    def expect_pings(self, flow: Flow, seconds: float) -> None:
        """Drop the connection of this flow when it is silent for clearly longer than this (RFC 5626 §5.4)."""
        connection = self.tcp.find(flow.connection) if self.tcp is not None else None
        if self.tcp is not None and connection is not None:
            connection.patience = 1.5 * seconds + self.tcp.settings.ping_grace

    def connect(
        self, transport: str, host: str, port: int, callback: Callable[[Flow | None], None], *,
        listener: int | None = None, name: str = "",
    ) -> None:  # fmt: skip
        """Call back with a flow of this transport to an IP address, or with None where there is none to be had.

        ``name`` is the domain that was asked for, before any look-up: with TLS the peer has to prove it, by the address
        where there is none. The call comes before this returns where the answer is known: the connection exists, was
        refused a moment ago, or too many are being opened. Else it comes from the loop, followed by the receiver's
        ``on_batch_end``. Without a listener of that transport and IP version the answer is None, since nobody could
        connect to where our Via says that we are (RFC 3261 §18.1.1).
        """
        host = canonical_ip(host) if ":" in host else host
        streams = [each for each in self.tcp.listeners if each.transport == transport] if self.tcp is not None else ()
        chosen = self._choose(streams, host, listener)
        # RFC 7118 §5: a WebSocket is opened by the client, and never by us.
        possible = transport in ("TCP", "TLS") and is_unicast(host) and 0 < port < 65536
        if chosen is None or self.connector is None or not possible:
            callback(None)
        else:
            self.connector.connect(host, port, chosen, callback, name)

    def take_waited(self) -> float:
        """How long datagrams have waited to be read at most since this was last asked, in seconds."""
        waited = 0.0
        for listener in self.udp:
            waited = max(waited, listener.take_waited())
        return waited

    def reload(self, settings: Settings) -> None:
        """From now on these bounds and time-outs hold for streams; those of UDP stay."""
        if self.tcp is not None:
            self.tcp.settings = self.tcp.handshakes.settings = settings

    def is_us(self, host: str, port: int | None) -> bool:
        """Whether this host, an IP address or the name of a listener in lower case, and port are a listener's.

        No port means the one that is usual for what the listener speaks: 443 where that is WSS.
        """
        port = port or _DEFAULT
        if (host, port) in self._ours:
            return True
        if ":" in host and (canonical_ip(host), port) in self._ours:
            return True
        for wildcard, listening in self._wildcards:
            if port == listening and (":" in wildcard) == (":" in host) and is_ip(host):
                return self.local.is_local(canonical_ip(host))
        return False

    def usable(self) -> Usable:
        """What a request can be sent over: without a listener of that kind nobody could answer, or come back."""
        return self._usable

    @property
    def listening(self) -> list[str]:
        """``udp:127.0.0.1:5060`` for each listener, in order, with the ports that the system chose."""
        found = sorted(self._listeners(), key=lambda each: each.index)
        return [str(ListenAddress(each.transport, each.host, each.port)) for each in found]

    def _listeners(self) -> list[UdpListener | TcpListener]:
        return [*self.udp, *(self.tcp.listeners if self.tcp is not None else ())]

    def _choose(self, listeners: Sequence[Listener], host: str, preferred: int | None) -> Listener | None:
        """The listener to reach this address from: the preferred, the one the routes lead through, or any."""
        fitting = [each for each in listeners if (":" in each.host) == (":" in host)]
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        if preferred is not None:
            for each in fitting:
                if each.index == preferred:
                    return each
        source = self.local.source_for(host)
        for each in fitting:
            if each.wildcard or each.host == source:
                return each
        return fitting[0]

    def _on_addresses_changed(self) -> None:
        for listener in self.udp:
            if listener.wildcard:
                listener.forget_flows()
        self._collect_ours()
        self._look_for_absences()

    def _look_for_absences(self) -> None:
        """Which addresses of listeners and connections are gone; the latter are dropped when they stay away."""
        loop, has = asyncio.get_running_loop(), self.local.is_local
        self.bound.look([each.host for each in self._listeners() if not each.wildcard], has, loop.time())
        if self.tcp is None:
            return
        self._over.look(self.tcp.local_hosts(), has, loop.time())
        self.tcp.drop_over(self._over.long_gone(loop.time()))
        if self._over.since and self._next_look is None:
            self._next_look = loop.call_later(GRACE, self._look_again)

    def _look_again(self) -> None:
        self._next_look = None
        self._look_for_absences()

    def _collect_ours(self) -> None:
        """Every host and port that is ours, so that asking is one look-up."""
        ours = set(self._names)
        for each in self._listeners():
            alike = [host for host in self.local.addresses if (":" in host) == (":" in each.host)]
            hosts = alike if each.wildcard else [each.host]
            ours |= {(host, port) for host in hosts for port in _ports(each.transport, each.port)}
        self._ours = frozenset(ours)
        self._usable = frozenset((each.transport, 6 if ":" in each.host else 4) for each in self._listeners())


def _ports(transport: str, port: int) -> tuple[int, ...]:
    """The ports by which a listener is named: its own, and _DEFAULT where that goes without saying."""
    return (port, _DEFAULT) if port == DEFAULT_PORTS[transport] else (port,)


async def _numeric(loop: asyncio.AbstractEventLoop, address: ListenAddress) -> str:
    """The IP address to listen on; of a name's addresses the first IPv4 one, or else the first."""
    if is_ip(address.host):
        return canonical_ip(address.host)
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ListenError(f"Cannot listen on {address}: the name has no address.") from error
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return canonical_ip(str(found[0][4][0]))
