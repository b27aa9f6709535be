"""The 49 cases that RFC 4475 describes, each with a message of our own, as far as parser and validation go.

A test's comment names the section and the RFC's name of the case.
"""

from __future__ import annotations

import pytest

from sipserver.sip import build, grammar, names
from sipserver.sip.errors import MalformedMessage, SipError
from sipserver.sip.message import Message, Request, parse, text
from sipserver.sip.validate import check_request, check_response
from support.sip import request, response, wire, written

OPTIONS = "OPTIONS sip:bob@example.com SIP/2.0"
REGISTER = "REGISTER sip:example.com SIP/2.0"
INVITE = "INVITE sip:bob@example.com SIP/2.0"
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"


def options(*extra: str, **changed: str | None) -> str:
    return written(OPTIONS, *extra, CSeq=changed.pop("CSeq", "7 OPTIONS"), **changed)


def register(*extra: str, **changed: str | None) -> str:
    return written(REGISTER, *extra, CSeq=changed.pop("CSeq", "7 REGISTER"), **changed)


def valid(text: str, body: bytes = b"") -> Request:
    message = request(text, body)
    check_request(message)
    return message


def valid_response(text: str, body: bytes = b"") -> Message:
    message = response(text, body)
    check_response(message)
    return message


def refused(text: str, body: bytes = b"", status: int = 400) -> None:
    """The request is answered with this status, over its own Via."""
    with pytest.raises(SipError) as caught:
        valid(text, body)
    error = caught.value
    assert error.status == status
    message = error.message if isinstance(error, MalformedMessage) else request(text, body)
    assert isinstance(message, Request)
    assert build.can_reply(message)


# 3.1.1.1 wsinv
def test_folds_and_spaces_everywhere() -> None:
    message = valid(
        """
INVITE sip:lab@chairs.example.com;novelparam SIP/2.0
tO :
 sip:lab@chairs.example.com ;   tag    = 77001n
FROM   : "M \\\\ Quote \\\""       <sip:maria@example.com>
  ;
  tag = 5sd
mAx-fORWards: 0069
CALL-ID: spaces.9@192.0.2.1
Content-Length   : 88
cSeq: 0012
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.7;branch=77kq
s :
FreshHeader:   fresh value
 goes on here
OddHeader: ,;;,,;;;,
Content-Type: application/sdp
Route:
 <sip:relay.example.com;lr;strange=1;stranger>
v:  SIP  / 2.0  / TCP     wheel.example.com   ;
  branch  =   z9hG4bKaa8  ,
 SIP  /    2.0   / UDP  192.168.3.4   ; branch=
 z9hG4bKbb9
m:"said \\"\\"" <sip:maria@example.com> ; fresh =
      yes ;
  second ; q = 0.25
""",
        SDP,
    )
    assert message.uri.params == {"novelparam": None}
    assert message.to_tag == "77001n"
    assert message.from_.display == 'M \\ Quote "'
    assert message.from_tag == "5sd"
    assert message.number(names.MAX_FORWARDS) == 69
    assert message.cseq == (12, "INVITE")
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.7", "77kq"),
        ("TCP", "wheel.example.com", "z9hG4bKaa8"),
        ("UDP", "192.168.3.4", "z9hG4bKbb9"),
    ]
    assert message.header(names.SUBJECT) == ""
    assert message.header("freshheader") == "fresh value goes on here"
    assert message.header("oddheader") == ",;;,,;;;,"
    assert message.addresses(names.ROUTE)[0].uri.params == {"lr": None, "strange": "1", "stranger": None}
    (contact,) = message.addresses(names.CONTACT)
    assert contact.display == 'said ""'
    assert contact.params == {"fresh": "yes", "second": None, "q": "0.25"}
    assert contact.q == 0.25


