"""REGISTER with real stores: what is acknowledged is on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.sip.message import Response
from support.inprocess import Device, Server, disable, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]

BINDINGS = "SELECT aor, contact FROM bindings ORDER BY contact"


def bindings(server: Server) -> list[str]:
    """The contacts on disk."""
    return [row["contact"] for row in server.rows(BINDINGS, store="location.db")]


def signed_register(device: Device, *lines: str, **options: Any) -> bytes:
    """A REGISTER with credentials, not yet sent."""
    lines = lines or (f"Contact: <{device.contact}>",)
    return device.signed("REGISTER", "", *lines, to=f"<sip:{device.user}@{DOMAIN}>", **options)


def test_200_is_not_sent_before_the_commit(server: Server) -> None:
    alice = Device(server, "alice")
    alice.send(signed_register(alice))
    server.advance(0.4)
    assert alice.received() == []
    server.settle()
    (answer,) = alice.received()
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert answer.header("contact") == f"<{alice.contact}>;expires=3600"
    assert bindings(server) == [alice.contact]


def test_retransmission_gets_the_identical_200_and_is_recorded_once(server: Server) -> None:
    alice = Device(server, "alice")
    data = signed_register(alice)
    alice.send(data)
    alice.send(data)
    server.settle()
    alice.send(data)
    first, second = alice.received()
    assert first.to_bytes() == second.to_bytes()
    assert statuses([first]) == [200]
    assert server.service.registrations.accepted == 1
    assert len(server.rows("SELECT * FROM sign_ins")) == 1


def test_two_registrations_of_one_address_at_a_time_lose_no_update(server: Server) -> None:
    desk, mobile = Device(server, "alice", port=5070), Device(server, "alice", port=5080)
    one = signed_register(desk, call_id="desk")
    two = signed_register(mobile, call_id="mobile")
    desk.send(one)
    mobile.send(two)
    server.settle()
    assert statuses(desk.received()) == [200]
    (answer,) = mobile.received()
    assert len(answer.values("contact")) == 2
    assert bindings(server) == [desk.contact, mobile.contact]


def test_question_does_not_wait_for_an_update(server: Server) -> None:
    alice = Device(server, "alice")
    update = signed_register(alice)
    question = signed_register(alice, "Subject: who is here")
    alice.send(update)
    alice.send(question)
    assert statuses(alice.received()) == [200]
    server.settle()
    assert statuses(alice.received()) == [200]


def test_store_that_fails_means_503_and_no_binding(server: Server) -> None:
    alice = Device(server, "alice")
    writer = server.service.location.writer
    data = signed_register(alice)
    # The file is gone: whatever the writer tries fails.
    broken = server.data_dir / "location.db"
    writer.close()
    answer = alice.ask(data)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert server.service.location.count == 0
    assert broken.exists()
    (row,) = server.rows("SELECT outcome, status FROM sign_ins")
    assert (row["outcome"], row["status"]) == ("refused", 503)


def test_queue_that_is_full_means_503(make_server: MakeServer) -> None:
    server = make_server(*(f"u{number}" for number in range(101)), config="[storage]\nqueue_rows = 100\n")
    devices = [Device(server, f"u{number}", port=6000 + number) for number in range(101)]
    messages = [signed_register(device) for device in devices]
    for device, data in zip(devices, messages, strict=True):
        server.driver.on_message(data, device.flow)
    assert statuses(devices[100].received()) == [503]
    server.settle()
    assert [statuses(device.received()) for device in devices[:100]] == [[200]] * 100
    assert len(bindings(server)) == 100


def test_too_many_in_line_for_one_address_are_turned_away(server: Server) -> None:
    devices = [Device(server, "alice", port=6000 + number) for number in range(40)]
    messages = [signed_register(device, call_id=f"c{number}") for number, device in enumerate(devices)]
    for device, data in zip(devices, messages, strict=True):
        server.driver.on_message(data, device.flow)
    server.settle()
    answers = [statuses(device.received()) for device in devices]
    # One is held, 32 wait; of those that get on, ten may bind a contact each.
    assert answers == [[200]] * 10 + [[403]] * 23 + [[503]] * 7
    assert server.service.location._held == {}


def test_fault_of_our_own_does_not_hold_the_address_for_ever(make_server: MakeServer) -> None:
    server = make_server("alice", faults=1)
    alice = Device(server, "alice")
    data = signed_register(alice)
    service = server.service
    broken: Any = None
    works, service.recorder = service.registrations.context.recorder, broken
    service.registrations.context.recorder = broken
    with pytest.raises(AttributeError):
        alice.ask(data)
    service.registrations.context.recorder = service.recorder = works
    server.driver.note_fault(RuntimeError("what the loop reports"))
    alice.received()
    assert server.service.location._held == {}
    assert alice.register(cseq=90).status == 200


def test_wrong_password_is_refused_and_recorded(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(signed_register(alice, password="wrong"))
    assert answer.status == 401
    server.advance(61)
    assert alice.ask(signed_register(alice, password="wrong")).status == 401
    rows = server.rows("SELECT outcome, status, detail, count FROM sign_ins")
    assert [(row["outcome"], row["status"], row["count"]) for row in rows] == [("refused", 401, 1)] * 2
    (line, _) = server.log("registration.refused")
    assert (line["address"], line["username"], line["status"]) == (f"alice@{DOMAIN}", "alice", 401)
    assert server.service.registrations.refused == 2


def test_address_of_others_is_refused(server: Server) -> None:
    alice = Device(server, "alice")
    data = alice.signed("REGISTER", "", f"Contact: <{alice.contact}>", to=f"<sip:bob@{DOMAIN}>")
    assert alice.ask(data).status == 403
    assert bindings(server) == []


def test_disabled_subscriber_cannot_register(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.register().status == 200
    disable(server.data_dir, "alice")
    server.service.tick()
    assert alice.ask(signed_register(alice)).status == 401


def test_first_challenge_and_stale_nonce_are_no_refusals(server: Server) -> None:
    alice = Device(server, "alice")
    data = signed_register(alice)
    server.advance(301)
    answer = alice.ask(data)
    assert answer.status == 401
    assert "stale=true" in (answer.header("www-authenticate") or "")
    assert server.rows("SELECT * FROM sign_ins") == []
    assert server.service.registrations.refused == 0


def test_refresh_is_no_sign_in_but_another_place_is_one(server: Server) -> None:
    lines = ('Contact: <sip:alice@192.0.2.7>;+sip.instance="<urn:uuid:1>"', "User-Agent: Phone")
    alice, elsewhere = Device(server, "alice"), Device(server, "alice", "192.0.2.99")
    alice.register(*lines)
    alice.register(*lines, cseq=90)
    assert [row["outcome"] for row in server.rows("SELECT outcome FROM sign_ins")] == ["bound"]
    elsewhere.register(*lines, cseq=91)
    assert [row["outcome"] for row in server.rows("SELECT outcome FROM sign_ins")] == ["bound", "bound"]
    assert len(server.log("registration.refreshed")) == 1


def test_removal_and_expiry_are_recorded(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", port=5080)
    alice.register()
    bob.register("Expires: 60", f"Contact: <{bob.contact}>")
    alice.register("Contact: *", "Expires: 0", cseq=90)
    server.advance(59)
    server.service.tick()
    assert server.service.location.count == 1
    server.advance(1)
    server.service.tick()
    assert server.service.location.count == 0
    rows = server.rows("SELECT outcome FROM sign_ins")
    assert sorted(row["outcome"] for row in rows) == ["bound", "bound", "expired", "unbound"]
    assert len(server.log("registration.expired")) == 1
    assert bindings(server) == []


def test_bindings_and_what_operators_removed_are_told(server: Server) -> None:
    alice = Device(server, "alice")
    alice.register()
    server.service.registrations.note_removed(server.service.location.get(f"alice@{DOMAIN}", 0))
    (line,) = server.log("registration.removed")
    assert line["contact"] == alice.contact


def test_request_for_no_address_of_ours_is_refused_without_a_name(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(alice.write("REGISTER", to="<tel:+1>")).status == 404
    assert alice.ask(alice.write("REGISTER", to="<sip:x@elsewhere.test>")).status == 404
    assert [row["party"] for row in server.rows("SELECT party FROM sign_ins")] == [None]
    assert alice.ask(alice.write("REGISTER", "sip:elsewhere.test")).status == 404


def test_accounts_that_cannot_be_read_mean_503(server: Server) -> None:
    alice, nobody = Device(server, "alice"), Device(server, "nobody", port=5071)
    assert alice.register().status == 200
    data = signed_register(nobody)
    server.service.credentials.close()
    server.service.parties.close()
    answer = nobody.ask(data)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    (row,) = server.rows("SELECT party FROM sign_ins WHERE outcome = 'refused'")
    assert row["party"] is None
    # Who was there a moment ago is remembered.
    assert alice.register(cseq=90).status == 200


def test_address_that_cannot_be_read_is_refused_without_a_name(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(alice.write("REGISTER", to="<sip:@>")).status == 400
    (row,) = server.rows("SELECT party, status FROM sign_ins")
    assert row == {"party": None, "status": 400}


def test_how_long_registrations_take_is_counted_with_their_commit(server: Server) -> None:
    alice = Device(server, "alice")
    alice.send(signed_register(alice))
    server.advance(0.1)
    server.settle()
    assert statuses(alice.received()) == [200]
    # A question needs no commit, and a challenge is no answer.
    alice.send(signed_register(alice, "Subject: who is here"))
    alice.send(alice.write("REGISTER", "", to=f"<sip:alice@{DOMAIN}>", cseq=77))
    assert statuses(alice.received()) == [200, 401]
    server.tick(65)
    found = server.rows("SELECT outcome, up_to_ms, count FROM registration_delays ORDER BY up_to_ms")
    assert [tuple(row.values()) for row in found] == [("accepted", 1, 1), ("accepted", 128, 1)]
