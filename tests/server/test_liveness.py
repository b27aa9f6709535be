"""Calls that nobody hangs up: what is evidence, and how their records are closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sipserver.calls.times import parse_stamp
from sipserver.server.config import load
from sipserver.sip.message import Request, Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]

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
        (row,) = self.server.rows("SELECT * FROM calls")
        return row

    @property
    def cause(self) -> str | None:
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
        return int(self.server.service._clock() * 1000)


def questions(device: Device) -> list[Request]:
    """What the device was asked, each but once."""
    return list({each.top_via.branch: each for each in device.requests("OPTIONS")}.values())


# ---- session timers


def test_caller_is_told_to_refresh_and_the_session_expires_without(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    assert call.invite.header("session-expires") == "100"
    assert call.answer.header("session-expires") == "100;refresher=uac"
    assert call.answer.option_tags("require") == ["timer"]
    call.server.tick(109)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    row = call.row
    assert (row["outcome"], row["end_cause"], row["ended_by"]) == ("answered", "session_expired", "server")
    assert row["ended_at"] == row["confirmed_at"]
    assert row["talk_ms"] == parse_stamp(row["ended_at"]) - parse_stamp(row["answered_at"])
    assert call.was_closed_now()
    assert row["end_uncertainty_ms"] >= 109_000
    (line,) = call.server.log("call.ended")
    assert (line["cause"], line["by"], line["uncertainty_ms"]) == (
        "session_expired", "server", row["end_uncertainty_ms"],
    )  # fmt: skip
    assert call.server.service.liveness.closed == {"session_expired": 1}
    assert len(call.server.service.liveness) == 0


def test_nobody_is_sent_a_bye(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(120)
    assert call.alice.received() == call.bob.received() == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refresh_keeps_the_session(make_server: MakeServer, method: str) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(90)
    refreshed = call.request(method, KNOWS, "Session-Expires: 100;refresher=uac")
    assert refreshed is not None
    assert refreshed.header("session-expires") == "100;refresher=uac"
    call.server.tick(100)
    assert call.row["ended_at"] is None
    call.server.tick(20)
    row = call.row
    assert row["end_cause"] == "session_expired"
    (changed,) = call.server.rows("SELECT at FROM call_events WHERE kind = 'changed'")
    assert row["ended_at"] == changed["at"]


def test_refresh_that_is_refused_keeps_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(90)
    call.request("UPDATE", KNOWS, status=500)
    call.server.tick(30)
    assert call.cause == "session_expired"


def test_answer_without_a_timer_turns_it_off(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), answer=("Session-Expires: 100;refresher=uas",))
    call.server.tick(50)
    call.request("UPDATE")
    call.server.tick(200)
    assert call.row["ended_at"] is None


def test_longest_interval_that_the_callee_chose_counts(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), answer=("Session-Expires: 95;refresher=uas",))
    call.server.tick(104)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    assert call.cause == "session_expired"


def test_timer_of_endpoints_that_go_on_without_refreshing_says_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(105)
    call.request("INFO")
    call.server.tick(100)
    assert call.row["ended_at"] is None


def test_server_that_looks_at_no_timers_believes_none(make_server: MakeServer) -> None:
    config = CONFIG.replace("grace", 'mode = "off"\ngrace')
    call = Call(make_server("alice", "bob", config=config), invite=(KNOWS,), answer=("Session-Expires: 90",))
    assert call.invite.header("session-expires") is None
    call.server.tick(200)
    assert call.row["ended_at"] is None


def test_too_short_interval_is_refused_and_on_record(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG)
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    refused = alice.ask(alice.invite("bob", KNOWS, "Session-Expires: 60"))
    assert (refused.status, refused.header("min-se")) == (422, "90")
    assert bob.received() == []
    (row,) = server.rows("SELECT * FROM calls")
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("failed", 422, "server")


def test_caller_may_ask_that_proxies_know_timers(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    alice.send(alice.invite("bob", KNOWS, "Proxy-Require: timer"))
    assert len(bob.requests("INVITE")) == 1


def test_server_without_timers_says_so_to_whoever_asks_for_them(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config='[sessions]\nmode = "off"\n')
    alice = Device(server, "alice")
    refused = alice.ask(alice.write("INVITE", f"sip:bob@{DOMAIN}", KNOWS, "Proxy-Require: timer"))
    assert (refused.status, refused.header("unsupported")) == (420, "timer")


def test_reload_changes_what_is_asked_for(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[sessions]\nexpires = 600\ngrace = 3\n")
    server.service.reload(load(file, domains=[DOMAIN], data_dir=server.data_dir))
    call = Call(server, invite=(KNOWS,))
    assert call.invite.header("session-expires") == "600"
    call.server.tick(602)
    assert call.row["ended_at"] is None
    call.server.tick(3)
    assert call.cause == "session_expired"


def test_late_bye_passes_and_changes_no_record(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), invite=(KNOWS,))
    call.server.tick(120)
    before = call.row
    answer = call.request("BYE")
    assert answer is not None
    assert answer.status == 200
    assert call.row == before
    assert len(call.server.log("call.ended")) == 1


# ---- connections


def test_lost_connection_is_evidence_after_the_grace(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    call.server.tick(60)
    lose(call.server, call.bob)
    lost_at = call.now()
    call.server.tick(9)
    assert call.row["ended_at"] is None
    call.server.tick(2)
    row = call.row
    assert (row["end_cause"], row["ended_by"]) == ("connection_lost", "server")
    assert row["ended_at"] == row["confirmed_at"]
    assert parse_stamp(row["watched_until"]) == lost_at
    assert call.was_closed_now()


def lose(server: Server, device: Device) -> None:
    """The device's connection breaks."""
    del server.transports.alive[device.flow.connection]
    server.driver.on_closed(device.flow)


