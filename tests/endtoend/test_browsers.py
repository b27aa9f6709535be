"""Web pages as phones: JsSIP and SIP.js in chromium call each other and baresip, and what the record says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from support import baresip, browser
from support.baresip import Baresip
from support.browser import Tab, Tabs
from support.cable import Cable
from support.certificates import Authority
from support.listening import ListeningServer
from support.phone import Phone
from support.ports import free_port
from support.server import Row

pytestmark = [
    pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not()),
    pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not()),
]

CLOCK_MS = 20
"""Pages, this process and the server tell the time by clocks of their own, in milliseconds."""

CONFIG = """
[websocket]
ping = 1.0
pong = 1.0
[sessions]
grace = 2.0
[tls]
certificate = "{certificate}"
key = "{key}"
"""


class Talker(Protocol):
    """A page or a baresip."""

    user: str

    def hang_up(self) -> float:
        """End the call."""


class Lines:
    """The server's ports for TLS and for pages."""

    def __init__(self, server: ListeningServer, tls: int, web: int) -> None:
        self.server = server
        self.tls = tls
        self.web = web
        self._seen: set[str] = set()

    def next_call(self) -> Row:
        """The record of the call that nobody asked for yet, once it has ended."""
        query = "SELECT * FROM calls WHERE ended_at IS NOT NULL ORDER BY started_at"
        found = self.server.wait_for_rows(query, lambda rows: len(rows) > len(self._seen))
        (row,) = [each for each in found if each["id"] not in self._seen]
        self._seen.add(row["id"])
        return row


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    folder = tmp_path_factory.mktemp("browsers")
    files = Authority(folder).issue("127.0.0.1")
    tls, web = free_port(), free_port()
    listen = ("udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}", f"tls:127.0.0.1:{tls}", f"wss:127.0.0.1:{web}")
    config = CONFIG.format(certificate=files.certificate, key=files.key)
    with ListeningServer(folder, ["alice", "bob", "carol", "dave"], config=config, listen=listen) as server:
        yield Lines(server, tls, web)
        assert not [event for event in server.events if event["event"] == "internal.fault"]


@pytest.fixture(scope="module")
def tabs() -> Iterator[Tabs]:
    with browser.chromium() as tabs:
        yield tabs


@pytest.fixture(scope="module")
def cable(lines: Lines) -> Iterator[Cable]:
    """Between alice and the server."""
    with Cable(lines.web) as cable:
        yield cable


@pytest.fixture(scope="module")
def cable_of_bob(lines: Lines) -> Iterator[Cable]:
    """Between bob and the server."""
    with Cable(lines.web) as cable:
        yield cable


@pytest.fixture(scope="module")
def alice(lines: Lines, tabs: Tabs, cable: Cable) -> Iterator[Tab]:
    """A page with JsSIP."""
    with tabs.phone("jssip", "alice", f"wss://127.0.0.1:{cable.port}") as tab:
        yield tab


@pytest.fixture(scope="module")
def bob(lines: Lines, tabs: Tabs, cable_of_bob: Cable) -> Iterator[Tab]:
    """A page with SIP.js."""
    with tabs.phone("sip.js", "bob", f"wss://127.0.0.1:{cable_of_bob.port}") as tab:
        yield tab


@pytest.fixture(scope="module")
def carol(lines: Lines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baresip]:
    """A baresip that speaks TLS, and what pages insist on."""
    with Baresip(tmp_path_factory.mktemp("carol"), "carol", lines.tls, transport="tls", browsers=True) as made:
        yield made


@dataclass
class Talk:
    """Between which times a call was answered, and between which it was hung up, as those who talk can know it.

    A page may take its time for what it is asked to do and what it is told of, where it has to share the processor.
    """

    placed: float
    up: float
    """When the first of them knew that it was answered."""
    asked: float
    """When one was asked to hang up."""
    over: float
    """When all knew that it had."""


def assert_talked(lines: Lines, caller: Talker, callee: Talker, by: Talker, talk: Talk) -> None:
    """The record of a video call."""
    row, server = lines.next_call(), lines.server
    assert (row["caller"], row["callee"]) == (server.party(caller.user), server.party(callee.user))
    assert (row["outcome"], row["sip_status"], row["end_cause"]) == ("answered", 200, "bye")
    assert row["ended_by"] == ("caller" if by is caller else "callee")
    assert (row["video"], row["encrypted"], row["end_uncertainty_ms"]) == (1, 1, None)
    for side, who in (("caller", caller), ("callee", callee)):
        assert row[f"{side}_transport"] == ("WSS" if isinstance(who, Tab) else "TLS")
        agent = "baresip" if isinstance(who, Baresip) else "JsSIP" if who.user == "alice" else "SIP.js"
        assert row[f"{side}_agent"].startswith(agent)
    assert row["talk_ms"] >= (talk.asked - talk.up) * 1000 - CLOCK_MS
    assert row["talk_ms"] <= (talk.over - talk.placed) * 1000 + CLOCK_MS
    media = server.rows(
        "SELECT kind, accepted, encryption, ice FROM call_media WHERE call = ? ORDER BY number", row["id"]
    )
    assert {"audio", "video"} == {each["kind"] for each in media}
    assert all((each["accepted"], each["encryption"], each["ice"]) == (1, "dtls", 1) for each in media)


