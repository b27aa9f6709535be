"""What a start does not pay for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> str:
    """What an interpreter of its own prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_store_that_has_all_steps_is_opened_without_what_runs_steps(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from sipserver.location.schema import MIGRATIONS
from sipserver.storage.migrations import open_store, version_of
path = Path({str(tmp_path)!r}) / "location.db"
for readonly in (False, True):
    with open_store(path, MIGRATIONS, readonly=readonly) as store:
        print(version_of(store, MIGRATIONS, path).pending)
    print("sqlite_utils" in sys.modules)
"""
    assert run(code) == "[]\nTrue\n[]\nTrue\n"
    assert run(code) == "[]\nFalse\n[]\nFalse\n"


def test_migrations_leave_numpy_alone(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    code = f"""
import sys
from sipserver.location.schema import MIGRATIONS
from sipserver.storage.migrations import open_store
open_store({str(tmp_path / "location.db")!r}, MIGRATIONS).close()
assert "sqlite_utils" in sys.modules
assert "numpy" not in sys.modules, "imported"
import numpy
print(numpy.__name__)
"""
    assert run(code) == "numpy\n"


def test_server_on_one_address_leaves_netlink_alone() -> None:
    code = """
import sys
import sipserver.server.app
print("pyroute2" in sys.modules)
"""
    assert run(code) == "False\n"
