from __future__ import annotations

import pytest

from sipserver.sip import body
from sipserver.sip.message import Message, parse

SDP = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\n"
MIXED = (
    b"--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Type: application/sdp\r\n"
    b"Content-ID: <1@x>\r\n\r\n" + SDP + b"\r\n--b1--\r\n"
)


def message(content: bytes, *lines: str, content_type: str = "application/sdp") -> Message:
    head = [
        "INVITE sip:bob@example.test SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "From: <sip:a@b>;tag=1",
        "To: <sip:bob@example.test>", "Call-ID: c", "CSeq: 1 INVITE", f"Content-Type: {content_type}", *lines,
        f"Content-Length: {len(content)}", "", "",
    ]  # fmt: skip
    return parse("\r\n".join(head).encode() + content)


def test_description_is_the_whole_body() -> None:
    assert body.find_description(message(SDP)) == (0, len(SDP))
    assert body.find_description(message(SDP, content_type="Application/SDP ; charset=utf-8")) == (0, len(SDP))


def test_description_in_a_multipart_body_is_replaced_and_nothing_else() -> None:
    span = body.find_description(message(MIXED, content_type='multipart/mixed;boundary="b1"'))
    assert span is not None
    assert MIXED[span[0] : span[1]] == SDP
    assert body.replaced(MIXED, span, b"v=0\r\nnew") == MIXED.replace(SDP, b"v=0\r\nnew")


@pytest.mark.parametrize(
    ("lines", "content_type"),
    [
        (("Identity: eyJ;info=<https://x/c>",), "application/sdp"),
        (("y: eyJ;info=<https://x/c>",), "application/sdp"),
        (("Content-Encoding: gzip",), "application/sdp"),
        (("Content-Disposition: early-session",), "application/sdp"),
        ((), "application/pkcs7-mime"),
        ((), "multipart/signed;boundary=b1"),
        ((), "text/plain"),
    ],
)
def test_what_is_signed_or_means_something_else_is_left_alone(lines: tuple[str, ...], content_type: str) -> None:
    content = MIXED if content_type.startswith("multipart") else SDP
    assert body.find_description(message(content, *lines, content_type=content_type)) is None


def test_no_body_too_large_a_body_and_a_multipart_body_without_description_are_left_alone() -> None:
    assert body.find_description(message(b"")) is None
    assert body.find_description(message(b"v" * (body.MAX_DESCRIPTION + 1))) is None
    assert (
        body.find_description(message(b"--b1\r\n\r\nx\r\n--b1--", content_type="multipart/mixed;boundary=b1")) is None
    )
    assert body.find_description(message(MIXED, content_type="multipart/mixed")) is None


@pytest.mark.parametrize("line", ["Content-Length: 7", "l: 7", "CONTENT-LENGTH : 7"])
def test_length_is_written_anew_in_any_form(line: str) -> None:
    lines = ["Call-ID: c", "Contact: <sip:a@b>", line, "Content-Type: application/sdp"]
    assert body.with_length(lines, 12) == [*lines[:2], "Content-Length: 12", lines[3]]
