"""Compiles the path of every message with mypyc when a wheel is built; the same sources run uncompiled as well.

Where there is no C compiler, no Python.h, or ``SIPSERVER_PURE=1``, the wheel holds the sources alone, and a sentence
says so.

Before they are compiled, dataclasses get the ``__init__`` written out that ``@dataclass`` would otherwise make as
interpreted code: a call makes some two hundred of these small objects.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "sipserver"
FOLDERS = ("sip", "sip/transaction", "registrar", "proxy", "calls", "location")
"""Compiled whole, but for what only commands and the start use."""
MODULES = (
    "accounts/credentials.py",
    "accounts/lru.py",
    "accounts/parties.py",
    "storage/batch.py",
    "storage/writer.py",
    "telemetry/log.py",
    "telemetry/sink.py",
    "transport/base.py",
    "transport/contract.py",
    "transport/resolver.py",
    "transport/stun.py",
    "transport/udp.py",
    "server/challenges.py",
    "server/clock.py",
    "server/context.py",
    "server/dead_targets.py",
    "server/driver.py",
    "server/flows.py",
    "server/gate.py",
    "server/handover.py",
    "server/keeping.py",
    "server/linking.py",
    "server/liveness.py",
    "server/locating.py",
    "server/pressure.py",
    "server/proxying.py",
    "server/registrations.py",
    "server/relay.py",
    "server/sides.py",
    "server/timers.py",
    "server/tokens.py",
    "server/transactions.py",
    "server/watch.py",
    "server/whereabouts.py",
)
NOT_COMPILED = ("schema.py", "query.py", "recovery.py", "verify.py", "error_views.py", "__init__.py")

_SETUP = """
import sys
from concurrent.futures import ThreadPoolExecutor
from setuptools import setup
from distutils.ccompiler import CCompiler
from mypyc.build import mypycify

files = sys.argv.pop(1).split(",")
level, jobs = sys.argv.pop(1), int(sys.argv.pop(1))

def compile(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
        extra_postargs=None, depends=None):
    macros, objects, postargs, options, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    arguments = self._get_cc_args(options, debug, extra_preargs)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda each: self._compile(each, *build[each], arguments, postargs, options), objects))
    return objects

CCompiler.compile = compile
setup(name="sipserver", packages=[], ext_modules=mypycify(
    ["--ignore-missing-imports", "--follow-imports=silent", *files],
    opt_level=level, debug_level="0", multi_file=True, group_name="sipserver"))
"""
# A C file for each module, and as many at a time as there are processors: half of the time on two. setuptools itself
# compiles the files of one library one after the other.


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by hatchling for each wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled modules to the wheel, where they can be made. An editable install has none."""
        if version == "editable" or os.environ.get("SIPSERVER_PURE") == "1":
            return
        missing = what_is_missing()
        if missing:
            self.app.display_warning(f"sipserver is installed without compiled modules: {missing} is missing.")
            return
        self.folder = Path(tempfile.mkdtemp(prefix="sipserver-build-"))
        try:
            made = compile_modules(Path(self.root) / PACKAGE, self.folder)
        except subprocess.CalledProcessError as error:
            # Slower is better than not at all; scripts/environment.sh says so as well.
            self.app.display_warning(f"sipserver is installed without compiled modules: the compiler failed ({error}).")
            return
        build_data["force_include"].update({str(path): str(path.relative_to(self.folder / "lib")) for path in made})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)


def what_is_missing() -> str | None:
    """What stands in the way of compiling, in words."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"a C compiler ({compiler})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h (Debian: python3-dev)"
    return None


def compile_modules(package: Path, folder: Path) -> list[Path]:
    """Compile what is on the path of a message; the extension modules, which lie in ``folder``/lib."""
    shutil.copytree(package, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    files = [path for each in FOLDERS for path in sorted((folder / PACKAGE / each).glob("*.py"))]
    files = [path for path in files if not path.name.endswith(NOT_COMPILED)]
    files += [folder / PACKAGE / each for each in MODULES]
    for path in files:
        path.write_text(write_out_inits(path.read_text("utf-8")), "utf-8")
    names = ",".join(str(path.relative_to(folder)) for path in files)
    level, jobs = os.environ.get("SIPSERVER_OPTIMIZE", "2"), str(os.cpu_count() or 1)
    build = ["build_ext", "--build-lib", "lib", "--build-temp", "temp", "--parallel", jobs]
    command = [sys.executable, "-c", _SETUP, names, level, jobs, "-q", *build]
    # Nobody outside of the library calls its functions, or replaces them in it, so they are called directly.
    flags = f"{os.environ.get('CFLAGS', '')} -fvisibility=hidden -fno-semantic-interposition -fno-plt".strip()
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "CFLAGS": flags})
    return sorted((folder / "lib").rglob("*.so"))


def write_out_inits(source: str) -> str:
    """The source with an ``__init__`` in every dataclass that has none."""
    lines = source.split("\n")
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and _wants_init(node)]
    for node in sorted(classes, key=lambda node: -node.lineno):
        assert node.end_lineno is not None
        lines[node.end_lineno : node.end_lineno] = _init(node)
    return "\n".join(lines)


def _wants_init(node: ast.ClassDef) -> bool:
    decorators = [ast.unparse(each) for each in node.decorator_list]
    decorated = any("dataclass" in each and "frozen" not in each for each in decorators)
    plain = all(ast.unparse(base) in {"Effect", "Protocol"} for base in node.bases)
    methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
    return decorated and plain and not {"__init__", "__post_init__"} & set(methods) and bool(_fields(node))


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]


def _init(node: ast.ClassDef) -> list[str]:
    parameters, body = [], []
    for each in _fields(node):
        name, kind = ast.unparse(each.target), ast.unparse(each.annotation)
        value = "" if each.value is None else ast.unparse(each.value)
        if value.startswith("field(default_factory="):
            factory = value.removeprefix("field(default_factory=").removesuffix(")")
            parameters.append(f"{name}: {kind} | None = None")
            body.append(f"        self.{name} = ({factory})() if {name} is None else {name}")
        else:
            parameters.append(f"{name}: {kind}" + (f" = {value}" if value else ""))
            body.append(f"        self.{name} = {name}")
    return ["", f"    def __init__(self, {', '.join(parameters)}) -> None:", *body]
