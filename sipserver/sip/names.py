"""Header field names: one lower-case, long form for each, whatever was written (RFC 3261 §7.3.1, §7.3.3).

``KNOWN`` maps the spellings that real endpoints send straight to that form, so that the common
name costs one dictionary look-up; anything else goes through ``canonical_name``.
"""

from __future__ import annotations

import re

VIA = "via"
FROM = "from"
TO = "to"
CALL_ID = "call-id"
CSEQ = "cseq"
CONTACT = "contact"
MAX_FORWARDS = "max-forwards"
ROUTE = "route"
RECORD_ROUTE = "record-route"
PATH = "path"
EXPIRES = "expires"
MIN_EXPIRES = "min-expires"
CONTENT_LENGTH = "content-length"
CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
AUTHORIZATION = "authorization"
PROXY_AUTHORIZATION = "proxy-authorization"
WWW_AUTHENTICATE = "www-authenticate"
PROXY_AUTHENTICATE = "proxy-authenticate"
AUTHENTICATION_INFO = "authentication-info"
PROXY_AUTHENTICATION_INFO = "proxy-authentication-info"
REQUIRE = "require"
PROXY_REQUIRE = "proxy-require"
SUPPORTED = "supported"
UNSUPPORTED = "unsupported"
ALLOW = "allow"
ACCEPT = "accept"
USER_AGENT = "user-agent"
SERVER = "server"
REASON = "reason"
MAX_BREADTH = "max-breadth"
SESSION_EXPIRES = "session-expires"
MIN_SE = "min-se"
SUBJECT = "subject"
EVENT = "event"
REFER_TO = "refer-to"
REFERRED_BY = "referred-by"
REPLACES = "replaces"
RETRY_AFTER = "retry-after"
DATE = "date"
TIMESTAMP = "timestamp"
WARNING = "warning"
P_ASSERTED_IDENTITY = "p-asserted-identity"
P_PREFERRED_IDENTITY = "p-preferred-identity"
PRIVACY = "privacy"

COMPACT = {
    "a": "accept-contact", "b": REFERRED_BY, "c": CONTENT_TYPE, "d": "request-disposition",
    "e": CONTENT_ENCODING, "f": FROM, "i": CALL_ID, "j": "reject-contact", "k": SUPPORTED,
    "l": CONTENT_LENGTH, "m": CONTACT, "n": "identity-info", "o": EVENT, "r": REFER_TO,
    "s": SUBJECT, "t": TO, "u": "allow-events", "v": VIA, "x": SESSION_EXPIRES, "y": "identity",
}  # fmt: skip
"""Compact forms and their long names (IANA registry of SIP header fields)."""

DISPLAY = {
    name: "-".join(part.capitalize() for part in name.split("-"))
    for name in (
        VIA, FROM, TO, CONTACT, MAX_FORWARDS, ROUTE, RECORD_ROUTE, PATH, EXPIRES, MIN_EXPIRES, CONTENT_LENGTH,
        CONTENT_TYPE, CONTENT_ENCODING, AUTHORIZATION, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE,
        AUTHENTICATION_INFO, PROXY_AUTHENTICATION_INFO, REQUIRE, PROXY_REQUIRE, SUPPORTED, UNSUPPORTED, ALLOW,
        ACCEPT, USER_AGENT, SERVER, REASON, MAX_BREADTH, SESSION_EXPIRES, SUBJECT, EVENT, REFER_TO, REFERRED_BY,
        REPLACES, RETRY_AFTER, DATE, TIMESTAMP, WARNING, P_ASSERTED_IDENTITY, P_PREFERRED_IDENTITY, PRIVACY,
    )
} | {CALL_ID: "Call-ID", CSEQ: "CSeq", WWW_AUTHENTICATE: "WWW-Authenticate", MIN_SE: "Min-SE"}  # fmt: skip
"""How a name is written in what this server builds itself."""

KNOWN: dict[str, str] = {}
for _name, _display in DISPLAY.items():
    for _spelling in (_name, _display, _name.upper()):
        KNOWN[_spelling] = _name
for _short, _name in COMPACT.items():
    KNOWN[_short] = KNOWN[_short.upper()] = _name

_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+\Z")


def canonical_name(written: str) -> str | None:
    """The lower-case long form of a header name as written, or None where it is no token (RFC 3261 §25.1)."""
    # RFC 3261 §7.3.1: white space may stand between the name and the colon.
    name = written.rstrip(" \t")
    known = KNOWN.get(name)
    if known is not None:
        return known
    if not _TOKEN.match(name):
        return None
    lowered = name.lower()
    return KNOWN.get(lowered, lowered)
