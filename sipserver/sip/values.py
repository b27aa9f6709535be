"""The structured header values: Via, name-addr and addr-spec, their parameters (RFC 3261 §20, §25.1).

The shapes that nearly every message has take a path without regular expressions; quotes, escapes
and stray white space take a slower one. Broken values raise SipError(400, ...).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.grammar import is_token, parse_host, split_sent_by
from sipserver.sip.uri import Uri

MAGIC_COOKIE: Final = "z9hG4bK"
"""What the branch of an RFC 3261 transaction begins with (§8.1.1.7)."""

# What opens and never closes takes the rest in one piece: looking on behind it would cost the square of the length.
_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|<[^>]*+>?|[^",<]+|,', re.DOTALL)
_PARAM_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[^";]+|;', re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_PROTOCOL: Final = re.compile(r"([^ \t/]+)[ \t]*/[ \t]*([^ \t/]+)[ \t]*/[ \t]*([^ \t/]+)[ \t]+(.*)\Z", re.DOTALL)
_Q: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")
_NOT_IN_UNQUOTED_DISPLAY: Final = re.compile(r'[",;<>:\\]')

_REMEMBERED_LENGTH: Final = 200
"""Longer texts are not remembered: the memory of the others stays below a few megabytes."""
_MAX_DELTA: Final = 2**32 - 1
_DEFAULT_EXPIRES: Final = 3600

_USUAL_PARAMS: Final = frozenset(("branch", "rport", "received", "tag", "expires", "lr", "transport", "ob", "q"))
"""Names that need not be looked at twice."""
_TRANSPORTS: Final = {f"SIP/2.0/{transport}": transport for transport in ("UDP", "TCP", "TLS", "WS", "WSS")}


def split_commas(value: str) -> list[str]:
    """The elements of a comma list, stripped; commas in quotes and in ``<>`` part nothing. Empty elements are kept."""
    if '"' not in value and "<" not in value:
        return [element.strip(" \t") for element in value.split(",")]
    found, element = [], ""
    for piece in _PIECE.findall(value):
        if piece == ",":
            found.append(element.strip(" \t"))
            element = ""
        else:
            element += piece
    found.append(element.strip(" \t"))
    return found


def first_comma(value: str) -> int:
    """Where the first element of a comma list ends, -1 where it is the only one."""
    if '"' not in value and "<" not in value:
        return value.find(",")
    for piece in _PIECE.finditer(value):
        if piece[0] == ",":
            return piece.start()
    return -1


def quote(text: str) -> str:
    """The text as a quoted-string (RFC 3261 §25.1)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """What a quoted-string says; text without quotes stays as it is. Raises SipError where quotes do not close."""
    if text[:1] != '"':
        return text
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise SipError(400, "Bad quoted string")
    inner = match[1]
    return _PAIR.sub(r"\1", inner) if "\\" in inner else inner


def parse_delta(text: str | None) -> int:
    """Seconds of an ``expires`` parameter: too large is 2**32-1, malformed is 3600 (RFC 3261 §10.2)."""
    if text is None or not text.isascii() or not text.isdigit():
        return _DEFAULT_EXPIRES
    digits = text.lstrip("0")
    # int() of ten thousand digits is a request's worth of work, or an error of its own.
    return min(int(digits or "0"), _MAX_DELTA) if len(digits) <= 10 else _MAX_DELTA


def parse_params(text: str) -> dict[str, str | None]:
    """``name=value;name`` to a dictionary: names in lower case, values unquoted, None where there is no ``=``.

    Raises SipError for an empty parameter, one that is there twice (RFC 3261 §7.3.1), a name that is no
    token, and a value that is neither one word nor quoted.
    """
    if '"' in text or " " in text or "\t" in text or "<" in text:
        return _parse_spaced_params(text)
    params: dict[str, str | None] = {}
    parts = text.split(";")
    for part in parts:
        # Every Via has these two.
        if part == "rport":
            params["rport"] = None
            continue
        if part.startswith("branch="):
            params["branch"] = part[7:]
            continue
        equals = part.find("=")
        name = part if equals < 0 else part[:equals]
        if name not in _USUAL_PARAMS:
            name = name.lower()
            if not (name.isalnum() or is_token(name)):
                raise SipError(400, "Bad parameter")
        params[name] = None if equals < 0 else part[equals + 1 :]
    if len(params) != len(parts):
        raise SipError(400, "Bad parameter")
    return params


