"""What a call that goes on takes in memory, and that nothing which is given up for it was needed."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from sipserver.server.liveness import MAX_IN_TUPLE, Keys, _join, _keys, _leave
from sipserver.sip import grammar, nat, uri, values
from support.inprocess import Device, Server, statuses
from support.sdp import AUDIO, VIDEO, body
from support.talk import Talk, talk

PEOPLE = 20
CALLS = 60
BOUND = 3_200
"""Bytes. The interpreted sources are measured, where each number is an object of its own; compiled it is less."""


def test_an_open_call_takes_little_memory(tmp_path: Path) -> None:
    users = [f"room{number}" for number in range(PEOPLE)]
    with Server(tmp_path, *users) as server:
        devices = [Device(server, user, f"192.0.2.{number + 10}") for number, user in enumerate(users)]
        for device in devices:
            assert device.register().status == 200
        # From the beginning, so that what is freed later is known.
        tracemalloc.start()
        try:
            begin_calls(server, devices, 0, CALLS)
            before = held()
            begin_calls(server, devices, CALLS, 2 * CALLS)
            grown = held() - before
        finally:
            tracemalloc.stop()
        assert server.service.recorder.open == 2 * CALLS
        assert grown / CALLS < BOUND


def begin_calls(server: Server, devices: list[Device], first: int, until: int) -> None:
    """So many calls between these, that go on until their transactions are over."""
    for number in range(first, until):
        caller, callee = devices[number % PEOPLE], devices[(number + 7) % PEOPLE]
        call = Talk(server, caller, callee, call_id=f"talk{number}@host.example.test", tag=f"callee{number}")
        call.place(body(AUDIO, VIDEO), "User-Agent: Desk/1.0", from_=f"<{caller.address}>;tag=caller{number}")
        call.respond(180, b"", "User-Agent: Desk/1.0")
        call.respond(200, body(AUDIO, VIDEO), "User-Agent: Desk/1.0")
        call.ack()
        server.transports.sent.clear()
    server.tick(40)
    server.transports.sent.clear()


def held() -> int:
    """Bytes in use, without what is remembered of the latest messages, whosever they are."""
    for memory in (values._parse_address, uri._parse, grammar.split_host_port, grammar.split_sent_by, nat.scope):
        memory.cache_clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_timer_c_is_waited_for_to_its_end_and_not_kept_for_a_call_that_is_answered(tmp_path: Path) -> None:
    """RFC 3261 §16.8; it is set for 185 s and waited for in portions."""
    with Server(tmp_path, "alice", "bob") as server:
        call = talk(server)
        call.place(body(AUDIO))
        call.respond(180)
        server.advance(184)
        server.settle()
        assert call.callee.requests("CANCEL") == []
        server.advance(2)
        server.settle()
        assert len({each.top_via.branch for each in call.callee.requests("CANCEL")}) == 1
        call.callee.send(call.callee.answer(call.invite, 487))
        server.settle()
        assert [each for each in statuses(call.caller.received()) if each >= 200] == [408]

        # Nobody acknowledged that, so it was repeated.
        server.advance(300)
        call.caller.received()
        call.callee.received()
        answered = Talk(server, call.caller, call.callee, call_id="answered", tag="t2")
        answered.begin(body(AUDIO), body(AUDIO))
        assert len(server.service.timers) > 0
        server.advance(41)
        assert len(server.service.timers) == 0


@pytest.mark.parametrize("stranger", [False, True])
def test_cancel_after_the_answer_is_still_held_against_the_invite(tmp_path: Path, stranger: bool) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        call = talk(server)
        call.place(body(AUDIO), branch="z9hG4bKinvite")
        call.respond(200, body(AUDIO))
        tag = "other" if stranger else "falice"
        cancel = call.caller.write(
            "CANCEL", "sip:bob@example.test", from_=f"<sip:alice@example.test>;tag={tag}", call_id="talk", cseq=1,
            branch="z9hG4bKinvite",
        )  # fmt: skip
        assert call.caller.ask(cancel).status == (481 if stranger else 200)
        assert [kind for kind, *_ in call.errors()] == (["forged"] if stranger else [])
        assert call.callee.requests("CANCEL") == []


def test_answer_of_another_device_still_tells_where_it_is(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        call = talk(server)
        call.begin(body(AUDIO), body(AUDIO))
        other = call.callee.answer(call.invite, 200, tag="late").replace(b"Contact: <sip:bob@", b"Contact: <sip:b2@")
        call.callee.send(other)
        server.settle()
        assert statuses(call.caller.received()) == [200]
        key = next(iter(server.service.recorder.open_keys()))
        watched = server.service.liveness._calls.part(key)[key]
        assert [each.contact for each in watched.others] == ["<sip:b2@192.0.2.8:5070>"]
        assert watched.caller.identity == "<sip:alice@example.test>;tag=falice"


def test_calls_at_one_place_are_found_however_many_there_are() -> None:
    index: dict[str, Keys] = {}
    keys = [f"k{number}" for number in range(2 * MAX_IN_TUPLE)]
    for number, key in enumerate(keys):
        _join(index, "a", key)
        _join(index, "a", key)
        assert sorted(_keys(index["a"])) == sorted(keys[: number + 1])
        if number + 1 < len(keys):
            _leave(index, "a", keys[number + 1])
    for number, key in enumerate(keys):
        assert sorted(_keys(index["a"])) == sorted(keys[number:])
        _leave(index, "a", key)
    assert index == {}
    for key in ("k1", "k2", "k3"):
        _join(index, "a", key)
    _leave(index, "a", "k2")
    _leave(index, "a", "k1")
    assert index == {"a": "k3"}
    assert _keys(None) == ()
