"""Flows that fail, flows that are kept open, and bindings that go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.server.config import load
from sipserver.server.keeping import AT_ONCE
from sipserver.sip.message import Request
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]
INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000a>"'
PRIVATE = "Contact: <sip:bob@10.0.0.5:5060>"
SIGN_INS = "SELECT outcome, detail FROM sign_ins ORDER BY at, rowid"


def lose(device: Device) -> None:
    del device.server.transports.alive[device.flow.connection]
    device.server.driver.on_closed(device.flow)
    device.server.settle()


def contacts(server: Server, user: str = "bob") -> list[str]:
    found = server.service.location.get(f"{user}@{DOMAIN}", server.service.context.wall_clock())
    return [binding.contact for binding in found]


def on_disk(server: Server) -> list[str]:
    return [row["contact"] for row in server.rows("SELECT contact FROM bindings", store="location.db")]


def outcomes(server: Server) -> list[tuple[str, str | None]]:
    return [(row["outcome"], row["detail"]) for row in server.rows(SIGN_INS)]


def pings(device: Device) -> list[Request]:
    return device.requests("OPTIONS")


# ---- connections


def test_binding_goes_with_its_connection(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    bob = Device(server, "bob", tcp=True)
    bob.register()
    assert len(contacts(server)) == 1
    lose(bob)
    assert (contacts(server), on_disk(server)) == ([], [])
    assert outcomes(server) == [("bound", None), ("lost", "connection closed")]
    (line,) = server.log("binding.lost")
    assert (line["address"], line["transport"], line["reason"]) == ("bob@example.test", "TCP", "connection closed")
    assert server.service.registrations.keeper.lost == {"connection closed": 1}


def test_endpoint_that_came_back_over_another_connection_stays(make_server: MakeServer) -> None:
    server = make_server("bob")
    bob = Device(server, "bob", tcp=True)
    line = f"Contact: <sip:bob@192.0.2.7;transport=tcp>;{INSTANCE}"
    bob.register(line)
    before = bob.flow
    bob.flow = server.transports.open("192.0.2.7", 5071)
    bob.register(line)
    after, bob.flow = bob.flow, before
    lose(bob)
    assert contacts(server) == ["sip:bob@192.0.2.7;transport=tcp"]
    bob.flow = after
    lose(bob)
    assert contacts(server) == []


def test_connection_that_breaks_while_its_binding_is_being_stored(make_server: MakeServer) -> None:
    server = make_server("bob")
    bob = Device(server, "bob", tcp=True)
    bob.send(bob.signed("REGISTER", "", f"Contact: <{bob.contact}>", to=f"<sip:bob@{DOMAIN}>"))
    lose(bob)
    assert (contacts(server), on_disk(server)) == ([], [])
    assert [outcome for outcome, _ in outcomes(server)] == ["bound", "lost"]


def test_many_bindings_of_one_connection_go_together(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    bob = Device(server, "bob", tcp=True)
    alice = Device(server, "alice", tcp=True)
    alice.flow = bob.flow
    for device in (alice, bob):
        device.register()
    bob.register("Contact: *", "Expires: 0")
    bob.register("Contact: <sip:bob@192.0.2.7:5070;transport=tcp>", "Contact: <sip:b@192.0.2.7:5070;transport=tcp>")
    lose(bob)
    assert (contacts(server), contacts(server, "alice")) == ([], [])


def test_binding_is_out_of_use_when_the_store_fails_and_goes_when_it_is_back(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    bob = Device(server, "bob", tcp=True)
    bob.register()
    location = server.service.location
    location._max_rows = 0
    lose(bob)
    assert len(contacts(server)) == 1
    alice = Device(server, "alice", "192.0.2.8")
    alice.send(alice.invite("bob"))
    assert statuses(alice.received()) == [100, 480]
    location._max_rows = 1000
    server.tick(1)
    assert (contacts(server), on_disk(server)) == ([], [])


def test_bindings_of_connections_do_not_outlive_the_process(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        Device(server, "bob", tcp=True).register()
        Device(server, "alice").register()
        server.settle()
    with Server(tmp_path) as server:
        assert (contacts(server), len(contacts(server, "alice"))) == ([], 1)
        bob = Device(server, "bob", "192.0.2.9", tcp=True)
        server.advance(0.5)
        bob.register()
        server.tick(1)
        assert contacts(server) == [bob.contact]
        assert len(on_disk(server)) == 2
        # It was gone when the server began, and came back after that.
        assert [outcome for outcome, _ in outcomes(server)] == ["bound", "bound", "lost", "bound"]
        assert outcomes(server)[2] == ("lost", "server restarted")


def test_endpoint_that_comes_back_first_after_a_restart_loses_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, "bob") as server:
        Device(server, "bob", tcp=True).register()
        server.settle()
    with Server(tmp_path) as server:
        bob = Device(server, "bob", tcp=True)
        server.advance(5)
        bob.register(call_id="again")
        server.tick(2)
        assert contacts(server) == [bob.contact]
        assert on_disk(server) == [bob.contact]


# ---- pings


@pytest.fixture
def pinged(make_server: MakeServer) -> tuple[Server, Device]:
    server = make_server("alice", "bob", config="[nat]\ninterval = 10\nmisses = 2\n")
    bob = Device(server, "bob", port=40_000)
    bob.register(PRIVATE)
    return server, bob


def test_binding_behind_a_nat_is_asked_and_stays_while_it_answers(pinged: tuple[Server, Device]) -> None:
    server, bob = pinged
    asked = 0
    for _ in range(60):
        server.tick(1)
        for ping in pings(bob):
            asked += 1
            assert (ping.uri_text, ping.to.uri_text) == ("sip:bob@10.0.0.5:5060", "sip:bob@10.0.0.5:5060")
            bob.send(bob.answer(ping, 486))
    assert 5 <= asked <= 8
    keeper = server.service.registrations.keeper
    assert (keeper.kept, keeper.pings, keeper.answered, keeper.unanswered) == (1, asked, asked, 0)
    assert contacts(server) == ["sip:bob@10.0.0.5:5060"]
    assert not server.log("message.rejected")


def test_binding_that_does_not_answer_is_taken_out_of_use(pinged: tuple[Server, Device]) -> None:
    server, bob = pinged
    server.tick(35)
    assert (contacts(server), on_disk(server)) == ([], [])
    assert outcomes(server)[-1] == ("lost", "pings not answered")
    (row,) = server.rows("SELECT * FROM errors WHERE kind = 'flow_failed'")
    assert (row["answered_by"], row["target"]) == ("network", server.service.parties.party(f"bob@{DOMAIN}"))
    assert server.service.registrations.keeper.kept == 0
    pings(bob)
    server.tick(30)
    assert pings(bob) == []


def test_refresh_is_as_good_as_an_answer(pinged: tuple[Server, Device]) -> None:
    server, bob = pinged
    for number in range(10):
        server.tick(8)
        pings(bob)
        bob.register(PRIVATE, cseq=100 + number)
    assert contacts(server) == ["sip:bob@10.0.0.5:5060"]
    assert server.service.registrations.keeper.kept == 1


def test_answer_of_somebody_else_counts_for_nothing(pinged: tuple[Server, Device]) -> None:
    server, bob = pinged
    mallory = Device(server, "bob", "192.0.2.66")
    for _ in range(35):
        server.tick(1)
        for ping in pings(bob):
            mallory.send(mallory.answer(ping, 200))
    assert contacts(server) == []


@pytest.mark.parametrize(("ping", "wanted"), [("off", 0), ("crlf", 3)])
def test_pings_may_be_something_else(make_server: MakeServer, ping: str, wanted: int) -> None:
    server = make_server("bob", config=f'[nat]\nping = "{ping}"\ninterval = 10\n')
    bob = Device(server, "bob", port=40_000)
    bob.register(PRIVATE)
    server.transports.sent.clear()
    server.tick(31)
    assert {data for _, data in server.transports.sent} == ({b"\r\n\r\n"} if wanted else set())
    assert wanted <= len(server.transports.sent) <= wanted + 1
    assert len(contacts(server)) == 1


def test_who_is_not_behind_a_nat_is_left_alone(make_server: MakeServer) -> None:
    server = make_server("bob")
    bob = Device(server, "bob")
    bob.register()
    server.tick(60)
    assert pings(bob) == []


def test_connection_that_was_registered_as_a_flow_is_left_to_its_endpoint(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config="[nat]\ninterval = 10\n")
    alice, bob = Device(server, "alice", "192.0.2.8", tcp=True), Device(server, "bob", tcp=True)
    alice.register("Contact: <sip:alice@10.0.0.5;transport=tcp>")
    bob.register(f"{PRIVATE};{INSTANCE};reg-id=1")
    server.tick(15)
    assert (bool(pings(alice)), pings(bob)) == (True, [])


def test_pings_go_on_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "bob", config="[nat]\ninterval = 10\n") as server:
        Device(server, "bob", port=40_000).register(PRIVATE)
        server.settle()
    with Server(tmp_path, config="[nat]\ninterval = 10\n") as server:
        server.service.registrations.keeper.start()
        bob = Device(server, "bob", port=40_000)
        server.tick(12)
        assert pings(bob)


def test_other_settings_count_at_once(pinged: tuple[Server, Device]) -> None:
    server, bob = pinged
    (server.folder / "sipserver.toml").write_text('[nat]\nping = "crlf"\ninterval = 2\n')
    config = load(server.folder / "sipserver.toml", domains=[DOMAIN], data_dir=server.data_dir)
    server.service.reload(config)
    server.transports.sent.clear()
    server.tick(7)
    assert 3 <= server.transports.sent.count((bob.flow, b"\r\n\r\n")) <= 4


def test_what_is_too_much_for_a_step_comes_with_the_next(make_server: MakeServer) -> None:
    server = make_server("bob", config='[nat]\ninterval = 1\nping = "crlf"\n')
    bob = Device(server, "bob", port=40_000)
    bob.register(PRIVATE)
    keeper = server.service.registrations.keeper
    (kept,) = keeper._kept.values()
    keeper._wheel = [[kept] * (2 * AT_ONCE + 1), *([] for _ in range(10))]
    keeper._at = 0
    server.transports.sent.clear()
    found = []
    for _ in range(4):
        server.advance(0.1)
        found.append(len(server.transports.sent))
        server.transports.sent.clear()
    assert found[:3] == [AT_ONCE, AT_ONCE, 1]
