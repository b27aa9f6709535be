"""How the parameters of an Authorization header are read (sip/digest.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import digest
from sipserver.sip.digest import parse_parameters


def test_parameters_as_endpoints_write_them() -> None:
    assert parse_parameters('Username="a", QOP=auth,nc=00000001 , Realm = "x"') == {
        "username": "a", "qop": "auth", "nc": "00000001", "realm": "x",
    }  # fmt: skip
    assert parse_parameters(r'username="a\"b\\c,d"') == {"username": r'a"b\c,d'}
    assert parse_parameters('realm="a, b",uri="sip:x;y=z"') == {"realm": "a, b", "uri": "sip:x;y=z"}
    assert parse_parameters("algorithm=SHA-256,, qop=auth,") == {"algorithm": "SHA-256", "qop": "auth"}
    assert parse_parameters("") == {}


@pytest.mark.parametrize(
    "text", ["=x", "realm", "realm=", 'realm="x', 'realm="x" y', "qop=a b", "qop=a, QOP=b", 'qop=a"b"']
)
def test_parameters_that_cannot_be_read(text: str) -> None:
    assert parse_parameters(text) is None


PIECES = st.sampled_from(
    ["realm", "nonce", "nc", "x", "=", '="', '"', ",", ", ", " ", "auth", "00000001", "a", "-", ";", "\t", "sip:a@b"]
)


@given(st.lists(PIECES, max_size=24).map("".join))
def test_the_quick_path_reads_what_the_thorough_one_does(text: str) -> None:
    assert parse_parameters(text) == digest._parse_unusual_parameters(text)


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_text_breaks_the_parameters(text: str) -> None:
    found = parse_parameters(text)
    assert found is None or all(isinstance(value, str) for value in found.values())
