from __future__ import annotations

import pytest

from sipserver.proxy import nat

SDP = b"v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 %b\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


@pytest.mark.parametrize(
    ("named", "source", "behind"),
    [
        ("10.0.0.7", "198.51.100.7", True),
        ("192.168.1.7", "10.0.0.1", True),
        ("100.64.3.2", "198.51.100.7", True),
        ("fd00::7", "2001:db8::7", True),
        ("10.0.0.7", "10.0.0.7", False),
        ("203.0.113.9", "198.51.100.7", False),
        ("phone.example.com", "198.51.100.7", False),
        ("not an address", "198.51.100.7", False),
        ("10.0.0.7.8", "198.51.100.7", False),
    ],
)
def test_who_names_a_private_address_and_comes_from_another_is_behind_a_nat(
    named: str, source: str, behind: bool
) -> None:
    assert nat.is_behind_nat((named,), source) is behind


def test_addresses_are_those_of_the_connection_lines() -> None:
    body = SDP % b"192.0.2.1" + b"c=IN IP6 2001:db8::1\r\nm=video 0 RTP/AVP 96\nc=IN IP4 224.2.1.1/127\n"
    assert nat.media_addresses(body) == ["192.0.2.1", "2001:db8::1", "224.2.1.1"]
    assert nat.media_addresses(SDP % b"0.0.0.0") == []
    assert nat.media_addresses(b"c=IN IP4") == []
    assert len(nat.media_addresses(SDP % b"1.1.1.1" + b"\nc=IN IP4 1.1.1.1" * 100)) == nat.MAX_ADDRESSES


def test_ice_and_dtls_are_seen_at_either_level() -> None:
    assert nat.has_ice(SDP % b"10.0.0.1" + b"a=ice-ufrag:abcd\r\n")
    assert nat.has_dtls(SDP % b"10.0.0.1" + b"a=fingerprint:sha-256 AA\r\n")
    assert not nat.has_ice(SDP % b"10.0.0.1")


def test_host_of_a_contact_that_cannot_be_read_is_nothing() -> None:
    assert nat.host_of("sip:bob@10.0.0.1:5060;ob") == "10.0.0.1"
    assert nat.host_of("nonsense") == ""
