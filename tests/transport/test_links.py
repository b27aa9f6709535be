"""Links: what the kernel says, what happens without it, and that nobody waits."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.transport import links
from sipserver.transport.links import LinkFinder, NetlinkQuery, RouteQuery
from support.transport import PATIENCE, need_ipv6

ROOT = Path(__file__).resolve().parents[2]


class Kernel:
    """Answers from a table; waits where told to."""

    def __init__(self, routes: dict[str, str | None]) -> None:
        self.routes = routes
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def interface(self, host: str) -> str | None:
        assert self.gate.wait(PATIENCE)
        if host not in self.routes:
            raise OSError("no route")
        return self.routes[host]

    def close(self) -> None:
        self.closed = True
        raise OSError("closed twice")


class Answers:
    """Collects answers and lets a test wait for so many."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str | None]] = []
        self._arrived = asyncio.Event()

    def of(self, host: str) -> Callable[[str | None], None]:
        def take(interface: str | None) -> None:
            self.found.append((host, interface))
            self._arrived.set()

        return take

    async def wait(self, count: int) -> list[tuple[str, str | None]]:
        while len(self.found) < count:
            await asyncio.wait_for(self._arrived.wait(), PATIENCE)
            self._arrived.clear()
        return self.found


def nothing() -> None:
    """Nobody wants to know."""


async def test_the_real_kernel_is_asked() -> None:
    finder, answers = LinkFinder(nothing), Answers()
    await finder.start()
    finder.find("127.0.0.9", answers.of("4"))
    (found,) = await answers.wait(1)
    assert found == ("4", "lo") or finder.fault
    await finder.close()
    assert not [each for each in threading.enumerate() if each.name in {"links", "netlink"}]


async def test_answers_come_in_order_and_later() -> None:
    kernel, answers = Kernel({"a": "eth0", "b": None}), Answers()
    finder = LinkFinder(nothing, lambda: kernel)
    await finder.start()
    kernel.gate.clear()
    for host in ("a", "b", "c"):
        finder.find(host, answers.of(host))
    assert answers.found == []
    kernel.gate.set()
    assert await answers.wait(3) == [("a", "eth0"), ("b", None), ("c", None)]
    assert finder.fault == "no route"
    await finder.close()
    assert kernel.closed


async def test_kernel_that_cannot_be_asked_knows_nothing() -> None:
    def refuse() -> RouteQuery:
        raise PermissionError("not here")

    finder, answers = LinkFinder(nothing, refuse), Answers()
    await finder.start()
    finder.find("a", answers.of("a"))
    assert await answers.wait(1) == [("a", None)]
    assert finder.fault == "not here"
    await finder.close()


async def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_WAITING", 2)
    kernel, answers = Kernel({"a": "eth0"}), Answers()
    finder = LinkFinder(nothing, lambda: kernel)
    await finder.start()
    kernel.gate.clear()
    for _ in range(3):
        finder.find("a", answers.of("a"))
    assert answers.found == [("a", None)]
    kernel.gate.set()
    assert await answers.wait(3) == [("a", None), ("a", "eth0"), ("a", "eth0")]
    finder.find("a", answers.of("a"))
    assert (await answers.wait(4))[3] == ("a", "eth0")
    await finder.close()


async def test_who_waits_for_too_long_is_told_that_nothing_is_known() -> None:
    kernel, answers = Kernel({"a": "eth0", "b": "eth1"}), Answers()
    finder = LinkFinder(nothing, lambda: kernel)
    await finder.start()
    kernel.gate.clear()
    finder.find("a", answers.of("a"))
    finder._open[0].asked_at -= links.PATIENCE + 1
    finder.find("b", answers.of("b"))
    finder.tick()
    assert answers.found == [("a", None)]
    kernel.gate.set()
    assert await answers.wait(2) == [("a", None), ("b", "eth1")]
    finder.tick()
    await finder.close()
    assert len(answers.found) == 2


async def test_who_waits_at_the_end_is_told_that_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, answers = Kernel({"a": "eth0"}), Answers()
    finder = LinkFinder(nothing, lambda: kernel)
    await finder.start()
    kernel.gate.clear()
    for _ in range(2):
        finder.find("a", answers.of("a"))
    thread = finder._thread
    assert thread is not None
    monkeypatch.setattr(thread, "join", lambda timeout: None)
    await finder.close()
    assert answers.found == [("a", None)] * 2
    kernel.gate.set()
    await asyncio.sleep(0)
    assert len(answers.found) == 2


IN_A_NAMESPACE = """
import asyncio, pathlib
from pyroute2 import IPRoute
from sipserver.transport.links import LinkFinder

def change(what):
    loop = asyncio.SelectorEventLoop()
    with IPRoute(use_event_loop=loop) as kernel:
        what(kernel)

def begin(kernel):
    kernel.link("add", ifname="va", peer="vb", kind="veth")
    kernel.link("add", ifname="vc", peer="vd", kind="veth")
    for name in ("va", "vb", "vc", "vd"):
        kernel.link("set", index=kernel.link_lookup(ifname=name)[0], state="up")
    kernel.addr("add", index=kernel.link_lookup(ifname="va")[0], address="192.0.2.1", prefixlen=24)
    kernel.addr("add", index=kernel.link_lookup(ifname="vc")[0], address="198.51.100.1", prefixlen=24)
    kernel.route("add", dst="0.0.0.0/0", gateway="198.51.100.2")

def end(kernel):
    kernel.link("set", index=kernel.link_lookup(ifname="va")[0], state="down")

async def main():
    # IPv6 would tell of addresses that come and go with the link.
    off = pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if off.exists():
        off.write_text("1")
    changed = asyncio.Event()
    await asyncio.to_thread(change, begin)
    finder = LinkFinder(changed.set)
    await finder.start()
    async def ask():
        found = asyncio.get_running_loop().create_future()
        finder.find("192.0.2.9", found.set_result)
        return await asyncio.wait_for(found, 5)
    before = await ask()
    # What came of the beginning may still come.
    await asyncio.sleep(0.3)
    changed.clear()
    await asyncio.to_thread(change, end)
    await asyncio.wait_for(changed.wait(), 5)
    print(before, await ask())
    await finder.close()

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed")
def test_link_that_goes_down_is_told_and_another_found() -> None:
    command = ["unshare", "-n", sys.executable, "-c", IN_A_NAMESPACE]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no network namespaces here: {done.stderr[-200:]}")
    assert done.stdout.split() == ["va", "vc"], done.stderr


async def test_before_the_start_and_after_the_end_nothing_is_known() -> None:
    finder, answers = LinkFinder(nothing), Answers()
    finder.find("127.0.0.1", answers.of("before"))
    await finder.close()
    await finder.start()
    await finder.close()
    finder.find("127.0.0.1", answers.of("after"))
    assert answers.found == [("before", None), ("after", None)]


def in_thread(host: str) -> str | None:
    query = NetlinkQuery()
    try:
        return query.interface(host)
    finally:
        query.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no netlink")
async def test_routes_lead_over_links() -> None:
    need_ipv6()
    assert await asyncio.to_thread(in_thread, "127.0.0.1") == "lo"
    assert await asyncio.to_thread(in_thread, "::1") == "lo"
    assert await asyncio.to_thread(in_thread, "fe80::1%lo") == "lo"
    assert await asyncio.to_thread(in_thread, "fe80::1%1") == "lo"
    with pytest.raises(ValueError, match="does not appear to be"):
        await asyncio.to_thread(in_thread, "example.test")


async def test_without_pyroute2_there_is_no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(OSError, match="pyroute2 is not installed"):
        NetlinkQuery()
