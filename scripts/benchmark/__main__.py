"""Reads the command line, measures run after run, shows what came of it."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmark import curves, growth, limits, load, phases, report, scale
from benchmark.load import Cost
from benchmark.systems import PEOPLE, SYSTEMS, BenchError, make, missing

REGISTRATIONS_PER_CALL = 4
"""How much faster registrations are offered than calls."""


def main() -> int:
    """The exit code."""
    options = _options()
    if options.latency or options.overload:
        return _limits(options)
    if options.scale:
        return _scale(options)
    if options.growth:
        return _growth(options)
    systems = [name for name in options.systems.split(",") if _can_be_measured(name)]
    if not systems:
        return 1
    runs: report.Runs = []
    kept: dict[str, dict[str, int]] = {}
    split: dict[str, dict[str, float]] = {}
    try:
        for number in range(options.runs):
            print(f"run {number + 1} of {options.runs}", file=sys.stderr, flush=True)
            runs.append({name: _measure(name, options, kept) for name in systems})
        if options.phases:
            for operation in options.operations:
                print(f"phases of a {operation}", file=sys.stderr, flush=True)
                with _folder("phases", options.keep) as folder:
                    split[operation] = phases.measure(folder, options.port, operation)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(report.table(runs, kept, options.count if "call" in options.operations else 0))
    for operation, shares in split.items():
        print(f"\n{operation}, where the instructions of sipserver go:")
        print("\n".join(f"  {phase:22} {100 * share:5.1f} %" for phase, share in shares.items()))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(runs, kept, split), indent=1) + "\n")
    if options.picture:
        report.picture(options.picture, runs, split)
    return 0


def _limits(options: argparse.Namespace) -> int:
    """Delay and overload of this server, from one process that is both ends; the exit code."""
    levels: curves.Levels = {}
    overloads: curves.Overloads = {}
    at_once: float | None = None
    try:
        _check_ports(options.port)
        with _folder("limits", options.keep) as folder, closing(limits.Bench(folder, options.port)) as bench:
            bench.everybody_registers()
            for operation in options.operations:
                show = partial(_print, curves.level_line, operation)
                print(curves.LEVEL_HEAD, flush=True)
                sustained = bench.sustained(operation, show)
                if options.latency:
                    levels[operation] = bench.latency(operation, sustained.rate, options.seconds / 6, show)
                if options.overload:
                    print(curves.MOMENT_HEAD, flush=True)
                    show = partial(_print, curves.moment_line, operation)
                    overloads[operation] = bench.overload(operation, sustained, options.seconds, show)
                if options.overload and operation == "register":
                    at_once = bench.everybody_at_once(sustained)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(curves.summary(levels, overloads, at_once))
    if options.json:
        options.json.write_text(json.dumps(curves.as_json(levels, overloads, at_once), indent=1) + "\n")
    if options.picture:
        curves.picture(options.picture, levels, overloads)
    return 0


def _scale(options: argparse.Namespace) -> int:
    """Very many bindings and open calls; the exit code."""
    try:
        _check_ports(options.port)
        with _folder("scale", options.keep) as folder:
            found = scale.measure(
                folder, options.port, options.bindings, options.calls, min(options.rate, scale.CALLS_A_SECOND), _say
            )
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(scale.table(found))
    if options.json:
        options.json.write_text(json.dumps(found.as_json(), indent=1) + "\n")
    return 0


def _growth(options: argparse.Namespace) -> int:
    """Cost and delay against the number of bindings; the exit code."""
    try:
        _check_ports(options.port)
        with _folder("growth", options.keep) as folder:
            found = growth.grow(folder, options.port, growth.SIZES, _say)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join([growth.HEAD, *[each.line() for each in found]]))
    if options.json:
        options.json.write_text(json.dumps(growth.as_json(found), indent=1) + "\n")
    if options.picture:
        growth.picture(options.picture, found)
    return 0


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _print(line: Callable[[str, Any], str], operation: str, each: Any) -> None:
    print(line(operation, each), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="What registrations and calls cost, in processor time.")
    parser.add_argument("operations", nargs="*", metavar="register|call", help="both where none is named")
    parser.add_argument("--count", type=int, default=20_000, help="calls, and registrations, of a run (20000)")
    parser.add_argument("--rate", type=int, default=1_000, help="calls per second; registrations: four times that")
    parser.add_argument("--runs", type=int, default=1, help="runs, of which the median counts (1)")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which, separated by commas")
    parser.add_argument("--phases", action="store_true", help="split our cost by phase (valgrind, five minutes)")
    parser.add_argument("--latency", action="store_true", help="how long one waits, up to what is sustained")
    parser.add_argument("--overload", action="store_true", help="three times of that, and what becomes of it")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of the overload; a sixth of it for each delay (60)"
    )
    parser.add_argument("--scale", action="store_true", help="very many bindings and open calls (ten minutes)")
    parser.add_argument("--growth", action="store_true", help="cost and delay as bindings grow (three minutes)")
    parser.add_argument("--bindings", type=int, default=1_000_000, help="of --scale, two of each address; 0 for none")
    parser.add_argument("--calls", type=int, default=50_000, help="open at once, of --scale; 0 for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it, as .png or .svg")
    parser.add_argument("--port", type=int, default=5060, help="of the server; the endpoints take the next two")
    parser.add_argument("--keep", action="store_true", help="leave logs and stores of each run where they are")
    options = parser.parse_args()
    options.operations = options.operations or list(report.OPERATIONS)
    unknown = set(options.operations) - set(report.OPERATIONS)
    if unknown:
        parser.error(f"known are {' and '.join(report.OPERATIONS)}, not {', '.join(sorted(unknown))}")
    if options.phases and phases.why_not():
        parser.error(phases.why_not())
    return options


def _can_be_measured(name: str) -> bool:
    reason = missing(name) if name in SYSTEMS else f"known are {', '.join(SYSTEMS)}"
    if reason:
        print(f"bench: {name} is left out: {reason}.", file=sys.stderr)
    return not reason


def _measure(name: str, options: argparse.Namespace, kept: dict[str, dict[str, int]]) -> dict[str, Cost]:
    """One system in one run. The registrations come first in any case, so that everybody can be called."""
    costs = {}
    with _folder(name, options.keep) as folder:
        _check_ports(options.port)
        system = make(name, folder, options.port)
        people = load.write_people(folder)
        try:
            system.start()
            count = max(options.count, PEOPLE) if "register" in options.operations else PEOPLE
            cost = load.register(system, people, count, min(REGISTRATIONS_PER_CALL * options.rate, 6_000))
            if "register" in options.operations:
                costs["register"] = cost
            if "call" in options.operations:
                costs["call"] = load.call(system, people, options.count, options.rate)
        finally:
            system.stop()
        kept[name] = system.kept()
    return costs


def _check_ports(port: int) -> None:
    """Somebody else's server is not measured. Raises BenchError."""
    for each in range(port, port + 3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", each))
            except OSError as error:
                raise BenchError(f"port {each} is in use: {error.strerror}; choose others with --port") from None


@contextmanager
def _folder(name: str, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"{name}: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
