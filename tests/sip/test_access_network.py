"""P-Access-Network-Info."""

from __future__ import annotations

import pytest

from sipserver.sip.access_network import MAX_VALUES, AccessNetwork, parse
from sipserver.sip.errors import SipError
from support.sip import request, written


def read(*values: str) -> list[AccessNetwork]:
    lines = [f"P-Access-Network-Info: {value}" for value in values]
    return parse(request(written("INVITE sip:bob@example.com SIP/2.0", *lines)))


def test_cell_is_the_identity_that_begins_with_a_country() -> None:
    assert read('3GPP-E-UTRAN-FDD; utran-cell-id-3gpp="2320112340FFFFFF"; local-time-zone="UTC+1"') == [
        AccessNetwork("3GPP-E-UTRAN-FDD", "2320112340FFFFFF", ("utran-cell-id-3gpp=2320112340FFFFFF",), False)
    ]


def test_other_networks_have_identifiers_but_no_cell() -> None:
    assert read('ADSL;DSL-Location="Line 17, Vienna"', "IEEE-802.11;i-wlan-node-id=00112233aabb;x=1", "GPON") == [
        AccessNetwork("ADSL", None, ("dsl-location=Line 17, Vienna",), False),
        AccessNetwork("IEEE-802.11", None, ("i-wlan-node-id=00112233aabb",), False),
        AccessNetwork("GPON", None, (), False),
    ]


def test_what_the_network_tells_comes_first() -> None:
    found = read("3GPP-GERAN;cgi-3gpp=26201a", "3GPP-GERAN;cgi-3gpp=23201b;network-provided")
    assert [(each.cell, each.network_provided) for each in found] == [("23201b", True), ("26201a", False)]


def test_header_that_is_missing_names_none() -> None:
    assert read() == []


def test_values_are_bounded() -> None:
    assert len(read(",".join(["GPON"] * 100))) == MAX_VALUES


@pytest.mark.parametrize("value", [";cgi-3gpp=1", "X;;", 'X;cgi-3gpp="1', "X;a=1;a=2", ","])
def test_value_that_cannot_be_read_is_the_senders_fault(value: str) -> None:
    with pytest.raises(SipError):
        read(value)
