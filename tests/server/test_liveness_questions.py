"""Calls that nobody hangs up: sides that are asked, calls without evidence, a clock that is set (server/liveness)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.calls.times import parse_stamp
from sipserver.sip.message import Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN
from support.talking import CONFIG, KNOWS, SHORT, Call, lose, questions

MakeServer = Callable[..., Server]


# ---- questions


def probing(make_server: MakeServer, extra: str = "", **more: Any) -> Call:
    return Call(make_server("alice", "bob", config=CONFIG + "probe = 30\n" + extra), **more)


def test_silent_sides_are_asked_and_an_answer_is_a_sign_of_life(make_server: MakeServer) -> None:
    call = probing(make_server)
    for _ in range(10):
        call.server.tick(35)
        for device in (call.alice, call.bob):
            for question in questions(device):
                device.send(device.answer(question, 200))
        call.server.tick(1)
        for device in (call.alice, call.bob):
            for question in questions(device):
                device.send(device.answer(question, 500))
    row = call.row
    assert row["ended_at"] is None
    assert call.server.service.liveness.asked >= 18
    seen = call.server.rows("SELECT at FROM call_events WHERE kind = 'seen'")
    assert len(seen) == 1, "noted once in five minutes, for the case of a crash"


@pytest.mark.parametrize("status", [481, 408, 0])
def test_two_questions_in_a_row_without_a_good_answer_end_the_call(make_server: MakeServer, status: int) -> None:
    call = probing(make_server, SHORT)
    asked: set[str | None] = set()
    alice_at = 0
    for _ in range(80):
        call.server.tick(1)
        for question in questions(call.alice):
            call.alice.send(call.alice.answer(question, 200))
            alice_at = call.now()
        for question in questions(call.bob):
            asked.add(question.top_via.branch)
            if status:
                call.bob.send(call.bob.answer(question, status))
        if call.row["ended_at"] is not None:
            break
    row = call.row
    assert (row["end_cause"], len(asked)) == ("probe_failed", 2)
    assert alice_at > 0
    assert row["ended_at"] == row["confirmed_at"], "that alice is there does not show that bob was"
    assert call.was_closed_now()


def test_one_answer_between_two_failures_keeps_the_call(make_server: MakeServer) -> None:
    call = probing(make_server)
    turn = 0
    for _ in range(400):
        call.server.tick(1)
        for question in questions(call.alice):
            call.alice.send(call.alice.answer(question, 200))
        for question in questions(call.bob):
            turn += 1
            call.bob.send(call.bob.answer(question, 481 if turn % 2 else 200))
    assert turn >= 8
    assert call.row["ended_at"] is None


def test_sides_that_talk_are_not_asked(make_server: MakeServer) -> None:
    call = probing(make_server)
    for _ in range(20):
        call.server.tick(20)
        call.request("INFO")
    assert call.server.service.liveness.asked == 0


def test_side_that_gave_no_contact_cannot_be_asked(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG + "probe = 30\n")
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    alice.send(alice.signed("INVITE", f"sip:bob@{DOMAIN}"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 200))
    server.settle()
    server.tick(60)
    (row,) = server.rows("SELECT * FROM calls")
    assert row["end_cause"] == "probe_failed"


def test_answer_that_comes_when_the_call_is_over_changes_nothing(make_server: MakeServer) -> None:
    call = probing(make_server)
    call.server.tick(34)
    (question,) = [*questions(call.alice), *questions(call.bob)][:1]
    answer = call.request("BYE")
    assert answer is not None
    call.alice.send(call.alice.answer(question, 481))
    call.server.tick(60)
    assert call.row["end_cause"] == "bye"
    assert call.server.service.liveness.closed == {}


# ---- no evidence, and what is kept


def test_call_without_any_sign_is_closed_at_last(make_server: MakeServer) -> None:
    config = '[sessions]\nmode = "off"\nmax_hours = 0.05\n'
    call = Call(make_server("alice", "bob", config=config))
    call.server.tick(120)
    call.request("INFO")
    call.server.tick(179)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    row = call.row
    assert row["end_cause"] == "no_evidence"
    assert 119_000 <= row["talk_ms"] <= 121_000
    assert call.was_closed_now()


def test_requests_that_are_not_answered_show_one_side_only(make_server: MakeServer) -> None:
    config = '[sessions]\nmode = "off"\nmax_hours = 0.05\n'
    call = Call(make_server("alice", "bob", config=config))
    for _ in range(4):
        call.server.tick(50)
        call.request("INFO", status=481)
    row = call.row
    assert (row["end_cause"], row["ended_at"]) == ("no_evidence", row["confirmed_at"])


def test_calls_that_end_in_order_leave_nothing_behind(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(True, True))
    liveness = call.server.service.liveness
    assert len(liveness) == 1
    call.request("BYE")
    assert len(liveness) == 0
    call.server.tick(2)
    assert not liveness._over_connection
    assert not liveness._of_address
    assert not liveness._ring


def test_call_that_somebody_else_closed_is_forgotten(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    (key,) = call.server.service.recorder.open_keys()
    call.server.service.watch.presume_ended(key, "operator", 0, None)
    call.server.tick(1)
    assert len(call.server.service.liveness) == 0
    assert call.cause == "operator"


def test_second_answer_of_a_call_is_not_another_call(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    call.bob.send(call.bob.answer(call.invite, 200, tag="other"))
    call.server.settle()
    assert statuses(call.alice.received()) == [200]
    assert len(call.server.service.liveness) == 1


# ---- a clock that is set


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_clock_that_is_set_changes_no_duration(make_server: MakeServer, step: float) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    call.server.tick(20)
    call.server.clock_set += step
    call.server.tick(20)
    call.request("BYE")
    row = call.row
    assert 40_000 <= row["talk_ms"] < 40_500
    assert parse_stamp(row["ended_at"]) - parse_stamp(row["answered_at"]) == row["talk_ms"]
    (stepped,) = call.server.rows("SELECT detail FROM call_events WHERE kind = 'clock_stepped'")
    assert stepped["detail"] == f"{int(step * 1000):+d} ms"
    assert len(call.server.log("clock.stepped")) == 1


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_clock_that_is_set_expires_no_session_and_ends_no_call(make_server: MakeServer, step: float) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG + SHORT), invite=(KNOWS,))
    call.server.tick(20)
    call.server.clock_set += step
    call.server.tick(88)
    assert call.row["ended_at"] is None
    call.server.tick(4)
    row = call.row
    assert row["end_cause"] == "session_expired"
    assert row["talk_ms"] < 100
    assert 110_000 <= row["end_uncertainty_ms"] <= 113_000


def test_calls_after_the_clock_was_set_have_its_time(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    server.clock_set -= 3600
    server.tick(1)
    call = Call(server)
    assert abs(parse_stamp(call.row["started_at"]) - call.now()) < 1000
    assert server.rows("SELECT * FROM call_events WHERE kind = 'clock_stepped'") == []


def test_several_calls_over_one_connection_are_all_looked_after(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG)
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8", tcp=True)
    bob.register()
    answers = []
    for number in range(3):
        alice.send(alice.invite("bob", call_id=f"call{number}"))
        (invite,) = bob.requests("INVITE")
        bob.send(bob.answer(invite, 200))
        server.settle()
        answers.append(next(each for each in alice.received() if isinstance(each, Response) and each.status == 200))
    alice.send(alice.in_dialog("BYE", answers[0], cseq=50))
    (bye,) = bob.requests("BYE")
    bob.send(bob.answer(bye, 200))
    server.settle()
    lose(server, bob)
    server.tick(12)
    rows = server.rows("SELECT end_cause FROM calls ORDER BY started_at")
    assert [row["end_cause"] for row in rows] == ["bye", "connection_lost", "connection_lost"]
    assert not server.service.liveness._over_connection
    assert not server.service.liveness._of_address


def test_contact_that_cannot_be_read_is_nobodys_registration(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG + SHORT)
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8", tcp=True)
    bob.register()
    alice.send(alice.invite("bob"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 200).replace(f"<{bob.contact}>".encode(), b"<sip:bob@192.0.2.8"))
    server.settle()
    other = Device(server, "bob", "192.0.2.9")
    other.register(call_id="r2")
    other.register(f"Contact: <{other.contact}>;expires=0", call_id="r2", cseq=50)
    server.tick(20)
    assert server.rows("SELECT ended_at FROM calls") == [{"ended_at": None}]
    lose(server, bob)
    server.tick(12)
    assert [row["end_cause"] for row in server.rows("SELECT end_cause FROM calls")] == ["connection_lost"]
