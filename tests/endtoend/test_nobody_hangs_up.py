"""Calls that nobody hangs up, with real servers and sockets: timers, refreshes, connections that break, questions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipserver.calls.times import parse_stamp
from sipserver.sip.message import Request, Response
from support import baresip
from support.baresip import Baresip
from support.listening import ListeningServer
from support.pen import DOMAIN
from support.phone import Phone
from support.server import Row, ServerProcess, sipserver

StartServer = Callable[..., ServerProcess]
MakePhone = Callable[..., Phone]

KNOWS = "Supported: timer"
# Far shorter than RFC 4028 allows, since tests do not wait for minutes.
CONFIG = "[sessions]\nexpires = 2\nmin = 1\ngrace = 1.0\n[timers]\nt1 = 0.05\n"
CALLS = "SELECT * FROM calls ORDER BY started_at"


@pytest.fixture
def phone() -> Iterator[MakePhone]:
    """Makes phones that are put away when the test is over."""
    with ExitStack() as stack:

        def make(server: ServerProcess, user: str, transport: str = "UDP", *, listens: bool = False) -> Phone:
            return stack.enter_context(Phone(server.port, user, transport, listens=listens))

        yield make


def talk(alice: Phone, bob: Phone, *lines: str, answer: tuple[str, ...] = ()) -> Response:
    """A call of these two that is up; the 200 as alice got it."""
    alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>", *lines)
    alice.expect(100)
    bob.respond(bob.expect("INVITE"), 200, *answer)
    found: Response = alice.expect(200)
    alice.send(alice.in_dialog("ACK", found, cseq=found.cseq[0]))
    bob.expect("ACK")
    return found


def closed(server: ServerProcess, timeout: float = 15.0) -> Row:
    """The row of the only call, once it is closed."""
    (row,) = server.wait_for_rows(CALLS, lambda rows: len(rows) == 1 and rows[0]["ended_at"] is not None, timeout)
    assert parse_stamp(row["ended_at"]) - parse_stamp(row["answered_at"]) == row["talk_ms"]
    return row


def within(row: Row, at: float) -> bool:
    """Whether the call may have ended at this UNIX time, by its record."""
    earliest = parse_stamp(row["ended_at"])
    return bool(earliest <= at * 1000 <= earliest + row["end_uncertainty_ms"])


def test_session_that_is_refreshed_goes_on_and_one_that_is_not_expires(
    start_server: StartServer, phone: MakePhone
) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    answer = talk(alice, bob, KNOWS)
    assert answer.header("session-expires") == "2;refresher=uac"
    began = time.monotonic()
    for number in range(5):
        time.sleep(1)
        refresh = ("UPDATE", KNOWS, "Session-Expires: 2;refresher=uac", f"Contact: <{alice.contact}>")
        alice.send(alice.in_dialog(refresh[0], answer, *refresh[1:], cseq=20 + number))
        bob.respond(bob.expect("UPDATE"), 200, "Session-Expires: 2;refresher=uac", "Require: timer")
        alice.expect(200)
    refreshed, lasted = time.time(), time.monotonic() - began
    assert server.rows(CALLS)[0]["ended_at"] is None
    row = closed(server)
    assert (row["end_cause"], row["ended_by"], row["outcome"]) == ("session_expired", "server", "answered")
    assert abs(row["talk_ms"] - lasted * 1000) < 300
    assert within(row, refreshed + 1)
    assert 3_000 <= row["end_uncertainty_ms"] <= 6_000
    server.wait("call.ended", cause="session_expired", call=row["id"])
    shown = sipserver("calls", "show", row["id"], "--data-dir", server.data_dir)
    assert f"end not observed (session_expired): between {row['ended_at']} and" in shown
    # The endpoints hang up by themselves, late: that passes, and is not written down.
    alice.send(alice.in_dialog("BYE", answer, cseq=90))
    bob.respond(bob.expect("BYE"), 200)
    alice.expect(200)
    assert server.rows(CALLS) == [row]


def test_interval_that_is_too_small_is_refused_and_asked_for_again(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config="[sessions]\nmin = 200\n")
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    contact = f"Contact: <{alice.contact}>"
    alice.exchange("INVITE", f"sip:bob@{DOMAIN}", contact, KNOWS, "Session-Expires: 100")
    refused = alice.expect(422)
    assert refused.header("min-se") == "200"
    again = talk(alice, bob, KNOWS, "Session-Expires: 200", "Min-SE: 200")
    assert again.header("session-expires") == "200;refresher=uac"
    first, second = server.wait_for_rows(CALLS, lambda rows: len(rows) == 2 and bool(rows[1]["answered_at"]))
    assert (first["outcome"], first["sip_status"], second["outcome"]) == ("failed", 422, "answered")


def test_connection_that_breaks_ends_the_call(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    alice, bob = phone(server, "alice"), phone(server, "bob", "TCP")
    bob.register()
    talk(alice, bob)
    time.sleep(1)
    broken = time.time()
    bob.__exit__()
    row = closed(server)
    assert row["end_cause"] == "connection_lost"
    assert within(row, broken)
    assert abs(parse_stamp(row["watched_until"]) - broken * 1000) < 100


def test_connection_that_breaks_under_a_device_that_listens_ends_nothing(
    start_server: StartServer, phone: MakePhone
) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    alice, bob = phone(server, "alice"), phone(server, "bob", "UDP", listens=True)
    bob.register(f"Contact: <{bob.contact};transport=tcp>")
    alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>")
    alice.expect(100)
    invite = bob.expect("INVITE")
    assert bob.came_by == "TCP"
    contact = f"Contact: <{bob.contact};transport=tcp>"
    bob.send(bob.answer(invite, 200).replace(f"Contact: <{bob.contact}>".encode(), contact.encode()), bob._last)
    answer = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    bob.expect("ACK")
    bob._selector.unregister(bob._last)
    bob._last.close()
    question = bob.expect("OPTIONS")
    assert (question.to_tag, question.cseq) == ("callee", (0, "OPTIONS"))
    bob.respond(question, 200)
    time.sleep(2)
    assert server.rows(CALLS)[0]["ended_at"] is None
    alice.send(alice.in_dialog("BYE", answer, cseq=90))
    bob.respond(bob.expect("BYE"), 200)
    assert closed(server)["end_cause"] == "bye"


def test_endpoint_that_vanishes_is_found_out_by_asking(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config=CONFIG.replace("[timers]", "probe = 1.0\n[timers]"))
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    talk(alice, bob)
    for device in (alice, bob, alice, bob):
        device.respond(device.expect("OPTIONS"), 200)
    seen = time.time()
    time.sleep(0.1)
    bob.__exit__()
    deadline = time.monotonic() + 50
    while server.rows(CALLS)[0]["ended_at"] is None:
        assert time.monotonic() < deadline, server.log_text
        try:
            question = alice.next(0.2)
        except AssertionError:
            continue
        assert isinstance(question, Request)
        alice.respond(question, 500)
    row = closed(server)
    assert row["end_cause"] == "probe_failed"
    assert within(row, seen + 0.1)
    assert abs(parse_stamp(row["ended_at"]) - seen * 1000) < 1500


@pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not())
def test_real_endpoint_that_is_killed_in_a_call(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    with (
        Baresip(tmp_path, "bob", server.port, transport="tcp") as bob,
        Baresip(tmp_path, "alice", server.port, transport="tcp") as alice,
    ):
        alice.dial(bob.address)
        alice.wait("CALL_ESTABLISHED")
        time.sleep(1)
        killed = time.time()
        bob.kill()
        row = closed(server)
        assert (row["end_cause"], row["ended_by"], row["video"]) == ("connection_lost", "server", 1)
        assert within(row, killed)
        assert abs(parse_stamp(row["watched_until"]) - killed * 1000) < 200
        assert row["video_ms"] == row["talk_ms"]


@pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not())
def test_real_endpoints_that_talk_on_are_left_alone(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("alice", "bob", config=CONFIG.replace("[timers]", "probe = 1.0\n[timers]"))
    with Baresip(tmp_path, "bob", server.port) as bob, Baresip(tmp_path, "alice", server.port) as alice:
        alice.dial(bob.address)
        alice.wait("CALL_ESTABLISHED")
        time.sleep(8)
        assert server.rows(CALLS)[0]["ended_at"] is None
        alice.hang_up()
        assert closed(server)["end_cause"] == "bye"


def test_contact_that_signs_off_in_the_middle_of_a_call(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    talk(alice, bob)
    bob.register(f"Contact: <{bob.contact}>;expires=0")
    bob.respond(bob.expect("OPTIONS"), 481)
    assert closed(server)["end_cause"] == "registration_lost"


def test_killed_server_knows_the_last_refresh(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config="[sessions]\nexpires = 900\n")
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    answer = talk(alice, bob, KNOWS)
    time.sleep(1)
    alice.send(alice.in_dialog("UPDATE", answer, KNOWS, cseq=20))
    bob.respond(bob.expect("UPDATE"), 200)
    assert alice.expect(200).header("session-expires") == "900;refresher=uac"
    (changed,) = server.wait_for_rows("SELECT at FROM call_events WHERE kind = 'changed'", bool)
    server.kill()
    server.start()
    row = closed(server)
    assert (row["end_cause"], row["ended_at"]) == ("server_restart", changed["at"])


@pytest.mark.parametrize(("callee_knows", "interval"), [(False, "3;refresher=uac"), (True, "2;refresher=uas")])
def test_call_through_two_servers(tmp_path: Path, phone: MakePhone, callee_knows: bool, interval: str) -> None:
    wants_4, wants_3 = (CONFIG.replace("expires = 2", f"expires = {seconds}") for seconds in (4, 3))
    outer = ListeningServer(tmp_path / "outer", config=wants_4 + "[proxy]\noutbound = true\n", domains=("outer.test",))
    inner = ListeningServer(tmp_path / "inner", ["bob"], config=wants_3 + '[proxy]\ninbound = "anyone"\n')
    sipserver(
        "subscribers", "add", "alice@outer.test", "--password-stdin", "--data-dir", outer.data_dir, text="pwalice\n"
    )
    with outer, inner:
        alice, bob = phone(outer, "alice"), phone(inner, "bob")
        bob.register()
        said = (f"Session-Expires: {interval}", "Require: timer") if callee_knows else ()
        from_ = "<sip:alice@outer.test>;tag=a"
        contact = f"Contact: <{alice.contact}>"
        alice.exchange("INVITE", f"sip:bob@127.0.0.1:{inner.port}", contact, KNOWS, from_=from_)
        alice.expect(100)
        invite = bob.expect("INVITE")
        assert invite.headers("session-expires") == ["3"]
        bob.respond(invite, 200, *said)
        answer = alice.expect(200)
        assert answer.headers("session-expires") == [interval]
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        bob.expect("ACK")
        rows = [closed(outer), closed(inner)]
    assert [row["end_cause"] for row in rows] == ["session_expired"] * 2


def test_configuration_that_asks_for_the_impossible_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[sessions]\nexpires = 100\nmin = 200\n")
    with pytest.raises(AssertionError, match="wanted is min <= expires"):
        sipserver("check", "--config", file)


def test_record_as_json_has_its_uncertainty(start_server: StartServer, phone: MakePhone) -> None:
    server = start_server("alice", "bob", config=CONFIG)
    alice, bob = phone(server, "alice"), phone(server, "bob")
    bob.register()
    talk(alice, bob, answer=("Session-Expires: 1;refresher=uas",))
    row = closed(server)
    (listed,) = json.loads(sipserver("calls", "list", "--json", "--data-dir", server.data_dir))
    assert (listed["end_cause"], listed["end_uncertainty_ms"]) == ("session_expired", row["end_uncertainty_ms"])
