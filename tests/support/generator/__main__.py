"""Run the generator: ``PYTHONPATH=.:tests python -m support.generator --calls 20000 --seed 7``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from support.generator.run import CLOCK, RATE, generate


def main() -> int:
    """The exit code: 0 where the store equals the plan."""
    parser = argparse.ArgumentParser(prog="support.generator", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, each with the next seed")
    parser.add_argument("--rate", type=float, default=RATE, help="calls a second")
    parser.add_argument("--restarts", nargs="*", default=["KILL", "TERM"], choices=["KILL", "TERM"])
    parser.add_argument("--clock", nargs="*", type=float, default=CLOCK, help="seconds that the clock is set ahead")
    parser.add_argument("--folder", type=Path, help="where the stores stay; a temporary folder otherwise")
    given = parser.parse_args()
    wrong = 0
    for seed in range(given.seed, given.seed + given.seeds):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.folder or Path(temporary)) / f"seed-{seed}"
            report = generate(
                folder, calls=given.calls, seed=seed, rate=given.rate, restarts=given.restarts, clock=given.clock,
                say=_say,
            )  # fmt: skip
        _say(f"seed {seed}, {time.monotonic() - began:.0f} s: {report}")
        wrong += bool(report.mismatches)
    return 1 if wrong else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
