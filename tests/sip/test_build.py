"""Replies, the Via of a server, ACK and CANCEL."""

from __future__ import annotations

import pytest

from sipserver.sip import build, names
from sipserver.sip.errors import MalformedMessage
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.values import Via
from support.sip import request, response, wire

INVITE = """
INVITE sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKabc;rport
v:  SIP/2.0/TCP a.example;branch=z9hG4bK2
Max-Forwards: 12
f: "Alice"
  <sip:alice@example.com>;tag=123
To: <sip:bob@example.com>
i: a84b4c76e66710
CSeq: 0004 INVITE
Timestamp: 54
Route: <sip:p1.example;lr>
X: y
route: <sip:p2.example;lr>
Require: 100rel
Content-Length: 0
"""


def replied(data: bytes) -> Response:
    message = parse(data)
    assert isinstance(message, Response)
    return message


def with_via(via: str) -> Request:
    return request(f"OPTIONS sip:example.com SIP/2.0\nX: 1\n{via}\nCall-ID: x")


def test_reply_copies_lines_as_they_came() -> None:
    data = build.reply(request(INVITE), 404, to_tag="t1", headers=["Warning: 399 x y"])
    assert data == wire(
        """
SIP/2.0 404 Not Found
Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKabc;rport
v:  SIP/2.0/TCP a.example;branch=z9hG4bK2
f: "Alice"
  <sip:alice@example.com>;tag=123
To: <sip:bob@example.com>;tag=t1
i: a84b4c76e66710
CSeq: 0004 INVITE
Warning: 399 x y
Content-Length: 0
"""
    )


def test_trying_has_a_timestamp_and_no_tag() -> None:
    message = replied(build.reply(request(INVITE), 100, to_tag="t1"))
    assert message.header(names.TIMESTAMP) == "54"
    assert message.to_tag is None
    assert not replied(build.reply(request(INVITE), 180)).has(names.TIMESTAMP)


def test_reply_has_the_body_it_is_given() -> None:
    message = replied(build.reply(request(INVITE), 200, "Fine", body=b"\xff\r\n", content_type="text/plain"))
    assert message.reason == "Fine"
    assert message.header(names.CONTENT_TYPE) == "text/plain"
    assert message.header(names.CONTENT_LENGTH) == "3"
    assert message.body == b"\xff\r\n"


def test_a_tag_that_is_there_stays() -> None:
    original = request("BYE sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example\nTo: sip:b@example.com ; tag = old")
    assert replied(build.reply(original, 200, to_tag="new")).to_tag == "old"


def test_a_broken_to_gets_no_tag() -> None:
    original = request('OPTIONS sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example\nTo: "x <sip:a@example.com>')
    assert b"tag=" not in build.reply(original, 400, to_tag="new")


def test_reply_to_a_request_without_its_headers_has_what_is_there() -> None:
    original = request("OPTIONS sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example")
    data = build.reply(original, 400, to_tag="new")
    assert data == b"SIP/2.0 400 Bad Request\r\nVia: SIP/2.0/UDP a.example\r\nContent-Length: 0\r\n\r\n"


def test_doubled_headers_are_copied_once() -> None:
    original = request(
        "OPTIONS sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example\nCSeq: 1 OPTIONS\nCSeq: 2 OPTIONS"
    )
    assert replied(build.reply(original, 400)).headers(names.CSEQ) == ["1 OPTIONS"]


def test_a_malformed_request_is_answered_too() -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse(wire("OPTIONS sip:a@example.com SIP/7.0\nVia: SIP/2.0/UDP a.example\nCall-ID: x"))
    broken = caught.value.message
    assert isinstance(broken, Request)
    assert build.can_reply(broken)
    assert replied(build.reply(broken, caught.value.status, caught.value.reason)).status == 505


@pytest.mark.parametrize(
    ("text", "answerable"),
    [
        ("OPTIONS sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example", True),
        ("ACK sip:a@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example", False),
        ("OPTIONS sip:a@example.com SIP/2.0\nX: y", False),
        ("OPTIONS sip:a@example.com SIP/2.0\nVia: nonsense", True),
    ],
)
def test_only_what_has_a_way_back_is_answered(text: str, answerable: bool) -> None:
    assert build.can_reply(request(text)) is answerable


