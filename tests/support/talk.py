"""Calls inside ``support.inprocess``: two devices, their dialog, and what the store says of it."""

from __future__ import annotations

from typing import Any

from sipserver.sip.message import Message, Request, Response
from support.inprocess import Device, Server

SDP_TYPE = "Content-Type: application/sdp"


def typed(body: bytes) -> tuple[str, ...]:
    """The header line that a body needs."""
    return (SDP_TYPE,) if body else ()


def responses(messages: list[Message], status: int) -> list[Response]:
    """The responses of this status among these."""
    return [each for each in messages if isinstance(each, Response) and each.status == status]


class Talk:
    """A call of one device to another; what each side says goes through the server at once."""

    def __init__(
        self, server: Server, caller: Device, callee: Device, *, call_id: str = "talk", tag: str = "t"
    ) -> None:
        self.server = server
        self.caller = caller
        self.callee = callee
        self.call_id = call_id
        self.tag = tag
        """The callee's."""
        self.caller_numbers = 100
        self.callee_numbers = 500
        self.invite: Request
        """As it arrived at the callee."""
        self.answer: Response
        """As it arrived at the caller."""

    def place(self, offer: bytes = b"", *lines: str, callee: str = "", **options: Any) -> Request:
        """The caller's INVITE, as it arrives at the callee."""
        given = {"call_id": self.call_id, "cseq": 1, "branch": f"z9hG4bK{self.call_id}", "body": offer, **options}
        self.caller.send(self.caller.invite(callee or self.callee.user, *typed(offer), *lines, **given))
        (self.invite,) = self.callee.requests("INVITE")
        return self.invite

    def respond(self, status: int, body: bytes = b"", *lines: str, tag: str = "") -> Response:
        """A response of the callee to the INVITE, as it arrives at the caller."""
        self.callee.send(self.callee.answer(self.invite, status, *typed(body), *lines, tag=tag or self.tag, body=body))
        self.server.settle()
        self.answer = responses(self.caller.received(), status)[-1]
        return self.answer

    def ack(self, body: bytes = b"", *, number: int = 1) -> None:
        """The caller's ACK, which arrives."""
        self.caller.send(self.caller.in_dialog("ACK", self.answer, *typed(body), cseq=number, body=body))
        assert len(self.callee.requests("ACK")) == 1

    def begin(self, offer: bytes = b"", answer: bytes = b"") -> None:
        """Placed, answered, acknowledged."""
        self.place(offer)
        self.respond(200, answer)
        self.ack()

    def say(self, method: str, body: bytes = b"", *lines: str, **options: Any) -> Request:
        """A request of the caller inside the dialog, as it arrives at the callee."""
        self.caller_numbers += 1
        given = {"cseq": self.caller_numbers, "body": body, **options}
        self.caller.send(self.caller.in_dialog(method, self.answer, *typed(body), *lines, **given))
        (request,) = self.callee.requests(method)
        return request

    def say_back(self, method: str, body: bytes = b"", *lines: str, **options: Any) -> Request:
        """A request of the callee inside the dialog, as it arrives at the caller."""
        self.callee.send(self.written_back(method, body, *lines, **options))
        (request,) = self.caller.requests(method)
        return request

    def written_back(self, method: str, body: bytes = b"", *lines: str, **options: Any) -> bytes:
        """The same, to be sent."""
        self.callee_numbers += 1
        routes = [f"Route: {value}" for value in self.invite.values("record-route")]
        given = {
            "from_": f"{self.invite.header('to')};tag={self.tag}", "to": self.invite.header("from"),
            "call_id": self.call_id, "cseq": self.callee_numbers, "body": body,
        }  # fmt: skip
        return self.callee.write(method, self.caller.contact, *routes, *typed(body), *lines, **{**given, **options})

    def agree(self, request: Request, status: int = 200, body: bytes = b"", *lines: str) -> None:
        """The callee's answer to a request of the caller, which arrives."""
        self._answer(self.callee, self.caller, request, status, body, *lines)

    def agree_back(self, request: Request, status: int = 200, body: bytes = b"", *lines: str) -> None:
        """The caller's answer to a request of the callee, which arrives."""
        self._answer(self.caller, self.callee, request, status, body, *lines)

    def _answer(self, who: Device, whom: Device, request: Request, status: int, body: bytes, *lines: str) -> None:
        who.send(who.answer(request, status, *typed(body), *lines, body=body))
        self.server.settle()
        assert responses(whom.received(), status), f"no {status} arrived"

    def hang_up(self) -> None:
        """The caller's BYE, accepted."""
        self.agree(self.say("BYE"))

    def hang_up_back(self) -> None:
        """The callee's BYE, accepted."""
        self.agree_back(self.say_back("BYE"))

    # what is on record

    def call(self) -> dict[str, Any]:
        """The only call."""
        (row,) = self.server.rows("SELECT * FROM calls")
        return row

    def branches(self, *columns: str) -> list[tuple[Any, ...]]:
        """Its devices."""
        return self.table("call_branches", "branch", *columns)

    def media(self, *columns: str, early: int = 0) -> list[tuple[Any, ...]]:
        """Its streams, in the order in which they were opened."""
        return self.table(f"call_media WHERE early = {early}", "number", *columns)

    def events(self) -> list[str]:
        """Its timeline."""
        return [kind for (kind,) in self.table("call_events", "number", "kind")]

    def table(self, table: str, order: str, *columns: str) -> list[tuple[Any, ...]]:
        """Rows of one call as tuples."""
        rows = self.server.rows(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
        return [tuple(row.values()) for row in rows]

    def errors(self) -> list[tuple[Any, ...]]:
        """Kind, method, status and count of what went wrong."""
        return self.table("errors", "id", "kind", "method", "status", "count")


def talk(server: Server, *, tcp: bool = False) -> Talk:
    """Alice and bob, who is registered; no call yet."""
    bob = Device(server, "bob", "192.0.2.8", tcp=tcp)
    assert bob.register().status == 200
    return Talk(server, Device(server, "alice", tcp=tcp), bob)
