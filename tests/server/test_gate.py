"""Answers wait for the disk, but not for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sipserver.server.gate import LINGER, PATIENCE, CommitGate
from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction, TransactionLayer
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.timers import Timers
from sipserver.sip.transaction.keys import server_key
from support.inprocess import ManualLoop
from support.sip import request, written


class Writer:
    """Commits when the test says so."""

    def __init__(self) -> None:
        self.failing = False
        self.put: list[Callable[[bool], None]] = []
        self.waiting: list[Callable[[bool], None]] = []

    @property
    def gathered(self) -> bool:
        return bool(self.put)

    def on_commit(self, callback: Callable[[bool], None], /) -> None:
        self.put.append(callback)

    def flush(self) -> None:
        self.waiting += self.put
        self.put.clear()

    def commit(self) -> None:
        """What was flushed is on disk."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each(True)


class Sender:
    """Remembers what was sent; the first message may fail by a fault of ours."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fails = False

    def send(self, flow: Flow, data: bytes) -> bool:
        if self.fails:
            self.fails = False
            raise RuntimeError("a fault of ours")
        self.sent.append(data)
        return True


class Bench:
    """A gate with everything around it."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.writer, self.sender = Writer(), Sender()
        timers = TimerQueue(self.loop.time, self.loop.call_at)
        self.layer = TransactionLayer(self.sender, timers, Timers(), 100)
        self.gate = CommitGate(self.writer, timers)
        self._count = 0

    def transaction(self) -> ServerTransaction:
        """A BYE that waits for its answer."""
        self._count += 1
        via = f"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK{self._count}"
        bye: Request = request(written("BYE sip:bob@example.test SIP/2.0", CSeq="1 BYE", Via=via))
        return self.layer.serve(server_key(bye), bye, Flow("UDP", "192.0.2.7", 5060, "192.0.2.1:5060", False))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_answer_waits_for_its_commit(bench: Bench) -> None:
    bench.gate.hold(bench.transaction(), 200, b"one")
    bench.gate.hold(bench.transaction(), 200, b"two")
    bench.gate.flush()
    assert bench.sender.sent == []
    bench.writer.commit()
    assert bench.sender.sent == [b"one", b"two"]
    bench.loop.advance(1)
    assert bench.sender.sent == [b"one", b"two"]
    assert bench.gate.released_late == 0


def test_answer_of_the_next_batch_waits_for_the_next_commit(bench: Bench) -> None:
    bench.gate.hold(bench.transaction(), 200, b"one")
    bench.gate.flush()
    bench.gate.hold(bench.transaction(), 200, b"two")
    bench.writer.commit()
    assert bench.sender.sent == [b"one"]
    bench.gate.flush()
    bench.writer.commit()
    assert bench.sender.sent == [b"one", b"two"]


def test_answer_is_released_after_200_ms_when_the_store_hangs(bench: Bench) -> None:
    bench.gate.hold(bench.transaction(), 200, b"one")
    bench.gate.flush()
    bench.loop.advance(PATIENCE - 0.001)
    assert bench.sender.sent == []
    bench.loop.advance(0.001)
    assert bench.sender.sent == [b"one"]
    assert bench.gate.released_late == 1
    bench.writer.commit()
    assert bench.sender.sent == [b"one"]


def test_answer_waits_for_nothing_while_the_store_fails(bench: Bench) -> None:
    bench.writer.failing = True
    bench.gate.hold(bench.transaction(), 200, b"one")
    assert bench.sender.sent == [b"one"]
    assert bench.gate.released_late == 1


def test_rows_that_no_answer_waits_for_are_handed_over_a_little_later(bench: Bench) -> None:
    called: list[bool] = []
    bench.writer.on_commit(called.append)
    bench.gate.flush()
    bench.writer.commit()
    assert called == []
    bench.loop.advance(LINGER)
    bench.writer.commit()
    assert called == [True]


def test_rows_that_no_answer_waits_for_go_with_those_that_have_one(bench: Bench) -> None:
    called: list[bool] = []
    bench.writer.on_commit(called.append)
    bench.gate.flush()
    bench.gate.hold(bench.transaction(), 200, b"one")
    bench.gate.flush()
    bench.writer.commit()
    assert called == [True]


def test_answer_that_fails_holds_no_other_back(bench: Bench) -> None:
    bench.gate.hold(bench.transaction(), 200, b"one")
    bench.gate.hold(bench.transaction(), 200, b"two")
    bench.gate.flush()
    bench.sender.fails = True
    with pytest.raises(RuntimeError):
        bench.writer.commit()
    bench.loop.advance(PATIENCE)
    assert bench.sender.sent == [b"two"]
