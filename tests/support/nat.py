"""Networks of this test's own: a public one, and hosts that reach it through NATs which translate ports.

    host 10.N.0.2 ── 10.N.0.1 NAT 203.0.113.x ── wan, with SERVER on its loopback interface

Each box is a network namespace. A socket belongs for life to the namespace that its thread was in when it was opened,
and a process to that of the thread which started it: so ``with host.entered():`` around both is all that a test needs.
It takes root, iproute2, nftables and a kernel with all of that; elsewhere a test is skipped. Everything is removed at
the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self

import pytest
from pyroute2 import netns

SERVER = "198.51.100.1"
"""The public address of whatever runs in ``Network.wan``."""

_PREFIX = "sipnat"
_numbers = count()

_RULES = """
table ip nat {
    chain translate {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "outside" ip protocol { tcp, udp } masquerade to :20000-30000 random
        oifname "outside" masquerade
    }
}
"""


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}{name}"
        _run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        """Run ``ip`` in it."""
        _run("ip", "-n", self.name, *arguments)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it: sockets that are opened, and processes that are started, stay there."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            netns.setns(self.name)
            try:
                yield
            finally:
                netns.setns(home.fileno())

    def set(self, key: str, value: object) -> None:
        """Set a key below ``net`` of ``/proc/sys``: ``netfilter/nf_conntrack_udp_timeout``."""
        with self.entered():
            Path("/proc/sys/net", key).write_text(str(value))

    def remove(self) -> None:
        """Remove it with its interfaces."""
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)


class Host(Namespace):
    """A host behind a NAT of its own."""

    def __init__(self, name: str, address: str, nat: Namespace, public: str) -> None:
        super().__init__(name)
        self.address = address
        """Its own address, which nobody outside can reach."""
        self.nat = nat
        """The NAT; ``nat.set`` changes its time-outs."""
        self.public = public
        """The address that the outside sees."""


class Network:
    """The public network and what is behind NATs. Use with ``with``."""

    def __enter__(self) -> Self:
        _skip_where_it_cannot_work()
        self._all: list[Namespace] = []
        self._hosts = 0
        try:
            self.wan = Namespace("wan")
            self._all.append(self.wan)
            self.wan.ip("address", "add", f"{SERVER}/32", "dev", "lo")
            self.wan.set("ipv4/ip_forward", 1)
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            pytest.skip(f"this kernel has no network namespaces for us: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._all:
            each.remove()

    def host(self, name: str, *, udp_timeout: int | None = None) -> Host:
        """A host behind a new NAT, which forgets what was silent over UDP for so many seconds."""
        self._hosts += 1
        number = self._hosts
        public, gateway = f"203.0.113.{4 * number + 2}", f"203.0.113.{4 * number + 1}"
        inner, address = f"10.{number}.0.1", f"10.{number}.0.2"
        nat = Namespace(f"nat{number}")
        self._all.append(nat)
        host = Host(name, address, nat, public)
        self._all.append(host)
        _link(self.wan, f"down{number}", gateway, nat, "outside", public, 30)
        _link(nat, "inside", inner, host, "eth0", address, 24)
        host.ip("route", "add", "default", "via", inner)
        nat.ip("route", "add", "default", "via", gateway)
        nat.set("ipv4/ip_forward", 1)
        with nat.entered():
            _run("nft", "-f", "-", text=_RULES)
        if udp_timeout is not None:
            nat.set("netfilter/nf_conntrack_udp_timeout", udp_timeout)
            nat.set("netfilter/nf_conntrack_udp_timeout_stream", udp_timeout)
        return host


def _link(one: Namespace, here: str, address: str, two: Namespace, there: str, other: str, bits: int) -> None:
    """A cable between two namespaces."""
    one.ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", two.name)
    for namespace, device, own in ((one, here, address), (two, there, other)):
        namespace.ip("address", "add", f"{own}/{bits}", "dev", device)
        namespace.ip("link", "set", device, "up")


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, check=True, input=text, capture_output=True, text=True, timeout=20)


def _skip_where_it_cannot_work() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    _remove_leftovers()


def _remove_leftovers() -> None:
    """Remove what a test that was killed left behind."""
    for name in netns.listnetns():
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if name.startswith(_PREFIX) and owner.isdigit() and not Path("/proc", owner).exists():
            with suppress(OSError):
                netns.remove(name)
