"""Minted routes: only for their dialog, only from this server (proxy/record_route.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.proxy.record_route import CALLEE, CALLER, Minter, other_side, record_route_lines
from sipserver.sip.message import Request
from support.proxy import KEY, MINTER, flow, request

TOKEN = MINTER.token(KEY, "call-1", "from1")


def test_token_holds_for_a_request_of_the_caller() -> None:
    assert MINTER.verify(TOKEN, request("BYE", to="<sip:bob@example.test>;tag=to1")) == (KEY, CALLER)


def test_token_holds_for_a_request_of_the_callee() -> None:
    bye = request("BYE", from_="<sip:bob@example.test>;tag=to1", to="<sip:alice@example.test>;tag=from1")
    assert MINTER.verify(TOKEN, bye) == (KEY, CALLEE)


@pytest.mark.parametrize(
    "bye",
    [
        request("BYE", call_id="call-2"),
        request("BYE", from_="<sip:alice@example.test>;tag=from2"),
        request("BYE", from_="<sip:bob@example.test>;tag=to1", to="<sip:alice@example.test>;tag=other"),
        request("BYE", from_="<sip:alice@example.test>"),
    ],
)
def test_token_holds_for_no_other_dialog(bye: Request) -> None:
    assert MINTER.verify(TOKEN, bye) is None


@pytest.mark.parametrize(
    "bye",
    [
        request("BYE", to="<sip:bob@example.test>;tag=to1"),
        request("BYE", from_="<sip:bob@example.test>;tag=to1", to="<sip:alice@example.test>;tag=from1"),
        request("BYE", call_id="call-2"),
        request("BYE", from_="<sip:alice@example.test>;tag=from2"),
        request("BYE", from_="<sip:alice@example.test>"),
    ],
)
@pytest.mark.parametrize("tag", ["from1", None])
def test_token_holds_for_the_same_whether_it_is_remembered_or_not(bye: Request, tag: str | None) -> None:
    one, after_a_restart = Minter(b"secret"), Minter(b"secret")
    token = one.token(KEY, "call-1", tag)
    assert one.verify(token, bye) == after_a_restart.verify(token, bye)


def test_token_of_another_secret_is_worth_nothing() -> None:
    other = Minter(b"not ours").token(KEY, "call-1", "from1")
    assert MINTER.verify(other, request("BYE")) is None


def test_key_in_a_token_cannot_be_changed() -> None:
    assert MINTER.verify("f" + TOKEN[1:], request("BYE")) is None


@pytest.mark.parametrize("token", ["", "vc", TOKEN[:-1], TOKEN + "0", TOKEN[:-1] + "é", KEY])
def test_anything_else_is_no_token(token: str) -> None:
    assert MINTER.verify(token, request("BYE")) is None


def test_call_id_and_tag_do_not_run_into_each_other() -> None:
    assert MINTER.token(KEY, "call-1f", "rom1") != TOKEN


def test_caller_without_a_tag_gets_a_token_too() -> None:
    invite = request(from_="<sip:alice@example.test>")
    assert MINTER.verify(MINTER.token(KEY, "call-1", None), invite) == (KEY, CALLER)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_text_makes_verify_raise(token: str) -> None:
    assert MINTER.verify(token, request("BYE")) is None


def test_loop_hash_varies_with_material_and_server() -> None:
    same = MINTER.loop_hash("x\xff")
    assert same == MINTER.loop_hash("x\xff")
    assert len(same) == 8
    assert same != MINTER.loop_hash("y")
    assert same != Minter(b"not ours").loop_hash("x\xff")


def test_one_record_route_where_both_sides_are_alike() -> None:
    assert record_route_lines(flow(), flow(port=1), "T") == ["Record-Route: <sip:192.0.2.10:5060;lr;vc=T>"]


def test_two_record_routes_where_the_transport_changes_outer_first() -> None:
    assert record_route_lines(flow(transport="TCP"), flow(), "T") == [
        "Record-Route: <sip:192.0.2.10:5060;transport=tcp;lr;vc=T>",
        "Record-Route: <sip:192.0.2.10:5060;lr;vc=T>",
    ]


def test_both_kinds_of_websocket_are_ws_in_a_uri() -> None:
    for transport in ("WS", "WSS"):
        assert record_route_lines(flow(), flow(transport=transport, sent_by="192.0.2.10:443"), "T") == [
            "Record-Route: <sip:192.0.2.10:5060;lr;vc=T>",
            "Record-Route: <sip:192.0.2.10:443;transport=ws;lr;vc=T>",
        ]


def test_two_record_routes_where_the_address_changes() -> None:
    lines = record_route_lines(flow(sent_by="[2001:db8::1]:5060"), flow(), "T")
    assert [line.partition(";")[0] for line in lines] == [
        "Record-Route: <sip:[2001:db8::1]:5060", "Record-Route: <sip:192.0.2.10:5060",
    ]  # fmt: skip


def test_sides_are_each_others_other() -> None:
    assert (other_side(CALLER), other_side(CALLEE)) == (CALLEE, CALLER)
