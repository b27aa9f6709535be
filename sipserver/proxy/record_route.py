"""Record-Route values that only this server can have made, and what they prove when they come back.

Each URI that this server puts into a Record-Route carries ``vc``: the key of the call and a MAC over
that key, the Call-ID and the caller's tag. An in-dialog request whose Route brings it back proves that
its sender took part in that dialog (RFC 3261 §16.6 step 4: a proxy may encode enough in the URI to
compare it with the dialog of a later request). Which of its tags the MAC fits tells who sent it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Hashable
from typing import Final

from sipserver.proxy.bounded import Latest
from sipserver.sip.flow import SECURED, Flow
from sipserver.sip.message import Request
from sipserver.sip.sealing import Sealer

CALLER: Final = "caller"
"""The side that sent the request which formed the dialog."""
CALLEE: Final = "callee"
"""The side that was called."""

ROUTE_PARAM: Final = "vc"
"""The URI parameter that holds the token."""

KEY_LENGTH: Final = 16
"""Characters of a call key: 64 bits in lower-case hexadecimal."""

_MAC_BYTES: Final = 10
_REMEMBERED: Final = 4_096
"""Tokens that need not be signed once more to be verified."""
_TOKEN_LENGTH: Final = KEY_LENGTH + 2 * _MAC_BYTES


def other_side(side: str) -> str:
    """Whom the requests of this side go to."""
    return CALLEE if side == CALLER else CALLER


class Minter:
    """Makes and checks the tokens; ``secret`` (up to 64 bytes) has to outlive a restart, since calls do."""

    __slots__ = ("_latest", "_mac", "_seed", "sealer")

    def __init__(self, secret: bytes) -> None:
        assert secret, "a minter without a secret: derive one from the keyring"
        self._mac = hashlib.blake2b(key=secret[:64], digest_size=_MAC_BYTES, person=b"record-route")
        self.sealer = Sealer(secret, b"flows")
        """For what else stands in our Record-Route and is nobody's business."""
        self._latest: Latest[tuple[str, str, str]] = Latest(_REMEMBERED)
        """Call-ID, tag and signature of the latest tokens by the call's key: most come back with an ACK at once."""
        self._seed = hashlib.blake2b(b"loop", key=secret[:64], digest_size=16).digest()

    def token(self, call_key: str, call_id: str, from_tag: str | None) -> str:
        """The token of a dialog; ``from_tag`` is the tag of the side that formed it."""
        assert len(call_key) == KEY_LENGTH, "a call key has sixteen characters"
        signature = self._sign(call_key, call_id, from_tag)
        self._latest.put(call_key, (call_id, from_tag or "", signature))
        return call_key + signature

    def verify(self, token: str, request: Request) -> tuple[str, str] | None:
        """The call key and the side that sent this request, None where the token was not made for its dialog."""
        if len(token) != _TOKEN_LENGTH or not token.isascii():
            return None
        call_key, signature = token[:KEY_LENGTH], token[KEY_LENGTH:]
        call_id = request.call_id
        known = self._latest.get(call_key)
        if known is not None and call_id == known[0] and hmac.compare_digest(signature, known[2]):
            if (request.from_tag or "") == known[1]:
                return call_key, CALLER
            return (call_key, CALLEE) if request.to_tag == known[1] else None
        if hmac.compare_digest(signature, self._sign(call_key, call_id, request.from_tag)):
            return call_key, CALLER
        to_tag = request.to_tag
        if to_tag is not None and hmac.compare_digest(signature, self._sign(call_key, call_id, to_tag)):
            return call_key, CALLEE
        return None

    def loop_hash(self, material: Hashable) -> str:
        """Eight hexadecimal characters that vary with the material, the server and its run (RFC 5393 §4.2.1).

        No proof of anything: whoever forges it refuses a request of their own.
        """
        # A one in front keeps the zeros; a format takes three times as long.
        return hex(hash((self._seed, material)) & 0xFFFFFFFF | 0x100000000)[3:]

    def _sign(self, call_key: str, call_id: str, tag: str | None) -> str:
        mac = self._mac.copy()
        # The length keeps the end of the Call-ID apart from the beginning of the tag.
        mac.update(f"{call_key}{len(call_id)}:{call_id}{tag or ''}".encode("latin-1"))
        return mac.hexdigest()


def record_route_lines(flow_out: Flow, flow_in: Flow, token: str, *, is_secure: bool = False) -> list[str]:
    """The Record-Route lines for a request that came over ``flow_in`` and leaves over ``flow_out``.

    One where both sides reach this server alike, else two, the outer one first, so that each side's
    route set begins with the URI that it can reach (RFC 5658 §3).
    """
    line = _line(flow_out, token, is_secure)
    if flow_out is flow_in or (flow_out.transport == flow_in.transport and flow_out.sent_by == flow_in.sent_by):
        return [line]
    return [line, _line(flow_in, token, is_secure)]


def _line(flow: Flow, token: str, is_secure: bool) -> str:
    if is_secure and flow.transport in SECURED:
        # RFC 3261 §16.6 step 4, §26.2.2: TLS follows from the scheme.
        over = ";transport=ws" if flow.transport == "WSS" else ""
        return f"Record-Route: <sips:{flow.sent_by}{over};lr;{ROUTE_PARAM}={token}>"
    if flow.transport == "UDP":
        return f"Record-Route: <sip:{flow.sent_by};lr;{ROUTE_PARAM}={token}>"
    # RFC 7118 §5.2: in a URI both kinds of WebSocket are ws.
    transport = "ws" if flow.transport == "WSS" else flow.transport.lower()
    return f"Record-Route: <sip:{flow.sent_by};transport={transport};lr;{ROUTE_PARAM}={token}>"
