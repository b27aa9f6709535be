"""Digest authentication as a server does it: RFC 7616 in the form RFC 8760 gives it for SIP, with RFC 2617 and 2069.

Nonces are signed, not stored: time of issue and a counter, then a MAC over both and the realm, as hexadecimal text,
which the oldest endpoints can copy. What is stored, within a bound, is which nonce counts were used, so
that no credentials are accepted twice. A nonce that is too old, used up, of an earlier run or not ours
at all is answered ``stale=true`` where the digest over it is right: the endpoint then tries again by itself.

Left out or loosened, each for a reason:

* the ``uri`` of the credentials need not be the Request-URI unless asked for: endpoints write the address of
  their outbound proxy there, and RFC 8760 §2.6 rule 6 lets a server accept that;
* credentials without qop (RFC 2069) are good once for each nonce, whatever was offered: old endpoints send them;
* ``-sess`` algorithms, ``userhash``, ``username*``, ``opaque`` and ``nextnonce`` are not used. The username is looked
  up as it was sent; since it is hashed into HA1, ``alice@example.com`` only verifies where HA1 was made for it.

Text is Latin-1 decoded as in ``sip.message``, but for usernames handed out, which are what people read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sipserver.sip import names
from sipserver.sip.effects import NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, text
from sipserver.sip.uri import Uri
from sipserver.sip.values import quote

ALGORITHMS: Final[tuple[str, ...]] = ("SHA-512-256", "SHA-256", "MD5")
"""The algorithms known here, strongest first."""

MISSING: Final = "missing"
"""No credentials for this realm: every client's first request."""
MALFORMED: Final = "malformed"
"""Credentials that cannot be read, or that use what was not offered."""
WRONG: Final = "wrong"
"""An unknown user or a wrong password."""
STALE: Final = "stale"
"""The password is right; the nonce is expired, of an earlier run or not ours."""
REPLAYED: Final = "replayed"
"""The password is right; this nonce count was used before."""

MAX_USERNAME: Final = 256
"""Longest username that is looked up, in bytes."""

_HASHES: Final[dict[str, Callable[[bytes], str]]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
}
# One parameter and the comma behind it; what fits no parameter is taken whole, as the last group.
_PARAMETER: Final = re.compile(
    r"""[ \t,]*+([A-Za-z0-9.!%*_+`'~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^\s",]+))[ \t]*+(?:,|\Z)|(.+)""",
    re.DOTALL,
)
_USUAL: Final = frozenset(
    ("username", "realm", "nonce", "uri", "response", "algorithm", "opaque", "qop", "nc", "cnonce")
)
_SPACE: Final = ord(" ")
_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_NONCE_COUNT: Final = re.compile(r"[0-9A-Fa-f]{1,8}\Z")

_ISSUED_LENGTH: Final = 20
"""Hexadecimal characters before the MAC: 12 of the milliseconds, 8 of the counter."""
_MAC_SIZE: Final = 12
_SIGNATURES: Final = 1_024
"""Signatures that are remembered at most."""
_WINDOW: Final = 64
_WINDOW_MASK: Final = 2**_WINDOW - 1
_USED_UP: Final = 2**40
"""A highest nonce count that no nonce count of 8 digits comes near."""


@dataclass(slots=True)
class Credentials:
    """What is known of a user."""

    aor: str
    """The address of record that these credentials belong to."""
    ha1: str
    """HA1 of the algorithm that was asked for, in lower-case hexadecimal digits."""


class AuthenticationRequired(SipError):
    """A 401 or 407 with its challenges."""

    def __init__(self, status: int, reason: str, headers: Sequence[str], cause: str, username: str | None) -> None:
        super().__init__(status, reason, headers)
        self.cause = cause
        """MISSING, MALFORMED, WRONG, STALE or REPLAYED."""
        self.username = username
        """Who was claimed, for logs; None where nobody was."""


def ha1(username: str, realm: str, password: str, algorithm: str) -> str:
    """HA1 in hexadecimal digits (RFC 7616 §3.4.2); text is hashed as UTF-8. As good as the password: keep it secret."""
    return _HASHES[algorithm](f"{username}:{realm}:{password}".encode())


def response(
    ha1: str,
    nonce: str,
    method: str,
    uri: str,
    algorithm: str = "MD5",
    *,
    qop: str | None = None,
    nc: str = "",
    cnonce: str = "",
    body: bytes = b"",
) -> str:
    """The response in hexadecimal digits (RFC 7616 §3.4.1; RFC 2069 §2.1.2 without qop).

    The values are those of the parameters, without quotes and as sent. ``body`` counts for qop auth-int alone.
    """
    digest = _HASHES[algorithm]
    a2 = f"{method}:{uri}"
    if qop is None:
        return digest(f"{ha1}:{nonce}:{_ha2(a2, algorithm)}".encode("latin-1"))
    if qop != "auth" and qop.lower() == "auth-int":
        a2 = f"{a2}:{digest(body)}"
    return digest(f"{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{_ha2(a2, algorithm)}".encode("latin-1"))


