"""Opening connections: a bounded number at a time, one for all who ask for the same destination.

A destination that refused is remembered for a while, so that a request that prefers TCP for its
size alone (RFC 3261 §18.1.1) falls back to UDP at once instead of waiting each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sipserver.sip.flow import Flow
from sipserver.transport.contract import Receiver, Settings
from sipserver.transport.tcp import TcpConnections, TcpListener

FAILURES = 10_000
"""Destinations remembered at most."""

Callback = Callable[[Flow | None], None]
Destination = tuple[str, str, int, str]
"""Transport, IP address, port, and the name to be proved, where TLS proves one."""


class Connector:
    """Opens connections for those who call."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connections: TcpConnections, receiver: Receiver, settings: Settings
    ) -> None:
        self.failed = 0
        """Attempts that came to nothing."""
        self.refused = 0
        """Requests turned away: too many connections being opened, too many waiting."""
        self._loop = loop
        self._connections = connections
        self._receiver = receiver
        self._settings = settings
        self._waiting: dict[Destination, list[Callback]] = {}
        self._waiters = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed_until: dict[Destination, float] = {}

    def connect(self, host: str, port: int, listener: TcpListener, callback: Callback, name: str = "") -> None:
        """Call back with a flow to this address, or None; at once where the answer is known already.

        ``name`` is the domain that a peer with TLS has to prove; for TCP nobody asks.
        """
        destination = (listener.transport, host, port, name if listener.accepting is not None else "")
        known = self._connections.find_remote(*destination)
        if known is not None:
            callback(known.flow)
            return
        if self._failed_until.get(destination, 0.0) > self._loop.time():
            callback(None)
            return
        waiting = self._waiting.get(destination)
        too_many = waiting is None and len(self._waiting) >= self._settings.connects
        if too_many or self._waiters >= self._settings.connect_waiters:
            self.refused += 1
            callback(None)
            return
        self._waiters += 1
        if waiting is not None:
            waiting.append(callback)
            return
        self._waiting[destination] = [callback]
        task = self._loop.create_task(self._attempt(destination, listener))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is being opened; nobody is called back."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()

    async def _attempt(self, destination: Destination, listener: TcpListener) -> None:
        connection = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                _, host, port, name = destination
                connection = await self._connections.open(host, port, listener, name)
        except OSError:  # TimeoutError is one
            pass
        if connection is None:
            self._remember_failure(destination)
        callbacks = self._waiting.pop(destination)
        self._waiters -= len(callbacks)
        for callback in callbacks:
            # Each by itself: one that fails does not keep the others waiting.
            self._loop.call_soon(callback, connection.flow if connection is not None else None)
        self._loop.call_soon(self._receiver.on_batch_end)

    def _remember_failure(self, destination: Destination) -> None:
        self.failed += 1
        if len(self._failed_until) >= FAILURES:
            now = self._loop.time()
            self._failed_until = {each: until for each, until in self._failed_until.items() if until > now}
            if len(self._failed_until) >= FAILURES:
                self._failed_until.clear()
        self._failed_until[destination] = self._loop.time() + self._settings.connect_retry_after
