"""``sipserver certificate make``, and what ``sipserver check`` says of certificates."""

from __future__ import annotations

import json
import ssl
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from cryptography import x509

from sipserver.server.certificates import make
from sipserver.server.config import load
from support.certificates import Authority
from support.ports import free_port

Sipserver = Callable[..., Result]


def shake_hands(configuration: str, folder: Path, name: str, *, trusts: Path, demand: str = "none") -> None:
    """A server with this configuration and a client that believes this authority agree. Raises SSLError."""
    file = folder / "made.toml"
    file.write_text(f'{configuration}client_ca = "{trusts}"\n')
    server = make(load(file).tls, {demand}).accepting[demand]
    client = ssl.create_default_context(cafile=str(trusts))
    if demand == "required":
        tls = tomllib.loads(configuration)["tls"]
        client.load_cert_chain(tls["certificate"], tls["key"])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [asking, answering]
    for _ in range(6):
        for each in list(waiting):
            try:
                each.do_handshake()
                waiting.remove(each)
            except ssl.SSLWantReadError:
                pass
    assert not waiting


@pytest.mark.parametrize("demand", ["none", "required"])
def test_made_certificate_serves_and_is_trusted(sipserver: Sipserver, tmp_path: Path, demand: str) -> None:
    result = sipserver("certificate", "make", "example.test", "192.0.2.1", "::1", "--out", str(tmp_path / "tls"))
    assert result.exit_code == 0, result.output
    trusts = tmp_path / "tls" / "development-ca.pem"
    for name in ("example.test", "192.0.2.1", "::1"):
        shake_hands(result.output, tmp_path, name, demand=demand, trusts=trusts)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(result.output, tmp_path, "other.test", trusts=trusts)


def test_files_lie_with_the_stores_and_keys_are_private(sipserver: Sipserver, data_dir: Path) -> None:
    assert sipserver("certificate", "make", "Example.TEST").exit_code == 0
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (data_dir / "tls").iterdir()}
    assert modes == {
        "development-ca.pem": 0o644, "development-ca.key": 0o600, "example.test.pem": 0o644, "example.test.key": 0o600,
    }  # fmt: skip


def test_authority_is_used_again_and_the_certificate_is_new(sipserver: Sipserver, data_dir: Path) -> None:
    made = []
    for _ in range(2):
        assert sipserver("certificate", "make", "example.test", "--days", "7").exit_code == 0
        made.append([(data_dir / "tls" / name).read_bytes() for name in ("development-ca.pem", "example.test.pem")])
    assert made[0][0] == made[1][0]
    assert made[0][1] != made[1][1]
    certificate = x509.load_pem_x509_certificate(made[1][1])
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 7


@pytest.mark.parametrize("domain", ["two words", "a..b", "-", "x" * 300])
def test_what_is_no_name_is_refused(sipserver: Sipserver, domain: str) -> None:
    result = sipserver("certificate", "make", "--", domain)
    assert result.exit_code == 2
    assert "neither a domain name nor an IP address" in result.output.replace("\n", " ")


def test_authority_with_another_key_is_refused(sipserver: Sipserver, data_dir: Path) -> None:
    assert sipserver("certificate", "make", "one.test").exit_code == 0
    folder = data_dir / "tls"
    (folder / "development-ca.key").write_bytes((folder / "one.test.key").read_bytes())
    result = sipserver("certificate", "make", "two.test")
    assert result.exit_code == 1
    assert "is not the key of" in result.stderr
    (folder / "development-ca.key").write_text("nothing")
    assert "hold no certificate and key" in sipserver("certificate", "make", "two.test").stderr


