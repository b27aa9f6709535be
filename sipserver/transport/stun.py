"""STUN on the SIP port over UDP, as far as keep-alives need it (RFC 5626 §8, RFC 5389): Binding requests are answered
with the address that they came from.

Nothing is kept, nobody is asked who they are, and an answer is not longer than 68 bytes, so that nobody has a gain
from a forged source. The caller tells STUN from SIP by the first byte.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

COOKIE: Final = 0x2112A442
"""RFC 5389 §6: what tells STUN from everything else."""
SHORTEST: Final = 20
"""Bytes of a message without attributes."""

_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")
_BINDING_REQUEST: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_BINDING_ERROR: Final = 0x0111
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_XOR_MAPPED_ADDRESS: Final = 0x0020
_UNKNOWN_ATTRIBUTE: Final = 420
_MUST_KNOW: Final = 0x8000
"""Attribute types below have to be understood (RFC 5389 §15)."""
# USERNAME, MESSAGE-INTEGRITY, REALM and NONCE, which say something to servers that ask who one is.
_KNOWN: Final = frozenset((0x0006, 0x0008, 0x0014, 0x0015))
_MOST: Final = 4
"""Unknown attributes that an error names."""


def answer(data: bytes, host: str, port: int) -> bytes | None:
    """The answer to a Binding request that came from this IP address and port; None for anything else."""
    if len(data) < SHORTEST:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or cookie != COOKIE or length % 4 or length != len(data) - SHORTEST:
        return None
    if length:
        unknown = _unknown_attributes(data)
        if unknown is None:
            return None
        if unknown:
            return _error(transaction, unknown)
    return _success(transaction, host, port)


def _unknown_attributes(data: bytes) -> list[int] | None:
    """The types of attributes that would have to be understood; None where they cannot be read."""
    unknown: list[int] = []
    at = SHORTEST
    while at < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        at += _ATTRIBUTE.size + (length + 3) // 4 * 4
        if at > len(data):
            return None
        if kind < _MUST_KNOW and kind not in _KNOWN and len(unknown) < _MOST:
            unknown.append(kind)
    return unknown


def _success(transaction: bytes, host: str, port: int) -> bytes:
    """RFC 5389 §15.2: the address is exclusive-or with what stands before it, since some NATs change addresses."""
    family, packed = (2, socket.inet_pton(socket.AF_INET6, host)) if ":" in host else (1, socket.inet_aton(host))
    mask = COOKIE.to_bytes(4, "big") + transaction
    mapped = bytes([one ^ other for one, other in zip(packed, mask, strict=False)])
    value = struct.pack("!BBH", 0, family, port ^ (COOKIE >> 16)) + mapped
    return _message(_BINDING_SUCCESS, transaction, _attribute(_XOR_MAPPED_ADDRESS, value))


def _error(transaction: bytes, unknown: list[int]) -> bytes:
    """RFC 5389 §7.3.1."""
    code = struct.pack("!HBB", 0, _UNKNOWN_ATTRIBUTE // 100, _UNKNOWN_ATTRIBUTE % 100) + b"Unknown Attribute"
    named = b"".join([each.to_bytes(2, "big") for each in unknown])
    return _message(_BINDING_ERROR, transaction, _attribute(_ERROR_CODE, code) + _attribute(_UNKNOWN_ATTRIBUTES, named))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _message(kind: int, transaction: bytes, attributes: bytes) -> bytes:
    return _HEADER.pack(kind, len(attributes), COOKIE, transaction) + attributes
