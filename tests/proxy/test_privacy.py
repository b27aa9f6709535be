"""What is told of who asks, and what is kept from others (proxy/privacy.py, proxy/forward.py)."""

from __future__ import annotations

import pytest

from sipserver.proxy.dialling import DialPlan
from sipserver.proxy.forward import forward
from sipserver.proxy.peers import Peer
from sipserver.proxy.plan import Target
from sipserver.proxy.privacy import (
    ENDPOINTS,
    NOBODY,
    PEERS,
    Disclosure,
    believed_identity,
    disclose,
    privacy_levels,
    withhold_identity,
)
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, Response, parse
from support.proxy import KEY, MINTER, flow, plan, request

ALICE = "alice@example.test"
NAMELESS = '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=from1'
SPOKEN = "P-Asserted-Identity: <sip:erin@example.org>"


def asking(*lines: str, from_: str = "<sip:alice@example.test>;tag=from1") -> Request:
    """An INVITE with these lines."""
    return request("INVITE", "sip:bob@example.test", *lines, from_=from_)


def told(message: Request, asserted: str = PEERS, *, identity: str | None = ALICE, trusted: bool = False) -> Disclosure:
    """What is told of it."""
    return disclose(message, identity, trusted, asserted, DialPlan({"+431": [ALICE], "info@example.test": [ALICE]}))


def sent(message: Request, disclosure: Disclosure, *, trusted: bool = False) -> list[str]:
    """The lines of it as they go on."""
    target = Target("sip:bob@192.0.2.20:5060", peer=Peer("one", trusted=trusted) if trusted else None)
    made = plan([target], disclosure=disclosure)
    return forward(message, made, target, flow(), flow(), "b", MINTER, KEY).lines


def answered(*lines: str) -> Response:
    """A response with these lines."""
    text = "\r\n".join(("SIP/2.0 200 OK", "Via: SIP/2.0/UDP h;branch=z9hG4bK1", *lines, "Content-Length: 0", "", ""))
    message = parse(text.encode())
    assert isinstance(message, Response)
    return message


def test_nobody_is_told_where_the_operator_tells_nobody() -> None:
    assert told(asking(), NOBODY).lines == ()


def test_an_identity_reaches_trusted_peers_alone() -> None:
    message = asking()
    found = told(message)
    line = "P-Asserted-Identity: <sip:alice@example.test>"
    assert line in sent(message, found, trusted=True)
    assert line not in sent(message, found)


def test_everybody_who_is_called_is_told_where_the_operator_wants_it() -> None:
    message = asking()
    assert "P-Asserted-Identity: <sip:alice@example.test>" in sent(message, told(message, ENDPOINTS))


def test_the_word_of_a_trusted_peer_goes_on_and_no_other() -> None:
    assert told(asking(SPOKEN), identity=None, trusted=True).lines == (SPOKEN,)
    assert told(asking(SPOKEN), identity=None).lines == ()
    assert told(asking(SPOKEN)).lines[0] == "P-Asserted-Identity: <sip:alice@example.test>"


def test_no_more_than_two_identities_are_believed() -> None:
    many = asking("P-Asserted-Identity: <sip:a@h>, <tel:+1>, <sip:b@h>", "P-Asserted-Identity: <sip:c@h>")
    assert len(told(many, identity=None, trusted=True).lines) == 2


def test_the_sip_uri_is_who_is_believed_and_else_the_number() -> None:
    assert believed_identity(asking("P-Asserted-Identity: <tel:+43-1>, <sip:erin@Example.org>")) == "erin@example.org"
    assert believed_identity(asking("P-Asserted-Identity: tel:+43-1")) == "+431"
    assert believed_identity(asking("P-Asserted-Identity: <mailto:erin@example.org>")) is None


def test_levels_are_read_from_wherever_they_stand() -> None:
    assert privacy_levels(asking("Privacy: ID ; Critical", "Privacy: user")) == ["id", "critical", "user"]
    assert privacy_levels(asking("Privacy: ;")) == []


def test_user_privacy_takes_away_what_only_informs() -> None:
    lines = ("Subject: s", "Call-Info: <http://h>", "Organization: o", "User-Agent: u", "Reply-To: <sip:a@h>")
    message = asking(*lines, "In-Reply-To: x", "Privacy: user", "X-Other: kept", from_=NAMELESS)
    left = sent(message, told(message))
    assert "X-Other: kept" in left
    assert not [line for line in left if line.startswith(("Privacy", "Subject", "Call-Info", "Org", "User-", "Reply"))]


def test_a_caller_with_a_name_in_from_leaves_it_to_others_to_take_it_out() -> None:
    message = asking("Privacy: user", "User-Agent: u")
    left = sent(message, told(message))
    assert "Privacy: user" in left
    assert "User-Agent: u" not in left
    with pytest.raises(SipError, match="500"):
        told(asking("Privacy: user;critical"))


def test_the_option_tag_goes_with_the_last_of_privacy() -> None:
    message = asking("Privacy: user;critical", "Proxy-Require: privacy, sec-agree", from_=NAMELESS)
    assert "Proxy-Require: sec-agree" in sent(message, told(message))
    kept = asking("Privacy: user;id", "Proxy-Require: privacy", from_=NAMELESS)
    left = sent(kept, told(kept))
    assert "Proxy-Require: privacy" in left
    assert "Privacy: id" in left


def test_who_wants_no_privacy_gets_none() -> None:
    message = asking("Privacy: none", "User-Agent: u", from_=NAMELESS)
    left = sent(message, told(message))
    assert "Privacy: none" in left
    assert "User-Agent: u" in left


def test_what_cannot_be_done_without_is_named_in_the_refusal() -> None:
    with pytest.raises(SipError) as caught:
        told(asking("Privacy: header;session;critical;\x01bad"))
    assert (caught.value.status, caught.value.reason) == (500, "Privacy Failure: header, session")


@pytest.mark.parametrize(
    ("from_trusted", "to_trusted", "asserted", "privacy", "passes"),
    [
        (True, True, PEERS, "id", True),
        (True, False, PEERS, "", False),
        (True, False, PEERS, "none", True),
        (True, False, ENDPOINTS, "", True),
        (True, False, ENDPOINTS, "id", False),
        (False, True, ENDPOINTS, "none", False),
        (True, True, NOBODY, "", False),
    ],
)
def test_an_identity_in_a_response(
    from_trusted: bool, to_trusted: bool, asserted: str, privacy: str, passes: bool
) -> None:
    message = answered(SPOKEN, *([f"Privacy: {privacy}"] if privacy else []), SPOKEN)
    withhold_identity(message, from_trusted=from_trusted, to_trusted=to_trusted, asserted=asserted)
    assert message.has("p-asserted-identity") is passes
    assert len(message.lines) == len(message.names)
