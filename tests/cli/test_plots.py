"""Plots on a terminal: as wide as it is, readable without colours, harmless whatever peers are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import Result

from sipserver.analysis.axes import time_ticks
from sipserver.analysis.charts import Bars, Chart, Curve, Grid, Mark, Series
from sipserver.analysis.periods import buckets
from sipserver.cli import plots
from sipserver.cli.output import width_of
from support.record import BEGIN, HOUR

pytest.importorskip("plotext", reason="needs plotext")

Sipserver = Callable[..., Result]
HOSTILE = "evil\x1b[2J\x07\n\u202e名前"
UTC = ZoneInfo("UTC")


def curve(*series: Series, hours: int = 6, steps: bool = False, gaps: tuple[tuple[int, int], ...] = ()) -> Curve:
    end = BEGIN + hours * HOUR
    return Curve(
        "curve", "A curve", "its subtitle", "Erlang", "time, UTC", tuple(buckets(BEGIN, end, "hour", UTC)), series,
        time_ticks(BEGIN, end, UTC), gaps=gaps, marks=(Mark(BEGIN + HOUR / 2, 3.5, "the busiest"),), steps=steps,
    )  # fmt: skip


def charts() -> list[Chart]:
    return [
        curve(Series("p99", (4, 4, 4, None, 4, 4)), Series("p50", (1, 1, 1, None, 0, 0))),
        Bars("bars", "Bars", "", "calls", (HOSTILE, "b" * 90, "c"), (Series("placed", (4000, 1, 0)),),
            ("(new)", "", ""), (1000, None, 2)),
        Bars("stack", "Stack", "", "calls", ("d",), (Series("one", (3,)), Series("two", (3,)))),
        Grid("grid", "A grid", "", "calls", (HOSTILE, "b"), (HOSTILE, "b"), "to", "from", ((1, 0), (None, 1234)), "?",
            numbers=True),
        Grid("heat", "Heat", "", "Erlang", ("Mon", "Tue"), tuple(f"{hour:02}" for hour in range(24)), "hour", "day",
            ((0.0,) * 12 + (1.0,) * 12, (None,) * 24), "not recorded"),
        Bars("none", "None", "", "calls", (), (Series("placed", ()),), empty="Nobody called."),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_none_speaks_to_it(width: int) -> None:
    text = plots.plots(charts(), width, colours=False)
    assert all(width_of(line) <= width for line in text.split("\n"))
    assert all(line.isprintable() for line in text.split("\n"))
    assert "evil\\x1b[2J" in text
    coloured = plots.plots(charts(), width, colours=True)
    assert set(re.findall("\x1b\\[([^a-zA-Z]*[a-zA-Z])", coloured)) <= {"0m", "38;5;33m", "38;5;166m"}  # fmt: skip
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == text, "colours add nothing that is not there without them"


def test_a_curve_of_a_fixed_width() -> None:
    chart = curve(Series("mean", (4, 4, 4, None, 0, 0)), steps=True, gaps=((BEGIN + 3 * HOUR, BEGIN + 4 * HOUR),))
    lines = plots.plots([chart], 60, colours=False).split("\n")
    assert lines[:2] == ["A curve", "its subtitle"]
    assert lines[2].startswith("4┤")
    assert any("◆" in line for line in lines[3:5])
    top, bottom = lines[2][2:], next(line for line in lines if line.startswith("0┤"))[2:]
    assert {place for place, character in enumerate(top) if character != " "} == set(range(30)), "three of six hours"
    assert {place for place, character in enumerate(bottom) if character == "░"} >= set(range(30, 37))
    assert {place for place, character in enumerate(bottom) if "⠀" < character <= "⣿"} == set(range(39, 58))
    canvas = [line[2:] for line in lines[2:] if line[1:2] in "┤│"]
    assert all(not line[31:38].strip(" ░") for line in canvas), "no line through what was not recorded"
    assert lines[-3:] == ["Erlang; time, UTC", "◆ the busiest", "░ not recorded"]
    assert lines[-4].split() == ["23", "Oct", "02:00", "04:00", "06:00"]


def test_lines_have_their_names_at_their_ends() -> None:
    lines = plots.plots(charts()[:1], 80, colours=False).split("\n")
    assert lines[2].endswith(" p99")
    assert next(line for line in lines if line.startswith("0┤")).endswith(" p50")


def test_bars_are_as_long_as_their_values() -> None:
    chart = Bars(
        "bars", "Bars", "", "calls", ("a", "b", "c", "d"), (Series("x", (80, 20, 1, 0)),), before=(40, 0, 0, 0)
    )
    lines = plots.plots([chart], 64, colours=False).split("\n")[1:]
    long, short, least, none, legend = lines
    assert long.count("█") + long.count("┃") == 59
    assert long.index("┃") == 2 + 30
    assert short.count("█") in (14, 15)
    assert re.fullmatch("c [▏▎▍▌▋▊▉] +1", least), "something is not drawn as nothing"
    assert re.fullmatch("d +0", none)
    assert legend == "┃ the period before"


def test_a_grid_tells_nothing_from_zero() -> None:
    text = plots.plots([charts()[4]], 80, colours=False)
    monday, tuesday = (next(line for line in text.split("\n") if line.startswith(day)) for day in ("Mon", "Tue"))
    assert monday.split() == ["Mon"] + ["·"] * 12 + ["██"] * 12
    assert tuesday.split() == ["Tue"] + ["\N{EN DASH}"] * 24
    assert "· 0" in text
    assert "\N{EN DASH} not recorded" in text


@pytest.fixture
def sample(sipserver: Sipserver, data_dir: Path) -> None:
    options = "--calls 400 --subscribers 60 --days 9 --until 2026-11-01 --seed 3 --out"
    assert sipserver("sample", *options.split(), str(data_dir)).exit_code == 0


def test_plots_are_shown_where_they_are_asked_for(
    sipserver: Sipserver, sample: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "76")
    plain = sipserver("report", "summary", "--from", "7d").stdout
    assert "When people talk" not in plain, "this is no terminal"
    assert sipserver("report", "summary", "--from", "7d", "--no-plot").stdout == plain
    shown = sipserver("report", "summary", "--from", "7d", "--plot").stdout
    assert shown.startswith(plain)
    drawn = shown.removeprefix(plain)
    assert "When people talk" in drawn
    assert "\x1b" not in drawn
    assert max(map(width_of, drawn.split("\n"))) <= 76
    assert "When people talk" not in sipserver("report", "summary", "--from", "7d", "--plot", "--json").stdout
    part = sipserver("report", "quality", "--from", "7d", "--plot", "--part", "retries")
    assert part.exit_code == 0
    assert "How long people wait" not in part.stdout


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert plots.on_terminal()
    assert plots.coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not plots.coloured()
    terminal.encoding = "latin-1"
    assert not plots.on_terminal(), "it has no blocks"
