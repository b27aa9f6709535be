"""Messages and timers for the tests of the transaction machines."""

from __future__ import annotations

from collections.abc import Sequence

from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import Effect, Send, SetTimer
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.timers import Timers

TIMERS = Timers(t1=1.0, t2=4.0, t4=5.0, d=40.0)
"""Values that differ from each other and from the defaults, so that none is taken for another."""


def request(
    method: str = "INVITE",
    *,
    via: str = "SIP/2.0/UDP client.test:5070;branch=z9hG4bKabc",
    uri: str = "sip:bob@example.test",
    to_tag: str = "",
    from_tag: str = ";tag=caller",
    call_id: str = "call-1",
    cseq: int = 1,
) -> Request:
    """A request as it arrives."""
    text = (
        f"{method} {uri} SIP/2.0\r\nVia: {via}\r\nFrom: <sip:alice@example.test>{from_tag}\r\n"
        f"To: <sip:bob@example.test>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\r\n"
    )
    message = parse(text.encode())
    assert isinstance(message, Request)
    return message


def response(status: int, method: str = "INVITE", *, to_tag: str = "callee") -> Response:
    """A response to ``outgoing``."""
    text = (
        f"SIP/2.0 {status} Some Phrase\r\nVia: SIP/2.0/UDP server.test;branch=z9hG4bKout\r\n"
        f"From: <sip:alice@example.test>;tag=caller\r\nTo: <sip:bob@example.test>;tag={to_tag}\r\n"
        f"Call-ID: call-1\r\nCSeq: 1 {method}\r\n\r\n"
    )
    message = parse(text.encode())
    assert isinstance(message, Response)
    return message


def outgoing(method: str = "INVITE") -> OutgoingRequest:
    """A request of our own."""
    lines = [
        "Via: SIP/2.0/UDP server.test;branch=z9hG4bKout", "Max-Forwards: 69",
        "From: <sip:alice@example.test>;tag=caller", "To: <sip:bob@example.test>", "Call-ID: call-1",
        f"CSeq: 1 {method}", "Content-Length: 0",
    ]  # fmt: skip
    return OutgoingRequest(method, "sip:bob@192.0.2.2", lines, b"", "z9hG4bKout")


def sent(effects: Sequence[Effect]) -> bytes:
    """What is sent; fails where that is not exactly one message, in the last place."""
    assert [type(each) for each in effects].count(Send) == 1
    last = effects[-1]
    assert isinstance(last, Send)
    return last.data


def timers_set(effects: Sequence[Effect]) -> dict[str, float]:
    """The timers that are set, by name; fails where one is set twice."""
    found = [each for each in effects if isinstance(each, SetTimer)]
    assert len({each.timer for each in found}) == len(found)
    return {each.timer: each.after for each in found}
