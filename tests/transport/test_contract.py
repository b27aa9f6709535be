"""Addresses to listen on, as they stand in a configuration."""

from __future__ import annotations

import pytest

from sipserver.transport.contract import ListenAddress, canonical_ip, hostport, is_ip, is_unicast, is_wildcard


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("udp:127.0.0.1:5060", ("UDP", "127.0.0.1", 5060)),
        ("TCP:[::1]:5060", ("TCP", "::1", 5060)),
        ("udp:0.0.0.0:5070", ("UDP", "0.0.0.0", 5070)),
        ("udp:[::]:0", ("UDP", "::", 0)),
        ("tcp:[2001:DB8:0:0::1]", ("TCP", "2001:db8::1", 5060)),
        ("udp:SIP.example.test", ("UDP", "sip.example.test", 5060)),
        ("tls:127.0.0.1", ("TLS", "127.0.0.1", 5061)),
        ("ws:[::1]", ("WS", "::1", 80)),
        ("wss:127.0.0.1:8443", ("WSS", "127.0.0.1", 8443)),
    ],
)
def test_an_address_to_listen_on_is_read(text: str, parts: tuple[str, str, int]) -> None:
    address = ListenAddress.parse(text)
    assert (address.transport, address.host, address.port) == parts
    assert ListenAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sctp:127.0.0.1:5060", "write udp:HOST:PORT"),
        ("127.0.0.1", "write udp:HOST:PORT"),
        ("udp:127.0.0.1:65536", "from 0 to 65535"),
        ("udp:127.0.0.1:-1", "from 0 to 65535"),
        ("udp:127.0.0.1:sip", "from 0 to 65535"),
        ("udp:127.0.0.1:", "from 0 to 65535"),
        ("udp:::1:5060", "in brackets"),
        ("udp:[::1:5060", "in brackets"),
        ("udp:[::1]5060", "in brackets"),
        ("udp:[127.0.0.1]:5060", "in brackets"),
        ("udp::5060", "no host"),
        ("udp:a b:5060", "no host"),
    ],
)
def test_a_wrong_address_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ListenAddress.parse(text)


def test_only_addresses_of_one_machine_are_unicast() -> None:
    assert is_unicast("192.0.2.1")
    assert is_unicast("2001:db8::1")
    for host in ("224.0.0.1", "ff02::1", "255.255.255.255", "0.0.0.0", "::", "example.test", ""):
        assert not is_unicast(host)


def test_text_longer_than_any_address_is_none() -> None:
    host = "fe80::1%" + "e" * 100
    assert not is_ip(host)
    assert not is_unicast(host)
    assert canonical_ip(host) == "fe80::1"
    assert canonical_ip("a" * 100) == "a" * 100


def test_addresses_are_written_as_the_kernel_writes_them() -> None:
    assert canonical_ip("FE80:0::1%eth0") == "fe80::1"
    assert canonical_ip("example.test") == "example.test"
    assert hostport("::1", 5060) == "[::1]:5060"
    assert is_wildcard("::")
    assert not is_wildcard("0")
