"""The lexical ground that URIs and header values share (RFC 3261 §25.1, RFC 5118 for IPv6).

Text is Latin-1 decoded, one character a byte. Everything here raises SipError(400, ...) or
answers; nothing raises anything else, whatever it is given.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from sipserver.sip.errors import SipError

_TOKEN: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+\Z")
# Underscores are no part of RFC 3261's hostname but of many internal networks, so they pass.
_HOSTNAME: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z_](?:[a-z0-9_-]*[a-z0-9_])?\.?\Z")
ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
"""One escape, its two digits as group 1."""
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()")
_NORMAL: Final = {f"{byte:02X}": chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)}

MAX_HOST: Final = 255
"""Longest host name, in characters (RFC 1035 §2.3.4)."""


def is_token(text: str) -> bool:
    """Whether this is a token: method, option tag, parameter name (RFC 3261 §25.1)."""
    return _TOKEN.match(text) is not None


def parse_port(text: str) -> int:
    """A port number, 1 to 65535; raises SipError."""
    # str.isdigit alone takes superscripts, and int() takes them not.
    if text.isascii() and text.isdigit() and len(text) <= 5:
        port = int(text)
        if 0 < port < 65_536:
            return port
    raise SipError(400, "Bad port")


def parse_host(text: str) -> str:
    """A host as it is compared: lower case, IPv6 without brackets and in its shortest form; raises SipError.

    Takes ``example.com``, ``192.0.2.1``, ``[2001:db8::1]``. A name keeps its trailing dot.
    """
    host = text.lower()
    if len(host) > MAX_HOST:
        raise SipError(400, "Bad host")
    if host[:1] == "[":
        # RFC 5118 §4.2: an IPv6 address in a URI stands in brackets.
        if host[-1:] != "]":
            raise SipError(400, "Bad host")
        return _ipv6(host[1:-1])
    if _HOSTNAME.match(host):
        return host
    # A name cannot end in a label that starts with a digit, so this is an IPv4 address or nothing.
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        raise SipError(400, "Bad host") from None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise SipError(400, "Bad host")
    # RFC 5118 §4.10: the grammar of RFC 3261 wrongly led to three colons before an IPv4 part; they are two.
    text = text.replace(":::", "::", 1)
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise SipError(400, "Bad host") from None
    # As sockets write it; Python's own form of a mapped address changed with 3.13.
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


# Hosts recur from message to message, so the answer is remembered; both the number of entries and their
# length are bounded.
@lru_cache(maxsize=4096)
def split_host_port(text: str) -> tuple[str, int | None]:
    """``host[:port]`` as ``parse_host`` gives it, and the port where one is written; raises SipError."""
    if text[:1] == "[":
        host, bracket, port = text.partition("]")
        if not port:
            return parse_host(text), None
        if port[0] != ":":
            raise SipError(400, "Bad host")
        return parse_host(host + bracket), parse_port(port[1:])
    host, colon, port = text.partition(":")
    return parse_host(host), parse_port(port) if colon else None


@lru_cache(maxsize=4096)
def split_sent_by(text: str) -> tuple[str, int | None]:
    """The sent-by of a Via: white space may stand around the colon, and IPv6 may lack its brackets."""
    if len(text) > 2 * MAX_HOST:
        raise SipError(400, "Bad host")
    if " " in text or "\t" in text:
        text = ":".join(part.strip(" \t") for part in text.split(":"))
    if text.count(":") > 1 and text[:1] != "[":
        # RFC 5118 §4.5: a bare IPv6 address in a Via is understood; any port on it would be a guess.
        return _ipv6(text), None
    return split_host_port(text)


def bracketed(host: str) -> str:
    """The host as it stands before a colon: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def check_escapes(text: str) -> None:
    """Every ``%`` starts an escape of two hexadecimal digits, or SipError is raised."""
    if _BAD_ESCAPE.search(text):
        raise SipError(400, "Bad escape")


def normal_escapes(text: str) -> str:
    """The text with each escape that changes nothing taken away (RFC 3261 §19.1.4).

    Escaped letters, digits and marks become plain; every other escape stays, in upper case, so the
    result can be compared and written anywhere the text could.
    """
    if "%" not in text:
        return text
    return ESCAPE.sub(lambda match: _NORMAL[match[1].upper()], text)


def unescape(text: str) -> str:
    """The text with all its escapes decoded, one character a byte. May hold any character at all, CR and LF too."""
    if "%" not in text:
        return text
    return ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
