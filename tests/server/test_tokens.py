"""Tokens are unguessable, so at least none comes twice."""

from __future__ import annotations

import re

from sipserver.server.tokens import Tokens


def test_tokens_are_sixteen_hexadecimal_digits_and_never_repeat() -> None:
    tokens = Tokens()
    made = [tokens.hex16() for _ in range(2_000)]
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    assert len(set(made)) == len(made)


def test_random_bytes_for_identifiers_are_ten() -> None:
    tokens = Tokens()
    made = [tokens.bytes10() for _ in range(1_000)]
    assert {len(each) for each in made} == {10}
    assert len(set(made)) == len(made)


def test_fractions_spread_over_the_whole_range() -> None:
    tokens = Tokens()
    drawn = [tokens.fraction() for _ in range(200)]
    assert all(0 <= each <= 1 for each in drawn)
    assert min(drawn) < 0.2 < 0.8 < max(drawn)