# 3.1.1.2 intmeth
def test_every_character_that_the_grammar_allows() -> None:
    method = "~Strange.method-09_*+`%'!"
    user = "0_odd.User~(or-not!)&can't+it$/really?,/;;*"
    message = valid(
        f"""
{method} sip:{user}:&pa+ss=1,word!*of$a~kind_(it's)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK!.-%41*`_+'~
To: "bell:\\\x07 nul:\\\x00 del:\\\x7f" <sip:{user}@example.com>
From: one~` two'+_ three*%!.- <sip:plain@example.com>;param''~+*_!.-%="абв";tag=_~1'+`*%!-.
Call-ID: words.%ZK-!.*_+'@more`~)(><:\\/"][?}}{{
CSeq: 99887766 {method}
Max-Forwards: 255
other-!.%*+_`'~: \ufeff大停電
Content-Length: 0
"""
    )
    assert message.method == method
    assert message.uri.user == user
    assert message.uri.password == "&pa+ss=1,word!*of$a~kind_(it's)"
    assert message.uri.host == "example.com"
    assert message.top_via.branch == "z9hG4bK!.-%41*`_+'~"
    assert message.to.display == "bell:\x07 nul:\x00 del:\x7f"
    assert message.from_.display == "one~` two'+_ three*%!.-"
    assert text(message.from_.params["param''~+*_!.-%"] or "") == "абв"
    assert message.from_tag == "_~1'+`*%!-."
    assert message.call_id == "words.%ZK-!.*_+'@more`~)(><:\\/\"][?}{"
    assert text(message.header("other-!.%*+_`'~") or "") == "\ufeff大停電"


# 3.1.1.3 esc01
def test_escapes_stand_for_characters_once() -> None:
    message = valid(
        written(
            "INVITE sip:sips%3Abob%40example.com@example.net SIP/2.0",
            "Contact: <sip:c%61rol@host.example.net;%6C%72;n%61me=v%61lue%25%34%31>",
            To="sip:%62o%62@example.com",
            From="<sip:with%20spaces@example.net>;tag=1",
        )
    )
    assert message.uri.host == "example.net"
    assert message.uri.aor() == "sips%3Abob%40example.com@example.net"
    assert message.to.uri.aor() == "bob@example.com"
    assert grammar.unescape(message.from_.uri.user or "") == "with spaces"
    (contact,) = message.addresses(names.CONTACT)
    assert contact.uri.aor() == "carol@host.example.net"
    assert "lr" in contact.uri.params
    assert grammar.unescape(contact.uri.params["name"] or "") == "value%41"


# 3.1.1.4 escnull
def test_an_escaped_null_shortens_nothing() -> None:
    message = valid(
        register("Contact: <sip:%00@a.example>", "m: <sip:%00%00@a.example>", To="sip:no-%00-thing@example.com")
    )
    assert message.to.uri.aor() == "no-%00-thing@example.com"
    one, two = (contact.uri for contact in message.addresses(names.CONTACT))
    assert not one.equivalent(two)
    assert one.aor() != two.aor()


# 3.1.1.5 esc02
def test_a_percent_sign_elsewhere_is_no_escape() -> None:
    method = "RE%47IST%45R"
    message = valid(
        written(
            f"{method} sip:registrar.example.com SIP/2.0",
            "Contact: <sip:one@a.example>",
            "C%6Fntact: <sip:two@a.example>",
            "Contact: <sip:three@a.example>",
            To='"%Z%45" <sip:thing@example.com>',
            CSeq=f"3 {method}",
            Via="SIP/2.0/TCP a.example;branch=z9hG4bK209%fz",
        )
    )
    assert message.method == method
    assert message.to.display == "%Z%45"
    assert [contact.uri.user for contact in message.addresses(names.CONTACT)] == ["one", "three"]


# 3.1.1.6 lwsdisp
def test_a_name_may_touch_its_bracket() -> None:
    message = valid(options(From="carol<sip:carol@example.com>;tag=3"))
    assert message.from_.display == "carol"


# 3.1.1.7 longreq
def test_long_values_and_many_vias() -> None:
    long = "long" * 50
    spellings = ("Via", "v", "V", "ViA", "VIA", "via", "v  ", "Via ")
    message = valid(
        written(
            INVITE,
            *(f"{name}: SIP/2.0/TCP sip{number}.example.com" for number, name in enumerate(spellings * 4)),
            f"Unknown-{long}: {long}; a{long} = {long}",
            To=f'"I am {long}" <sip:bob@example.com:6000;{long}=1;a={long};Very{long}>',
            From=f"sip:{long}@example.net;tag=12{long};un{long}=known{long};{long}",
            Call_ID=f"x{long}",
            Via=f"SIP/2.0/TCP host.example.com;received=192.0.2.5;branch=very{long}",
        )
    )
    assert len(message.vias) == 33
    assert message.to.uri.port == 6000
    assert message.from_tag == f"12{long}"
    assert message.call_id == f"x{long}"


