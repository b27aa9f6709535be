"""Challenges that nobody answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.server.challenges import Challenges
from sipserver.sip.flow import Flow
from sipserver.sip.message import Message, Request, parse
from support.calls import Store, recorder
from support.inprocess import Device, Server
from support.pen import DOMAIN, Pen

NOW = 1_795_000_000.0


@pytest.fixture
def pen() -> Pen:
    return Pen("alice", Flow("UDP", "192.0.2.7", 5060, "", False))


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def request(pen: Pen, call_id: str, method: str = "INVITE") -> Request:
    message = parse(pen.write(method, f"sip:bob@{DOMAIN}", "User-Agent: Acme/1\x07", call_id=call_id))
    assert isinstance(message, Request)
    return message


def test_challenge_that_waits_too_long_is_an_error_of_when_it_was_sent(store: Store, pen: Pen) -> None:
    challenges = Challenges(recorder(store))
    challenges.sent(request(pen, "a"), pen.flow, 407, NOW, b"")
    challenges.sent(request(pen, "a"), pen.flow, 407, NOW + 20, b"")
    challenges.sent(request(pen, "b"), pen.flow, 407, NOW + 1, b"")
    challenges.answered("b")
    challenges.answered("never heard of")
    challenges.expire(NOW + 31.9)
    assert store.all("errors") == []
    challenges.expire(NOW + 32)
    (row,) = store.all("errors")
    assert (row["kind"], row["method"], row["status"], row["agent"]) == (
        "challenge_unanswered", "INVITE", 407, "Acme/1\ufffd"
    )  # fmt: skip
    assert (row["network"], row["party"], row["at"]) == ("192.0.2.0/24", None, "2026-11-18T11:06:40.000Z")
    assert (len(challenges), challenges.unanswered) == (0, 1)


def test_watch_is_bounded_and_says_what_it_does_not_see(store: Store, pen: Pen) -> None:
    challenges = Challenges(recorder(store), max_watched=2)
    for call_id in "abcd":
        challenges.sent(request(pen, call_id), pen.flow, 407, NOW, b"")
    assert (len(challenges), challenges.unwatched) == (2, 2)
    challenges.expire(NOW + 40)
    assert [row["count"] for row in store.all("errors")] == [1]


def test_clock_that_is_set_back_makes_nobody_wait_for_ever(store: Store, pen: Pen) -> None:
    challenges = Challenges(recorder(store))
    challenges.sent(request(pen, "a"), pen.flow, 407, NOW, b"")
    challenges.expire(NOW - 3600)
    challenges.expire(NOW - 3600 + 31)
    assert challenges.unanswered == 0
    challenges.expire(NOW - 3600 + 32)
    assert challenges.unanswered == 1


def test_credentials_of_any_worth_are_an_answer(server: Server) -> None:
    alice = Device(server, "alice")
    challenges = server.service.context.challenges
    alice.register()
    assert len(challenges) == 0
    for credentials in ("Digest nonsense", "Basic x"):
        for method, header in (("INVITE", "Proxy-Authorization"), ("REGISTER", "Authorization")):
            call_id = f"{method}{credentials}"
            uri = f"sip:{DOMAIN}" if method == "REGISTER" else f"sip:bob@{DOMAIN}"
            alice.ask(alice.write(method, uri, call_id=call_id))
            alice.ask(alice.write(method, uri, f"{header}: {credentials}", call_id=call_id))
    alice.ask(alice.signed("INVITE", f"sip:bob@{DOMAIN}", password="wrong", call_id="w"))
    assert [call_id for call_id in challenges._waiting if "nonsense" in call_id or call_id == "w"] == []


def test_retransmission_gets_the_very_challenge_that_its_request_got(tmp_path: Path) -> None:
    with Server(tmp_path, "alice", "bob") as server:
        alice = Device(server, "alice")
        register = alice.write("REGISTER", "", f"Contact: <{alice.contact}>", call_id="r", branch="z9hG4bKr")
        invite = alice.write("INVITE", f"sip:bob@{DOMAIN}", call_id="i", branch="z9hG4bKi")
        for first in (register, invite):
            alice.send(first)
            alice.send(first)
            one, again = alice.received()
            assert (one.start_line, one.lines) == (again.start_line, again.lines)
            # Another request of the same Call-ID is no retransmission.
            assert nonce(alice.ask(first.replace(b"z9hG4bK", b"z9hG4bKother"))) != nonce(one)


def nonce(challenge: Message) -> str:
    return next(line for line in challenge.lines if "Digest" in line).split('nonce="')[1].split('"')[0]
