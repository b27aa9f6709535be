"""Video calls between real endpoints that change while they last: hold, video off and on, transfer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from sipserver.calls.times import parse_stamp
from support import baresip
from support.baresip import Baresip
from support.server import Row, ServerProcess, sipserver

pytestmark = [
    pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not()),
    pytest.mark.parametrize("transport", ["udp", "tcp"]),
]

TOLERANCE_MS = 150
STEP = 0.6
"""Seconds between two changes."""

StartServer = Callable[..., ServerProcess]
StartEndpoint = Callable[..., Baresip]


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    return start_server("alice", "bob", "carol")


@pytest.fixture
def endpoint(server: ServerProcess, tmp_path: Path, transport: str) -> Iterator[StartEndpoint]:
    """Starts a registered endpoint of this user."""
    with ExitStack() as stack:

        def start(user: str) -> Baresip:
            return stack.enter_context(Baresip(tmp_path, user, server.port, transport=transport))

        yield start


def change(endpoint: Baresip, command: str, parameters: str = "") -> float:
    """Give a command and let what it changes last; when it was given."""
    at = time.time()
    endpoint.command(command, parameters)
    time.sleep(STEP)
    return at


def media(server: ServerProcess, kind: str) -> list[Row]:
    """The streams of this kind, one after the other."""
    return server.rows(
        f"SELECT codec, direction, held_by, from_at, to_at FROM call_media WHERE kind = '{kind}' AND accepted = 1"
        " ORDER BY number"
    )


def assert_changed(rows: list[Row], expected: list[tuple[str, str | None]], moments: list[float]) -> None:
    """These are the directions and holds, and each began when it was asked for and ended when the next one began."""
    assert [(row["direction"], row["held_by"]) for row in rows] == expected
    for row, moment in zip(rows, moments, strict=True):
        assert abs(parse_stamp(row["from_at"]) - moment * 1000) < TOLERANCE_MS
    for row, following in pairwise(rows):
        assert row["to_at"] == following["from_at"]


def test_hold_and_resume_are_on_record(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    bob, alice = endpoint("bob"), endpoint("alice")
    alice.dial(bob.address)
    moments = [alice.wait("CALL_ESTABLISHED").at]
    time.sleep(STEP)
    moments += [change(alice, "hold"), change(alice, "resume"), change(bob, "hold"), change(bob, "resume")]
    alice.hang_up()
    (row,) = server.ended_calls()
    expected = [
        ("sendrecv", None), ("sendonly", "caller"), ("sendrecv", None), ("recvonly", "callee"), ("sendrecv", None)
    ]  # fmt: skip
    for kind, codec in (("audio", "PCMU"), ("video", "VP8")):
        streams = media(server, kind)
        assert_changed(streams, expected, moments)
        assert {stream["codec"] for stream in streams} == {codec}
        assert streams[-1]["to_at"] == row["ended_at"]
    # Held by one side, the other one still sees it.
    assert abs(row["video_ms"] - row["talk_ms"]) < TOLERANCE_MS


def test_video_that_is_switched_off_and_on_is_on_record(
    server: ServerProcess, endpoint: StartEndpoint, transport: str
) -> None:
    bob, alice = endpoint("bob"), endpoint("alice")
    alice.dial(bob.address)
    began = alice.wait("CALL_ESTABLISHED").at
    time.sleep(STEP)
    off = change(alice, "video_dir", "inactive")
    on = change(alice, "video_dir", "sendrecv")
    ended = alice.hang_up()
    (row,) = server.ended_calls()
    first, second = media(server, "video")
    for stream, start, end in ((first, began, off), (second, on, ended)):
        assert stream["direction"] == "sendrecv"
        assert abs(parse_stamp(stream["from_at"]) - start * 1000) < TOLERANCE_MS
        assert abs(parse_stamp(stream["to_at"]) - end * 1000) < TOLERANCE_MS
    assert len(media(server, "audio")) == 1
    assert row["video"] == 1
    assert abs(row["video_ms"] - (off - began + ended - on) * 1000) < TOLERANCE_MS
    assert abs(row["talk_ms"] - (ended - began) * 1000) < TOLERANCE_MS


def test_transfer_links_the_calls(server: ServerProcess, endpoint: StartEndpoint, transport: str) -> None:
    carol, bob, alice = endpoint("carol"), endpoint("bob"), endpoint("alice")
    alice.dial(bob.address)
    alice.wait("CALL_ESTABLISHED")
    time.sleep(STEP)
    alice.command("transfer", carol.address)
    carol.wait("CALL_ESTABLISHED")
    time.sleep(STEP)
    carol.hang_up()
    first, second = server.ended_calls(2)
    people = [server.party(user) for user in ("alice", "bob", "carol")]
    assert [first["caller"], first["callee"]] == people[:2]
    assert [second["caller"], second["callee"]] == people[1:]
    (link,) = server.rows("SELECT call, other, kind, at FROM call_links")
    assert link == {"call": first["id"], "other": second["id"], "kind": "transfer", "at": second["started_at"]}
    shown = sipserver("calls", "show", second["id"], "--data-dir", server.data_dir)
    assert "links" in shown
    assert first["id"] in shown