# 3.1.1.8 dblreq
def test_what_follows_the_body_in_a_datagram_is_no_request() -> None:
    message = valid(register("Content-Length: 0"), wire(INVITE))
    assert message.body == b""
    assert message.to_bytes().endswith(b"Content-Length: 0\r\n\r\n")


# 3.1.1.9 semiuri
def test_parameters_of_a_user_belong_to_the_user() -> None:
    message = valid(written("OPTIONS sip:bob;par=x%40example.net@example.com SIP/2.0", CSeq="1 OPTIONS"))
    assert grammar.unescape(message.uri.user or "") == "bob;par=x@example.net"
    assert message.uri.host == "example.com"
    assert message.uri.params == {}


# 3.1.1.10 transports
def test_a_via_may_have_any_transport() -> None:
    lines = [f"Via: SIP/2.0/{transport} a.example;branch=z9hG4bK1" for transport in ("SCTP", "TLS", "UNKNOWN", "TCP")]
    message = valid(options(*lines))
    assert [via.transport for via in message.vias] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]


# 3.1.1.11 mpart01
def test_a_binary_multipart_body_stays_as_it_is() -> None:
    body = b"--b\r\nContent-Type: text/plain\r\n\r\nHi\r\n--b\r\n\r\n0\x82\x01R\x00\x00\r\n\r\n\x80--b--"
    message = valid(
        written(
            "MESSAGE sip:kim@example.org SIP/2.0",
            "Content-Type: multipart/mixed;boundary=b",
            f"Content-Length: {len(body)}",
            CSeq="1 MESSAGE",
        ),
        body,
    )
    assert message.body == body
    assert message.to_bytes().endswith(body)


# 3.1.1.12 unreason
def test_a_reason_phrase_may_be_in_any_script() -> None:
    message = response(written("SIP/2.0 200 = 2**3 * 5**2 но сто"))
    check_response(message)
    assert text(message.reason) == "= 2**3 * 5**2 но сто"


# 3.1.1.13 noreason
def test_a_reason_phrase_may_be_empty() -> None:
    for start_line in ("SIP/2.0 100 ", "SIP/2.0 100"):
        message = response(written(start_line))
        check_response(message)
        assert (message.status, message.reason) == (100, "")


# 3.1.2.1 badinv01
def test_separators_that_separate_nothing() -> None:
    refused(written(INVITE, Via="SIP/2.0/UDP 192.0.2.15;;,;,,"))
    message = valid(written(INVITE, 'Contact: "Jo" <sip:jo@example.org>;;;;'))
    with pytest.raises(SipError, match="Bad Contact"):
        message.addresses(names.CONTACT)


# 3.1.2.2 clerr
def test_content_length_beyond_the_datagram() -> None:
    refused(written(INVITE, "Content-Length: 9999"), SDP)


# 3.1.2.3 ncl
def test_negative_content_length() -> None:
    refused(written(INVITE, "Content-Length: -999"), SDP)
    refused(written(INVITE, "Content-Length: five"), SDP)


# 3.1.2.4 scalar02
def test_numbers_of_a_request_beyond_their_range() -> None:
    refused(register(CSeq="36893488147419103232 REGISTER"))
    refused(register(Max_Forwards="300"))
    message = valid(register("Contact: <sip:bob@a.example>;expires=280297596632815", "Expires: 1" + "0" * 100))
    assert message.addresses(names.CONTACT)[0].expires == 2**32 - 1
    with pytest.raises(SipError, match="Bad Expires"):
        message.number(names.EXPIRES)


# 3.1.2.5 scalarlg
def test_numbers_of_a_response_beyond_their_range() -> None:
    message = response(written("SIP/2.0 503 Service Unavailable", CSeq="9292394834772304023312 OPTIONS"))
    with pytest.raises(SipError):
        check_response(message)
    huge = valid_response(written("SIP/2.0 503 No", "Retry-After: 949302838503028349304023988", 'Warning: 1812 x "y"'))
    with pytest.raises(SipError):
        huge.number(names.RETRY_AFTER)


