"""What the tests of the proxy share: a small world with one domain, its flows, requests, and a driver by hand."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import count
from typing import Any

from sipserver.proxy.effects import CallEvent, Forward, NeedFlow, Reply, SetBranchTimer
from sipserver.proxy.fork import ResponseContext
from sipserver.proxy.plan import CallPlaced, NeedTargets, Plan, Settings, Target
from sipserver.proxy.record_route import Minter
from sipserver.proxy.route import admit
from sipserver.sip import digest
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.digest import Authenticator, Credentials
from sipserver.sip.effects import Effect, NeedCredentials
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response, parse

DOMAIN = "example.test"
KEY = "0123456789abcdef"
NOW = 1_800_000_000.0
PASSWORDS = {"alice": "wonderland", "bob": "builder"}

MINTER = Minter(b"a secret of this server")
AUTHENTICATOR = Authenticator(b"another secret")


def is_us(host: str, port: int | None) -> bool:
    """The one listener."""
    return host == "192.0.2.10" and (port or 5060) == 5060


def settings(**changes: Any) -> Settings:
    """Settings of a server for one domain."""
    return Settings(**{"domains": frozenset((DOMAIN,)), "is_us": is_us, **changes})


def flow(host: str = "192.0.2.1", port: int = 5070, transport: str = "UDP", sent_by: str = "192.0.2.10:5060") -> Flow:
    """A flow to a peer; over TCP it has a connection."""
    reliable = transport != "UDP"
    return Flow(transport, host, port, sent_by, reliable, connection=port if reliable else 0)


def request(
    method: str = "INVITE",
    uri: str = "sip:bob@example.test",
    *extra: str,
    from_: str = "<sip:alice@example.test>;tag=from1",
    to: str = "<sip:bob@example.test>",
    call_id: str = "call-1",
    cseq: int = 1,
    max_forwards: str | None = "70",
    via: str = "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKcaller",
    contact: str = "<sip:alice@192.0.2.1:5070>",
    body: bytes = b"",
) -> Request:
    """A request as alice's endpoint sends it."""
    lines = [
        f"{method} {uri} SIP/2.0", f"Via: {via}", f"From: {from_}", f"To: {to}", f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}", f"Contact: {contact}",
    ]  # fmt: skip
    if max_forwards is not None:
        lines.append(f"Max-Forwards: {max_forwards}")
    lines += extra
    lines.append(f"Content-Length: {len(body)}")
    message = parse("\r\n".join((*lines, "", "")).encode("latin-1") + body)
    assert isinstance(message, Request)
    return message


def signed(
    message: Request, user: str = "alice", password: str | None = None, authenticator: Authenticator = AUTHENTICATOR
) -> Request:
    """The request with digest credentials for our domain."""
    challenge = authenticator.challenge_headers(DOMAIN, NOW, proxy=True)[0]
    nonce = challenge.partition('nonce="')[2].partition('"')[0]
    ha1 = digest.ha1(user, DOMAIN, password or PASSWORDS[user], "MD5")
    proof = digest.response(ha1, nonce, message.method, message.uri_text, "MD5", qop="auth", nc="00000001", cnonce="c")
    line = (
        f'Proxy-Authorization: Digest username="{user}", realm="{DOMAIN}", nonce="{nonce}", uri="{message.uri_text}", '
        f'response="{proof}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
    )
    lines = "\r\n".join((message.start_line, *message.lines, line, "", ""))
    again = parse(lines.encode("latin-1") + message.body)
    assert isinstance(again, Request)
    return again


class World:
    """Answers what ``admit`` asks for, and remembers that it was asked."""

    def __init__(self, **targets: Sequence[Target]) -> None:
        self.targets = {f"{user}@{DOMAIN}": tuple(found) for user, found in targets.items()}
        self.asked: list[Effect] = []

    def admit(
        self, message: Request, from_flow: Flow | None = None, *, minter: Minter = MINTER, **changes: Any
    ) -> Plan:
        """The plan for a request; raises what ``admit`` raises."""
        steps = admit(message, from_flow or flow(), settings(**changes), AUTHENTICATOR, minter, NOW)
        return self.run(steps)

    def run(self, steps: Generator[Effect, Any, Plan]) -> Plan:
        """Answer each effect until there is a plan."""
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration as stop:
                made: Plan = stop.value
                return made
            self.asked.append(effect)
            answer = self._answer(effect)

    def _answer(self, effect: Effect) -> Any:
        if isinstance(effect, NeedCredentials):
            if effect.username not in PASSWORDS:
                return None
            ha1 = digest.ha1(effect.username, effect.realm, PASSWORDS[effect.username], effect.algorithm)
            return Credentials(f"{effect.username}@{DOMAIN}", ha1)
        if isinstance(effect, NeedTargets):
            return self.targets.get(effect.aor)
        assert isinstance(effect, CallPlaced)
        return None

    def of(self, kind: type[Effect]) -> list[Effect]:
        """The effects of one kind that were yielded."""
        return [each for each in self.asked if isinstance(each, kind)]


