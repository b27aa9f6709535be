"""A whole server in this process: devices at many places, and what is on record of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sipserver.server import settings
from sipserver.server.config import load
from sipserver.sip.message import Request
from support.inprocess import EPOCH, Device, Server
from support.pen import DOMAIN
from support.places import located, pidf

CONFIG = """
[registrar]
min_expires = 1
[proxy]
peers = ["203.0.113.5"]
inbound = "peers"
[location]
precision = "city"
sites = [
  { network = "192.0.2.0/24", site = "HQ", country = "AT" },
  { network = "198.51.100.0/24", site = "Branch", country = "IT" },
  { interface = "wg0", site = "Tunnel" },
]
"""
HQ = "AT", None, None, "HQ", "site"
BRANCH = "IT", None, None, "Branch", "site"
TUNNEL = None, None, None, "Tunnel", "link"
NOTHING = (None,) * 5


class Links:
    """The kernel; answers when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[str | None], None]]] = []

    def find(self, host: str, found: Callable[[str | None], None]) -> None:
        self.waiting.append((host, found))

    def answer(self, interface: str | None = "wg0") -> None:
        waiting, self.waiting = self.waiting, []
        for _, found in waiting:
            found(interface)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "alice", "bob", config=CONFIG) as server:
        yield server


@pytest.fixture
def links(server: Server) -> Links:
    found = Links()
    config = load(server.folder / "sipserver.toml")
    server.service.whereabouts.locator.use(settings.location(config), None, found)
    return found


def place_of(row: dict[str, Any], side: str = "") -> tuple[Any, ...]:
    return tuple(row[side + name] for name in ("country", "region", "city", "site", "location_source"))