@pytest.mark.parametrize("text", ["a\r\nVia: x", "a\n", "\r"])
def test_a_line_break_in_header_text_is_our_own_fault(text: str) -> None:
    original = request(INVITE)
    with pytest.raises(AssertionError, match="line break"):
        build.reply(original, 200, text)
    with pytest.raises(AssertionError, match="line break"):
        build.reply(original, 200, to_tag=text)
    with pytest.raises(AssertionError, match="line break"):
        build.reply(original, 200, content_type=text)
    with pytest.raises(AssertionError, match="line break"):
        build.reply(original, 200, headers=[text])
    with pytest.raises(AssertionError, match="line break"):
        build.cancel(OUTGOING, text)


def test_every_status_has_a_phrase() -> None:
    assert build.reason_phrase(486) == "Busy Here"
    assert build.reason_phrase(499) == "Bad Request"
    assert build.reason_phrase(700) == "Unknown"
    assert all(100 <= status < 700 and phrase for status, phrase in build.REASON_PHRASES.items())


def test_via_of_who_is_where_it_says_stays_as_it_came() -> None:
    message = with_via("v:  SIP/2.0/UDP  192.0.2.1:5070 ;branch=z9hG4bKabc")
    build.stamp_via(message, "192.0.2.1", 40000)
    assert message.lines[1] == "v:  SIP/2.0/UDP  192.0.2.1:5070 ;branch=z9hG4bKabc"


@pytest.mark.parametrize(
    ("via", "host", "line"),
    [
        (
            "Via: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bK1",
            "192.0.2.7",
            "Via: SIP/2.0/UDP 10.1.1.1:4540;rport=40000;received=192.0.2.7;branch=z9hG4bK1",
        ),
        (
            "Via: SIP/2.0/UDP 192.0.2.7;RPort",
            "192.0.2.7",
            "Via: SIP/2.0/UDP 192.0.2.7;received=192.0.2.7;rport=40000",
        ),
        ("v: SIP/2.0/UDP a.example;x=1", "192.0.2.7", "Via: SIP/2.0/UDP a.example;x=1;received=192.0.2.7"),
        (
            'Via: SIP/2.0/UDP a.example;branch=1 , SIP/2.0/TCP b.example;rport;x="a,b"',
            "192.0.2.7",
            'Via: SIP/2.0/UDP a.example;branch=1;received=192.0.2.7, SIP/2.0/TCP b.example;rport;x="a,b"',
        ),
        (
            'Via: SIP / 2.0 /UDP\n   a.example ;rport\n  ;x=";rport"',
            "2001:db8::9",
            'Via: SIP / 2.0 /UDP a.example ;x=";rport";received=2001:db8::9;rport=40000',
        ),
        (
            "Via: SIP/2.0/UDP a.example;received=203.0.113.9;rport=9;branch=1",
            "192.0.2.7",
            "Via: SIP/2.0/UDP a.example;branch=1;received=192.0.2.7;rport=40000",
        ),
        (
            "Via: SIP/2.0/UDP 192.0.2.7;received=203.0.113.9",
            "192.0.2.7",
            "Via: SIP/2.0/UDP 192.0.2.7;received=192.0.2.7",
        ),
    ],
)
def test_via_is_stamped_with_the_source(via: str, host: str, line: str) -> None:
    message = with_via(via)
    others = [each for each in message.lines if each != message.lines[1]]
    build.stamp_via(message, host, 40000)
    assert message.lines[1] == line
    assert [each for each in message.lines if each != line] == others
    stamped, anew = message.top_via, parse(message.to_bytes()).top_via
    assert (stamped.raw, stamped.params) == (anew.raw, anew.params)
    assert stamped.received == host


def test_the_source_stands_for_a_via_that_cannot_be_read() -> None:
    message = with_via("Via: SIP/2.0/UDP 192.0.2.15;;,;,,")
    build.stamp_via(message, "192.0.2.7", 40000)
    assert message.top_via.received == "192.0.2.7"
    assert build.response_port(message.top_via) == 40000
    assert b"\r\nVia: SIP/2.0/UDP 192.0.2.15;;,;,,\r\n" in build.reply(message, 400)


@pytest.mark.parametrize(
    ("via", "port"),
    [
        ("SIP/2.0/UDP a.example;received=192.0.2.7;rport=40000", 40000),
        ("SIP/2.0/UDP a.example:5070;received=192.0.2.7", 5070),
        ("SIP/2.0/UDP a.example;maddr=192.0.2.99", 5060),
        ("SIP/2.0/TLS a.example", 5061),
    ],
)
def test_response_goes_to_the_port_that_was_asked_for(via: str, port: int) -> None:
    assert build.response_port(Via.parse(via)) == port


