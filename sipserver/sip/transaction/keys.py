"""Which transaction a message belongs to, as keys of dictionaries (RFC 3261 §17.1.3, §17.2.3, §9.2).

A peer of RFC 3261 puts the magic cookie before its branch, and branch, sent-by and method say it all.
Without the cookie, or with nothing behind it (RFC 4475 §3.2.1), the rules of RFC 2543 compare the
headers that make a request what it is. The two forms differ in length and never equal each other.

Messages given here have passed ``sip.validate``; a broken one raises SipError.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.values import MAGIC_COOKIE

Key = str | tuple[str | int | None, ...]
"""A client key (text) or a server key (a tuple)."""

_COOKIE_LENGTH: Final = len(MAGIC_COOKIE)


def client_key(branch: str, cseq_method: str) -> str:
    """The client transaction that a response with this branch and CSeq method answers (RFC 3261 §17.1.3)."""
    # A method has no space in it, so no two pairs give the same text.
    return f"{cseq_method} {branch}"


def server_key(request: Request) -> Key:
    """The server transaction of this request; that of the INVITE where it is an ACK (RFC 3261 §17.2.3)."""
    if request.method == "ACK":
        return invite_key_for_ack(request)
    return _server_key(request, request.method)


def answered_key(response: Response) -> Key | None:
    """The server transaction that sent this response; None where that cannot be told (a request of RFC 2543)."""
    via = response.top_via
    branch = via.params.get("branch")
    return (branch, via.host, via.port, response.cseq[1]) if _has_cookie(branch) else None


def invite_key_for_ack(ack: Request) -> Key:
    """The INVITE whose final response this ACK may acknowledge (RFC 3261 §17.2.3)."""
    return _server_key(ack, "INVITE")


def invite_key_for_cancel(cancel: Request) -> Key:
    """The INVITE that this CANCEL means (RFC 3261 §9.2); a CANCEL does nothing to other methods."""
    return _server_key(cancel, "INVITE")


def acknowledges(ack: Request, final: bytes) -> bool:
    """Whether an ACK found by its key is for this final response, whose bytes the server transaction sent.

    RFC 3261 §17.2.3: without the cookie, the To tag of the ACK has to be that of the response. The tag is
    no part of the key, since the INVITE came before it was chosen.
    """
    if _has_cookie(ack.top_via.branch):
        return True
    try:
        return parse(final).to_tag == ack.to_tag
    except SipError:
        # What cannot be compared settles nothing; repeating the response until timer H would help nobody.
        return True


def _has_cookie(branch: str | None) -> bool:
    return branch is not None and len(branch) > _COOKIE_LENGTH and branch.startswith(MAGIC_COOKIE)


def _server_key(request: Request, method: str) -> Key:
    via = request.top_via
    branch = via.params.get("branch")
    if _has_cookie(branch):
        return branch, via.host, via.port, method
    # RFC 3261 §17.2.3: what stands in for the branch. An INVITE is told from others without its To tag,
    # which its ACK and nothing else would write differently.
    to_tag = None if method == "INVITE" else request.to_tag
    return (
        request.uri_text, to_tag, request.from_tag, request.call_id, request.cseq[0], method,
        via.transport, via.host, via.port, branch,
    )  # fmt: skip
