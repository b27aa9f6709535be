"""A call that two devices of the callee ring for, at a server in this process."""

from __future__ import annotations

from support.inprocess import Device, Server
from support.sdp import AUDIO, VIDEO, body
from support.talk import Talk

VOICE, BOTH = body(AUDIO), body(AUDIO, VIDEO)


class Fork:
    """Alice calls bob, whose two devices ring."""

    def __init__(self, server: Server, *, tcp: tuple[bool, bool] = (False, False)) -> None:
        self.server = server
        self.desk = Device(server, "bob", "192.0.2.8", tcp=tcp[0])
        self.mobile = Device(server, "bob", "192.0.2.9", first=1000, tcp=tcp[1])
        # The newest device is branch 0.
        for device, agent in ((self.mobile, "Mobile/2"), (self.desk, "Desk/1")):
            assert device.register(f"Contact: <{device.contact}>", f"User-Agent: {agent}", call_id=agent).status == 200
        self.alice = Device(server, "alice")
        self.first = Talk(server, self.alice, self.desk, tag="desk")
        self.second = Talk(server, self.alice, self.mobile, tag="mobile")
        self.alice.send(self.alice.invite("bob", "Content-Type: application/sdp", call_id="talk", cseq=1, body=BOTH))
        for each in (self.first, self.second):
            each.invite = each.callee.requests("INVITE")[0]
            server.advance(0.1)
            each.respond(180)

    def both_answer(self, *lines: str) -> None:
        """One right after the other."""
        self.server.advance(1)
        self.first.respond(200, BOTH, "Server: Desk/1", *lines)
        self.server.advance(0.05)
        self.second.respond(200, VOICE, "Server: Mobile/2", *lines)
