"""Connections of dialogs are remembered, within a bound (proxy/dialog.py)."""

from __future__ import annotations

from sipserver.proxy.dialog import MAX_HOPS, DialogTable, RemoteTargets, answerer_hop, sender_hop
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.uri import Uri
from support.proxy import flow, request
from support.sip import response

ANSWER = """SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK1
From: <sip:alice@example.test>;tag=1
To: <sip:bob@example.test>;tag=2
Call-ID: call-1
CSeq: 1 INVITE
Contact: "Bob" <sip:bob@x.invalid;transport=ws>;expires=3
"""


def test_flow_is_found_by_key_side_and_hop() -> None:
    table, learned = DialogTable(), flow(transport="TCP")
    table.learn("k", CALLER, learned, "sip:a")
    assert table.flow_for("k", CALLER, "sip:a") is learned
    assert table.flow_for("k", CALLER, "sip:b") is None
    assert table.flow_for("k", CALLEE, "sip:a") is None
    assert table.flow_for("l", CALLER, "sip:a") is None


def test_later_flow_replaces_the_earlier() -> None:
    table, later = DialogTable(), flow(transport="TCP")
    table.learn("k", CALLER, flow(), "sip:a")
    table.learn("k", CALLER, later, "sip:a")
    assert table.flow_for("k", CALLER, "sip:a") is later


def test_forgotten_dialog_is_gone() -> None:
    table = DialogTable()
    table.learn("k", CALLER, flow(), "sip:a")
    table.forget("k")
    table.forget("k")
    assert table.flow_for("k", CALLER, "sip:a") is None


def test_oldest_dialog_goes_where_the_table_is_full() -> None:
    table = DialogTable(max_dialogs=2)
    for key in "abc":
        table.learn(key, CALLER, flow(), "sip:a")
    assert (len(table), table.evicted) == (2, 1)
    assert table.flow_for("a", CALLER, "sip:a") is None
    assert table.flow_for("c", CALLER, "sip:a") is not None


def test_hops_of_one_dialog_are_bounded() -> None:
    table = DialogTable()
    for i in range(MAX_HOPS + 1):
        table.learn("k", CALLEE, flow(), f"sip:{i}")
    assert table.flow_for("k", CALLEE, "sip:0") is None
    assert table.flow_for("k", CALLEE, f"sip:{MAX_HOPS}") is not None


def test_sender_is_reached_at_its_contact() -> None:
    assert sender_hop(request()) == "sip:alice@192.0.2.1:5070"


def test_sender_behind_a_proxy_is_reached_through_it() -> None:
    invite = request("INVITE", "sip:bob@example.test", "Record-Route: <sip:p1;lr>, <sip:p0;lr>")
    assert sender_hop(invite) == "sip:p1;lr"


def test_answerer_is_reached_at_its_contact() -> None:
    assert answerer_hop(response(ANSWER), "T") == "sip:bob@x.invalid;transport=ws"
    ours = "Record-Route: <sip:us;lr;vc=T>, <sip:before;lr>"
    assert answerer_hop(response(ANSWER + ours), "T") == "sip:bob@x.invalid;transport=ws"


def test_answerer_behind_a_proxy_is_reached_through_it() -> None:
    above = "Record-Route: <sip:far;lr>, <sip:near;lr>, <sip:us;lr;vc=T>, <sip:before;lr>"
    assert answerer_hop(response(ANSWER + above), "T") == "sip:near;lr"


def test_routes_of_others_alone_say_nothing() -> None:
    assert answerer_hop(response(ANSWER + "Record-Route: <sip:far;lr>"), "T") == "sip:bob@x.invalid;transport=ws"
    assert answerer_hop(response(ANSWER + "Record-Route: <sip:far;lr>"), "") == "sip:bob@x.invalid;transport=ws"


def test_no_hop_where_contact_is_missing_or_broken() -> None:
    lacking = ANSWER.replace("Contact", "X-Contact")
    assert answerer_hop(response(lacking), "T") is None
    assert answerer_hop(response(ANSWER.replace('"Bob" <sip', '"Bob <sip')), "T") is None
    assert sender_hop(request("INVITE", "sip:bob@example.test", "Record-Route: <broken")) is None
    assert answerer_hop(response(lacking + "Contact: *"), "T") is None


def test_call_leads_to_the_target_that_a_side_named_whatever_its_parameters() -> None:
    targets = RemoteTargets()
    targets.learn("k", CALLEE, "sip:bob@192.0.2.8:5070;transport=tcp")
    assert targets.allows("k", CALLEE, Uri.parse("sip:192.0.2.8:5070"))
    assert not targets.allows("k", CALLEE, Uri.parse("sip:bob@192.0.2.8"))
    assert not targets.allows("k", CALLEE, Uri.parse("sip:bob@203.0.113.9:5070"))


def test_side_that_named_no_target_and_call_that_is_not_known_are_believed() -> None:
    targets = RemoteTargets()
    targets.learn("k", CALLER, "sip:alice@192.0.2.1")
    for unusable in (None, "sip:[", "sip:a b"):
        targets.learn("k", CALLEE, unusable)
    assert targets.allows("k", CALLEE, Uri.parse("sip:bob@192.0.2.8"))
    assert targets.allows("l", CALLER, Uri.parse("sip:alice@192.0.2.9"))


def test_targets_are_bounded_for_each_call_and_in_all() -> None:
    targets = RemoteTargets(max_calls=2)
    for port in range(5000, 5000 + MAX_HOPS + 1):
        targets.learn("k", CALLEE, f"sip:b@192.0.2.8:{port}")
        targets.learn("k", CALLEE, f"sip:b@192.0.2.8:{port}")
    assert not targets.allows("k", CALLEE, Uri.parse("sip:b@192.0.2.8:5000"))
    assert targets.allows("k", CALLEE, Uri.parse("sip:b@192.0.2.8:5001"))
    for key in ("l", "m"):
        targets.learn(key, CALLEE, "sip:b@192.0.2.8")
    assert len(targets) == 2
    assert targets.allows("k", CALLEE, Uri.parse("sip:b@192.0.2.8:5000"))
