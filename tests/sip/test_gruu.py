from __future__ import annotations

import pytest

from sipserver.sip.gruu import NONCE, GruuMinter, gr_value, is_of, public
from sipserver.sip.sealing import Sealer
from sipserver.sip.uri import Uri

PHONE = "<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"
OWNER = "p_bgjhg3fj342yny4k"
MINTER = GruuMinter(b"a secret of this server")


def mint(number: int, instance: str = PHONE, owner: str = OWNER, since: float = 1_795_000_000.25) -> str:
    return MINTER.mint(owner, instance, since, "example.test", bytes([number] * NONCE))


def test_public_gruu_is_the_address_with_the_instance() -> None:
    gruu = public("alice@example.test", PHONE)
    assert gruu == "sip:alice@example.test;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    assert Uri.parse(gruu).equivalent(Uri.parse("sip:alice@example.test"))


def test_instance_that_may_not_stand_in_a_uri_is_escaped() -> None:
    odd = '<urn:x:a;b"c\xff>'
    assert gr_value(odd) == "urn:x:a%3Bb%22c%FF"
    assert is_of(Uri.parse(public("alice@example.test", odd)).params["gr"] or "", odd)


def test_uuid_may_be_written_in_either_case() -> None:
    assert is_of("URN:UUID:F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", PHONE)
    assert not is_of("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf7", PHONE)
    assert not is_of("urn:x:A", "<urn:x:a>")
    assert not is_of("", None)


def test_temporary_gruu_comes_back_as_what_it_was_made_of() -> None:
    uri = Uri.parse(mint(1))
    assert (uri.host, uri.params) == ("example.test", {"gr": None})
    found = MINTER.read(uri)
    assert found is not None
    assert (found.owner, found.since, found.device) == (OWNER, 1_795_000_000_250, MINTER.device(PHONE))


def test_temporary_gruus_have_nothing_in_common() -> None:
    users = [
        Uri.parse(each).user or "" for each in (mint(1), mint(2), mint(1, "<urn:x:y>"), mint(1, owner="p_" + "a" * 16))
    ]
    assert len({len(user) for user in users}) == 1
    bodies = [user.removeprefix("tgruu.") for user in users]
    for position, body in enumerate(bodies):
        for other in bodies[position + 1 :]:
            assert sum(one == two for one, two in zip(body, other, strict=True)) < 12
    assert OWNER[2:] not in "".join(bodies)


@pytest.mark.parametrize(
    "change", [lambda user: user[:-1] + "A", lambda user: user[:20], lambda user: user + "A" * 200]
)
def test_temporary_gruu_that_was_changed_is_none(change: object) -> None:
    uri = Uri.parse(mint(1))
    assert callable(change)
    changed = change(uri.user)
    if changed != uri.user:
        assert MINTER.read(Uri.parse(f"sip:{changed}@example.test;gr")) is None


@pytest.mark.parametrize("user", ["alice", "tgruu.", "tgruu.!!", "tgruu.\xff", "tgruu.a"])
def test_what_is_no_temporary_gruu_is_none(user: str) -> None:
    uri = Uri("sip", "")
    uri.user = user
    assert MINTER.read(uri) is None


def test_another_server_cannot_read_it() -> None:
    assert GruuMinter(b"another secret").read(Uri.parse(mint(1))) is None


def test_what_is_sealed_opens_only_where_it_belongs() -> None:
    sealer = Sealer(b"secret", b"one")
    text = sealer.seal(b"content", b"call")
    assert sealer.open(text, b"call") == b"content"
    assert sealer.open(text, b"other call") is None
    assert Sealer(b"secret", b"two").open(text, b"call") is None
    assert sealer.open("", b"call") is None
    assert sealer.open("\u20ac", b"call") is None
