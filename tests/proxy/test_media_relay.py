from __future__ import annotations

from typing import Any

import pytest

from sipserver.proxy.media_relay import (
    ALWAYS,
    ANSWER,
    MAX_LEGS,
    MAX_TAGS,
    NAT,
    NEVER,
    OFFER,
    AskRelay,
    End,
    Exchange,
    MediaRelay,
    Settings,
    delete,
    end_of,
)
from sipserver.proxy.record_route import CALLEE, CALLER
from support.proxy import flow

KEY = "key"
ICE = b"a=ice-ufrag:abcd\r\n"
DTLS = b"a=fingerprint:sha-256 AA\r\n"


def sdp(host: str, *more: bytes) -> bytes:
    return b"v=0\r\ns=-\r\nc=IN IP4 %b\r\nm=audio 4000 RTP/AVP 0\r\n" % host.encode() + b"".join(more)


OPEN, HIDDEN = sdp("198.51.100.7"), sdp("10.0.0.7")
ALICE = End("198.51.100.7", "198.51.100.7", False, "sip:alice@198.51.100.7")
BOB = End("198.51.100.8", "198.51.100.8", False, "sip:bob@198.51.100.8")
HOME = End("198.51.100.9", "10.0.0.9", False, "sip:bob@10.0.0.9")
BROWSER = End("198.51.100.5", "x.invalid", True, "sip:bob@x.invalid;transport=ws")
SIX = End("2001:db8::6", "2001:db8::6", False, "sip:bob@[2001:db8::6]")


def machine(policy: str = NAT, **more: Any) -> MediaRelay:
    return MediaRelay(Settings(policy, **more), lambda key: f"call of {key}")


def exchange(near: End = ALICE, far: End = BOB, branch: int = 0, side: str = CALLER, sender: str = "a") -> Exchange:
    return Exchange(None, sender, near, far, branch, side, False)


def asked(found: object) -> AskRelay:
    assert isinstance(found, AskRelay)
    return found


def reply(text: bytes) -> dict[str, Any]:
    return {"result": b"ok", "sdp": b"v=0 " + text}


def relayed(relay: MediaRelay, *, answered: bool = True) -> Exchange:
    """A call that is relayed; its first exchange."""
    first = exchange()
    relay.on_reply(asked(relay.on_request(KEY, "INVITE", first, "", HIDDEN)), 0, reply(b"to bob"))
    if answered:
        relay.on_reply(asked(relay.on_response(KEY, first, "b", OPEN)), 0, reply(b"to alice"))
    return first


@pytest.mark.parametrize(
    ("near", "far", "offer", "needed"),
    [
        (ALICE, BOB, OPEN, False),
        (ALICE, BOB, HIDDEN, True),
        (ALICE, HOME, OPEN, True),
        (ALICE, BOB, HIDDEN + ICE, False),
        (ALICE, HOME, OPEN + ICE, True),
        (ALICE, BROWSER, OPEN, False),
        (ALICE, BROWSER, HIDDEN, True),
        (BROWSER, BROWSER, HIDDEN + ICE + DTLS, False),
        (ALICE, SIX, OPEN, True),
    ],
)
def test_relay_is_needed_where_a_side_is_behind_nat_without_ice(
    near: End, far: End, offer: bytes, needed: bool
) -> None:
    for policy, expected in ((NAT, needed), (ALWAYS, True), (NEVER, False)):
        relay = machine(policy)
        found = relay.on_request(KEY, "INVITE", exchange(near, far), "", offer)
        assert isinstance(found, AskRelay) is expected
        assert relay.legs == int(expected)


def test_offer_and_answer_name_the_call_and_both_sides() -> None:
    relay = machine()
    first = exchange()
    offer = asked(relay.on_request(KEY, "INVITE", first, "", HIDDEN))
    assert offer.command == OFFER
    assert offer.fields == {
        "command": "offer", "call-id": "key.1", "from-tag": "a", "sdp": HIDDEN, "replace": ["origin"],
        "received-from": ["IP4", "198.51.100.7"], "flags": ["SIP-source-address"],
    }  # fmt: skip
    assert relay.on_reply(offer, 1, reply(b"to bob")) == b"v=0 to bob"
    answer = asked(relay.on_response(KEY, first, "b", OPEN))
    assert answer.command == ANSWER
    assert answer.leg.relay == 1
    assert answer.fields == {
        "command": "answer", "call-id": "key.1", "from-tag": "a", "to-tag": "b", "sdp": OPEN, "replace": ["origin"],
        "received-from": ["IP4", "198.51.100.8"],
    }  # fmt: skip
    assert answer.leg.call == "call of key"
    assert delete(answer.leg) == {"command": "delete", "call-id": "key.1", "from-tag": "a", "delete-delay": 0}


def test_repeated_answer_is_not_asked_again() -> None:
    relay = machine()
    first = relayed(relay)
    assert relay.on_response(KEY, first, "b", OPEN) == b"v=0 to alice"
    # Another endpoint behind the same branch is another answer.
    assert asked(relay.on_response(KEY, first, "b2", OPEN)).fields["to-tag"] == "b2"


