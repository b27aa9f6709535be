"""Ways back over UDP: what is learned of them, and what our Record-Route says of them."""

from __future__ import annotations

import pytest

from sipserver.proxy.effects import Forward, Learn
from sipserver.proxy.plan import Target
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.proxy.ways import FLOW_PARAM, Way, seal, unseal
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import Effect
from sipserver.sip.message import Request
from support.proxy import KEY, MINTER, Driver, flow, plan, request

PRIVATE = "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKcaller"
NATTED = Target("sip:bob@10.0.0.9:5060", transport="UDP", host="192.0.2.20", port=40_000, local="x", flow_only=True)
PLAIN = Target("sip:bob@192.0.2.20:5060")


def invite(contact: str, *lines: str, via: str = PRIVATE) -> Request:
    made = request("INVITE", "sip:bob@example.test", *lines, via=via)
    position = made.names.index("contact")
    made.replace_line(position, f"Contact: <{contact}>")
    return made


def route(sent: OutgoingRequest) -> str:
    line, *_ = [each for each in sent.lines if each.startswith("Record-Route")]
    return line


def learned(effects: list[Effect]) -> list[tuple[str, str]]:
    return [(each.side, each.hop) for each in effects if isinstance(each, Learn)]


def run(contact: str, target: Target, *lines: str, via: str = PRIVATE) -> tuple[Driver, str]:
    """An INVITE over UDP with this Contact for this target; our Record-Route in it."""
    driver = Driver(invite(contact, *lines, via=via), plan([target]))
    happened = driver.start()
    (sent,) = [each.request for each in happened if isinstance(each, Forward)]
    return driver, route(sent)


def test_ways_open_for_their_call_alone() -> None:
    token = seal(MINTER.sealer, KEY, flow("192.0.2.7", 40_000), flow("2001:db8::7", 41_000))
    text = token.removeprefix(f";{FLOW_PARAM}=")
    assert unseal(MINTER.sealer, KEY, text) == {
        CALLER: Way("192.0.2.7", 40_000, "192.0.2.10:5060"), CALLEE: Way("2001:db8::7", 41_000, "192.0.2.10:5060"),
    }  # fmt: skip
    assert unseal(MINTER.sealer, KEY[::-1], text) == {}
    assert unseal(MINTER.sealer, KEY, "nonsense") == {}


def test_endpoints_that_say_where_they_are_need_no_flow() -> None:
    driver, line = run("sip:alice@192.0.2.1:5070", PLAIN, via="SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKcaller")
    driver.answer(0, 200, "Contact: <sip:bob@192.0.2.20:5060>")
    assert FLOW_PARAM + "=" not in line
    assert learned(driver.log) == []


@pytest.mark.parametrize(
    "contact", ["sip:alice@10.0.0.5:5060", "sip:alice@192.0.2.1:5070;ob", "sip:alice@example.test;gr=urn:x"]
)
def test_caller_that_only_its_flow_leads_to_is_remembered(contact: str) -> None:
    driver, line = run(contact, PLAIN)
    assert learned(driver.log) == [(CALLER, contact)]
    token = line.partition(f";{FLOW_PARAM}=")[2].rstrip(">")
    assert unseal(MINTER.sealer, KEY, token) == {CALLER: Way("192.0.2.1", 5070, "192.0.2.10:5060")}


def test_caller_behind_a_proxy_is_reached_through_that() -> None:
    for line in ("Record-Route: <sip:192.0.2.1;lr>", "Via: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK0"):
        driver, _ = run("sip:alice@10.0.0.5:5060", PLAIN, line)
        assert learned(driver.log) == []


def test_callee_that_only_its_flow_leads_to_is_remembered() -> None:
    driver, line = run("sip:alice@192.0.2.1:5070", NATTED, via="SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKcaller")
    driver.answer(0, 200, "Contact: <sip:bob@10.0.0.9:5062>")
    assert learned(driver.log) == [(CALLEE, "sip:bob@10.0.0.9:5062")]
    token = line.partition(f";{FLOW_PARAM}=")[2].rstrip(">")
    assert list(unseal(MINTER.sealer, KEY, token)) == [CALLEE]
