"""Header field names: one lower-case, long form for each, whatever was written (RFC 3261 §7.3.1, §7.3.3).

Most lines are written in one way, ``Max-Forwards: 70``, and are named by three characters and a comparison
(``usual``). ``KNOWN`` maps the other spellings that real endpoints send straight to that form; anything else goes
through ``canonical_name``.
"""

from __future__ import annotations

import re
from typing import Final

VIA: Final = "via"
FROM: Final = "from"
TO: Final = "to"
CALL_ID: Final = "call-id"
CSEQ: Final = "cseq"
CONTACT: Final = "contact"
MAX_FORWARDS: Final = "max-forwards"
ROUTE: Final = "route"
RECORD_ROUTE: Final = "record-route"
PATH: Final = "path"
EXPIRES: Final = "expires"
MIN_EXPIRES: Final = "min-expires"
CONTENT_LENGTH: Final = "content-length"
CONTENT_TYPE: Final = "content-type"
CONTENT_ENCODING: Final = "content-encoding"
AUTHORIZATION: Final = "authorization"
PROXY_AUTHORIZATION: Final = "proxy-authorization"
WWW_AUTHENTICATE: Final = "www-authenticate"
PROXY_AUTHENTICATE: Final = "proxy-authenticate"
AUTHENTICATION_INFO: Final = "authentication-info"
PROXY_AUTHENTICATION_INFO: Final = "proxy-authentication-info"
REQUIRE: Final = "require"
PROXY_REQUIRE: Final = "proxy-require"
SUPPORTED: Final = "supported"
UNSUPPORTED: Final = "unsupported"
ALLOW: Final = "allow"
ACCEPT: Final = "accept"
USER_AGENT: Final = "user-agent"
SERVER: Final = "server"
REASON: Final = "reason"
MAX_BREADTH: Final = "max-breadth"
SESSION_EXPIRES: Final = "session-expires"
MIN_SE: Final = "min-se"
SUBJECT: Final = "subject"
EVENT: Final = "event"
REFER_TO: Final = "refer-to"
REFERRED_BY: Final = "referred-by"
REPLACES: Final = "replaces"
TARGET_DIALOG: Final = "target-dialog"
RETRY_AFTER: Final = "retry-after"
DATE: Final = "date"
TIMESTAMP: Final = "timestamp"
WARNING: Final = "warning"
GEOLOCATION: Final = "geolocation"
GEOLOCATION_ROUTING: Final = "geolocation-routing"
P_ACCESS_NETWORK_INFO: Final = "p-access-network-info"
P_ASSERTED_IDENTITY: Final = "p-asserted-identity"
P_PREFERRED_IDENTITY: Final = "p-preferred-identity"
PRIVACY: Final = "privacy"

COMPACT: Final = {
    "a": "accept-contact", "b": REFERRED_BY, "c": CONTENT_TYPE, "d": "request-disposition",
    "e": CONTENT_ENCODING, "f": FROM, "i": CALL_ID, "j": "reject-contact", "k": SUPPORTED,
    "l": CONTENT_LENGTH, "m": CONTACT, "n": "identity-info", "o": EVENT, "r": REFER_TO,
    "s": SUBJECT, "t": TO, "u": "allow-events", "v": VIA, "x": SESSION_EXPIRES, "y": "identity",
}  # fmt: skip
"""Compact forms and their long names (IANA registry of SIP header fields)."""

DISPLAY: Final = {
    name: "-".join(part.capitalize() for part in name.split("-"))
    for name in (
        VIA, FROM, TO, CONTACT, MAX_FORWARDS, ROUTE, RECORD_ROUTE, PATH, EXPIRES, MIN_EXPIRES, CONTENT_LENGTH,
        CONTENT_TYPE, CONTENT_ENCODING, AUTHORIZATION, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE,
        AUTHENTICATION_INFO, PROXY_AUTHENTICATION_INFO, REQUIRE, PROXY_REQUIRE, SUPPORTED, UNSUPPORTED, ALLOW,
        ACCEPT, USER_AGENT, SERVER, REASON, MAX_BREADTH, SESSION_EXPIRES, SUBJECT, EVENT, REFER_TO, REFERRED_BY,
        REPLACES, TARGET_DIALOG, RETRY_AFTER, DATE, TIMESTAMP, WARNING, P_ASSERTED_IDENTITY, P_PREFERRED_IDENTITY,
        PRIVACY,
    )
} | {CALL_ID: "Call-ID", CSEQ: "CSeq", WWW_AUTHENTICATE: "WWW-Authenticate", MIN_SE: "Min-SE"}  # fmt: skip
"""How a name is written in what this server builds itself."""

KNOWN: Final[dict[str, str]] = {}
for _name, _display in DISPLAY.items():
    for _spelling in (_name, _display, _name.upper()):
        KNOWN[_spelling] = _name
for _short, _name in COMPACT.items():
    KNOWN[_short] = KNOWN[_short.upper()] = _name


class Usual:
    """A name as lines usually begin with it."""

    __slots__ = ("following", "head", "name")

    def __init__(self, head: str, name: str, following: Usual | None) -> None:
        self.head = head
        """With colon and space."""
        self.name = name
        self.following = following
        """The next one to compare with."""


STARTS: Final = {name: len(display) + 2 for name, display in DISPLAY.items()}
"""Where the value begins in a line that begins as usual."""
_USUAL: Final[list[Usual | None]] = [None] * 256
# What stands in every message is put in last, and so compared with first.
_OFTEN: Final = (CONTENT_TYPE, CONTACT, MAX_FORWARDS, TO, FROM, CALL_ID, CSEQ, CONTENT_LENGTH, VIA)
for _name in sorted(DISPLAY, key=lambda name: _OFTEN.index(name) if name in _OFTEN else -1):
    _head = f"{DISPLAY[_name]}: "
    _place = (ord(_head[0]) * 4 + ord(_head[1]) * 2 + ord(_head[2])) & 255
    _USUAL[_place] = Usual(_head, _name, _USUAL[_place])


def usual(line: str) -> str:
    """The name of a line that begins as usual, ``Name: ``; empty for every other."""
    if len(line) < 3:
        return ""
    # Characters are bytes, and every head has three of them.
    each = _USUAL[(ord(line[0]) * 4 + ord(line[1]) * 2 + ord(line[2])) & 255]
    while each is not None:
        if line.startswith(each.head):
            return each.name
        each = each.following
    return ""


_TOKEN: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+\Z")


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
