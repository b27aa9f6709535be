"""Over which interface the kernel sends to an address: asked of netlink in a thread, answered on the loop.

A question costs some 200 us (more when the machine is busy), so whoever asks remembers the answer, and forgets it
when the kernel reports a change of a link, an address or a route; both are ``LinkFinder``'s to tell. Every question
is answered once, on the loop: by the kernel, after PATIENCE by nobody, and at the end likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from sipserver.transport.netlink import LocalAddresses, open_iproute

MAX_WAITING: Final = 1_000
"""Questions that may wait; beyond them the answer is that nothing is known."""

PATIENCE: Final = 2.0
"""Seconds after which a question counts as answered by nobody."""

Found = Callable[[str | None], None]
"""Called on the loop with the name of the interface; None where there is no route or no netlink."""


class _Question:
    __slots__ = ("asked_at", "found", "host")

    def __init__(self, host: str, found: Found, asked_at: float) -> None:
        self.host = host
        self.found: Found | None = found
        """None once it is answered."""
        self.asked_at = asked_at


class RouteQuery(Protocol):
    """What is asked of the kernel, from one thread."""

    def interface(self, host: str) -> str | None:
        """The name of the interface that packets to this IP address leave by. Raises OSError and NetlinkError."""

    def close(self) -> None:
        """Nothing more is asked."""


class LinkFinder:
    """Answers which link an address is behind, while started."""

    def __init__(self, on_change: Callable[[], None], open_query: Callable[[], RouteQuery] | None = None) -> None:
        self._changes = LocalAddresses(on_change)
        self._open_query = open_query or NetlinkQuery
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._open: deque[_Question] = deque()
        """The questions that are not answered, the oldest first."""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.fault = ""
        """Why nothing can be asked, or the last thing that went wrong."""

    async def start(self) -> None:
        """Start the threads: one asks, one listens for changes."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)
        self._thread.start()
        await self._changes.start()

    async def close(self) -> None:
        """End the threads; who still waits is told that nothing is known."""
        await self._changes.close()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._questions.put(None)
            await asyncio.to_thread(thread.join, 2.0)
        while self._open:
            self._answer(self._open[0], None)

    def tick(self) -> None:
        """Once a second: who has waited for too long waits no longer."""
        assert self._loop is not None, "started"
        before = self._loop.time() - PATIENCE
        while self._open and self._open[0].asked_at < before:
            self._answer(self._open[0], None)

    def find(self, host: str, found: Found) -> None:
        """Ask for the interface to an IP address. ``found`` is called later, or at once where nothing can be asked."""
        if self._thread is None or self._loop is None or len(self._open) >= MAX_WAITING:
            found(None)
            return
        question = _Question(host, found, self._loop.time())
        self._open.append(question)
        self._questions.put(question)

    def _answer(self, question: _Question, interface: str | None) -> None:
        found, question.found = question.found, None
        # The thread answers in order, so this is the oldest, or it was given up.
        if found is not None:
            self._open.popleft()
            found(interface)

    def _run(self) -> None:
        """The thread: a question, an answer, until closed."""
        query: RouteQuery | None = None
        while (question := self._questions.get()) is not None:
            interface: str | None = None
            try:
                query = query or self._open_query()
                interface = query.interface(question.host)
            except Exception as error:  # no route, or whatever a container forbids: the server works without
                self.fault = str(error) or type(error).__name__
            self._on_loop(question, interface)
        if query is not None:
            with contextlib.suppress(Exception):
                query.close()

    def _on_loop(self, question: _Question, interface: str | None) -> None:
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            assert self._loop is not None, "started"
            self._loop.call_soon_threadsafe(self._answer, question, interface)


class NetlinkQuery:
    """Asks the kernel for a route (RTM_GETROUTE). To be made and used in one thread."""

    def __init__(self) -> None:
        # Not the policy's kind of loop: pyroute2 does not work on uvloop.
        self._own_loop = asyncio.SelectorEventLoop()
        try:
            self._netlink: Any = open_iproute(self._own_loop)
        except OSError:
            self._own_loop.close()
            raise

    def interface(self, host: str) -> str | None:
        """See ``RouteQuery``."""
        address, _, zone = host.partition("%")
        if zone:
            # A link-local address says itself which link it is on.
            return socket.if_indextoname(int(zone)) if zone.isdecimal() else zone
        for message in self._netlink.route("get", dst=str(ipaddress.ip_address(address))):
            index = message.get_attr("RTA_OIF")
            if index:
                return socket.if_indextoname(index)
        return None

    def close(self) -> None:
        """See ``RouteQuery``."""
        self._netlink.close()
        # What closing has put off happens in one more turn of the loop.
        self._own_loop.run_until_complete(asyncio.sleep(0))
        self._own_loop.close()
