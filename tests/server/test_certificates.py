"""Certificates as the server keeps them: read, read again, shown by name, and about to end."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sipserver.server.certificates import DAY, Certificates
from sipserver.server.config import ConfigError, load
from sipserver.telemetry.log import Log
from sipserver.transport.contract import ListenError
from support.certificates import Authority

MAIN = '[tls]\ncertificate = "main.pem"\nkey = "main.key"\n'
LISTEN = '"tls:127.0.0.1:5061"'


class Bench:
    """Certificates in a folder, with a clock to turn, and a log that is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.issue("example.test", into="main", days=30)
        self.now = 1_000.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.certificates = self.make()

    def make(self, tls: str = MAIN, listen: str = LISTEN) -> Certificates:
        """The certificates of this configuration."""
        file = self.folder / "x.toml"
        file.write_text(f"[server]\nlisten = [{listen}]\n{tls}")
        self.certificates = Certificates(load(file), lambda: self.now, cast(Log, self))
        return self.certificates

    def _note(self, event: str, **values: Any) -> None:
        self.told.append((event, values))

    info = warning = error = _note

    def flush(self) -> None:
        """As the log's."""

    async def seconds(self, count: int) -> None:
        """So many ticks, each with time to look at the files."""
        for _ in range(count):
            self.now += 1
            self.certificates.tick()
            busy = self.certificates._busy
            if busy is not None:
                await asyncio.wait_for(busy, 10)

    def events(self) -> list[str]:
        return [event for event, _ in self.told]

    def shown(self, name: str = "example.test", listener: int = 0, client: ssl.SSLContext | None = None) -> set[str]:
        """The names of the certificate that a client sees which asks for this one."""
        context = client or self.authority.client()
        context.check_hostname = False
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = context.wrap_bio(incoming, outgoing, server_hostname=name)
        answering = self.certificates.accepting(listener).wrap_bio(outgoing, incoming, server_side=True)
        waiting = [asking, answering]
        while waiting:
            for each in list(waiting):
                try:
                    each.do_handshake()
                    waiting.remove(each)
                except ssl.SSLWantReadError:
                    pass
        certificate = asking.getpeercert() or {}
        return {str(value) for _, value in cast(Any, certificate.get("subjectAltName", ()))}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_certificate_is_read_at_the_start(bench: Bench) -> None:
    await bench.certificates.start()
    assert bench.shown() == {"example.test"}
    assert bench.events() == ["certificates.loaded"]
    ((file, left),) = bench.certificates.seconds_left().items()
    assert file == str(bench.folder / "main.pem")
    assert left > 30 * DAY
    assert bench.certificates.loaded == 1


async def test_nothing_is_read_where_nobody_listens_with_tls(bench: Bench) -> None:
    certificates = bench.make("", '"udp:127.0.0.1:5060"')
    await certificates.start()
    certificates.tick()
    await certificates.close()
    assert bench.told == []
    assert certificates.seconds_left() == {}


async def test_what_cannot_be_used_at_the_start_is_a_sentence(bench: Bench) -> None:
    (bench.folder / "main.key").unlink()
    with pytest.raises(ListenError, match=r"TLS cannot be served: .*main.key cannot be read: No such file"):
        await bench.certificates.start()


async def test_key_with_a_password_is_refused_without_asking_for_it(bench: Bench) -> None:
    file = bench.folder / "main.key"
    key = load_pem_private_key(file.read_bytes(), None)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ListenError, match=r"has a password; wanted is one without"):
        await bench.certificates.start()


# ---- files that change


async def test_new_files_are_taken_once_they_stand_still(bench: Bench) -> None:
    await bench.certificates.start()
    await bench.seconds(2)
    before = bench.certificates.accepting(0)
    bench.authority.issue("new.test", into="main")
    await bench.seconds(1)
    assert bench.certificates.accepting(0) is before
    await bench.seconds(1)
    assert bench.shown() == {"new.test"}
    await bench.seconds(3)
    assert bench.certificates.loaded == 2


async def test_bad_files_are_told_once_and_the_old_ones_used(bench: Bench) -> None:
    await bench.certificates.start()
    other = bench.authority.issue("other.test")
    (bench.folder / "main.pem").write_bytes(other.certificate.read_bytes())
    await bench.seconds(5)
    assert bench.shown() == {"example.test"}
    assert bench.events() == ["certificates.loaded", "certificates.rejected"]
    reason = bench.told[1][1]["reason"]
    assert reason.endswith("; those that were read before are still used")
    assert "does not belong to the certificate" in reason
    assert bench.certificates.rejected == 1
    (bench.folder / "main.pem").write_text("")
    await bench.seconds(3)
    assert bench.certificates.rejected == 2
    (bench.folder / "main.pem").write_bytes(other.certificate.read_bytes())
    (bench.folder / "main.key").write_bytes(other.key.read_bytes())
    await bench.seconds(3)
    assert bench.shown() == {"other.test"}


async def test_no_line_has_anything_of_a_key(bench: Bench) -> None:
    await bench.certificates.start()
    key = (bench.folder / "main.key").read_text()
    (bench.folder / "main.pem").write_text(key)
    await bench.seconds(3)
    assert not any(line in str(bench.told) for line in key.splitlines())