# Who registers writes the domain: few for so many.
@lru_cache(maxsize=256)
def _ha2(a2: str, algorithm: str) -> str:
    return _HASHES[algorithm](a2.encode("latin-1"))


@dataclass(slots=True)
class _Claim:
    """The credentials of one request, read and not yet believed."""

    username: str
    nonce: str
    uri: str
    response: str
    algorithm: str
    qop: str | None
    """As written; None is the RFC 2069 form."""
    nc: str
    cnonce: str


class Authenticator:
    """Challenges requests and checks the answers.

    What was used is remembered here and nowhere else. Listeners with the same algorithms and qop share one
    authenticator; one with other settings makes nonces that this one does not take for its own.
    """

    def __init__(
        self,
        secret: bytes,
        algorithms: Iterable[str] = ("MD5",),
        *,
        nonce_lifetime: float = 300.0,
        offer_qop: bool = True,
        max_nonces: int = 100_000,
        not_before: float = 0.0,
        check_uri: bool = False,
    ) -> None:
        """``secret`` signs nonces. ``not_before`` is when this run began (UNIX seconds, as ``now`` everywhere here).

        ``nonce_lifetime`` is in seconds; ``max_nonces`` bounds how many used nonces are remembered. ``offer_qop``
        False makes challenges that RFC 2069 endpoints understand. ``check_uri`` refuses (400) credentials whose
        uri is not equivalent to the Request-URI.
        """
        wanted = tuple(algorithms)
        assert set(wanted) <= set(ALGORITHMS), f"algorithms are some of {ALGORITHMS}"
        assert wanted, "one algorithm at least"
        self._algorithms = tuple(each for each in ALGORITHMS if each in wanted)
        qop = ', qop="auth"' if offer_qop else ""
        self._offers = [f", algorithm={each}{qop}" for each in self._algorithms]
        # By the order as given: what a caller tells apart must not share nonces, or each would be good twice.
        label = f"sip digest nonce {wanted} {offer_qop}".encode()
        self._mac = hashlib.blake2b(key=hashlib.blake2b(secret + label).digest(), digest_size=_MAC_SIZE)
        self._signatures: dict[str, str] = {}
        """Of the latest nonces, since most come back at once, by what is signed."""
        self._nobody = {each: _HASHES[each](secret + b" nobody") for each in self._algorithms}
        self._lifetime = int(nonce_lifetime * 1000)
        self._check_uri = check_uri
        self._counter = 0
        self.shift = 0.0
        """Seconds that the clock was set forward by in this run: nonces go on with the time as it was, so that a clock
        that is set neither makes new ones stale nor old ones good again."""
        self._used = _UsedNonces(max_nonces, self._lifetime, int(not_before * 1000))

    def challenge_headers(self, realm: str, now: float, *, proxy: bool, stale: bool = False) -> list[str]:
        """The challenge as whole header lines, one for each algorithm, strongest first (RFC 8760 §2.3)."""
        name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
        start = f'{name}: Digest realm={_quoted_realm(realm)}, nonce="{self._new_nonce(realm, now)}"'
        end = ", stale=true" if stale else ""
        return [f"{start}{offer}{end}" for offer in self._offers]

    def authenticate(
        self, request: Request, realm: str, now: float, *, proxy: bool
    ) -> Generator[NeedCredentials, Credentials | None, str]:
        """The address of record that this request is proven to come from.

        ``proxy`` chooses between 407 with the Proxy- headers and 401. Raises AuthenticationRequired, and
        SipError(400) for a ``uri`` that does not match where that is checked.
        """
        claim, cause = self._find_claim(request, realm, proxy)
        if claim is None:
            raise self._refusal(cause, None, realm, now, proxy)
        username = text(claim.username)
        if self._check_uri and not _same_uri(claim.uri, request):
            raise SipError(400, "Digest uri does not match")
        known = yield NeedCredentials(username, realm, claim.algorithm)
        # An unknown user costs what a known one costs and is told the same: who exists is nobody's business.
        expected = response(
            self._nobody[claim.algorithm] if known is None else known.ha1,
            claim.nonce, request.method, claim.uri, claim.algorithm,
            qop=claim.qop, nc=claim.nc, cnonce=claim.cnonce, body=request.body,
        )  # fmt: skip
        right = claim.response.isascii() and hmac.compare_digest(expected, claim.response.lower())
        if known is None or not right:
            raise self._refusal(WRONG, username, realm, now, proxy)
        # Only now: nobody without the password can use up a nonce or fill the table.
        cause = self._spend(claim, realm, now)
        if cause:
            raise self._refusal(cause, username, realm, now, proxy)
        return known.aor

    def first_challenge(self, request: Request, realm: str, now: float, *, proxy: bool) -> list[str] | None:
        """The header lines of the 401 or 407 to a request that brings no credentials at all; None where it brings some.

        They are those of what ``authenticate`` raises then. Half of all REGISTERs and INVITEs end here, and an
        exception on its way out of generators costs three times what the challenge does (measured: 15 us of 22).
        """
        if request.has(names.PROXY_AUTHORIZATION if proxy else names.AUTHORIZATION):
            return None
        return self.challenge_headers(realm, now, proxy=proxy)

    def _refusal(self, cause: str, username: str | None, realm: str, now: float, proxy: bool) -> AuthenticationRequired:
        # RFC 7616 §3.3: stale tells the client that its password is right and only the nonce is not.
        headers = self.challenge_headers(realm, now, proxy=proxy, stale=cause in (STALE, REPLAYED))
        if proxy:
            return AuthenticationRequired(407, "Proxy Authentication Required", headers, cause, username)
        return AuthenticationRequired(401, "Unauthorized", headers, cause, username)

    def _find_claim(self, request: Request, realm: str, proxy: bool) -> tuple[_Claim | None, str]:
        """The credentials for this realm with the strongest algorithm, or None and the reason."""
        cause = MISSING
        best: _Claim | None = None
        for written in request.headers(names.PROXY_AUTHORIZATION if proxy else names.AUTHORIZATION):
            value = written.replace("\t", " ") if "\t" in written else written
            # RFC 3261 §22.4: other schemes, Basic above all, are as good as nothing.
            if value[:7] != "Digest " and value[:7].lower() != "digest ":
                continue
            params = parse_parameters(value[7:])
            if params is not None and params.get("realm") != realm:
                # RFC 3261 §22.3: credentials for somebody else further on.
                continue
            claim = None if params is None else self._read_claim(params)
            if claim is None:
                cause = MALFORMED
            elif best is None or ALGORITHMS.index(claim.algorithm) < ALGORITHMS.index(best.algorithm):
                best = claim
        return best, cause

    def _read_claim(self, params: dict[str, str]) -> _Claim | None:
        """The credentials in these parameters, None where they are incomplete or use what is not offered."""
        try:
            claim = _Claim(
                params["username"], params["nonce"], params["uri"], params["response"],
                # RFC 7616 §3.3: MD5 where none is named.
                params.get("algorithm", "MD5").upper(),
                params.get("qop"), params.get("nc", ""), params.get("cnonce", ""),
            )  # fmt: skip
        except KeyError:
            return None
        if claim.algorithm not in self._algorithms or not 0 < len(claim.username) <= MAX_USERNAME:
            return None
        if claim.qop is not None:
            # RFC 7616 §3.4: with qop there have to be a nonce count and a client nonce.
            if claim.qop != "auth" and claim.qop.lower() not in ("auth", "auth-int"):
                return None
            if not claim.cnonce or not _NONCE_COUNT.match(claim.nc):
                return None
        return claim

    def _new_nonce(self, realm: str, now: float) -> str:
        self._counter = (self._counter + 1) & 0xFFFFFFFF
        # Twelve digits of time and eight of the counter; their formats take three times as long.
        issued = hex(int((now - self.shift) * 1000) << 32 | self._counter)[2:].zfill(_ISSUED_LENGTH)  # noqa: FURB116
        signed = issued + realm
        if len(self._signatures) >= _SIGNATURES:
            self._signatures.clear()
        signature = self._signatures[signed] = self._sign(signed)
        return issued + signature

    def _sign(self, signed: str) -> str:
        mac = self._mac.copy()
        mac.update(signed.encode())
        return mac.hexdigest()

    def _spend(self, claim: _Claim, realm: str, now: float) -> str:
        """Use up the claim's nonce count; empty where that was possible, else STALE or REPLAYED."""
        nonce = claim.nonce
        issued = nonce[:_ISSUED_LENGTH]
        signed = issued + realm
        signature = self._signatures.pop(signed, "") or self._sign(signed)
        if not nonce.isascii() or not hmac.compare_digest(signature, nonce[_ISSUED_LENGTH:]):
            return STALE
        # Signed by us, so these are twenty digits of our own.
        number = int(issued, 16)
        at = int((now - self.shift) * 1000)
        # A nonce of the future was issued before the clock was set back; how old it is nobody knows.
        if not 0 <= at - (number >> 32) <= self._lifetime:
            return STALE
        return self._used.spend(number, None if claim.qop is None else int(claim.nc, 16), at)


