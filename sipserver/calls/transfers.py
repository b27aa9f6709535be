"""Which call came of which: transfers by REFER (RFC 3515), replaced calls (RFC 3891). Pure; a short memory.

    A talks to B, and B's endpoint sends A's a REFER to C.
        transfer           REFER accepted, and A calls C within WINDOW_MS: the first call leads to the second
        attended_transfer  the same, where the REFER names a call of B and C that the new one is to replace
        replaced           an INVITE names a call that it replaces, and is answered: that call leads to this one

A REFER may also be sent outside of the call (RFC 3515 §2.4): then it is about the dialog in its Target-Dialog (RFC
4538), or else about the only call that its sender and its receiver have with each other. Where there is none, it asks
for a call that comes of no other.

The INVITE of a transfer may overtake the answer to the REFER, so the link is made when both have come. Addresses are
compared here and go nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address, parse_params

TRANSFER: Final = "transfer"
ATTENDED_TRANSFER: Final = "attended_transfer"
REPLACED: Final = "replaced"

WINDOW_MS: Final = 60_000
"""How long after a REFER the call that it asks for may come."""
MAX_WAITING: Final = 1_000
"""REFERs that are waited for, and calls that may replace another one; the oldest are forgotten."""


@dataclass(slots=True)
class Link:
    """The other call came of this one."""

    call: str
    other: str
    kind: str


@dataclass(slots=True)
class _Refer:
    """A REFER that was passed on."""

    at: int
    call: str
    kind: str
    target: str
    """The address of Refer-To; of an attended transfer the Call-ID of the call to be replaced."""
    transferee: str | None
    """Party id of who is to make the call."""
    referrer: str | None
    """Whom the new INVITE's Referred-By will name."""
    accepted: bool = False
    other: str | None = None
    """The call that came, where it came before the answer."""


@dataclass(slots=True)
class Replaces:
    """The dialog that a request is to replace (RFC 3891 §3)."""

    call_id: str
    to_tag: str
    from_tag: str


OUTSIDE: Final = "outside"
"""In place of a side: the REFER was sent outside of the call that it is about."""


class Transfers:
    """What is waited for. Times are milliseconds, calls are known by the ids of their rows."""

    def __init__(self) -> None:
        self._refers: dict[tuple[str, str, int], _Refer] = {}
        self._by_target: dict[str, list[_Refer]] = {}
        """Several may be sent to one address at a time; the oldest first."""
        self._replacing: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._refers) + len(self._replacing)

    @property
    def waits(self) -> bool:
        """Whether an answer may make a link."""
        return bool(self._replacing)

    def referred(self, key: str, side: str, request: Request, call: str, transferee: str | None, at: int) -> None:
        """A REFER of this side of the call goes to the other side, who is the transferee.

        ``key`` and ``side`` are those of ``accepted``; of a REFER that was sent outside of the call any key of its own
        and OUTSIDE.
        """
        try:
            refer_to = Address.parse(request.header(names.REFER_TO) or "").uri
            replaces = embedded_replaces(refer_to)
            target = refer_to.aor() if replaces is None else replaces.call_id
        except SipError:
            return
        # RFC 3515 §2.4.4: it may ask for other things than a call.
        if refer_to.params.get("method") not in (None, "INVITE", "invite"):
            return
        self._forget_old(at)
        kind = TRANSFER if replaces is None else ATTENDED_TRANSFER
        refer = _Refer(at, call, kind, _target_key(kind, target), transferee, _referrer(request))
        transaction = key, side, request.cseq[0]
        if transaction in self._refers:
            self._forget(transaction)
        self._refers[transaction] = refer
        self._by_target.setdefault(refer.target, []).append(refer)

    def accepted(self, key: str, side: str, number: int) -> tuple[Link | None, bool] | None:
        """The REFER with this CSeq number got its 2xx: the link where the call has come, and whether it is attended.

        None for a REFER that is not known.
        """
        refer = self._refers.get((key, side, number))
        if refer is None:
            return None
        refer.accepted = True
        attended = refer.kind == ATTENDED_TRANSFER
        if refer.other is None:
            return None, attended
        self._forget((key, side, number))
        return Link(refer.call, refer.other, refer.kind), attended

    def placed(
        self, request: Request, call: str, caller: str | None, callee: str | None, replaces: Replaces | None, at: int
    ) -> Link | None:
        """A call begins; ``caller`` is a party id, ``callee`` an address. The link, where a REFER asked for it."""
        if not self._refers:
            return None
        for target in _targets(request, callee, replaces):
            asking = [
                each for each in self._by_target.get(target, ())
                if each.other is None and at - each.at <= WINDOW_MS and _asks(each, request, caller)
            ]  # fmt: skip
            if asking:
                return self._came(_likeliest(asking, request), call)
        return None

    def _came(self, refer: _Refer, call: str) -> Link | None:
        refer.other = call
        if not refer.accepted:
            return None
        for transaction, each in self._refers.items():
            if each is refer:
                self._forget(transaction)
                break
        return Link(refer.call, call, refer.kind)

    def may_replace(self, call: str, replaced: str) -> None:
        """This call begins with an INVITE that names the other one in Replaces."""
        while len(self._replacing) >= MAX_WAITING:
            del self._replacing[next(iter(self._replacing))]
        self._replacing[call] = replaced

    def answered(self, call: str) -> Link | None:
        """The call was answered: if it was to replace another one, it has."""
        replaced = self._replacing.pop(call, None)
        return None if replaced is None else Link(replaced, call, REPLACED)

    def over(self, call: str) -> None:
        """The call has ended."""
        self._replacing.pop(call, None)

    def _forget_old(self, at: int) -> None:
        while self._refers:
            oldest = next(iter(self._refers))
            if len(self._refers) < MAX_WAITING and abs(at - self._refers[oldest].at) <= WINDOW_MS:
                return
            self._forget(oldest)

    def _forget(self, transaction: tuple[str, str, int]) -> None:
        refer = self._refers.pop(transaction)
        left = [each for each in self._by_target[refer.target] if each is not refer]
        if left:
            self._by_target[refer.target] = left
        else:
            del self._by_target[refer.target]


