"""Which addresses this machine has, and which of them it sends from: what a wildcard listener has to know.

A thread of its own listens to the kernel's netlink events (pyroute2 wants a plain event loop, not
uvloop) and reports every change of an address or a route; what was remembered is then forgotten.
Where netlink is not to be had, in some containers, addresses are tried by binding to them and what
is remembered is forgotten every half minute.

The source address for a destination comes from connecting a UDP socket, which sends nothing: the
kernel makes the same choice as when it sends, at 13 us instead of netlink's 190 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

DESTINATIONS = 10_000
"""Destinations remembered at most."""
FORGET_AFTER = 30.0
"""Seconds after which what is remembered is forgotten where the kernel reports no changes."""

_EVENTS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR and IPV6_ROUTE of linux/rtnetlink.h.

Of the routes that go with an IPv4 link which goes down, the kernel tells nothing but that.
"""


class _Netlink(Protocol):
    def bind(self, groups: int) -> None: ...
    def get_addr(self) -> Iterable[Any]: ...
    def get(self) -> Iterable[Any]: ...
    def close(self) -> None: ...


class LocalAddresses:
    """The machine's addresses, kept up to date while started."""

    def __init__(
        self, on_change: Callable[[], None], netlink: Callable[[asyncio.AbstractEventLoop], _Netlink] | None = None
    ) -> None:
        self._on_change = on_change
        """Called on the event loop when an address or a route has changed."""
        self._open_netlink = netlink or open_iproute
        self._netlink: _Netlink | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._sources: dict[str, str] = {}
        self._tried: dict[str, bool] = {}
        self._forget_handle: asyncio.TimerHandle | None = None
        self.addresses: frozenset[str] = frozenset()
        """Every address of every interface; empty where netlink is not to be had."""
        self.monitored = False
        """Whether the kernel reports changes."""
        self.fault = ""
        """Why it does not."""

    async def start(self) -> None:
        """Read the addresses and start listening for changes."""
        self._loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="netlink", daemon=True)
        self._thread.start()
        await ready.wait()

    async def close(self) -> None:
        """End the thread."""
        self._closing = True
        if self._forget_handle is not None:
            self._forget_handle.cancel()
        if self._netlink is not None:
            # Closing wakes the thread out of its wait.
            with contextlib.suppress(OSError):
                self._netlink.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 2.0)

    def source_for(self, destination: str) -> str:
        """The local address from which the kernel sends to this IP address; empty where there is no route."""
        source = self._sources.get(destination)
        if source is None:
            if len(self._sources) >= DESTINATIONS:
                self._sources.clear()
            source = self._sources[destination] = _ask_for_source(destination)
        return source

    def is_local(self, address: str) -> bool:
        """Whether this IP address belongs to the machine."""
        if address in self.addresses:
            return True
        # All of 127.0.0.0/8 is local on Linux, though only one address of it is listed.
        if self.monitored and not address.startswith("127."):
            return False
        known = self._tried.get(address)
        if known is None:
            if len(self._tried) >= DESTINATIONS:
                self._tried.clear()
            known = self._tried[address] = _can_bind(address)
        return known

    def _run(self, ready: asyncio.Event) -> None:
        """The thread: read what there is, then wait for changes until closed."""
        # Not the policy's kind of loop: pyroute2 does not work on uvloop.
        own_loop = asyncio.SelectorEventLoop()
        try:
            self._netlink = self._open_netlink(own_loop)
            self._netlink.bind(_EVENTS)
            self._follow(self._netlink, ready)
        except Exception as error:  # whatever a container forbids, and closing: the server works without
            if not self._closing:
                self._on_loop(self._lost, error)
        finally:
            self._on_loop(ready.set)
            if self._netlink is not None:
                with contextlib.suppress(Exception):
                    self._netlink.close()
            if not own_loop.is_closed():
                # What closing has put off happens in one more turn of the loop.
                own_loop.run_until_complete(asyncio.sleep(0))
                own_loop.close()

    def _follow(self, netlink: _Netlink, ready: asyncio.Event) -> None:
        found: set[tuple[int, str]] = set()
        for message in netlink.get_addr():
            _apply(message, found)
        self.addresses = frozenset(address for _, address in found)
        self.monitored = True
        self._on_loop(ready.set)
        while not self._closing:
            for message in netlink.get():
                _apply(message, found)
            if not self._closing:
                self._on_loop(self._changed, frozenset(address for _, address in found))

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _changed(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self._forget()

    def _lost(self, error: Exception) -> None:
        self.fault = str(error) or type(error).__name__
        self.monitored = False
        self.addresses = frozenset()
        self._forget_now_and_then()

    def _forget(self) -> None:
        self._sources.clear()
        self._tried.clear()
        self._on_change()

    def _forget_now_and_then(self) -> None:
        self._forget()
        self._forget_handle = self._loop.call_later(FORGET_AFTER, self._forget_now_and_then)


def open_iproute(loop: asyncio.AbstractEventLoop) -> Any:
    """pyroute2's ``IPRoute`` on this loop. Raises OSError where there is none.

    It is imported by who needs it, in a thread: that takes a seventh of a second, and who serves one address only does
    not need it.
    """
    try:
        library = importlib.import_module("pyroute2")
    except ImportError as error:  # not Linux
        raise OSError("pyroute2 is not installed") from error
    return library.IPRoute(use_event_loop=loop)


def _apply(message: Any, found: set[tuple[int, str]]) -> None:
    """Follow one address event: interface and address, since two interfaces may have the same."""
    event = message.get("event")
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") if event else None
    if event == "RTM_NEWADDR" and address:
        found.add((message.get("index", 0), address))
    elif event == "RTM_DELADDR" and address:
        found.discard((message.get("index", 0), address))


def _ask_for_source(destination: str) -> str:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with contextlib.suppress(OSError, ValueError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        # An address in figures, or inet_pton raises: a name would be looked up, and everything would wait.
        socket.inet_pton(family, destination)
        sock.connect((destination, 9))
        return str(sock.getsockname()[0]).partition("%")[0]
    return ""


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError, ValueError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        socket.inet_pton(family, address)
        sock.bind((address, 0))
        return True
    return False
