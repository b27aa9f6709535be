"""What the build does to the sources before it compiles them."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HOOK = Path(__file__).resolve().parent.parent / "scripts" / "build_hook.py"

SOURCE = """
from dataclasses import dataclass, field

class Effect:
    pass

@dataclass(slots=True)
class Send(Effect):
    \"\"\"Documented.\"\"\"

    data: bytes
    \"\"\"A field.\"\"\"
    count: int = 3
    rest: list[int] = field(default_factory=list)
    most: int = field(default_factory=lambda: int("8"))

@dataclass(slots=True)
class Empty(Effect):
    pass

@dataclass(frozen=True)
class Frozen:
    a: int

@dataclass
class Own:
    a: int

    def __init__(self) -> None:
        self.a = 7
"""


@pytest.fixture(scope="module")
def hook() -> Any:
    """The module, with a stand-in for the build tool, which is not installed beside the tests."""

    class Interface:
        def __class_getitem__(cls, _: object) -> type:
            return cls

    names = ["hatchling", "hatchling.builders", "hatchling.builders.hooks", "hatchling.builders.hooks.plugin"]
    modules = {name: types.ModuleType(name) for name in (*names, f"{names[-1]}.interface")}
    vars(modules[f"{names[-1]}.interface"])["BuildHookInterface"] = Interface
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    spec = importlib.util.spec_from_file_location("build_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, old in before.items():
        if old is None:
            del sys.modules[name]
        else:
            sys.modules[name] = old
    return module


def test_dataclasses_get_the_init_that_the_decorator_would_make(hook: Any) -> None:
    expanded = hook.write_out_inits(SOURCE)
    assert expanded.count("def __init__") == 2, "one for Send, and Own has one"
    space: dict[str, Any] = {"dataclass": dataclass}
    exec(expanded, space)
    first, second = space["Send"](b"x"), space["Send"](b"x", count=3)
    assert first == second
    assert (first.data, first.count, first.rest) == (b"x", 3, [])
    assert first.most == 8
    first.rest.append(1)
    assert second.rest == []
    assert space["Own"]().a == 7
    assert space["Frozen"](2).a == 2


def test_every_module_to_be_compiled_exists(hook: Any) -> None:
    package = HOOK.parent.parent / "sipserver"
    assert [each for each in (*hook.MODULES, *hook.FOLDERS) if not (package / each).exists()] == []


def test_without_a_compiler_or_headers_the_reason_is_told(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler-anywhere")
    assert "no-such-compiler-anywhere" in hook.what_is_missing()


def test_nothing_that_is_compiled_names_a_value_inside_a_comprehension(hook: types.ModuleType) -> None:
    """mypyc 2.4 compiles ``[x for y in z if (x := f(y))]`` to code that reads x before it is set, and crashes."""
    package = HOOK.parent.parent / "sipserver"
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in (*(path for folder in hook.FOLDERS for path in (package / folder).glob("*.py")),
                     *(package / module for module in hook.MODULES))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, comprehensions)
        for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)
    ]  # fmt: skip
    assert found == []
