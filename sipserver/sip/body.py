"""The session description in a message that may be put into other words, and the message around it.

Everything else of a body stays byte for byte as it came, the other parts of a multipart body included. What is signed
is never touched: a message with an Identity (RFC 8224 §4: it covers the keys in the description), and S/MIME
(RFC 3261 §23).
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import multipart, names
from sipserver.sip.message import Message

MEDIA_TYPE: Final = "application/sdp"
MAX_DESCRIPTION: Final = 32_000
"""Bytes of a description that is looked at."""

_IDENTITY: Final = "identity"
_CHANGEABLE: Final = ("multipart/mixed", "multipart/alternative", "multipart/related")


def find_description(message: Message) -> tuple[int, int] | None:
    """Where in the body the session description begins and ends; None where there is none that may be changed."""
    if not message.body or not message.has(names.CONTENT_TYPE):
        return None
    content_type = message.header(names.CONTENT_TYPE) or ""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == MEDIA_TYPE:
        span: tuple[int, int] | None = (0, len(message.body))
    elif kind in _CHANGEABLE:
        span = multipart.span(message.body, content_type, MEDIA_TYPE)
    else:
        return None
    if span is None or not 0 < span[1] - span[0] <= MAX_DESCRIPTION or _is_fixed(message):
        return None
    return span


def _is_fixed(message: Message) -> bool:
    """Whether the body is signed, compressed, or describes something else than the session (RFC 3959)."""
    if message.has(_IDENTITY):
        return True
    encoding = message.header(names.CONTENT_ENCODING)
    if encoding is not None and encoding.lower() != "identity":
        return True
    disposition = message.header("content-disposition")
    return disposition is not None and disposition.partition(";")[0].strip().lower() != "session"


def replaced(body: bytes, span: tuple[int, int], description: bytes) -> bytes:
    """The body with another description in this place."""
    return body[: span[0]] + description + body[span[1] :]


def with_length(lines: list[str], length: int) -> list[str]:
    """The header lines with this Content-Length where they have one (RFC 3261 §20.14)."""
    return [
        f"Content-Length: {length}" if _names_length(line) else line
        for line in lines
    ]  # fmt: skip


def _names_length(line: str) -> bool:
    # Both forms of the name begin with one of these; nearly all lines are told apart by it.
    return line[:1] in "cClL" and names.canonical_name(line.partition(":")[0]) == names.CONTENT_LENGTH
