"""``[location]``: what may stand there, and how each fault of it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.calls.places import Place, plain_address
from sipserver.server import settings
from sipserver.server.config import ConfigError, load


def problems(tmp_path: Path, sites: str) -> list[str]:
    path = tmp_path / "some.toml"
    path.write_text(f"[location]\nsites = [{sites}]\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [problem.removeprefix(f"{path}: location.sites") for problem in caught.value.problems]


def test_sites_become_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        '[proxy]\npeers = ["192.0.2.1"]\n[location]\nprecision = "city"\n'
        'sites = [{ network = "10.1.2.3/8", site = "HQ", country = "at", city = "Wien" },\n'
        '{ interface = "wg0", region = "Tirol" }, { access = "dsl-location=", country = "DE" }]\n'
    )
    found = settings.location(load(path))
    address = plain_address("10.9.9.9")
    assert address is not None
    assert found.sites.by_network(address) == Place("AT", None, "Wien", "HQ", "site")
    assert found.sites.by_link("wg0") == Place(region="Tirol", source="link")
    assert found.sites.by_access("dsl-location=1") == Place("DE", source="access_network")
    assert (found.precision, [str(peer) for peer in found.peers]) == ("city", ["192.0.2.1/32"])


def test_database_is_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[location]\ndatabase = "geo/city.mmdb"\n')
    assert load(path).location_database == tmp_path / "geo" / "city.mmdb"
    path.write_text('[location]\ndatabase = "/geo.mmdb"\n')
    assert load(path).location_database == Path("/geo.mmdb")
    path.write_text("")
    assert load(path).location_database is None


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ('{ site = "x" }', "[1]: wanted is one of network, interface and access"),
        (
            '{ network = "10.0.0.0/8", interface = "wg0", site = "x" }',
            "[1]: wanted is one of network, interface and access",
        ),
        (
            '{ network = "10.0.0.0/33", site = "x" }',
            '[1]: network: "10.0.0.0/33" is not allowed; wanted is a network such as "192.0.2.0/24"',
        ),
        (
            '{ interface = "a/b", site = "x" }',
            '[1]: interface: "a/b" is not allowed; wanted is a name such as "eth0"',
        ),
        ('{ interface = "wg0" }', "[1]: says nothing; wanted is at least one of site, country, region and city"),
        (
            '{ interface = "wg0", country = "AUT" }',
            '[1]: country: "AUT" is not allowed; wanted are two letters (ISO 3166-1) such as "AT"',
        ),
        (
            '{ interface = "wg0", region = "a\\u001bb" }',
            '[1]: region: "a\\u001bb" is not allowed; wanted are at most 100 printable characters',
        ),
        (
            '{ network = "10.0.0.0/8", site = "x" }, { network = "10.1.0.0/8", site = "y" }',
            '[2]: "10.1.0.0/8" is there twice',
        ),
        ('{ interface = "wg0", site = "x" }, { interface = "wg0", site = "y" }', '[2]: "wg0" is there twice'),
        ('{ netwrk = "x", site = "x" }', None),
    ],
)
def test_fault_names_the_site_and_what_is_allowed(tmp_path: Path, site: str, expected: str | None) -> None:
    found = problems(tmp_path, site)
    if expected is None:
        assert found[0].startswith("[1].netwrk: there is no such key (did you mean network?)")
    else:
        assert found == [expected]


def test_every_fault_of_every_site_is_told(tmp_path: Path) -> None:
    sites = '{ network = "x", site = "a" }, { network = "10.0.0.0/8", site = "b" }, { country = "1" }'
    assert [problem.partition(":")[0] for problem in problems(tmp_path, sites)] == ["[1]", "[3]", "[3]"]


def test_sites_that_differ_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    networks = '{ network = "10.0.0.0/8", site = "x" }, { network = "10.0.0.0/9", site = "x" }'
    sites = networks + ', { interface = "a", site = "x" }'
    path.write_text(f"[location]\nsites = [{sites}]\n")
    assert len(load(path).location.sites) == 3
