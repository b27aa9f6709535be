"""The closed list of what can go wrong, and every place where something is noted."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sipserver
from sipserver.calls import faults

ROOT = Path(sipserver.__file__).parent
NOTING = {"error", "rejected", "refuse_statelessly", "note_failure", "_note"}
"""Methods that take the kind of an error."""


def kinds_used() -> Iterator[tuple[str, str]]:
    """Each kind that is named where something is noted, and where that is."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in NOTING or path.parent.name == "cli":
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
            if node.func.attr in ("note_failure", "_note"):
                given += node.args[:1]
            for value in given:
                for each in ast.walk(value):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        yield each.value, f"{path.name}:{node.lineno}"
                    elif isinstance(each, ast.Name) and each.id.isupper():
                        # A constant of its own, or one that was imported by its name.
                        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
                        yield str(getattr(importlib.import_module(name), each.id)), f"{path.name}:{node.lineno}"
                    elif isinstance(each, ast.Attribute) and getattr(each.value, "id", "") == "faults":
                        yield str(getattr(faults, each.attr)), f"{path.name}:{node.lineno}"


SIGN_INS = {"bound", "unbound", "expired", "removed"}
"""Outcomes of sign-ins, which another ``_note`` takes."""


def test_every_kind_that_is_noted_is_in_the_list() -> None:
    used = list(kinds_used())
    assert len(used) > 15
    assert [each for each in used if each[0] not in faults.KINDS and each[0] not in SIGN_INS] == []


def test_every_constant_of_the_module_is_in_the_list() -> None:
    others = {faults.SERVER, faults.PEER, faults.NETWORK}
    named = {value for name, value in vars(faults).items() if name.isupper() and isinstance(value, str)} - others
    assert named == set(faults.KINDS)
    assert set(faults.ANSWERED_BY) == others


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("INVITE", 404, True), ("INVITE", 500, True), ("INVITE", 488, True), ("INVITE", 606, True),
        ("INVITE", 486, False), ("INVITE", 603, False), ("INVITE", 480, False), ("INVITE", 487, False),
        ("INVITE", 408, False), ("BYE", 408, True), ("BYE", 481, True), ("INVITE", 407, False), ("INVITE", 491, False),
        ("INVITE", 302, False), ("MESSAGE", 480, False), ("MESSAGE", 415, True),
    ],
)  # fmt: skip
def test_what_is_an_error(method: str, status: int, error: bool) -> None:
    assert faults.is_error(method, status) == error
