"""Whatever arrives, text of SIP raises SipError and nothing else."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import build, names
from sipserver.sip.errors import MalformedMessage, SipError
from sipserver.sip.message import Message, Request, parse, text
from sipserver.sip.uri import Uri, aor_uri, canonical_aor
from sipserver.sip.validate import check_request, check_response
from sipserver.sip.values import Address, Via, split_commas
from support.sip import wire

SEEDS = [
    wire(
        """
INVITE sip:bob;x=%41@example.com:5060;transport=tcp?a=b SIP/2.0
Via: SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bKabc;rport, SIP / 2.0 / TCP a.example : 5060 ; x="a,b"
Max-Forwards: 70
f: "Al \\"ice" <sip:alice@example.com>;tag=123
To: sip:bob@example.com;tag=9
i: a84b4c76e66710
CSeq: 0004
 INVITE
m: <sip:a@192.0.2.1>;q=0.5;expires=60, "x,y" <sips:b@192.0.2.1;lr>;+sip.instance="<urn:x>"
Route: <tel:+1-555;phone-context=+1>, <tel:70;phone-context=example.com>
Require: a,b
Timestamp: 1
l: 4
""",
        b"body",
    ),
    wire(
        """
SIP/2.0 200 OK
v: SIP/2.0/UDP 192.0.2.1;received=192.0.2.9;rport=5060
Via: SIP/2.0/TLS b.example
From: <sip:alice@example.com>;tag=123
To: <sip:bob@example.com>
Call-ID: x
CSeq: 4 INVITE
Content-Length: 0
"""
    ),
]
FRAGMENTS = [
    b"", b"\r\n", b"\n", b"\r", b"\r\n ", b"\0", b"\xff", b'"', b"<", b">", b";", b",", b"%", b"%00", b"@", b":", b"[",
    b"]", b"\\", b" ", b"\t", b"SIP/2.0", b"Via", b"\xb2", b"-1", b"99999999999999999999", b"\r\n\r\n", b"=", b"*",
    b"?",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid message with a few pieces cut out, put in or doubled."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6), st.just(data[start:end] * 2)))
        data = data[:start] + piece + data[end:]
    return data


def read_everything(message: Message) -> None:
    """Every accessor and every builder: a value, or SipError."""
    for attribute in ("call_id", "cseq", "from_", "to", "from_tag", "to_tag", "vias", "top_via", "uri"):
        with suppress(SipError):
            getattr(message, attribute, None)
    for name in {*message.names, names.CONTACT, names.ROUTE}:
        message.values(name)
        assert message.headers(name) or not message.has(name)
        with suppress(SipError):
            message.number(name)
        with suppress(SipError):
            for address in message.addresses(name):
                read_address(address)
    with suppress(SipError):
        for via in message.vias:
            assert via.rport is None or 0 < via.rport < 65_536
            assert via.received is None or "\n" not in via.received
            assert 0 < build.response_port(via) < 65_536
    assert isinstance(message.to_bytes(), bytes)


def read_address(address: Address) -> None:
    assert address.expires is None or 0 <= address.expires < 2**32
    with suppress(SipError):
        assert 0.0 <= address.q <= 1.0
    with suppress(SipError):
        read_uri(address.uri)


def read_uri(uri: Uri) -> None:
    assert uri.equivalent(uri)
    with suppress(SipError):
        aor = uri.aor()
        assert aor.isprintable()
        assert canonical_aor(aor) == aor
        assert canonical_aor(aor_uri(aor)) == aor


def answer(message: Message, status: int) -> None:
    """What is answered to a request is a valid response, however broken the request was."""
    if not isinstance(message, Request) or not build.can_reply(message):
        return
    build.stamp_via(message, "192.0.2.7", 40000)
    assert build.response_port(message.top_via) > 0
    answered = parse(build.reply(message, status, to_tag="t"))
    assert answered.names[0] == names.VIA
    assert answered.names.count(names.CONTENT_LENGTH) == 1


def survive(data: bytes) -> None:
    try:
        message = parse(data)
    except MalformedMessage as error:
        if isinstance(error.message, Message):
            read_everything(error.message)
            answer(error.message, error.status)
        return
    assert text(message.start_line)
    read_everything(message)
    try:
        if isinstance(message, Request):
            check_request(message)
        else:
            check_response(message)
            left = build.without_top_via(message)
            assert len(left) < len(message.to_bytes())
    except SipError as error:
        answer(message, error.status)
    else:
        answer(message, 200)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_sip_errors(data: bytes) -> None:
    survive(data)


@given(st.sampled_from([b"INVITE sip:a@b SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n"]), st.binary(max_size=200))
def test_arbitrary_headers_raise_only_sip_errors(start: bytes, rest: bytes) -> None:
    survive(start + rest + b"\r\n\r\n")


@given(mutated())
def test_mutated_messages_raise_only_sip_errors(data: bytes) -> None:
    survive(data)


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_arbitrary_values_raise_only_sip_errors(value: str) -> None:
    assert split_commas(value)
    with suppress(SipError):
        Via.parse(value)
    with suppress(SipError):
        read_address(Address.parse(value))
    with suppress(SipError):
        read_uri(Uri.parse(value))
    with suppress(SipError):
        read_uri(Uri.parse(f"sip:{value}@example.com"))


@given(st.text(max_size=40))
def test_arbitrary_addresses_raise_only_sip_errors(value: str) -> None:
    for written in (value, f"{value}@example.com", f"alice@{value}", f"tel:{value}"):
        with suppress(SipError):
            aor = canonical_aor(written)
            assert canonical_aor(aor) == aor
            assert canonical_aor(aor_uri(aor)) == aor