# 3.1.2.6 quotbal
def test_a_quote_that_never_closes() -> None:
    refused(written(INVITE, To='"Mr. B. User <sip:bob@example.com>'))
    refused(written(INVITE, To='"Mr B. User <sip:bob@example.com> <sip:realbob@example.net>'))


# 3.1.2.7 ltgtruri
def test_brackets_around_the_request_uri() -> None:
    refused(written("INVITE <sip:bob@example.com> SIP/2.0"))


# 3.1.2.8 lwsruri
def test_white_space_within_the_request_uri() -> None:
    refused(written("INVITE sip:bob@example.com; lr SIP/2.0"))


# 3.1.2.9 lwsstart
def test_several_spaces_in_the_request_line() -> None:
    refused(written("INVITE  sip:bob@example.com  SIP/2.0"))


# 3.1.2.10 trws
def test_spaces_at_the_end_of_the_request_line() -> None:
    refused(written(f"{INVITE}  "))


# 3.1.2.11 escruri
def test_headers_in_the_request_uri() -> None:
    refused(written("INVITE sip:bob@example.com?Route=%3Csip:example.com%3E SIP/2.0"))


# 3.1.2.12 baddate
def test_a_date_in_another_zone_is_no_concern_of_a_proxy() -> None:
    valid(written(INVITE, "Date: Sat, 02 Jan 2010 16:00:00 EST"))


# 3.1.2.13 regbadct
def test_a_contact_with_headers_needs_brackets() -> None:
    message = valid(register("Contact: sip:bob@example.com?Route=%3Csip:sip.example.com%3E"))
    with pytest.raises(SipError) as caught:
        message.addresses(names.CONTACT)
    assert caught.value.status == 400


# 3.1.2.14 badaspec
def test_spaces_within_the_brackets() -> None:
    refused(options(To='"Wong, Tam" < sip:t.wong@example.org >'))


# 3.1.2.15 baddn
def test_a_comma_in_a_name_without_quotes() -> None:
    refused(options(From="Best, Alex <sip:a.best@example.com>;tag=43"))


# 3.1.2.16 badvers
def test_another_version_of_sip() -> None:
    newer = options(Via="SIP/7.0/UDP c.example.com;branch=z9hG4bKx").replace("SIP/2.0", "SIP/7.0", 1)
    refused(newer, status=505)


# 3.1.2.17 mismatch01
def test_cseq_has_another_method() -> None:
    refused(options(CSeq="8 INVITE"))


# 3.1.2.18 mismatch02
def test_cseq_has_another_method_than_an_unknown_one() -> None:
    refused(written("NEWMETHOD sip:bob@example.com SIP/2.0"))


# 3.1.2.19 bigcode
def test_a_status_code_beyond_699_gets_no_answer() -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse(wire(written("SIP/2.0 4294967301 still standing")))
    assert caught.value.message is None


