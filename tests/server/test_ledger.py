"""The sum of calls, and the alarm when it is wrong."""

from __future__ import annotations

from sipserver.storage.database import connect
from support.inprocess import Device, Server


def look(server: Server) -> int:
    """Five seconds pass, the server looks, and what it found is told."""
    for _ in range(5):
        server.advance(1)
        server.service.tick()
    server.settle()
    return server.service.ledger.unaccounted


def test_calls_that_are_all_there_raise_no_alarm(server: Server) -> None:
    alice = Device(server, "alice")
    for number in range(3):
        alice.ask(alice.invite("nobody", call_id=f"c{number}"))
    assert look(server) == 0
    ledger = server.service.ledger
    assert (ledger.stored, ledger.waiting, ledger.set_aside) == (3, 0, 0)
    assert server.log("calls.unaccounted") == []


def test_alarm_is_raised_once_and_taken_back_once(server: Server) -> None:
    alice = Device(server, "alice")
    alice.ask(alice.invite("nobody"))
    server.settle()
    recorder = server.service.recorder
    recorder.placed += 2
    assert (look(server), look(server)) == (2, 2)
    (alarm,) = server.log("calls.unaccounted")
    assert (alarm["calls"], alarm["placed"], alarm["stored"], alarm["rows"]) == (2, 3, 1, 1)
    (row,) = server.rows("SELECT * FROM errors WHERE kind = 'store'")
    assert row["detail"] == "2 calls are not accounted for"
    recorder.placed -= 2
    assert look(server) == 0
    assert len(server.log("calls.accounted")) == 1


def test_row_that_vanishes_from_the_store_is_noticed(server: Server) -> None:
    alice = Device(server, "alice")
    alice.ask(alice.invite("nobody"))
    assert look(server) == 0
    store = connect(server.service.config.data_dir / "calls.db")
    store.execute("DELETE FROM calls")
    store.close()
    assert look(server) == 1
