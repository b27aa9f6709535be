"""Prints what ``pyproject.toml`` asks for, a requirement a line: that of the package, and that of the extras which the
arguments name. So it can be installed without building the package, which needs a compiler of its own."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Iterable[str]) -> list[str]:
    """What a project needs with these extras, of which one may include another as ``name[extra]``.

    Raises KeyError where there is no such extra.
    """
    found = list(project["dependencies"])
    for extra in extras:
        for each in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{re.escape(project['name'])}\[(.*)\]", each)
            found += requirements(project, own[1].split(",")) if own else [each]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text()
    sys.stdout.write("\n".join(requirements(tomllib.loads(text)["project"], sys.argv[1:])) + "\n")
