"""Via, addresses, parameters and lists."""

from __future__ import annotations

import time

import pytest

from sipserver.sip.errors import SipError
from sipserver.sip.values import (
    Address,
    Via,
    first_comma,
    parse_delta,
    parse_params,
    quote,
    split_commas,
    split_params,
    unquote,
)


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("a", ["a"]),
        ("a, b ,c", ["a", "b", "c"]),
        ("", [""]),
        ("a,,b,", ["a", "", "b", ""]),
        ('"a, \\" b" <sip:x,y@z>;q=1, <sip:b@c>', ['"a, \\" b" <sip:x,y@z>;q=1', "<sip:b@c>"]),
        ('"open, <a, b', ['"open, <a, b']),
        ("<open, b", ["<open, b"]),
        ('x, "open\\', ["x", '"open\\']),
    ],
)
def test_commas_part_only_outside_of_quotes_and_brackets(value: str, elements: list[str]) -> None:
    assert split_commas(value) == elements


@pytest.mark.parametrize(
    ("value", "position"), [("a, b", 1), ("a", -1), ('"a,b" <c,d>, e', 11), ('"a,b"', -1), ("<a,b", -1)]
)
def test_first_comma_is_where_the_first_element_ends(value: str, position: int) -> None:
    assert first_comma(value) == position


def test_quotes_are_put_on_and_taken_off() -> None:
    assert quote('a "b" \\') == '"a \\"b\\" \\\\"'
    assert unquote(quote('a "b" \\')) == 'a "b" \\'
    assert unquote("token") == "token"
    assert unquote('""') == ""
    assert unquote('"a\\b"') == "ab"


@pytest.mark.parametrize("text", ['"', '"a', '"a"b', '"a\\"'])
def test_quotes_that_do_not_close_are_refused(text: str) -> None:
    with pytest.raises(SipError):
        unquote(text)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("tag=1", {"tag": "1"}),
        ("Branch=z9;rport;x=", {"branch": "z9", "rport": None, "x": ""}),
        (" tag = 98asjd8 ; lr ", {"tag": "98asjd8", "lr": None}),
        ('+sip.instance="<urn:a;b>";reg-id=1', {"+sip.instance": "<urn:a;b>", "reg-id": "1"}),
        ('x="a\\"b"', {"x": 'a"b'}),
        ("x=a=b", {"x": "a=b"}),
    ],
)
def test_parameters_are_read(text: str, params: dict[str, str | None]) -> None:
    assert parse_params(text) == params


@pytest.mark.parametrize(
    "text",
    ["", ";", "a;", ";;a", "=1", "a;A", "a=1;a=2", "a b", "a=b c", 'a="x', 'a=x"y"', 'a="x" y', " ", "<a>", "a\tb=c"],
)
def test_broken_parameters_are_refused(text: str) -> None:
    with pytest.raises(SipError):
        parse_params(text)


def test_parameters_are_parted_outside_of_quotes() -> None:
    assert split_params('v;a="x;y";b') == ["v", 'a="x;y"', "b"]
    assert split_params("v;a;b") == ["v", "a", "b"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0060", 60),
        ("4294967295", 2**32 - 1),
        ("4294967296", 2**32 - 1),
        ("9" * 5000, 2**32 - 1),
        ("0" * 5000, 0),
        ("-1", 3600),
        ("", 3600),
        ("1.5", 3600),
        ("\N{SUPERSCRIPT TWO}", 3600),
        (None, 3600),
    ],
)
def test_expires_parameter_is_bounded_and_defaults(text: str | None, seconds: int) -> None:
    assert parse_delta(text) == seconds


def test_usual_via() -> None:
    via = Via.parse("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKabc;rport")
    assert (via.transport, via.host, via.port) == ("UDP", "10.0.0.1", 5060)
    assert via.params == {"branch": "z9hG4bKabc", "rport": None}
    assert via.branch == "z9hG4bKabc"
    assert via.received is None
    assert via.rport is None
    assert str(via) == "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKabc;rport"
    assert "10.0.0.1" in repr(via)


