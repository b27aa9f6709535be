"""Asking one side of a call whether it is still in it: an OPTIONS inside the dialog (RFC 3261 §11, §12.2).

A proxy is no party to the dialog, so the request must not disturb it. Its CSeq is 0: no endpoint takes it for the
latest of the other side, so the next real request is never out of order. One that has the dialog answers 200, or 500
since the number is low (§12.2.2); one that has not answers 481. Outside of the dialog a 200 would say no more than that
somebody is there.
"""

from __future__ import annotations

from typing import Final

from sipserver.proxy.forward import stateless
from sipserver.proxy.plan import Plan, Target
from sipserver.proxy.record_route import ROUTE_PARAM
from sipserver.sip import names
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, Response
from sipserver.sip.values import Address

ABSENT: Final = frozenset((404, 408, 410, 430, 480, 481, 604))
"""What says that the endpoint is not there, or not in this call; other servers on the way may say it for the endpoint.
Every other answer is a sign of life."""

_NAMES: Final = [names.FROM, names.TO, names.CALL_ID, names.CSEQ]


class DialogEnd:
    """One side of a dialog, as requests to it and from it name it."""

    __slots__ = ("named", "routes")

    def __init__(self, identity: str, contact: str, routes: tuple[str, ...]) -> None:
        self.named = f"{identity}\n{contact}"
        """Both in one text: two of these are kept for every call that goes on. No header value holds a line's end."""
        self.routes = routes
        """Route values from here to it, the nearest first (§12.1)."""

    @property
    def identity(self) -> str:
        """Its From or To, with its tag."""
        return self.named.partition("\n")[0]

    @property
    def contact(self) -> str:
        """Its Contact, empty where it gave none."""
        return self.named.partition("\n")[2]

    def refresh(self, message: Message) -> None:
        """Its request or 2xx in the dialog may name another remote target (§12.2)."""
        contact = message.header(names.CONTACT)
        if contact:
            self.named = f"{self.identity}\n{contact}"


def caller_end(invite: Request) -> DialogEnd:
    """The side that sent this INVITE."""
    routes = tuple(invite.values(names.RECORD_ROUTE)) if invite.has(names.RECORD_ROUTE) else ()
    return DialogEnd(invite.header(names.FROM) or "", invite.header(names.CONTACT) or "", routes)


def callee_end(answer: Response, token: str) -> DialogEnd:
    """The side that sent this 2xx; ``token`` is that of our own Record-Route, above which are those between us."""
    above: list[str] = []
    for value in answer.values(names.RECORD_ROUTE):
        if f"{ROUTE_PARAM}={token}" in value:
            break
        above.append(value)
    else:
        # Ours is not there: nothing can be said of the others.
        above = []
    return DialogEnd(answer.header(names.TO) or "", answer.header(names.CONTACT) or "", tuple(reversed(above)))


def options(call_id: str, to: DialogEnd, from_: DialogEnd) -> tuple[Request, Plan]:
    """The OPTIONS for one side, as if the other had sent it, and how it goes on. Raises SipError where that side never
    said where it is."""
    if not to.contact:
        raise SipError(400, "Missing Contact")
    lines = [f"From: {from_.identity}", f"To: {to.identity}", f"Call-ID: {call_id}", "CSeq: 0 OPTIONS"]
    target = Target(Address.parse(to.contact).uri_text)
    request = Request("OPTIONS", target.uri_text, [*lines, "Content-Length: 0"], [*_NAMES, names.CONTENT_LENGTH])
    return request, Plan(target.uri_text, 70, 1, "00000000", groups=[[target]], routes=list(to.routes))


def outgoing(request: Request, plan: Plan, flow: Flow, branch: str) -> OutgoingRequest:
    """The request as it leaves over this flow."""
    return stateless(request, plan, flow, flow, branch)
