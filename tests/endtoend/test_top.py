"""``sipserver top`` and ``calls follow`` beside a server with real calls: printed once, and on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sipserver.sip.message import Response
from support import sdp
from support.phone import Phone
from support.ports import free_port
from support.server import ServerProcess, environment, sipserver

HOSTILE = "Acme\x1b[2J\x07-Phone/5"
PATIENCE = 20.0
END_OF_FRAME = "\x1b[J"
HAS_SDP = "Content-Type: application/sdp"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\n'
    with ServerProcess(tmp_path_factory.mktemp("top"), ["alice", "bob", "carol"], config=config) as server:
        yield server


class Call:
    """Alice and bob, who registered and talk with video."""

    def __init__(self, server: ServerProcess, alice: Phone, bob: Phone) -> None:
        self.alice, self.bob = alice, bob
        self.is_up = True
        alice.register(f"Contact: <{alice.contact}>", f"User-Agent: {HOSTILE}")
        bob.register()
        offer = sdp.body(sdp.AUDIO, sdp.VIDEO)
        lines = (f"Contact: <{alice.contact}>", f"User-Agent: {HOSTILE}", HAS_SDP)
        alice.exchange("INVITE", bob.address, *lines, body=offer, call_id=f"call{alice.flow.port}")
        invite = bob.expect("INVITE")
        bob.respond(invite, 180)
        bob.respond(invite, 200, HAS_SDP, body=offer)
        answer = alice.next()
        while not (isinstance(answer, Response) and answer.status == 200):
            answer = alice.next()
        self.answer = answer
        alice.send(alice.in_dialog("ACK", answer, cseq=alice.cseq))
        bob.expect("ACK")
        server.wait_for_rows("SELECT id FROM calls WHERE ended_at IS NULL AND confirmed_at > ''", bool)

    def end(self) -> None:
        """Alice hangs up."""
        if self.is_up:
            self.alice.send(self.alice.in_dialog("BYE", self.answer, cseq=self.alice.cseq + 1))
            self.bob.respond(self.bob.expect("BYE"), 200)
            self.is_up = False


@contextmanager
def in_a_call(server: ServerProcess) -> Iterator[Call]:
    """A call that is over, and nobody registered, when the block is left."""
    with Phone(server.port, "alice") as alice, Phone(server.port, "bob", "TCP") as bob:
        call = Call(server, alice, bob)
        yield call
        call.end()
        server.wait_for_rows("SELECT id FROM calls WHERE ended_at IS NULL", lambda rows: not rows)
        alice.expect(200)
        for each in (alice, bob):
            each.register("Contact: *", "Expires: 0", call_id=f"gone{each.user}")


def options(server: ServerProcess) -> list[str]:
    return ["--config", str(server.configuration), "--data-dir", str(server.data_dir)]


def test_one_moment_says_who_is_in_a_call_and_how_the_server_does(server: ServerProcess) -> None:
    with in_a_call(server), Phone(server.port, "carol") as carol:
        carol.exchange("REGISTER", "sip:example.test", f"Contact: <{carol.contact}>", password="wrong")
        carol.next()
        server.wait_for_rows("SELECT kind FROM errors", bool)
        text = sipserver("top", "--once", "--json", *options(server))
        found = json.loads(text)
        assert (found["running"], found["open"], found["answered"], found["with_video"]) == (True, 1, 1, 1)
        (call,) = found["calls"]
        assert (call["state"], call["media"], call["transports"]) == ("answered", "audio+video", "UDP TCP")
        assert server.party("alice").startswith(call["caller"].rstrip("…"))
        assert 0 <= call["seconds"] <= call["age"] < 60
        assert (found["bindings"], found["addresses"], found["by_transport"]) == (2, 2, {"UDP": 1, "TCP": 1})
        assert found["errors"]["credentials"] >= 1
        assert found["rates_from"] == "metrics"
        assert all(rate is not None for rate in found["rates"].values())
        assert {store["name"] for store in found["stores"]} >= {"calls", "location"}
        assert not any(store["failing"] for store in found["stores"])
        shown = sipserver("top", "--once", *options(server))
        assert "1 open: 1 answered" in shown
        assert "Acme\\x1b[2J\\x07-Phone/5" in shown
        assert "\x1b" not in shown
        for name in ("alice", "bob", "carol", "127.0.0.1"):
            assert name not in text + shown


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (100, 24)) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "sipserver", *arguments],
            stdin=self._slave, stdout=self._slave, stderr=self._slave,
            env={**environment(), "TERM": "xterm", "COLUMNS": "200", "LINES": "50"},
        )  # fmt: skip
        self.output = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, text: str, since: int = 0) -> int:
        """Where the output ends once this is in it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output[since:]:
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"no {text!r} in {self.output[-2000:]!r}"
            self.output += os.read(self.master, 65_536).decode("utf-8", "replace")
        return len(self.output)

    def wait_for_frame(self, text: str, columns: int, since: int = 0) -> int:
        """Where the output ends once a whole frame in it has this, and no line that is longer."""
        while True:
            since = self.wait_for(END_OF_FRAME, since)
            frame = self.output.rpartition(END_OF_FRAME)[0].rpartition("\x1b[H")[2]
            lines = re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", frame).splitlines()
            if text in frame and max(map(len, lines)) <= columns:
                return since

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> None:
        """The command is over, and has left the terminal as it was."""
        assert self.process.wait(PATIENCE) == 0, self.output[-2000:]
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 65_536).decode("utf-8", "replace")
        assert termios.tcgetattr(self._slave) == self.before
        assert self.output.endswith("\x1b[?25h\x1b[?1049l")
        os.close(self.master)
        os.close(self._slave)


def test_on_a_terminal_it_is_shown_anew_until_q(server: ServerProcess) -> None:
    with in_a_call(server) as call:
        terminal = Terminal("top", *options(server), "--interval", "0.3")
        terminal.wait_for("audio+video")
        terminal.wait_for(" messages")
        terminal.press("p")
        seen = terminal.wait_for("PAUSED")
        terminal.press("s")
        seen = terminal.wait_for("(newest)", seen)
        terminal.press("p")
        seen = terminal.wait_for_frame("1 open", 100, seen)
        terminal.resize(60, 10)
        seen = terminal.wait_for_frame("1 open", 60, seen)
        call.end()
        terminal.wait_for_frame("No calls.", 60, seen)
        terminal.press("q")
        terminal.end()
        assert "\x07" not in terminal.output


def test_other_size_is_followed_at_once(server: ServerProcess) -> None:
    terminal = Terminal("top", *options(server), "--interval", "3600")
    seen = terminal.wait_for_frame("No calls.", 100)
    terminal.resize(40, 12)
    seen = terminal.wait_for_frame("No calls.", 40, seen)
    terminal.press("q")
    terminal.end()


def test_ctrl_c_leaves_the_terminal_as_it_was(server: ServerProcess) -> None:
    terminal = Terminal("top", *options(server))
    terminal.wait_for("No calls.")
    terminal.press("\x03")
    terminal.end()
