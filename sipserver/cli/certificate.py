"""``sipserver certificate``: a certificate for trying TLS out, signed by an authority that is made along with it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sipserver.cli.refusal import Refusal
from sipserver.cli.stores import store_options
from sipserver.sip.errors import SipError
from sipserver.sip.grammar import parse_host

AUTHORITY = "development-ca"
"""Stem of the authority's files."""
AUTHORITY_DAYS = 3650
BEFORE = timedelta(hours=1)
"""How long before now a certificate begins: clocks differ."""


@click.group()
def certificate() -> None:
    """Certificates to try TLS out with.

    \b
    Example:
      sipserver certificate make example.test --data-dir var
    """


@certificate.command()
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
@store_options
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the files. Default: tls in the folder of the stores.",
)  # fmt: skip
@click.option("--days", type=click.IntRange(1, 825), default=90, show_default=True, help="How long it is good for.")
def make(domains: tuple[str, ...], data_dir: Path, out: Path | None, days: int) -> None:
    """Make a certificate for DOMAIN... (names or IP addresses) to try TLS out with; not for the open network.

    It is signed by an authority of its own, development-ca.pem, which clients have to be told to trust. The authority
    is made the first time, and used again afterwards. What is printed goes into the configuration. The certificate is
    good for servers and for clients. Files of an earlier one for the same DOMAIN are replaced; a server that runs takes
    the new one by itself.

    \b
    Example:
      sipserver certificate make example.test --data-dir var
      sipserver certificate make sip.example.com example.com 192.0.2.1 --out /etc/sipserver/tls
    """
    names = [_name(domain) for domain in domains]
    folder = (out or data_dir / "tls").absolute()
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        authority, signer = _authority(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        made = _sign(domains[0], names, key.public_key(), authority, signer, timedelta(days=days))
        stem = folder / domains[0].lower().replace(":", "_")
        files = stem.with_name(stem.name + ".pem"), stem.with_name(stem.name + ".key")
        _write(files[1], _private(key), 0o600)
        _write(files[0], made.public_bytes(Encoding.PEM), 0o644)
    except OSError as error:
        raise Refusal(f"{error.filename or folder} cannot be written: {error.strerror}.") from error
    click.echo(f"# Good until {made.not_valid_after_utc:%Y-%m-%d}. Clients have to trust {folder / AUTHORITY}.pem.")
    click.echo(f'[tls]\ncertificate = "{files[0]}"\nkey = "{files[1]}"')


def _name(domain: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(domain.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(parse_host(domain).removesuffix("."))
    except (SipError, ValueError) as error:
        raise click.BadParameter(f"{domain!r} is neither a domain name nor an IP address.") from error


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority of this folder, made where there is none. Raises OSError."""
    certificate_file, key_file = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
    if certificate_file.exists() and key_file.exists():
        try:
            found = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = load_pem_private_key(key_file.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise Refusal(f"{certificate_file} and {key_file} hold no certificate and key.") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != found.public_key():
            raise Refusal(f"{key_file} is not the key of {certificate_file}.")
        if found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1):
            return found, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sipserver development CA")])
    now, public = datetime.now(UTC), key.public_key()
    made = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _private(key), 0o600)
    _write(certificate_file, made.public_bytes(Encoding.PEM), 0o644)
    return made, key


def _sign(
    domain: str,
    names: list[x509.GeneralName],
    public: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    lifetime: timedelta,
) -> x509.Certificate:
    now = datetime.now(UTC)
    # A common name has room for 64 characters; nobody is to read it, since the names stand where RFC 5922 wants them.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])])
    return (
        x509.CertificateBuilder(authority.subject, subject, public, x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(min(now + lifetime, authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file that takes the place of another at once, and is never readable by others than it is to be."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
