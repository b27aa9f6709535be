"""Overload in the whole server: what is refused, what never is, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sipserver.proxy.overload import LOOK
from sipserver.sip.message import Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN
from support.talk import talk

MakeServer = Callable[..., Server]


def overload(server: Server, seconds: float) -> None:
    """Work waits for so long, and has for two seconds."""
    for _ in range(100):
        server.loop.now += LOOK
        server.service.overload.look(server.loop.now, seconds)


def outside(device: Device, method: str) -> Response:
    """The answer to a request without credentials."""
    return device.ask(device.write(method, f"sip:{DOMAIN}" if method == "REGISTER" else f"sip:bob@{DOMAIN}"))


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "SUBSCRIBE", "MESSAGE", "OPTIONS", "PUBLISH", "NEWMETHOD"])
def test_new_work_is_answered_503_with_retry_after(server: Server, method: str) -> None:
    alice = Device(server, "alice")
    overload(server, 0.3)
    answer = outside(alice, method)
    assert (answer.status, server.driver.overloaded) == (503, 1)
    assert 1 <= int(answer.header("retry-after") or "") <= 30
    assert server.service.transactions.servers == 0


def test_what_goes_on_in_a_call_is_served_to_its_end(server: Server) -> None:
    call = talk(server)
    call.begin()
    overload(server, 10.0)
    call.agree(call.say("INFO"))
    call.agree_back(call.say_back("UPDATE"))
    call.agree(call.say("INVITE"))
    assert outside(Device(server, "carol", "192.0.2.9"), "INVITE").status == 503
    call.hang_up()
    assert call.call()["outcome"] == "answered"


def test_a_call_that_rings_can_be_cancelled_and_answered(server: Server) -> None:
    call = talk(server)
    invite = call.place()
    overload(server, 10.0)
    call.callee.send(call.callee.answer(invite, 180, tag="t"))
    call.caller.send(call.caller.write("CANCEL", f"sip:bob@{DOMAIN}", call_id="talk", cseq=1, branch="z9hG4bKtalk"))
    assert statuses(call.caller.received()) == [100, 180, 200]
    (cancel,) = call.callee.requests("CANCEL")
    call.callee.send(call.callee.answer(cancel, 200))
    call.callee.send(call.callee.answer(invite, 487))
    server.settle()
    assert statuses(call.caller.received()) == [487]


def test_whoever_answers_a_challenge_comes_before_who_begins(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    signed = alice.signed("REGISTER", "", f"Contact: <{alice.contact}>", to=f"<sip:alice@{DOMAIN}>")
    overload(server, 0.1)
    assert outside(bob, "REGISTER").status == 503
    assert alice.ask(signed).status == 200


def test_a_refused_request_that_comes_again_is_refused_again(server: Server) -> None:
    alice = Device(server, "alice")
    invite = alice.invite("bob", branch="z9hG4bKx", cseq=7)
    overload(server, 10.0)
    first = alice.ask(invite)
    overload(server, 0.1)
    again = alice.ask(invite)
    assert [first.status, again.status] == [503, 503]
    assert first.to_tag == again.to_tag
    alice.send(alice.write("ACK", f"sip:bob@{DOMAIN}", to=again.header("to") or "", branch="z9hG4bKx", cseq=7))
    assert alice.received() == []
    assert server.rows("SELECT * FROM calls") == []


def test_a_copy_of_what_is_served_already_is_no_new_work(make_server: MakeServer) -> None:
    server = make_server("bob", config='[proxy]\ninbound = "anyone"')
    bob, stranger = Device(server, "bob", "192.0.2.8"), Device(server, "carol", "192.0.2.9")
    bob.register()
    bob.received()
    invite = stranger.write(
        "INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{stranger.contact}>", from_="<sip:c@else.test>;tag=c"
    )
    stranger.send(invite)
    server.settle()
    overload(server, 10.0)
    stranger.send(invite)
    assert statuses(stranger.received()) == [100, 100]
    assert stranger.ask(stranger.write("INVITE", f"sip:bob@{DOMAIN}", from_="<sip:c@else.test>;tag=c")).status == 503


def test_what_is_not_written_as_usual_is_refused_as_well(server: Server) -> None:
    alice = Device(server, "alice")
    overload(server, 10.0)
    usual = alice.ask(alice.write("REGISTER", f"sip:{DOMAIN}", "User-Agent: Phone/1"))
    other = alice.ask(alice.write("REGISTER", f"sip:{DOMAIN}", "User-Agent: Phone/1").replace(b"Via:", b"VIA:"))
    assert [usual.status, other.status] == [503, 503]
    assert [bool(each.to_tag) for each in (usual, other)] == [True, True]
    assert (server.driver.overloaded, server.driver.requests) == (2, 2)
    server.tick(6)
    (row,) = server.rows("SELECT agent, count FROM errors")
    assert tuple(row.values()) == ("Phone/1", 2)


def test_refusals_are_one_row_and_two_lines(server: Server) -> None:
    alice = Device(server, "alice")
    service = server.service
    service.pressure._waited = lambda: 10.0
    alice.ask(alice.write("OPTIONS"))
    server.advance(2 * LOOK)
    refused = 0
    for _ in range(100):
        server.advance(LOOK)
        refused += alice.ask(alice.write("MESSAGE", f"sip:bob@{DOMAIN}")).status == 503
    service.pressure._waited = lambda: 0.0
    server.advance(3.0)
    assert not service.overload.shedding
    assert outside(alice, "INVITE").status == 407
    (began,), (ended,) = server.log("overload.began"), server.log("overload.ended")
    assert began["delay_ms"] > 50
    assert (ended["refused"], 2.0 < ended["seconds"] < 5.0) == (refused, True)
    assert server.log("message.rejected") == []
    server.tick(6)
    (row,) = server.rows("SELECT kind, method, status, detail, count FROM errors")
    assert tuple(row.values()) == ("overload", "MESSAGE", 503, "Overloaded", refused)


def test_nothing_is_looked_at_while_nothing_comes(server: Server) -> None:
    alice = Device(server, "alice")
    alice.ask(alice.write("OPTIONS"))
    assert server.service.pressure.looking
    server.advance(1.0)
    assert (server.service.pressure.looking, server.loop.timers) == (False, [])


def test_it_can_be_switched_off(make_server: MakeServer) -> None:
    server = make_server("alice", config="[overload]\nenabled = false")
    alice = Device(server, "alice")
    server.service.pressure._waited = lambda: 10.0
    for _ in range(50):
        assert outside(alice, "INVITE").status == 407
        server.advance(LOOK)


@pytest.mark.parametrize(("at_work", "shedding"), [(1.0, True), (0.2, False)])
def test_a_loop_that_is_late_counts_where_it_was_at_work(server: Server, at_work: float, shedding: bool) -> None:
    alice, pressure = Device(server, "alice"), server.service.pressure
    pressure._worked = lambda: at_work * server.loop.now
    for _ in range(20):
        alice.ask(alice.write("OPTIONS"))
        # The loop comes to it a fifth of a second late.
        server.loop.now += LOOK + 0.2
        server.advance(0.0)
    assert server.service.overload.shedding is shedding
