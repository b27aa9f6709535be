"""Civic addresses out of location documents, what their rules allow, and documents that mean harm."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import pidf
from sipserver.sip.errors import SipError
from sipserver.sip.pidf import Civic, civic
from support.places import pidf as document

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
ALLOWED = "<gbp:retransmission-allowed>true</gbp:retransmission-allowed>"

# RFC 6442 §5.2, with rules that allow something.
TWO_LOCATIONS = b"""<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:gp="urn:ietf:params:xml:ns:pidf:geopriv10"
  xmlns:gbp="urn:ietf:params:xml:ns:pidf:geopriv10:basicPolicy" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
  xmlns:cl="urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr" xmlns:gml="http://www.opengis.net/gml"
  entity="pres:alice@atlanta.example.com">
  <dm:device id="target123-1"><gp:geopriv>
    <gp:location-info><gml:location><gml:Point srsName="urn:ogc:def:crs:EPSG::4326">
      <gml:pos>32.86726 -97.16054</gml:pos></gml:Point></gml:location></gp:location-info>
    <gp:usage-rules><gbp:retransmission-allowed>true
      </gbp:retransmission-allowed></gp:usage-rules>
    <gp:method>802.11</gp:method></gp:geopriv>
    <dm:deviceID>mac:1234567890ab</dm:deviceID><dm:timestamp>2026-11-24T11:57:29Z</dm:timestamp></dm:device>
  <dm:person id="target123"><gp:geopriv>
    <gp:location-info><cl:civicAddress><cl:country>US</cl:country><cl:A1>Texas</cl:A1><cl:A3>Colleyville</cl:A3>
      <cl:RD>Treemont</cl:RD><cl:HNO>3913</cl:HNO><cl:NAM>Haley's Place</cl:NAM></cl:civicAddress></gp:location-info>
    <gp:usage-rules><gbp:retransmission-allowed>true</gbp:retransmission-allowed>
      <gbp:retention-expiry>2026-11-25T20:00:00Z
      </gbp:retention-expiry></gp:usage-rules>
    <gp:method>triangulation</gp:method></gp:geopriv>
    <dm:timestamp>2026-11-24T11:28:04Z</dm:timestamp></dm:person>
</presence>"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_the_example_of_rfc_6442() -> None:
    assert civic(TWO_LOCATIONS, NOW) == Civic("US", "Texas", "Colleyville", at("2026-11-25T20:00:00Z"))


def test_location_in_a_tuple_has_the_tuples_timestamp() -> None:
    text = document(timestamp="2026-11-24T11:00:00Z").replace(b"dm:timestamp", b"timestamp")
    text = text.replace(b'<dm:device id="d1">', b'<tuple id="t"><status>')
    text = text.replace(b"</gp:geopriv>", b"</gp:geopriv></status>")
    found = civic(text.replace(b"</dm:device>", b"</tuple>"), NOW)
    assert found is not None
    assert found.until == NOW - 3600 + DAY


def test_parts_that_are_not_given_are_unknown() -> None:
    found = civic(document("<cl:country>AT</cl:country><cl:A1> </cl:A1>"), NOW)
    assert found is not None
    assert (found.country, found.region, found.city) == ("AT", "", None)


@pytest.mark.parametrize("address", ["", "<cl:RD>Ring</cl:RD>", "<country>AT</country>"])
def test_address_that_says_nothing_is_none(address: str) -> None:
    assert civic(document(address), NOW) is None


@pytest.mark.parametrize("word", ["yes", "true", "1", " True\r\n "])
def test_what_may_be_passed_on_counts(word: str) -> None:
    rules = f"<gp:retransmission-allowed>{word}</gp:retransmission-allowed>"
    assert civic(document(rules=rules), NOW) == Civic("AT", "Wien", "Wien Mitte", NOW + DAY)


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "<gbp:retransmission-allowed>false</gbp:retransmission-allowed>",
        "<gbp:retransmission-allowed>no</gbp:retransmission-allowed>",
        "<gbp:retransmission-allowed></gbp:retransmission-allowed>",
        "<retransmission-allowed>yes</retransmission-allowed>",
        f"<gp:note>{ALLOWED}</gp:note>",
        f"{ALLOWED}<gbp:retransmission-allowed>false</gbp:retransmission-allowed>",
        f"<gbp:retransmission-allowed>false</gbp:retransmission-allowed>{ALLOWED}",
        f"{ALLOWED}<gp:external-ruleset>https://rules.example/1</gp:external-ruleset>",
        f"{ALLOWED}<gp:external-ruleset/>",
    ],
)
def test_what_may_not_be_passed_on_is_none(rules: str) -> None:
    assert civic(document(rules=rules), NOW) is None


