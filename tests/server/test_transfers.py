"""Transfers and replaced calls through the whole server, and the links that the record keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.inprocess import Device, Server, statuses
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


# ---------------------------------------------------------------------- REFERs that are in no dialog


def ask_outside(three: Three, *lines: str, sender: Device | None = None, status: int = 202) -> None:
    """Somebody, alice where it is not said, asks bob's endpoint to call carol, in a dialog of its own."""
    sender = sender or three.first.caller
    given: dict[str, Any] = {"call_id": f"outside-{sender.user}", "cseq": 70}
    sender.send(sender.signed("REFER", f"sip:bob@{DOMAIN}", *lines, f"Contact: <{sender.contact}>", **given))
    (refer,) = three.first.callee.requests("REFER")
    three.first.callee.send(three.first.callee.answer(refer, status, tag="referred"))
    three.server.settle()
    assert status in statuses(sender.received())


TO_CAROL = f"Refer-To: <sip:carol@{DOMAIN}>"


def test_refer_outside_names_the_dialog_that_it_is_about(three: Three) -> None:
    # Without Target-Dialog nobody could tell which of the two is meant.
    twin = Talk(three.server, three.first.caller, three.first.callee, call_id="twin", tag="twin")
    twin.begin(VOICE, VOICE)
    ask_outside(three, TO_CAROL, "Target-Dialog: twin;local-tag=falice;remote-tag=twin", "Require: tdialog")
    three.second()
    assert three.links() == [(1, 2, "transfer")]
    assert twin.table("call_events WHERE kind = 'referred'", "number", "side") == [("caller",)]


def test_refer_outside_is_about_the_only_call_of_those_two(three: Three) -> None:
    ask_outside(three, TO_CAROL)
    three.second()
    three.first.hang_up()
    assert three.links() == [(0, 1, "transfer")]
    assert "referred" in three.first.table("call_events WHERE number = 4", "number", "kind")[0]


def test_refer_outside_to_an_attended_transfer(three: Three) -> None:
    other, replaces = attended(three)
    escaped = replaces.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
    ask_outside(three, f"Refer-To: <{three.carol.contact}?Replaces={escaped}>")
    three.second(f"Replaces: {replaces}")
    other.hang_up()
    assert three.links() == [(0, 2, "attended_transfer"), (1, 2, "replaced")]


@pytest.mark.parametrize(
    "line",
    [
        "Target-Dialog: talk;local-tag=other;remote-tag=t", "Target-Dialog: elsewhere;local-tag=falice;remote-tag=t",
        "Target-Dialog: talk", "Target-Dialog: ;;=",
    ],
)  # fmt: skip
def test_target_dialog_that_is_none_links_nothing(three: Three, line: str) -> None:
    ask_outside(three, TO_CAROL, line)
    three.second()
    assert three.links() == []


def test_refer_outside_of_somebody_who_has_no_call_with_them_begins_a_call(three: Three) -> None:
    ask_outside(three, TO_CAROL, sender=three.carol)
    three.second()
    assert three.links() == []
    assert three.server.service.watch._linker._outside == {}


def test_refer_outside_about_a_call_of_others_links_nothing(three: Three) -> None:
    _, replaces = attended(three)
    dialog = replaces.replace("to-tag", "local-tag").replace("from-tag", "remote-tag")
    ask_outside(three, TO_CAROL, f"Target-Dialog: {dialog}")
    three.second()
    assert three.links() == []


def test_refer_outside_that_is_declined_links_nothing(three: Three) -> None:
    ask_outside(three, TO_CAROL, status=603)
    three.second()
    assert three.links() == []


def test_referred_by_names_who_asked_outside(three: Three) -> None:
    ask_outside(three, TO_CAROL, f"Referred-By: <sip:alice@{DOMAIN}>")
    three.second(f"Referred-By: <sip:alice@{DOMAIN}>")
    assert three.links() == [(0, 1, "transfer")]


# ---------------------------------------------------------------------- across a restart


def after_a_restart(three: Three, server: Server) -> Three:
    """The same calls and devices; the first server was not stopped in order."""
    three.server = three.first.server = server
    for device in (three.first.caller, three.first.callee, three.carol):
        device.server = server
        device.flow = server.transports.udp_flow(device.flow.host, device.flow.port)
    return three


def test_refer_inside_a_call_from_before_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob", "carol") as server:
        three = Three(server)
        server.settle()
    with Server(tmp_path) as server:
        after_a_restart(three, server).transfer()
        three.second()
        three.first.hang_up()
        assert three.links() == [(0, 1, "transfer")]
        first, second = server.rows("SELECT end_cause, outcome FROM calls ORDER BY rowid")
        assert (first["end_cause"], second["outcome"]) == ("server_restart", "answered")


def test_calls_from_before_a_restart_are_replaced_and_referred_to(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob", "carol") as server:
        three = Three(server)
        _, replaces = attended(three)
        server.settle()
    with Server(tmp_path) as server:
        after_a_restart(three, server)
    # A second restart makes no difference.
    with Server(tmp_path) as server:
        after_a_restart(three, server)
        escaped = replaces.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
        target = f"Refer-To: <{three.carol.contact}?Replaces={escaped}>"
        ask_outside(three, target, "Target-Dialog: talk;local-tag=falice;remote-tag=t")
        three.second(f"Replaces: {replaces}")
        assert three.links() == [(0, 2, "attended_transfer"), (1, 2, "replaced")]


def test_replaced_call_from_before_a_restart_that_nobody_accepts_links_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob", "carol") as server:
        three = Three(server)
        server.settle()
    with Server(tmp_path) as server:
        after_a_restart(three, server)
        made = Talk(server, three.carol, three.first.callee, call_id="second", tag="new")
        made.place(VOICE, "Replaces: talk;to-tag=t;from-tag=falice")
        made.respond(481)
        assert three.links() == []
