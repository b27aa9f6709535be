"""The server's certificates: read at the start, read again when their files change, and how long they are good for.

The one place where ``ssl.SSLContext`` objects are made. A connection keeps the one that it began with, so a change is
for those that come after it. Files that cannot be used change nothing: what was read before goes on to be used, and
that is told once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sipserver.server.config import Config
from sipserver.server.geodatabase import Stamp, stamp_of
from sipserver.server.sections import SECURE, TlsSection
from sipserver.telemetry.log import Log
from sipserver.transport.contract import ListenError

WARN_BEFORE: Final = 14 * 86_400
"""Seconds before a certificate expires from which on that is told each day."""
DAY: Final = 86_400

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_DEMANDS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class CertificateError(Exception):
    """Certificates that cannot be used: a sentence for the operator."""


@dataclass(slots=True)
class Material:
    """Everything that is made of the files, at one time."""

    accepting: dict[str, ssl.SSLContext] = field(default_factory=dict)
    """By what is demanded of clients: ``none``, ``optional``, ``required``."""
    connecting: ssl.SSLContext | None = None
    expiries: dict[str, float] = field(default_factory=dict)
    """UNIX time at which each certificate ends, by its file."""


class Certificates:
    """What the transports ask for (``transport.contract.Security``). All methods are called on the loop; files are read
    in a thread."""

    def __init__(self, config: Config, clock: Callable[[], float], log: Log) -> None:
        self.loaded = 0
        """How often the files were read and are used since."""
        self.rejected = 0
        """How often what they held could not be used."""
        self._config = config
        self._clock = clock
        self._log = log
        self._listeners = tuple(each.address for each in config.listeners)
        self._material = Material()
        self._taken: tuple[Stamp | None, ...] | None = None
        """The files that were looked at last, whether they could be used or not."""
        self._seen: tuple[Stamp | None, ...] = ()
        self._fault = ""
        self._busy: asyncio.Future[None] | None = None
        self._warn_at = 0.0

    @property
    def wanted(self) -> bool:
        """Whether there is a listener that needs a certificate."""
        return any(is_secure(address) for address in self._listeners)

    def accepting(self, listener: int) -> ssl.SSLContext:
        """For a connection that this listener accepts now."""
        return self._material.accepting[self._demand(self._listeners[listener])]

    def connecting(self) -> ssl.SSLContext:
        """For a connection that is opened now."""
        context = self._material.connecting
        assert context is not None, "only a server with a TLS listener connects by TLS"
        return context

    def seconds_left(self) -> Mapping[str, float]:
        """Until each certificate ends, by its file; negative where it has."""
        now = self._clock()
        return {name: round(until - now) for name, until in self._material.expiries.items()}

    async def start(self) -> None:
        """Read the files. Raises ListenError where they cannot be used."""
        if not self.wanted:
            return
        loop = asyncio.get_running_loop()
        self._taken = self._seen = await loop.run_in_executor(None, _stamps, self._config.tls)
        try:
            self._use(await loop.run_in_executor(None, self._make))
        except CertificateError as error:
            raise ListenError(f"TLS cannot be served: {error}.") from error

    def tick(self) -> None:
        """Once a second: see whether files have changed, and whether a certificate is about to end. Returns at once."""
        if self._taken is None:
            return
        if self._busy is None or self._busy.done():
            self._busy = asyncio.ensure_future(self._poll())
        if self._clock() >= self._warn_at:
            self._warn()

    def reload(self, config: Config) -> None:
        """Another configuration holds. Listeners stay as they are, but for what they demand of clients."""
        self._config = config
        if self._taken is not None:
            self._taken = ()

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._busy is not None:
            await asyncio.wait((self._busy,))

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        seen, before = await loop.run_in_executor(None, _stamps, self._config.tls), self._seen
        self._seen = seen
        # Certificate and key are written one after the other: the same twice in a row is whole, as far as can be seen.
        if seen == self._taken or seen != before:
            return
        self._taken = seen
        try:
            self._use(await loop.run_in_executor(None, self._make))
        except CertificateError as error:
            self.rejected += 1
            if str(error) != self._fault:
                self._fault = str(error)
                self._log.error("certificates.rejected", reason=f"{error}; those that were read before are still used")
                self._log.flush()

    def _make(self) -> Material:
        return make(self._config.tls, {self._demand(each) for each in self._listeners if is_secure(each)})

    def _use(self, material: Material) -> None:
        self._material = material
        self._fault = ""
        self.loaded += 1
        ends = {name: _day(until) for name, until in material.expiries.items()}
        self._log.info("certificates.loaded", until=ends)
        self._warn()

    def _warn(self) -> None:
        self._warn_at = self._clock() + DAY
        for name, left in self.seconds_left().items():
            if left < WARN_BEFORE:
                self._log.warning("certificate.expiring", certificate=name, days=int(left // DAY))

    def _demand(self, address: str) -> str:
        """What is demanded of clients at this address."""
        for each in self._config.listeners:
            if each.address == address:
                return each.clients or "none"
        return self._config.tls.clients


def is_secure(address: str) -> bool:
    """Whether a listener at this address, as configured, needs a certificate."""
    return address.partition(":")[0].lower() in SECURE


def make(tls: TlsSection, demands: Iterable[str]) -> Material:
    """Everything that the files of a configuration give, for listeners with these demands. Raises CertificateError."""
    material = Material(expiries=expiries(tls))
    for demand in demands:
        base = _accepting(tls.certificate, tls.key, tls, demand)
        others: dict[str, ssl.SSLContext] = {}
        for entry in tls.certificates:
            context = _accepting(entry.certificate, entry.key, tls, demand)
            others |= {domain.lower(): context for domain in entry.domains}
        if others:
            base.sni_callback = _chooser(others)
        material.accepting[demand] = base
    material.connecting = _connecting(tls)
    return material


def expiries(tls: TlsSection) -> dict[str, float]:
    """When each certificate ends (UNIX time), by its file. Raises CertificateError."""
    files = [tls.certificate, *(entry.certificate for entry in tls.certificates)]
    return {file: read(Path(file)).not_valid_after_utc.timestamp() for file in files if file}


def read(path: Path) -> x509.Certificate:
    """The first certificate in this file: the server's own. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError) as error:
        raise CertificateError(f"{path} holds no certificate in PEM") from error