class _UsedNonces:
    """Which nonce counts of which nonces were used, within a bound.

    A nonce is the number its text begins with: milliseconds and counter, so that a greater one is younger.
    Whatever is forgotten raises the floor, and a nonce at or below the floor that has no entry is stale: nothing
    forgotten is ever accepted again.
    """

    __slots__ = ("_bound", "_entries", "_floor", "_lifetime")

    def __init__(self, bound: int, lifetime: int, not_before: int) -> None:
        self._bound = bound
        self._lifetime = lifetime
        self._floor = (not_before << 32) - 1
        # The value holds the highest nonce count, and behind it in 64 bits which of those below it were used.
        self._entries: OrderedDict[int, int] = OrderedDict()

    def spend(self, nonce: int, count: int | None, now: int) -> str:
        """Use up a nonce count, or with None the whole nonce; empty, STALE or REPLAYED. ``now`` in milliseconds."""
        entry = self._entries.get(nonce)
        if entry is None:
            if nonce <= self._floor:
                return STALE
            self._make_room(now)
            self._entries[nonce] = (_USED_UP if count is None else count) << _WINDOW | 1
            return ""
        if count is None:
            return REPLAYED
        highest, window = entry >> _WINDOW, entry & _WINDOW_MASK
        ahead = count - highest
        if ahead > 0:
            # The window moves up; a leap beyond its width leaves nothing of it.
            window = (window << ahead | 1) & _WINDOW_MASK if ahead < _WINDOW else 1
            highest = count
        else:
            # UDP may change the order of requests, so what was skipped may still come.
            bit = 1 << -ahead if -ahead < _WINDOW else 0
            if not bit or window & bit:
                return REPLAYED
            window |= bit
        self._entries[nonce] = highest << _WINDOW | window
        return ""

    def _make_room(self, now: int) -> None:
        """Forget what is expired, two at a time so that no request pays for all, and the oldest at the bound."""
        entries = self._entries
        for _ in range(2):
            if not entries:
                return
            oldest = next(iter(entries))
            if len(entries) < self._bound and now - (oldest >> 32) <= self._lifetime:
                return
            entries.popitem(last=False)
            self._floor = max(self._floor, oldest)


