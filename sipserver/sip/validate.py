"""Whether a message can be worked with at all (RFC 3261 §8.1.1, §16.3 step 1, §18.3).

Only what every element has to rely on is looked at, and what is parsed for it is remembered by the
message. Headers that only some recipient understands are none of this server's business, as
broken as they may be. An Expires that is too large or malformed is left to who uses it
(RFC 4475 §3.1.2.4 lets it count as the default).
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Request, Response

_SINGLE: Final = frozenset(
    (
        names.FROM,
        names.TO,
        names.CALL_ID,
        names.CSEQ,
        names.MAX_FORWARDS,
        names.CONTENT_LENGTH,
        names.CONTENT_TYPE,
        names.EXPIRES,
        names.MIN_EXPIRES,
        names.SESSION_EXPIRES,
        names.MIN_SE,
        names.EVENT,
        names.REFER_TO,
    )
)
"""Headers of which one message has one at most (RFC 3261 §7.3.1); which of two counts would be anyone's guess."""


def check_request(request: Request) -> None:
    """Raise SipError where a request is no valid one; cut off what follows its body.

    A missing tag in From and a missing branch are RFC 2543's and pass (RFC 4475 §3.4.1), and so does
    a missing Max-Forwards, which a proxy adds (RFC 3261 §16.6 step 3). An unknown URI scheme passes too:
    it is answered 416 by who would have to route it.
    """
    _check_headers(request)
    _ = request.from_
    # RFC 3261 §8.1.1.5: the method in CSeq is that of the request; methods are case-sensitive.
    if request.cseq[1] != request.method:
        raise SipError(400, "CSeq method does not match")
    # RFC 3261 §19.1.1: a Request-URI has no header part.
    if request.uri.headers:
        raise SipError(400, "Headers in Request-URI")
    # RFC 3261 §20.22: 0 to 255.
    hops = request.header(names.MAX_FORWARDS)
    # Nearly every client begins with seventy.
    if hops is not None and hops != "70" and (request.number(names.MAX_FORWARDS) or 0) > 255:
        raise SipError(400, "Bad Max-Forwards")
    trim_body(request)


def check_response(response: Response) -> None:
    """Raise SipError where a response is no valid one: whoever receives it drops it (RFC 3261 §18.1.2).

    From has to be there; it is the caller's own, and nobody reads it here.
    """
    _check_headers(response)
    if not response.has(names.FROM):
        raise SipError(400, "Missing From")
    trim_body(response)


def trim_body(message: Message) -> None:
    """Make the body as long as Content-Length says (RFC 3261 §18.3); raises SipError where it is shorter.

    Without Content-Length a datagram's body goes to its end.
    """
    written = message.header(names.CONTENT_LENGTH)
    body = message.body
    if written is None or written == str(len(body)):
        return
    length = message.number(names.CONTENT_LENGTH)
    if length is not None and len(body) != length:
        # RFC 4475 §3.1.1.8: octets after the body are dropped.
        if len(body) < length:
            raise SipError(400, "Body shorter than Content-Length")
        message.body = body[:length]


def _check_headers(message: Message) -> None:
    found = message.names
    if len(message.places) != len(found):
        seen: set[str] = set()
        for name in found:
            if name in seen and name in _SINGLE:
                raise SipError(400, f"Several {names.DISPLAY.get(name, name)}")
            seen.add(name)
    message.read_mandatory()