# 3.2.1 badbranch
def test_a_branch_of_the_cookie_alone() -> None:
    message = valid(options(Via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"))
    assert message.top_via.branch == "z9hG4bK"


# 3.3.1 insuf
def test_required_headers_are_missing() -> None:
    refused(written(INVITE, Call_ID=None, From=None, To=None))


# 3.3.2 unkscm
def test_an_unknown_scheme_in_the_request_uri_is_well_formed() -> None:
    message = valid(written("OPTIONS schemeNobodyKnows:opaque SIP/2.0", CSeq="1 OPTIONS"))
    assert not message.uri.is_sip


# 3.3.3 novelsc
def test_an_atypical_scheme_in_the_request_uri_is_well_formed() -> None:
    message = valid(written("OPTIONS soap.beep://192.0.2.9:3002 SIP/2.0", CSeq="1 OPTIONS"))
    assert message.uri.scheme == "soap.beep"


# 3.3.4 unksm2
def test_unknown_schemes_in_headers_are_well_formed() -> None:
    message = valid(
        register("Contact: <name:Jane_Smith>", To="isbn:2983792873", From="<http://www.example.com>;tag=32")
    )
    assert message.to.uri.scheme == "isbn"
    assert message.from_.uri.scheme == "http"
    assert message.addresses(names.CONTACT)[0].uri.scheme == "name"


# 3.3.5 bext01
def test_required_extensions_are_listed() -> None:
    message = valid(options("Require: nothingHasThis, norThisEither", "Proxy-Require: noProxyHas, This"))
    assert message.option_tags(names.REQUIRE) == ["nothinghasthis", "northiseither"]
    assert message.option_tags(names.PROXY_REQUIRE) == ["noproxyhas", "this"]


# 3.3.6 invut
def test_an_unknown_content_type_is_well_formed() -> None:
    body = b'<audio>\r\n <pcmu port="443"/>\r\n</audio>\r\n'
    message = valid(written(INVITE, "Content-Type: application/unheardof", f"l: {len(body)}"), body)
    assert message.body == body


# 3.3.7 regaut01
def test_an_unknown_authorization_scheme_is_well_formed() -> None:
    message = valid(register("Authorization: NobodyKnowsThis opaque-data=here", "Content-Length:0"))
    assert message.header(names.AUTHORIZATION) == "NobodyKnowsThis opaque-data=here"


# 3.3.8 multi01
def test_single_headers_that_are_doubled() -> None:
    for name in ("CSeq", "Call-ID", "From", "To", "Max-Forwards"):
        refused(written(INVITE, f"{name}: x"))


# 3.3.9 mcl01
def test_two_content_lengths() -> None:
    refused(options("Content-Length: 13", "Content-Length: 5"), b"How long is this?")
    refused(options("Content-Length: 5", "l: 5"), b"12345")


# 3.3.10 bcast
def test_a_response_with_a_broadcast_via_is_well_formed() -> None:
    message = valid_response(written("SIP/2.0 200 OK", "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1s"))
    assert message.vias[1].host == "255.255.255.255"


# 3.3.11 zeromf
def test_max_forwards_of_zero_is_well_formed() -> None:
    assert valid(options(Max_Forwards="0")).number(names.MAX_FORWARDS) == 0


# 3.3.12 cparam01
def test_a_parameter_without_brackets_belongs_to_the_contact() -> None:
    (contact,) = valid(register("Contact: sip:+19725550100@gw1.example.net;odd")).addresses(names.CONTACT)
    assert contact.params == {"odd": None}
    assert contact.uri.params == {}


# 3.3.13 cparam02
def test_a_parameter_within_brackets_belongs_to_the_uri() -> None:
    (contact,) = valid(register("Contact: <sip:+19725550100@gw1.example.net;odd>")).addresses(names.CONTACT)
    assert contact.params == {}
    assert contact.uri.params == {"odd": None}


# 3.3.14 regescrt
def test_headers_of_a_contact_uri_are_kept() -> None:
    (contact,) = valid(register("M: <sip:bob@example.com?Route=%3Csip:sip.example.com%3E>")).addresses(names.CONTACT)
    assert contact.uri.headers == "Route=%3Csip:sip.example.com%3E"


# 3.3.15 sdp01
def test_an_accept_that_nobody_can_meet_is_well_formed() -> None:
    message = valid(written(INVITE, "Accept: text/unheardof", f"Content-Length: {len(SDP)}"), SDP)
    assert message.values(names.ACCEPT) == ["text/unheardof"]


# 3.4.1 inv2543
def test_an_invite_of_rfc_2543() -> None:
    message = valid(
        """
INVITE sip:UserC@example.com SIP/2.0
Via: SIP/2.0/UDP gw.example.com
From: <sip:+13035550111@client.example.net;user=phone>
Record-Route: <sip:UserC@example.com;maddr=ss1.example.com>
To: sip:+16505550122@ss1.example.net;user=phone
Call-ID: old.1717@client.example.com
CSeq: 56 INVITE
Content-Type: application/sdp
""",
        SDP,
    )
    assert message.from_tag is None
    assert message.top_via.branch is None
    assert message.number(names.MAX_FORWARDS) is None
    assert message.to.params == {"user": "phone"}
    assert message.body == SDP
