"""Flows, NATs and GRUUs at the registrar (RFC 5626 §6, RFC 5627 §5)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sipserver.registrar.binding import Binding
from sipserver.sip.flow import Flow
from sipserver.sip.uri import Uri
from sipserver.sip.values import Address
from support.registrar import AOR, FLOW, Registrar, refusal

DEVICE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000A>"'
GR = "urn:uuid:00000000-0000-1000-8000-00000000000a"
TCP = Flow("TCP", "192.0.2.7", 40_000, "192.0.2.1:5060", True, connection=7)
PROXY_VIA = "Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bK2"
OB = "Path: <sip:token@edge.example;lr;ob>"
OUTBOUND = "Supported: path, outbound"


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


def contact(host: str = "192.0.2.7:5062", *params: str) -> str:
    return ";".join((f"Contact: <sip:alice@{host}>", *params))


def bound(registrar: Registrar) -> Binding:
    (binding,) = registrar.bindings()
    return binding


def starting(headers: list[str], name: str) -> list[str]:
    return [each.partition(": ")[2] for each in headers if each.startswith(f"{name}:")]


# ---- which way an endpoint is reached


def test_endpoint_that_says_the_truth_is_reached_as_it_says(registrar: Registrar) -> None:
    registrar.send(contact())
    assert (bound(registrar).natted, bound(registrar).flow_only) == (False, False)


def test_endpoint_behind_a_nat_is_reached_over_its_flow_and_gets_its_contact_back(registrar: Registrar) -> None:
    registered = registrar.send(contact("10.0.0.5:5062"))
    binding = bound(registrar)
    assert (binding.natted, binding.flow_only, binding.host, binding.port) == (True, True, "192.0.2.7", 5062)
    assert binding.local == FLOW.sent_by
    assert starting(registered.headers, "Contact") == ["<sip:alice@10.0.0.5:5062>;expires=3600"]


def test_contact_that_came_over_a_connection_is_reached_over_it(registrar: Registrar) -> None:
    registrar.send(contact(), flow=TCP)
    binding = bound(registrar)
    assert (binding.natted, binding.flow_only, binding.is_connected, binding.connection) == (False, True, True, 7)


def test_endpoint_behind_a_proxy_is_reached_by_its_path_or_contact(registrar: Registrar) -> None:
    registrar.send(contact("10.0.0.5", DEVICE), PROXY_VIA, flow=TCP)
    assert (bound(registrar).natted, bound(registrar).flow_only) == (False, False)
    registrar.send(contact("10.0.0.5", DEVICE), "Path: <sip:edge.example;lr>", "Supported: path", cseq=2, flow=TCP)
    assert (bound(registrar).natted, bound(registrar).flow_only) == (False, False)


# ---- RFC 5626 §6


@pytest.mark.parametrize(("flow", "timer"), [(FLOW, "25"), (TCP, "120")])
def test_flow_is_registered_and_said_so(flow: Flow, timer: str) -> None:
    registrar = Registrar(flow_timer=120, flow_timer_udp=25)
    registered = registrar.send(contact("192.0.2.7:5062", DEVICE, "reg-id=1"), OUTBOUND, flow=flow)
    assert starting(registered.headers, "Require") == ["outbound"]
    assert starting(registered.headers, "Flow-Timer") == [timer]
    assert (bound(registrar).reg_id, bound(registrar).flow_only) == (1, True)


def test_endpoint_that_does_not_know_of_flows_is_told_nothing(registrar: Registrar) -> None:
    registered = registrar.send(contact("192.0.2.7", DEVICE, "reg-id=1"))
    assert bound(registrar).reg_id == 1
    assert starting(registered.headers, "Require") == starting(registered.headers, "Flow-Timer") == []
    registered = registrar.send(contact("192.0.2.7", DEVICE), OUTBOUND, cseq=2)
    assert starting(registered.headers, "Require") == []


def test_two_flows_of_a_device_stand_beside_each_other(registrar: Registrar) -> None:
    other = Flow("TCP", "192.0.2.7", 40_001, "192.0.2.1:5060", True, connection=8)
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=1"), OUTBOUND, flow=TCP)
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=2"), OUTBOUND, flow=other, cseq=2)
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=1"), OUTBOUND, flow=other, cseq=3)
    assert [(each.reg_id, each.connection) for each in registrar.bindings()] == [(1, 8), (2, 8)]


def test_flow_through_a_proxy_that_keeps_it(registrar: Registrar) -> None:
    registered = registrar.send(contact("10.0.0.5", DEVICE, "reg-id=1"), PROXY_VIA, OB, OUTBOUND)
    assert starting(registered.headers, "Require") == ["outbound"]
    # What is between proxy and endpoint is theirs.
    assert starting(registered.headers, "Flow-Timer") == []
    assert (bound(registrar).reg_id, bound(registrar).path) == (1, ("<sip:token@edge.example;lr;ob>",))


@pytest.mark.parametrize("path", ["Path: <sip:edge.example;lr>", "Subject: no path"])
def test_flow_through_a_proxy_that_keeps_none_is_refused(registrar: Registrar, path: str) -> None:
    error = refusal(registrar, contact("10.0.0.5", DEVICE, "reg-id=1"), PROXY_VIA, path, OUTBOUND)
    assert (error.status, error.reason) == (439, "First Hop Lacks Outbound Support")


def test_reg_id_through_a_proxy_is_ignored_where_nobody_asked_for_flows(registrar: Registrar) -> None:
    registrar.send(contact("10.0.0.5", DEVICE, "reg-id=1"), PROXY_VIA)
    assert bound(registrar).reg_id is None


# ---- RFC 5627 §5


def names(headers: list[str]) -> Iterator[tuple[str, str]]:
    (value,) = starting(headers, "Contact")
    for each in value.split(", "):
        params = Address.parse(each).params
        yield params.get("pub-gruu") or "", params.get("temp-gruu") or ""


def test_devices_get_their_names(registrar: Registrar) -> None:
    registered = registrar.send(contact("192.0.2.7", DEVICE), "Supported: gruu")
    ((public, temporary),) = names(registered.headers)
    assert public == f"sip:{AOR};gr={GR}"
    found = registrar.gruus.read(Uri.parse(temporary))
    assert found is not None
    assert found.device == registrar.gruus.device(bound(registrar).instance or "")
    assert starting(registered.headers, "Require") == starting(registered.headers, "Supported") == []


def test_each_registration_gets_another_temporary_name(registrar: Registrar) -> None:
    found = set()
    for number in (1, 2, 3):
        registered = registrar.send(contact("192.0.2.7", DEVICE), "Supported: gruu", cseq=number)
        found.add(next(names(registered.headers))[1])
    assert len(found) == 3


@pytest.mark.parametrize("lines", [(contact("192.0.2.7"), "Supported: gruu"), (contact("192.0.2.7", DEVICE),)])
def test_who_is_no_device_or_does_not_ask_gets_no_names(registrar: Registrar, lines: tuple[str, ...]) -> None:
    assert list(names(registrar.send(*lines).headers)) == [("", "")]


def test_names_that_an_endpoint_makes_up_are_ignored(registrar: Registrar) -> None:
    registered = registrar.send(contact("192.0.2.7", DEVICE, 'pub-gruu="sip:x@y"', 'temp-gruu="sip:z@y"', "a=b"))
    assert starting(registered.headers, "Contact") == [f"<sip:alice@192.0.2.7>;{DEVICE};a=b;expires=3600"]


def test_gruu_in_a_refused_or_looping_contact(registrar: Registrar) -> None:
    for looping in (f"sip:{AOR}", f"sip:{AOR};gr={GR}", "sip:tgruu.x@example.test;gr"):
        assert refusal(registrar, f"Contact: <{looping}>;{DEVICE}").status == 403


def test_another_call_id_ends_the_temporary_names_of_a_device(registrar: Registrar) -> None:
    registrar.send(contact("192.0.2.7", DEVICE))
    first = bound(registrar).gruu_since
    registrar.now += 60
    registrar.send(contact("192.0.2.8", DEVICE), cseq=2)
    assert bound(registrar).gruu_since == first
    registrar.send(contact("192.0.2.8", DEVICE), call_id="two")
    assert bound(registrar).gruu_since == registrar.now


def test_flows_of_a_device_share_when_their_names_are_good(registrar: Registrar) -> None:
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=1"), call_id="one")
    first = bound(registrar).gruu_since
    registrar.now += 60
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=2"), call_id="two")
    assert [each.gruu_since for each in registrar.bindings()] == [first, first]
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=1"), call_id="three")
    registrar.send(contact("192.0.2.7", DEVICE, "reg-id=2"), call_id="two", cseq=2)
    assert [each.gruu_since for each in registrar.bindings()] == [registrar.now, registrar.now]
