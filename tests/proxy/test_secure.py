"""SIPS goes over TLS or not at all (proxy/secure.py, and where it is used)."""

from __future__ import annotations

import pytest

from sipserver.proxy.effects import Forward, NeedFlow
from sipserver.proxy.forward import forward
from sipserver.proxy.plan import Plan, Target
from sipserver.proxy.record_route import record_route_lines
from sipserver.proxy.secure import may_leave
from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri
from support.proxy import KEY, MINTER, Driver, World, flow, kinds, plan, request, signed

SIPS_CONTACT = "<sips:alice@192.0.2.1:5071>"
TLS = flow(transport="TLS", sent_by="192.0.2.10:5061")
BOB = Target("sips:bob@192.0.2.20:5061", transport="TLS", host="192.0.2.20", port=40_000, connection=7)
TOKEN = MINTER.token(KEY, "call-1", "from1")


def asked_for(
    uri: str = "sips:bob@example.test", contact: str = SIPS_CONTACT, *lines: str, method: str = "INVITE"
) -> Plan:
    """The plan for a call of alice's over TLS."""
    return World(bob=(BOB, Target("sip:bob@192.0.2.21"))).admit(
        signed(request(method, uri, *lines, contact=contact)), TLS
    )


def test_sips_call_goes_to_sips_contacts_alone() -> None:
    made = asked_for()
    assert made.secure
    assert made.groups == [[BOB]]


def test_sip_call_goes_to_every_contact() -> None:
    made = asked_for("sip:bob@example.test", "<sip:alice@192.0.2.1>")
    assert not made.secure
    assert sum(map(len, made.groups)) == 2


def test_sips_call_to_nobody_who_has_tls_finds_nobody() -> None:
    with pytest.raises(SipError) as refusal:
        World(bob=(Target("sip:bob@192.0.2.21;transport=tls"),)).admit(
            signed(request(uri="sips:bob@example.test", contact=SIPS_CONTACT)), TLS
        )
    assert refusal.value.status == 480


@pytest.mark.parametrize(
    "contact", ["<sip:alice@192.0.2.1>", "<sips:a@192.0.2.1>, <sip:b@192.0.2.1>", "<http://x>", "<"]
)
def test_who_asks_by_sips_is_reached_by_sips(contact: str) -> None:
    with pytest.raises(SipError) as refusal:
        asked_for(contact=contact)
    assert refusal.value.status == 400


def test_sips_to_this_server_by_its_address_is_for_us() -> None:
    made = World().admit(signed(request("OPTIONS", "sips:192.0.2.10:5060", contact=SIPS_CONTACT)), TLS)
    assert made.kind == "answer"


@pytest.mark.parametrize(
    ("secure", "hop", "transport", "may"),
    [
        (True, "sip:bob@192.0.2.20", "UDP", False),
        (True, "sip:bob@192.0.2.20", "TCP", False),
        (True, "sips:bob@192.0.2.20", "TLS", True),
        (True, "sip:bob@x.invalid;transport=ws", "WSS", True),
        (True, "sip:bob@x.invalid;transport=ws", "WS", False),
        (False, "sips:bob@192.0.2.20", "TCP", False),
        (False, "sips:bob@192.0.2.20", "TLS", True),
        (False, "sip:bob@192.0.2.20", "UDP", True),
    ],
)
def test_what_is_weaker_than_tls_carries_no_sips(secure: bool, hop: str, transport: str, may: bool) -> None:
    assert may_leave(secure, Uri.parse(hop), flow(transport=transport)) is may


@pytest.mark.parametrize("secure", [True, False])
def test_branch_of_sips_without_tls_fails_before_anything_is_sent(secure: bool) -> None:
    target = Target("sip:bob@192.0.2.20") if secure else BOB
    driver = Driver(request(), plan([target], secure=secure), resolve=False)
    driver.start()
    happened = driver.do(driver.context.on_flow(0, flow("192.0.2.20", 5060)))
    assert kinds(happened)[0] == "NoHop"
    assert driver.statuses() == [100, 480]
    assert not [each for each in driver.log if isinstance(each, Forward)]


def test_next_target_is_tried_where_one_has_no_tls() -> None:
    driver = Driver(request(), plan([BOB], [Target("sip:bob@192.0.2.21")]), resolve=False)
    driver.start()
    happened = driver.do(driver.context.on_flow(0, flow("192.0.2.20", 5060, "TCP")))
    assert [each.uri.raw for each in happened if isinstance(each, NeedFlow)] == ["sip:bob@192.0.2.21"]


def test_request_inside_a_sips_dialog_keeps_to_tls_whatever_its_target() -> None:
    route = f"Route: <sips:192.0.2.10:5061;lr;vc={TOKEN}>"
    bye = request("BYE", "sip:bob@192.0.2.20", route, to="<sip:bob@example.test>;tag=to1")
    assert World().admit(bye, TLS).secure


def test_sip_caller_may_refresh_a_call_whose_other_side_is_sips() -> None:
    route = f"Route: <sip:192.0.2.10:5060;lr;vc={TOKEN}>"
    made = World().admit(request("INVITE", "sips:bob@192.0.2.20", route, to="<sip:bob@example.test>;tag=to1"))
    assert made.secure


def test_route_that_faces_the_other_side_decides() -> None:
    routes = f"Route: <sips:192.0.2.10:5061;lr;vc={TOKEN}>, <sip:192.0.2.10:5060;lr;vc={TOKEN}>"
    bye = request("BYE", "sip:bob@192.0.2.20", routes, to="<sip:bob@example.test>;tag=to1")
    assert not World().admit(bye, TLS).secure


def test_sips_contact_that_is_called_by_sip_is_called_so_over_tls() -> None:
    out = flow("192.0.2.20", 40_000, "TLS", "192.0.2.10:5061")
    sent = forward(request(), plan([BOB]), BOB, flow(), out, "b", MINTER, KEY)
    assert sent.uri_text == "sip:bob@192.0.2.20:5061"
    secure = forward(request(), plan([BOB], secure=True), BOB, TLS, out, "b", MINTER, KEY)
    assert secure.uri_text == BOB.uri_text


def test_each_side_of_sips_gets_the_route_that_it_can_use() -> None:
    out = flow("192.0.2.20", 40_000, "WSS", "192.0.2.10:443")
    assert record_route_lines(TLS, TLS, "t", is_secure=True) == ["Record-Route: <sips:192.0.2.10:5061;lr;vc=t>"]
    assert record_route_lines(out, TLS, "t", is_secure=True) == [
        "Record-Route: <sips:192.0.2.10:443;transport=ws;lr;vc=t>", "Record-Route: <sips:192.0.2.10:5061;lr;vc=t>",
    ]  # fmt: skip
    # It came over UDP: no promise is made to that side.
    assert record_route_lines(TLS, flow(), "t", is_secure=True) == [
        "Record-Route: <sips:192.0.2.10:5061;lr;vc=t>", "Record-Route: <sip:192.0.2.10:5060;lr;vc=t>",
    ]  # fmt: skip


def test_sip_over_tls_is_recorded_as_tls() -> None:
    assert record_route_lines(TLS, flow(), "t") == [
        "Record-Route: <sip:192.0.2.10:5061;transport=tls;lr;vc=t>", "Record-Route: <sip:192.0.2.10:5060;lr;vc=t>",
    ]  # fmt: skip
