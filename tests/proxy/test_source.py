"""From where the sides of a call may speak (proxy/source.py)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from sipserver.proxy.dialog import RemoteTargets
from sipserver.proxy.peers import Peer, PeerTable
from sipserver.proxy.plan import NeedTargets, Target
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.proxy.source import MAX_HOSTS, Sources, prove_source
from sipserver.sip.errors import SipError
from support.proxy import AUTHENTICATOR, NOW, flow, request, settings

ALICE, BOB = "alice@example.test", "bob@example.test"


def begun(callee: str | None = BOB) -> Sources:
    sources = Sources()
    sources.begin("k", "192.0.2.7", ALICE, callee)
    return sources


def test_every_host_is_believed_of_a_call_that_is_not_known() -> None:
    assert Sources().knows("k", CALLER, "203.0.113.9")
    assert Sources().address("k", CALLER) is None


def test_callee_is_believed_until_somebody_answers() -> None:
    sources = begun()
    assert sources.knows("k", CALLEE, "203.0.113.9")
    sources.answered("k", "192.0.2.8", "")
    assert not sources.knows("k", CALLEE, "203.0.113.9")
    assert not sources.knows("k", CALLER, "192.0.2.8"), "each side has its own"


def test_every_device_that_answered_is_known() -> None:
    sources = begun()
    for host in ("192.0.2.8", "192.0.2.9", "192.0.2.9"):
        sources.answered("k", host, "")
    assert sources.knows("k", CALLEE, "192.0.2.8")
    assert sources.knows("k", CALLEE, "192.0.2.9")


def test_callee_is_who_the_device_is_registered_for() -> None:
    sources = begun("sales@example.test")
    sources.answered("k", "192.0.2.8", BOB)
    sources.answered("k", "192.0.2.9", "carol@example.test")
    assert (sources.address("k", CALLER), sources.address("k", CALLEE)) == (ALICE, BOB)


def test_hosts_of_one_call_are_bounded() -> None:
    sources = begun()
    for number in range(MAX_HOSTS + 1):
        sources.learn("k", CALLER, f"198.51.100.{number}")
    assert not sources.knows("k", CALLER, "198.51.100.0")
    assert sources.knows("k", CALLER, f"198.51.100.{MAX_HOSTS}")
    assert sources.knows("k", CALLER, "192.0.2.7"), "where it began is never forgotten"


def test_oldest_call_goes_where_the_table_is_full() -> None:
    sources = Sources(max_calls=2)
    for key in "abc":
        sources.begin(key, "192.0.2.7", ALICE, BOB)
    assert len(sources) == 2
    assert sources.knows("a", CALLER, "203.0.113.9")
    sources.learn("a", CALLER, "203.0.113.9")
    sources.answered("a", "203.0.113.9", "")
    sources.forget("a")
    assert len(sources) == 2


@pytest.mark.parametrize(
    ("registered", "host"),
    [
        ("198.51.100.4", "198.51.100.4"), ("198.51.100.4", "::ffff:198.51.100.4"),
        ("2001:DB8::4", "2001:db8:0:0::4"), ("[2001:db8::4]", "2001:db8::4"),
    ],
)  # fmt: skip
def test_one_host_may_be_written_in_several_ways(registered: str, host: str) -> None:
    sources = begun()
    steps = prove_source(
        request("BYE"), ("k", CALLER), flow(host), settings(), AUTHENTICATOR, NOW, sources, RemoteTargets()
    )  # fmt: skip
    need = next(steps)
    assert isinstance(need, NeedTargets)
    assert need.aor == ALICE
    with pytest.raises(StopIteration):
        steps.send((Target("sip:alice@x.invalid", host=registered),))
    assert sources.knows("k", CALLER, host)


@pytest.mark.parametrize(
    ("before", "now", "names", "passes"),
    [
        ("203.0.113.1", "203.0.113.2", (), True), ("203.0.113.1", "198.51.100.7", (), False),
        ("192.0.2.8", "203.0.113.2", (), False), ("192.0.2.8", "192.0.2.9", ("pbx.test",), True),
    ],
)  # fmt: skip
def test_named_peer_speaks_for_its_own_calls(before: str, now: str, names: tuple[str, ...], passes: bool) -> None:
    sources = begun(None)
    sources.answered("k", before, "")
    named = PeerTable(
        [
            Peer("carrier", networks=(ip_network("203.0.113.0/24"),)),
            Peer("other", networks=(ip_network("198.51.100.0/24"),)),
            Peer("pbx", certificates=frozenset(("pbx.test",))),
        ]
    )  # fmt: skip
    over = flow(now)
    over.peer_names = names
    steps = prove_source(
        request("BYE"), ("k", CALLEE), over, settings(named=named), AUTHENTICATOR, NOW, sources, RemoteTargets()
    )  # fmt: skip
    with pytest.raises(StopIteration if passes else SipError):
        next(steps)
    assert sources.knows("k", CALLEE, now) == passes


def test_nobody_is_asked_about_who_has_no_address_here() -> None:
    sources = begun(None)
    sources.answered("k", "192.0.2.8", "")
    steps = prove_source(
        request("BYE"), ("k", CALLEE), flow("203.0.113.9"), settings(), AUTHENTICATOR, NOW, sources, RemoteTargets()
    )  # fmt: skip
    with pytest.raises(SipError, match="403"):
        next(steps)
    assert not sources.knows("k", CALLEE, "203.0.113.9")