OUTGOING = build.OutgoingRequest(
    "INVITE",
    "sip:bob@192.0.2.5:5060",
    ["Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKours", *request(INVITE).lines],
    b"v=0",
    "z9hG4bKours",
)


def test_outgoing_request_is_written_once() -> None:
    data = OUTGOING.data
    assert data.startswith(
        b"INVITE sip:bob@192.0.2.5:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKours\r\n"
    )
    assert data.endswith(b"Content-Length: 0\r\n\r\nv=0")
    assert OUTGOING.data is data


def test_ack_has_the_to_of_the_response_and_the_rest_of_the_invite() -> None:
    answer = response(
        "SIP/2.0 486 Busy Here\nVia: SIP/2.0/UDP 192.0.2.99\nt: <sip:bob@example.com>;tag=b\nCSeq: 4 INVITE"
    )
    acknowledgement = build.ack(OUTGOING, answer)
    assert acknowledgement.branch == "z9hG4bKours"
    assert acknowledgement.data == wire(
        """
ACK sip:bob@192.0.2.5:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKours
Max-Forwards: 70
f: "Alice"
  <sip:alice@example.com>;tag=123
t: <sip:bob@example.com>;tag=b
i: a84b4c76e66710
CSeq: 0004 ACK
Route: <sip:p1.example;lr>
route: <sip:p2.example;lr>
Content-Length: 0
"""
    )


def test_cancel_has_the_to_of_the_invite_and_a_reason() -> None:
    cancellation = build.cancel(OUTGOING, "Reason: SIP;cause=200")
    assert cancellation.method == "CANCEL"
    assert cancellation.data == wire(
        """
CANCEL sip:bob@192.0.2.5:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKours
Max-Forwards: 70
f: "Alice"
  <sip:alice@example.com>;tag=123
To: <sip:bob@example.com>
i: a84b4c76e66710
CSeq: 0004 CANCEL
Route: <sip:p1.example;lr>
route: <sip:p2.example;lr>
Reason: SIP;cause=200
Content-Length: 0
"""
    )
    assert b"Reason" not in build.cancel(OUTGOING).data


def test_access_network_of_whoever_answers_is_kept_back() -> None:
    lines = "Via: a\np-access-network-info : GPON\nVia: b\nX: y\nP-Access-Network-Info: ADSL;network-provided"
    left = build.without_top_via(response(f"SIP/2.0 200 OK\n{lines}"))
    assert left == wire("SIP/2.0 200 OK\nVia: b\nX: y")


@pytest.mark.parametrize(
    ("vias", "left"),
    [
        ("Via: SIP/2.0/UDP us;branch=1\nv :  SIP/2.0/UDP  them", "v :  SIP/2.0/UDP  them\n"),
        ("v: SIP/2.0/UDP us;branch=1 ,  SIP/2.0/UDP  them\nVia: x", "v:  SIP/2.0/UDP  them\nVia: x\n"),
        ('Via: SIP/2.0/UDP us;x="a,b",\n SIP/2.0/UDP them', "Via:\n SIP/2.0/UDP them\n"),
        ('Via: SIP/2.0/UDP us;x="a,b"', ""),
    ],
)
def test_only_the_top_via_value_is_taken_away(vias: str, left: str) -> None:
    body = b"\x00\r\n"
    message = response(f"SIP/2.0 200 OK\nX:  1 \n{vias}\nY: 2", body)
    assert build.without_top_via(message) == wire(f"SIP/2.0 200 OK\nX:  1 \n{left}Y: 2", body)


def test_on_a_stream_the_end_of_a_response_is_told() -> None:
    message = response("SIP/2.0 200 OK\nVia: SIP/2.0/UDP us\nX: 1", b"body")
    assert build.without_top_via(message, stream=True) == wire("SIP/2.0 200 OK\nX: 1\nContent-Length: 4", b"body")
    message = response("SIP/2.0 200 OK\nVia: SIP/2.0/UDP us\nl: 4", b"body")
    assert build.without_top_via(message, stream=True) == wire("SIP/2.0 200 OK\nl: 4", b"body")
