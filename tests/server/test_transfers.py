"""Transfers and replaced calls through the whole server, and the links that the record keeps."""

from __future__ import annotations

from typing import Any

import pytest

from support.inprocess import Device, Server
from support.pen import DOMAIN
from support.sdp import AUDIO, body
from support.talk import Talk, talk

VOICE = body(AUDIO)


class Three:
    """Alice talks to bob; carol is registered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.first = talk(server)
        self.carol = Device(server, "carol", "192.0.2.10")
        assert self.carol.register().status == 200
        self.first.begin(VOICE, VOICE)

    def transfer(self, refer_to: str = f"<sip:carol@{DOMAIN}>", status: int = 202) -> None:
        """Alice's endpoint asks bob's to call somebody else."""
        self.first.agree(self.first.say("REFER", b"", f"Refer-To: {refer_to}"), status)

    def second(self, *lines: str) -> Talk:
        """Bob's call to carol, answered."""
        made = Talk(self.server, self.first.callee, self.carol, call_id="second", tag="carol")
        made.place(VOICE, *lines)
        made.respond(200, VOICE)
        made.ack()
        return made

    def calls(self) -> list[str]:
        return [row["id"] for row in self.server.rows("SELECT id FROM calls ORDER BY rowid")]

    def links(self) -> list[tuple[Any, ...]]:
        ids = {call: number for number, call in enumerate(self.calls())}
        return [
            (ids[row["call"]], ids[row["other"]], row["kind"])
            for row in self.server.rows("SELECT * FROM call_links ORDER BY kind")
        ]


@pytest.fixture
def three(server: Server) -> Three:
    return Three(server)


def test_transfer(three: Three) -> None:
    three.transfer()
    three.second(f"Referred-By: <sip:alice@{DOMAIN}>")
    three.first.hang_up()
    assert three.links() == [(0, 1, "transfer")]
    assert "referred" in three.first.table("call_events WHERE number = 4", "number", "kind")[0]


def test_refer_that_is_declined_links_nothing(three: Three) -> None:
    three.transfer(status=603)
    three.second()
    assert three.links() == []


def test_call_that_comes_too_late_is_another_one(three: Three) -> None:
    three.transfer()
    three.server.advance(61)
    three.second()
    assert three.links() == []


def test_invite_that_overtakes_the_202(three: Three) -> None:
    refer = three.first.say("REFER", b"", f"Refer-To: <sip:carol@{DOMAIN}>")
    three.second()
    assert three.links() == []
    three.first.agree(refer, 202)
    assert three.links() == [(0, 1, "transfer")]


def test_call_to_somebody_else_is_no_transfer(three: Three) -> None:
    three.transfer(f"<sip:dave@{DOMAIN}>")
    three.second()
    assert three.links() == []


def attended(three: Three) -> tuple[Talk, str]:
    """Alice also talks to carol, and that dialog is to be replaced by bob's call to carol."""
    other = Talk(three.server, three.first.caller, three.carol, call_id="other@host", tag="carol-other")
    other.begin(VOICE, VOICE)
    return other, "other@host;to-tag=carol-other;from-tag=falice"


def test_attended_transfer(three: Three) -> None:
    other, replaces = attended(three)
    escaped = replaces.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
    three.transfer(f"<{three.carol.contact}?Replaces={escaped}>")
    three.second(f"Replaces: {replaces}")
    other.hang_up()
    three.first.hang_up()
    assert three.links() == [(0, 2, "attended_transfer"), (1, 2, "replaced")]


def test_replaced_call(three: Three) -> None:
    _, replaces = attended(three)
    three.second(f"Replaces: {replaces}")
    assert three.links() == [(1, 2, "replaced")]


@pytest.mark.parametrize(
    "replaces",
    ["other@host;to-tag=x;from-tag=falice", "elsewhere;to-tag=carol-other;from-tag=falice", "other@host", ""],
)
def test_replaces_that_matches_no_call(three: Three, replaces: str) -> None:
    attended(three)
    three.second(f"Replaces: {replaces}")
    assert three.links() == []


def test_replaces_that_is_refused_has_replaced_nothing(three: Three) -> None:
    _, replaces = attended(three)
    made = Talk(three.server, three.first.callee, three.carol, call_id="second", tag="carol")
    made.place(VOICE, f"Replaces: {replaces}")
    made.respond(481)
    assert three.links() == []
    assert len(three.server.service.watch._transfers) == 0


def test_contact_in_a_notify_is_where_the_call_goes_on(three: Three) -> None:
    elsewhere = "sip:bob@192.0.2.88:5099"
    notify = three.first.written_back("NOTIFY", b"", "Event: refer", f"Contact: <{elsewhere}>")
    three.first.callee.send(notify)
    (request,) = three.first.caller.requests("NOTIFY")
    three.first.agree_back(request)
    bye = three.first.caller.in_dialog("BYE", three.first.answer, cseq=200)
    three.first.caller.send(bye.replace(three.first.callee.contact.encode(), elsewhere.encode(), 1))
    assert len(three.server.sent_to(three.server.transports.udp_flow("192.0.2.88", 5099))) == 1
