"""What a request that begins something says at first sight: enough to refuse it, for half of what checks cost.

Where more comes than can be served, most of the time that there is would go into reading what is refused. So what is
written as nearly every endpoint writes it (one Via over UDP that asks for ``rport`` and names an IPv4 address, no tag
in To, no credentials, no header twice) is refused by copying its lines. Everything else is left to ``sip.validate``.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import names
from sipserver.sip.build import safe
from sipserver.sip.message import Request
from sipserver.sip.transaction.keys import Key
from sipserver.sip.values import MAGIC_COOKIE

_METHODS: Final = frozenset(("REGISTER", "INVITE", "SUBSCRIBE", "MESSAGE", "OPTIONS", "PUBLISH"))
_VIA: Final = "Via: SIP/2.0/UDP "
_BRANCH: Final = "branch=" + MAGIC_COOKIE


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

        It goes to where the request came from (RFC 3581 §4). ``headers`` are whole lines, one at least.
        """
        safe(f"{reason}{to_tag}{''.join(headers)}")
        via, from_, to, call_id, cseq = self._lines
        if via.endswith(";rport"):
            via = f"{via}={port};received={host}"
        else:
            via = via.replace(";rport", f";rport={port};received={host}", 1)
        ours = "\r\n".join(headers)
        # In one piece: a list to be joined costs twice as much.
        return (
            f"SIP/2.0 {status} {reason}\r\n{via}\r\n{from_}\r\n{to};tag={to_tag}\r\n{call_id}\r\n{cseq}\r\n{ours}"
            "\r\nContent-Length: 0\r\n\r\n"
        ).encode("latin-1")


def glance(request: Request) -> Glance | None:
    """A request that begins something; None where it would have to be read to know. It need not be valid."""
    places, lines = request.places, request.lines
    if request.method not in _METHODS or len(places) != len(request.names):
        return None
    if names.AUTHORIZATION in places or names.PROXY_AUTHORIZATION in places:
        return None
    via_at, from_at, to_at = places.get(names.VIA, -1), places.get(names.FROM, -1), places.get(names.TO, -1)
    call_id_at, cseq_at = places.get(names.CALL_ID, -1), places.get(names.CSEQ, -1)
    if via_at < 0 or from_at < 0 or to_at < 0 or call_id_at < 0 or cseq_at < 0 or "tag" in lines[to_at].lower():
        return None
    via = lines[via_at]
    semicolon = via.find(";")
    if semicolon < 0 or not via.startswith(_VIA):
        return None
    host, port = _sent_by(via[len(_VIA) : semicolon])
    branch = _branch(via[semicolon + 1 :])
    if port < 0 or not branch:
        return None
    key = branch, host, port or None, request.method
    return Glance(branch, key, (via, lines[from_at], lines[to_at], lines[call_id_at], lines[cseq_at]))


def _sent_by(text: str) -> tuple[str, int]:
    """An IPv4 address and a port, 0 where there is none; -1 where it is something else."""
    colon = text.find(":")
    host, port = (text, "") if colon < 0 else (text[:colon], text[colon + 1 :])
    digits = host.replace(".", "")
    if len(host) - len(digits) != 3 or not digits.isdigit() or host[0] == "0" or not text.isascii():
        return host, -1
    if colon < 0:
        return host, 0
    return host, int(port) if port.isdigit() and len(port) <= 5 and port[0] != "0" else -1


def _branch(params: str) -> str:
    """The branch, where the parameters are that and an rport to be filled in; empty where they are others."""
    if params.endswith(";rport"):
        params = params[:-6]
    elif params.startswith("rport;"):
        params = params[6:]
    else:
        return ""
    branch = params[len("branch=") :]
    if len(params) <= len(_BRANCH) or not params.startswith(_BRANCH) or not branch.isascii():
        return ""
    is_word = not (";" in branch or "," in branch or '"' in branch or " " in branch or "\t" in branch or "<" in branch)
    return branch if is_word else ""
