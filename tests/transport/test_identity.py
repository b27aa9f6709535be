"""Whom a certificate speaks for (transport/identity.py, RFC 5922 §7.1 and §7.2)."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.transport.identity import MAX_NAMES, names_of, speaks_for


def certificate(*alternatives: tuple[str, str]) -> dict[str, Any]:
    """As ``getpeercert`` shows it."""
    return {"subject": ((("commonName", "cn.example"),),), "subjectAltName": alternatives}


@pytest.mark.parametrize(
    ("alternatives", "names"),
    [
        ((("DNS", "Example.COM"),), ("example.com",)),
        ((("DNS", "a.example"), ("DNS", "b.example"), ("DNS", "a.example.")), ("a.example", "b.example")),
        ((("URI", "sip:example.com"), ("DNS", "other.example")), ("example.com",)),
        ((("DNS", "other.example"), ("URI", "SIP:Example.com:5061;transport=tls")), ("example.com",)),
        ((("URI", "sip:alice@example.com"), ("DNS", "other.example")), ("other.example",)),
        ((("URI", "sips:example.com"), ("DNS", "other.example")), ("other.example",)),
        ((("URI", "https://example.com/"), ("URI", "sip:")), ()),
        ((("DNS", "*.example.com"),), ("*.example.com",)),
        ((("IP Address", "192.0.2.1"), ("IP Address", "2001:DB8:0:0:0:0:0:1")), ("192.0.2.1", "2001:db8::1")),
        ((("email", "a@example.com"), ("DirName", "x")), ()),
        ((), ()),
    ],
)
def test_names_are_those_of_sip_uris_or_else_of_dns(
    alternatives: tuple[tuple[str, str], ...], names: tuple[str, ...]
) -> None:
    assert names_of(certificate(*alternatives)) == names


def test_no_certificate_has_no_names_and_the_common_name_is_none() -> None:
    assert names_of(None) == names_of({}) == names_of({"subject": ((("commonName", "example.com"),),)}) == ()


def test_names_are_bounded() -> None:
    assert len(names_of(certificate(*(("DNS", f"{each}.example") for each in range(1000))))) == MAX_NAMES


@pytest.mark.parametrize("domain", ["example.com", "EXAMPLE.com", "example.com.", "2001:DB8::1"])
def test_a_domain_is_compared_whole_whatever_its_case(domain: str) -> None:
    assert speaks_for(("example.com", "2001:db8::1"), domain)


@pytest.mark.parametrize(
    "domain", ["sip.example.com", "ample.com", "com", "", "*.example.com", "a.wild.test", "wild.test"]
)
def test_neither_suffix_nor_wildcard_matches(domain: str) -> None:
    assert not speaks_for(("example.com", "*.wild.test", ".wild.test"), domain)
