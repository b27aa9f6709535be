"""How the benchmark reads what callgrind counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark import phases
from benchmark.systems import BenchError

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
