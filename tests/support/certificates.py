"""Certificates for tests: an authority, and what it signs, made when a test needs them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(slots=True)
class Files:
    """A certificate, with its key, on disk."""

    certificate: Path
    key: Path


class Authority:
    """Signs whatever a test wants signed; its own certificate is ``file``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
        self._certificate = (
            builder.not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, *names: str, uris: Sequence[str] = (), dns: Sequence[str] = (), days: float = 30, into: str = "",
        common_name: str = "test",
    ) -> Files:  # fmt: skip
        """A certificate for these DNS names and IP addresses, these URIs, and all of ``dns`` as if they were
        names; negative ``days`` are over."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = x509.CertificateBuilder(self._name, None, key.public_key(), x509.random_serial_number())
        builder = builder.subject_name(subject).not_valid_before(now - timedelta(days=2) + timedelta(days=min(days, 0)))
        builder = builder.not_valid_after(now + timedelta(days=days))
        alternatives = [*map(_name, names), *map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = into or "-".join(names).replace("*", "any").replace(":", ".") or "nameless"
        files = Files(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files.key.chmod(0o600)
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return files

    def client(self, shown: Files | None = None) -> ssl.SSLContext:
        """For a client that believes this authority."""
        context = ssl.create_default_context(cafile=str(self.file))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context

    def server(self, shown: Files, demand: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.certificate, shown.key)
        context.load_verify_locations(self.file)
        context.verify_mode = demand
        return context


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
