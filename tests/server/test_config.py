"""What a configuration may be, and how each fault of one is told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sipserver.server import tables
from sipserver.server.config import Config, ConfigError, load
from sipserver.server.sections import Listener, split_host_port

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "sipserver.toml"


def problems(tmp_path: Path, text: str, **given: Any) -> list[str]:
    """The faults of a file, without the file's name."""
    path = tmp_path / "some.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, **given)
    assert str(caught.value).splitlines() == list(caught.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_shipped_file_shows_every_key_with_its_default() -> None:
    shipped = tomllib.loads(SHIPPED.read_text("utf-8"))
    defaults = msgspec.to_builtins(Config())
    defaults["server"]["data_dir"] = "../var"
    assert tables_as_lists(defaults) == shipped


def tables_as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: tables_as_lists(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_shipped_file_explains_every_key() -> None:
    lines = SHIPPED.read_text("utf-8").splitlines()
    section_has_comment = False
    for line in lines:
        if not line or line.startswith("["):
            section_has_comment = False
        elif line.startswith("#"):
            section_has_comment = True
        else:
            assert section_has_comment, f"{line} has no comment above it in its paragraph"


def test_shipped_file_keeps_its_stores_beside_its_folder() -> None:
    assert load(SHIPPED).data_dir == SHIPPED.parent.parent / "var"


def test_defaults_need_no_file() -> None:
    config = load()
    assert config.server.domains == ("example.test",)
    assert config.data_dir == Path("var")
    assert config.node
    assert config.metrics_address is None


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[server]\ndomains = ["a.test"]\nlisten = ["udp:127.0.0.1:1"]\ndata_dir = "d"\nnode = "n1"\n')
    config = load(path, domains=["B.test"], listen=["tcp:127.0.0.1:2"], data_dir=Path("elsewhere"))
    assert config.server.domains == ("b.test",)
    assert config.server.listen == ("tcp:127.0.0.1:2",)
    assert config.data_dir == Path("elsewhere")
    assert config.node == "n1"


def test_data_dir_is_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[server]\ndata_dir = "../d"\n')
    assert load(path).data_dir == tmp_path.parent / "d"
    path.write_text('[server]\ndata_dir = "/absolute"\n')
    assert load(path).data_dir == Path("/absolute")


def test_listener_table_overrides_authentication(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        '[server]\nlisten = ["udp:127.0.0.1:1", {address = "tcp:[::1]:2", algorithms = ["SHA-256"], qop = false}]\n'
        '[authentication]\nalgorithms = ["SHA-512-256", "MD5"]\n'
    )
    assert load(path).listeners == (
        Listener(address="udp:127.0.0.1:1", algorithms=("SHA-512-256", "MD5"), qop=True, clients="none"),
        Listener(address="tcp:[::1]:2", algorithms=("SHA-256",), qop=False, clients="none"),
    )


PEER = '[[proxy.named_peers]]\nname = "carrier"\nnetworks = ["198.51.100.20"]\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[proxy.named_peers]]\nname = "a b"\nnetworks = ["::1"]', 'name: "a b" is not allowed'),
        (PEER + PEER.replace(".20", ".21"), 'proxy.named_peers[2]: name: "carrier" is there twice'),
        (PEER + PEER.replace("carrier", "other"), 'networks: "198.51.100.20" is another peer\'s as well'),
        ('[[proxy.named_peers]]\nname = "a"', "wanted are networks or certificates"),
        ('[[proxy.named_peers]]\nname = "a"\nnetworks = ["x"]', 'networks: "x" is not allowed'),
        ('[[proxy.named_peers]]\nname = "a"\ncertificates = ["-x"]', 'certificates: "-x" is not allowed'),
        (PEER + 'may_call = ["example.org"]', 'may_call: "example.org" is not allowed'),
        (PEER + 'target = "sip:bob@192.0.2.1"', 'target: "sip:bob@192.0.2.1" is not allowed'),
        (PEER + 'trusted = "yes"', 'proxy.named_peers[1].trusted: "yes" is not allowed; wanted is true or false'),
        ('[[proxy.routes]]\nto = "sip:h"', "proxy.routes[1]: wanted is one of domain and prefix"),
        ('[[proxy.routes]]\ndomain = "example.org"', "proxy.routes[1]: wanted is one of peer and to"),
        ('[[proxy.routes]]\ndomain = "*.-"\nto = "sip:h"', 'domain: "*.-" is not allowed'),
        ('[[proxy.routes]]\ndomain = "example.test"\nto = "sip:h"', 'domain: "example.test" is ours'),
        ('[[proxy.routes]]\nprefix = "x"\nto = "sip:h"', 'prefix: "x" is not allowed'),
        ('[[proxy.routes]]\nprefix = "+1"\nto = "tel:+1"', 'to: "tel:+1" is not allowed'),
        (PEER + '[[proxy.routes]]\nprefix = "+1"\npeer = "carier"', "(did you mean carrier?)"),
        (PEER + 'direction = "in"\n[[proxy.routes]]\nprefix = "+1"\npeer = "carrier"', 'has the direction "in"'),
        (
            PEER.replace(".20", ".0/24") + '[[proxy.routes]]\nprefix = "+1"\npeer = "carrier"',
            "has neither a target nor a single address",
        ),
        ('[proxy]\noutbound_to = ["+4x"]', 'proxy.outbound_to[1]: "+4x" is not allowed'),
        ('[proxy.outbound_of]\n"a@b.test" = []', 'proxy.outbound_of: "a@b.test" is not allowed'),
        ('[proxy.outbound_of]\n"a@example.test" = [7]', 'proxy.outbound_of."a@example.test"[1]: 7 is not allowed'),
        ('[proxy.outbound_of]\n"a@example.test" = ["-"]', 'proxy.outbound_of."a@example.test": "-" is not allowed'),
        ('[addresses.aliases]\n"a@b.test" = "x@b.test"', 'addresses.aliases: "a@b.test" is not allowed'),
        ('[addresses.aliases]\n"a@example.test" = ["x"]', '"x" is not allowed; wanted is an address such as'),
        ('[addresses.aliases]\n"a@example.test" = 7', "7 is not allowed; wanted is text in quotes or a list"),
        ('[addresses.aliases]\n"a@example.test" = "a@example.test"', "stands for nobody, or in the end for itself"),
        ('[[addresses.numbers]]\nto = "+"', "wanted is one of prefix and pattern"),
        ('[[addresses.numbers]]\nprefix = "0"\npattern = "1"\nto = "+"', "wanted is one of prefix and pattern"),
        ('[[addresses.numbers]]\nprefix = "a"\nto = "+"', 'prefix: "a" is not allowed'),
        ('[[addresses.numbers]]\ncontext = "43"\nto = "+"', 'context: "43" is not allowed'),
        ('[[addresses.numbers]]\npattern = "(1+)+"\nto = "+"', 'pattern: "(1+)+" is not allowed'),
        ("[[addresses.numbers]]\npattern = '1'\nto = '\\1'", "names a group that the pattern has not"),
        ("[[addresses.numbers]]\nprefix = '1'\nto = '\\1'", "names a group, but there is no pattern"),
        ('[[addresses.numbers]]\nprefix = "1"\nto = "x"', 'to: "x" is not allowed; wanted are digits, or an address'),
    ],
)
def test_faults_of_a_policy_are_told(tmp_path: Path, text: str, fault: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert fault in problem


def test_peers_are_networks(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[proxy]\ninbound = "peers"\npeers = ["192.0.2.7", "192.0.2.77/24", "2001:db8::/48"]\n')
    assert [str(network) for network in load(path).peers] == ["192.0.2.7/32", "192.0.2.0/24", "2001:db8::/48"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[limits]\nmessage = 12", "limits.message: 12 is not allowed; wanted is a whole number from 256 to 16777216"),
        ('[limits]\nbody = "x"', 'limits.body: "x" is not allowed; wanted is a whole number from 256 to 16777216'),
        ("[limits]\nbody = true", "limits.body: true is not allowed; wanted is a whole number from 256 to 16777216"),
        ("[timers]\nt1 = nan", "timers.t1: NaN is not allowed; wanted is a number from 0.01 to 10"),
        ("[tcp]\nidle = 0", "tcp.idle: 0 is not allowed; wanted is a number above 0 up to 86400"),
        ("[proxy]\noutbound = 1", "proxy.outbound: 1 is not allowed; wanted is true or false"),
        ("[proxy]\npeers = 7", "proxy.peers: 7 is not allowed; wanted is a list, each of it text in quotes"),
        (
            '[log]\nlevel = "loud"',
            'log.level: "loud" is not allowed; wanted is one of "debug", "error", "info", "warning"',
        ),
        (
            "log = 3",
            "log: 3 is not allowed; wanted is a table of format, level, addresses",
        ),
        (
            '[media]\nrelay = ["localhost"]',
            'media.relay[1]: "localhost" is not allowed; wanted is HOST:PORT, by IP address',
        ),
        (
            '[media]\nrelay = ["127.0.0.1:0"]',
            'media.relay[1]: "127.0.0.1:0" is not allowed; wanted is HOST:PORT, by IP address',
        ),
        (
            '[media]\nrelay = ["127.0.0.1:1", "127.0.0.1:1"]',
            'media.relay[2]: "127.0.0.1:1" is there twice',
        ),
        (
            '[media]\ninterfaces = ["one"]',
            "media.interfaces: wanted are two names, or none",
        ),
        (
            '[media]\ninterfaces = ["one", "two words"]',
            'media.interfaces[2]: "two words" is not allowed; wanted is a name of rtpengine\'s',
        ),
        (
            '[turn]\nurls = ["https://turn.example.com"]',
            (
                'turn.urls[1]: "https://turn.example.com" is not allowed; '
                'wanted is a URL such as "turn:turn.example.com:3478?transport=udp"'
            ),
        ),
        (
            "[metrics]\nlistn = 1",
            "metrics.listn: there is no such key (did you mean listen?); allowed here: listen",
        ),
        (
            "[server]\nlisten = [1]",
            (
                "server.listen[1]: 1 is not allowed; "
                "wanted is text in quotes or a table of address, algorithms, qop, clients, name"
            ),
        ),
        ("[server]\nlisten = [{qop = true}]", "server.listen[1].address: is missing; wanted is text in quotes"),
        (
            '[server]\nlisten = ["tls:127.0.0.1:5061"]',
            'server.listen[1]: "tls:127.0.0.1:5061" needs tls.certificate and tls.key',
        ),
        ("[server]\nlisten = []", "server.listen: is empty; wanted is at least one listener"),
        (
            '[server]\nlisten = ["udp:127.0.0.1:1", "udp:127.0.0.1:1"]',
            'server.listen[2]: "udp:127.0.0.1:1" is there twice',
        ),
        ("[server]\ndomains = []", "server.domains: is empty; wanted is at least one domain"),
        (
            '[server]\ndomains = ["-x"]',
            'server.domains[1]: "-x" is not allowed; wanted is a domain name such as "example.com", or an IPv4 address',
        ),
        ('[server]\ndata_dir = ""', "server.data_dir: is empty; wanted is a folder"),
        (
            '[server]\nagent = "a\\nb"',
            'server.agent: "a\\nb" is not allowed; wanted is at most 100 characters of ASCII',
        ),
        ("[registrar]\nmin_expires = 7200", "registrar: wanted is min_expires <= default_expires <= max_expires"),
        ("[timers]\nt1 = 9\nt2 = 1", "timers: wanted is t1 <= t2"),
        ("[limits]\nmessage = 300", "limits.body: a body cannot be longer than limits.message"),
        (
            "[authentication]\nalgorithms = []",
            "authentication.algorithms: is empty; wanted is at least one of MD5, SHA-256, SHA-512-256",
        ),
        (
            '[server]\nlisten = [{address = "udp:127.0.0.1:1", algorithms = ["MD5", "MD5"]}]',
            "server.listen[1].algorithms: an algorithm is there twice",
        ),
        (
            '[proxy]\npeers = ["example.com"]',
            'proxy.peers[1]: "example.com" is not allowed; wanted is an IP address or a network such as "192.0.2.0/24"',
        ),
        ('[proxy]\ninbound = "peers"', 'proxy.peers: is empty, but proxy.inbound is "peers"'),
        ('[metrics]\nlisten = "9464"', 'metrics.listen: "9464" is not allowed; wanted is HOST:PORT'),
    ],
)
def test_fault_names_the_key_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


@pytest.mark.parametrize("address", ["udp:127.0.0.1", "udp:host:5060", "udp:::1:5060", "udp:1.2.3.4:65536", "5060", ""])
def test_listener_without_address_and_port_is_refused(tmp_path: Path, address: str) -> None:
    (problem,) = problems(tmp_path, f'[server]\nlisten = ["{address}"]')
    assert "wanted is udp:HOST:PORT, or tcp, tls, ws, wss for udp" in problem


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = "[limits]\nmessage = 1\nbody = 2\n[nothing]\n[log]\nlevel = 3\n"
    assert [problem.partition(":")[0] for problem in problems(tmp_path, text)] == [
        "limits.message", "limits.body", "nothing", "log.level",
    ]  # fmt: skip


def test_fault_of_a_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("")
    for file in (path, None):
        with pytest.raises(ConfigError, match=r"^command line: server.domains\[1\]"):
            load(file, domains=["a b"])


def test_long_wrong_value_is_cut_and_escaped(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, f'[log]\nformat = "\\u001b[31m{"x" * 500}"')
    assert "\x1b" not in problem
    assert len(problem) < 200


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"[server", b"\xff\xfe"])
def test_file_that_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml: is not TOML: "):
        load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[0::1]:5060", ("::1", 5060)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("::1:5060", None),
        ("127.0.0.1:٣", None),
        ("127.0.0.1:", None),
    ],
)
def test_host_and_port_are_taken_apart(text: str, expected: tuple[str, int] | None) -> None:
    assert split_host_port(text) == expected


def test_every_type_in_the_configuration_has_words() -> None:
    described = msgspec.inspect.type_info(Config)
    assert isinstance(described, msgspec.inspect.StructType)
    for section in described.fields:
        assert isinstance(section.type, msgspec.inspect.StructType)
        for field in section.type.fields:
            assert tables.allowed(field.type)
