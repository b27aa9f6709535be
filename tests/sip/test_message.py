"""Messages: their lines, their values, and what cannot be one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import names
from sipserver.sip.errors import MalformedMessage, SipError
from sipserver.sip.message import Limits, Request, Response, parse, text
from support.sip import request, response, wire

INVITE = """
INVITE sip:bob@example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKabc;rport
v: SIP/2.0/TCP a.example;branch=z9hG4bK2, SIP/2.0/TCP b.example;branch=z9hG4bK3
Max-Forwards: 70
f: "Alice" <sip:alice@example.com>;tag=123
To : <sip:bob@example.com>
i: a84b4c76e66710
CSEQ: 0004
  INVITE
Contact: <sip:a@192.0.2.1>, "x,y" <sip:b@192.0.2.1>
m: <sip:c@192.0.2.1>
Supported: Path, , outbound
X-Unknown:  kept  as it is
"""


# One line that is written unlike the others is enough for all to be read more closely, so most are as usual.
as_usual = st.tuples(st.sampled_from(["Via", "To", "Contact", "Content-Type", "Max-Forwards", "X-Own"]), st.just(": "))
spelled = st.sampled_from(["via", "VIA", "vIA", "v", "M", "contact", "cOntact", "Content-language", "X", "To"])
gaps = st.sampled_from([":", ":  ", ": \t", " : ", " \t: ", ":\r\n ", ": \r\n\t"])
otherwise = st.tuples(spelled, gaps)
begins = st.one_of(as_usual, as_usual, otherwise)
ends = st.sampled_from(["", "", "", "", " ", "\t", "\r\n more", " \r\n  more "])
values_written = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12)


@given(lines=st.lists(st.tuples(begins, values_written, ends), max_size=3))
def test_however_a_line_is_written_its_value_is_what_follows_the_colon(
    lines: list[tuple[tuple[str, str], str, str]],
) -> None:
    written = ["".join((*begin, value, end)) for begin, value, end in lines]
    message = parse("\r\n".join(("OPTIONS sip:a@b.example SIP/2.0", *written, "", "")).encode("latin-1"))
    read: dict[str, list[str]] = {}
    for line in written:
        name, _, value = line.partition(":")
        canonical = names.canonical_name(name)
        assert canonical is not None
        read.setdefault(canonical, []).append(re.sub(r"\r\n[ \t]+", " ", value).strip(" \t"))
    assert {name: message.headers(name) for name in message.names} == read
    assert {name: message.header(name) for name in message.names} == {name: found[0] for name, found in read.items()}


def refusal(data: bytes, limits: Limits | None = None) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as caught:
        parse(data, limits or Limits())
    return caught.value


def test_values_of_a_request_are_read() -> None:
    message = request(INVITE, b"body")
    assert message.method == "INVITE"
    assert message.uri_text == "sip:bob@example.com"
    assert message.uri.user == "bob"
    assert message.uri is message.uri
    assert [via.host for via in message.vias] == ["192.0.2.1", "a.example", "b.example"]
    assert message.top_via.branch == "z9hG4bKabc"
    assert message.call_id == message.call_id == "a84b4c76e66710"
    assert message.cseq == (4, "INVITE")
    assert message.from_.display == "Alice"
    assert message.from_tag == "123"
    assert message.to.uri.user == "bob"
    assert message.to_tag is None
    assert message.number(names.MAX_FORWARDS) == 70
    assert message.number(names.EXPIRES) is None
    assert [address.uri.user for address in message.addresses(names.CONTACT)] == ["a", "b", "c"]
    assert message.option_tags(names.SUPPORTED) == ["path", "outbound"]
    assert message.header("x-unknown") == "kept  as it is"
    assert message.header("x-other") is None
    assert message.headers(names.CONTACT) == ['<sip:a@192.0.2.1>, "x,y" <sip:b@192.0.2.1>', "<sip:c@192.0.2.1>"]
    assert message.has(names.CSEQ)
    assert not message.has(names.ROUTE)
    assert message.body == b"body"


def test_a_message_leaves_byte_for_byte_as_it_came() -> None:
    data = wire(INVITE, b"\x00\xff\r\n\r\n")
    assert parse(data).to_bytes() == data


def test_values_of_a_response_are_read() -> None:
    message = response("SIP/2.0 180 Ringing\nVia: SIP/2.0/UDP a.example;branch=z9hG4bK1\nCSeq: 1 INVITE")
    assert (message.status, message.reason) == (180, "Ringing")
    assert message.cseq == (1, "INVITE")


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [("SIP/2.0 100 ", 100, ""), ("SIP/2.0 100", 100, ""), ("sip/2.0 699 a  b ", 699, "a  b ")],
)
def test_reason_phrase_may_be_anything(line: str, status: int, reason: str) -> None:
    message = parse(f"{line}\r\n\r\n".encode())
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (status, reason)


def test_text_is_what_people_read() -> None:
    assert text("plain") == "plain"
    assert text("\xc3\xa9") == "é"
    assert text("\xff") == "\N{REPLACEMENT CHARACTER}"


def test_an_empty_header_has_an_empty_value() -> None:
    message = request("OPTIONS sip:a@example.com SIP/2.0\ns:\nSupported:\nRoute: ")
    assert message.header(names.SUBJECT) == ""
    assert message.values(names.ROUTE) == []
    assert message.option_tags(names.SUPPORTED) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("CSeq: 1 INVITE\nCSeq: 2 INVITE", "Several CSeq"),
        ("CSeq: x INVITE", "Bad CSeq"),
        ("CSeq: 1", "Bad CSeq"),
        ("CSeq: 2147483648 INVITE", "Bad CSeq"),
        ("CSeq: 1 IN VITE", "Bad CSeq"),
        ("X: y", "Missing CSeq"),
    ],
)
def test_broken_cseq_is_refused(line: str, reason: str) -> None:
    with pytest.raises(SipError, match=reason):
        _ = request(f"INVITE sip:a@example.com SIP/2.0\n{line}").cseq


@pytest.mark.parametrize("value", ["", "a b", "a\tb"])
def test_broken_call_id_is_refused(value: str) -> None:
    with pytest.raises(SipError, match="Bad Call-ID"):
        _ = request(f"INVITE sip:a@example.com SIP/2.0\nCall-ID: {value}").call_id


def test_broken_addresses_name_their_header() -> None:
    message = request('INVITE sip:a@example.com SIP/2.0\nFrom: "x\nTo: <\nContact: *\nVia:')
    with pytest.raises(SipError, match="Bad From"):
        _ = message.from_tag
    with pytest.raises(SipError, match="Bad To"):
        _ = message.to_tag
    with pytest.raises(SipError, match="Bad Contact"):
        message.addresses(names.CONTACT)
    with pytest.raises(SipError, match="Missing Via"):
        _ = message.top_via


@pytest.mark.parametrize("value", ["", "-1", "x", "4294967296", "1" * 5000, "1 2", "\N{SUPERSCRIPT TWO}"])
def test_broken_number_is_refused(value: str) -> None:
    with pytest.raises(SipError, match="Bad Expires"):
        request(f"INVITE sip:a@example.com SIP/2.0\nExpires: {value}").number(names.EXPIRES)


def test_replaced_via_is_parsed_anew() -> None:
    message = request(INVITE)
    assert message.top_via.host == "192.0.2.1"
    message.replace_line(0, "Via: SIP/2.0/UDP 192.0.2.9")
    assert message.top_via.host == "192.0.2.9"
    message.replace_line(2, "Max-Forwards: 69")
    assert message.number(names.MAX_FORWARDS) == 69


def test_a_datagram_without_its_blank_line_is_read() -> None:
    message = parse(b"OPTIONS sip:a@example.com SIP/2.0\r\nCSeq: 1 OPTIONS\r\n")
    assert message.cseq == (1, "OPTIONS")
    assert message.body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\0",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"IN(VITE sip:a@example.com SIP/2.0\r\n\r\n",
        b"SIP/2.0 99 x\r\n\r\n",
        b"SIP/2.0 4294967301 better\r\n\r\n",
        b"SIP/3.0 200 OK\r\n\r\n",
        b"INVITE sip:a@example.com SIP/2.0\n\n",
    ],
)
def test_what_is_no_sip_gets_no_answer(data: bytes) -> None:
    error = refusal(data)
    assert error.status == 400
    assert error.message is None or not error.message.names


@pytest.mark.parametrize(
    ("start_line", "status", "reason"),
    [
        ("INVITE  sip:a@example.com  SIP/2.0", 400, "Bad Request-URI"),
        ("INVITE sip:a@example.com; lr SIP/2.0", 400, "Bad Request-URI"),
        ("INVITE  SIP/2.0", 400, "Bad Request-URI"),
        ("INVITE sip:a@example.com SIP/2.0  ", 400, "Bad request line"),
        ("INVITE SIP/2.0", 400, "Bad request line"),
        ("INVITE sip:a@example.com SIP/7.0", 505, "Version Not Supported"),
        ("INVITE sip:a@example.com SIP/2.01", 505, "Version Not Supported"),
        ("INVITE sip:" + "a" * 1100 + " SIP/2.0", 414, "Request-URI Too Long"),
    ],
)
def test_a_broken_start_line_can_be_answered(start_line: str, status: int, reason: str) -> None:
    error = refusal(wire(f"{start_line}\nCall-ID: x\nVia: SIP/2.0/UDP a.example"))
    assert (error.status, error.reason) == (status, reason)
    assert isinstance(error.message, Request)
    assert error.message.method == "INVITE"
    assert error.message.call_id == "x"


@pytest.mark.parametrize("start_line", ["INVITE sip:a@example.com SIP/2.0", "SIP/2.0 200 OK"])
@pytest.mark.parametrize("line", ["no colon", "Via", "v", "tX", ": x", "a b: c", "\xe9: x", "(x): y", " folded: x"])
def test_a_line_that_is_no_header_is_reported_and_left_out(start_line: str, line: str) -> None:
    data = f"{start_line}\r\n{line}\r\nCall-ID: x\r\n\r\n".encode("latin-1")
    error = refusal(data)
    assert (error.status, error.reason) == (400, "Bad header line")
    assert error.message is not None
    assert error.message.names == [names.CALL_ID]
    assert error.message.call_id == "x"


@pytest.mark.parametrize("line", [b"X: a\nVia: b", b"X: a\rb", b"X: a\n", b"\rX: a", b"X: a\r\n \n b"])
def test_bare_line_ends_smuggle_nothing(line: bytes) -> None:
    error = refusal(b"INVITE sip:a@example.com SIP/2.0\r\nCall-ID: x\r\n" + line + b"\r\nCSeq: 1 INVITE\r\n\r\n")
    assert (error.status, error.reason) == (400, "Bare CR or LF")
    assert error.message is not None
    assert error.message.cseq == (1, "INVITE")
    assert not error.message.has(names.VIA)
    assert all("\n" not in line.replace("\r\n", "") for line in error.message.lines)


def test_a_bare_line_end_in_the_start_line_gets_no_answer() -> None:
    assert refusal(b"INVITE sip:a@example.com\n SIP/2.0\r\nCall-ID: x\r\n\r\n").message is None


def test_folds_are_joined_in_values_and_kept_in_lines() -> None:
    message = parse(b"OPTIONS sip:a@example.com SIP/2.0\r\nSubject: a\r\n  b\r\n\tc\r\nCall-ID:\r\n x\r\n\r\n")
    assert message.lines == ["Subject: a\r\n  b\r\n\tc", "Call-ID:\r\n x"]
    assert message.header(names.SUBJECT) == "a b c"
    assert message.call_id == "x"


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(message=100), 513),
        (Limits(body=3), 413),
        (Limits(headers=3), 400),
        (Limits(line=40), 400),
        (Limits(uri=10), 414),
    ],
)
def test_limits_are_kept_and_answered(limits: Limits, status: int) -> None:
    data = wire(INVITE, b"body")
    assert parse(data).body == b"body"
    error = refusal(data, limits)
    assert error.status == status
    assert error.message is not None
    assert len(error.message.lines) <= limits.headers


def test_a_fold_counts_for_the_length_of_its_line() -> None:
    folded = "OPTIONS sip:a@example.com SIP/2.0\nSubject: " + "\n ".join(["x" * 50] * 10)
    assert refusal(wire(folded), Limits(line=400)).reason == "Header line too long"


def test_a_broken_response_is_malformed_with_its_message() -> None:
    error = refusal(b"SIP/2.0 200 OK\r\nX: a\nb\r\nCall-ID: x\r\n\r\n")
    assert isinstance(error.message, Response)


def test_names_are_long_and_lower_case() -> None:
    assert names.canonical_name("V ") == names.VIA
    assert names.canonical_name("cAlL-iD") == names.CALL_ID
    assert names.canonical_name("C%6Fntact") == "c%6fntact"
    assert names.canonical_name("X-New") == "x-new"
    assert names.canonical_name("a b") is None
    assert names.canonical_name("") is None
