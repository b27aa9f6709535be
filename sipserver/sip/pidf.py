"""The civic address in a PIDF-LO document, and how long it may be kept (RFC 4119, RFC 5139).

The document is a stranger's: it is read once by expat, with bounds on its length, depth and number of elements.
A document type is refused outright, so that there are no entities to expand and nothing to fetch.

What is kept of a call is shown to others than the server, and for long, so a location counts only where its rules
say that it may be passed on; its default is that it may not. It may then be kept until ``retention-expiry``, or for
24 hours where no such time is given (RFC 4119 §2.2.2). Rules that are kept elsewhere (``external-ruleset``) cannot
be read, so nothing is known to be allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.parsers import expat

from sipserver.sip.errors import SipError

MAX_DOCUMENT: Final = 16_384
"""Bytes of a document."""
MAX_DEPTH: Final = 24
MAX_ELEMENTS: Final = 400
MAX_VALUE: Final = 200
"""Characters of a value."""
DEFAULT_RETENTION: Final = 86_400.0
"""Seconds that a location may be kept whose rules do not say it."""

_GEOPRIV: Final = "urn:ietf:params:xml:ns:pidf:geopriv10"
_POLICY: Final = "urn:ietf:params:xml:ns:pidf:geopriv10:basicPolicy"
_CIVIC: Final = "urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr"
_PIDF: Final = "urn:ietf:params:xml:ns:pidf"
_MODEL: Final = "urn:ietf:params:xml:ns:pidf:data-model"

# expat joins namespace and local name with a blank.
_LOCATION: Final = f"{_GEOPRIV} geopriv"
_ADDRESS: Final = f"{_CIVIC} civicAddress"
_RULES: Final = f"{_GEOPRIV} usage-rules"
_HOLDERS: Final = frozenset((f"{_PIDF} tuple", f"{_MODEL} device", f"{_MODEL} person"))
_TIMESTAMPS: Final = frozenset((f"{_PIDF} timestamp", f"{_MODEL} timestamp"))
_ADDRESS_PARTS: Final = {f"{_CIVIC} country": "country", f"{_CIVIC} A1": "region", f"{_CIVIC} A3": "city"}
# The text of RFC 4119 says retention-expires, its schema retention-expiry; RFC 6442 takes both from basicPolicy.
_RULE_NAMES: Final = {
    f"{namespace} {written}": name
    for namespace in (_GEOPRIV, _POLICY)
    for written, name in (
        ("retransmission-allowed", "allowed"),
        ("retention-expiry", "expiry"),
        ("retention-expires", "expiry"),
        ("external-ruleset", "elsewhere"),
    )
}


@dataclass(slots=True)
class Civic:
    """A civic address. What is not given is None."""

    country: str | None
    region: str | None
    """A1: state, province."""
    city: str | None
    """A3."""
    until: float
    """UNIX time in seconds until which it may be kept."""


def civic(document: bytes, now: float) -> Civic | None:
    """The first civic address of a document that may be kept at this time (UNIX seconds); None where there is none.

    Raises SipError(400, ...) for a document that cannot be read.
    """
    if len(document) > MAX_DOCUMENT:
        raise SipError(400, "PIDF-LO Too Large")
    reader = _Reader()
    try:
        reader.read(document)
    except (expat.ExpatError, LookupError, ValueError):
        # The latter two come of a declared encoding that nobody knows.
        raise SipError(400, "Bad PIDF-LO") from None
    for found in reader.found:
        address = found.kept(now)
        if address is not None:
            return address
    return None


class _Found:
    """What one ``geopriv`` element says, and when the element around it was written."""

    __slots__ = ("timestamp", "values")

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.timestamp = ""

    def kept(self, now: float) -> Civic | None:
        values = self.values
        if values.get("allowed", "").lower() not in {"yes", "true", "1"} or "elsewhere" in values:
            return None
        if "expiry" in values:
            until = _time(values["expiry"])
        elif self.timestamp:
            written = _time(self.timestamp)
            until = written + DEFAULT_RETENTION if written is not None else None
        else:
            until = now + DEFAULT_RETENTION
        if until is None or until <= now:
            return None
        country, region, city = values.get("country"), values.get("region"), values.get("city")
        return Civic(country, region, city, until) if country or region or city else None


class _Reader:
    """Walks the document. Holds the path to where it is and the value it is in."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] | None = None
        self._length = 0
        self._current: _Found | None = None
        self._held: list[_Found] = []
        self._timestamp = ""

    def read(self, document: bytes) -> None:
        """Raises expat.ExpatError and SipError."""
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._on_doctype
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._on_text
        parser.Parse(document.strip(b" \t\r\n"), True)

    def _on_doctype(self, _name: str, _system: str | None, _public: str | None, _internal: int) -> None:
        raise SipError(400, "PIDF-LO With Document Type")

    def _on_start(self, name: str, _attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._path) >= MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise SipError(400, "PIDF-LO Too Complex")
        if name in _HOLDERS:
            self._held, self._timestamp = [], ""
        elif name == _LOCATION:
            self._current = _Found()
            self._held.append(self._current)
            self.found.append(self._current)
        self._path.append(name)
        self._text = [] if self._wanted(name) else None
        self._length = 0

    def _on_end(self, name: str) -> None:
        if self._text is not None:
            self._take(name, "".join(self._text).strip())
            self._text = None
        self._path.pop()
        if name == _LOCATION:
            self._current = None
        elif name in _HOLDERS:
            # The time stands behind the location, and is that of everything in this element.
            for each in self._held:
                each.timestamp = self._timestamp

    def _on_text(self, text: str) -> None:
        if self._text is not None:
            self._length += len(text)
            if self._length > MAX_VALUE:
                raise SipError(400, "PIDF-LO Too Complex")
            self._text.append(text)

    def _wanted(self, name: str) -> bool:
        """Whether the text of this element, the last of the path, says something."""
        parent = self._path[-2] if len(self._path) > 1 else ""
        if name in _TIMESTAMPS:
            return parent in _HOLDERS
        if self._current is None:
            return False
        return (name in _ADDRESS_PARTS and parent == _ADDRESS) or (name in _RULE_NAMES and parent == _RULES)

    def _take(self, name: str, value: str) -> None:
        if name in _TIMESTAMPS:
            self._timestamp = value
        elif self._current is not None:
            key = _ADDRESS_PARTS.get(name) or _RULE_NAMES[name]
            # What is there twice is not known to be allowed: for rules the last word would be anybody's guess.
            if key in self._current.values and name in _RULE_NAMES:
                key, value = "elsewhere", ""
            self._current.values.setdefault(key, value)


def _time(text: str) -> float | None:
    """An RFC 3339 time in UNIX seconds; None for what is none, or has no offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
