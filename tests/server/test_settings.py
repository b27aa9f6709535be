"""From the configuration to what each part wants to know of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.calls.network import NetworkPrefix
from sipserver.server import settings
from sipserver.server.config import Config, load


@pytest.fixture
def configured(tmp_path: Path) -> Config:
    file = tmp_path / "x.toml"
    file.write_text(
        """
[server]
domains = ["Example.test"]
listen = [
    "udp:127.0.0.1:5060", "tcp:127.0.0.1:5060",
    { address = "udp:127.0.0.1:5070", algorithms = ["SHA-256", "MD5"] },
    { address = "tcp:127.0.0.1:5071", qop = false },
]
[limits]
message = 5000
body = 4000
headers = 20
line = 300
uri = 256
[timers]
t1 = 0.1
t2 = 0.2
t4 = 0.3
c = 20
d = 1
[registrar]
min_expires = 10
max_expires = 30
default_expires = 20
max_contacts = 2
[proxy]
inbound = "peers"
peers = ["192.0.2.0/24"]
outbound = true
max_forwards = 10
max_breadth = 5
max_targets = 3
datagram = 600
[tcp]
idle = 100
silent = 1
partial = 2
connect = 0.5
connections = 11
connections_per_source = 4
write_buffer = 70000
[udp]
receive_buffer = 8192
"""
    )
    return load(file)


def test_limits_and_timers_are_those_of_the_file(configured: Config) -> None:
    limits = settings.limits(configured)
    assert (limits.message, limits.body, limits.headers, limits.line, limits.uri) == (5000, 4000, 20, 300, 256)
    timers = settings.timers(configured)
    assert (timers.t1, timers.t2, timers.t4, timers.c, timers.d) == (0.1, 0.2, 0.3, 20, 1)


def test_bounds_of_sockets_are_those_of_the_file(configured: Config) -> None:
    made = settings.transports(configured)
    assert (made.tcp_idle, made.tcp_silent, made.tcp_partial, made.connect_timeout) == (100, 1, 2, 0.5)
    assert (made.tcp_connections, made.tcp_connections_per_source, made.tcp_write_bound) == (11, 4, 70_000)
    assert (made.udp_receive_buffer, made.limits.message) == (8192, 5000)


def test_what_the_operator_decided_about_the_proxy(configured: Config) -> None:
    made = settings.proxy(configured, lambda host, port: True)
    assert made.domains == {"example.test"}
    assert (made.inbound, [str(each) for each in made.peers], made.outbound) == ("peers", ["192.0.2.0/24"], True)
    assert (made.max_forwards_default, made.max_breadth, made.max_targets, made.size_limit) == (10, 5, 3, 600)
    assert made.timer_c == 20
    assert made.linger == pytest.approx(6.4)


def test_what_the_operator_decided_about_registrations(configured: Config) -> None:
    made = settings.registrar(configured)
    assert (made.min_expires, made.default_expires, made.max_expires, made.max_contacts) == (10, 20, 30, 2)
    assert made.domains == {"example.test"}


def test_listeners_that_are_alike_share_their_authenticator(configured: Config) -> None:
    found = settings.authenticators(configured, b"secret", 0.0)
    assert found[0] is found[1]
    assert len({id(each) for each in found}) == 3
    offers = [found[i].challenge_headers("example.test", 1.0, proxy=False) for i in (0, 2, 3)]
    assert [len(each) for each in offers] == [1, 2, 1]
    assert "SHA-256" in offers[1][0]
    assert "qop" not in offers[2][0]


@pytest.mark.parametrize(
    ("written", "source", "kept"),
    [
        ("", "192.0.2.77", "192.0.2.0/24"),
        ('network = "exact"', "192.0.2.77", "192.0.2.77/32"),
        ('network = "none"', "192.0.2.77", None),
        ("prefix4 = 16", "192.0.2.77", "192.0.0.0/16"),
        ("prefix6 = 32", "2001:db8:1::1", "2001:db8::/32"),
    ],
)
def test_addresses_of_clients_are_kept_as_configured(
    tmp_path: Path, written: str, source: str, kept: str | None
) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f"[calls]\n{written}\n")
    prefix: NetworkPrefix = settings.network_prefix(load(file))
    found = prefix(source)
    assert found == kept or (kept is not None and found == kept.removesuffix("/32"))