def test_each_device_of_a_fork_has_a_session_of_its_own() -> None:
    relay = machine()
    for branch in range(3):
        offer = asked(relay.on_request(KEY, "INVITE", exchange(branch=branch), "", HIDDEN))
        relay.on_reply(offer, 0, reply(b"x"))
        assert offer.fields["call-id"] == f"key.{branch + 1}"
    assert [leg.id for leg in relay.branch_over(KEY, 1)] == ["key.2"]
    assert relay.legs == 2
    assert [leg.id for leg in relay.call_over(KEY)] == ["key.1", "key.3"]
    assert relay.legs == 0
    assert KEY not in relay


def test_change_of_the_callee_stays_in_its_session_with_the_tags_turned() -> None:
    relay = machine()
    relayed(relay)
    change = exchange(BOB, ALICE, -1, CALLEE, "b")
    offer = asked(relay.on_request(KEY, "INVITE", change, "a", OPEN))
    assert (offer.fields["call-id"], offer.fields["from-tag"], offer.fields["to-tag"]) == ("key.1", "b", "a")
    relay.on_reply(offer, 0, reply(b"again"))
    answer = asked(relay.on_response(KEY, change, "a", HIDDEN))
    assert (answer.fields["from-tag"], answer.fields["to-tag"]) == ("b", "a")


def test_offer_in_the_response_is_answered_in_the_ack_as_often_as_that_comes() -> None:
    relay = machine()
    first = exchange(HOME, BOB)
    offer = asked(relay.on_response(KEY, first, "b", OPEN))
    assert (offer.command, offer.fields["from-tag"], offer.fields["to-tag"]) == (OFFER, "b", "a")
    relay.on_reply(offer, 0, reply(b"to alice"))
    assert relay.on_response(KEY, first, "b", OPEN) == b"v=0 to alice"
    ack = exchange(HOME, BOB, -1)
    answer = asked(relay.on_request(KEY, "ACK", ack, "b", HIDDEN))
    assert (answer.command, answer.fields["from-tag"], answer.fields["to-tag"]) == (ANSWER, "b", "a")
    relay.on_reply(answer, 0, reply(b"to bob"))
    assert relay.on_request(KEY, "ACK", exchange(HOME, BOB, -1), "b", HIDDEN) == b"v=0 to bob"
    # With nothing to answer it is left alone.
    assert relay.on_request(KEY, "ACK", exchange(HOME, BOB, -1), "b", OPEN) is None


def test_prack_answers_what_a_provisional_response_offered_and_else_offers() -> None:
    relay = machine()
    first = exchange(HOME, BOB)
    relay.on_reply(asked(relay.on_response(KEY, first, "b", OPEN)), 0, reply(b"to alice"))
    answer = asked(relay.on_request(KEY, "PRACK", exchange(HOME, BOB, -1), "b", HIDDEN))
    assert answer.command == ANSWER
    relay.on_reply(answer, 0, reply(b"to bob"))
    assert asked(relay.on_request(KEY, "PRACK", exchange(HOME, BOB, -1), "b", OPEN)).command == OFFER


def test_ack_of_a_call_without_a_session_is_left_alone() -> None:
    assert machine().on_request(KEY, "ACK", exchange(HOME, BOB, -1), "b", HIDDEN) is None


def test_call_whose_beginning_is_not_remembered_gets_a_session_when_it_changes() -> None:
    relay = machine()
    offer = asked(relay.on_request(KEY, "INVITE", exchange(HOME, BOB, -1, CALLEE, "b"), "a", HIDDEN))
    assert offer.leg.tags == {"a": CALLER, "b": CALLEE}
    relay.on_reply(offer, 0, reply(b"x"))
    assert [leg.id for leg in relay.dialog_over(KEY, "b")] == ["key.1"]


def test_without_an_answer_the_device_does_without_a_relay() -> None:
    relay = machine()
    first = exchange()
    offer = asked(relay.on_request(KEY, "INVITE", first, "", HIDDEN))
    assert relay.on_failed(offer) is False
    assert relay.on_response(KEY, first, "b", OPEN) is None
    assert relay.call_over(KEY) == []
    assert relay.legs == 0


def test_call_can_be_refused_without_a_relay_but_not_once_it_is_answered() -> None:
    relay = machine(refuse=True)
    assert relay.on_failed(asked(relay.on_request(KEY, "INVITE", exchange(), "", HIDDEN))) is True
    relay = machine(refuse=True)
    relayed(relay)
    change = asked(relay.on_request(KEY, "INVITE", exchange(branch=-1), "b", HIDDEN))
    assert relay.on_failed(change) is False
    assert not change.leg.gone


