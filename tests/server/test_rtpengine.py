from __future__ import annotations

from typing import Any

from sipserver.server.rtpengine import MAX_WAITING, Relay, Relays
from sipserver.server.timers import TimerQueue
from sipserver.transport.ng import decode_answer, encode
from support.inprocess import ManualLoop


class FakeLine:
    """A relay that answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.works = True

    def send(self, data: bytes) -> bool:
        """Remember it."""
        self.sent.append(data)
        return self.works

    def commands(self) -> list[str]:
        """What was asked since this was last called."""
        taken, self.sent = self.sent, []
        return [decode_answer(data)[1]["command"].decode() for data in taken]


class Pool:
    """Relays with lines and time by hand."""

    def __init__(self, count: int = 1) -> None:
        self.loop = ManualLoop()
        self.lines = [FakeLine() for _ in range(count)]
        self.states: list[tuple[str, bool]] = []
        self.done: list[tuple[int, Any]] = []
        self.relays = Relays(
            [Relay(f"relay{i}", line) for i, line in enumerate(self.lines)],
            TimerQueue(self.loop.time, self.loop.call_at), 0.5, "c.",
            lambda relay, up, _why: self.states.append((relay.name, up)),
        )  # fmt: skip

    def ask(self, first: int = -1, *, others: bool = True) -> None:
        self.relays.ask({"command": "offer"}, first, lambda *answer: self.done.append(answer), others=others)

    def answer(self, position: int = 0, **fields: Any) -> None:
        """The relay answers what it was asked last."""
        cookie, _ = decode_answer(self.lines[position].sent[-1])
        self.relays.on_data(position, cookie + b" " + encode(fields or {"result": "ok"}))


def test_question_is_repeated_with_its_cookie_until_it_is_answered() -> None:
    pool = Pool()
    pool.ask()
    pool.loop.advance(0.4)
    sent = pool.lines[0].sent
    assert len(sent) == 3
    assert len(set(sent)) == 1
    pool.answer()
    pool.answer()
    pool.loop.advance(1)
    assert pool.done == [(0, {"result": b"ok"})]
    assert pool.relays.relays[0].waiting == {}


def test_one_that_does_not_answer_is_down_and_costs_nobody_time_until_a_ping_is_answered() -> None:
    pool = Pool()
    pool.ask()
    pool.loop.advance(0.6)
    assert pool.done == [(0, None)]
    assert pool.states == [("relay0", False)]
    assert pool.relays.states == {"relay0": 0}
    assert pool.relays.timed_out == 1
    pool.lines[0].sent.clear()
    pool.ask()
    assert pool.done[1:] == [(-1, None)]
    assert pool.lines[0].sent == []
    pool.relays.tick()
    assert pool.lines[0].commands() == ["ping"]
    pool.relays.tick()
    pool.answer(result="pong")
    assert pool.states[1:] == [("relay0", True)]
    pool.ask()
    assert pool.lines[0].commands()[-1] == "offer"


def test_next_relay_is_asked_within_the_same_patience() -> None:
    pool = Pool(2)
    pool.ask()
    assert pool.lines[1].sent == []
    pool.loop.advance(0.27)
    pool.answer(1)
    assert pool.done == [(1, {"result": b"ok"})]
    pool.ask(1, others=False)
    pool.loop.advance(0.6)
    assert pool.done[1:] == [(1, None)]
    pool.ask()
    assert pool.done[2:] == [(-1, None)]


def test_one_that_cannot_do_it_leaves_it_to_the_next_and_the_last_error_is_told() -> None:
    pool = Pool(2)
    pool.ask()
    pool.answer(0, result="load limit")
    pool.answer(1, result="error")
    assert pool.done == [(1, {"result": b"error"})]
    assert pool.states == []


def test_whoever_waits_for_a_relay_that_failed_goes_on_at_once() -> None:
    pool = Pool(2)
    for _ in range(3):
        pool.ask()
    pool.lines[0].works = False
    pool.ask()
    assert len(pool.relays.relays[1].waiting) == 4


def test_questions_to_one_relay_are_bounded() -> None:
    pool = Pool()
    for _ in range(MAX_WAITING + 5):
        pool.ask()
    assert len(pool.relays.relays[0].waiting) == MAX_WAITING
    assert pool.done == [(0, None)] * 5


def test_silent_relay_is_pinged_now_and_then_and_garbage_is_not_its_answer() -> None:
    pool = Pool()
    for _ in range(5):
        pool.relays.tick()
    assert pool.lines[0].commands() == ["ping"]
    for data in (b"", b"garbage", b"x de", b"c.1 i1e"):
        pool.relays.on_data(0, data)
    pool.loop.advance(0.6)
    assert pool.relays.states == {"relay0": 0}
