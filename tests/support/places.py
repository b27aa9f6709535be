"""Databases of networks and location documents for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

BOUNDARY = "parts"


def city(country: str, region: str = "", name: str = "") -> dict[str, Any]:
    """A record as MaxMind's City database has it."""
    record: dict[str, Any] = {
        "country": {"iso_code": country, "names": {"en": "Land"}},
        "registered_country": {"iso_code": "ZZ"},
    }
    if region:
        record["subdivisions"] = [{"iso_code": "9", "names": {"de": "Gegend", "en": region}}]
    if name:
        record["city"] = {"names": {"en": name}}
    return record


def write_database(path: Path, records: Mapping[str, Any], *, ip_version: int = 6) -> None:
    """An ``.mmdb`` with a record for each network; written beside its place and moved there."""
    writer = MMDBWriter(ip_version=ip_version, ipv4_compatible=ip_version == 6, database_type="Test-City")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    draft = path.with_suffix(".draft")
    writer.to_db_file(str(draft))
    draft.replace(path)


def pidf(
    address: str = "<cl:country>AT</cl:country><cl:A1>Wien</cl:A1><cl:A3>Wien Mitte</cl:A3>",
    rules: str = "<gbp:retransmission-allowed>true</gbp:retransmission-allowed>",
    timestamp: str = "",
    before: str = '<?xml version="1.0" encoding="UTF-8"?>',
) -> bytes:
    """A PIDF-LO document (RFC 6442 §5.2) with this civic address and these rules."""
    at = f"<dm:timestamp>{timestamp}</dm:timestamp>" if timestamp else ""
    return (
        f'{before}<presence xmlns="urn:ietf:params:xml:ns:pidf"'
        ' xmlns:gp="urn:ietf:params:xml:ns:pidf:geopriv10"'
        ' xmlns:gbp="urn:ietf:params:xml:ns:pidf:geopriv10:basicPolicy"'
        ' xmlns:cl="urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr"'
        ' xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" entity="pres:alice@example.test">'
        f'<dm:device id="d1"><gp:geopriv><gp:location-info><cl:civicAddress>{address}</cl:civicAddress>'
        f"</gp:location-info><gp:usage-rules>{rules}</gp:usage-rules></gp:geopriv>"
        f"<dm:deviceID>mac:1234567890ab</dm:deviceID>{at}</dm:device></presence>"
    ).encode()


def located(document: bytes, routing: str | None = "yes", session: bytes = b"") -> tuple[tuple[str, ...], bytes]:
    """Header lines and body of a request that carries this document by value, behind a session description."""
    parts = [b"Content-Type: application/sdp\r\n\r\n" + session] if session else []
    parts.append(b"Content-Type: application/pidf+xml\r\nContent-ID: <here@example.test>\r\n\r\n" + document)
    edge = f"--{BOUNDARY}".encode()
    body = b"".join(edge + b"\r\n" + part + b"\r\n" for part in parts) + edge + b"--\r\n"
    lines = ["Geolocation: <cid:here@example.test>", f"Content-Type: multipart/mixed; boundary={BOUNDARY}"]
    if routing is not None:
        lines.append(f"Geolocation-Routing: {routing}")
    return tuple(lines), body