@pytest.mark.parametrize(
    "answer", [{}, {"result": b"error", "sdp": b"v=0"}, {"result": b"ok"}, {"result": b"ok", "sdp": b"no"}, {"sdp": 1}]
)
def test_answer_of_no_use_is_none(answer: dict[str, Any]) -> None:
    relay = machine()
    offer = asked(relay.on_request(KEY, "INVITE", exchange(), "", HIDDEN))
    assert relay.on_reply(offer, 0, answer) is None
    assert offer.leg.relay == -1


def test_sessions_are_bounded_in_all_and_for_each_call() -> None:
    relay = machine(max_legs=2)
    for key in ("one", "two", "three"):
        relay.on_request(key, "INVITE", exchange(), "", HIDDEN)
    assert (relay.legs, relay.refused) == (2, 1)
    relay = machine()
    for branch in range(MAX_LEGS + 3):
        relay.on_request(KEY, "INVITE", exchange(branch=branch), "", HIDDEN)
    assert (relay.legs, relay.refused) == (MAX_LEGS, 3)


def test_what_an_answer_told_of_a_contact_decides_the_next_call() -> None:
    relay = machine()
    first = exchange()
    assert relay.on_request(KEY, "INVITE", first, "", OPEN) is None
    assert relay.on_response(KEY, first, "b", HIDDEN) is None
    assert isinstance(relay.on_request("next", "INVITE", exchange(), "", OPEN), AskRelay)
    # One that turned out to do ICE needs none.
    relay = machine()
    relay.on_response(KEY, Exchange(None, "a", ALICE, HOME, 0, CALLER, True), "b", HIDDEN + ICE)
    assert relay.on_request("next", "INVITE", exchange(ALICE, HOME), "", HIDDEN + ICE) is None


def test_browser_and_others_are_brought_together() -> None:
    relay = machine(bridge=True)
    offer = asked(relay.on_request(KEY, "INVITE", exchange(BROWSER, BOB), "", OPEN + ICE + DTLS))
    given = {name: offer.fields.get(name) for name in ("transport-protocol", "ICE", "rtcp-mux")}
    assert given == {"transport-protocol": "RTP/AVP", "ICE": "remove", "rtcp-mux": ["demux"]}
    offer = asked(relay.on_request("other", "INVITE", exchange(ALICE, BROWSER), "", OPEN))
    given = {name: offer.fields.get(name) for name in ("transport-protocol", "ICE", "rtcp-mux", "SDES")}
    assert given == {
        "transport-protocol": "UDP/TLS/RTP/SAVPF", "ICE": "force", "rtcp-mux": ["offer"], "SDES": ["off"],
    }  # fmt: skip


def test_interfaces_and_ip_version_follow_both_sides() -> None:
    relay = machine(ALWAYS, interfaces=("inside", "outside"))
    near = End("10.0.0.1", "10.0.0.1", False)
    offer = asked(relay.on_request(KEY, "INVITE", exchange(near, SIX), "", OPEN))
    assert offer.fields["direction"] == ["inside", "outside"]
    assert offer.fields["address-family"] == "IP6"
    back = asked(relay.on_request("other", "INVITE", exchange(SIX, BOB), "", OPEN))
    assert back.fields["address-family"] == "IP4"
    assert back.fields["received-from"] == ["IP6", "2001:db8::6"]


def test_end_is_told_by_its_flow_its_contact_and_where_it_registered() -> None:
    assert end_of(flow("192.0.2.7"), "sip:a@10.0.0.1:5060") == End(
        "192.0.2.7", "10.0.0.1", False, "sip:a@10.0.0.1:5060"
    )
    assert end_of(flow("192.0.2.7", transport="WSS"), "", "192.0.2.8") == End("192.0.2.8", "", True)


def test_relay_offers_no_keys_in_the_description_where_the_endpoint_offered_none() -> None:
    relay = machine(ALWAYS)
    offers = [HIDDEN + ICE + DTLS, HIDDEN + ICE + DTLS + b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n", HIDDEN]
    found = [asked(relay.on_request(f"{i}", "INVITE", exchange(), "", each)) for i, each in enumerate(offers)]
    assert [each.fields.get("SDES") for each in found] == [["off"], None, None]


def test_session_with_two_answers_lasts_as_long_as_one_of_their_dialogs() -> None:
    relay = machine()
    first = relayed(relay)
    relay.on_reply(asked(relay.on_response(KEY, first, "b2", OPEN)), 0, reply(b"also"))
    assert relay.dialog_over(KEY, "nobody") == relay.dialog_over(KEY, None) == relay.dialog_over("other", "b") == []
    assert relay.dialog_over(KEY, "b") == []
    assert relay.legs == 1
    assert [leg.id for leg in relay.dialog_over(KEY, "b2")] == ["key.1"]


def test_answers_of_one_device_are_bounded() -> None:
    relay = machine()
    first = relayed(relay)
    found = [relay.on_response(KEY, first, f"t{i}", OPEN) for i in range(MAX_TAGS)]
    assert [isinstance(each, AskRelay) for each in found].count(True) == MAX_TAGS - 2
    assert found[-1] is None