class Count:
    """How often something has happened in a page, so that the next time can be waited for."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.established = tab.count("established")
        self.ended = tab.count("ended")

    def wait_for_talk(self) -> float:
        """Wait until the call is up."""
        return self.tab.wait("established", self.established + 1)

    def wait_for_end(self) -> float:
        """Wait until the call is over."""
        return self.tab.wait("ended", self.ended + 1)


def test_pages_call_each_other_and_either_hangs_up(lines: Lines, alice: Tab, bob: Tab) -> None:
    for caller, callee, by in ((alice, bob, alice), (alice, bob, bob), (bob, alice, alice), (bob, alice, bob)):
        counts = Count(alice), Count(bob)
        placed = time.time()
        caller.call(callee.user)
        up = min([each.wait_for_talk() for each in counts])
        alice.wait_for_video()
        bob.wait_for_video()
        asked = by.hang_up()
        over = max([each.wait_for_end() for each in counts])
        assert_talked(lines, caller, callee, by, Talk(placed, up, asked, over))


@pytest.mark.parametrize("library", ["jssip", "sip.js"])
def test_pages_and_baresip_call_each_other_and_either_hangs_up(
    lines: Lines, alice: Tab, bob: Tab, carol: Baresip, library: str
) -> None:
    tab = alice if library == "jssip" else bob
    for page_calls, page_ends in ((True, True), (True, False), (False, True), (False, False)):
        count, closed = Count(tab), carol.count("CALL_CLOSED")
        placed = time.time()
        if page_calls:
            tab.call("carol")
        else:
            carol.dial(f"sip:{tab.user}@example.test")
        up = count.wait_for_talk()
        tab.wait_for_video()
        by: Talker = tab if page_ends else carol
        asked = by.hang_up()
        carol.wait("CALL_CLOSED", count=closed + 1)
        count.wait_for_end()
        caller, callee = (tab, carol) if page_calls else (carol, tab)
        assert_talked(lines, caller, callee, by, Talk(placed, up, asked, time.time()))


@pytest.mark.parametrize("listens", [False, True])
def test_the_large_offer_of_a_page_reaches_a_phone_that_registered_by_udp(
    lines: Lines, alice: Tab, listens: bool
) -> None:
    with Phone(lines.server.port, "dave", listens=listens) as dave:
        dave.register()
        alice.call("dave")
        invite = dave.expect("INVITE")
        assert len(invite.body) > 4_000
        # RFC 3261 §18.1.1.
        assert dave.came_by == ("TCP" if listens else "UDP")
        dave.respond(invite, 486)
        dave.expect("ACK")
        assert lines.next_call()["outcome"] == "busy"
        dave.register("Contact: *", "Expires: 0")


def test_a_page_that_is_loaded_anew_leaves_a_true_record_and_is_reached_again(
    lines: Lines, alice: Tab, bob: Tab
) -> None:
    for tab, other in ((alice, bob), (bob, alice)):
        counts = Count(tab), Count(other)
        placed = time.time()
        other.call(tab.user)
        up = min([each.wait_for_talk() for each in counts])
        left = time.time()
        tab.load()
        row = lines.next_call()
        # A page may still say goodbye while it is left.
        assert row["end_cause"] in ("bye", "connection_lost")
        if row["end_cause"] == "connection_lost":
            assert row["ended_by"] == "server"
            assert row["end_uncertainty_ms"] >= 0
        assert row["talk_ms"] <= (time.time() - placed) * 1000 + CLOCK_MS
        assert row["talk_ms"] + (row["end_uncertainty_ms"] or 0) >= (left - up) * 1000 - CLOCK_MS
        other.hang_up()
        call_and_hang_up(lines, other, tab)


def test_a_connection_that_breaks_for_a_moment_ends_no_call(
    lines: Lines, alice: Tab, bob: Tab, cable_of_bob: Cable
) -> None:
    counts, registered = (Count(alice), Count(bob)), bob.count("registered")
    placed = time.time()
    alice.call("bob")
    up = min([each.wait_for_talk() for each in counts])
    cable_of_bob.cut()
    cable_of_bob.mend()
    bob.wait("registered", registered + 1)
    asked = alice.hang_up()
    # It hears of the end over its new connection.
    over = max([each.wait_for_end() for each in counts])
    assert_talked(lines, alice, bob, alice, Talk(placed, up, asked, over))


def test_a_connection_that_goes_dead_in_a_call_leaves_a_true_record_and_is_made_again(
    lines: Lines, alice: Tab, bob: Tab, cable: Cable
) -> None:
    counts = Count(alice), Count(bob)
    placed = time.time()
    bob.call("alice")
    up = min([each.wait_for_talk() for each in counts])
    dead = time.time()
    cable.go_dead()
    row = lines.next_call()
    assert (row["outcome"], row["end_cause"], row["ended_by"]) == ("answered", "connection_lost", "server")
    assert row["talk_ms"] <= (dead - placed) * 1000 + CLOCK_MS
    assert row["talk_ms"] + row["end_uncertainty_ms"] >= (dead - up) * 1000 - CLOCK_MS
    (error,) = lines.server.rows("SELECT count FROM errors WHERE kind = 'connection_dead'")
    assert error["count"] == 1
    assert lines.server.rows("SELECT aor FROM bindings WHERE aor = 'alice@example.test'", store="location.db") == []
    registered = alice.count("registered")
    cable.cut()
    cable.mend()
    alice.wait("registered", registered + 1)
    bob.hang_up()
    counts[1].wait_for_end()
    alice.load()
    call_and_hang_up(lines, bob, alice)


def call_and_hang_up(lines: Lines, caller: Tab, callee: Tab) -> None:
    """A call that works."""
    counts = Count(caller), Count(callee)
    caller.call(callee.user)
    for each in counts:
        each.wait_for_talk()
    caller.hang_up()
    for each in counts:
        each.wait_for_end()
    row = lines.next_call()
    assert (row["outcome"], row["end_cause"]) == ("answered", "bye")
