"""linphone and baresip over UDP, TCP and TLS, over IPv4 and IPv6: each of these twelve talks to each other one.

Each of them knows one IP version alone, so a relay (rtpengine) passes media on between those of different versions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from support import baresip, linphone
from support.baresip import Baresip
from support.certificates import Authority
from support.linphone import Linphone
from support.listening import ListeningServer
from support.ports import free_port
from support.relay import Rtpengine
from support.server import DOMAIN, Row

pytestmark = pytest.mark.skipif(
    bool(baresip.why_not() or linphone.why_not()), reason=baresip.why_not() or linphone.why_not()
)

TALK = 1.0
"""Seconds of every call. Of linphone it is known only afterwards whether it heard anything, and beside other tests the
other side may take half a second until it sends."""

HOSTS = {4: "127.0.0.1", 6: "[::1]"}
NETWORKS = {4: "127.0.0.0/24", 6: "::/56"}
SITES = {4: ("AT", "Wien", "Old floor", "site"), 6: ("DE", "Bayern", "New floor", "site")}

CONFIG = """\
[tls]
certificate = "server.pem"
key = "server.key"
[proxy]
# Loopback carries what is larger than an Ethernet frame, so an offer of video can stay on UDP.
datagram = 60000
[media]
relay = ["{relay}"]
[location]
sites = [
  {{ network = "127.0.0.0/8", site = "Old floor", country = "AT", region = "Wien" }},
  {{ network = "::1/128", site = "New floor", country = "DE", region = "Bayern" }},
]
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an endpoint is, and how it is connected."""

    agent: type[Baresip | Linphone]
    transport: str
    family: int

    @property
    def user(self) -> str:
        return f"{self.agent.__name__.lower()}-{self.transport}-{self.family}"


KINDS = [Kind(*each) for each in product((Baresip, Linphone), ("udp", "tcp", "tls"), (4, 6))]


@dataclass(slots=True)
class Call:
    """One that took place, with the times at which the endpoints told so."""

    caller: Kind
    callee: Kind
    ended_by: str
    dialled: float = 0.0
    up: float = 0.0
    hung_up: float = 0.0
    over: float = 0.0


class Server(ListeningServer):
    """With listeners of every kind, and a certificate that both believe."""

    def __init__(self, folder: Path, relay: Rtpengine) -> None:
        folder.mkdir()
        self.authority = Authority(folder)
        # linphone's library takes addresses in certificates for names.
        addresses = "127.0.0.1", "::1"
        self.authority.issue(DOMAIN, *addresses, dns=addresses, into="server")
        self.tls_port = free_port()
        listen = [
            f"{transport}:{host}:{self.tls_port if transport == 'tls' else '{port}'}"
            for host in HOSTS.values()
            for transport in ("udp", "tcp", "tls")
        ]
        super().__init__(
            folder, [kind.user for kind in KINDS], config=CONFIG.format(relay=relay.address), listen=tuple(listen)
        )

    def endpoint(self, folder: Path, kind: Kind) -> Baresip | Linphone:
        """One of this kind."""
        host = HOSTS[kind.family]
        return kind.agent(
            folder, kind.user, self.tls_port if kind.transport == "tls" else self.port, transport=kind.transport,
            host=host, server=host, authority=self.authority.file,
        )  # fmt: skip


def rounds() -> Iterator[list[Call]]:
    """As in a tournament: each meets each other one once, and all of them are in a call in every round."""
    first, *circle = range(len(KINDS))
    for number in range(len(circle)):
        row = [first, *circle]
        pairs = [sorted((row[place], row[-1 - place])) for place in range(len(row) // 2)]
        yield [call(one, other, "callee" if number % 2 else "caller") for one, other in pairs]
        circle = circle[1:] + circle[:1]


def call(one: int, other: int, ended_by: str) -> Call:
    """The call of these two of KINDS, of which the first is the lower one.

    Who calls is such that of two programs with their transports each calls the other one, and so does each family.
    """
    if (one + one // 2 + other // 2) % 2:
        one, other = other, one
    return Call(KINDS[one], KINDS[other], ended_by)


def test_rounds_leave_out_nothing() -> None:
    calls = [each for calls in rounds() for each in calls]
    assert len({frozenset((each.caller.user, each.callee.user)) for each in calls}) == len(calls) == 66
    assert {each.caller for each in calls} == {each.callee for each in calls} == set(KINDS)
    ways = {(kind.agent, kind.transport) for kind in KINDS}
    met = {((a.agent, a.transport), (b.agent, b.transport)) for a, b in ((each.caller, each.callee) for each in calls)}
    assert met == set(product(ways, ways))
    assert {(each.caller.family, each.callee.family) for each in calls} == set(product(HOSTS, HOSTS))


def test_every_pair_talks_and_is_on_record(tmp_path: Path) -> None:
    with Rtpengine(tmp_path / "relay", also="::1") as relay, Server(tmp_path / "server", relay) as server:
        with ExitStack() as stack:
            endpoints = [server.endpoint(tmp_path, kind) for kind in KINDS]
            with ThreadPoolExecutor(4) as pool:
                phones = dict(zip(KINDS, pool.map(stack.enter_context, endpoints), strict=True))
            calls = [each for number, calls in enumerate(rounds(), 1) for each in talk(phones, calls, number)]
            rows = server.ended_calls(len(calls))
        parties = {server.party(kind.user): kind for kind in KINDS}
        agents = {kind: phone.agent() if isinstance(phone, Linphone) else "baresip" for kind, phone in phones.items()}
        by_pair = {(parties[row["caller"]], parties[row["callee"]]): row for row in rows}
        assert len(by_pair) == len(calls)
        for each in calls:
            row = by_pair[each.caller, each.callee]
            assert_right(row, each)
            assert row["caller_agent"].startswith(agents[each.caller])
            assert row["callee_agent"].startswith(agents[each.callee])
            assert_media(server, row["id"], each)
        for row in server.rows("SELECT * FROM sign_ins WHERE outcome = 'bound'"):
            kind = parties.pop(row["party"])
            assert (row["transport"], row["network"]) == (kind.transport.upper(), NETWORKS[kind.family])
            assert place_of(row) == SITES[kind.family]
        assert not parties
        assert server.rows("SELECT * FROM errors") == []
    for phone in phones.values():
        if isinstance(phone, Linphone):
            heard = phone.heard()
            assert len(heard) == len(KINDS) - 1
            assert all(heard), f"{phone.user}: {heard}"


def talk(phones: dict[Kind, Baresip | Linphone], calls: list[Call], number: int) -> list[Call]:
    """All of these calls at once; they are the so-manieth of their endpoints."""
    for each in calls:
        each.dialled = phones[each.caller].dial(phones[each.callee].address)
    for each in calls:
        sides = phones[each.caller], phones[each.callee]
        each.up = max(side.wait("CALL_ESTABLISHED", count=number).at for side in sides)
        for side in sides:
            if isinstance(side, Linphone):
                side.play()
    time.sleep(TALK)
    for phone in phones.values():
        if isinstance(phone, Baresip):
            wait_for_audio(phone, number)
    for each in calls:
        each.hung_up = phones[each.caller if each.ended_by == "caller" else each.callee].hang_up()
    for each in calls:
        each.over = max(phones[kind].wait("CALL_CLOSED", count=number).at for kind in (each.caller, each.callee))
    return calls


def wait_for_audio(phone: Baresip, calls: int) -> None:
    """Until it has heard the other side of so many calls."""
    deadline = time.monotonic() + 15
    while sum(event.kind == "CALL_RTPESTAB" and event.values.get("param") == "audio" for event in phone.events) < calls:
        assert time.monotonic() < deadline, f"{phone.user} hears nothing: {phone.log()}"
        time.sleep(0.02)


def place_of(row: Row, side: str = "") -> tuple[str, ...]:
    """Where the row says that somebody was."""
    return tuple(row[f"{side}{name}"] for name in ("country", "region", "site", "location_source"))


def assert_right(row: Row, each: Call) -> None:
    """What ``calls`` says of one call."""
    assert (row["outcome"], row["sip_status"], row["ended_by"], row["end_cause"], row["devices"]) == (
        "answered", 200, each.ended_by, "bye", 1
    ), f"{each}: {row}"  # fmt: skip
    assert row["confirmed_at"] is not None
    assert row["end_uncertainty_ms"] is None
    # Both say that it is up after it was answered, and that it is over after it has ended.
    least, most = (each.hung_up - each.up) * 1000, (each.over - each.dialled) * 1000
    assert least - 2 <= row["talk_ms"] <= most + 2, f"{each}: {row}"
    assert (row["video"], row["encrypted"], row["video_ms"]) == (1, 0, row["talk_ms"])
    for side, kind in (("caller", each.caller), ("callee", each.callee)):
        assert row[f"{side}_transport"] == kind.transport.upper(), f"{each}: {row}"
        assert row[f"{side}_network"] == NETWORKS[kind.family]
        assert place_of(row, f"{side}_") == SITES[kind.family]


def assert_media(server: Server, call_id: str, each: Call) -> None:
    """The streams of one call, and what the relay reported of them where it was needed, which is nowhere else."""
    media = server.rows(
        "SELECT kind, codec, accepted, direction, early FROM call_media WHERE call = ? ORDER BY stream", call_id
    )
    audio = "opus" if each.caller.agent is each.callee.agent is Linphone else "PCMU"
    assert media == [
        {"kind": kind, "codec": codec, "accepted": 1, "direction": "sendrecv", "early": 0}
        for kind, codec in (("audio", audio), ("video", "VP8"))
    ], f"{each}: {media}"
    reports = server.rows(
        "SELECT side, media_kind FROM quality_reports"
        " WHERE call = ? AND source = 'relay' AND direction = 'remote' AND packets_received > 0",
        call_id,
    )
    sent = {(row["side"], row["media_kind"]) for row in reports}
    assert len(sent) == len(reports)
    # linphone's picture comes once a second, so there may have been none.
    sides = {"caller": each.caller, "callee": each.callee}
    least = {(side, "audio") for side in sides} | {(side, "video") for side in sides if sides[side].agent is Baresip}
    assert (sent >= least) if each.caller.family != each.callee.family else not sent, f"{each}: {reports}"
