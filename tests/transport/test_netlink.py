"""What the kernel knows of addresses and routes, from netlink and without it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

from sipserver.transport import netlink
from sipserver.transport.netlink import LocalAddresses
from support.transport import PATIENCE, need_ipv6


class Message(dict[str, Any]):
    """An address event as pyroute2 gives it."""

    def __init__(self, event: str, address: str, index: int = 1) -> None:
        super().__init__(event=event, index=index)
        self.address = address

    def get_attr(self, name: str) -> str | None:
        return self.address if name == "IFA_ADDRESS" else None


class Kernel:
    """Stands in for netlink: hands out the events that a test queues."""

    def __init__(self, addresses: Iterable[str] = (), fault: Exception | None = None) -> None:
        self._addresses = addresses
        self._fault = fault
        self._events: list[list[Message] | Exception] = []
        self._ready = threading.Semaphore(0)
        self.closed = False

    def bind(self, groups: int) -> None:
        if self._fault is not None:
            raise self._fault

    def get_addr(self) -> list[Message]:
        return [Message("RTM_NEWADDR", each) for each in self._addresses]

    def get(self) -> list[Message]:
        self._ready.acquire()
        if not self._events:
            return []
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.closed = True
        self._ready.release()

    def happens(self, event: list[Message] | Exception) -> None:
        """The next thing that the kernel tells."""
        self._events.append(event)
        self._ready.release()


class Changes:
    """Counts changes and lets a test wait for one."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def __call__(self) -> None:
        self._happened.set()

    async def next(self) -> None:
        """Wait for a change."""
        await asyncio.wait_for(self._happened.wait(), PATIENCE)
        self._happened.clear()


async def test_the_real_kernel_is_asked() -> None:
    local = LocalAddresses(lambda: None)
    await local.start()
    if local.monitored:
        assert "127.0.0.1" in local.addresses
    else:
        assert local.fault
    assert local.is_local("127.0.0.1")
    assert local.is_local("127.9.9.9")
    assert not local.is_local("198.51.100.1")
    await local.close()
    assert not [each for each in threading.enumerate() if each.name == "netlink"]


async def test_changes_of_addresses_are_followed() -> None:
    changes, kernel = Changes(), Kernel(["192.0.2.1"])
    local = LocalAddresses(changes, lambda loop: kernel)
    await local.start()
    assert local.addresses == {"192.0.2.1"}
    kernel.happens([Message("RTM_NEWADDR", "192.0.2.2"), Message("RTM_NEWADDR", "192.0.2.2", 7)])
    await changes.next()
    assert local.addresses == {"192.0.2.1", "192.0.2.2"}
    kernel.happens([Message("RTM_DELADDR", "192.0.2.2"), Message("RTM_DELADDR", "192.0.2.1")])
    await changes.next()
    assert local.addresses == {"192.0.2.2"}
    assert not local.is_local("192.0.2.1")
    await local.close()
    assert kernel.closed


async def test_a_change_of_routes_forgets_sources() -> None:
    changes, kernel = Changes(), Kernel()
    local = LocalAddresses(changes, lambda loop: kernel)
    await local.start()
    local._sources["192.0.2.9"] = "192.0.2.1"
    assert local.source_for("192.0.2.9") == "192.0.2.1"
    kernel.happens([Message("RTM_NEWROUTE", "192.0.2.0")])
    await changes.next()
    assert "192.0.2.9" not in local._sources
    await local.close()


async def test_without_netlink_addresses_are_tried() -> None:
    changes = Changes()
    local = LocalAddresses(changes, lambda loop: Kernel(fault=PermissionError("not here")))
    await local.start()
    await changes.next()
    assert (local.monitored, local.fault, local.addresses) == (False, "not here", frozenset())
    assert local.is_local("127.0.0.1")
    assert not local.is_local("198.51.100.1")
    assert not local.is_local("example.test")
    assert local._tried == {"127.0.0.1": True, "198.51.100.1": False, "example.test": False}
    local._forget_now_and_then()
    assert local._tried == {}
    await local.close()


async def test_netlink_that_is_lost_later_is_done_without() -> None:
    changes, kernel = Changes(), Kernel(["192.0.2.1"])
    local = LocalAddresses(changes, lambda loop: kernel)
    await local.start()
    assert local.monitored
    kernel.happens(OSError("lost"))
    await changes.next()
    assert (local.monitored, local.fault, local.addresses) == (False, "lost", frozenset())
    await local.close()


async def test_the_source_for_a_destination_is_the_kernels_choice() -> None:
    need_ipv6()
    local = LocalAddresses(lambda: None)
    assert local.source_for("127.0.0.5") == "127.0.0.1"
    assert local.source_for("::1") == "::1"
    assert local.source_for("example.test") == ""
    assert local.source_for("not:an:address") == ""


async def test_what_is_remembered_is_bounded() -> None:
    local = LocalAddresses(lambda: None)
    for number in range(netlink.DESTINATIONS):
        local._sources[str(number)] = local._sources.get("", "")
        local._tried[str(number)] = False
    local.source_for("127.0.0.1")
    local.is_local("127.0.0.1")
    assert (len(local._sources), len(local._tried)) == (1, 1)


async def test_close_without_start_does_nothing() -> None:
    await LocalAddresses(lambda: None).close()