def plan(*groups: Sequence[Target], **changes: Any) -> Plan:
    """A plan to reach registered contacts."""
    made = Plan("sip:bob@example.test", 69, 60, "00000000", groups=[list(group) for group in groups], located=True)
    made.record_route = True
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def targets(number: int, q: int = 1000) -> list[Target]:
    """Devices of bob."""
    return [Target(f"sip:bob@192.0.2.{20 + i}:5060", q) for i in range(number)]


def response(
    sent: OutgoingRequest,
    status: int,
    *extra: str,
    tag: str | None = "to1",
    reason: str = "Whatever",
    body: bytes = b"",
) -> Response:
    """What a device answers to a forwarded request, routes echoed."""
    copied = [
        line for line in sent.lines
        if line.lower().startswith(("via:", "from:", "call-id:", "cseq:", "record-route:"))
    ]  # fmt: skip
    to = next(line for line in sent.lines if line.lower().startswith("to:"))
    if tag is not None and status > 100 and ";tag=" not in to:
        to += f";tag={tag}"
    lines = (f"SIP/2.0 {status} {reason}", *copied, to, *extra, f"Content-Length: {len(body)}")
    message = parse("\r\n".join((*lines, "", "")).encode("latin-1") + body)
    assert isinstance(message, Response)
    return message


class Driver:
    """Runs a response context by hand: answers NeedFlow with a UDP flow to the hop, and records the rest."""

    def __init__(
        self,
        message: Request,
        made: Plan,
        *,
        from_flow: Flow | None = None,
        resolve: bool = True,
        **changes: Any,
    ) -> None:
        numbers = count(1)
        self.resolve = resolve
        self.log: list[Effect] = []
        self.sent: dict[int, OutgoingRequest] = {}
        self.context = ResponseContext(
            message, made, from_flow or flow(), settings(**changes), MINTER, KEY, lambda: f"b{next(numbers)}"
        )

    def start(self) -> list[Effect]:
        """Begin."""
        return self.do(self.context.start())

    def do(self, effects: Sequence[Effect]) -> list[Effect]:
        """Carry out effects and what comes of them; what happened is returned and logged."""
        happened: list[Effect] = []
        for effect in effects:
            happened.append(effect)
            self.log.append(effect)
            if isinstance(effect, Forward):
                self.sent[effect.branch] = effect.request
            elif isinstance(effect, NeedFlow) and self.resolve:
                happened += self.do(self.context.on_flow(effect.branch, flow(effect.uri.host, effect.uri.port or 5060)))
        return happened

    def answer(self, branch: int, status: int, *extra: str, **more: Any) -> list[Effect]:
        """A device's response arrives."""
        return self.do(self.context.on_response(branch, response(self.sent[branch], status, *extra, **more)))

    def statuses(self) -> list[int]:
        """What the sender was told so far."""
        return [effect.status for effect in self.log if isinstance(effect, Reply)]


def kinds(effects: list[Effect]) -> list[str]:
    """Effects by name; events and replies by what they say."""
    named = []
    for effect in effects:
        if isinstance(effect, CallEvent):
            named.append(effect.kind)
        elif isinstance(effect, Reply):
            named.append(str(effect.status))
        elif isinstance(effect, SetBranchTimer):
            named.append(f"timer {effect.timer}")
        else:
            named.append(type(effect).__name__)
    return named


def replied(effects: list[Effect]) -> Response:
    """The response in the only Reply."""
    (reply,) = [effect for effect in effects if isinstance(effect, Reply)]
    message = parse(reply.data)
    assert isinstance(message, Response)
    assert message.status == reply.status
    return message
