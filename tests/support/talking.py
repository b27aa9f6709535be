"""A call between two devices at a server in this process, for tests of what becomes of it when nobody hangs up."""

from __future__ import annotations

from typing import Any

from sipserver.calls.times import parse_stamp
from sipserver.sip.message import Request, Response
from support.inprocess import Device, Server

KNOWS = "Supported: timer"
CONFIG = "[sessions]\nexpires = 100\nmin = 90\ngrace = 10\n"
SHORT = "[timers]\nt1 = 0.05\n"


class Call:
    """Alice and bob, registered both, in a call; time passes by ``tick``."""

    def __init__(
        self, server: Server, *, tcp: tuple[bool, bool] = (False, False), invite: tuple[str, ...] = (),
        answer: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.server = server
        self.alice = Device(server, "alice", tcp=tcp[0])
        self.bob = Device(server, "bob", "192.0.2.8", tcp=tcp[1])
        assert self.alice.register().status == self.bob.register().status == 200
        self.alice.send(self.alice.invite("bob", *invite))
        (self.invite,) = self.bob.requests("INVITE")
        self.bob.send(self.bob.answer(self.invite, 200, *answer))
        server.settle()
        found = self.alice.received()[-1]
        assert isinstance(found, Response)
        self.answer = found
        self.alice.send(self.alice.in_dialog("ACK", found, cseq=found.cseq[0]))
        self.bob.received()
        self.cseq = 10

    @property
    def row(self) -> dict[str, Any]:
        """The record of the only call."""
        (row,) = self.server.rows("SELECT * FROM calls")
        return row

    @property
    def cause(self) -> str | None:
        """How it ended."""
        cause: str | None = self.row["end_cause"]
        return cause

    def request(self, method: str, *lines: str, status: int = 200, answer: tuple[str, ...] = ()) -> Response | None:
        """A request of alice inside the call and bob's answer; what alice gets, where bob gets the request."""
        self.cseq += 1
        self.alice.send(self.alice.in_dialog(method, self.answer, *lines, cseq=self.cseq))
        for got in self.bob.requests(method):
            self.bob.send(self.bob.answer(got, status, *answer))
        self.server.settle()
        finals = [each for each in self.alice.received() if isinstance(each, Response)]
        return finals[-1] if finals else None

    def was_closed_now(self) -> bool:
        """Whether the latest that the call can have ended, as the record has it, is when the record was closed."""
        latest = parse_stamp(self.row["ended_at"]) + int(self.row["end_uncertainty_ms"])
        return 0 <= self.now() - latest <= 1_000

    def now(self) -> int:
        """The server's time in milliseconds."""
        return int(self.server.service._clock() * 1000)


def questions(device: Device) -> list[Request]:
    """What the device was asked, each but once."""
    return list({each.top_via.branch: each for each in device.requests("OPTIONS")}.values())


def lose(server: Server, device: Device) -> None:
    """The device's connection breaks."""
    del server.transports.alive[device.flow.connection]
    server.driver.on_closed(device.flow)