@pytest.mark.parametrize(
    ("value", "transport", "host", "port"),
    [
        (
            "SIP / 2.0 / UDP first.example.com: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=a7c6",
            "UDP",
            "first.example.com",
            4000,
        ),
        ("SIP  /   2.0  /UDP     192.0.2.2;branch=390skdjuw", "UDP", "192.0.2.2", None),
        ("sip/2.0/tls-sctp Host.Example", "TLS-SCTP", "host.example", None),
        ("SIP/2.0/UNKNOWN\tt4.example.com ;branch = z9", "UNKNOWN", "t4.example.com", None),
        ("SIP/2.0/TCP [2001:db8::9:1]:6050", "TCP", "2001:db8::9:1", 6050),
        ("SIP/2.0/TCP 2001:db8::9:1", "TCP", "2001:db8::9:1", None),
        ("SIP/2.0/WSS df7jal23ls0d.invalid;branch=z", "WSS", "df7jal23ls0d.invalid", None),
    ],
)
def test_unusual_via(value: str, transport: str, host: str, port: int | None) -> None:
    via = Via.parse(value)
    assert (via.transport, via.host, via.port) == (transport, host, port)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ",
        "SIP/2.0 10.0.0.1",
        "SIP/2.0/UDP/X 10.0.0.1",
        "SIP/2.0/U(P 10.0.0.1",
        "SIP/2.0/UDP 10.0.0.1:0",
        "SIP/2.0/UDP 10.0.0.1;",
        "SIP/2.0/UDP 10.0.0.1;;",
        "SIP/2.0/UDP 10.0.0.1;branch=a;branch=b",
        "SIP/2.0/UDP ;branch=a",
        "SIP/2.0/UDP a b;branch=a",
        "SIP/2.0/UDP 2001:db8::g",
    ],
)
def test_broken_via_is_refused(value: str) -> None:
    with pytest.raises(SipError) as caught:
        Via.parse(value)
    assert (caught.value.status, caught.value.reason) == (400, "Bad Via")


@pytest.mark.parametrize(
    ("params", "received", "rport"),
    [
        ("received=192.0.2.7;rport=5070", "192.0.2.7", 5070),
        ("received=2001:db8::9:255", "2001:db8::9:255", None),
        ("received=[2001:db8::9:255]", "2001:db8::9:255", None),
        ("received=-;rport=0", None, None),
        ("received;rport=70000", None, None),
        ("rport=x", None, None),
    ],
)
def test_source_of_a_via(params: str, received: str | None, rport: int | None) -> None:
    via = Via.parse(f"SIP/2.0/UDP [2001:db8::9:1];{params}")
    assert via.received == received
    assert via.rport == rport


