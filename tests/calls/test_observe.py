"""What the record takes from messages; nothing that a peer sends makes it raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls import observe
from sipserver.sip import sdp
from sipserver.sip.message import Message, Request
from support.sdp import AUDIO, body, description
from support.sip import request, response, written

SDP = body(AUDIO)


def invite(*lines: str, content: bytes = b"") -> Message:
    head = ["INVITE sip:bob@example.test SIP/2.0", "Call-ID: 1@host", *lines]
    return request("\n".join(head), content)


def test_agent_of_a_request() -> None:
    assert observe.agent(invite("User-Agent: baresip v1.0.0 (x86_64/linux)")) == "baresip v1.0.0 (x86_64/linux)"


def test_agent_of_a_response() -> None:
    assert observe.agent(response("SIP/2.0 200 OK\nServer: desk phone")) == "desk phone"


def test_no_agent() -> None:
    assert observe.agent(invite()) is None
    assert observe.agent(invite("User-Agent:")) is None


def test_agent_is_decoded_printable_and_short() -> None:
    assert observe.agent(invite("User-Agent: Télé\x1b[31m\x00")) == "Télé\ufffd[31m\ufffd"
    assert observe.agent(invite("User-Agent: " + "x" * 500)) == "x" * observe.MAX_TEXT
    assert observe.agent(invite("User-Agent: " + "é" * 500)) == "é" * observe.MAX_TEXT


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('Reason: SIP;cause=200;text="Call completed elsewhere"', "Call completed elsewhere"),
        ('Reason: SIP ; cause=580 ; text="a, b", Q.850;cause=16', "a, b"),
        ("Reason: Q.850;cause=16", "Q.850 16"),
        ("Reason: preemption", "preemption"),
        ("Reason: SIP;;cause", "SIP;;cause"),
        ("Reason:", None),
        ("Subject: none", None),
    ],
)
def test_reason(line: str, text: str | None) -> None:
    assert observe.reason(invite(line)) == text


@pytest.mark.parametrize("value", ["application/sdp", "Application/SDP", " application/sdp ;charset=utf-8"])
def test_description_in_the_body(value: str) -> None:
    assert observe.media(invite(f"Content-Type: {value}", content=SDP)) == description(AUDIO)


def test_compact_form_of_the_type() -> None:
    assert observe.media(invite("c: application/sdp", content=SDP)) == description(AUDIO)


@pytest.mark.parametrize(
    ("lines", "content"),
    [
        (("Content-Type: application/sdp",), b""),
        ((), SDP),
        (("Content-Type: text/plain",), SDP),
        (("Content-Type: application/sdp-fragment",), SDP),
        (("Content-Type: multipart/mixed",), SDP),
        (("Content-Type: multipart/mixed;;",), SDP),
        (("Content-Type: multipart/mixed;boundary=" + "b" * 71,), SDP),
        (("Content-Type: multipart/mixed;boundary=b",), b"--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b--\r\n"),
        (("Content-Type: multipart/mixed;boundary=b",), b"--b\r\nContent-Type: application/sdp"),
    ],
)
def test_no_description(lines: tuple[str, ...], content: bytes) -> None:
    assert observe.media(invite(*lines, content=content)) is None


@pytest.mark.parametrize("boundary", ["gc0p4", '"gc0p4"'])
def test_description_as_a_part(boundary: str) -> None:
    content = b"preamble\r\n--gc0p4\r\nContent-Type: text/plain\r\n\r\nhi\r\n--gc0p4\r\nCONTENT-TYPE : application/sdp"
    content += b"\r\nContent-Disposition: session\r\n\r\n" + SDP + b"\r\n--gc0p4--\r\n"
    message = invite(f"Content-Type: multipart/mixed; boundary={boundary}", content=content)
    assert observe.media(message) == description(AUDIO)


def test_description_as_the_first_part_without_preamble() -> None:
    content = b"--b\r\nContent-Type: application/sdp\r\n\r\n" + SDP + b"\r\n--b--"
    message = invite("Content-Type: multipart/alternative;boundary=b", content=content)
    assert observe.media(message) == description(AUDIO)


def test_broken_description_is_unreadable() -> None:
    assert observe.media(invite("Content-Type: application/sdp", content=b"v=0\r\nm=\r\n")) is sdp.UNREADABLE


def test_compressed_description_is_unreadable() -> None:
    lines = "Content-Type: application/sdp", "Content-Encoding: gzip"
    assert observe.media(invite(*lines, content=b"\x1f\x8b")) is sdp.UNREADABLE


def test_identity_is_no_compression() -> None:
    lines = "Content-Type: application/sdp", "Content-Encoding: identity"
    assert observe.media(invite(*lines, content=SDP)) == description(AUDIO)


VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60)


@given(VALUES, VALUES, VALUES, st.binary(max_size=80))
def test_no_header_or_body_makes_it_raise(agent: str, reason: str, content_type: str, content: bytes) -> None:
    lines = [f"User-Agent: {agent}", f"Reason: {reason}", f"Content-Type: multipart/{content_type}"]
    message = Request("INVITE", "sip:b@example.test", lines, ["user-agent", "reason", "content-type"], content)
    for found in (observe.agent(message), observe.reason(message)):
        assert found is None or (len(found) <= observe.MAX_TEXT and found.isprintable())
    observe.media(message)


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("application/sdp", b"hello", "Bad SDP"),
        ("application/sdp", b"v=0\r\nm=x\r\n", "Bad media line in SDP"),
        ("multipart/mixed;boundary=b", b"--b\r\nContent-Type: application/sdp\r\n\r\nhello\r\n--b--", "Bad SDP"),
        ("text/plain", b"hello", None),
    ],
)
def test_why_a_description_cannot_be_read(kind: str, body: bytes, why: str | None) -> None:
    message = request(written("INVITE sip:b@example.test SIP/2.0", f"Content-Type: {kind}"))
    message.body = body
    assert observe.why_unreadable(message) == why
    assert (observe.media(message) is sdp.UNREADABLE) == (why is not None)


def test_reliable_provisional_responses() -> None:
    assert observe.is_reliable(response(written("SIP/2.0 183 Progress", "RSeq: 1")))
    assert not observe.is_reliable(response(written("SIP/2.0 183 Progress")))
