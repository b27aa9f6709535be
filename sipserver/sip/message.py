"""A message: the bytes it came in, an index of its header lines, and values parsed when asked for.

Text is Latin-1 decoded, one character a byte, so that whatever a peer sent leaves again byte for
byte; ``text()`` gives what people read. A header line stays as it came, folds included; nothing
is rebuilt. Accessors raise SipError(400, ...) for a value that is there and broken, and remember
a value once parsed. Treat a message as read-only but for ``replace_line``, ``add_line`` and ``remove_line``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import MalformedMessage, SipError
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address, Via, split_commas

VERSION: Final = "SIP/2.0"

_METHOD: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+\Z")
_FOLD: Final = re.compile(r"\r\n[ \t]+")
_CSEQ: Final = re.compile(r"([0-9]{1,10})[ \t]+([A-Za-z0-9.!%*_+`'~-]+)\Z")
# RFC 4475 §3.1.1.13: the space before an empty reason phrase may be missing.
_STATUS_LINE: Final = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?\Z", re.IGNORECASE | re.DOTALL)
_WHITE: Final = (" ", "\t")
_METHODS: Final = frozenset(
    ("REGISTER", "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "INFO",
     "UPDATE", "REFER", "PRACK")
)  # fmt: skip
"""Methods that need not be looked at twice."""
_VERSION_END: Final = f" {VERSION}"
_STATUSES: Final = {str(status): status for status in range(100, 700)}
"""Status codes, by how they are written."""
_KNOWN: Final = names.KNOWN


@dataclass(slots=True)
class Limits:
    """Bounds on what is accepted from the network, in bytes unless said otherwise."""

    message: int = 65_535
    """A whole message; more is answered 513."""
    body: int = 60_000
    """A body; more is answered 413."""
    headers: int = 128
    """Number of header lines; more is answered 400."""
    line: int = 8_192
    """One header line with its folds, or a start line; more is answered 400."""
    uri: int = 1_024
    """A Request-URI; more is answered 414."""


DEFAULT_LIMITS: Final = Limits()


def text(value: str) -> str:
    """The value as people read it: its bytes as UTF-8, what is not UTF-8 as U+FFFD (RFC 3261 §7)."""
    return value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")


class Message:
    """What requests and responses share."""

    __slots__ = (
        "_call_id", "_cseq", "_from", "_places", "_to", "_vias", "as_usual", "body", "lines", "names", "start_line",
    )  # fmt: skip

    def __init__(self, start_line: str, lines: list[str], header_names: list[str], body: bytes) -> None:
        self.start_line = start_line
        self.lines = lines
        """The header lines as received, without their CRLF; a folded one keeps its inner CRLF."""
        self.names = header_names
        """The canonical name of each line (see ``sip.names``); changed by ``add_line`` and ``remove_line`` alone."""
        self.body = body
        self.as_usual = False
        """Whether each line whose name is in ``names.STARTS`` begins as usual (``names.usual``), and has no folds."""
        self._places: dict[str, int] | None = None
        self._call_id: str | None = None
        self._cseq: tuple[int, str] | None = None
        self._from: Address | None = None
        self._to: Address | None = None
        self._vias: list[Via] | None = None

    @property
    def places(self) -> dict[str, int]:
        """Where the first header of each name stands: a message is asked for some twenty, most of which it lacks."""
        places = self._places
        if places is None:
            found = self.names
            places = {}
            for i in range(len(found) - 1, -1, -1):
                places[found[i]] = i
            self._places = places
        return places

    def header(self, name: str) -> str | None:
        """The unfolded value of the first header of this name, or None."""
        place = self.places.get(name, -1)
        return self._value(name, place) if place >= 0 else None

    def _value(self, name: str, place: int) -> str:
        """The unfolded value of the line there, which has this name."""
        line = self.lines[place]
        if self.as_usual:
            start = names.STARTS.get(name, 0)
            # A space is 32, a tab and line ends are below.
            if 0 < start < len(line) and ord(line[start]) > 32 and ord(line[-1]) > 32:
                return line[start:]
        return _value(line)

    def headers(self, name: str) -> list[str]:
        """The unfolded values of every header of this name, a line each."""
        place = self.places.get(name, -1)
        if place < 0:
            return []
        if len(self.places) == len(self.names):
            return [self._value(name, place)]
        return [self._value(name, i) for i, each in enumerate(self.names) if each == name]

    def values(self, name: str) -> list[str]:
        """Every element of a header that is a comma list, over all its lines (RFC 3261 §7.3.1)."""
        found: list[str] = []
        for value in self.headers(name):
            if "," in value:
                found.extend(split_commas(value))
            elif value:
                found.append(value)
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a header."""
        return name in self.places

    def count(self, name: str) -> int:
        """How many lines there are of this name."""
        if name not in self.places:
            return 0
        return 1 if len(self.places) == len(self.names) else self.names.count(name)

    def value_at(self, position: int) -> str:
        """The unfolded value of the header line at this position."""
        return _value(self.lines[position])

    def replace_line(self, position: int, line: str) -> None:
        """Put another line of the same header in its place and forget what was parsed of it."""
        self.lines[position] = line
        if self.names[position] == names.VIA:
            self._vias = None

    def add_line(self, name: str, line: str) -> None:
        """Put a header line at the end."""
        self.lines.append(line)
        self.names.append(name)
        self._places = None

    def remove_line(self, position: int) -> None:
        """Take the header line at this position out."""
        del self.lines[position], self.names[position]
        self._places = None

    def option_tags(self, name: str) -> list[str]:
        """The lower-cased option tags of Require, Proxy-Require or Supported."""
        return [tag.lower() for tag in self.values(name) if tag]

    def _single(self, name: str, label: str) -> str:
        count = self.count(name)
        if count != 1:
            raise SipError(400, f"Several {label}" if count else f"Missing {label}")
        return self._value(name, self.places[name])

    @property
    def call_id(self) -> str:
        """The Call-ID (RFC 3261 §20.8): compared byte by byte."""
        if self._call_id is None:
            self._call_id = _checked_call_id(self._single(names.CALL_ID, "Call-ID"))
        return self._call_id

    @property
    def cseq(self) -> tuple[int, str]:
        """Sequence number and method (RFC 3261 §20.16)."""
        if self._cseq is None:
            self._cseq = _parse_cseq(self._single(names.CSEQ, "CSeq"))
        return self._cseq

    @property
    def from_(self) -> Address:
        """The From header (RFC 3261 §20.20)."""
        if self._from is None:
            self._from = _address(self._single(names.FROM, "From"), "From")
        return self._from

    @property
    def to(self) -> Address:
        """The To header (RFC 3261 §20.39)."""
        if self._to is None:
            self._to = _address(self._single(names.TO, "To"), "To")
        return self._to

    @property
    def from_tag(self) -> str | None:
        """The tag of From."""
        return self.from_.tag

    @property
    def to_tag(self) -> str | None:
        """The tag of To; None outside of a dialog."""
        return self.to.tag

    @property
    def vias(self) -> list[Via]:
        """Every Via, topmost first (RFC 3261 §20.42)."""
        if self._vias is None:
            value = self._value(names.VIA, self.places[names.VIA]) if self.count(names.VIA) == 1 else ""
            if value and "," not in value:
                self._vias = [Via.parse(value)]
            else:
                self._vias = [Via.parse(each) for each in self.values(names.VIA)]
        return self._vias

    def read_mandatory(self) -> None:
        """Parse and remember Via, Call-ID, CSeq and To, which every message has (RFC 3261 §8.1.1). Raises SipError.

        What reading each of them does, in one go, since it is done for every message. The caller has seen to it
        that none but Via stands in several lines.
        """
        places = self.places
        try:
            if self.count(names.VIA) == 1:
                via = self._value(names.VIA, places[names.VIA])
                self._vias = [Via.parse(via)] if via and "," not in via else None
            self._call_id = _checked_call_id(self._value(names.CALL_ID, places[names.CALL_ID]))
            self._cseq = _parse_cseq(self._value(names.CSEQ, places[names.CSEQ]))
            self._to = _address(self._value(names.TO, places[names.TO]), "To")
        except KeyError:
            # One is missing: let its own accessor say which.
            _ = self.call_id, self.cseq, self.to
        if self._vias is None:
            _ = self.top_via

    def use_vias(self, vias: list[Via]) -> None:
        """Let these be what ``vias`` says: for a message that is refused because its own cannot be read."""
        self._vias = vias

    @property
    def top_via(self) -> Via:
        """The topmost Via."""
        vias = self._vias or self.vias
        if not vias:
            raise SipError(400, "Missing Via")
        return vias[0]

    def addresses(self, name: str) -> list[Address]:
        """The elements of Contact, Route, Record-Route, Path …, parsed; ``*`` is for the caller to see first."""
        return [_address(value, names.DISPLAY.get(name, name)) for value in self.values(name)]

    def number(self, name: str) -> int | None:
        """The value of a header that is a decimal number below 2**32, None where it is missing."""
        value = self.header(name)
        if value is None:
            return None
        # str.isdigit alone takes superscripts too.
        if value.isdigit() and value.isascii() and len(value) <= 10:
            number = int(value)
            if number < 2**32:
                return number
        raise SipError(400, f"Bad {names.DISPLAY.get(name, name)}")

    def to_bytes(self) -> bytes:
        """The message as it goes on the wire."""
        head = "\r\n".join((self.start_line, *self.lines))
        return head.encode("latin-1") + b"\r\n\r\n" + self.body


