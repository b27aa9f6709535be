"""Messages that wait for a media relay, inside a whole server; the relay is played by the test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sipserver.server.media import MAX_WAITING
from sipserver.sip.message import Request, Response
from sipserver.transport.ng import decode_answer, encode
from support.inprocess import Device, Server, statuses
from support.talk import Talk, responses, talk, typed

CONFIG = '[media]\nrelay = ["127.0.0.1:2223"]\n'


def sdp(host: str, port: int = 4000) -> bytes:
    return (f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n").encode()


HIDDEN, OPEN = sdp("10.0.0.7"), sdp("192.0.2.8")


class Played:
    """The relay: what it was asked, and what it answers, at once or when the test says so."""

    def __init__(self, server: Server) -> None:
        media = server.service.media
        assert media is not None
        self.media = media
        self.asked: list[dict[str, Any]] = []
        self.waiting: list[tuple[bytes, dict[str, Any]]] = []
        self.at_once = True
        self.deaf = False
        self.repeated = 0
        self._seen: set[bytes] = set()
        media.relays.relays[0].line = self

    def send(self, data: bytes) -> bool:
        cookie, command = decode_answer(data)
        if cookie in self._seen:
            self.repeated += 1
            return True
        self._seen.add(cookie)
        if command["command"] != b"ping":
            self.asked.append(command)
        self.waiting.append((cookie, command))
        if self.at_once:
            self.answer()
        return True

    def answer(self) -> None:
        """Answer everything that was asked."""
        while self.waiting and not self.deaf:
            cookie, command = self.waiting.pop(0)
            self.media.relays.on_data(0, cookie + b" " + encode(self._answer(command)))

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        kind = command["command"]
        if kind == b"ping":
            return {"result": "pong"}
        if kind != b"delete":
            return {"result": "ok", "sdp": b"v=0\r\nrelayed " + command["sdp"]}
        tags = {command["from-tag"].decode("latin-1"): 50, "t": 49}
        stream = {tag: {"SSRC": 7, "stats": {"packets": count, "bytes": 1}} for tag, count in tags.items()}
        sides = {tag: {"medias": [{"type": "audio", "streams": [stream[tag]]}]} for tag in tags}
        return {"result": "ok", "tags": sides, "totals": {"RTP": {"packets": 99}}}

    def commands(self) -> list[str]:
        """What it was asked, by name."""
        return [command["command"].decode() for command in self.asked]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "alice", "bob", config=CONFIG) as made:
        yield made


def test_relayed_call_is_changed_only_where_it_has_to_be_and_counted_at_the_end(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.place(HIDDEN)
    assert made.invite.body == b"v=0\r\nrelayed " + HIDDEN
    assert made.invite.header("content-length") == str(len(made.invite.body))
    made.respond(200, OPEN)
    assert made.answer.body == b"v=0\r\nrelayed " + OPEN
    made.ack()
    made.hang_up()
    assert relay.commands() == ["offer", "answer", "delete"]
    rows = server.rows("SELECT side, direction, packets_received, mos_cq, call FROM v_quality WHERE source = 'relay'")
    call = made.call()["id"]
    assert [tuple(row.values()) for row in rows] == [
        ("caller", "remote", 50, None, call), ("callee", "remote", 49, None, call),
    ]  # fmt: skip
    assert made.errors() == []


def test_call_that_needs_no_relay_is_untouched(server: Server) -> None:
    relay, made = Played(server), talk(server)
    here = sdp("192.0.2.7")
    made.begin(here, OPEN)
    assert (made.invite.body, made.answer.body) == (here, OPEN)
    made.hang_up()
    assert relay.asked == []


def test_what_comes_after_a_message_that_waits_keeps_its_order(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.begin(HIDDEN, OPEN)
    relay.at_once = False
    caller, callee = made.caller, made.callee
    given: dict[str, Any] = {"cseq": 200, "body": HIDDEN}
    change = caller.in_dialog("INVITE", made.answer, *typed(HIDDEN), **given)
    caller.send(change)
    # Sent again, it is not asked again.
    caller.send(change)
    caller.send(caller.in_dialog("INFO", made.answer, cseq=201))
    assert callee.received() == []
    relay.answer()
    assert [each.method for each in callee.received() if isinstance(each, Request)] == ["INVITE", "INFO"]
    assert relay.commands() == ["offer", "answer", "offer"]


def test_provisional_response_with_media_stays_before_the_final_one(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.place(HIDDEN)
    relay.at_once = False
    for status, body in ((180, OPEN), (200, b"")):
        made.callee.send(made.callee.answer(made.invite, status, *typed(body), tag="t", body=body))
    server.settle()
    assert 180 not in statuses(made.caller.received())
    relay.answer()
    server.settle()
    assert statuses(made.caller.received()) == [180, 200]


def test_repeated_answer_is_asked_once_and_repeated_as_it_was(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.place(HIDDEN)
    again = made.callee.answer(made.invite, 200, *typed(OPEN), tag="t", body=OPEN)
    bodies = []
    for _ in range(3):
        made.callee.send(again)
        server.settle()
        bodies += [each.body for each in responses(made.caller.received(), 200)]
    assert bodies == [b"v=0\r\nrelayed " + OPEN] * 3
    assert relay.commands() == ["offer", "answer"]


def test_call_whose_relay_is_silent_waits_half_a_second_and_goes_on_without(server: Server) -> None:
    relay, made = Played(server), talk(server)
    relay.deaf = True
    made.caller.send(made.caller.invite("bob", *typed(HIDDEN), call_id="talk", body=HIDDEN))
    assert made.callee.requests("INVITE") == []
    server.advance(0.52)
    (made.invite,) = made.callee.requests("INVITE")
    assert made.invite.body == HIDDEN
    assert relay.repeated == 2
    made.respond(200, OPEN)
    assert made.answer.body == OPEN
    made.ack()
    made.hang_up()
    assert ("media_relay", "INVITE", None, 1) in made.errors()
    # The next does not even wait.
    second = talk(server)
    second.call_id = "second"
    second.place(HIDDEN)
    assert second.invite.body == HIDDEN


def test_messages_that_wait_in_one_call_are_bounded(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.begin(HIDDEN, OPEN)
    relay.at_once = False
    made.caller.send(made.caller.in_dialog("INVITE", made.answer, *typed(HIDDEN), cseq=200, body=HIDDEN))
    for number in range(MAX_WAITING + 5):
        made.caller.send(made.caller.in_dialog("INFO", made.answer, cseq=300 + number))
    assert relay.media.dropped == 5
    relay.answer()
    assert len(made.callee.received()) == MAX_WAITING + 1
    assert relay.media.waiting == 0


@pytest.mark.parametrize("how", ["refused", "cancelled", "presumed"])
def test_session_at_the_relay_ends_with_the_call(server: Server, how: str) -> None:
    relay, made = Played(server), talk(server)
    made.place(HIDDEN)
    if how == "refused":
        made.respond(486)
    elif how == "cancelled":
        made.respond(180)
        branch = f"z9hG4bK{made.call_id}"
        made.caller.send(made.caller.write("CANCEL", made.callee.address, call_id="talk", cseq=1, branch=branch))
        made.respond(487)
    else:
        made.respond(200, OPEN)
        made.ack()
        (key,) = server.service.recorder.open_keys()
        server.service.watch.presume_ended(key, "operator", 0, None)
        server.tick(10)
    assert relay.commands()[-1] == "delete"
    assert relay.media.machine.legs == 0
    assert relay.media.machine.calls() == []


def test_offer_in_the_answer_is_relayed_and_so_is_the_ack(server: Server) -> None:
    relay, made = Played(server), talk(server)
    made.place()
    made.respond(200, sdp("10.0.0.8"))
    assert made.answer.body.startswith(b"v=0\r\nrelayed")
    made.caller.send(made.caller.in_dialog("ACK", made.answer, *typed(OPEN), cseq=1, body=OPEN))
    (ack,) = made.callee.requests("ACK")
    assert ack.body == b"v=0\r\nrelayed " + OPEN
    assert ack.header("content-length") == str(len(ack.body))
    assert [command["from-tag"] for command in relay.asked] == [b"t", b"t"]


def test_each_device_of_a_fork_is_offered_ports_of_its_own(server: Server) -> None:
    relay, made = Played(server), talk(server)
    other = Device(server, "bob", "192.0.2.9")
    other.register()
    made.place(HIDDEN)
    (invite,) = other.requests("INVITE")
    assert len({command["call-id"] for command in relay.asked}) == 2
    other.send(other.answer(invite, 486))
    assert relay.commands() == ["offer", "offer", "delete"]
    made.respond(200, OPEN)
    assert (
        relay.asked[-1]["call-id"] == relay.asked[1]["call-id"]
        or relay.asked[-1]["call-id"] == relay.asked[0]["call-id"]
    )
    assert relay.media.machine.legs == 1


def test_record_has_the_media_as_the_endpoints_named_them(server: Server) -> None:
    made = talk(server)
    Played(server)
    made.begin(HIDDEN, OPEN)
    assert made.media("kind", "codec", "direction") == [("audio", "PCMU", "sendrecv")]
    assert isinstance(made.answer, Response)
    assert isinstance(made, Talk)


def test_call_that_is_taken_back_while_it_waits_is_never_sent(server: Server) -> None:
    relay, made = Played(server), talk(server)
    relay.at_once = False
    branch = "z9hG4bKwaits"
    invite = made.caller.invite("bob", *typed(HIDDEN), call_id="talk", cseq=1, branch=branch, body=HIDDEN)
    made.caller.send(invite)
    uri = made.callee.address
    made.caller.send(made.caller.write("CANCEL", uri, call_id="talk", cseq=1, branch=branch))
    relay.answer()
    server.settle()
    assert made.callee.received() == []
    assert sorted(statuses(made.caller.received())) == [100, 200, 487]
    assert made.call()["outcome"] == "cancelled"
    assert relay.commands() == ["offer", "delete"]
    assert relay.media.machine.legs == 0


def test_answer_to_an_offer_that_may_not_be_touched_is_not_touched_either(server: Server) -> None:
    relay, made = Played(server), talk(server)
    hidden = sdp("10.0.0.8")
    made.place(HIDDEN, "Identity: eyJ;info=<https://example.test/cert>")
    assert made.invite.body == HIDDEN
    made.respond(200, hidden)
    assert made.answer.body == hidden
    made.ack()
    assert relay.asked == []


def test_relayed_calls_leave_nothing_for_the_collector(server: Server) -> None:
    relay, both = Played(server), talk(server)
    gc.collect()
    gc.disable()
    try:
        for number in range(4):
            made = Talk(server, both.caller, both.callee, call_id=f"call{number}")
            both.caller.received()
            both.callee.received()
            relay.at_once = number % 2 == 0
            made.caller.send(made.caller.invite("bob", *typed(HIDDEN), call_id=made.call_id, cseq=1, body=HIDDEN))
            relay.answer()
            (made.invite,) = made.callee.requests("INVITE")
            relay.at_once = True
            made.respond(200, OPEN)
            made.ack()
            made.hang_up()
            server.advance(200)
            del made
            if number == 0:
                gc.collect()
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert relay.commands() == ["offer", "answer", "delete"] * 4