@pytest.mark.parametrize(
    ("value", "display", "uri_text", "params"),
    [
        ("<sip:bob@example.com>;tag=123", None, "sip:bob@example.com", {"tag": "123"}),
        ("<sip:bob@example.com>", None, "sip:bob@example.com", {}),
        ('"Bob" <sip:bob@example.com;lr>;tag=1', "Bob", "sip:bob@example.com;lr", {"tag": "1"}),
        ('""<sip:bob@example.com>', "", "sip:bob@example.com", {}),
        ('"J \\\\\\"" \t <sip:j@example.com> \t;\ttag = 9', 'J \\"', "sip:j@example.com", {"tag": "9"}),
        ('"a <b>; c" <sip:j@example.com>', "a <b>; c", "sip:j@example.com", {}),
        ("caller<sip:caller@example.com>;tag=323", "caller", "sip:caller@example.com", {"tag": "323"}),
        ("token1~` token2'+_ t*%!.- <sip:m@example.com>", "token1~` token2'+_ t*%!.-", "sip:m@example.com", {}),
        ("J\xc3\xbcrgen (home) <sip:j@example.com>", "J\xc3\xbcrgen (home)", "sip:j@example.com", {}),
        ("sip:bob@example.com;tag=123", None, "sip:bob@example.com", {"tag": "123"}),
        ("sip:bob@example.com ; tag = 1 ; x", None, "sip:bob@example.com", {"tag": "1", "x": None}),
        ("sip:bob@example.com", None, "sip:bob@example.com", {}),
        (
            'sip:bob@example.com;+sip.instance="<urn:uuid:1>"',
            None,
            "sip:bob@example.com",
            {"+sip.instance": "<urn:uuid:1>"},
        ),
        ("<name:John_Smith>", None, "name:John_Smith", {}),
    ],
)
def test_address_is_taken_apart(value: str, display: str | None, uri_text: str, params: dict[str, str | None]) -> None:
    address = Address.parse(value)
    assert (address.display, address.uri_text, address.params) == (display, uri_text, params)
    assert str(address) == value
    assert repr(address) == f"Address({value!r})"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "*",
        "bob",
        "<bob>",
        "<>",
        "<sip:bob@example.com",
        "<sip:bob@example.com >",
        "< sip:bob@example.com>",
        "<sip:bob@example.com\t>",
        "<<sip:bob@example.com>",
        "<sip:bob@example.com>x",
        "<sip:bob@example.com>;",
        "<sip:bob@example.com>;tag=1;tag=2",
        '"Mr. J. User <sip:j.user@example.com>',
        '"Bob"',
        '"Bob" x <sip:bob@example.com>',
        'Bob "x" <sip:bob@example.com>',
        "Bell, Alexander <sip:a.g.bell@example.com>",
        "Bell; Alexander <sip:a.g.bell@example.com>",
        "sip:user@example.com?Route=%3Csip:sip.example.com%3E",
        "sip:a,b@example.com",
        "sip:a b@example.com",
        "sip:bob@example.com;",
        "sip:bob@example.com;x=<sip:eve@example.com>",
        "<sip:bob@example.com>;tag=1, <sip:eve@example.com>",
    ],
)
def test_broken_address_is_refused(value: str) -> None:
    with pytest.raises(SipError) as caught:
        Address.parse(value)
    assert (caught.value.status, caught.value.reason) == (400, "Bad address")


def test_uri_of_an_address_is_parsed_when_it_is_read() -> None:
    address = Address.parse("<sip:b%zz@example.com>")
    with pytest.raises(SipError, match="Bad URI"):
        _ = address.uri
    good = Address.parse("<sip:bob@example.com>")
    assert good.uri.user == "bob"
    assert good.uri is good.uri


def test_an_empty_tag_is_none() -> None:
    assert Address.parse("<sip:b@example.com>;tag=").tag is None
    assert Address.parse("<sip:b@example.com>;tag").tag is None
    assert Address.parse("<sip:b@example.com>;tag=x").tag == "x"


@pytest.mark.parametrize(
    ("q", "value"), [(";q=0.33", 0.33), (";q=1.000", 1.0), (";q=0", 0.0), (";q=0.", 0.0), ("", 1.0)]
)
def test_preference_of_a_contact(q: str, value: float) -> None:
    assert Address.parse(f"<sip:b@example.com>{q}").q == value


@pytest.mark.parametrize("q", ["q", "q=", "q=1.1", "q=2", "q=-1", "q=0.1234", "q=nan", "q=1e0", "q=.5"])
def test_broken_preference_is_refused(q: str) -> None:
    with pytest.raises(SipError, match="Bad q"):
        _ = Address.parse(f"<sip:b@example.com>;{q}").q


def test_expiry_of_a_contact() -> None:
    assert Address.parse("<sip:b@example.com>").expires is None
    assert Address.parse("<sip:b@example.com>;expires=60").expires == 60
    assert Address.parse("<sip:b@example.com>;expires").expires == 3600


@pytest.mark.parametrize("value", ['"' * 8191, '"\\"' * 2700, "<" * 8191, '"\\' * 4000, "<" + '"\\"' * 2700])
def test_hostile_quoting_costs_no_more_than_its_length(value: str) -> None:
    start = time.process_time()
    split_commas(value)
    split_params(value)
    with pytest.raises(SipError):
        Address.parse(value)
    assert time.process_time() - start < 0.5
