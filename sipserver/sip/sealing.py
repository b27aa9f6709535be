"""Short secrets that travel in URIs and come back: nobody else can read them, make them or change them.

AES-SIV (RFC 5297): what is sealed twice looks the same, so whoever must not be recognised puts a random part into it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV


class Sealer:
    """Seals and opens for one purpose. ``secret`` (up to 64 bytes) has to outlive a restart."""

    __slots__ = ("_cipher",)

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        assert secret, "a sealer without a secret: derive one from the keyring"
        key = hashlib.blake2b(purpose, key=secret[:64], digest_size=64).digest()
        self._cipher = AESSIV(key)

    def seal(self, content: bytes, bound_to: bytes = b"") -> str:
        """The content in the characters of RFC 4648 §5, to be opened only together with ``bound_to``."""
        sealed = self._cipher.encrypt(content, [bound_to])
        return base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")

    def open(self, text: str, bound_to: bytes = b"") -> bytes | None:
        """What was sealed; None for what this sealer did not make for this."""
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            return self._cipher.decrypt(sealed, [bound_to])
        except (ValueError, binascii.Error, InvalidTag):
            return None
