"""Tokens, hosts, ports, escapes."""

from __future__ import annotations

import pytest

from sipserver.sip import grammar
from sipserver.sip.errors import SipError


@pytest.mark.parametrize("text", ["INVITE", "100rel", "-.!%*_+`'~", "a"])
def test_token_may_hold_these_marks(text: str) -> None:
    assert grammar.is_token(text)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "a:b", "é", "a,b", "(a)"])
def test_token_holds_nothing_else(text: str) -> None:
    assert not grammar.is_token(text)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com."),
        ("localhost", "localhost"),
        ("my_phone.local", "my_phone.local"),
        ("a-b.c--d.example", "a-b.c--d.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
        ("[::ffff:192.0.2.10]", "::ffff:192.0.2.10"),
        ("[2001:db8:::192.0.2.1]", "2001:db8::c000:201"),
        ("3com.example", "3com.example"),
    ],
)
def test_host_is_given_as_it_is_compared(written: str, host: str) -> None:
    assert grammar.parse_host(written) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a.example",
        "a-.example",
        "300.0.2.1",
        "192.0.2",
        "192.0.02.1",
        "example.123",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1",
        "[fe80::1%eth0]",
        "[::1]x",
        "ex ample",
        "exämple.com",
        "example.com\n",
        "a" * 256,
    ],
)
def test_broken_host_is_refused(text: str) -> None:
    with pytest.raises(SipError, match="Bad host"):
        grammar.parse_host(text)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+5060", "5060 ", "\N{SUPERSCRIPT TWO}", "1" * 5000])
def test_port_is_a_number_from_1_to_65535(text: str) -> None:
    with pytest.raises(SipError, match="Bad port"):
        grammar.parse_port(text)
    assert grammar.parse_port("1") == 1
    assert grammar.parse_port("65535") == 65535


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("example.com", "example.com", None),
        ("example.com:5070", "example.com", 5070),
        ("[::1]", "::1", None),
        ("[::1]:5070", "::1", 5070),
    ],
)
def test_host_and_port_are_parted(written: str, host: str, port: int | None) -> None:
    assert grammar.split_host_port(written) == (host, port)


@pytest.mark.parametrize("text", ["example.com:", ":5060", "[::1]5060", "[::1]:", "a:b:c", "[::1"])
def test_broken_host_and_port_are_refused(text: str) -> None:
    with pytest.raises(SipError):
        grammar.split_host_port(text)


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("first.example.com: 4000", "first.example.com", 4000),
        (" first.example.com \t:\t4000 ", "first.example.com", 4000),
        ("2001:db8::9:1", "2001:db8::9:1", None),
        ("[2001:db8::9:1]:6050", "2001:db8::9:1", 6050),
    ],
)
def test_sent_by_may_have_spaces_and_bare_ipv6(written: str, host: str, port: int | None) -> None:
    assert grammar.split_sent_by(written) == (host, port)


def test_sent_by_of_spaces_is_refused() -> None:
    with pytest.raises(SipError):
        grammar.split_sent_by("a" + " " * 8000 + ":5060")


def test_ipv6_stands_in_brackets_before_a_port() -> None:
    assert grammar.bracketed("::1") == "[::1]"
    assert grammar.bracketed("192.0.2.1") == "192.0.2.1"


def test_escapes_have_two_digits() -> None:
    grammar.check_escapes("%41%5a and none")
    for broken in ("%", "%4", "%4g", "%%41"):
        with pytest.raises(SipError):
            grammar.check_escapes(broken)


def test_normal_escapes_undo_only_what_changes_nothing() -> None:
    assert grammar.normal_escapes("%61%7E%2d") == "a~-"
    assert grammar.normal_escapes("%3b%40%25%00%c3") == "%3B%40%25%00%C3"
    assert grammar.normal_escapes("plain") == "plain"


def test_unescape_decodes_once() -> None:
    assert grammar.unescape("v%61lue%2541") == "value%41"
    assert grammar.unescape("%00") == "\0"
    assert grammar.unescape("plain") == "plain"
