"""What is seen of a request at first sight is what reading it finds, and its refusal is the same to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import build
from sipserver.sip.errors import SipError
from sipserver.sip.glance import Glance, glance
from sipserver.sip.message import Request, parse
from sipserver.sip.transaction import keys
from sipserver.sip.validate import check_request

HEADERS = ("Retry-After: 3", "Server: x")
USUAL = [
    "REGISTER sip:example.test SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.7:5070;branch=z9hG4bKabc.1~x;rport",
    "Max-Forwards: 70", 'From: "Al" <sip:alice@example.test>;tag=f1', "To: <sip:alice@example.test>",
    "Call-ID: one@192.0.2.7", "CSeq: 1 REGISTER", "User-Agent: Phone/1 (x)", "Content-Length: 0",
]  # fmt: skip


def message(*changes: tuple[int, str], body: bytes = b"") -> bytes:
    """The usual request with other lines."""
    lines = list(USUAL)
    for place, line in changes:
        lines[place] = line
    return "\r\n".join([line for line in lines if line]).encode() + b"\r\n\r\n" + body


def seen(data: bytes) -> Glance | None:
    """What is seen of it."""
    request = parse(data)
    return glance(request) if isinstance(request, Request) else None


def refusals(data: bytes) -> tuple[bytes, bytes] | None:
    """The refusal at first sight, and that of who reads; None where nothing is seen."""
    request = parse(data)
    assert isinstance(request, Request)
    first = glance(request)
    if first is None:
        return None
    check_request(request)
    build.stamp_via(request, "203.0.113.9", 40_000)
    assert (first.key, first.branch) == (keys.server_key(request), request.top_via.branch)
    assert build.response_port(request.top_via) == 40_000
    assert request.to_tag is None
    assert not request.has("authorization")
    return first.refusal("203.0.113.9", 40_000, 503, "Overloaded", "t1", HEADERS), build.reply(
        request, 503, "Overloaded", "t1", HEADERS
    )


@pytest.mark.parametrize("changes", [
    [],
    [(0, "INVITE sip:bob@example.test SIP/2.0"), (6, "CSeq: 7 INVITE")],
    [(1, "Via: SIP/2.0/UDP 192.0.2.7;rport;branch=z9hG4bKabc")],
    [(1, "Via: SIP/2.0/UDP 192.0.2.7:1;branch=z9hG4bK-._!%*+`'~;rport")],
    [(7, "")], [(3, "From: <sip:a@b>;tag=x\r\n\t;y=z")], [(3, "f: <sip:a@b>;tag=x")], [(4, "t: <sip:a@b>")],
    [(5, "i: one"), (6, "cseq: 1 REGISTER")],
])  # fmt: skip
def test_what_is_usual_is_refused_as_who_reads_it_would(changes: list[tuple[int, str]]) -> None:
    found = refusals(message(*changes, body=b"v=0\r\nvia\r\n \r\n"))
    assert found is not None
    assert found[0] == found[1]


@pytest.mark.parametrize("change", [
    (0, "BYE sip:bob@example.test SIP/2.0"),
    (0, "register sip:example.test SIP/2.0"), (0, "SIP/2.0 200 OK"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc"), (1, "v: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKa,b;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKa;b;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7:0;branch=z9hG4bKa;rport"), (1, "Via: SIP/2.0/UDP 192.0.2.7:;branch=z9hG4bKa;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKaxrport"), (1, "Via: SIP/2.0/UDP 192.0.2.7;rportx;branch=z9hG4bKa"),
    (1, "Via: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bKabc;rport"), (1, "Via: SIP/2.0/UDP host;branch=z9hG4bKabc;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=abc;rport"), (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;rport;branch=z9hG4bKabc;rport"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport=7"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport, SIP/2.0/UDP 192.0.2.8"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport\r\nVia: SIP/2.0/UDP 192.0.2.8"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport\r\nvia: SIP/2.0/UDP 192.0.2.8"),
    (1, "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport\r\n ;x"), (1, ""),
    (3, ""), (4, "To: <sip:a@b>;tag=x"), (4, "To: <sip:a@b>;TAG=x"),
    (7, "Authorization: Digest x"), (7, "Proxy-Authorization: Digest x"),
])  # fmt: skip
def test_what_is_not_usual_is_left_to_who_reads(change: tuple[int, str]) -> None:
    assert seen(message(change)) is None


@given(st.data())
def test_nothing_is_seen_that_reading_would_not_find(data: st.DataObject) -> None:
    text = message()
    place = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.sampled_from([
        b"", b"\r\n", b"\n", b"\r", b" ", b",", b";", b'"', b"<", b">", b"\0", b"\xff", b"=", b";rport", b";tag=", b":",
        b"\r\nV: ", b"\r\nVia: SIP/2.0/UDP 192.0.2.9", b"0", b"99999", b"%", b"[", b"@",
    ]))  # fmt: skip
    changed = text[:place] + piece + text[place + data.draw(st.integers(0, 3)) :]
    try:
        found = refusals(changed)
    except SipError:
        # What cannot be read is answered 400 by who reads, and 503 at first sight.
        return
    assert found is None or found[0] == found[1]
