"""Calls that two devices answered, and that nobody hangs up: the evidence is that of the dialog which the caller kept.

See server/liveness.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.fork import Fork
from support.inprocess import Device, Server
from support.talking import CONFIG, SHORT, lose, questions

MakeServer = Callable[..., Server]

PROBE = CONFIG + "probe = 30\n" + SHORT


def row(fork: Fork) -> dict[str, Any]:
    return fork.first.call()


def answer_questions(device: Device, status: int = 200) -> list[str | None]:
    """Answers what the device is asked; the callee's tags that the questions name."""
    asked = questions(device)
    for question in asked:
        device.send(device.answer(question, status))
    return [question.from_tag if device.user == "alice" else question.to_tag for question in asked]


def kept(make_server: MakeServer, config: str, *, first: bool, tcp: tuple[bool, bool] = (False, False)) -> Fork:
    """Both answered and were acknowledged; one of the two is hung up."""
    fork = Fork(make_server("alice", "bob", config=config), tcp=tcp)
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    (fork.second if first else fork.first).hang_up()
    for device in (fork.alice, fork.desk, fork.mobile):
        device.received()
    return fork


@pytest.mark.parametrize("first", [True, False])
def test_questions_are_put_in_the_dialog_that_was_kept(make_server: MakeServer, first: bool) -> None:
    fork = kept(make_server, PROBE, first=first)
    device, other, tag = (fork.desk, fork.mobile, "desk") if first else (fork.mobile, fork.desk, "mobile")
    asked: set[str | None] = set()
    for _ in range(120):
        fork.server.tick(1)
        asked.update(answer_questions(fork.alice))
        asked.update(answer_questions(device))
        assert questions(other) == []
    assert asked == {tag}
    assert row(fork)["ended_at"] is None


@pytest.mark.parametrize("first", [True, False])
def test_call_is_closed_when_the_device_that_was_kept_vanishes(make_server: MakeServer, first: bool) -> None:
    fork = kept(make_server, PROBE, first=first)
    for _ in range(80):
        fork.server.tick(1)
        answer_questions(fork.alice)
        # That the other device is there says nothing of the call.
        answer_questions(fork.mobile if first else fork.desk)
    assert row(fork)["end_cause"] == "probe_failed"
    assert row(fork)["callee_agent"] == ("Desk/1" if first else "Mobile/2")
    assert len(fork.server.service.liveness) == 0


def test_connection_of_the_device_that_was_dropped_is_no_evidence(make_server: MakeServer) -> None:
    fork = kept(make_server, CONFIG, first=False, tcp=(True, True))
    lose(fork.server, fork.desk)
    fork.server.tick(30)
    assert row(fork)["ended_at"] is None
    lose(fork.server, fork.mobile)
    fork.server.tick(12)
    assert row(fork)["end_cause"] == "connection_lost"
    assert len(fork.server.service.liveness._over_connection) == 0


def test_connection_that_breaks_before_the_other_dialog_is_dropped_is_evidence_after_it(
    make_server: MakeServer,
) -> None:
    fork = Fork(make_server("alice", "bob", config=CONFIG), tcp=(True, True))
    fork.both_answer()
    fork.first.ack()
    fork.second.ack()
    lose(fork.server, fork.mobile)
    fork.first.hang_up()
    fork.server.tick(12)
    assert row(fork)["end_cause"] == "connection_lost"


def test_device_that_vanishes_while_another_ones_dialog_stands_closes_nothing(make_server: MakeServer) -> None:
    fork = Fork(make_server("alice", "bob", config=PROBE))
    fork.both_answer()
    # The first answer's ACK and BYE are lost with its device.
    fork.second.ack()
    for device in (fork.alice, fork.desk, fork.mobile):
        device.received()
    for _ in range(150):
        fork.server.tick(1)
        # The caller knows of the dialog that it kept alone.
        for question in questions(fork.alice):
            fork.alice.send(fork.alice.answer(question, 200 if question.from_tag == "mobile" else 481))
        answer_questions(fork.mobile)
    assert row(fork)["ended_at"] is None
    for _ in range(80):
        fork.server.tick(1)
        answer_questions(fork.alice)
    found = row(fork)
    assert (found["end_cause"], found["callee_agent"]) == ("probe_failed", "Mobile/2")
    assert found["confirmed_at"] is not None


def test_session_is_that_of_the_dialog_that_was_kept(make_server: MakeServer) -> None:
    fork = Fork(make_server("alice", "bob", config=CONFIG))
    fork.first.respond(200, b"", "Session-Expires: 95;refresher=uas", "Require: timer")
    fork.second.respond(200)
    fork.first.ack()
    fork.second.ack()
    fork.first.hang_up()
    fork.server.tick(150)
    assert row(fork)["ended_at"] is None


def test_bye_of_the_dialog_that_was_dropped_keeps_the_evidence(make_server: MakeServer) -> None:
    fork = kept(make_server, CONFIG, first=True)
    assert len(fork.server.service.liveness) == 1
    fork.first.hang_up()
    assert len(fork.server.service.liveness) == 0
    assert len(fork.server.service.liveness._of_address) == 0