def test_request_over_a_new_connection_keeps_the_call(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(True, False))
    lose(call.server, call.alice)
    call.alice.flow = call.server.transports.open("192.0.2.7", 5071)
    assert call.request("INFO") is not None
    call.server.tick(30)
    assert call.row["ended_at"] is None
    lose(call.server, call.alice)
    call.server.tick(12)
    assert call.cause == "connection_lost"


def test_device_that_registered_again_is_asked_over_its_new_connection(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    lose(call.server, call.bob)
    contact = call.bob.contact
    call.bob.flow = call.server.transports.open("192.0.2.8", 5099)
    call.bob.register(f"Contact: <{contact}>", cseq=40)
    call.server.tick(11)
    (question,) = questions(call.bob)
    assert question.to_tag == "callee"
    call.bob.send(call.bob.answer(question, 500))
    call.server.tick(60)
    assert call.row["ended_at"] is None
    lose(call.server, call.bob)
    call.server.tick(12)
    assert call.cause == "connection_lost"


def test_device_that_listens_is_asked_over_a_connection_to_it(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(False, True))
    lose(call.server, call.bob)
    call.server.transports.accepting.add(("192.0.2.8", 5070))
    call.server.tick(11)
    (made,) = [flow for flow in call.server.transports.alive.values() if flow.host == "192.0.2.8"]
    call.bob.flow = made
    (question,) = questions(call.bob)
    call.bob.send(call.bob.answer(question, 481))
    call.server.tick(1)
    assert call.cause == "connection_lost"


def test_other_connections_of_the_same_host_are_no_evidence(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG), tcp=(True, True))
    other = call.server.transports.open("192.0.2.8", 5071)
    call.server.driver.on_closed(other)
    call.server.tick(60)
    assert call.row["ended_at"] is None
    assert questions(call.bob) == []


# ---- registrations


def test_contact_that_signs_off_and_does_not_answer_ends_the_call(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG + SHORT))
    call.bob.register(f"Contact: <{call.bob.contact}>;expires=0", cseq=50)
    call.server.tick(11)
    assert len(questions(call.bob)) == 1
    call.server.tick(5)
    row = call.row
    assert (row["end_cause"], row["watched_until"]) == ("registration_lost", None)
    assert row["ended_at"] == row["confirmed_at"]
    # The grace, and 64*T1 for the question.
    assert 13_000 <= row["end_uncertainty_ms"] <= 15_000


def test_contact_that_signs_off_and_is_still_in_the_call_ends_nothing(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    call.alice.register(f"Contact: <{call.alice.contact}>;expires=0", cseq=50)
    call.server.tick(11)
    (question,) = questions(call.alice)
    assert question.from_tag == "callee"
    assert question.to_tag == "falice"
    call.alice.send(call.alice.answer(question, 200))
    call.server.tick(100)
    assert call.row["ended_at"] is None


def test_expired_contact_ends_the_call_that_it_is_in(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG + SHORT))
    call.bob.register(f"Contact: <{call.bob.contact}>;expires=60", cseq=50)
    call.server.tick(80)
    assert call.cause == "registration_lost"


def test_other_contacts_of_the_address_are_no_evidence(make_server: MakeServer) -> None:
    call = Call(make_server("alice", "bob", config=CONFIG))
    phone = Device(call.server, "bob", "192.0.2.9")
    phone.register(call_id="r2")
    phone.register(f"Contact: <{phone.contact}>;expires=0", call_id="r2", cseq=50)
    call.server.tick(30)
    assert call.row["ended_at"] is None
    assert questions(call.bob) == []


def test_device_is_known_by_its_instance_wherever_it_is(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config=CONFIG + SHORT)
    device = Device(server, "bob", "192.0.2.8", tcp=True)
    instance = ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>"'
    device.register(f"Contact: <{device.contact}>{instance}", "Supported: outbound")
    alice = Device(server, "alice")
    alice.send(alice.invite("bob"))
    (invite,) = device.requests("INVITE")
    device.send(device.answer(invite, 200))
    server.settle()
    lose(server, device)
    device.flow = server.transports.open("192.0.2.88", 6000)
    device.register(f"Contact: <{device.contact}>{instance}", cseq=60)
    server.tick(11)
    (question,) = questions(device)
    device.send(device.answer(question, 200))
    server.tick(30)
    (row,) = server.rows("SELECT * FROM calls")
    assert row["ended_at"] is None


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
