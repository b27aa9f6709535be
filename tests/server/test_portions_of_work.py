"""Whatever may be very much is done in portions: none of these machines does more than so much in one go."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from sipserver.calls.activity import PUT_AT_ONCE
from sipserver.location.memory import MemoryLocation
from sipserver.server.challenges import EXPIRED_AT_ONCE
from sipserver.server.keeping import LOST_AT_ONCE, PAUSE, SEEN_AT_ONCE
from sipserver.server.liveness import LOOKS, SWEEP
from sipserver.server.watch import STEPS_AT_ONCE
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, parse
from support.inprocess import Device, Server
from support.location import binding, put

MakeServer = Callable[..., Server]


def test_calls_are_looked_at_some_at_a_time(server: Server) -> None:
    liveness = server.service.liveness
    liveness._ring.extend(f"over {number}" for number in range(3 * LOOKS * SWEEP))
    liveness.tick()
    left = [len(liveness._ring)]
    while liveness.look():
        left.append(len(liveness._ring))
    left.append(len(liveness._ring))
    assert [before - after for before, after in pairwise(left)] == [LOOKS] * 3


def test_a_step_of_the_clock_is_noted_in_some_calls_at_a_time(server: Server) -> None:
    watch = server.service.watch
    watch._steps.extend([(f"call {number}", 0, 1) for number in range(2 * STEPS_AT_ONCE + 1)])
    assert (watch.note_steps(), len(watch._steps)) == (True, STEPS_AT_ONCE + 1)
    assert (watch.note_steps(), watch.note_steps(), len(watch._steps)) == (True, False, 0)


def test_a_step_of_the_clock_is_noted_in_every_call(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
    bob.register()
    for number in range(3):
        alice.send(alice.invite("bob", call_id=f"c{number}"))
    server.service.watch.clock_stepped(5.0)
    assert not server.service.watch.note_steps()
    rows = server.rows("SELECT detail FROM call_events WHERE kind = 'clock_stepped'")
    assert [row["detail"] for row in rows] == ["+5000 ms"] * 3


def test_challenges_are_given_up_some_at_a_time(server: Server) -> None:
    challenges, alice = server.service.context.challenges, Device(server, "alice")
    for number in range(EXPIRED_AT_ONCE + 1):
        message = parse(alice.write("INVITE", call_id=f"c{number}"))
        assert isinstance(message, Request)
        challenges.sent(message, alice.flow, 407, 0.0, b"")
    assert (challenges.expire(100.0), len(challenges)) == (True, 1)
    assert (challenges.expire(100.0), len(challenges)) == (False, 0)


def test_bindings_of_a_connection_are_lost_some_at_a_time(server: Server) -> None:
    keeper, location = server.service.registrations.keeper, server.service.location
    flow = server.transports.open("192.0.2.7", 5070)
    bindings = [
        binding(aor=f"u{number}@example.test", transport="TCP", connection=flow.connection, flow_only=True)
        for number in range(2 * LOST_AT_ONCE + 1)
    ]
    put(location, *bindings)
    server.settle()
    keeper._over[flow.connection] = set(bindings)
    keeper.connection_lost(flow)
    counts = []
    for _ in range(3):
        server.settle()
        counts.append(location.count)
        server.advance(PAUSE)
    assert counts == [LOST_AT_ONCE + 1, 1, 0]


def test_what_is_kept_open_is_found_some_at_a_time(server: Server) -> None:
    keeper, location = server.service.registrations.keeper, server.service.location
    memory = MemoryLocation()
    put(memory, *[binding(aor=f"u{number}", natted=True, lasts=1e9) for number in range(SEEN_AT_ONCE + 5)])
    keeper._location = memory
    keeper.start()
    assert keeper.kept == SEEN_AT_ONCE
    server.advance(0.01)
    assert keeper.kept == SEEN_AT_ONCE + 5
    keeper._location = location


def test_counts_of_refreshes_are_put_some_at_a_time(server: Server) -> None:
    activity, at = server.service.activity, 1_795_000_000_000
    put_before = activity._put
    rows: list[object] = []

    def refuse(statement: int, row: tuple[object, ...]) -> bool:
        return False

    def take(statement: int, row: tuple[object, ...]) -> bool:
        rows.append(row)
        return True

    activity._put = refuse
    for number in range(PUT_AT_ONCE + 7):
        activity.refreshed(f"p{number}", at)
    activity._put = take
    activity.flush()
    assert len(rows) == PUT_AT_ONCE
    activity.flush()
    assert len(rows) == PUT_AT_ONCE + 7
    activity._put = put_before


def test_a_flow_that_nobody_lives_by_is_no_loss(server: Server) -> None:
    server.service.registrations.keeper.connection_lost(Flow("TCP", "192.0.2.7", 5070, "", True, connection=77))
    assert server.service.registrations.keeper.lost == {}
