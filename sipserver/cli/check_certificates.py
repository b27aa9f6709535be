"""``sipserver check``, the part about TLS: whether the certificates can be used, for whom, and for how long."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from sipserver.cli.finding import Finding
from sipserver.server.certificates import WARN_BEFORE, CertificateError, is_secure, make, read
from sipserver.server.config import Config
from sipserver.transport.identity import names_of


def certificate_findings(config: Config, now: float) -> Iterator[Finding]:
    """What there is to say of ``[tls]``; nothing where TLS is not used. ``now`` is UNIX time."""
    secure = [listener for listener in config.listeners if is_secure(listener.address)]
    tls = config.tls
    # A listener may come with a flag of ``serve``.
    if not secure and not tls.certificate:
        return
    try:
        make(tls, {listener.clients or "none" for listener in secure} or {"none"})
    except CertificateError as error:
        yield Finding("tls", str(error), ok=False)
        return
    pairs = [(tls.certificate, tls.key), *((entry.certificate, entry.key) for entry in tls.certificates)]
    named: set[str] = set()
    for file, key in pairs:
        found = read(Path(file))
        names = _names(found)
        named.update(names)
        yield _expiry(file, found, names, now)
        if stat.S_IMODE(Path(key).stat().st_mode) & stat.S_IROTH:
            yield Finding(f"key {key}", "can be read by everybody", ok=False)
    missing = [domain for domain in config.server.domains if domain not in named]
    if missing:
        # Endpoints may be given the name of this host instead, so it is no fault.
        yield Finding("tls", f"no certificate is for {', '.join(missing)}, so no other server will believe it")


def _expiry(file: str, found: x509.Certificate, names: tuple[str, ...], now: float) -> Finding:
    until, left = found.not_valid_after_utc, found.not_valid_after_utc.timestamp() - now
    what, whom = f"certificate {file}", ", ".join(names) or "nobody"
    if left <= 0:
        return Finding(what, f"for {whom}, ended on {until:%Y-%m-%d}", ok=False)
    if found.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
        return Finding(what, f"for {whom}, begins on {found.not_valid_before_utc:%Y-%m-%d}", ok=False)
    soon = ", which is soon" if left < WARN_BEFORE else ""
    return Finding(what, f"for {whom}, until {until:%Y-%m-%d}{soon}")


def _names(found: x509.Certificate) -> tuple[str, ...]:
    """The domains that the certificate is for, as a peer will see them."""
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    alternatives = [
        *(("DNS", name) for name in names.get_values_for_type(x509.DNSName)),
        *(("URI", name) for name in names.get_values_for_type(x509.UniformResourceIdentifier)),
        *(("IP Address", str(name)) for name in names.get_values_for_type(x509.IPAddress)),
    ]
    return names_of({"subjectAltName": alternatives})
