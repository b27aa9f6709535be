"""The parts of a multipart body (RFC 2046 §5.1, RFC 5621). Bounded; nothing raises for what a peer sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.values import parse_params

MAX_PARTS: Final = 16
"""Parts of a body that are looked at."""
MAX_BOUNDARY: Final = 70
"""Characters of a boundary (RFC 2046 §5.1.1)."""


@dataclass(slots=True)
class Part:
    """One part."""

    headers: dict[str, str]
    """The values of its headers by their names in lower case; of a name that is there twice the first."""
    body: bytes

    @property
    def kind(self) -> str:
        """Its media type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def parts(body: bytes, content_type: str) -> list[Part]:
    """The parts of a body with this Content-Type; none where it is no multipart body, or has no proper boundary."""
    found: list[Part] = []
    delimiter = _delimiter(content_type)
    if not delimiter:
        return found
    for piece in (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)[1 : MAX_PARTS + 1]:
        # RFC 2046 §5.1.1: the boundary with two more hyphens is the end.
        if piece.startswith(b"--"):
            break
        head, blank, inner = piece.partition(b"\r\n\r\n")
        if blank:
            found.append(Part(_headers(head), inner))
    return found


def span(body: bytes, content_type: str, kind: str) -> tuple[int, int] | None:
    """Where in the body the content of the first part of this media type begins and ends; None where there is none."""
    delimiter = _delimiter(content_type)
    if not delimiter:
        return None
    # What ``parts`` splits begins with a line end that the body does not have.
    at = -2
    for piece in (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)[: MAX_PARTS + 1]:
        end = at + len(piece)
        head, blank, inner = piece.partition(b"\r\n\r\n")
        if at >= 0:
            if piece.startswith(b"--"):
                break
            if blank and Part(_headers(head), inner).kind == kind:
                return end - len(inner), end
        at = end + len(delimiter)
    return None


def _delimiter(content_type: str) -> bytes:
    """What stands between the parts; empty where this is no multipart body, or has no proper boundary."""
    kind, _, rest = content_type.partition(";")
    if not kind.strip().lower().startswith("multipart/"):
        return b""
    try:
        boundary = parse_params(rest.strip(" \t")).get("boundary")
    except SipError:
        return b""
    if not boundary or len(boundary) > MAX_BOUNDARY:
        return b""
    return b"\r\n--" + boundary.encode("latin-1")


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    # What follows the boundary on its own line is white space.
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    return headers