def test_folder_that_cannot_be_written_is_told(sipserver: Sipserver, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = sipserver("certificate", "make", "example.test", "--out", str(tmp_path / "file" / "tls"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


# ---- check


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def checked(sipserver: Sipserver, folder: Path, tls: str) -> dict[str, tuple[str, str]]:
    """What ``check`` finds of TLS."""
    file = folder / "x.toml"
    file.write_text(f'[server]\nlisten = ["tls:127.0.0.1:{free_port()}"]\n[tls]\n{tls}\n')
    result = sipserver("check", "--config", str(file), "--json")
    rows = {row["what"]: (row["state"], row["detail"]) for row in json.loads(result.stdout)}
    assert (result.exit_code == 0) == all(state == "ok" for state, _ in rows.values())
    return {
        what: row for what, row in rows.items() if what.split(" ")[0] in ("tls", "certificate", "key") and what != "key"
    }


def test_good_certificate_is_shown_with_its_names_and_end(
    sipserver: Sipserver, tmp_path: Path, authority: Authority
) -> None:
    authority.issue("example.test", "sip.example.test", days=100, into="good")
    (found,) = checked(sipserver, tmp_path, 'certificate = "good.pem"\nkey = "good.key"').values()
    state, detail = found
    assert state == "ok"
    assert detail.startswith("for example.test, sip.example.test, until ")
    assert not detail.endswith("soon")


def test_certificate_for_a_listener_that_comes_with_a_flag_is_looked_at(
    sipserver: Sipserver, tmp_path: Path, authority: Authority
) -> None:
    authority.issue("example.test", days=-5, into="over")
    file = tmp_path / "x.toml"
    file.write_text('[server]\nlisten = ["udp:127.0.0.1:0"]\n[tls]\ncertificate = "over.pem"\nkey = "over.key"\n')
    result = sipserver("check", "--config", str(file), "--no-ports")
    assert result.exit_code == 1
    assert ", ended on " in result.stdout


def test_certificate_that_ends_is_told(sipserver: Sipserver, tmp_path: Path, authority: Authority) -> None:
    authority.issue("example.test", days=5, into="soon")
    (found,) = checked(sipserver, tmp_path, 'certificate = "soon.pem"\nkey = "soon.key"').values()
    assert found[0] == "ok"
    assert found[1].endswith("which is soon")
    authority.issue("example.test", days=-5, into="over")
    (over,) = checked(sipserver, tmp_path, 'certificate = "over.pem"\nkey = "over.key"').values()
    assert over[0] == "FAULT"
    assert ", ended on " in over[1]


def test_domain_without_a_certificate_is_told(sipserver: Sipserver, tmp_path: Path, authority: Authority) -> None:
    authority.issue("other.test", into="other")
    found = checked(sipserver, tmp_path, 'certificate = "other.pem"\nkey = "other.key"')
    assert found["tls"] == ("ok", "no certificate is for example.test, so no other server will believe it")


def test_key_for_everybody_is_a_fault(sipserver: Sipserver, tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("example.test", into="open")
    files.key.chmod(0o644)
    found = checked(sipserver, tmp_path, 'certificate = "open.pem"\nkey = "open.key"')
    assert found[f"key {files.key}"] == ("FAULT", "can be read by everybody")


def test_certificates_that_cannot_be_used_are_a_fault(
    sipserver: Sipserver, tmp_path: Path, authority: Authority
) -> None:
    authority.issue("example.test", into="one")
    authority.issue("example.test", into="two")
    for tls, sentence in (
        ('certificate = "one.pem"\nkey = "two.key"', "does not belong to the certificate"),
        ('certificate = "none.pem"\nkey = "two.key"', "none.pem cannot be read: No such file or directory"),
        ('certificate = "one.key"\nkey = "one.key"', "one.key holds no certificate in PEM"),
        ('certificate = "one.pem"\nkey = "one.key"\nclients = "optional"\nclient_ca = "none.pem"', "cannot be read"),
        ('certificate = "one.pem"\nkey = "one.key"\nca = "one.key"', "one.key holds no certificates in PEM"),
    ):
        state, detail = checked(sipserver, tmp_path, tls)["tls"]
        assert state == "FAULT"
        assert sentence in detail
