"""Messages for tests, written with plain line ends and sent with CRLF."""

from __future__ import annotations

from sipserver.sip.message import Request, Response, parse

LINES = {
    "Via": "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKabc;rport",
    "Max-Forwards": "70",
    "From": "<sip:alice@example.com>;tag=123",
    "To": "<sip:bob@example.com>",
    "Call-ID": "a84b4c76e66710",
    "CSeq": "1 INVITE",
}


def written(start_line: str, *extra: str, **changed: str | None) -> str:
    """A valid message with some headers changed (``_`` for ``-`` in their names) or left out, and lines added."""
    lines = LINES | {name.replace("_", "-"): value for name, value in changed.items()}
    return "\n".join([start_line, *(f"{name}: {value}" for name, value in lines.items() if value is not None), *extra])


def wire(text: str, body: bytes = b"") -> bytes:
    """The head of a message as it goes on the wire: ``\\n`` becomes CRLF, the blank line and the body follow."""
    return text.strip("\n").replace("\n", "\r\n").encode("utf-8") + b"\r\n\r\n" + body


def request(text: str, body: bytes = b"") -> Request:
    """The request that is written here."""
    message = parse(wire(text, body))
    assert isinstance(message, Request)
    return message


def response(text: str, body: bytes = b"") -> Response:
    """The response that is written here."""
    message = parse(wire(text, body))
    assert isinstance(message, Response)
    return message
