"""What is installed for the package and its tools is what ``pyproject.toml`` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requirements as script

PROJECT = {
    "name": "house",
    "dependencies": ["beam>=2; sys_platform == 'linux'", "nail"],
    "optional-dependencies": {"roof": ["tile<3"], "attic": ["lamp", "nail", "house[roof]"]},
}


def test_an_extra_may_include_another_and_nothing_is_there_twice() -> None:
    plain = ["beam>=2; sys_platform == 'linux'", "nail"]
    assert script.requirements(PROJECT, []) == plain
    assert script.requirements(PROJECT, ["roof"]) == [*plain, "tile<3"]
    assert script.requirements(PROJECT, ["attic"]) == [*plain, "lamp", "tile<3"]


def test_an_extra_that_is_not_there_is_a_fault() -> None:
    with pytest.raises(KeyError):
        script.requirements(PROJECT, ["cellar"])


def test_requirements_of_this_project_are_printed() -> None:
    file = Path(script.__file__)
    done = subprocess.run([sys.executable, file, "bench"], capture_output=True, text=True, timeout=30, check=True)
    assert {"structlog", "sqlite-utils", "altair"} <= {line.partition(">")[0] for line in done.stdout.splitlines()}
