"""The cases that RFC 5118 describes for IPv6, each with a message of our own.

A test's comment names the section.
"""

from __future__ import annotations

import pytest

from sipserver.sip import build, names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.validate import check_request
from support.sip import request, written


def register(uri: str, **changed: str | None) -> Request:
    lines = {"Via": "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK1", "CSeq": "9 REGISTER"} | changed
    message = request(written(f"REGISTER {uri} SIP/2.0", 'Contact: "Ann" <sip:ann@[2001:db8::1]>', **lines))
    check_request(message)
    return message


# 4.1
def test_ipv6_references_are_read_everywhere() -> None:
    message = register("sip:[2001:db8::10]")
    assert (message.uri.host, message.uri.port) == ("2001:db8::10", None)
    assert (message.top_via.host, message.top_via.port) == ("2001:db8::9:1", None)
    assert message.addresses(names.CONTACT)[0].uri.hostport == "[2001:db8::1]"


# 4.2
def test_an_ipv6_address_without_brackets_is_no_uri() -> None:
    with pytest.raises(SipError) as caught:
        register("sip:2001:db8::10")
    assert caught.value.status == 400


# 4.3
def test_a_port_within_the_brackets_is_part_of_the_address() -> None:
    assert (register("sip:[2001:db8::10:5070]").uri.host) == "2001:db8::10:5070"
    assert register("sip:[2001:db8::10:5070]").uri.port is None


# 4.4
def test_a_port_behind_the_brackets_is_a_port() -> None:
    uri = register("sip:[2001:db8::10]:5070").uri
    assert (uri.host, uri.port) == ("2001:db8::10", 5070)


# 4.5
@pytest.mark.parametrize("received", ["[2001:db8::9:255]", "2001:db8::9:255"])
def test_received_may_have_brackets_or_not(received: str) -> None:
    message = register("sip:example.com", Via=f"SIP/2.0/UDP [2001:db8::9:1];received={received};branch=z9hG4bK1")
    assert message.top_via.received == "2001:db8::9:255"
    assert message.top_via.branch == "z9hG4bK1"


# 4.5
def test_received_is_written_without_brackets() -> None:
    message = register("sip:example.com")
    build.stamp_via(message, "2001:db8::9:255", 5060)
    assert message.lines[0].endswith(";received=2001:db8::9:255")


# 4.6 and 4.8
def test_addresses_in_a_session_description_are_not_looked_at() -> None:
    body = b"v=0\r\no=- 1 1 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 2001:db8::20\r\nt=0 0\r\nm=audio 6000 RTP/AVP 2\r\n"
    text = written(
        "INVITE sip:bob@[2001:db8::10] SIP/2.0",
        "Content-Type: application/sdp",
        f"Content-Length: {len(body)}",
        To="sip:bob@[2001:db8::10]",
    )
    message = request(text, body)
    check_request(message)
    assert message.body == body
    assert message.to.uri.aor() == "bob@[2001:db8::10]"


# 4.7
def test_addresses_of_both_families_in_one_message() -> None:
    message = request(
        written(
            "BYE sip:bob@host.example.net SIP/2.0",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb",
            "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bKc;received=192.0.2.200",
            Via="SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKa",
            CSeq="8 BYE",
        )
    )
    check_request(message)
    assert [(via.host, via.port) for via in message.vias] == [
        ("2001:db8::9:1", 6050),
        ("192.0.2.1", None),
        ("2001:db8::9:255", None),
    ]
    assert message.vias[2].received == "192.0.2.200"


# 4.9
def test_mapped_addresses_are_read() -> None:
    message = register("sip:example.com", Via="SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bK1")
    assert (message.top_via.host, message.top_via.port) == ("::ffff:192.0.2.10", 19823)
    assert Uri.parse("sip:ann@[::FFFF:192.0.2.2]").host == "::ffff:192.0.2.2"


# 4.10
def test_a_third_colon_is_forgiven() -> None:
    three, two = register("sip:bob@[2001:db8:::192.0.2.1]").uri, register("sip:bob@[2001:db8::192.0.2.1]").uri
    assert three.equivalent(two)
    assert three.aor() == two.aor()
