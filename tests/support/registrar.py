"""A registrar without a server: requests in, refusals and outcomes out, bindings in memory."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from typing import Any

from sipserver.location.memory import MemoryLocation
from sipserver.registrar.binding import Binding
from sipserver.registrar.process import NeedBindings, NeedGruus, Registered, Settings, UpdateBindings, register
from sipserver.sip.digest import Authenticator, Credentials, ha1, response
from sipserver.sip.effects import Effect, NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.gruu import NONCE, GruuMinter
from sipserver.sip.message import Request
from sipserver.sip.validate import check_request
from support.sip import request

DOMAIN = "example.test"
AOR = f"alice@{DOMAIN}"
NOW = 1_795_000_000.0
FLOW = Flow("UDP", "192.0.2.7", 5062, "192.0.2.1:5060", False)
NONCE_START = NOW - 10


def make(
    *lines: str, cseq: int = 1, call_id: str = "one", to: str = f"<sip:{AOR}>", uri: str = f"sip:{DOMAIN}"
) -> Request:
    """A REGISTER with these header lines besides the mandatory ones."""
    head = (
        f"REGISTER {uri} SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1",
        "Max-Forwards: 70",
        f"From: <sip:{AOR}>;tag=1",
        f"To: {to}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} REGISTER",
        *lines,
        "Content-Length: 0",
    )
    made = request("\n".join(head))
    check_request(made)
    return made


class Registrar:
    """Runs whole registrations with digest; each request is made anew with credentials for its challenge."""

    def __init__(self, *, password_known: str = "password", store_works: bool = True, **options: int) -> None:
        self.settings = Settings(frozenset({DOMAIN}), **options)
        self.location = MemoryLocation()
        self.store_works = store_works
        self.now = NOW
        self.gruus = GruuMinter(b"secret")
        self._numbers = count()
        self.effects: list[Effect] = []
        """What the last registration asked for."""
        self._authenticator = Authenticator(b"secret", not_before=NONCE_START)
        self._ha1 = ha1("alice", DOMAIN, password_known, "MD5")

    def challenge(self, made: Request) -> SipError:
        """The refusal of a request without credentials."""
        try:
            self.run(made)
        except SipError as error:
            return error
        raise AssertionError("registered without credentials")

    def send(self, *lines: str, flow: Flow = FLOW, **options: Any) -> Registered:
        """Register with the right password; raises SipError for a refusal."""
        (challenge,) = self._authenticator.challenge_headers(DOMAIN, self.now, proxy=False)
        nonce = challenge.partition('nonce="')[2].partition('"')[0]
        uri = options.get("uri", f"sip:{DOMAIN}")
        right = ha1("alice", DOMAIN, "password", "MD5")
        digest = response(right, nonce, "REGISTER", uri, qop="auth", nc="00000001", cnonce="c")
        credentials = (
            f'Authorization: Digest username="alice", realm="{DOMAIN}", nonce="{nonce}", uri="{uri}", '
            f'response="{digest}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
        )
        return self.run(make(*lines, credentials, **options), flow)

    def run(self, made: Request, flow: Flow = FLOW) -> Registered:
        """Carry out one request to its end."""
        steps: Generator[Effect, Any, None] = register(made, flow, self.settings, self._authenticator, self.now)
        self.effects = []
        answer: Any = None
        while True:
            effect = steps.send(answer)
            if isinstance(effect, Registered):
                return effect
            self.effects.append(effect)
            answer = self._answer(effect)

    def bound(self) -> list[str]:
        """The contacts that are bound now."""
        return [binding.contact for binding in self.bindings()]

    def bindings(self, aor: str = AOR) -> tuple[Binding, ...]:
        """The bindings of an address now."""
        return self.location.get(aor, self.now)

    def _answer(self, effect: Effect) -> Any:
        if isinstance(effect, NeedCredentials):
            return Credentials(AOR, self._ha1) if effect.username == "alice" else None
        if isinstance(effect, NeedBindings):
            return self.location.get(effect.aor, self.now)
        if isinstance(effect, NeedGruus):
            return {
                instance: self.gruus.mint("p_x", instance, since, DOMAIN, next(self._numbers).to_bytes(NONCE, "big"))
                for instance, since in effect.devices.items()
            }
        assert isinstance(effect, UpdateBindings)
        if self.store_works:
            self.location.replace(effect.aor, effect.changes, lambda _: None)
        return self.store_works


def refusal(registrar: Registrar, *lines: str, **options: Any) -> SipError:
    """The refusal of a request that has the right credentials; what was bound stays so."""
    before = registrar.bindings()
    try:
        registrar.send(*lines, **options)
    except SipError as error:
        assert registrar.bindings() == before
        return error
    raise AssertionError("not refused")
