"""What the proxy saw becomes events of the record and lines of the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sipserver.calls.recorder import Recorder
from sipserver.proxy import effects
from sipserver.proxy.effects import CallEvent
from sipserver.server.watch import STRANGERS_PER_SECOND, CallWatch
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from sipserver.storage.database import StoreError
from support.calls import Store, quality_records, recorder
from support.inprocess import FakeTransports
from support.pen import DOMAIN
from support.sip import request, response, written

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"


class Parties:
    """Ids by address; fails when told to."""

    def __init__(self) -> None:
        self.known = {ALICE: "p_alice"}
        self.fails = False

    def party(self, address: str) -> str | None:
        if self.fails:
            raise StoreError("broken")
        return self.known.get(address)

    def ensure(self, address: str) -> str:
        return self.known.setdefault(address, f"p_{len(self.known)}")


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.lines.append((event, values))


class Bench:
    """A watch over a real recorder."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.store = Store(folder)
        self.recorder: Recorder = recorder(self.store, **options)
        self.parties, self.log = Parties(), Lines()
        self.now = 1_795_467_737.0
        parties: Any = self.parties
        log: Any = self.log
        exists: Callable[[str], bool] = {ALICE, BOB}.__contains__
        quality = quality_records(self.store, self.recorder)
        self.watch = CallWatch(self.recorder, quality, parties, exists, log, lambda: self.now)
        self.flow = FakeTransports().udp_flow("192.0.2.8", 5060)

    def place(self, key: str = "k", caller: str | None = ALICE, callee: str | None = BOB) -> bool:
        return self.watch.placed(key, invite(), self.flow, caller, callee)

    def event(self, kind: str, **fields: Any) -> None:
        self.now += 1
        self.watch.event("k", CallEvent(kind, 0, flow=self.flow, **fields))

    def told(self) -> list[str]:
        return [event for event, _ in self.log.lines]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def invite(*lines: str) -> Request:
    return request(written(f"INVITE sip:{BOB} SIP/2.0", *lines))


def test_answered_call_is_told_and_recorded(bench: Bench) -> None:
    assert bench.place()
    bench.event(effects.TRIED)
    bench.event(effects.RANG, status=180, message=response(written("SIP/2.0 180 Ringing", "Server: Phone/1")))
    bench.event(effects.ANSWERED, status=200, message=response(written("SIP/2.0 200 OK", "Server: Phone/1")))
    bench.watch.confirmed("k", invite())
    answer = response(written("SIP/2.0 200 OK"))
    bench.event(effects.CHANGED, status=200, side="callee", request=invite(), message=answer)
    bye = request(written("BYE sip:x SIP/2.0", "Reason: SIP;cause=200;text=Bye", CSeq="2 BYE"))
    bench.event(effects.ENDED, status=200, side="callee", request=bye)
    row = bench.store.one("calls")
    assert (row["caller"], row["callee"], row["outcome"], row["ended_by"]) == ("p_alice", "p_1", "answered", "callee")
    assert (row["setup_ms"], row["ring_ms"], row["talk_ms"], row["reason"]) == (2000, 1000, 2000, "Bye")
    assert (row["callee_agent"], row["callee_transport"]) == ("Phone/1", "UDP")
    assert bench.told() == ["call.placed", "call.ringing", "call.answered", "call.ended"]
    assert {values["call"] for _, values in bench.log.lines} == {row["id"]}
    assert bench.log.lines[0][1]["callee"] == BOB


def test_failed_call_is_told_and_recorded(bench: Bench) -> None:
    bench.place()
    bench.event(effects.TRIED)
    busy = response(written("SIP/2.0 486 Busy", "Reason: Q.850;cause=17"))
    bench.event(effects.BRANCH_FAILED, status=486, message=busy)
    bench.event(effects.FAILED, status=486, message=busy)
    row = bench.store.one("calls")
    assert (row["outcome"], row["reason"], row["ended_by"]) == ("busy", "Q.850 17", "callee")
    assert bench.told() == ["call.placed", "call.failed"]


def test_cancelled_call_keeps_its_reason(bench: Bench) -> None:
    bench.place()
    bench.event(effects.TRIED)
    cancel = request(written("CANCEL sip:x SIP/2.0", "Reason: SIP;text=Oops", CSeq="1 CANCEL"))
    bench.event(effects.CANCELLED, message=cancel)
    bench.event(effects.BRANCH_FAILED, status=487)
    bench.event(effects.FAILED, status=487)
    row = bench.store.one("calls")
    assert (row["outcome"], row["reason"]) == ("cancelled", "Oops")


def test_call_without_branches_that_this_server_ends_is_its_own(bench: Bench) -> None:
    bench.place()
    bench.watch.refused("k", 404, "Not Found")
    row = bench.store.one("calls")
    assert (row["outcome"], row["ended_by"], row["reason"]) == ("not_found", "server", None)


def test_events_of_unknown_calls_change_nothing(bench: Bench) -> None:
    bench.event(effects.ENDED)
    bench.watch.confirmed("k", invite())
    bench.watch.refused("k", 404, "Not Found")
    assert bench.store.rows == []
    assert bench.told() == []


def test_messages_may_be_missing(bench: Bench) -> None:
    bench.place()
    bench.event(effects.TRIED)
    bench.event(effects.RANG, status=180)
    bench.event(effects.ANSWERED, status=200)
    bench.event(effects.CHANGED)
    bench.event(effects.ENDED)
    assert bench.store.one("calls")["ended_by"] == "server"


def test_address_that_nobody_has_gets_no_party(bench: Bench) -> None:
    bench.place(callee=f"nobody@{DOMAIN}")
    assert bench.store.one("calls")["callee"] is None
    assert bench.parties.known == {ALICE: "p_alice"}


def test_parties_that_cannot_be_looked_up_stop_no_call(bench: Bench) -> None:
    bench.parties.fails = True
    assert bench.place()
    assert bench.store.one("calls")["caller"] is None


def test_strangers_get_rows_up_to_a_bound_each_second(bench: Bench) -> None:
    taken = [bench.place(f"k{i}", None, None) for i in range(STRANGERS_PER_SECOND + 5)]
    assert taken == [True] * STRANGERS_PER_SECOND + [False] * 5
    assert bench.place("known", ALICE, None)
    bench.now += 1
    assert bench.place("next", None, None)


def test_call_that_cannot_be_recorded_is_refused(bench: Bench) -> None:
    bench.store.room = 0
    with pytest.raises(SipError) as caught:
        bench.place()
    assert (caught.value.status, caught.value.headers) == (503, ("Retry-After: 5",))
    assert bench.told() == []


def test_watch_is_full_when_the_recorder_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_open_calls=1)
    assert not bench.watch.full
    bench.place()
    assert bench.watch.full
