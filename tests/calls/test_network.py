"""How coarsely the record knows where a client is."""

from __future__ import annotations

import pytest

from sipserver.calls import network
from sipserver.calls.network import NetworkPrefix


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/56"),
        ("example.test", None),
        ("", None),
        (None, None),
    ],
)
def test_networks_by_default(host: str | None, prefix: str | None) -> None:
    assert NetworkPrefix()(host) == prefix


def test_exact_addresses_where_they_are_wanted() -> None:
    exact = NetworkPrefix(32, 128)
    assert exact("192.0.2.7") == "192.0.2.7"
    assert exact("2001:db8::7") == "2001:db8::7"
    assert exact("::ffff:192.0.2.7") == "192.0.2.7"


def test_nothing_where_nothing_is_wanted() -> None:
    nothing = NetworkPrefix(0, 0)
    assert nothing("192.0.2.7") is None
    assert nothing("2001:db8::7") is None


def test_what_is_remembered_is_bounded() -> None:
    prefix = NetworkPrefix()
    for number in range(network.MAX_REMEMBERED + 2):
        prefix(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(prefix._remembered) <= network.MAX_REMEMBERED
    assert prefix("10.0.0.9") == "10.0.0.0/24"
