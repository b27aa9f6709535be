"""From SIP messages to the plain values of the record. Nothing here raises for what a peer sent.

Text from the network is kept printable and short; what it could do to a terminal or a spreadsheet is the
business of whoever shows it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sipserver.sip import multipart, names, sdp
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Rewritten, text
from sipserver.sip.sdp import Description
from sipserver.sip.values import parse_params

MAX_TEXT: Final = 200
"""Characters kept of an agent, a reason or a detail."""


def printable(value: str | None) -> str | None:
    """The text, decoded, at most MAX_TEXT characters, unprintable ones as U+FFFD; None for none or an empty one."""
    if not value:
        return None
    value = text(value[: MAX_TEXT * 4])[:MAX_TEXT]
    if not value.isprintable():
        value = "".join([char if char.isprintable() else "\ufffd" for char in value])
    return value


def agent(message: Message) -> str | None:
    """What the sender says it is: User-Agent, or Server in a response (RFC 3261 §20.35, §20.41)."""
    value = message.header(names.USER_AGENT)
    if value is None:
        value = message.header(names.SERVER)
    # Many endpoints say the same, and what they say is kept with each call.
    return _known(value) if value is not None and len(value) <= MAX_TEXT else printable(value)


_known: Final = lru_cache(1_024)(printable)


def reason(message: Message) -> str | None:
    """Why, by the first Reason value (RFC 3326 §2): its text, else its protocol and cause, such as ``Q.850 16``."""
    values = message.values(names.REASON)
    if not values:
        return None
    protocol, semicolon, rest = values[0].partition(";")
    try:
        params = parse_params(rest.strip(" \t")) if semicolon else {}
    except SipError:
        return printable(values[0])
    cause = params.get("cause")
    return printable(params.get("text") or (f"{protocol.strip()} {cause}" if cause else protocol.strip()))


def is_reliable(response: Message) -> bool:
    """Whether this provisional response is acknowledged by PRACK (RFC 3262 §3)."""
    return response.has("rseq")


def media(message: Message) -> Description | None:
    """The session description in the body (RFC 4566), also as a part of a multipart body (RFC 5621).

    None where there is none; ``sdp.UNREADABLE`` where one is meant and cannot be read.
    """
    if not message.body:
        return None
    try:
        return _described(message)
    except SipError:
        return sdp.UNREADABLE


def why_unreadable(message: Message) -> str | None:
    """Why ``media`` could not read this body, for an operator; None where it could."""
    try:
        _described(message)
    except SipError as error:
        return error.reason
    return None


def _described(message: Message) -> Description | None:
    """What ``media`` returns; raises SipError where a description is meant and cannot be read."""
    content_type = message.header(names.CONTENT_TYPE)
    if content_type is None:
        return None
    whole = message.original if isinstance(message, Rewritten) else message.body
    body: bytes | None = whole
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        body = _sdp_part(whole, content_type)
    elif kind != "application/sdp":
        return None
    if body is None:
        return None
    # RFC 3261 §20.12: a body that is compressed says something, but not to us.
    if message.has(names.CONTENT_ENCODING) and message.header(names.CONTENT_ENCODING) != "identity":
        raise SipError(400, "Content-Encoding")
    return sdp.parse(body)


def _sdp_part(body: bytes, content_type: str) -> bytes | None:
    """The first part that is a session description (RFC 2046 §5.1)."""
    for part in multipart.parts(body, content_type):
        if part.kind == "application/sdp":
            return part.body
    return None