class Request(Message):
    """A request; ``method`` is as written, since methods are case-sensitive (RFC 3261 §7.1)."""

    __slots__ = ("_uri", "method", "uri_text")

    def __init__(
        self, method: str, uri_text: str, lines: list[str], header_names: list[str], body: bytes = b"",
        start_line: str = "",
    ) -> None:  # fmt: skip
        super().__init__(start_line or f"{method} {uri_text} {VERSION}", lines, header_names, body)
        self.method = method
        self.uri_text = uri_text
        """The Request-URI as written."""
        self._uri: Uri | None = None

    @property
    def uri(self) -> Uri:
        """The Request-URI, parsed."""
        if self._uri is None:
            self._uri = Uri.parse(self.uri_text)
        return self._uri


class Response(Message):
    """A response."""

    __slots__ = ("reason", "status")

    def __init__(
        self, status: int, reason: str, lines: list[str], header_names: list[str], body: bytes = b"",
        start_line: str = "",
    ) -> None:  # fmt: skip
        super().__init__(start_line or f"{VERSION} {status} {reason}", lines, header_names, body)
        self.status = status
        self.reason = reason


class Rewritten(Response):
    """A response whose session description was changed on the way: ``body`` is what goes on."""

    __slots__ = ("original",)

    def __init__(
        self, status: int, reason: str, lines: list[str], header_names: list[str], body: bytes, original: bytes
    ) -> None:
        super().__init__(status, reason, lines, header_names, body)
        self.original = original
        """The body as it came."""