def _parse_spaced_params(text: str) -> dict[str, str | None]:
    params: dict[str, str | None] = {}
    for part in split_params(text):
        name, equals, value = part.partition("=")
        name, value = name.strip(" \t").lower(), value.strip(" \t")
        if name in params or not is_token(name):
            raise SipError(400, "Bad parameter")
        if value[:1] == '"':
            value = unquote(value)
        # A bracket without quotes could be taken for the address itself, by who reads it less carefully.
        elif '"' in value or " " in value or "\t" in value or "<" in value:
            raise SipError(400, "Bad parameter")
        params[name] = value if equals else None
    return params


def split_params(text: str) -> list[str]:
    """What stands between the semicolons, as written; semicolons in quotes part nothing."""
    if '"' not in text:
        return text.split(";")
    parts, part = [], ""
    for piece in _PARAM_PIECE.findall(text):
        if piece == ";":
            parts.append(part)
            part = ""
        else:
            part += piece
    parts.append(part)
    return parts


class Via:
    """One Via value (RFC 3261 §20.42). Treat it as read-only."""

    __slots__ = ("host", "params", "port", "raw", "transport")

    def __init__(self, transport: str, host: str, port: int | None, params: dict[str, str | None], raw: str) -> None:
        self.transport = transport
        """Upper case: ``UDP``, ``TCP``, ``TLS``, ``WS``, ``WSS`` or whatever was written."""
        self.host = host
        """The sent-by host in lower case, IPv6 without brackets."""
        self.port = port
        """The sent-by port, None where none is written."""
        self.params = params
        """Lower-cased names and values; None for a name alone, as in ``;rport``."""
        self.raw = raw
        """The value as written."""

    @classmethod
    def parse(cls, value: str) -> Via:
        """The Via that is written here; raises SipError(400, 'Bad Via')."""
        try:
            space = value.find(" ")
            transport = _TRANSPORTS.get(value[:space]) if space > 0 else None
            if transport is None:
                transport, rest = _split_protocol(value)
            else:
                rest = value[space + 1 :]
            semicolon = rest.find(";")
            if semicolon < 0:
                host, port = split_sent_by(rest)
                return Via(transport, host, port, {}, value)
            host, port = split_sent_by(rest[:semicolon])
            return Via(transport, host, port, parse_params(rest[semicolon + 1 :]), value)
        except SipError:
            raise SipError(400, "Bad Via") from None

    @property
    def branch(self) -> str | None:
        """The branch, None where there is none (an RFC 2543 peer)."""
        return self.params.get("branch")

    @property
    def received(self) -> str | None:
        """The source address a server put in, without brackets (RFC 5118 §4.5 tolerates both); None if none or bad."""
        received = self.params.get("received")
        if not received:
            return None
        try:
            return parse_host(f"[{received}]" if ":" in received and received[0] != "[" else received)
        except SipError:
            return None

    @property
    def rport(self) -> int | None:
        """The source port a server put in (RFC 3581); None if none or bad. ``rport in params`` says if it was asked."""
        rport = self.params.get("rport")
        if rport and rport.isascii() and rport.isdigit() and len(rport) <= 5:
            port = int(rport)
            return port if 0 < port < 65_536 else None
        return None

    def __str__(self) -> str:
        return self.raw

    def __repr__(self) -> str:
        return f"Via({self.raw!r})"


def _split_protocol(value: str) -> tuple[str, str]:
    """The transport and what follows it, white space around the slashes allowed (RFC 4475 §3.1.1.1)."""
    match = _PROTOCOL.match(value)
    if match is None or not (is_token(match[1]) and is_token(match[2]) and is_token(match[3])):
        raise SipError(400, "Bad Via")
    return match[3].upper(), match[4]


