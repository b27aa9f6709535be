"""Reference counts alone free what messages make: the server runs without the cyclic collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.sip.message import Response
from support.inprocess import Device, Server, statuses


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collector_off")
def test_registrations_and_calls_leave_nothing_for_the_collector(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        alice, bob = Device(server, "alice", port=5070), Device(server, "bob", port=5072)
        one_round(server, alice, bob, 1)
        server.advance(200)
        gc.collect()
        for number in range(2, 12):
            one_round(server, alice, bob, number)
            server.advance(200)
        # What the round itself makes and its parsed messages are of no account: they are gone by now, too.
        assert gc.collect() == 0


def one_round(server: Server, alice: Device, bob: Device, number: int) -> None:
    """Both register; a call is refused, one is answered and ended, and a request comes that nobody can read."""
    # What was repeated while time passed is of no account.
    alice.received()
    bob.received()
    assert alice.register(call_id=f"ra{number}", cseq=number * 10).status == 200
    assert bob.register(call_id=f"rb{number}", cseq=number * 10).status == 200
    assert isinstance(alice.ask(alice.invite("nobody", call_id=f"n{number}")), Response)
    alice.send(alice.invite("bob", call_id=f"c{number}"))
    (invite,) = bob.requests("INVITE")
    bob.send(bob.answer(invite, 180))
    bob.send(bob.answer(invite, 200))
    server.settle()
    answer = alice.received()[-1]
    assert isinstance(answer, Response)
    assert answer.status == 200
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    alice.send(alice.in_dialog("BYE", answer, cseq=answer.cseq[0] + 1))
    (bye,) = bob.requests("BYE")
    bob.send(bob.answer(bye, 200))
    server.settle()
    assert statuses(alice.received()) == [200]
    server.receive(b"INVITE sip:x SIP/2.0\r\nVia: broken\r\n\r\n", alice.flow)
    server.settle()
