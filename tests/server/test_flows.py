"""Which flow a request goes out on."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.plan import Target
from sipserver.proxy.record_route import CALLEE
from sipserver.server.dead_targets import DeadTargets
from sipserver.server.flows import FlowFinder
from sipserver.sip.flow import Flow
from sipserver.sip.locate import Question, Records
from sipserver.sip.uri import Uri
from sipserver.transport.nameservers import Answer
from sipserver.transport.resolver import Resolver, ResolverSettings
from support.inprocess import FakeTransports
from support.transport import Recorder

NAMES = {"two.example": ["192.0.2.21", "192.0.2.22"], "none.example": []}


async def ask(question: Question) -> Answer:
    """Names that the test knows."""
    name, kind = question
    return Answer(Records(addresses=NAMES[name] if kind == "A" else []), 60)


def resolver() -> Resolver:
    usable = frozenset((("UDP", 4), ("TCP", 4), ("TLS", 4)))
    return Resolver(Recorder(), ResolverSettings(), ask, lambda: usable, lambda: 0.0)


def dead_targets() -> DeadTargets:
    return DeadTargets(60, lambda event, place, seconds: None)


async def until_found(bench: Bench) -> None:
    """Wait for the answer that has to be looked up."""
    async with asyncio.timeout(5):
        while not bench.found:
            turn = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turn.set_result, None)
            await turn


class Bench:
    """A finder over fake sockets."""

    def __init__(self) -> None:
        self.transports, self.dialogs = FakeTransports(), DialogTable()
        self.dead = dead_targets()
        self.finder = FlowFinder(self.transports, resolver(), self.dialogs, self.dead, lambda: 1000.0)
        self.found: list[Flow | None] = []

    def find(
        self, uri: str, target: Target | None = None, dialog: tuple[str, str] | None = None, *, reliable: bool = False
    ) -> str:
        """What is found at once."""
        self.finder.find(Uri.parse(uri), target, dialog, reliable=reliable, found=self.found.append)
        flow = self.found[-1]
        return flow.label if flow is not None else ""


@pytest.fixture
def bench() -> Bench:
    return Bench()


def registered(flow: Flow, **fields: object) -> Target:
    return Target(
        "sip:bob@10.0.0.1;transport=tcp", transport=flow.transport, host=flow.host, port=flow.port,
        connection=flow.connection, path=("<sip:edge.example;lr>",) if fields else (),
    )  # fmt: skip


def test_contact_over_udp_is_reached_where_its_uri_says(bench: Bench) -> None:
    assert bench.find("sip:bob@192.0.2.9:5071") == "UDP 192.0.2.9:5071"
    assert bench.find("sip:bob@192.0.2.9") == "UDP 192.0.2.9:5060"


def test_contact_that_registered_over_a_connection_is_reached_over_it(bench: Bench) -> None:
    flow = bench.transports.open("192.0.2.9", 40_000)
    assert bench.find("sip:bob@10.0.0.1;transport=tcp", registered(flow)) == "TCP 192.0.2.9:40000"
    assert bench.found == [flow]


def test_connection_that_is_gone_is_not_mistaken_for_another(bench: Bench) -> None:
    target = registered(bench.transports.open("192.0.2.9", 40_000))
    bench.transports.alive.clear()
    bench.transports.open("192.0.2.9", 40_000)
    assert bench.find("sip:bob@10.0.0.1;transport=tcp", target) == ""
    bench.transports.accepting.add(("10.0.0.1", 5060))
    assert bench.find("sip:bob@10.0.0.1;transport=tcp", target) == "TCP 10.0.0.1:5060"


def test_contact_behind_another_proxy_is_reached_by_its_path(bench: Bench) -> None:
    target = registered(bench.transports.open("192.0.2.9", 40_000), path=True)
    assert bench.find("sip:192.0.2.50", target) == "UDP 192.0.2.50:5060"


def test_side_of_a_dialog_is_reached_over_the_connection_it_talked_on(bench: Bench) -> None:
    flow = bench.transports.open("192.0.2.9", 40_000)
    uri = "sip:bob@browser.invalid;transport=tcp"
    bench.dialogs.learn("k", CALLEE, flow, uri)
    assert bench.find(uri, None, ("k", CALLEE)) == "TCP 192.0.2.9:40000"
    assert bench.find("sip:192.0.2.77", None, ("k", CALLEE)) == "UDP 192.0.2.77:5060"


def test_stream_is_tried_where_one_is_wanted(bench: Bench) -> None:
    assert bench.find("sip:bob@192.0.2.9", reliable=True) == ""
    bench.transports.accepting.add(("192.0.2.9", 5060))
    assert bench.find("sip:bob@192.0.2.9", reliable=True) == "TCP 192.0.2.9:5060"


def test_sips_is_reached_over_tls_with_the_right_certificate_alone(bench: Bench) -> None:
    bench.transports.accepting.add(("192.0.2.9", 5061))
    bench.transports.proving["192.0.2.9", 5061] = "192.0.2.9"
    assert bench.find("sips:bob@192.0.2.9") == "TLS 192.0.2.9:5061"
    bench.transports.proving["192.0.2.9", 5061] = "far.example"
    assert bench.find("sips:bob@192.0.2.9") == ""


def test_connection_without_tls_is_never_taken_for_sips(bench: Bench) -> None:
    flow = bench.transports.open("192.0.2.9", 40_000)
    bench.dialogs.learn("key", CALLEE, flow, "sips:bob@192.0.2.9")
    assert bench.find("sips:bob@192.0.2.9", dialog=("key", CALLEE)) == ""
    assert bench.find("sips:bob@192.0.2.9", registered(flow)) == ""
    secure = bench.transports.open("192.0.2.9", 40_001, "TLS")
    assert bench.find("sips:bob@192.0.2.9", registered(secure)) == "TLS 192.0.2.9:40001"


def test_what_cannot_be_spoken_is_not_reached(bench: Bench) -> None:
    for uri in ("sips:bob@192.0.2.9", "sip:bob@192.0.2.9;transport=sctp", "tel:+1"):
        assert bench.find(uri) == ""


async def test_every_address_of_a_name_is_tried(bench: Bench) -> None:
    bench.transports.accepting.add(("192.0.2.22", 5060))
    bench.finder.find(
        Uri.parse("sip:two.example:5060;transport=tcp"), None, None, reliable=False, found=bench.found.append
    )
    assert bench.found == []
    await until_found(bench)
    (flow,) = bench.found
    assert flow is not None
    assert flow.label == "TCP 192.0.2.22:5060"


async def test_name_without_address_is_not_reached(bench: Bench) -> None:
    bench.finder.find(Uri.parse("sip:none.example:5060"), None, None, reliable=False, found=bench.found.append)
    await until_found(bench)
    assert bench.found == [None]


def test_udp_without_a_listener_for_its_ip_version_is_passed_over(bench: Bench) -> None:
    class OnlyTcp(FakeTransports):
        def flow_for(
            self, transport: str, host: str, port: int, connection: int = 0, *, listener: int | None = None,
            local_host: str = "",
        ) -> Flow | None:  # fmt: skip
            return None

    finder = FlowFinder(OnlyTcp(), resolver(), bench.dialogs, bench.dead, lambda: 1000.0)
    finder.find(Uri.parse("sip:bob@[2001:db8::1]"), None, None, reliable=False, found=bench.found.append)
    assert bench.found == [None]
