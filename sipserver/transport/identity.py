"""Which domains a certificate speaks for, and whether it speaks for this one: RFC 5922 §7.1 and §7.2.

The certificate has been verified by then; how it says its names is here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri
from sipserver.transport.contract import canonical_ip, is_ip

MAX_NAMES: Final = 100
"""Names that are kept of one certificate."""


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The SIP domain identities in a certificate as ``ssl.SSLObject.getpeercert`` shows it, in lower case.

    RFC 5922 §7.1: the hosts of ``sip`` URIs without a user; only where there is none, the DNS names. The subject's
    common name is not looked at. IP addresses count as DNS names do, for domains that are written as one.
    """
    alternatives: Sequence[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    found = [_domain_of(value) for kind, value in alternatives if kind == "URI"]
    if not any(found):
        found = [_address(value) for kind, value in alternatives if kind in ("DNS", "IP Address")]
    return tuple(dict.fromkeys(name for name in found if name))[:MAX_NAMES]


def speaks_for(names: Sequence[str], domain: str) -> bool:
    """Whether one of the names of a certificate is this domain, whole and whatever the case (§7.2)."""
    return comparable(domain) in names


def comparable(domain: str) -> str:
    """A domain as ``names_of`` writes it."""
    domain = domain.lower().removesuffix(".")
    return canonical_ip(domain) if is_ip(domain) else domain


def _domain_of(uri_text: str) -> str:
    """The domain of a ``sip`` URI; nothing where it names a user, or is of another scheme."""
    try:
        uri = Uri.parse(uri_text)
    except SipError:
        return ""
    return comparable(uri.host) if uri.scheme == "sip" and uri.user is None else ""


def _address(text: str) -> str:
    """A DNS name or an IP address (OpenSSL writes IPv6 with zeros) to be compared."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return comparable(text)