def _accepting(certificate: str, key: str, tls: TlsSection, demand: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, tls)
    # Connections of SIP last for hours: to resume one saves little, and a ticket would outlive what it was proved by.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load_chain(context, certificate, key)
    context.verify_mode = _DEMANDS[demand]
    if demand != "none":
        _load_authorities(context, tls.client_ca)
    return context


def _connecting(tls: TlsSection) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, tls)
    # The chain is verified here; names are compared as RFC 5922 §7.2 says, which knows no wildcards.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if tls.ca:
        _load_authorities(context, tls.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    # RFC 3261 §26.3.1: a proxy that is asked who it is shows its own.
    _load_chain(context, tls.certificate, tls.key)
    return context


def _harden(context: ssl.SSLContext, tls: TlsSection) -> None:
    context.minimum_version = _VERSIONS[tls.minimum]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def no_password() -> str:
        # OpenSSL would ask at the terminal, and the server would stand still until somebody answers.
        raise CertificateError(f"the key in {key} has a password; wanted is one without")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"the key in {key} does not belong to the certificate in {certificate}") from error
        raise CertificateError(f"{certificate} and {key} hold no certificate and key that can be used") from error
    except OSError as error:
        raise CertificateError(f"{certificate} or {key} cannot be read: {error.strerror or error}") from error


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise CertificateError(f"{file} holds no certificates in PEM") from error
    except OSError as error:
        raise CertificateError(f"{file} cannot be read: {error.strerror or error}") from error


def _chooser(others: Mapping[str, ssl.SSLContext]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """Shows the certificate of the domain that the client names (RFC 6066 §3); of any other the first."""

    def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        context = others.get((name or "").lower().removesuffix("."))
        if context is not None:
            session.context = context

    return choose


def _stamps(tls: TlsSection) -> tuple[Stamp | None, ...]:
    files = [tls.certificate, tls.key, tls.ca, tls.client_ca]
    for entry in tls.certificates:
        files += (entry.certificate, entry.key)
    return tuple(stamp_of(Path(file)) if file else None for file in files)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
