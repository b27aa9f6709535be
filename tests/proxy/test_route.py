"""Who is let through, and to whom (proxy/route.py, RFC 3261 §16.3 to §16.5)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sipserver.proxy.forward import forward
from sipserver.proxy.plan import ANSWER, FORWARD, CallPlaced, NeedTargets, Target
from sipserver.proxy.record_route import CALLEE, CALLER, Minter
from sipserver.proxy.route import _route_and_token
from sipserver.sip.effects import NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from support.proxy import DOMAIN, KEY, MINTER, World, flow, request, signed, targets

STRANGER = "<sip:eve@elsewhere.example>;tag=from1"
TOKEN = MINTER.token(KEY, "call-1", "from1")
MINTED = f"Route: <sip:192.0.2.10:5060;lr;vc={TOKEN}>"


def refusal(message: Request, world: World | None = None, **changes: Any) -> SipError:
    """The answer to a request that is not let through."""
    with pytest.raises(SipError) as caught:
        (world or World(bob=targets(1))).admit(message, **changes)
    return caught.value


def in_dialog(method: str, *extra: str, uri: str = "sip:bob@192.0.2.20", **more: Any) -> Request:
    """A request of the caller inside the dialog."""
    return request(method, uri, *extra, **({"to": "<sip:bob@example.test>;tag=to1"} | more))


# §16.3


@pytest.mark.parametrize("uri", ["http://example.test", "urn:service:sos", "mailto:bob@example.test"])
def test_unknown_scheme_is_416(uri: str) -> None:
    assert refusal(request("INVITE", uri)).status == 416


def test_no_hops_left_is_483() -> None:
    assert refusal(signed(request(max_forwards="0"))).status == 483


def test_options_with_no_hops_left_for_our_domain_is_answered_here() -> None:
    world = World(bob=targets(1))
    plan = world.admit(request("OPTIONS", from_=STRANGER, max_forwards="0"))
    assert plan.kind == ANSWER
    assert not world.of(NeedTargets)


def test_options_with_no_hops_left_for_elsewhere_is_483() -> None:
    assert refusal(request("OPTIONS", "sip:bob@elsewhere.example", max_forwards="0")).status == 483


def test_options_with_no_hops_left_to_a_number_is_483() -> None:
    assert refusal(request("OPTIONS", "tel:+15550100", max_forwards="0")).status == 483


def test_hops_are_counted_down_and_70_where_none_are_given() -> None:
    assert World(bob=targets(1)).admit(signed(request(max_forwards="12"))).max_forwards == 11
    assert World(bob=targets(1)).admit(signed(request(max_forwards=None))).max_forwards == 70


def test_request_that_comes_back_unchanged_is_482() -> None:
    world = World(bob=targets(1))
    plan = world.admit(request(from_=STRANGER), inbound="anyone")
    sent = forward(request(from_=STRANGER), plan, plan.groups[0][0], flow(), flow(), "rnd", MINTER, KEY)
    again = request(from_=STRANGER, via=sent.lines[0].partition(": ")[2])
    assert refusal(again, inbound="anyone").status == 482


def test_request_that_comes_back_with_another_uri_spirals() -> None:
    world = World(bob=targets(1), carol=targets(1))
    plan = world.admit(request(from_=STRANGER), inbound="anyone")
    via = f"SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKrnd.{plan.loop}"
    assert world.admit(request("INVITE", "sip:carol@example.test", from_=STRANGER, via=via), inbound="anyone").groups


def test_via_of_another_server_of_this_kind_is_no_loop() -> None:
    world = World(bob=targets(1))
    plan = world.admit(request(from_=STRANGER), inbound="anyone", minter=Minter(b"theirs"))
    via = f"SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKrnd.{plan.loop}"
    assert world.admit(request(from_=STRANGER, via=via), inbound="anyone").groups


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("<sip:192.0.2.1;lr;vc=00ff>", "00ff"),
        ("<sip:192.0.2.1;vc=00ff;lr>", "00ff"),
        ("<sip:192.0.2.1;lr;vc=00ff;vf=x>", "00ff"),
        ("<sip:192.0.2.1;lr;VC=00ff>", "00ff"),
        ("<sip:192.0.2.1;lr>", None),
        ('";vc=00" <sip:192.0.2.1;lr>', None),
        ("<sip:192.0.2.1;lr>;vc=00ff", None),
        ("<sip:u;vc=00@192.0.2.1;lr>", None),
    ],
)
def test_token_of_a_route_is_found_however_it_is_written(value: str, token: str | None) -> None:
    uri, found = _route_and_token(value)
    assert (uri.host, "lr" in uri.params, found) == ("192.0.2.1", True, token)


def test_loop_part_does_not_vary_with_the_method() -> None:
    world = World(bob=targets(1))
    loops = {world.admit(signed(request(method)), outbound=True).loop for method in ("INVITE",)}
    loops |= {world.admit(request(method, from_=STRANGER), inbound="anyone").loop for method in ("INVITE", "MESSAGE")}
    assert len(loops) == 2


def test_no_breadth_left_is_440() -> None:
    assert refusal(request("INVITE", "sip:bob@example.test", "Max-Breadth: 0")).status == 440


@pytest.mark.parametrize(("line", "breadth"), [("X: y", 60), ("Max-Breadth: 7", 7), ("Max-Breadth: 900", 60)])
def test_breadth_is_the_incoming_one_up_to_ours(line: str, breadth: int) -> None:
    assert World(bob=targets(1)).admit(signed(request("INVITE", "sip:bob@example.test", line))).breadth == breadth


def test_unknown_proxy_require_is_420_and_names_what_is_unknown() -> None:
    error = refusal(request("INVITE", "sip:bob@example.test", "Proxy-Require: path, foo, sec-agree"))
    assert error.status == 420
    assert error.headers == ("Unsupported: foo, sec-agree",)


def test_known_proxy_require_passes() -> None:
    assert World(bob=targets(1)).admit(signed(request("INVITE", "sip:bob@example.test", "Proxy-Require: Path"))).groups


# §16.4


def test_route_that_names_our_listener_or_domain_is_taken_off() -> None:
    for route in ("<sip:192.0.2.10;lr>", "<sip:example.test;lr>", "<sip:EXAMPLE.test.:5080;lr>"):
        plan = World(bob=targets(1)).admit(signed(request("INVITE", "sip:bob@example.test", f"Route: {route}")))
        assert plan.routes == []


def test_both_of_our_routes_are_taken_off_and_others_stay() -> None:
    double = f"Route: <sip:192.0.2.10:5060;transport=tcp;lr;vc={TOKEN}>,<sip:192.0.2.10:5060;lr;vc={TOKEN}>,<sip:p;lr>"
    plan = World().admit(in_dialog("BYE", double))
    assert plan.routes == ["<sip:p;lr>"]
    assert plan.dialog == (KEY, CALLER)


def test_minted_route_is_ours_whatever_host_it_names() -> None:
    assert World().admit(in_dialog("BYE", f"Route: <sip:public.example;lr;vc={TOKEN}>")).dialog == (KEY, CALLER)


def test_preloaded_route_to_us_may_stand_before_the_minted_one() -> None:
    assert World().admit(in_dialog("BYE", "Route: <sip:192.0.2.10;lr>", MINTED)).dialog == (KEY, CALLER)


def test_route_of_another_call_on_the_same_path_is_visited_next() -> None:
    other = f"<sip:192.0.2.10:5060;lr;vc={MINTER.token('f' * 16, 'call-1', 'from1')}>"
    plan = World().admit(in_dialog("BYE", MINTED, f"Route: {other}"))
    assert plan.dialog == (KEY, CALLER)
    assert plan.routes == [other]


def test_strict_router_before_us_gets_the_last_route_as_request_uri() -> None:
    bye = in_dialog("BYE", "Route: <sip:p;lr>, <sip:bob@192.0.2.20>", uri=f"sip:192.0.2.10:5060;lr;vc={TOKEN}")
    plan = World().admit(bye)
    assert (plan.uri_text, plan.routes, plan.dialog) == ("sip:bob@192.0.2.20", ["<sip:p;lr>"], (KEY, CALLER))


def test_request_uri_with_a_token_that_is_not_ours_is_left_alone() -> None:
    bye = in_dialog("BYE", "Route: <sip:bob@192.0.2.20>", uri=f"sip:192.0.2.10:5060;lr;vc={'0' * 36}")
    assert refusal(bye).status == 403


@pytest.mark.parametrize("route", ["<sip:p", "<tel:+15550100>", "<sip:>"])
def test_broken_route_is_400(route: str) -> None:
    assert refusal(in_dialog("BYE", f"Route: {route}")).status == 400


# inside a dialog


def test_minted_route_lets_a_request_through_without_credentials() -> None:
    world = World()
    plan = world.admit(in_dialog("BYE", MINTED))
    assert (plan.kind, plan.dialog) == (FORWARD, (KEY, CALLER))
    assert [target.uri_text for target in plan.groups[0]] == ["sip:bob@192.0.2.20"]
    assert (plan.located, plan.record_route) == (False, False)
    assert world.asked == []


def test_callee_is_known_by_its_tag() -> None:
    bye = in_dialog(
        "BYE", MINTED, from_="<sip:bob@example.test>;tag=to1", to="<sip:alice@example.test>;tag=from1",
    )  # fmt: skip
    assert World().admit(bye).dialog == (KEY, CALLEE)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"])
def test_target_refreshes_are_recorded_again(method: str) -> None:
    assert World().admit(in_dialog(method, MINTED)).record_route


@pytest.mark.parametrize(
    "route",
    [
        "X-None: y",
        "Route: <sip:192.0.2.10;lr>",
        "Route: <sip:victim.example;lr>",
        f"Route: <sip:192.0.2.10;lr;vc={'0' * 36}>",
        f"Route: <sip:192.0.2.10;lr;vc={MINTER.token(KEY, 'call-2', 'from1')}>",
        f"Route: <sip:192.0.2.10;lr;vc={Minter(b'x').token(KEY, 'call-1', 'from1')}>",
        f"Route: <sip:victim.example;lr>, <sip:192.0.2.10;lr;vc={TOKEN}>",
    ],
)
@pytest.mark.parametrize("method", ["BYE", "INVITE", "ACK", "MESSAGE"])
def test_crafted_route_inside_a_dialog_is_403(method: str, route: str) -> None:
    world = World(bob=targets(1))
    assert refusal(in_dialog(method, route), world, inbound="anyone", outbound=True).status == 403
    assert world.asked == []


def test_crafted_token_outside_of_a_dialog_is_403() -> None:
    route = f"Route: <sip:192.0.2.10;lr;vc={'0' * 36}>"
    assert refusal(signed(request("INVITE", "sip:bob@example.test", route))).status == 403


def test_ack_outside_of_a_dialog_goes_nowhere() -> None:
    assert refusal(request("ACK")).status == 403


def test_request_inside_a_dialog_that_ends_at_this_server_is_404() -> None:
    assert refusal(in_dialog("BYE", MINTED, uri="sip:192.0.2.10")).status == 404


# authentication


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "PUBLISH", "BYE", "FOO", "REFER"])
@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_claim_of_our_address_is_challenged_whatever_the_method(method: str, user: str) -> None:
    world = World(bob=targets(1))
    error = refusal(request(method, from_=f"<sip:{user}@Example.Test>;tag=1"), world, inbound="anyone")
    assert error.status == 407
    assert 'realm="example.test"' in error.headers[0]
    assert error.headers[0].startswith("Proxy-Authenticate: Digest")
    assert world.asked == []


def test_wrong_password_is_407_and_nothing_is_looked_up() -> None:
    world = World(bob=targets(1))
    assert refusal(signed(request(), password="guessed"), world).status == 407
    assert [type(each) for each in world.asked] == [NeedCredentials]


def test_right_password_leads_to_the_targets() -> None:
    world = World(bob=targets(2))
    plan = world.admit(signed(request()))
    assert (plan.caller, plan.callee) == ("alice@example.test", "bob@example.test")
    assert world.asked[1:] == [CallPlaced(plan.caller, plan.callee), NeedTargets("bob@example.test")]
    assert (plan.located, plan.record_route, len(plan.groups[0])) == (True, True, 2)


def test_from_that_is_not_the_credentials_own_is_403_and_a_call() -> None:
    world = World(bob=targets(1))
    assert refusal(signed(request(), user="bob"), world).status == 403
    assert world.of(CallPlaced) == [CallPlaced("bob@example.test", "bob@example.test")]


def test_our_credentials_are_consumed_and_others_stay() -> None:
    other = 'Proxy-Authorization: Digest username="a", realm="other.example", nonce="n", uri="u", response="r"'
    broken = 'Proxy-Authorization: Digest username="a", realm="exam'
    message = signed(request("INVITE", "sip:bob@example.test", other, broken))
    plan = World(bob=targets(1)).admit(message)
    kept = [line for i, line in enumerate(message.lines) if i not in plan.dropped]
    assert [line for line in kept if line.startswith("Proxy-Auth")] == [other]


def test_credentials_are_consumed_inside_a_dialog_too() -> None:
    assert World().admit(signed(in_dialog("BYE", MINTED))).dropped


def test_only_an_invite_is_a_call() -> None:
    world = World(bob=targets(1))
    world.admit(signed(request("MESSAGE")))
    assert not world.of(CallPlaced)


# strangers


@pytest.mark.parametrize("user", ["bob", "offline", "unknown"])
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS"])
def test_stranger_is_403_whoever_is_asked_for(user: str, method: str) -> None:
    world = World(bob=targets(1), offline=[])
    error = refusal(request(method, f"sip:{user}@example.test", from_=STRANGER), world)
    assert (error.status, error.reason) == (403, "Forbidden")
    assert world.asked == ([CallPlaced(None, None)] if method == "INVITE" else [])


def test_named_peer_comes_in_and_others_do_not() -> None:
    peers = (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    world = World(bob=targets(1))
    message = request(from_=STRANGER)
    assert refusal(message, world, inbound="peers", peers=peers).status == 403
    for host in ("198.51.100.7", "2001:db8::7"):
        assert world.admit(message, flow(host), inbound="peers", peers=peers).groups


def test_anyone_comes_in_where_that_is_allowed() -> None:
    world = World(bob=targets(1))
    plan = world.admit(request(from_=STRANGER), inbound="anyone")
    assert (plan.caller, plan.callee) == (None, "bob@example.test")
    assert world.asked == [CallPlaced(None, "bob@example.test"), NeedTargets("bob@example.test")]


def test_unknown_and_offline_look_the_same_to_strangers() -> None:
    seen = []
    for user in ("offline", "unknown"):
        world = World(offline=[])
        error = refusal(request("INVITE", f"sip:{user}@example.test", from_=STRANGER), world, inbound="anyone")
        seen.append((error.status, error.reason, error.headers, [type(each) for each in world.asked]))
    assert seen[0] == seen[1]
    assert seen[0][0] == 480


def test_stranger_cannot_claim_to_be_this_server() -> None:
    error = refusal(request(from_="<sip:alice@192.0.2.10>;tag=1"), inbound="anyone")
    assert error.status == 403


def test_stranger_is_relayed_nowhere() -> None:
    for uri in ("sip:x@victim.example", "sip:x@203.0.113.1"):
        assert refusal(request("INVITE", uri, from_=STRANGER), inbound="anyone", outbound=True).status == 403
    route = "Route: <sip:victim.example;lr>"
    message = request("INVITE", "sip:bob@example.test", route, from_=STRANGER)
    assert refusal(message, inbound="anyone", outbound=True).status == 403


def test_caller_with_a_number_is_a_stranger() -> None:
    assert refusal(request(from_="<tel:+15550100>;tag=1")).status == 403
    assert World(bob=targets(1)).admit(request(from_="<tel:+15550100>;tag=1"), inbound="anyone").groups


# §16.5


def test_unknown_address_is_404_and_offline_480_to_subscribers() -> None:
    world = World(offline=[])
    assert refusal(signed(request("INVITE", "sip:unknown@example.test")), world).status == 404
    assert refusal(signed(request("INVITE", "sip:offline@example.test")), world).status == 480
    assert len(world.of(CallPlaced)) == 2


def test_foreign_domain_is_403_unless_allowed() -> None:
    world = World()
    message = signed(request("INVITE", "sip:x@elsewhere.example;transport=tcp"))
    assert refusal(message, world).status == 403
    assert world.of(CallPlaced) == [CallPlaced("alice@example.test", "x@elsewhere.example")]
    plan = World().admit(signed(request("INVITE", "sip:x@elsewhere.example;transport=tcp")), outbound=True)
    assert [target.uri_text for target in plan.groups[0]] == ["sip:x@elsewhere.example;transport=tcp"]
    assert (plan.located, plan.callee) == (False, None)


def test_preloaded_route_elsewhere_is_403_unless_allowed() -> None:
    message = "INVITE", "sip:bob@example.test", "Route: <sip:192.0.2.10;lr>, <sip:elsewhere.example;lr>"
    assert refusal(signed(request(*message))).status == 403
    plan = World(bob=targets(1)).admit(signed(request(*message)), outbound=True)
    assert plan.routes == ["<sip:elsewhere.example;lr>"]


def test_user_at_our_ip_address_is_one_of_the_callers_domain() -> None:
    world = World(bob=targets(1))
    assert world.admit(signed(request("INVITE", "sip:bob@192.0.2.10"))).callee == "bob@example.test"


def test_user_at_our_ip_address_is_for_strangers_one_of_the_only_domain() -> None:
    world = World(bob=targets(1))
    message = request("INVITE", "sip:bob@192.0.2.10", from_=STRANGER)
    assert world.admit(message, inbound="anyone").callee == "bob@example.test"
    domains = frozenset((DOMAIN, "second.test"))
    assert refusal(message, world, inbound="anyone", domains=domains).status == 480


def test_number_is_looked_up_as_an_address() -> None:
    world = World()
    assert refusal(signed(request("INVITE", "tel:+1-555-0100")), world).status == 404
    assert world.of(NeedTargets) == [NeedTargets("+15550100")]


def test_options_to_the_server_itself_is_answered() -> None:
    for uri in ("sip:example.test", "sip:192.0.2.10"):
        plan = World().admit(request("OPTIONS", uri, from_=STRANGER))
        assert plan.kind == ANSWER
        assert [line.partition(":")[0] for line in plan.headers] == [
            "Allow", "Allow-Events", "Accept", "Accept-Encoding", "Accept-Language", "Supported",
        ]  # fmt: skip


def test_a_question_to_the_server_itself_needs_no_credentials() -> None:
    assert World().admit(request("OPTIONS", "sip:example.test")).kind == ANSWER
    assert World().admit(request("OPTIONS", "sip:example.test", max_forwards="0")).kind == ANSWER


@pytest.mark.parametrize(("method", "status"), [("INVITE", 405), ("MESSAGE", 405), ("FOO", 501)])
def test_anything_else_to_the_server_itself_is_refused(method: str, status: int) -> None:
    assert refusal(signed(request(method, "sip:example.test"))).status == status


def test_targets_are_grouped_by_falling_q() -> None:
    found = [Target("sip:a@h", 500), Target("sip:b@h", 1000), Target("sip:c@h", 500), Target("sip:d@h", 0)]
    plan = World(bob=found).admit(signed(request()))
    assert [[target.uri_text[4] for target in group] for group in plan.groups] == [["b"], ["a", "c"], ["d"]]


def test_uri_and_device_are_tried_once() -> None:
    found = [
        Target("sip:a@h", instance="<urn:1>"),
        Target("sip:b@h", instance="<urn:1>"),
        Target("sip:a@h"),
        Target("sip:c@h"),
    ]
    plan = World(bob=found).admit(signed(request()))
    assert [target.uri_text for target in plan.groups[0]] == ["sip:a@h", "sip:c@h"]


def test_targets_are_bounded() -> None:
    plan = World(bob=targets(9)).admit(signed(request()), max_targets=3)
    assert sum(map(len, plan.groups)) == 3


def test_sips_reaches_sips_contacts_only() -> None:
    found = [Target("sip:a@h"), Target("sips:b@h")]
    invite = request("INVITE", "sips:bob@example.test", contact="<sips:alice@192.0.2.1>")
    plan = World(bob=found).admit(signed(invite))
    assert [target.uri_text for target in plan.groups[0]] == ["sips:b@h"]
    assert refusal(signed(invite)).status == 480


@pytest.mark.parametrize(
    ("method", "recorded"), [("INVITE", True), ("SUBSCRIBE", True), ("FOO", True), ("MESSAGE", False)]
)
def test_server_stays_on_the_path_of_what_may_begin_a_dialog(method: str, recorded: bool) -> None:
    assert World(bob=targets(1)).admit(signed(request(method))).record_route is recorded
