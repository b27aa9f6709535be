"""What a start does not pay for."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_migrations_leave_numpy_alone() -> None:
    pytest.importorskip("numpy")
    code = """
import sys, sipserver.storage.migrations
assert "numpy" not in sys.modules, "imported"
import numpy
print(numpy.__name__)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == ("numpy\n", "")
