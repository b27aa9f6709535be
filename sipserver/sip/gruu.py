"""GRUUs: URIs that reach one device of an address, from everywhere (RFC 5627).

A public one is the address with the device's instance as ``gr``. A temporary one tells nothing to anybody but this
server: its user part is sealed, all have the same length, and no two of a device look alike. None of them is kept: a
temporary one says itself since when its device's GRUUs count, and it is good while that is so (§5.1: registering with
another Call-ID ends those that were given out).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from sipserver.sip.grammar import normal_escapes
from sipserver.sip.sealing import Sealer
from sipserver.sip.uri import Uri, aor_uri

PARAM: Final = "gr"
"""The URI parameter of a GRUU."""
TEMPORARY: Final = "tgruu."
"""What the user part of a temporary one begins with."""

NONCE: Final = 10
"""Random bytes in each temporary GRUU."""
_DEVICE: Final = 8
_SINCE: Final = 6
_LONGEST: Final = 128
# RFC 3261 §25.1, paramchar without escapes.
_NOT_IN_PARAM: Final = re.compile(rb"[^A-Za-z0-9_.!~*'()\[\]/:&+$-]")


@dataclass(slots=True)
class Temporary:
    """What is in a temporary GRUU."""

    owner: str
    """What stands for the address that it belongs to."""
    device: bytes
    """What stands for the instance."""
    since: int
    """From when on, in milliseconds of UNIX time, the GRUUs of its series were given out."""


class GruuMinter:
    """Makes and reads temporary GRUUs; ``secret`` (up to 64 bytes) has to outlive a restart."""

    __slots__ = ("_key", "_sealer")

    def __init__(self, secret: bytes) -> None:
        self._sealer = Sealer(secret, b"gruu")
        self._key = hashlib.blake2b(b"gruu device", key=secret[:64], digest_size=32).digest()

    def device(self, instance: str) -> bytes:
        """What stands for this instance."""
        return hashlib.blake2b(instance.encode("utf-8", "surrogateescape"), key=self._key, digest_size=_DEVICE).digest()

    def mint(self, owner: str, instance: str, since: float, domain: str, nonce: bytes) -> str:
        """A new URI for this device. ``nonce`` is NONCE random bytes, ``since`` UNIX time in seconds."""
        assert len(nonce) == NONCE, "a GRUU without its random part could be told from others"
        fixed = nonce + self.device(instance) + round(since * 1000).to_bytes(_SINCE, "big")
        return f"sip:{TEMPORARY}{self._sealer.seal(fixed + owner.encode('ascii'))}@{domain};{PARAM}"

    def read(self, uri: Uri) -> Temporary | None:
        """What this temporary GRUU says; None for one that this server did not make."""
        user = uri.user or ""
        if not user.startswith(TEMPORARY) or len(user) > _LONGEST:
            return None
        content = self._sealer.open(user[len(TEMPORARY) :])
        if content is None:
            return None
        device, since = content[NONCE : NONCE + _DEVICE], content[NONCE + _DEVICE : NONCE + _DEVICE + _SINCE]
        owner = content[NONCE + _DEVICE + _SINCE :].decode("ascii")
        return Temporary(owner, device, int.from_bytes(since, "big"))


def public(aor: str, instance: str) -> str:
    """The public GRUU of this device (RFC 5627 appendix A.1)."""
    return f"{aor_uri(aor)};{PARAM}={gr_value(instance)}"


def gr_value(instance: str) -> str:
    """The instance as the value of ``gr``: without its angle brackets, escaped where it has to be."""
    bare = instance[1:-1] if instance[:1] == "<" and instance[-1:] == ">" else instance
    escaped = _NOT_IN_PARAM.sub(lambda match: b"%%%02X" % match[0][0], bare.encode("latin-1", "replace"))
    return escaped.decode("ascii")


def is_of(value: str, instance: str | None) -> bool:
    """Whether this value of ``gr`` means that instance."""
    if instance is None:
        return False
    own = normal_escapes(gr_value(instance))
    # RFC 8141 §3.1: the scheme of a URN and, of a UUID, its digits may be written in either case.
    return value == own or (own.startswith("urn:uuid:") and value.lower() == own)
