"""The request as it leaves (proxy/forward.py, RFC 3261 §16.6)."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.proxy.forward import forward, next_hop, request_uri, stateless
from sipserver.proxy.plan import Target
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from support.proxy import KEY, MINTER, flow, plan, request

BOB = Target("sip:bob@192.0.2.20:5060")


def sent(
    message: Request, target: Target = BOB, out: Flow | None = None, breadth: int | None = None, **changes: Any
) -> OutgoingRequest:
    """The request forwarded to a target over UDP; ``changes`` are made to the plan."""
    made = plan([target], **changes)
    return forward(message, made, target, flow(), out or flow("192.0.2.20"), "rnd", MINTER, KEY, breadth)


def values(forwarded: OutgoingRequest, name: str) -> list[str]:
    """The values of one header."""
    return [line.partition(": ")[2] for line in forwarded.lines if line.lower().startswith(name.lower() + ":")]


def test_untouched_lines_and_body_leave_byte_for_byte() -> None:
    odd = (
        "s :  caf\xc3\xa9\r\n  folded\tline  ", 'X-Unknown: "a,b" <c>;d', "l2: z", "Date: not a date", "v2:x",
        "Record-Route: <sip:before;lr>",
    )  # fmt: skip
    message = request("INVITE", "sip:bob@example.test", *odd, body=b"\x00\xff\r\nbody")
    data = sent(message).data
    for line in odd:
        assert f"\r\n{line}\r\n".encode("latin-1") in data
    assert data.endswith(b"\r\n\r\n\x00\xff\r\nbody")


def test_request_line_has_the_target_and_our_via_stands_on_top() -> None:
    forwarded = sent(request())
    lines = forwarded.data.decode("latin-1").split("\r\n")
    assert lines[0] == "INVITE sip:bob@192.0.2.20:5060 SIP/2.0"
    assert lines[1] == "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKrnd.00000000"
    assert forwarded.branch == "z9hG4bKrnd.00000000"
    assert values(forwarded, "via")[1] == "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKcaller"


@pytest.mark.parametrize(
    ("contact", "allowed"),
    [
        ("sip:bob@h?Subject=x&Route=%3Csip:evil%3E", "sip:bob@h"),
        ("sip:bo?b@h;transport=tcp", "sip:bo?b@h;transport=tcp"),
        ("sip:bob@h;METHOD=INVITE;ob", "sip:bob@h;ob"),
        ("sip:h;method=BYE?a=b", "sip:h"),
        ("sip:;method=a@h", "sip:;method=a@h"),
    ],
)
def test_what_a_request_uri_may_not_have_is_taken_off(contact: str, allowed: str) -> None:
    assert request_uri(contact) == allowed


def test_hops_are_counted_down_in_place() -> None:
    message = request()
    forwarded = sent(message, max_forwards=41)
    assert values(forwarded, "max-forwards") == ["41"]
    assert forwarded.lines.index("Max-Forwards: 41") > forwarded.lines.index("Call-ID: call-1")


def test_hops_are_written_where_there_were_none() -> None:
    assert values(sent(request(max_forwards=None), max_forwards=70), "max-forwards") == ["70"]


def test_breadth_is_always_written_once() -> None:
    assert values(sent(request()), "max-breadth") == ["60"]
    twice = request("INVITE", "sip:bob@example.test", "Max-Breadth: 7", "max-breadth: 8")
    assert values(sent(twice, breadth=7), "max-breadth") == ["7"]


def test_branch_gets_its_share_of_the_breadth() -> None:
    for extra in ((), ("Max-Breadth: 60",)):
        forwarded = sent(request("INVITE", "sip:bob@example.test", *extra), breadth=20)
        assert values(forwarded, "max-breadth") == ["20"]


def test_one_branchs_share_does_not_show_in_another() -> None:
    message, made = request(), plan([BOB])
    first = forward(message, made, BOB, flow(), flow(), "a", MINTER, KEY, 3)
    second = forward(message, made, BOB, flow(), flow(), "b", MINTER, KEY)
    assert (values(first, "max-breadth"), values(second, "max-breadth")) == (["3"], ["60"])


def test_record_route_stands_before_those_of_others() -> None:
    forwarded = sent(request("INVITE", "sip:bob@example.test", "Record-Route: <sip:before;lr>"))
    token = MINTER.token(KEY, "call-1", "from1")
    assert values(forwarded, "record-route") == [f"<sip:192.0.2.10:5060;lr;vc={token}>", "<sip:before;lr>"]


def test_two_record_routes_where_the_transport_changes() -> None:
    forwarded = sent(request(), out=flow("192.0.2.20", transport="TCP"))
    assert ["transport=tcp" in value for value in values(forwarded, "record-route")] == [True, False]


def test_no_record_route_where_no_dialog_begins() -> None:
    assert values(sent(request("MESSAGE"), record_route=False), "record-route") == []


@pytest.mark.parametrize(("side", "from_tag", "to_tag"), [(CALLER, "from1", "to1"), (CALLEE, "to1", "from1")])
def test_record_route_inside_a_dialog_carries_that_dialogs_token(side: str, from_tag: str, to_tag: str) -> None:
    message = request("UPDATE", from_=f"<sip:a@h>;tag={from_tag}", to=f"<sip:b@h>;tag={to_tag}")
    forwarded = sent(message, dialog=(KEY, side))
    token = MINTER.token(KEY, "call-1", "from1")
    assert values(forwarded, "record-route") == [f"<sip:192.0.2.10:5060;lr;vc={token}>"]


def test_identity_headers_of_untrusted_senders_are_dropped() -> None:
    asserted = "P-Asserted-Identity: <sip:boss@example.test>", "P-Preferred-Identity: <sip:boss@example.test>"
    forwarded = sent(request("INVITE", "sip:bob@example.test", *asserted))
    assert not [line for line in forwarded.lines if "boss" in line]


def test_access_network_of_an_endpoint_is_nobodys_business_further_on() -> None:
    line = "P-Access-Network-Info: 3GPP-GERAN;cgi-3gpp=2320112345;network-provided"
    assert not values(sent(request("INVITE", "sip:bob@example.test", line)), "p-access-network-info")


def test_consumed_credentials_are_dropped_and_others_stay() -> None:
    message = request("INVITE", "sip:bob@example.test", "Proxy-Authorization: ours", "Proxy-Authorization: theirs")
    forwarded = sent(message, dropped=(message.names.index("proxy-authorization"),))
    assert values(forwarded, "proxy-authorization") == ["theirs"]


def test_authorization_stays() -> None:
    assert values(sent(request("INVITE", "sip:bob@example.test", "Authorization: x")), "authorization") == ["x"]


def test_path_becomes_route_before_what_is_left_of_route() -> None:
    target = Target("sip:bob@192.0.2.20", path=("<sip:edge;lr>", "sip:inner;lr"))
    routes = ["<sip:after;lr>"]
    forwarded = sent(request("INVITE", "sip:bob@example.test", "Route: <sip:gone;lr>"), target, routes=routes)
    assert values(forwarded, "route") == ["<sip:edge;lr>", "<sip:inner;lr>", "<sip:after;lr>"]
    assert forwarded.uri_text == "sip:bob@192.0.2.20"
    assert next_hop(plan([target], routes=routes), target).host == "edge"


def test_strict_router_gets_itself_as_request_uri() -> None:
    routes = ["<sip:strict;x=y>", "<sip:after;lr>"]
    forwarded = sent(request(), routes=routes)
    assert forwarded.uri_text == "sip:strict;x=y"
    assert values(forwarded, "route") == ["<sip:after;lr>", "<sip:bob@192.0.2.20:5060>"]
    assert next_hop(plan([BOB], routes=routes), BOB).host == "strict"


def test_next_hop_is_the_request_uri_where_there_is_no_route() -> None:
    hop = next_hop(plan([BOB]), BOB)
    assert (hop.host, hop.port) == ("192.0.2.20", 5060)


@pytest.mark.parametrize(
    "target", [Target("sip:bob@"), Target("sip:b@h", path=("<tel:+1555>",)), Target("b", path=("<",))]
)
def test_broken_next_hop_raises(target: Target) -> None:
    with pytest.raises(SipError):
        next_hop(plan([target]), target)


def test_content_length_is_written_for_streams() -> None:
    message = request(body=b"12345")
    position = message.names.index("content-length")
    del message.lines[position], message.names[position]
    assert values(sent(message), "content-length") == []
    assert values(sent(message, out=flow(transport="TCP")), "content-length") == ["5"]
    assert values(sent(request(body=b"123"), out=flow(transport="TCP")), "content-length") == ["3"]


def test_ack_of_a_success_is_forwarded_without_record_route() -> None:
    ack = request("ACK", "sip:bob@192.0.2.20", to="<sip:bob@example.test>;tag=to1")
    made = plan([Target("sip:bob@192.0.2.20")], dialog=(KEY, CALLER))
    forwarded = stateless(ack, made, flow(), flow("192.0.2.20"), "rnd")
    assert (forwarded.method, forwarded.uri_text) == ("ACK", "sip:bob@192.0.2.20")
    assert values(forwarded, "record-route") == []
    assert forwarded.branch == "z9hG4bKrnd.00000000"
