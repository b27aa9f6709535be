"""Requests inside calls that come from elsewhere (proxy/source.py, server/proxying.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.inprocess import Device, Server, statuses
from support.sdp import AUDIO, body
from support.talk import Talk, responses, talk

MakeServer = Callable[..., Server]

VOICE = body(AUDIO)
AWAY = "203.0.113.9"
METHODS = ["BYE", "INVITE", "UPDATE", "REFER", "INFO"]


@pytest.fixture(params=[False, True], ids=["UDP", "TCP"])
def call(server: Server, request: pytest.FixtureRequest) -> Talk:
    found = talk(server, tcp=request.param)
    found.begin(VOICE, VOICE)
    found.callee.received()
    found.caller.received()
    return found


def at(call: Talk, host: str, user: str = "alice") -> Device:
    """A device of this user at another host."""
    return Device(call.server, user, host, 5099, tcp=call.caller.flow.reliable, first=700)


def proven(call: Talk, who: Device, method: str, password: str = "") -> bytes:
    """A request as the caller's, with the credentials of whoever sends it."""
    who.send(who.in_dialog(method, call.answer, cseq=20))
    (challenge,) = responses(who.received(), 407)
    target = call.answer.addresses("contact")[0].uri_text
    return who.in_dialog(method, call.answer, who.credentials(challenge, method, target, password), cseq=21)


@pytest.mark.parametrize("method", METHODS)
def test_forged_request_is_challenged_and_counted_and_the_call_goes_on(call: Talk, method: str) -> None:
    forger = at(call, AWAY)
    forger.send(forger.in_dialog(method, call.answer, "Refer-To: <sip:carol@example.test>", cseq=9))
    assert statuses(forger.received()) == [407]
    assert call.callee.received() == []
    call.server.tick(10)
    assert call.errors() == [("forged", method, 407, 1)]
    (error,) = call.server.rows("SELECT call, network, party FROM errors")
    assert error == {"call": call.call()["id"], "network": "203.0.113.0/24", "party": None}
    assert call.call()["ended_at"] is None
    call.hang_up()
    assert (call.call()["end_cause"], len(call.errors())) == ("bye", 1)


def test_forged_request_in_the_name_of_the_callee(call: Talk) -> None:
    forger = at(call, AWAY, "bob")
    forger.send(call.written_back("BYE"))
    assert statuses(forger.received()) == [407]
    assert call.caller.received() == []
    assert call.call()["ended_at"] is None


def test_ack_of_a_refused_change_does_not_go_on(call: Talk) -> None:
    forger = at(call, AWAY)
    change = forger.in_dialog("INVITE", call.answer, cseq=9, branch="z9hG4bKforged")
    forger.send(change)
    forger.send(change)
    assert statuses(forger.received()) == [407, 407], "the same answer to the same request"
    forger.send(forger.in_dialog("ACK", call.answer, cseq=9, branch="z9hG4bKforged"))
    assert call.callee.received() == []
    assert call.events() == ["placed", "answered", "confirmed"]


def test_who_roams_hangs_up_with_credentials(call: Talk) -> None:
    roamed = at(call, AWAY)
    call.server.advance(4)
    roamed.send(proven(call, roamed, "BYE"))
    (bye,) = call.callee.requests("BYE")
    assert "proxy-authorization" not in bye.names
    call.callee.send(call.callee.answer(bye, 200))
    row = call.call()
    assert (row["ended_by"], row["end_cause"]) == ("caller", "bye")
    call.server.tick(10)
    assert call.errors() == []


def test_who_roams_is_asked_once(call: Talk) -> None:
    roamed = at(call, AWAY)
    roamed.send(proven(call, roamed, "INFO"))
    (info,) = call.callee.requests("INFO")
    call.callee.send(call.callee.answer(info, 200))
    roamed.send(roamed.in_dialog("BYE", call.answer, cseq=30))
    assert len(call.callee.requests("BYE")) == 1
    # Where it was before it may still be.
    call.say("INFO")


def test_credentials_of_somebody_else_end_no_call(call: Talk) -> None:
    carol = at(call, AWAY, "carol")
    carol.send(proven(call, carol, "BYE"))
    assert statuses(carol.received()) == [403]
    assert call.callee.received() == []
    assert call.errors() == [("forged", "BYE", 403, 1)]


def test_wrong_password_ends_no_call(call: Talk) -> None:
    forger = at(call, AWAY)
    forger.send(proven(call, forger, "BYE", "guessed"))
    assert statuses(forger.received()) == [407]
    assert call.callee.received() == []
    assert call.errors() == [("credentials", "BYE", 407, 1)]


def test_who_has_registered_from_there_is_not_asked(call: Talk) -> None:
    roamed = at(call, AWAY)
    assert roamed.register().status == 200
    roamed.send(roamed.in_dialog("BYE", call.answer, cseq=9))
    assert len(call.callee.requests("BYE")) == 1


def test_port_may_change(call: Talk) -> None:
    moved = at(call, call.caller.flow.host)
    moved.send(moved.in_dialog("BYE", call.answer, cseq=9))
    assert len(call.callee.requests("BYE")) == 1


def test_device_behind_a_proxy_that_left_the_path_speaks_from_its_contact(server: Server) -> None:
    call = talk(server)
    call.place(VOICE)
    device = Device(server, "bob", "198.51.100.20")
    answer = call.callee.answer(call.invite, 200, tag="t")
    call.callee.send(answer.replace(call.callee.hostport.encode(), device.hostport.encode()))
    server.settle()
    device.send(call.written_back("BYE"))
    assert len(call.caller.requests("BYE")) == 1


@pytest.mark.parametrize(("peers", "passes"), [("", False), ('peers = ["203.0.113.0/24"]\n', True)])
def test_stranger_cannot_be_challenged(make_server: MakeServer, peers: str, passes: bool) -> None:
    server = make_server("bob", config=f'[proxy]\ninbound = "anyone"\n{peers}')
    bob, eve, other = (
        Device(server, user, host) for user, host in (("bob", "192.0.2.8"), ("eve", "198.51.100.5"), ("eve", AWAY))
    )
    bob.register()
    from_ = "<sip:eve@elsewhere.test>;tag=eve"
    eve.send(eve.write("INVITE", "sip:bob@example.test", f"Contact: <{eve.contact}>", from_=from_, call_id="talk"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 200))
    server.settle()
    (answer,) = responses(eve.received(), 200)
    other.send(eve.in_dialog("BYE", answer, cseq=9))
    server.settle()
    assert len(bob.requests("BYE")) == passes
    assert statuses(other.received()) == ([] if passes else [403])
    errors = server.rows("SELECT kind, method, status FROM errors")
    assert errors == ([] if passes else [{"kind": "forged", "method": "BYE", "status": 403}])


def test_call_from_before_a_restart_can_be_ended_from_anywhere(call: Talk) -> None:
    call.server.service.proxying.sources.forget(next(iter(call.server.service.recorder.open_keys())))
    forger = at(call, AWAY)
    forger.send(forger.in_dialog("BYE", call.answer, cseq=9))
    assert len(call.callee.requests("BYE")) == 1


def test_nothing_is_kept_of_calls_that_are_over(call: Talk) -> None:
    assert len(call.server.service.proxying.sources) == 1
    call.hang_up()
    call.place(VOICE, call_id="second", branch="z9hG4bKsecond")
    call.respond(486)
    assert len(call.server.service.proxying.sources) == 0
