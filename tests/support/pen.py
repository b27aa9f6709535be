"""What an endpoint writes, whatever carries it."""

from __future__ import annotations

from itertools import count
from typing import Any

from sipserver.sip import digest
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response

DOMAIN = "example.test"


class Pen:
    """The messages of one user at one address."""

    def __init__(self, user: str, flow: Flow, first: int = 1) -> None:
        self.user = user
        self.flow = flow
        """Between the user's device and the server; host and port are the device's."""
        self._numbers = count(first)

    @property
    def hostport(self) -> str:
        """Where the device is."""
        host = f"[{self.flow.host}]" if ":" in self.flow.host else self.flow.host
        return f"{host}:{self.flow.port}"

    @property
    def address(self) -> str:
        """The user's URI."""
        return f"sip:{self.user}@{DOMAIN}"

    @property
    def contact(self) -> str:
        """The Contact URI."""
        suffix = ";transport=tcp" if self.flow.reliable else ""
        return f"sip:{self.user}@{self.hostport}{suffix}"

    def write(
        self,
        method: str,
        uri: str = "",
        *lines: str,
        to: str = "",
        from_: str = "",
        call_id: str = "call",
        cseq: int = 0,
        branch: str = "",
        body: bytes = b"",
    ) -> bytes:
        """A request; what is not said is as an endpoint would have it."""
        uri = uri or f"sip:{DOMAIN}"
        number = next(self._numbers)
        branch = branch or f"z9hG4bK-{self.user}-{self.flow.port}-{number}"
        head = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.flow.transport} {self.hostport};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {from_ or f'<sip:{self.user}@{DOMAIN}>;tag=f{self.user}'}",
            f"To: {to or (f'<sip:{self.user}@{DOMAIN}>' if method == 'REGISTER' else f'<{uri}>')}",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq or number} {method}",
            *lines,
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join((*head, "", "")).encode() + body

    def credentials(self, challenge: Response, method: str, uri: str, password: str = "") -> str:
        """The line that answers a challenge."""
        proxy = challenge.status == 407
        value = challenge.header("proxy-authenticate" if proxy else "www-authenticate") or ""
        nonce = value.partition('nonce="')[2].partition('"')[0]
        realm = value.partition('realm="')[2].partition('"')[0]
        ha1 = digest.ha1(self.user, realm, password or f"pw{self.user}", "MD5")
        proof = digest.response(ha1, nonce, method, uri, qop="auth", nc="00000001", cnonce="c")
        return (
            f'{"Proxy-" if proxy else ""}Authorization: Digest username="{self.user}", realm="{realm}", '
            f'nonce="{nonce}", uri="{uri}", response="{proof}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
        )

    def answer(self, request: Request, status: int, *lines: str, tag: str = "callee", body: bytes = b"") -> bytes:
        """A response, to be sent."""
        copied = {"via", "from", "call-id", "cseq", "record-route"}
        head = [line for name, line in zip(request.names, request.lines, strict=True) if name in copied]
        to = f"To: {request.header('to')}" + ("" if request.to_tag else f";tag={tag}")
        head += [to, f"Contact: <{self.contact}>", *lines, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join((f"SIP/2.0 {status} Some Reason", *head)).encode("latin-1") + body

    def in_dialog(self, method: str, answer: Response, *lines: str, **options: Any) -> bytes:
        """A request of the caller inside the dialog that this answer made."""
        routes = [f"Route: {value}" for value in reversed(answer.values("record-route"))]
        target = answer.addresses("contact")[0].uri_text
        given = {"from_": answer.header("from"), "to": answer.header("to"), "call_id": answer.call_id}
        return self.write(method, target, *routes, *lines, **{**given, **options})
