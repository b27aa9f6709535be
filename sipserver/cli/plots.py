"""Charts on a terminal, in as many columns as it has: curves by plotext, bars and grids in blocks and shades.

Everything can be read without colours. Names are what peers wrote: they are made harmless before they are drawn.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import click

from sipserver.analysis.axes import spread
from sipserver.analysis.charts import Bars, Chart, Curve, Grid, level_of, shown
from sipserver.cli.output import padded, plain, width_of

WIDEST: Final = 132
"""Lines that are longer nobody follows."""
NARROWEST: Final = 40
HEIGHT: Final = 14
COLOURS: Final = (33, 166, 35, 169)
"""Of the 256 of a terminal: neither too dark for black nor too bright for white."""
LEVELS: Final = 4
SHADES: Final = "\N{MIDDLE DOT}░▒▓█"
"""For 0 and the levels above it."""
BLOCKS: Final = " ▏▎▍▌▋▊▉█"
PARTS: Final = "█░▒"
ABSENT: Final = "\N{EN DASH}"


def can_plot() -> bool:
    """Whether what plots need is installed."""
    return _plotext() is not None


@cache
def _plotext() -> Any:
    # Only who looks at a plot needs what draws it.
    try:
        import plotext  # noqa: PLC0415
    except ImportError:
        return None
    # The size is ours to choose.
    plotext.terminal.limit(False, False)
    return plotext


def on_terminal() -> bool:
    """Whether standard output is a terminal that has the characters of plots."""
    try:
        SHADES.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return sys.stdout.isatty()


def coloured() -> bool:
    """Whether colours are welcome (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def plots(charts: Sequence[Chart], width: int, *, colours: bool) -> str:
    """The charts below each other, no line longer than ``width`` columns where that is possible at all."""
    width = max(NARROWEST, min(width, WIDEST))
    return "\n\n".join("\n".join([*_heading(chart, width), *_drawn(chart, width, colours)]) for chart in charts)


def _heading(chart: Chart, width: int) -> list[str]:
    return [line for text in (chart.title, chart.subtitle) for line in textwrap.wrap(plain(text), width)]


def _drawn(chart: Chart, width: int, colours: bool) -> list[str]:
    if chart.nothing:
        return textwrap.wrap(chart.nothing, width)
    if isinstance(chart, Curve):
        return _curve(chart, width, colours)
    return _bars(chart, width, colours) if isinstance(chart, Bars) else _grid(chart, width, colours)


def _curve(chart: Curve, width: int, colours: bool) -> list[str]:
    plotext = _plotext()
    begin, end, top = chart.pieces[0].begin, chart.pieces[-1].end, chart.scale[-1]
    named = len(chart.series) > 1
    margin = 1 + max(len(series.name) for series in chart.series) if named else 0
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width - margin, HEIGHT)
    figure.theme("colorless")
    figure.axes(False, axis="x", side="upper")
    figure.axes(False, axis="y", side="right")
    figure.ruler("y").lim(0, top).ticks(list(chart.scale), labels=[shown(at) for at in chart.scale])
    ticks = _fitting(chart, width - margin)
    figure.ruler("x").lim(begin, end).ticks([at for at, _ in ticks], labels=[text for _, text in ticks])
    for number, series in enumerate(chart.series):
        _line(figure, chart, series.values, COLOURS[number % len(COLOURS)])
    for since, to in chart.gaps:
        places = [since + (to - since) * step / width for step in range(width + 1)]
        figure.draw(figure.signal(places, [0.0] * len(places), marker=plotext.marker("░")))
    for mark in chart.marks:
        figure.draw(figure.signal([mark.at], [mark.value], marker=plotext.marker("◆")))
    lines: list[str] = figure.build().string(colorless=not colours).rstrip("\n").split("\n")
    if named:
        _name(lines, chart, colours)
    below = [f"{chart.unit}; {chart.time}", *(f"◆ {mark.text}" for mark in chart.marks)]
    if chart.gaps:
        below.append("░ not recorded")
    return lines + [line for text in below for line in textwrap.wrap(plain(text), width)]


