"""Who is meant by an address (proxy/dialling.py)."""

from __future__ import annotations

import time

import pytest

from sipserver.proxy.dialling import MAX_ADDRESSES, DialPlan, NumberRule, compile_pattern, fits, number_of

ALICE, BOB, INFO = "alice@example.test", "bob@example.test", "info@example.test"


def rule(to: str, pattern: str = "", **more: str) -> NumberRule:
    """A rule as the configuration makes it."""
    return NumberRule(to, pattern=compile_pattern(pattern) if pattern else None, **more)


def meant(plan: DialPlan, aor: str) -> list[str]:
    """The addresses alone."""
    return [address for address, _ in plan.meant(aor)]


def test_an_address_without_an_alias_is_meant_itself() -> None:
    assert DialPlan().meant(ALICE) == [(ALICE, False)]
    assert not DialPlan()


def test_an_alias_stands_for_one_or_for_several() -> None:
    plan = DialPlan({INFO: [ALICE], "door@example.test": [ALICE, BOB]})
    assert plan.meant(INFO) == [(ALICE, True)]
    assert meant(plan, "door@example.test") == [ALICE, BOB]


def test_aliases_of_aliases_are_followed_and_nobody_rings_twice() -> None:
    plan = DialPlan({INFO: ["door@example.test", ALICE], "door@example.test": [ALICE, BOB]})
    assert meant(plan, INFO) == [ALICE, BOB]


def test_aliases_in_a_circle_end() -> None:
    assert meant(DialPlan({INFO: [BOB], BOB: [INFO]}), INFO) == []
    assert meant(DialPlan({INFO: [INFO, BOB]}), INFO) == [BOB]


def test_a_long_chain_of_aliases_ends() -> None:
    plan = DialPlan({f"{i}@example.test": [f"{i + 1}@example.test"] for i in range(100)})
    assert meant(plan, "0@example.test") == ["8@example.test"]


def test_an_alias_of_very_many_is_bounded() -> None:
    plan = DialPlan({INFO: [f"u{i}@example.test" for i in range(1000)]})
    assert len(plan.meant(INFO)) == MAX_ADDRESSES


def test_an_alias_of_one_is_an_identity_of_that_one() -> None:
    plan = DialPlan({INFO: [ALICE], "+431234": [ALICE], "door@example.test": [ALICE, BOB]})
    assert list(plan.identities(ALICE)) == [INFO, "+431234"]
    assert list(plan.identities(BOB)) == []


def test_a_prefix_is_replaced() -> None:
    plan = DialPlan({}, [rule("+", prefix="00"), rule("+43", prefix="0")])
    assert meant(plan, "0049301234@example.test") == ["+49301234@example.test"]
    assert meant(plan, "01234@example.test") == ["+431234@example.test"]
    assert meant(plan, "+1234@example.test") == ["+1234@example.test"]


def test_rules_are_gone_through_once_in_order() -> None:
    plan = DialPlan(
        {}, [rule("+43", prefix="0"), rule(r"room\1@example.test", r"\+437([0-9]{3})"), rule("0", prefix="+")]
    )
    assert meant(plan, "07123@example.test") == ["room123@example.test"]
    assert meant(plan, "08@example.test") == ["0438@example.test"]


def test_what_is_no_number_is_left_alone() -> None:
    plan = DialPlan({}, [rule("9", prefix="")])
    assert meant(plan, "0bob@example.test") == ["0bob@example.test"]
    assert meant(plan, f"{'1' * 33}@example.test") == [f"{'1' * 33}@example.test"]


def test_separators_are_not_looked_at() -> None:
    assert meant(DialPlan({}, [rule("+43", prefix="0")]), "0(1)23-4@example.test") == ["+431234@example.test"]


def test_local_numbers_of_a_context_are_for_the_rules_of_that_context() -> None:
    plan = DialPlan({}, [rule("+43", prefix="", context="+43"), rule("x@example.test", prefix="1")])
    assert meant(plan, "1234@+43") == ["+431234"]
    assert meant(plan, "1234@+44") == ["1234@+44"]


def test_a_number_may_be_an_alias_in_every_domain() -> None:
    plan = DialPlan({"+431234": [ALICE]}, [rule("+43", prefix="0")])
    assert meant(plan, "+431234") == [ALICE]
    assert meant(plan, "+431234@example.test") == [ALICE]
    assert meant(plan, "01234@example.test") == [ALICE]


@pytest.mark.parametrize("pattern", [r"7([0-9]{3})", r"\+43\d+", r"\*21\*(\d+)#", r"0(.)(\d*)", r"[0-9*#]{1,5}"])
def test_simple_patterns_are_allowed(pattern: str) -> None:
    assert compile_pattern(pattern) is not None


@pytest.mark.parametrize(
    "pattern",
    ["", "(", "(1+)+", "(1*)*2", "((1))", "1|2", "(?=1)", "1++", "(1)?", r"\1", "1*2*3*4*", "1" * 101, "[", "{3}", "a"],
)
def test_patterns_that_may_take_long_are_not(pattern: str) -> None:
    assert compile_pattern(pattern) is None


def test_the_worst_pattern_is_fast() -> None:
    pattern = compile_pattern(r"\d*\d*\d*#")
    assert pattern is not None
    begun = time.process_time()
    for _ in range(10):
        assert pattern.fullmatch("1" * 32) is None
    assert time.process_time() - begun < 0.5


def test_a_replacement_names_only_groups_that_there_are() -> None:
    pattern = compile_pattern(r"7(\d)(\d)")
    assert pattern is not None
    assert fits(pattern, r"\2\1@example.test")
    assert not fits(pattern, r"\3")
    assert not fits(pattern, "\\")


@pytest.mark.parametrize(
    ("aor", "number"),
    [
        ("+431234", "+431234"), ("1234@example.test", "1234"), ("+43-1(2)@example.test", "+4312"),
        ("*21#@example.test", "*21#"), ("bob@example.test", None), ("12bob@example.test", None), ("example.test", None),
    ],
)  # fmt: skip
def test_the_number_in_an_address(aor: str, number: str | None) -> None:
    assert number_of(aor) == number
