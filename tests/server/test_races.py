"""Calls whose messages cross, are lost, come twice or are forged: what the record says afterwards."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sipserver.sip.message import Request
from support.fork import BOTH, VOICE, Fork
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN
from support.talk import Talk, responses, talk


@pytest.fixture
def call(server: Server) -> Talk:
    return talk(server)


@pytest.fixture
def fork(server: Server) -> Fork:
    return Fork(server)


# ---------------------------------------------------------------------- forks


def test_two_devices_answer_and_the_caller_keeps_the_first(fork: Fork) -> None:
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    fork.second.hang_up()
    assert fork.first.call()["ended_at"] is None
    fork.server.advance(10)
    fork.first.hang_up()
    row = fork.first.call()
    assert (row["outcome"], row["callee_agent"], row["devices"], row["video"]) == ("answered", "Desk/1", 2, 1)
    assert 10_000 <= row["talk_ms"] < 10_500
    assert fork.first.branches("outcome", "agent", "answered_at NOT NULL", "ended_at NOT NULL") == [
        ("answered", "Desk/1", 1, 0), ("also_answered", "Mobile/2", 1, 1)
    ]  # fmt: skip
    assert fork.first.events() == ["placed", "ringing", "answered", "confirmed", "dropped", "ended"]


def test_two_devices_answer_and_the_caller_keeps_the_second(fork: Fork) -> None:
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    fork.first.hang_up()
    row = fork.first.call()
    assert (row["ended_at"], row["callee_agent"], row["callee_network"]) == (None, "Mobile/2", "192.0.2.0/24")
    fork.server.advance(10)
    fork.second.hang_up()
    row = fork.first.call()
    (first,) = fork.first.table("call_branches WHERE branch = 0", "branch", "answered_at")
    assert row["answered_at"] > first[0]
    assert row["confirmed_at"] >= row["answered_at"]
    assert (row["outcome"], row["video"], row["video_ms"], row["ended_by"]) == ("answered", 0, 0, "caller")
    assert 10_000 <= row["talk_ms"] < 10_500
    assert 1_050 <= row["ring_ms"] < 1_300
    assert fork.first.branches("outcome", "answered_at NOT NULL", "ended_at NOT NULL") == [
        ("also_answered", 1, 1), ("answered", 1, 0)
    ]  # fmt: skip
    # What was agreed with the device that was not kept is not the call's.
    assert fork.first.media("kind", "accepted", "branch", "to_at NOT NULL") == [("audio", 1, 1, 1), ("video", 0, 1, 1)]
    assert fork.first.events() == ["placed", "ringing", "answered", "confirmed", "dropped", "ended"]


@pytest.mark.parametrize("by_callee", [False, True])
def test_answers_to_the_byes_of_a_fork_overtake_each_other(fork: Fork, by_callee: bool) -> None:
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    # The second is dropped at once, but its device takes its time.
    dropped = fork.second.say("BYE")
    fork.server.advance(1)
    if by_callee:
        fork.first.hang_up_back()
    else:
        fork.first.hang_up()
    row = fork.first.call()
    assert (row["callee_agent"], row["end_cause"]) == ("Desk/1", "bye")
    assert row["ended_by"] == ("callee" if by_callee else "caller")
    fork.second.agree(dropped)
    assert fork.first.call() == row
    assert fork.first.branches("outcome", "ended_at NOT NULL") == [("answered", 0), ("also_answered", 0)]
    assert len(fork.server.service.liveness) == 0


def test_connections_of_the_kept_dialog_are_remembered(server: Server) -> None:
    fork = Fork(server)
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    (key,) = server.service.recorder._calls
    server.service.dialogs.learn(key, "caller", fork.alice.flow, "sip:alice@192.0.2.7")
    fork.first.hang_up()
    assert len(server.service.dialogs) == 1
    fork.second.hang_up()
    assert len(server.service.dialogs) == 0


def test_first_answer_that_is_never_acknowledged_is_not_the_call(fork: Fork) -> None:
    fork.both_answer()
    fork.second.ack()
    fork.server.advance(60)
    # The caller knows of one dialog only, and that is the one it ends.
    fork.second.hang_up()
    row = fork.first.call()
    assert (row["outcome"], row["callee_agent"], row["end_cause"]) == ("answered", "Mobile/2", "bye")
    assert 60_000 <= row["talk_ms"] < 60_500
    assert [outcome for (outcome,) in fork.first.branches("outcome")] == ["also_answered", "answered"]


def test_device_that_is_told_to_stop_rang_elsewhere(fork: Fork) -> None:
    fork.first.respond(200, BOTH)
    (cancel,) = fork.mobile.requests("CANCEL")
    fork.mobile.send(fork.mobile.answer(cancel, 200))
    fork.mobile.send(fork.mobile.answer(fork.second.invite, 487, tag="mobile"))
    fork.first.ack()
    fork.first.hang_up()
    assert fork.first.branches("outcome", "status", "agent", "ringing_at NOT NULL", "ended_at NOT NULL") == [
        ("answered", 200, "Desk/1", 1, 0), ("elsewhere", 487, "Mobile/2", 1, 1)
    ]  # fmt: skip


def test_each_device_has_its_own_refusal(fork: Fork) -> None:
    fork.desk.send(fork.desk.answer(fork.first.invite, 486, tag="desk"))
    fork.mobile.send(fork.mobile.answer(fork.second.invite, 404, tag="mobile"))
    assert [outcome for (outcome,) in fork.first.branches("outcome")] == ["declined", "not_found"]
    # Of answers of one class the first is passed on (RFC 3261 §16.7 step 6).
    assert fork.first.call()["outcome"] == "declined"


def test_device_that_is_not_connected_has_its_row(server: Server) -> None:
    call = talk(server, tcp=True)
    mobile = Device(server, "bob", "192.0.2.9")
    assert mobile.register(f"Contact: <{mobile.contact}>", "User-Agent: Mobile/2", call_id="m").status == 200
    del server.transports.alive[call.callee.flow.connection]
    second = Talk(server, call.caller, mobile)
    second.begin()
    second.hang_up()
    assert sorted(second.branches("outcome", "agent", "transport", "network")) == [
        ("answered", "Mobile/2", "UDP", "192.0.2.0/24"), ("unreachable", None, "TCP", "192.0.2.0/24")
    ]  # fmt: skip


def test_device_behind_the_same_branch_may_answer_too(call: Talk) -> None:
    call.place(BOTH)
    call.respond(200, BOTH, tag="one")
    call.ack()
    call.respond(200, BOTH, tag="two")
    call.ack()
    call.hang_up()
    assert call.call()["ended_at"] is None
    call.tag = "one"
    call.hang_up_back()
    assert (call.call()["outcome"], call.branches("outcome")) == ("answered", [("answered",)])


# ---------------------------------------------------------------------- cancel


def cancel(call: Talk, device: Device | None = None, **options: Any) -> bytes:
    given: dict[str, Any] = {"branch": f"z9hG4bK{call.call_id}", "cseq": 1, "call_id": call.call_id, **options}
    return (device or call.caller).write("CANCEL", f"sip:bob@{DOMAIN}", **given)


def test_answer_that_crosses_the_cancel_is_the_call(call: Talk) -> None:
    call.place(VOICE)
    call.respond(180)
    call.caller.send(cancel(call))
    assert len(call.callee.requests("CANCEL")) == 1
    call.respond(200, VOICE)
    call.ack()
    call.hang_up()
    row = call.call()
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "caller", "bye")
    assert call.events() == ["placed", "ringing", "cancelled", "answered", "confirmed", "ended"]


def test_answer_after_the_487_of_the_same_device_is_none(call: Talk) -> None:
    call.place(VOICE)
    call.respond(180)
    call.caller.send(cancel(call))
    call.respond(487)
    call.callee.send(call.callee.answer(call.invite, 200, tag=call.tag))
    call.server.settle()
    row = call.call()
    assert (row["outcome"], row["answered_at"], row["sip_status"]) == ("cancelled", None, 487)
    assert call.branches("outcome", "status") == [("cancelled", 487)]


def test_device_that_answers_after_another_ones_487_has_the_call(fork: Fork) -> None:
    fork.alice.received()
    via = fork.first.invite.vias[1]
    fork.alice.send(fork.alice.write("CANCEL", f"sip:bob@{DOMAIN}", branch=via.branch or "", cseq=1, call_id="talk"))
    fork.desk.send(fork.desk.answer(fork.first.invite, 487, tag="desk"))
    fork.second.respond(200, VOICE)
    fork.second.ack()
    fork.second.hang_up()
    assert fork.first.call()["outcome"] == "answered"
    assert [outcome for (outcome,) in fork.first.branches("outcome")] == ["cancelled", "answered"]


def test_device_that_never_says_that_it_stopped_was_cancelled(call: Talk) -> None:
    call.place(VOICE)
    call.respond(180)
    call.caller.send(cancel(call))
    call.server.advance(40)
    assert call.call()["outcome"] == "cancelled"
    assert call.branches("outcome") == [("cancelled",)]


@pytest.mark.parametrize("lie", ["host", "call_id", "cseq", "from_"])
def test_forged_cancel_is_refused_and_counted_and_the_call_goes_on(call: Talk, lie: str) -> None:
    call.place(VOICE)
    call.respond(180)
    forger = Device(call.server, "alice", "203.0.113.9") if lie == "host" else call.caller
    via = f"Via: SIP/2.0/UDP {call.caller.hostport};branch=z9hG4bKtalk;rport".encode()
    lies: dict[str, dict[str, Any]] = {
        "host": {}, "call_id": {"call_id": "x"}, "cseq": {"cseq": 2}, "from_": {"from_": f"<sip:e@{DOMAIN}>;tag=e"}
    }  # fmt: skip
    data = re.sub(rb"Via: [^\r]*", via, cancel(call, forger, **lies[lie]))
    answer = forger.ask(data)
    assert answer.status == 481
    assert call.callee.requests("CANCEL") == []
    assert call.errors() == [("forged", "CANCEL", 481, 1)]
    call.respond(200, VOICE)
    assert call.call()["outcome"] == "answered"


def test_late_cancel_matches_nothing(call: Talk) -> None:
    assert call.caller.ask(cancel(call)).status == 481
    assert call.errors() == [("cancel", "CANCEL", 481, 1)]


# ---------------------------------------------------------------------- bye


def test_bye_of_the_caller_before_its_ack(call: Talk) -> None:
    call.place(VOICE)
    call.respond(200, VOICE)
    call.server.advance(1)
    call.hang_up()
    row = call.call()
    assert (row["outcome"], row["confirmed_at"], row["ended_by"]) == ("answered", None, "caller")
    assert 1_000 <= row["talk_ms"] < 1_100


def test_bye_of_the_callee_before_the_ack(call: Talk) -> None:
    call.place(VOICE)
    call.respond(200, VOICE)
    call.hang_up_back()
    call.caller.send(call.caller.in_dialog("ACK", call.answer, cseq=1))
    row = call.call()
    assert (row["outcome"], row["confirmed_at"], row["ended_by"]) == ("answered", None, "callee")


def test_both_hang_up_at_once(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    there, back = call.say("BYE"), call.say_back("BYE")
    call.agree_back(back)
    call.agree(there)
    row = call.call()
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "callee", "bye")
    assert call.events().count("ended") == 1
    assert call.errors() == []


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_bye_that_is_refused_ends_nothing(call: Talk, status: int) -> None:
    call.begin(VOICE, VOICE)
    bye = call.say("BYE")
    call.callee.send(call.callee.answer(bye, status))
    call.server.settle()
    assert call.call()["ended_at"] is None
    call.server.advance(5)
    call.hang_up_back()
    row = call.call()
    assert row["ended_by"] == "callee"
    assert 5_000 <= row["talk_ms"] < 5_100


def test_bye_that_nobody_answers_ended_the_call_when_it_came(call: Talk) -> None:
    call.begin(BOTH, BOTH)
    call.server.advance(10)
    call.say("BYE")
    call.server.advance(31.9)
    assert call.call()["ended_at"] is None
    call.server.advance(0.2)
    row = call.call()
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "caller", "bye")
    assert 10_000 <= row["talk_ms"] < 10_100
    assert row["video_ms"] == row["talk_ms"]
    assert 32_000 <= row["end_uncertainty_ms"] < 32_100
    (line,) = call.server.log("call.ended")
    assert (line["talk_ms"], line["uncertainty_ms"]) == (row["talk_ms"], row["end_uncertainty_ms"])


def test_bye_that_cannot_be_passed_on_ends_the_call(server: Server) -> None:
    call = talk(server, tcp=True)
    call.begin(BOTH, BOTH)
    server.advance(10)
    del server.transports.alive[call.callee.flow.connection]
    server.driver.on_closed(call.callee.flow)
    call.caller_numbers += 1
    call.caller.send(call.caller.in_dialog("BYE", call.answer, cseq=call.caller_numbers))
    server.settle()
    row = call.call()
    # At once: nothing about it is uncertain.
    assert (row["end_cause"], row["end_uncertainty_ms"]) == ("bye", None)
    assert 10_000 <= row["talk_ms"] < 10_100


def test_bye_that_finds_no_call_at_the_other_side_was_seen(call: Talk) -> None:
    call.begin(BOTH, BOTH)
    call.server.advance(10)
    bye = call.say("BYE")
    call.server.advance(0.3)
    call.agree(bye, 481)
    row = call.call()
    assert (row["end_cause"], row["end_uncertainty_ms"]) == ("bye", None)
    assert 10_300 <= row["talk_ms"] < 10_400


def test_media_agreed_on_after_a_bye_that_nobody_answers_are_the_least(call: Talk) -> None:
    call.begin(BOTH, BOTH)
    call.server.advance(10)
    call.say("BYE")
    call.server.advance(2)
    call.agree_back(call.say_back("INVITE", VOICE), 200, VOICE)
    call.server.advance(31)
    row = call.call()
    assert 12_000 <= row["talk_ms"] < 12_200
    assert row["end_uncertainty_ms"] == pytest.approx(30_000, abs=200)
    assert all(start <= end for start, end in call.media("from_at", "to_at"))


def test_bye_without_our_route_is_forged(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    forger = Device(call.server, "alice", "203.0.113.9")
    answer = call.answer
    bye = forger.write(
        "BYE", call.callee.contact, from_=answer.header("from") or "", to=answer.header("to") or "", call_id="talk"
    )
    assert forger.ask(bye).status == 403
    assert call.callee.requests("BYE") == []
    assert call.errors() == [("forged", "BYE", 403, 1)]
    assert call.call()["ended_at"] is None


@pytest.mark.parametrize("lie", ["call_id", "from_"])
def test_bye_with_the_route_of_another_dialog_is_forged(call: Talk, lie: str) -> None:
    call.begin(VOICE, VOICE)
    lies = {"call_id": "other", "from_": f"<sip:alice@{DOMAIN}>;tag=other"}
    assert call.caller.ask(call.caller.in_dialog("BYE", call.answer, cseq=9, **{lie: lies[lie]})).status == 403
    assert call.errors() == [("forged", "BYE", 403, 1)]
    assert call.call()["ended_at"] is None


def test_bye_with_a_tag_of_none_of_the_dialogs_is_forged(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    to = f"<sip:bob@{DOMAIN}>;tag=other"
    assert call.caller.ask(call.caller.in_dialog("BYE", call.answer, cseq=9, to=to)).status == 481
    assert call.callee.requests("BYE") == []
    assert call.errors() == [("forged", "BYE", 481, 1)]
    assert call.call()["ended_at"] is None
    call.hang_up()
    assert call.call()["outcome"] == "answered"


def test_device_that_did_not_get_the_call_cannot_end_it(fork: Fork) -> None:
    fork.first.respond(200, BOTH)
    fork.mobile.received()
    fork.mobile.send(fork.mobile.answer(fork.second.invite, 487, tag="mobile"))
    fork.first.ack()
    fork.mobile.send(fork.second.written_back("BYE", from_=f"<sip:bob@{DOMAIN}>;tag=made-up"))
    fork.server.settle()
    assert statuses(fork.mobile.received()) == [481]
    assert fork.alice.requests("BYE") == []
    assert fork.first.errors() == [("forged", "BYE", 481, 1)]
    # What it may say of its own early dialog is passed on, and ends nothing of the call.
    fork.mobile.send(fork.second.written_back("BYE"))
    (bye,) = fork.alice.requests("BYE")
    fork.alice.send(fork.alice.answer(bye, 481))
    fork.server.settle()
    assert fork.first.call()["ended_at"] is None


def test_bye_for_one_early_dialog_leaves_the_other_device_ringing(fork: Fork) -> None:
    bye = fork.first.say("BYE")
    fork.first.agree(bye)
    fork.desk.send(fork.desk.answer(fork.first.invite, 487, tag="desk"))
    fork.second.respond(200, VOICE)
    fork.second.ack()
    fork.second.hang_up()
    assert (fork.first.call()["outcome"], fork.first.call()["callee_agent"]) == ("answered", "Mobile/2")


def test_bye_before_the_answer_gives_up_the_only_device(call: Talk) -> None:
    call.place(VOICE)
    call.respond(180)
    call.hang_up()
    call.respond(487)
    assert call.call()["outcome"] == "cancelled"


# ---------------------------------------------------------------------- what is lost or comes twice


def test_lost_ack(call: Talk) -> None:
    call.place(VOICE)
    call.respond(200, VOICE)
    for _ in range(3):
        # The callee repeats its answer, which is passed on, and the caller's ACKs are lost.
        call.server.advance(1)
        call.respond(200, VOICE)
    call.server.advance(29)
    call.hang_up_back()
    row = call.call()
    assert (row["outcome"], row["confirmed_at"], row["ended_by"]) == ("answered", None, "callee")
    assert 32_000 <= row["talk_ms"] < 32_500
    assert call.events() == ["placed", "answered", "ended"]


def test_everything_comes_twice(call: Talk) -> None:
    data = call.caller.invite("bob", "Content-Type: application/sdp", call_id="talk", cseq=1, body=BOTH)
    for _ in range(2):
        call.caller.send(data)
    (call.invite,) = call.callee.requests("INVITE")
    for status in (180, 180, 200, 200):
        call.respond(status, BOTH if status == 200 else b"")
    ack = call.caller.in_dialog("ACK", call.answer, cseq=1)
    for _ in range(2):
        call.caller.send(ack)
    assert len(call.callee.requests("ACK")) == 2
    again = call.caller.in_dialog("INVITE", call.answer, "Content-Type: application/sdp", cseq=2, body=VOICE)
    for _ in range(2):
        call.caller.send(again)
    (second,) = call.callee.requests("INVITE")
    for _ in range(2):
        call.agree(second, 200, VOICE)
    bye = call.caller.in_dialog("BYE", call.answer, cseq=3)
    for _ in range(2):
        call.caller.send(bye)
    (ended,) = call.callee.requests("BYE")
    for _ in range(2):
        call.callee.send(call.callee.answer(ended, 200))
    call.server.settle()
    call.caller.send(bye)
    assert call.events() == ["placed", "ringing", "answered", "confirmed", "changed", "ended"]
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 1)]
    assert call.branches("outcome") == [("answered",)]
    assert call.call()["outcome"] == "answered"
    assert call.errors() == []


def test_late_bye_after_the_end_changes_nothing(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    call.hang_up()
    before = call.call()
    call.server.advance(60)
    call.agree_back(call.say_back("BYE"), 481)
    assert call.call() == before


def test_glare_changes_nothing(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    there, back = call.say("INVITE", BOTH), call.say_back("INVITE", BOTH)
    call.agree(there, 491)
    call.agree_back(back, 491)
    assert call.media("kind") == [("audio",)]
    # Whoever waited less tries again, and that counts.
    call.agree(call.say("INVITE", BOTH), 200, BOTH)
    assert call.media("kind") == [("audio",), ("video",)]
    assert call.events() == ["placed", "answered", "confirmed", "changed"]


def test_two_calls_with_one_call_id_are_two(server: Server) -> None:
    call = talk(server)
    carol = Device(server, "carol", "192.0.2.10")
    other = Talk(server, carol, call.callee, tag="u")
    call.begin(VOICE, VOICE)
    other.begin(BOTH, BOTH)
    server.advance(2)
    call.hang_up()
    server.advance(3)
    other.hang_up()
    rows = server.rows("SELECT call_id, talk_ms / 1000 AS talk, video FROM calls ORDER BY started_at")
    assert [(row["talk"], row["video"]) for row in rows] == [(2, 0), (5, 1)]
    assert rows[0]["call_id"] == rows[1]["call_id"]
    assert len(server.service.recorder._by_call_id) == 0


def test_the_same_invite_by_another_way_is_another_call(call: Talk) -> None:
    # RFC 3261 §8.2.2.2: that is for the callee to see; it refuses the second with 482.
    call.place(VOICE)
    call.respond(180)
    first: Request = call.invite
    call.place(VOICE, branch="z9hG4bKother")
    call.callee.send(call.callee.answer(call.invite, 482, tag="merged"))
    call.server.settle()
    assert len(responses(call.caller.received(), 482)) == 1
    call.invite = first
    call.callee.received()
    call.respond(200, VOICE)
    call.ack()
    call.hang_up()
    outcomes = [row["outcome"] for row in call.server.rows("SELECT outcome FROM calls ORDER BY started_at")]
    assert sorted(outcomes) == ["answered", "failed"]


# ---------------------------------------------------------------------- what a BYE says of the media


def stat(octets: int) -> str:
    return f"P-RTP-Stat: PS=10,OS={octets},PR=10,OR=1600,PL=0,JI=1,LA=2,DU=10,EN=PCMU,DE=PCMU"


def test_summary_of_a_dialog_that_was_not_kept_is_joined_to_no_stream(fork: Fork) -> None:
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    # This one is taken for the call, until its BYE says that it is not.
    fork.first.agree(fork.first.say("BYE", b"", stat(1)))
    fork.server.advance(10)
    fork.second.agree(fork.second.say("BYE", b"", stat(2)))
    call = fork.first.call()["id"]
    assert fork.first.call()["ended_at"] is not None
    rows = fork.server.rows("SELECT call, octets_sent, stream FROM quality_reports WHERE octets_sent IS NOT NULL")
    assert [(row["call"], row["octets_sent"], row["stream"]) for row in rows] == [(call, 1, None), (call, 2, 0)]
