"""Location that a message carries by value (RFC 6442): which part of it is meant, and whether this server may look.

An intermediary may look at a location only where ``Geolocation-Routing: yes`` says so (§4.2); this server asks for
the same in a REGISTER, though it is the recipient there. A location by reference is never fetched.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import names
from sipserver.sip.grammar import unescape
from sipserver.sip.message import Message
from sipserver.sip.multipart import parts

MAX_VALUES: Final = 4
"""Locations of one message that are looked for."""
PIDF: Final = "application/pidf+xml"

_CONTENT_ID: Final = "content-id"


def may_look(message: Message) -> bool:
    """Whether the sender lets intermediaries see the location (RFC 6442 §4.2): one header, and it says yes."""
    values = message.headers(names.GEOLOCATION_ROUTING)
    return len(values) == 1 and values[0].strip(" \t").lower() == "yes"


def documents(message: Message) -> list[bytes]:
    """The PIDF-LO documents that Geolocation refers to in the body (RFC 6442 §3.1), in the order of the header.

    None where there is no such header, where the sender does not let this server look, or where nothing fits.
    """
    if not message.has(names.GEOLOCATION) or not message.body or not may_look(message):
        return []
    wanted = [cid for cid in map(_cid, message.values(names.GEOLOCATION)[:MAX_VALUES]) if cid]
    if not wanted:
        return []
    found = _by_content_id(message)
    return [found[cid] for cid in wanted if cid in found]


def _cid(value: str) -> str:
    """The Content-ID that a locationValue refers to (RFC 2392); empty where it refers to something else."""
    start, end = value.find("<"), value.find(">")
    uri = value[start + 1 : end] if 0 <= start < end else ""
    scheme, _, rest = uri.partition(":")
    return unescape(rest) if scheme.lower() == "cid" else ""


def _by_content_id(message: Message) -> dict[str, bytes]:
    content_type = message.header(names.CONTENT_TYPE) or ""
    if content_type.partition(";")[0].strip().lower() == PIDF:
        # RFC 8262: a body that is no multipart has its Content-ID among the headers of the message.
        return {_bare(message.header(_CONTENT_ID) or ""): message.body}
    return {_bare(part.headers.get(_CONTENT_ID, "")): part.body
            for part in parts(message.body, content_type) if part.kind == PIDF}  # fmt: skip


def _bare(content_id: str) -> str:
    return content_id.strip(" \t").removeprefix("<").removesuffix(">")