@pytest.mark.parametrize(
    ("rule", "timestamp", "until"),
    [
        ("<gbp:retention-expiry>2026-11-24T12:00:01Z</gbp:retention-expiry>", "", NOW + 1),
        ("<gp:retention-expiry>2026-11-24T14:00:00+01:00</gp:retention-expiry>", "", NOW + 3600),
        ("<gp:retention-expires>2030-01-01T00:00:00Z</gp:retention-expires>", "2020-01-01T00:00:00Z", None),
        ("", "2026-11-24T11:00:00Z", NOW - 3600 + DAY),
    ],
)
def test_what_may_be_kept_is_kept_until_then(rule: str, timestamp: str, until: float | None) -> None:
    found = civic(document(rules=ALLOWED + rule, timestamp=timestamp), NOW)
    assert found is not None
    assert found.until == (until or at("2030-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("rule", "timestamp"),
    [
        ("<gbp:retention-expiry>2026-11-24T12:00:00Z</gbp:retention-expiry>", ""),
        ("<gbp:retention-expiry>2010-11-14T20:00:00Z</gbp:retention-expiry>", ""),
        ("<gbp:retention-expiry>soon</gbp:retention-expiry>", ""),
        ("<gbp:retention-expiry>2030-01-01T00:00:00</gbp:retention-expiry>", ""),
        ("<gbp:retention-expiry></gbp:retention-expiry>", ""),
        ("", "2026-11-23T11:59:59Z"),
        ("", "yesterday"),
    ],
)
def test_what_may_not_be_kept_is_none(rule: str, timestamp: str) -> None:
    assert civic(document(rules=ALLOWED + rule, timestamp=timestamp), NOW) is None


def test_location_that_may_not_be_kept_gives_way_to_the_next() -> None:
    canada = b"<cl:civicAddress><cl:country>CA</cl:country></cl:civicAddress><x>"
    text = TWO_LOCATIONS.replace(b"<gml:location>", canada)
    text = text.replace(b"</gml:location>", b"</x>").replace(b"true\n", b"false\n")
    found = civic(text, NOW)
    assert found is not None
    assert found.country == "US"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Bad PIDF-LO"),
        (b"<a>", "Bad PIDF-LO"),
        (b"\xff\xfe<", "Bad PIDF-LO"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "Bad PIDF-LO"),
        (b"<a>&b;</a>", "Bad PIDF-LO"),
        (document(before='<!DOCTYPE x [<!ENTITY a "b">]>'), "PIDF-LO With Document Type"),
        (document(before='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "PIDF-LO With Document Type"),
        (b"<a>" * 100, "PIDF-LO Too Complex"),
        (b"<a>" + b"<b/>" * 1000 + b"</a>", "PIDF-LO Too Complex"),
        (document(f"<cl:A1>{'x' * 300}</cl:A1>"), "PIDF-LO Too Complex"),
        (b"<a>" + b" " * pidf.MAX_DOCUMENT + b"</a>", "PIDF-LO Too Large"),
    ],
)
def test_bad_and_hostile_documents_are_the_senders_fault(text: bytes, reason: str) -> None:
    with pytest.raises(SipError) as caught:
        civic(text, NOW)
    assert (caught.value.status, caught.value.reason) == (400, reason)


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(SipError, match="Document Type"):
        civic(document("<cl:country>&b;</cl:country>", before=bomb), NOW)


@given(st.binary(max_size=400), st.integers(0, 900))
def test_any_bytes_are_read_or_refused(noise: bytes, cut: int) -> None:
    whole = document()
    for text in (noise, whole[:cut] + noise + whole[cut:], whole[:cut] + noise):
        with contextlib.suppress(SipError):
            civic(text, NOW)