def parse(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Request | Response:
    """The message in a datagram, or in one frame of a stream; only its lines are looked at.

    Raises MalformedMessage with the answer it deserves and as much of the message as could be
    indexed. What the headers say is checked when they are read (``sip.validate``).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        end, body = len(data.removesuffix(b"\r\n")), b""
    else:
        body = data[end + 4 :]
    head = data[:end].decode("latin-1")
    lines = head.split("\r\n")
    # A lone CR or LF would be a line end to some and data to others: what follows it could be smuggled past us.
    fault = None
    # What is between the line ends has neither; counting both takes five times as long.
    between = "".join(lines)
    if "\n" in between or "\r" in between:
        fault = MalformedMessage(400, "Bare CR or LF")
        if "\r" in lines[0] or "\n" in lines[0]:
            raise fault
        lines = [line for line in lines if "\r" not in line and "\n" not in line]
    start_line = lines.pop(0)
    header_names, all_named, as_usual = _known_names(lines)
    # A line that continues another begins with white space, so it is named like none either.
    if not all_named and any([line[:1] in _WHITE for line in lines[1:]]):
        lines = _joined_folds(lines)
        header_names, all_named, _ = _known_names(lines)
        as_usual = False
    if len(head) > limits.line and max(map(len, (start_line, *lines))) > limits.line:
        fault = fault or MalformedMessage(400, "Header line too long")
    if len(lines) > limits.headers:
        fault = fault or MalformedMessage(400, "Too many headers")
        del lines[limits.headers :], header_names[limits.headers :]
    if not all_named:
        refused, rest_as_usual = _name_the_rest(lines, header_names)
        fault = refused or fault
        as_usual = as_usual and rest_as_usual
    message = _start(start_line, lines, header_names, body, limits, fault)
    indexed: Message = message
    indexed.as_usual = as_usual
    if len(data) > limits.message:
        raise MalformedMessage(513, "Message Too Large", message)
    if len(body) > limits.body:
        raise MalformedMessage(413, "Request Entity Too Large", message)
    return message


def _start(
    line: str, lines: list[str], header_names: list[str], body: bytes, limits: Limits, fault: MalformedMessage | None
) -> Request | Response:
    """The request or response that this start line begins (RFC 3261 §7.1, §7.2)."""
    space = line.find(" ")
    if fault is None and space > 0:
        method = line[:space]
        if method in _METHODS and line.endswith(_VERSION_END):
            uri_text = line[space + 1 : -8]
            if 0 < len(uri_text) <= limits.uri and " " not in uri_text:
                return Request(method, uri_text, lines, header_names, body, line)
        elif method == VERSION and line[11:12] == " ":
            status = _STATUSES.get(line[8:11], 0)
            if status:
                return Response(status, line[12:], lines, header_names, body, line)
    if line[:4].upper() == "SIP/":
        match = _STATUS_LINE.match(line)
        if match is None:
            raise MalformedMessage(400, "Bad status line")
        message = Response(int(match[1]), match[2] or "", lines, header_names, body)
        if fault is not None:
            raise MalformedMessage(fault.status, fault.reason, message)
        return message
    parts = line.split(" ")
    return _unusual_request(line, parts, lines, header_names, body, limits, fault)


def _unusual_request(
    line: str,
    parts: list[str],
    lines: list[str],
    header_names: list[str],
    body: bytes,
    limits: Limits,
    fault: MalformedMessage | None,
) -> Request:
    """A request whose start line has to be looked at more closely, or that has a fault already."""
    method = parts[0]
    if len(parts) < 3 or not _METHOD.match(method):
        # Only what names a SIP version in some way is worth an answer.
        if not _METHOD.match(method) or "SIP/" not in line:
            raise MalformedMessage(400, "Bad request line")
        raise MalformedMessage(400, "Bad request line", Request(method, "sip:invalid", lines, header_names, body))
    version, uri_text = parts[-1], line[len(method) + 1 : -len(parts[-1]) - 1]
    message = Request(method, uri_text, lines, header_names, body)
    if version.upper() != VERSION:
        if version[:4].upper() != "SIP/":
            raise MalformedMessage(400, "Bad request line", message)
        # RFC 3261 §21.5.6, and RFC 4475 §3.1.2.16: another version is told so.
        raise MalformedMessage(505, "Version Not Supported", message)
    if len(uri_text) > limits.uri:
        raise MalformedMessage(414, "Request-URI Too Long", message)
    if fault is not None:
        raise MalformedMessage(fault.status, fault.reason, message)
    # RFC 3261 §7.1: no white space in a Request-URI, and RFC 4475 §3.1.2.8: none around it.
    if len(parts) > 3 or not uri_text:
        raise MalformedMessage(400, "Bad Request-URI", message)
    return message


def _known_names(lines: list[str]) -> tuple[list[str], bool, bool]:
    """The name of each line that is in ``names.KNOWN``, empty for others and for a line that has no colon; whether all
    have one, and whether those that have one begin as usual."""
    found = []
    all_named = as_usual = True
    for line in lines:
        name = names.usual(line)
        if not name:
            colon = line.find(":")
            name = _KNOWN.get(line[:colon], "") if colon > 0 else ""
            if name:
                as_usual = False
            else:
                all_named = False
        found.append(name)
    return found, all_named, as_usual


def _joined_folds(lines: list[str]) -> list[str]:
    """Lines that begin with white space belong to the one before (RFC 3261 §7.3.1)."""
    headers: list[list[str]] = []
    for line in lines:
        if headers and line[:1] in _WHITE:
            headers[-1].append(line)
        else:
            headers.append([line])
    return ["\r\n".join(parts) for parts in headers]


def _name_the_rest(lines: list[str], header_names: list[str]) -> tuple[MalformedMessage | None, bool]:
    """Name the headers that are not in ``names.KNOWN``; lines that are no header are taken out and reported.

    Also whether none of them is one of ``names.STARTS``, oddly written.
    """
    fault = None
    as_usual = True
    for i in range(len(lines) - 1, -1, -1):
        if header_names[i]:
            continue
        written, colon, _ = lines[i].partition(":")
        name = names.canonical_name(written) if colon else None
        if name is None:
            del lines[i], header_names[i]
            fault = MalformedMessage(400, "Bad header line")
        else:
            header_names[i] = name
            as_usual = as_usual and name not in names.STARTS
    return fault, as_usual


def _value(line: str) -> str:
    """The unfolded value of a header line."""
    start = line.find(":") + 1
    last = len(line) - 1
    # As nearly every line is written: one space, and none at the end. A space is 32, a tab and line ends are below.
    if start < last and ord(line[start]) == 32 and ord(line[start + 1]) > 32 and ord(line[last]) > 32:
        value = line[start + 1 :]
        return value if "\n" not in value else _FOLD.sub(" ", value)
    value = line[start:]
    if "\n" in value:
        value = _FOLD.sub(" ", value)
    return value.strip(" \t")


def _checked_call_id(value: str) -> str:
    if not value or " " in value or "\t" in value:
        raise SipError(400, "Bad Call-ID")
    return value


def _parse_cseq(value: str) -> tuple[int, str]:
    # A transaction's come one after the other. What is longer than any that is usual is not remembered.
    return _remembered_cseq(value) if len(value) <= 24 else _read_cseq(value)


def _read_cseq(value: str) -> tuple[int, str]:
    number, _, method = value.partition(" ")
    # One space and a method of every day need no pattern.
    if method not in _METHODS or not (number.isdigit() and number.isascii() and len(number) <= 10):
        match = _CSEQ.match(value)
        if match is None:
            raise SipError(400, "Bad CSeq")
        number, method = match[1], match[2]
    sequence = int(number)
    # RFC 3261 §8.1.1.5: below 2**31.
    if sequence >= 2**31:
        raise SipError(400, "Bad CSeq")
    return sequence, method


_remembered_cseq = lru_cache(maxsize=2048)(_read_cseq)


def _address(value: str, label: str) -> Address:
    try:
        return Address.parse(value)
    except SipError as error:
        raise SipError(error.status, f"Bad {label}") from None
