"""The rules of the house, read from the syntax trees: who imports whom, what stands where, how long things get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sipserver"
FOLDERS = (
    "sip", "registrar", "proxy", "calls", "location", "accounts", "storage", "transport", "telemetry", "server",
    "analysis", "cli",
)  # fmt: skip

MAY_IMPORT = {
    "sip": (),
    "registrar": ("sip",),
    "proxy": ("sip",),
    "storage": (),
    "telemetry": (),
    "calls": ("sip", "storage"),
    "accounts": ("sip.digest", "sip.uri", "sip.errors", "storage"),
    "location": ("sip", "registrar", "storage", "telemetry"),
    "transport": ("sip", "telemetry"),
    "server": (
        "sip", "registrar", "proxy", "calls", "location", "accounts", "storage", "transport", "telemetry",
    ),
    "analysis": ("calls", "storage"),
    "cli": (
        "sip", "registrar", "proxy", "calls", "location", "accounts", "storage", "transport", "telemetry", "server",
        "analysis",
    ),
}  # fmt: skip
"""What a folder may import of ours besides itself."""

CALLS_MAY_NOT_IMPORT = ("sip.transaction", "sip.digest")
"""``calls`` takes values from ``sip``, not its machines."""

SANS_IO = ("sip", "registrar", "proxy")
WORLD = {"asyncio", "socket", "ssl", "time", "random", "secrets", "logging", "sqlite3", "threading", "os", "select"}
"""Modules that touch the world around the server."""

TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config", "docs",
    "scripts", "sipserver", "tests", ".ci", ".gitignore", ".gitattributes", ".editorconfig", ".github",
}  # fmt: skip
MADE_BY_TOOLS = {
    ".git", ".venv", "var", "build", "dist", "htmlcov", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache",
}  # fmt: skip

LINES_OF_A_FILE = 600
LINES_OF_A_FUNCTION = 70


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Every module that a source imports, at whatever depth; relative ones start from ``package``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
            # "from sipserver.sip import build" names a module as much as a value: both are looked at.
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> Iterator[str]:
    return imports(path.read_text("utf-8"), path.relative_to(ROOT).parent.parts)


def ours(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, without the package's name."""
    for name in imports_of(path):
        rest = name.removeprefix("sipserver.")
        if rest != name and (PACKAGE / rest.split(".")[0]).is_dir():
            yield rest


def within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + ".")


def test_every_folder_has_a_rule() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == set(FOLDERS) == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    allowed = (folder, *MAY_IMPORT[folder])
    for path in modules(PACKAGE / folder):
        for name in ours(path):
            assert any(within(name, each) or within(each, name) for each in allowed), (
                f"{path.relative_to(ROOT)} imports sipserver.{name}; {folder} may import {allowed}"
            )
            if folder == "calls":
                assert not any(within(name, each) for each in CALLS_MAY_NOT_IMPORT), f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", SANS_IO)
def test_the_protocol_touches_nothing_of_the_world(folder: str) -> None:
    for path in modules(PACKAGE / folder):
        assert_sans_io(path)


def test_the_machine_of_calls_touches_nothing_of_the_world() -> None:
    for name in ("machine", "events"):
        assert_sans_io(PACKAGE / "calls" / f"{name}.py")


def assert_sans_io(path: Path) -> None:
    touched = {name.split(".")[0] for name in imports_of(path)} & WORLD
    assert not touched, f"{path.relative_to(ROOT)} imports {sorted(touched)}"


def test_nobody_imports_the_tests() -> None:
    for path in modules():
        assert not any(name.split(".")[0] in {"tests", "support", "pytest"} for name in imports_of(path)), path


def test_only_known_things_stand_at_the_top() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".coverage")}
    assert found - MADE_BY_TOOLS <= TOP_LEVEL


@pytest.mark.parametrize("folder", sorted({path.parent for path in modules()}), ids=lambda folder: folder.name)
def test_a_folder_says_what_lives_there(folder: Path) -> None:
    module = tree(folder / "__init__.py")
    docstring = ast.get_docstring(module)
    assert docstring, folder
    assert 2 <= len(docstring.splitlines()) <= 6, f"{folder}: a few lines, no more"
    if folder != PACKAGE:
        assert len(module.body) == 1, f"{folder.name}/__init__.py says what lives there and does nothing else"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_contract(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), path
    future = [node for node in module.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert future or path.name == "__init__.py", f"{path}: from __future__ import annotations"


@pytest.mark.parametrize("path", modules() + modules(ROOT / "tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LINES_OF_A_FILE
    if ROOT / "tests" in path.parents:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= LINES_OF_A_FUNCTION, f"{node.name} has {length} lines"


def test_public_functions_say_what_they_do() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        for node in public_definitions(tree(path))
        if not ast.get_docstring(node)
    ]
    assert not silent


def public_definitions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                        yield inner


def test_the_walk_sees_every_kind_of_import() -> None:
    source = "import a.b\ndef f():\n    from c import d\nfrom . import e\nfrom ..names import g\n"
    found = set(imports(source, ("sipserver", "sip", "transaction")))
    assert found == {
        "a.b", "c", "c.d", "sipserver.sip.transaction", "sipserver.sip.transaction.e", "sipserver.sip.names",
        "sipserver.sip.names.g",
    }  # fmt: skip
