"""How the benchmark reads what callgrind counted, and what it makes for measuring scale."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from benchmark import curves, growth, phases, scale
from benchmark.limits import Level
from benchmark.systems import BenchError

from sipserver.location.sqlite import SqliteLocation

LOOP = """events: Ir
fn=(1) CPyDef_message___parse
10 60
cfn=(2) PyUnicode_Join
calls=2 0
10 30
fn=(3) CPyDef_fork___ResponseContext___start
20 20
cfn=(2)
calls=1 0
20 10
fn=(2)
5 40
fn=(4) uv_run
30 80
"""
WRITER = """events: Ir
fn=(1) CPyDef_batch___Batch___take
10 20
fn=(2) sqlite3_step
20 180
"""


def test_libraries_count_for_who_calls_them_and_other_threads_are_the_store(tmp_path: Path) -> None:
    for number, text in enumerate((LOOP, WRITER), 1):
        (tmp_path / f"callgrind.out.1-0{number}").write_text(text)
    shares = phases._shares(sorted(tmp_path.iterdir()))
    # Of the 40 instructions of the library three quarters are for who parses.
    wanted = {"store": 200, "parse": 90, "loop and interpreter": 80, "decide": 30}
    assert shares == pytest.approx({phase: cost / 400 for phase, cost in wanted.items()})
    assert list(shares) == list(wanted)


def test_run_without_dumps_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="callgrind wrote nothing"):
        phases._shares(sorted(tmp_path.iterdir()))


def test_bindings_for_measuring_scale_are_what_a_start_takes(tmp_path: Path) -> None:
    path, now = tmp_path / "location.db", time.time()
    scale.write(path, scale.made(5, now + 60))
    location = SqliteLocation(path, now=now, call_soon=lambda call: call())
    try:
        assert [len(location.get(aor, now)) for aor in sorted(location.addresses())] == [2, 2, 1]
    finally:
        location.close()


def test_scale_wants_bindings_of_everybody_who_registers_or_none(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--bindings is 0 or at least 20000"):
        scale.measure(tmp_path, 5060, 19_999, 0, 100.0, print)


def test_table_of_scale_tells_of_what_was_measured_alone() -> None:
    assert "call" not in scale.table(scale.Scale(10, 0))
    assert "binding" not in scale.table(scale.Scale(0, 10))


def test_it_is_told_where_not_everybody_comes_in() -> None:
    assert "after 3.0 times" in curves.summary({}, {}, 3.0)
    assert "not all" in curves.summary({}, {}, math.inf)
    # JSON knows no infinity.
    assert curves.as_json({}, {}, math.inf)["everybody_at_once"] is None


def test_table_of_growth_stands_below_its_head() -> None:
    level = Level(1000, 10, 10, 0, 0, 0, 0, 0, 1.25, 9.5, 20.0, 312.4, 0.1)
    line = growth.Size(1_000_000, level, level, 812.0).line()
    assert line.split() == ["1,000,000", "312", "1.2", "9.5", "312", "1.2", "9.5", "812"]
    assert len(line) == len(growth.HEAD)