@lru_cache(maxsize=64)
def _quoted_realm(realm: str) -> str:
    return quote(realm)


def parse_parameters(value: str) -> dict[str, str] | None:
    """The parameters behind ``Digest``: lower-cased names, values without quotes; None where they cannot be read.

    Spaces, case and quotes are taken as endpoints write them. A parameter that is there twice cannot be read.
    """
    # As nearly every endpoint writes them; whatever is not expected here goes to the pattern.
    if "\\" in value:
        return _parse_unusual_parameters(value)
    params: dict[str, str] = {}
    count = at = 0
    end = len(value)
    while at < end or not count:
        equals = value.find("=", at)
        name = value[at:equals]
        if equals < 0 or name not in _USUAL:
            return _parse_unusual_parameters(value)
        start = equals + 1
        if start < end and ord(value[start]) == _QUOTE:
            close = value.find('"', start + 1)
            written = value[start + 1 : close]
            at = close + 1
            if close < 0 or (at < end and ord(value[at]) != _COMMA):
                return _parse_unusual_parameters(value)
        else:
            comma = value.find(",", start)
            at = comma if comma >= 0 else end
            written = value[start:at]
            if not (written.isalnum() or written in ALGORITHMS):
                return _parse_unusual_parameters(value)
        params[name] = written
        count += 1
        at += 1
        if at < end and ord(value[at]) == _SPACE:
            at += 1
    # One less where a name was there twice.
    return params if len(params) == count else None


def _parse_unusual_parameters(value: str) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for name, quoted, bare, rest in _PARAMETER.findall(value.strip(" \t,")):
        lowered = name.lower()
        if rest or lowered in params:
            return None
        params[lowered] = bare or (_PAIR.sub(r"\1", quoted) if "\\" in quoted else quoted)
    return params


def _same_uri(written: str, request: Request) -> bool:
    """Whether the digest's uri is the Request-URI (RFC 7616 §3.4.6), by RFC 3261 §19.1.4 where the texts differ."""
    if written == request.uri_text:
        return True
    try:
        return Uri.parse(written).equivalent(request.uri)
    except SipError:
        return False
