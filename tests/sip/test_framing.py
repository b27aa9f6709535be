"""Framing of streams: every case whole, and byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.framing import PING, StreamFramer
from sipserver.sip.message import Limits, Request

START = b"OPTIONS sip:example.test SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKx\r\n"


def framed(length: bytes, body: bytes = b"") -> bytes:
    """A message with this line for its Content-Length."""
    return START + length + b"\r\n\r\n" + body


def in_pieces(
    stream: bytes, size: int, limits: Limits | None = None
) -> tuple[list[bytes], MalformedMessage | None, int]:
    """What a stream that arrives in pieces of this size gives: frames, the fault, and what is left."""
    framer = StreamFramer(limits or Limits())
    frames: list[bytes] = []
    for at in range(0, len(stream), size):
        try:
            frames += framer.feed(stream[at : at + size])
        except MalformedMessage:
            break
    return frames, framer.fault, framer.pending


@pytest.fixture(params=["whole", "byte by byte"])
def size(request: pytest.FixtureRequest) -> int:
    return 10**9 if request.param == "whole" else 1


@pytest.mark.parametrize(
    "length",
    [
        b"Content-Length: 4", b"l: 4", b"L:4", b"l :4", b"CONTENT-LENGTH\t:  4 ", b"content-length:\r\n 4",
        b"Content-Length: 0004", b"Content-Length: 4\r\n ", b"Content-Length-Of: 9\r\nLocation: 7\r\nl: 4",
        b"Subject: a\r\n l: 9\r\nl: 4",
    ],
)  # fmt: skip
def test_every_spelling_of_content_length_is_read(length: bytes, size: int) -> None:
    stream = framed(length, b"body")
    assert in_pieces(stream, size) == ([stream], None, 0)


def test_messages_come_out_in_order_however_they_arrive(size: int) -> None:
    messages = [framed(b"l: 0"), framed(b"l: 8", b"\r\n\r\n\r\n\r\n"), framed(b"l: 3", b"abc")]
    assert in_pieces(b"".join(messages), size) == (messages, None, 0)


def test_an_unfinished_message_waits(size: int) -> None:
    whole, part = framed(b"l: 0"), framed(b"l: 9", b"12345678")
    assert in_pieces(whole + part, size) == ([whole], None, len(part))


def test_a_message_in_one_read_is_not_copied() -> None:
    data = framed(b"l: 4", b"body")
    (frame,) = StreamFramer().feed(data)
    assert frame is data


def test_crlfs_between_messages_mean_nothing(size: int) -> None:
    message = framed(b"l: 0")
    assert in_pieces(b"\r\n" + message + b"\r\n" + message + b"\r\n", size) == ([message, message], None, 0)


def test_a_double_crlf_is_a_ping(size: int) -> None:
    message = framed(b"l: 0")
    frames, fault, pending = in_pieces(b"\r\n\r\n" + message + b"\r\n\r\n", size)
    assert frames == [PING, message, PING]
    assert frames[0] is PING
    assert (fault, pending) == (None, 0)


def test_a_run_of_pings_in_one_read_is_one() -> None:
    assert StreamFramer().feed(b"\r\n" * 1000) == [PING]


def test_a_single_crlf_is_a_pong_and_forgotten_by_the_next_message() -> None:
    framer = StreamFramer()
    assert framer.feed(b"\r\n") == []
    assert framer.feed(framed(b"l: 0")) == [framed(b"l: 0")]
    assert framer.feed(b"\r\n") == []
    assert framer.pending == 0


def test_half_a_crlf_waits_for_its_other_half() -> None:
    framer = StreamFramer()
    assert framer.feed(b"\r\n\r") == []
    assert framer.pending == 1
    assert framer.feed(b"\n") == [PING]


@pytest.mark.parametrize(
    "garbage", [b"\r\n\nOPTIONS", b"\n", b"\r\rX", b" OPTIONS", b"\x16\x03\x01", b"\x00", b"\xff\xfe"]
)
def test_what_cannot_begin_a_message_ends_the_stream(garbage: bytes, size: int) -> None:
    frames, fault, pending = in_pieces(garbage, size)
    assert (frames, pending) == ([], 0)
    assert fault is not None
    assert (fault.status, fault.reason, fault.message) == (400, "Bad start of message", None)


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (b"Subject: none", "Missing Content-Length"),
        (b"Subject: a\r\n l: 9", "Missing Content-Length"),
        (b"l: 4\r\nContent-Length: 4", "Several Content-Length"),
        (b"l: 4\r\nl: 5", "Several Content-Length"),
        (b"l: 4, 4", "Bad Content-Length"),
        (b"l: ", "Bad Content-Length"),
        (b"l: -1", "Bad Content-Length"),
        (b"l: +4", "Bad Content-Length"),
        (b"l: 0x4", "Bad Content-Length"),
        (b"l: 4 4", "Bad Content-Length"),
        ("l: \N{SUPERSCRIPT TWO}".encode("latin-1"), "Bad Content-Length"),
        (b"l: 00000000004", "Bad Content-Length"),
    ],
)
def test_without_one_valid_content_length_the_stream_ends(length: bytes, reason: str, size: int) -> None:
    _, fault, pending = in_pieces(framed(length, b"body"), size)
    assert fault is not None
    assert (fault.status, fault.reason, pending) == (400, reason, 0)
    assert isinstance(fault.message, Request)
    assert fault.message.top_via.branch == "z9hG4bKx"


def test_a_body_beyond_the_bound_is_answered_413(size: int) -> None:
    _, fault, pending = in_pieces(framed(b"l: 11"), size, Limits(body=10))
    assert fault is not None
    assert (fault.status, pending) == (413, 0)
    assert isinstance(fault.message, Request)


def test_a_message_beyond_the_bound_is_answered_513(size: int) -> None:
    _, fault, _ = in_pieces(framed(b"l: 100"), size, Limits(message=150, body=100))
    assert fault is not None
    assert fault.status == 513
    assert isinstance(fault.message, Request)


def test_an_endless_header_section_is_answered_513_and_not_kept(size: int) -> None:
    _, fault, pending = in_pieces(START + b"X: " + b"a" * 1000, size, Limits(message=300))
    assert fault is not None
    assert (fault.status, pending) == (513, 0)
    assert isinstance(fault.message, Request)
    assert fault.message.names == ["via"]


def test_a_fault_in_what_is_no_sip_has_no_message() -> None:
    with pytest.raises(MalformedMessage) as caught:
        StreamFramer().feed(b"hello world\r\nX: y\r\n\r\n")
    assert caught.value.reason == "Missing Content-Length"
    assert caught.value.message is None


def test_what_came_whole_before_a_fault_is_handed_over_first() -> None:
    framer = StreamFramer()
    assert framer.feed(framed(b"l: 0") + framed(b"l: x")) == [framed(b"l: 0")]
    assert framer.fault is not None
    with pytest.raises(MalformedMessage):
        framer.feed(framed(b"l: 0"))


def test_a_faulty_stream_stays_faulty() -> None:
    framer = StreamFramer()
    for _ in range(2):
        with pytest.raises(MalformedMessage):
            framer.feed(framed(b"l: x"))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_arbitrary_bytes_raise_nothing_but_malformed_message(pieces: list[bytes]) -> None:
    framer = StreamFramer(Limits(message=300, body=100))
    for piece in pieces:
        try:
            framer.feed(piece)
        except MalformedMessage:
            return
        assert framer.pending <= 300


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_any_cut_of_a_stream_gives_the_same_messages(bodies: list[bytes], size: int) -> None:
    messages = [framed(b"l: %d" % len(body), body) for body in bodies]
    assert in_pieces(b"".join(messages), size) == (messages, None, 0)


@given(st.binary(max_size=120), st.integers(1, 5))
def test_a_damaged_stream_gives_the_same_messages_in_any_cut(noise: bytes, size: int) -> None:
    stream = framed(b"l: 2", b"ab") + noise + framed(b"l: 0")
    whole = [each for each in in_pieces(stream, 10**9)[0] if each is not PING]
    assert [each for each in in_pieces(stream, size)[0] if each is not PING] == whole