async def test_another_configuration_is_read_in_a_moment(bench: Bench) -> None:
    await bench.certificates.start()
    bench.authority.issue("moved.test", into="moved")
    file = bench.folder / "x.toml"
    file.write_text(f'[server]\nlisten = [{LISTEN}]\n[tls]\ncertificate = "moved.pem"\nkey = "moved.key"\n')
    bench.certificates.reload(load(file))
    await bench.seconds(2)
    assert bench.shown() == {"moved.test"}


# ---- whose


async def test_each_domain_has_its_certificate(bench: Bench) -> None:
    bench.authority.issue("two.test", into="two")
    bench.make(
        f'{MAIN}certificates = [{{ domains = ["Two.test", "alias.test"], certificate = "two.pem", key = "two.key" }}]'
    )
    await bench.certificates.start()
    assert bench.shown("two.test") == bench.shown("TWO.TEST") == bench.shown("alias.test") == {"two.test"}
    assert bench.shown("example.test") == bench.shown("unknown.test") == bench.shown("127.0.0.1") == {"example.test"}
    assert len(bench.certificates.seconds_left()) == 2


async def test_each_listener_demands_what_it_says(bench: Bench) -> None:
    listen = f'{LISTEN}, {{ address = "tls:127.0.0.1:5062", clients = "required" }}'
    bench.make(f'{MAIN}client_ca = "authority.pem"\nclients = "optional"\n', listen)
    await bench.certificates.start()
    assert bench.shown() == {"example.test"}
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        bench.shown(listener=1)
    client = bench.authority.client(bench.authority.issue("peer.test"))
    assert bench.shown(listener=1, client=client) == {"example.test"}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.parametrize(
    ("minimum", "spoken", "fits"),
    [("1.2", "TLSv1_1", False), ("1.2", "TLSv1_2", True), ("1.3", "TLSv1_2", False), ("1.3", "TLSv1_3", True)],
)
async def test_older_versions_are_not_spoken(bench: Bench, minimum: str, spoken: str, fits: bool) -> None:
    bench.make(f'{MAIN}minimum = "{minimum}"\n')
    await bench.certificates.start()
    client = bench.authority.client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion[spoken]
    if fits:
        assert bench.shown(client=client) == {"example.test"}
    else:
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            bench.shown(client=client)


async def test_own_connections_verify_the_chain(bench: Bench) -> None:
    bench.make(f'{MAIN}ca = "authority.pem"\n')
    await bench.certificates.start()
    context = bench.certificates.connecting()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert bench.shown(client=context) == {"example.test"}


# ---- the end


async def test_certificate_that_ends_soon_is_told_each_day(bench: Bench) -> None:
    bench.now = time.time() + 17.5 * DAY
    await bench.certificates.start()
    assert bench.told[-1] == ("certificate.expiring", {"certificate": str(bench.folder / "main.pem"), "days": 12})
    await bench.seconds(5)
    assert len(bench.told) == 2
    bench.now += DAY
    await bench.seconds(1)
    assert bench.told[-1][1]["days"] == 11
    bench.now += 14 * DAY
    await bench.seconds(1)
    assert bench.told[-1][1]["days"] < 0


# ---- the configuration


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"[server]\nlisten = [{LISTEN}]", '"tls:127.0.0.1:5061" needs tls.certificate and tls.key'),
        ('[tls]\ncertificate = "x"', "tls: wanted are certificate and key, or neither"),
        (f'[server]\nlisten = [{LISTEN}]\n{MAIN}clients = "required"', "wanted is tls.client_ca"),
        (
            '[tls]\ncertificates = [{ domains = [], certificate = "x", key = "y" }]',
            "wanted are domains, certificate and key",
        ),
        ('[tls]\ncertificates = [{ domains = ["a_b"], certificate = "x", key = "y" }]', "wanted is a domain name"),
        ('[tls]\ncertificates = [{ domains = ["a", "A"], certificate = "x", key = "y" }]', '"A" is there twice'),
        ('[server]\nlisten = [{ address = "tcp:127.0.0.1:1", name = "a b" }]', "wanted is a host name"),
        ('[server]\nlisten = [{ address = "udp:127.0.0.1:1", name = "a.test" }]', "UDP is known by its address alone"),
        ('[tls]\nminimum = "1.1"', "tls.minimum"),
    ],
)
def test_fault_of_the_configuration_is_a_sentence(bench: Bench, text: str, sentence: str) -> None:
    file = bench.folder / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert sentence in str(error.value)


def test_files_lie_beside_the_configuration(bench: Bench) -> None:
    folder = bench.folder / "etc"
    folder.mkdir()
    file = folder / "x.toml"
    file.write_text(
        '[tls]\ncertificate = "../main.pem"\nkey = "/k"\ncertificates = [{domains=["a"],certificate="c",key="k"}]'
    )
    tls = load(file).tls
    assert (tls.certificate, tls.key, tls.ca) == (str(bench.folder / "main.pem"), "/k", "")
    assert (tls.certificates[0].certificate, tls.certificates[0].key) == (str(folder / "c"), str(folder / "k"))