def _asks(refer: _Refer, request: Request, caller: str | None) -> bool:
    """Whether the REFER may have asked ``caller`` for this INVITE."""
    if caller is not None and refer.transferee == caller:
        return True
    # Who is not known here may still say who sent it (RFC 3892).
    return refer.referrer is not None and _referrer(request, only_header=True) == refer.referrer


def _likeliest(asking: list[_Refer], request: Request) -> _Refer:
    """Of those that ask for the same: whom the INVITE names, then what was accepted, then the newest."""
    named = _referrer(request, only_header=True)
    best = asking[-1]
    for refer in reversed(asking):
        if (refer.referrer == named, refer.accepted) > (best.referrer == named, best.accepted):
            best = refer
    return best


def parse_replaces(value: str) -> Replaces | None:
    """The value of a Replaces header (RFC 3891 §6.1); None where it is none."""
    found = _parse_dialog(value, "to-tag", "from-tag")
    return None if found is None else Replaces(*found)


def parse_target_dialog(value: str) -> tuple[str, str, str] | None:
    """The Call-ID and the two tags in a Target-Dialog header (RFC 4538 §7); None where it is none."""
    return _parse_dialog(value, "local-tag", "remote-tag")


def _parse_dialog(value: str, one: str, other: str) -> tuple[str, str, str] | None:
    call_id, semicolon, rest = value.partition(";")
    call_id = call_id.strip(" \t")
    try:
        params = parse_params(rest.strip(" \t")) if semicolon else {}
    except SipError:
        return None
    first, second = params.get(one), params.get(other)
    return (call_id, first, second) if call_id and first and second else None


def embedded_replaces(uri: Uri) -> Replaces | None:
    """The Replaces that a Refer-To asks for (RFC 3891 §4: in the headers of its URI)."""
    if not uri.headers:
        return None
    for header in uri.headers.split("&"):
        name, _, value = header.partition("=")
        if name.lower() == names.REPLACES:
            return parse_replaces(unquote(value, "latin-1"))
    return None


def _targets(request: Request, callee: str | None, replaces: Replaces | None) -> list[str]:
    """By which REFERs this INVITE may have been asked for."""
    found = [] if replaces is None else [_target_key(ATTENDED_TRANSFER, replaces.call_id)]
    if callee is not None:
        found.append(_target_key(TRANSFER, callee))
    try:
        asked = _target_key(TRANSFER, request.uri.aor())
    except SipError:
        return found
    return found if asked in found else [*found, asked]


def _target_key(kind: str, target: str) -> str:
    # No address has a space in it, and no Call-ID.
    return f"{kind} {target}"


def _referrer(request: Request, *, only_header: bool = False) -> str | None:
    """The address in Referred-By (RFC 3892), else in From."""
    value = request.header(names.REFERRED_BY)
    try:
        if value is not None:
            return Address.parse(value).uri.aor()
        return None if only_header else request.from_.uri.aor()
    except SipError:
        return None
