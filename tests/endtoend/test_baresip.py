"""Video calls between real endpoints, and what the record says of them afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import baresip
from support.baresip import Baresip
from support.server import Row, ServerProcess

pytestmark = [
    pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not()),
    pytest.mark.parametrize("transport", ["udp", "tcp"]),
]

TOLERANCE_MS = 150

StartServer = Callable[..., ServerProcess]
StartEndpoint = Callable[..., Baresip]


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    return start_server("alice", "bob")


@pytest.fixture
def endpoint(server: ServerProcess, tmp_path: Path, transport: str) -> Iterator[StartEndpoint]:
    """Starts a registered endpoint of this user."""
    with ExitStack() as stack:

        def start(user: str, answermode: str = "auto") -> Baresip:
            made = Baresip(tmp_path, user, server.port, transport=transport, answermode=answermode)
            return stack.enter_context(made)

        yield start


def only_call(server: ServerProcess, transport: str) -> Row:
    """The one row of ``calls``, between alice and bob."""
    (row,) = server.ended_calls()
    assert row["caller"] == server.party("alice")
    assert row["callee"] == server.party("bob")
    assert row["caller_transport"] == transport.upper()
    assert "baresip" in row["caller_agent"]
    return row


def assert_talked(server: ServerProcess, row: Row, began: float, ended: float) -> None:
    """The record of a video call that was up from ``began`` to ``ended``."""
    assert row["outcome"] == "answered"
    assert row["sip_status"] == 200
    assert row["end_cause"] == "bye"
    assert row["end_uncertainty_ms"] is None
    assert row["confirmed_at"] is not None
    assert row["devices"] == 1
    assert row["video"] == 1
    assert abs(row["talk_ms"] - (ended - began) * 1000) < TOLERANCE_MS
    assert abs(row["video_ms"] - row["talk_ms"]) < TOLERANCE_MS
    media = server.rows("SELECT kind, codec, accepted FROM call_media ORDER BY stream")
    assert media == [
        {"kind": "audio", "codec": "PCMU", "accepted": 1},
        {"kind": "video", "codec": "VP8", "accepted": 1},
    ]


def test_call_that_the_caller_ends_is_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob"), endpoint("alice")
    alice.dial(bob.address)
    began = alice.wait("CALL_ESTABLISHED").at
    time.sleep(1.5)
    ended = alice.hang_up()
    row = only_call(server, transport)
    assert_talked(server, row, began, ended)
    assert row["ended_by"] == "caller"
    bob.wait("CALL_CLOSED")


def test_call_that_the_callee_ends_is_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob"), endpoint("alice")
    alice.dial(bob.address)
    began = alice.wait("CALL_ESTABLISHED").at
    time.sleep(1.0)
    ended = bob.hang_up()
    row = only_call(server, transport)
    assert_talked(server, row, began, ended)
    assert row["ended_by"] == "callee"
    alice.wait("CALL_CLOSED")


def test_ringing_is_no_talk(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob", "manual"), endpoint("alice")
    alice.dial(bob.address)
    rang = alice.wait("CALL_RINGING").at
    time.sleep(1.0)
    bob.accept()
    began = alice.wait("CALL_ESTABLISHED").at
    time.sleep(0.5)
    ended = alice.hang_up()
    row = only_call(server, transport)
    assert_talked(server, row, began, ended)
    assert abs(row["ring_ms"] - (began - rang) * 1000) < TOLERANCE_MS


def test_declined_call_is_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob", "manual"), endpoint("alice")
    alice.dial(bob.address)
    bob.wait("CALL_INCOMING")
    bob.hang_up()
    alice.wait("CALL_CLOSED")
    row = only_call(server, transport)
    # This is how baresip declines; what is really busy does not ring first.
    assert (row["outcome"], row["sip_status"]) == ("declined", 486)
    assert row["ended_by"] == "callee"
    assert row["answered_at"] is None
    assert row["talk_ms"] is None


def test_cancelled_call_is_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob", "manual"), endpoint("alice")
    alice.dial(bob.address)
    rang = alice.wait("CALL_RINGING").at
    time.sleep(0.5)
    ended = alice.hang_up()
    bob.wait("CALL_CLOSED")
    row = only_call(server, transport)
    assert (row["outcome"], row["ended_by"]) == ("cancelled", "caller")
    assert abs(row["ring_ms"] - (ended - rang) * 1000) < TOLERANCE_MS
    assert row["talk_ms"] is None


def test_offline_callee_is_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    alice = endpoint("alice")
    alice.dial("sip:bob@example.test")
    alice.wait("CALL_CLOSED")
    row = only_call(server, transport)
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("offline", 480, "server")
    assert row["devices"] == 0
    assert row["ringing_at"] is None


class TestShortTimerC:
    """The server gives up on who does not answer."""

    @pytest.fixture
    def server(self, start_server: StartServer) -> ServerProcess:
        return start_server("alice", "bob", config="[timers]\nc = 1.5\n")

    def test_call_that_nobody_answers_is_on_record(
        self, server: ServerProcess, endpoint: StartEndpoint, transport: str
    ) -> None:
        bob, alice = endpoint("bob", "manual"), endpoint("alice")
        alice.dial(bob.address)
        rang = alice.wait("CALL_RINGING").at
        ended = alice.wait("CALL_CLOSED").at
        bob.wait("CALL_CLOSED")
        row = only_call(server, transport)
        assert (row["outcome"], row["ended_by"]) == ("no_answer", "server")
        assert abs(row["ring_ms"] - (ended - rang) * 1000) < TOLERANCE_MS
        assert row["talk_ms"] is None
