"""SIPS: what was asked for by it goes on over TLS at each hop, or not at all (RFC 3261 §26.2.2, §16.6; RFC 5630 §4).

A request is secure when its Request-URI is SIPS, or when it came by a route of ours that is: then it belongs to a
dialog that was begun so. Such a request goes to SIPS contacts only (``targets``), over TLS only, whatever the next hop
calls itself. A SIP request may go to a contact that registered as SIPS, over TLS as well; but it stays a SIP request,
since its caller never promised to be reached by TLS.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.flow import SECURED, Flow
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address

SIPS: Final = "sips"


def check_contact(request: Request) -> None:
    """RFC 3261 §8.1.1.8: who asks by SIPS is reached by SIPS. Raises SipError(400)."""
    if not request.has(names.CONTACT):
        return
    for value in request.values(names.CONTACT):
        try:
            scheme = Address.parse(value).uri.scheme
        except SipError:
            raise SipError(400, "Bad Contact") from None
        if scheme != SIPS:
            raise SipError(400, "Contact Must Be SIPS")


def may_leave(is_secure: bool, hop: Uri, flow: Flow) -> bool:
    """Whether a request may go to this next hop over this flow."""
    return flow.transport in SECURED or not (is_secure or hop.scheme == SIPS)


def uri_for(contact: str, is_secure: bool) -> str:
    """The Request-URI for this contact: one that registered as SIPS is called by SIP where that was asked for."""
    if is_secure or contact[:5].lower() != "sips:":
        return contact
    return f"sip:{contact[5:]}"