def the_call(server: Server) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Where caller and callee of the only call are."""
    (row,) = server.rows("SELECT * FROM calls")
    return place_of(row, "caller_"), place_of(row, "callee_")


def sign_ins(server: Server) -> list[tuple[str, tuple[Any, ...]]]:
    return [(row["outcome"], place_of(row)) for row in server.rows("SELECT * FROM sign_ins ORDER BY rowid")]


def ring(server: Server, caller: Device, callee: Device, *lines: str, **options: Any) -> Request:
    caller.send(caller.invite("bob", *lines, **options))
    server.settle()
    (invite,) = callee.requests("INVITE")
    return invite


def test_callee_is_at_the_site_of_the_device_that_answered(server: Server) -> None:
    alice = Device(server, "alice", "192.0.2.7")
    desk, mobile = Device(server, "bob", "192.0.2.8"), Device(server, "bob", "198.51.100.9")
    desk.register(call_id="desk")
    mobile.register(call_id="mobile")
    ring(server, alice, desk)
    (invite,) = mobile.requests("INVITE")
    mobile.send(mobile.answer(invite, 200))
    assert the_call(server) == (HQ, BRANCH)
    assert sign_ins(server) == [("bound", HQ), ("bound", BRANCH)]


def test_call_that_nobody_answers_has_no_place_of_the_callee(server: Server) -> None:
    alice, bob = Device(server, "alice", "192.0.2.7"), Device(server, "bob", "192.0.2.8")
    bob.register()
    bob.send(bob.answer(ring(server, alice, bob), 486))
    assert the_call(server) == (HQ, NOTHING)


def test_refused_expired_and_removed_sign_ins_have_places(server: Server) -> None:
    alice = Device(server, "alice", "198.51.100.9")
    to = f"<sip:alice@{DOMAIN}>"
    alice.ask(alice.signed("REGISTER", "", f"Contact: <{alice.contact}>", to=to, password="wrong"))
    alice.register("Expires: 1", f"Contact: <{alice.contact}>")
    server.advance(2)
    server.service.tick()
    alice.register(call_id="again")
    alice.register("Contact: *", "Expires: 0", call_id="again", cseq=90)
    assert sign_ins(server) == [(outcome, BRANCH) for outcome in ("refused", "bound", "expired", "bound", "unbound")]


def test_what_a_device_declares_counts_for_its_calls_until_it_leaves(server: Server) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    lines, body = located(pidf())
    bob.register(f"Contact: <{bob.contact}>", *lines, body=body)
    bob.send(bob.answer(ring(server, alice, bob), 200))
    said = "AT", "Wien", "Wien Mitte", None, "geolocation"
    assert the_call(server) == (NOTHING, said)
    bob.register("Contact: *", "Expires: 0", cseq=90)
    bob.register(call_id="again")
    assert sign_ins(server) == [("bound", said), ("unbound", said), ("bound", NOTHING)]


SAID = "AT", "Wien", "Wien Mitte", None, "geolocation"


@pytest.mark.parametrize("status", [180, 183, 200])
def test_what_a_device_says_of_its_place_when_it_responds(server: Server, status: int) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    lines, body = located(pidf())
    invite = ring(server, alice, bob)
    bob.send(bob.answer(invite, status, *lines, body=body))
    if status != 200:
        # The INVITE's answer says nothing of it, which takes nothing back.
        bob.send(bob.answer(invite, 200))
    assert the_call(server) == (NOTHING, SAID)
    assert server.rows("SELECT * FROM errors") == []


def test_what_a_device_says_when_it_answers_is_newer_than_what_it_declared(server: Server) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    lines, body = located(pidf("<cl:country>IT</cl:country>"))
    bob.register(f"Contact: <{bob.contact}>", *lines, body=body)
    lines, body = located(pidf())
    bob.send(bob.answer(ring(server, alice, bob), 200, *lines, body=body))
    assert the_call(server) == (NOTHING, SAID)


def test_word_of_the_device_that_answered_counts(server: Server) -> None:
    alice = Device(server, "alice", "203.0.113.7")
    desk, mobile = Device(server, "bob", "203.0.113.8"), Device(server, "bob", "203.0.113.9")
    desk.register(call_id="desk")
    mobile.register(call_id="mobile")
    invite = ring(server, alice, desk)
    lines, body = located(pidf("<cl:country>IT</cl:country>"))
    desk.send(desk.answer(invite, 180, *lines, body=body, tag="desk"))
    (invite,) = mobile.requests("INVITE")
    lines, body = located(pidf())
    mobile.send(mobile.answer(invite, 200, *lines, body=body))
    assert the_call(server) == (NOTHING, SAID)


@pytest.mark.parametrize("routing", [None, "no"])
def test_place_that_is_not_for_servers_is_not_looked_at_in_a_response(server: Server, routing: str | None) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    lines, body = located(pidf(), routing)
    bob.send(bob.answer(ring(server, alice, bob), 200, *lines, body=body))
    assert the_call(server) == (NOTHING, NOTHING)


def test_place_in_a_response_is_kept_as_long_as_it_may_be(server: Server) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH + server.loop.now + 100))
    rules = "<gbp:retransmission-allowed>true</gbp:retransmission-allowed>"
    lines, body = located(pidf(rules=f"{rules}<gbp:retention-expiry>{expires}</gbp:retention-expiry>"))
    bob.send(bob.answer(ring(server, alice, bob), 200, *lines, body=body))
    assert the_call(server) == (NOTHING, SAID)
    server.advance(120)
    server.tick(6)
    assert the_call(server) == (NOTHING, NOTHING)


def test_place_in_a_response_that_cannot_be_read(server: Server) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    lines, body = located(b"<presence")
    bob.send(bob.answer(ring(server, alice, bob), 200, *lines, body=body))
    assert the_call(server) == (NOTHING, NOTHING)
    (error,) = server.rows("SELECT kind, method, status, answered_by FROM errors")
    assert error == {"kind": "location", "method": "INVITE", "status": 200, "answered_by": "peer"}


@pytest.mark.parametrize(
    ("host", "place"), [("203.0.113.5", ("SK", None, None, None, "access_network")), ("203.0.113.8", NOTHING)]
)
def test_access_network_in_a_response_is_believed_of_a_peer(server: Server, host: str, place: tuple[Any, ...]) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", host)
    bob.register()
    cell = "P-Access-Network-Info: 3GPP-GERAN;cgi-3gpp=23101f00"
    bob.send(bob.answer(ring(server, alice, bob), 200, cell))
    assert the_call(server) == (NOTHING, place)


def test_strangers_are_not_believed_about_their_place_when_they_answer(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", config=CONFIG.replace("[proxy]", "[proxy]\noutbound = true")) as server:
        alice, eve = Device(server, "alice", "203.0.113.7"), Device(server, "eve", "203.0.113.9", 5060)
        alice.send(alice.signed("INVITE", "sip:eve@203.0.113.9", f"Contact: <{alice.contact}>"))
        (invite,) = eve.requests("INVITE")
        lines, body = located(pidf())
        eve.send(eve.answer(invite, 200, *lines, body=body))
        assert the_call(server) == (NOTHING, NOTHING)


def test_callers_word_is_taken_with_its_credentials_only(server: Server) -> None:
    bob = Device(server, "bob", "203.0.113.8")
    bob.register()
    lines, body = located(pidf())
    stranger = Device(server, "carol", "203.0.113.5")
    cell = "P-Access-Network-Info: 3GPP-GERAN;cgi-3gpp=23101f00"
    from_ = "<sip:carol@elsewhere.test>;tag=1"
    contact = f"Contact: <{stranger.contact}>"
    stranger.send(stranger.write("INVITE", f"sip:bob@{DOMAIN}", contact, *lines, from_=from_, body=body, call_id="1"))
    stranger.send(
        stranger.write("INVITE", f"sip:bob@{DOMAIN}", contact, *lines, cell, from_=from_, body=body, call_id="2")
    )
    rows = server.rows("SELECT * FROM calls ORDER BY rowid")
    assert [place_of(row, "caller_") for row in rows] == [NOTHING, ("SK", None, None, None, "access_network")]


def test_links_are_written_when_the_kernel_has_answered(server: Server, links: Links) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    # The row waits for the answer, the 200 does not.
    assert sign_ins(server) == []
    links.answer()
    assert sign_ins(server) == [("bound", TUNNEL)]
    server.service.whereabouts.locator.forget()
    invite = ring(server, alice, bob)
    assert [host for host, _ in links.waiting] == ["203.0.113.7", "203.0.113.8"]
    assert the_call(server) == (NOTHING, NOTHING)
    links.answer()
    bob.send(bob.answer(invite, 200))
    assert the_call(server) == (TUNNEL, TUNNEL)


def test_links_that_are_known_after_the_answer_are_written_still(server: Server, links: Links) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    links.answer(None)
    server.service.whereabouts.locator.forget()
    bob.send(bob.answer(ring(server, alice, bob), 200))
    assert the_call(server) == (NOTHING, NOTHING)
    links.answer()
    assert the_call(server) == (TUNNEL, TUNNEL)
    assert sign_ins(server) == [("bound", NOTHING)]


def test_device_that_cannot_be_reached_is_asked_about_like_any_other(server: Server, links: Links) -> None:
    alice, mobile = Device(server, "alice", "192.0.2.7"), Device(server, "bob", "192.0.2.9")
    desk = Device(server, "bob", "203.0.113.8", tcp=True)
    desk.register(call_id="desk")
    mobile.register(call_id="mobile")
    server.service.whereabouts.locator.forget()
    links.waiting.clear()
    del server.transports.alive[desk.flow.connection]
    invite = ring(server, alice, mobile)
    assert [host for host, _ in links.waiting] == ["203.0.113.8"]
    mobile.send(mobile.answer(invite, 200))
    links.answer()
    # Another device has answered.
    assert the_call(server) == (HQ, HQ)


def test_link_that_tells_nothing_new_changes_nothing(server: Server, links: Links) -> None:
    alice, bob = Device(server, "alice", "203.0.113.7"), Device(server, "bob", "203.0.113.8")
    bob.register()
    links.answer(None)
    ring(server, alice, bob)
    links.answer("eth0")
    assert the_call(server) == (NOTHING, NOTHING)


def test_call_to_somebody_elses_server_has_the_site_of_that_server_only(tmp_path: Path) -> None:
    config = CONFIG.replace("[proxy]", "[proxy]\noutbound = true")
    with Server(tmp_path, "alice", config=config) as server:
        alice, gateway = Device(server, "alice", "192.0.2.7"), Device(server, "x", "198.51.100.20", 5060)
        alice.send(alice.signed("INVITE", "sip:x@198.51.100.20", f"Contact: <{alice.contact}>"))
        server.settle()
        (invite,) = gateway.requests("INVITE")
        gateway.send(gateway.answer(invite, 200))
        assert the_call(server) == (HQ, BRANCH)


def test_reload_without_other_sources_holds_at_once(server: Server) -> None:
    file = server.folder / "sipserver.toml"
    file.write_text(CONFIG.replace('"HQ"', '"Headquarters"'))
    server.service.reload(load(file, domains=[DOMAIN], data_dir=server.data_dir))
    Device(server, "alice", "192.0.2.7").register()
    assert sign_ins(server) == [("bound", ("AT", None, None, "Headquarters", "site"))]