def _fitting(chart: Curve, width: int) -> list[tuple[float, str]]:
    """As many marks of the axis of time as there is room for."""
    room = max(1, width // 9)
    step = -(-len(chart.ticks) // room)
    return [(tick.at, tick.text) for tick in chart.ticks[::step]]


def _line(figure: Any, chart: Curve, values: Sequence[Any], colour: int) -> None:
    """A line through the values, with a gap where one is not known."""
    plotext = _plotext()
    x: list[float] = []
    y: list[float] = []
    joined: list[bool] = []
    up = False
    for piece, value in zip(chart.pieces, values, strict=True):
        if value is None:
            up = False
            continue
        for place in (piece.begin, piece.end) if chart.steps else ((piece.begin + piece.end) / 2,):
            x.append(place)
            y.append(value)
            joined.append(up)
            up = True
    if not x:
        return
    signal = figure.signal(x, y, marker=plotext.marker("braille", pixel=plotext.pixel(foreground=colour)))
    for at, connected in enumerate(joined):
        signal.line(at, connected)
    figure.draw(signal)


def _name(lines: list[str], chart: Curve, colours: bool) -> None:
    """The name of each line at its end, or next to that where it is taken."""
    canvas = len(lines) - 2
    places = spread([round((canvas - 1) * place) for place, _ in chart.ends], 1, canvas - 1)
    for row, (_, number) in zip(places, chart.ends, strict=True):
        name = _styled(chart.series[number].name, COLOURS[number % len(COLOURS)], colours)
        lines[int(row)] += f" {name}"


def _styled(text: str, colour: int, colours: bool) -> str:
    return click.style(text, fg=colour) if colours else text


def _bars(chart: Bars, width: int, colours: bool) -> list[str]:
    labels = [_cut(plain(label), width // 3) for label in chart.labels]
    texts = [plain(text) for text in chart.texts]
    left, right = max(map(width_of, labels)), max(map(width_of, texts))
    room = max(4, width - left - right - 2)
    top = max([*chart.totals, *(value for value in chart.before if value is not None)], default=0) or 1
    lines = []
    for at, (label, text) in enumerate(zip(labels, texts, strict=True)):
        cells = _blocks([series.values[at] or 0 for series in chart.series], top, room)
        was = chart.before[at] if chart.before else None
        if was:
            cells[min(room - 1, round(was / top * room))] = "┃"
        bar = "".join(cells)
        lines.append(f"{padded(label, left, right=True)} {_styled(bar, COLOURS[0], colours)} {text}")
    if len(chart.series) > 1:
        lines.append("   ".join(f"{PARTS[at % len(PARTS)]} {plain(each.name)}" for at, each in enumerate(chart.series)))
    if any(chart.before):
        lines.append("┃ the period before")
    return lines


def _blocks(values: Sequence[float], top: float, room: int) -> list[str]:
    """A bar in this many cells; that of a single value ends in eighths."""
    cells = [" "] * room
    begins = 0.0
    for number, value in enumerate(values):
        first, ends = round(begins / top * room), (begins + value) / top * room
        whole = int(ends) if len(values) == 1 else round(ends)
        for at in range(first, whole):
            cells[at] = PARTS[number % len(PARTS)]
        if len(values) == 1 and whole < room:
            # Something is never drawn as nothing.
            cells[whole] = BLOCKS[max(round((ends - whole) * 8), 1 if value and not whole else 0)]
        begins += value
    return cells


def _grid(chart: Grid, width: int, colours: bool) -> list[str]:
    scale = chart.scale(LEVELS)
    rows = [plain(label) for label in chart.rows]
    columns = [plain(label) for label in chart.columns]
    if chart.numbers:
        # Columns are as wide as their numbers: the rows, which are the same things, say which they are.
        keys = [f"{at + 1}" for at in range(max(len(rows), len(columns)))]
        rows = [f"{key} {label}" for key, label in zip(keys, rows, strict=False)]
        columns = keys[: len(columns)]
    rows = [_cut(label, width // 4) for label in rows]
    left = max(map(width_of, rows))
    cells = [[_shade(value, scale, numbers=chart.numbers) for value in row] for row in chart.cells]
    least = max(map(len, [*columns, *(cell for row in cells for cell in row)])) + chart.numbers
    each = min(max(3, least), max(least, (width - left - 1) // len(columns)))
    lines = [" " * (left + 1) + "".join(f"{column:>{each}}" for column in columns)]
    for label, row in zip(rows, cells, strict=True):
        wide = (cell * max(1, each - 1) if cell in "░▒▓█" else cell for cell in row)
        text = "".join(f"{cell:>{each}}" for cell in wide)
        lines.append(f"{padded(label, left)} {_styled(text, COLOURS[0], colours)}")
    legend = [f"{SHADES[at]} {'to ' * bool(at)}{shown(bound)}" for at, bound in enumerate(scale)]
    if chart.incomplete:
        legend.append(f"{ABSENT} {chart.absent}")
    below = [f"{chart.unit}:  {'   '.join(legend)}", f"rows: {chart.down}; columns: {chart.across}"]
    return lines + [line for text in below for line in textwrap.wrap(plain(text), width)]


def _shade(value: float | None, scale: Sequence[float], *, numbers: bool) -> str:
    if value is None:
        return ABSENT
    shade = SHADES[level_of(scale, value)]
    return f"{shown(value)}{shade}" if numbers and value else shade


def _cut(text: str, most: int) -> str:
    """No more than so many columns of it."""
    if width_of(text) <= most:
        return text
    while text and width_of(text) >= most:
        text = text[:-1]
    return text + "…"