class Address:
    """One name-addr or addr-spec with its parameters: From, To, Contact, Route, … Treat it as read-only."""

    __slots__ = ("_uri", "display", "params", "raw", "uri_text")

    def __init__(self, display: str | None, uri_text: str, params: dict[str, str | None], raw: str) -> None:
        self.display = display
        """The display name without quotes and escapes; None where there is none."""
        self.uri_text = uri_text
        """The URI as written."""
        self.params = params
        """The header parameters (not the URI's): lower-cased names, values without quotes."""
        self.raw = raw
        """The value as written."""
        self._uri: Uri | None = None

    @classmethod
    def parse(cls, value: str) -> Address:
        """The address that is written here; its URI is parsed when it is read. Raises SipError(400, 'Bad address').

        The same text may give the same object: From and To come back in each message of a dialog.
        """
        return _parse_address(value) if len(value) <= _REMEMBERED_LENGTH else cls._parse(value)

    @classmethod
    def _parse(cls, value: str) -> Address:
        try:
            if value[:1] == "<":
                return cls._bracketed(None, value, 0)
            # A quoted name without escapes, one space, and the bracket.
            end = value.find('"', 1)
            if value[:1] == '"' and value[end : end + 3] == '" <' and "\\" not in value[:end]:
                return cls._bracketed(value[1:end], value, end + 2)
            return cls._slow(value)
        except SipError:
            raise SipError(400, "Bad address") from None

    @classmethod
    def _bracketed(cls, display: str | None, value: str, start: int) -> Address:
        """What follows the display name, the ``<`` standing at ``start``."""
        end = value.find(">", start)
        uri_text = value[start + 1 : end]
        # RFC 4475 §3.1.2.14: no white space within the brackets.
        if end < 0 or ":" not in uri_text or " " in uri_text or "\t" in uri_text or "<" in uri_text:
            raise SipError(400, "Bad address")
        rest = value[end + 1 :]
        if not rest:
            return Address(display, uri_text, {}, value)
        # What From and To nearly always have: a tag, and nothing else.
        if rest[:5] == ";tag=" and (rest[5:].isalnum() or is_token(rest[5:])):
            return Address(display, uri_text, {"tag": rest[5:]}, value)
        if rest[0] != ";":
            rest = rest.lstrip(" \t")
            if rest[:1] != ";":
                raise SipError(400, "Bad address")
        return Address(display, uri_text, parse_params(rest[1:]), value)

    @classmethod
    def _slow(cls, value: str) -> Address:
        if value[:1] == '"':
            match = _QUOTED.match(value)
            if match is None:
                raise SipError(400, "Bad address")
            end = match.end()
            start = value.find("<", end)
            if start < 0 or value[end:start].strip(" \t"):
                raise SipError(400, "Bad address")
            return cls._bracketed(unquote(match[0]), value, start)
        before, bracket, _ = value.partition("<")
        # A '<' may also stand in a parameter of a bare URI: sip:a@b;+sip.instance="<urn:...>".
        if bracket and ";" not in before:
            # More than tokens is let pass, since endpoints leave quotes out; but nothing that could part values.
            if _NOT_IN_UNQUOTED_DISPLAY.search(before):
                raise SipError(400, "Bad address")
            return cls._bracketed(before.strip(" \t") or None, value, len(before))
        # RFC 3261 §20.10: without brackets the parameters are the header's, and a URI with a comma or a question
        # mark needs them.
        uri_text, semicolon, params = value.partition(";")
        uri_text = uri_text.rstrip(" \t")
        if ":" not in uri_text or any(char in uri_text for char in ' \t,?<>"'):
            raise SipError(400, "Bad address")
        return Address(None, uri_text, parse_params(params) if semicolon else {}, value)

    @property
    def uri(self) -> Uri:
        """The URI, parsed once; raises SipError(400, 'Bad URI')."""
        if self._uri is None:
            self._uri = Uri.parse(self.uri_text)
        return self._uri

    @property
    def tag(self) -> str | None:
        """The tag parameter; an empty one counts as none."""
        return self.params.get("tag") or None

    @property
    def q(self) -> float:
        """The preference of a contact, 0.0 to 1.0, 1.0 where none is given; raises SipError(400, 'Bad q')."""
        q = self.params.get("q", "1")
        if q is None or not _Q.match(q):
            raise SipError(400, "Bad q")
        return float(q)

    @property
    def expires(self) -> int | None:
        """The expires parameter of a contact in seconds; None where there is none."""
        if "expires" not in self.params:
            return None
        return parse_delta(self.params["expires"])

    def __str__(self) -> str:
        return self.raw

    def __repr__(self) -> str:
        return f"Address({self.raw!r})"


_parse_address = lru_cache(maxsize=8192)(Address._parse)
