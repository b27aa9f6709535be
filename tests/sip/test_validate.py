"""What every message has to have, and what is left to others."""

from __future__ import annotations

import pytest

from sipserver.sip.errors import SipError
from sipserver.sip.validate import check_request, check_response
from support.sip import request, response, written


def invite(*extra: str, **changed: str | None) -> str:
    return written("INVITE sip:bob@example.com SIP/2.0", *extra, **changed)


def refused(text: str, body: bytes = b"") -> str:
    with pytest.raises(SipError) as caught:
        check_request(request(text, body))
    assert caught.value.status == 400
    return caught.value.reason


def accepted(text: str) -> None:
    check_request(request(text))


def test_a_plain_request_is_valid() -> None:
    accepted(invite())


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call_ID", "CSeq"])
def test_a_mandatory_header_is_missed(name: str) -> None:
    assert refused(invite(**{name: None})) == f"Missing {name.replace('_', '-')}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Via", "x"), ("From", '"x'), ("To", "<x>"), ("Call_ID", "a b"), ("CSeq", "-1 INVITE"), ("Max_Forwards", "x")],
)
def test_a_broken_mandatory_header_is_named(name: str, value: str) -> None:
    assert refused(invite(**{name: value})) == f"Bad {name.replace('_', '-')}"


@pytest.mark.parametrize(
    "line",
    [
        "f: <sip:alice@example.com>;tag=1",
        "t: <sip:bob@example.com>",
        "i: y",
        "CSeq: 1 INVITE",
        "Max-Forwards: 70",
    ],
)
def test_a_single_header_stands_once(line: str) -> None:
    assert refused(invite(line)).startswith("Several ")


@pytest.mark.parametrize("name", ["l", "c", "Expires", "Event", "Min-SE", "x", "Min-Expires", "r"])
def test_an_optional_single_header_stands_once(name: str) -> None:
    accepted(invite(f"{name}: 0"))
    assert refused(invite(f"{name}: 0", f"{name}: 0")).startswith("Several ")


def test_headers_that_may_stand_twice_do() -> None:
    accepted(invite("Route: <sip:a;lr>", "Route: <sip:b;lr>", "X-A: 1", "X-A: 2", "Via: SIP/2.0/UDP b.example"))


def test_method_of_cseq_is_that_of_the_request() -> None:
    assert refused(invite(CSeq="1 OPTIONS")) == "CSeq method does not match"
    assert refused(invite(CSeq="1 invite")) == "CSeq method does not match"
    accepted(written("NEWMETHOD sip:a@example.com SIP/2.0", CSeq="1 NEWMETHOD"))


def test_request_uri_is_a_uri_without_headers() -> None:
    assert refused(written("INVITE <sip:bob@example.com> SIP/2.0")) == "Bad URI"
    assert refused(written("INVITE sip:bob@example.com?Route=x SIP/2.0")) == "Headers in Request-URI"
    accepted(written("INVITE nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0"))


def test_max_forwards_is_one_byte_and_may_be_missing() -> None:
    assert refused(invite(Max_Forwards="256")) == "Bad Max-Forwards"
    accepted(invite(Max_Forwards="255"))
    accepted(invite(Max_Forwards="0"))
    accepted(invite(Max_Forwards=None))


def test_peers_of_rfc_2543_are_accepted() -> None:
    accepted(invite(From="<sip:alice@example.com>", Via="SIP/2.0/UDP iftgw.example.com", Max_Forwards=None))


def test_headers_of_no_concern_may_be_broken() -> None:
    accepted(
        invite(
            "Date: Fri, 01 Jan 2010 16:00:00 EST", "Expires: -1", "Contact: *;", "Authorization: x", "Content-Type: ("
        )
    )


def test_body_is_cut_to_its_length() -> None:
    message = request(written("INVITE sip:a@example.com SIP/2.0", "l: 3"), b"abcdef")
    check_request(message)
    assert message.body == b"abc"


def test_body_without_length_goes_to_the_end() -> None:
    message = request(written("INVITE sip:a@example.com SIP/2.0"), b"abcdef")
    check_request(message)
    assert message.body == b"abcdef"


def test_body_shorter_than_its_length_is_refused() -> None:
    assert refused(invite("Content-Length: 4"), b"abc") == "Body shorter than Content-Length"
    assert refused(invite("Content-Length: -999")) == "Bad Content-Length"
    assert refused(invite("Content-Length: five")) == "Bad Content-Length"


def test_a_plain_response_is_valid_and_cut() -> None:
    message = response(written("SIP/2.0 200 OK", "Content-Length: 1"), b"abc")
    check_response(message)
    assert message.body == b"a"


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call_ID", "CSeq"])
def test_a_response_without_its_headers_is_dropped(name: str) -> None:
    with pytest.raises(SipError):
        check_response(response(written("SIP/2.0 200 OK", **{name: None})))


@pytest.mark.parametrize("line", ["Content-Length: 9", "Content-Length: x", "t: <sip:x@example.com>"])
def test_a_broken_response_is_dropped(line: str) -> None:
    with pytest.raises(SipError):
        check_response(response(written("SIP/2.0 200 OK", line)))


def test_from_of_a_response_is_passed_on_unread() -> None:
    check_response(response(written("SIP/2.0 200 OK", From='"x')))
