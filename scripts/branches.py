"""Fails where the tests reach less than 95 % of the branches of one of the given folders of sipserver/."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

WANTED = 95.0


def measured(folder: str, report: Path) -> float:
    """Per cent of the branches in this folder that some test took."""
    command = [sys.executable, "-m", "coverage", "json", "-q", f"--include=sipserver/{folder}/*", "-o", str(report)]
    subprocess.run(command, check=True)
    totals = json.loads(report.read_text())["totals"]
    taken, there = totals["covered_branches"], totals["num_branches"]
    print(f"{folder:12} {100 * taken / there:6.2f} % of {there} branches, {totals['percent_covered']:6.2f} % in all")
    return float(100 * taken / there)


def main(folders: list[str]) -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        short = [folder for folder in folders if measured(folder, Path(temporary) / "coverage.json") < WANTED]
    if not short:
        return 0
    print(f"below {WANTED:g} %: {', '.join(short)}")
    for folder in short:
        subprocess.run([sys.executable, "-m", "coverage", "report", f"--include=sipserver/{folder}/*"], check=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
