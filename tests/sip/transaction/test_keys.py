"""Matching of messages to transactions (RFC 3261 §17.1.3, §17.2.3, §9.2)."""

from __future__ import annotations

import pytest

from sipserver.sip.build import reply
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.transaction.keys import (
    Key,
    acknowledges,
    answered_key,
    client_key,
    invite_key_for_ack,
    invite_key_for_cancel,
    server_key,
)
from support.transactions import request

OLD_VIA = "SIP/2.0/UDP client.test:5070"
"""A Via of RFC 2543: no branch."""
OLD_VIAS = [OLD_VIA, OLD_VIA + ";branch=1", OLD_VIA + ";branch", OLD_VIA + ";branch=z9hG4bK"]


def old(method: str = "INVITE", *, via: str = OLD_VIA, to_tag: str = "", cseq: int = 1, call_id: str = "c") -> Request:
    return request(method, via=via, to_tag=to_tag, cseq=cseq, call_id=call_id)


def test_client_key_tells_cancel_from_invite_with_the_same_branch() -> None:
    assert client_key("z9hG4bKa", "INVITE") == client_key("z9hG4bKa", "INVITE")
    assert client_key("z9hG4bKa", "INVITE") != client_key("z9hG4bKa", "CANCEL")
    assert client_key("z9hG4bKa", "INVITE") != client_key("z9hG4bKb", "INVITE")


def test_retransmission_has_the_same_server_key() -> None:
    assert server_key(request()) == server_key(request())


def test_with_cookie_nothing_but_branch_sent_by_and_method_counts() -> None:
    other = request(uri="sip:carol@example.test", call_id="other", cseq=7, to_tag=";tag=x", from_tag=";tag=y")
    assert server_key(request()) == server_key(other)


@pytest.mark.parametrize(
    "via",
    [
        "SIP/2.0/UDP client.test:5070;branch=z9hG4bKother",
        "SIP/2.0/UDP client.test:5071;branch=z9hG4bKabc",
        "SIP/2.0/UDP client.test;branch=z9hG4bKabc",
        "SIP/2.0/UDP elsewhere.test:5070;branch=z9hG4bKabc",
    ],
)
def test_another_branch_or_sent_by_is_another_transaction(via: str) -> None:
    assert server_key(request(via=via)) != server_key(request())


@pytest.mark.parametrize("method", ["INVITE", "CANCEL", "BYE"])
def test_response_tells_the_transaction_that_it_answers(method: str) -> None:
    answered = request(method)
    response = parse(reply(answered, 486, to_tag="callee"))
    assert isinstance(response, Response)
    assert answered_key(response) == server_key(answered)


@pytest.mark.parametrize("via", OLD_VIAS)
def test_without_cookie_a_response_does_not_tell(via: str) -> None:
    response = parse(reply(old(via=via), 486, to_tag="callee"))
    assert isinstance(response, Response)
    assert answered_key(response) is None


def test_received_and_rport_do_not_change_the_key() -> None:
    stamped = request(via="SIP/2.0/UDP client.test:5070;branch=z9hG4bKabc;received=192.0.2.1;rport=5070")
    assert server_key(stamped) == server_key(request())


def test_only_the_top_via_counts() -> None:
    below = request(via="SIP/2.0/UDP client.test:5070;branch=z9hG4bKabc, SIP/2.0/UDP x;branch=z9hG4bKx")
    assert server_key(below) == server_key(request())


def test_ack_with_cookie_has_the_key_of_its_invite() -> None:
    ack = request("ACK", to_tag=";tag=callee")
    assert server_key(ack) == invite_key_for_ack(ack) == server_key(request())


def test_cancel_is_a_transaction_of_its_own_and_knows_its_invite() -> None:
    cancel = request("CANCEL")
    assert server_key(cancel) != server_key(request())
    assert invite_key_for_cancel(cancel) == server_key(request())


@pytest.mark.parametrize("via", OLD_VIAS)
def test_without_cookie_ack_and_cancel_find_their_invite(via: str) -> None:
    invite = server_key(old(via=via))
    assert server_key(old(via=via)) == invite
    assert server_key(old("ACK", via=via, to_tag=";tag=callee")) == invite
    assert invite_key_for_cancel(old("CANCEL", via=via)) == invite
    assert server_key(old("CANCEL", via=via)) != invite


def test_without_cookie_every_named_header_counts() -> None:
    different: list[Key] = [
        server_key(old("OPTIONS")),
        server_key(old("MESSAGE")),
        server_key(old("OPTIONS", to_tag=";tag=1")),
        server_key(old("OPTIONS", cseq=2)),
        server_key(old("OPTIONS", call_id="d")),
        server_key(old("OPTIONS", via="SIP/2.0/TCP client.test:5070")),
        server_key(old("OPTIONS", via="SIP/2.0/UDP client.test:5071")),
        server_key(old("OPTIONS", via="SIP/2.0/UDP client.test:5070;branch=2")),
        server_key(request("OPTIONS", via=OLD_VIA, call_id="c", from_tag="")),
        server_key(request("OPTIONS", via=OLD_VIA, call_id="c", uri="sip:carol@example.test")),
    ]
    assert len(set(different)) == len(different)


def test_ack_with_cookie_acknowledges_whatever_its_key_found() -> None:
    assert acknowledges(request("ACK", to_tag=";tag=other"), reply(request(), 486, to_tag="callee"))


@pytest.mark.parametrize("via", OLD_VIAS)
def test_ack_without_cookie_needs_the_to_tag_of_the_response(via: str) -> None:
    final = reply(old(via=via), 486, to_tag="callee")
    assert acknowledges(old("ACK", via=via, to_tag=";tag=callee"), final)
    assert not acknowledges(old("ACK", via=via, to_tag=";tag=other"), final)
    assert not acknowledges(old("ACK", via=via), final)


def test_ack_of_a_response_that_cannot_be_read_counts() -> None:
    assert acknowledges(old("ACK", to_tag=";tag=callee"), b"gibberish")
