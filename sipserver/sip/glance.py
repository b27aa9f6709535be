"""What a request that begins something says at first sight: enough to refuse it, for a third of what reading it costs.

Where more comes than can be served, most of the time that there is would go into reading what is refused. So what is
written as nearly every endpoint writes it (one Via over UDP that asks for ``rport`` and names an IPv4 address, no tag
in To, no credentials, no header twice) is refused by copying its lines. Everything else is left to ``sip.validate``.
"""

from __future__ import annotations

import re
from typing import Final

from sipserver.sip import names
from sipserver.sip.build import safe
from sipserver.sip.message import Request
from sipserver.sip.transaction.keys import Key

_METHODS: Final = frozenset(("REGISTER", "INVITE", "SUBSCRIBE", "MESSAGE", "OPTIONS", "PUBLISH"))
_VIA: Final = re.compile(
    r"(?:Via|v): SIP/2\.0/UDP ([1-9][0-9]{0,2}(?:\.[0-9]{1,3}){3})(?::([1-9][0-9]{0,4}))?"
    r"(?:;rport()(?=;))?;branch=(z9hG4bK[A-Za-z0-9.!%*_+`'~-]+)(?:;rport())?\Z"
)


class Glance:
    """A request that can be refused, by its lines."""

    __slots__ = ("_lines", "branch", "key")

    def __init__(self, branch: str, key: Key, lines: tuple[str, str, str, str, str]) -> None:
        self.branch = branch
        self.key = key
        """Of its server transaction, as ``keys.server_key`` has it."""
        self._lines = lines

    def refusal(self, host: str, port: int, status: int, reason: str, to_tag: str, headers: tuple[str, ...]) -> bytes:
        """What ``build.reply`` makes of a request from ``host`` and ``port`` that ``build.stamp_via`` has seen.

        It goes to where the request came from (RFC 3581 §4).
        """
        safe("".join((reason, to_tag, *headers)))
        via, from_, to, call_id, cseq = self._lines
        via = via.replace(";rport", f";rport={port};received={host}", 1)
        head = (
            f"SIP/2.0 {status} {reason}", via, from_, f"{to};tag={to_tag}", call_id, cseq, *headers,
            "Content-Length: 0\r\n\r\n",
        )  # fmt: skip
        return "\r\n".join(head).encode("latin-1")


def glance(request: Request) -> Glance | None:
    """A request that begins something; None where it would have to be read to know. It need not be valid."""
    places, lines = request.places, request.lines
    if request.method not in _METHODS or len(places) != len(request.names):
        return None
    if names.AUTHORIZATION in places or names.PROXY_AUTHORIZATION in places:
        return None
    via_at, from_at, to_at = places.get(names.VIA, -1), places.get(names.FROM, -1), places.get(names.TO, -1)
    call_id_at, cseq_at = places.get(names.CALL_ID, -1), places.get(names.CSEQ, -1)
    if min(via_at, from_at, to_at, call_id_at, cseq_at) < 0:
        return None
    via, to = _VIA.match(lines[via_at]), lines[to_at]
    # One of the two places where rport may stand.
    if via is None or (via.start(3) >= 0) == (via.start(5) >= 0) or "tag" in to.lower():
        return None
    port, branch = via[2], via[4]
    key = branch, via[1], int(port) if port is not None else None, request.method
    return Glance(branch, key, (lines[via_at], lines[from_at], to, lines[call_id_at], lines[cseq_at]))
