"""Charts as pictures: specifications of Vega-Lite made with altair, drawn by vl-convert without a browser or a network.

Nothing is told by colour alone: lines have their names at their ends and dashes, grids go from light to dark, a cell
without a value has a dash. Whatever peers wrote is data here and text in the picture.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, Final

import altair as alt

from sipserver.analysis.axes import Tick, spread
from sipserver.analysis.charts import Bars, Chart, Curve, Grid, level_of, shown

WIDTH: Final = 720
HEIGHT: Final = 250
BAR: Final = 26
DENSE: Final = 200
"""Lines of more points are thin."""
FONT: Final = "Liberation Sans, Helvetica, Arial, sans-serif"
DASHES: Final = ([1, 0], [7, 3], [2, 3], [9, 3, 2, 3])
LABEL_WIDTH: Final = 260


@dataclass(slots=True, frozen=True)
class Theme:
    """The colours of a picture."""

    ink: str
    """Of text and lines that are no data."""
    background: str | None
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    """From little to much."""
    inverse: str
    """Of text on the darkest of the ramp."""


PAPER: Final = Theme(
    "#1d2733", "#ffffff", ("#0060a8", "#c04a00", "#007a5a", "#a3478a"),
    ("#deebf7", "#bcd9ee", "#8fc0e0", "#5a9fcd", "#327bb7", "#145a9b", "#083a70"), "#ffffff",
)  # fmt: skip
"""For pictures that stand by themselves, on screens and on paper."""

PAGE: Final = Theme(
    "currentColor", None, ("#2a86d1", "#d9662a", "#1a9a76", "#bb65a4"),
    tuple(f"rgba(42,134,209,{opacity})" for opacity in (0.12, 0.24, 0.36, 0.48, 0.6, 0.72, 0.84)), "currentColor",
)  # fmt: skip
"""For pictures inside a page, which is light or dark as its reader wants it."""

Rows = list[dict[str, Any]]


def svg(charts: Sequence[Chart], theme: Theme = PAPER, heading: tuple[str, str] | None = None) -> str:
    """The charts below each other as SVG; ``heading`` is a title and a line below it."""
    out = StringIO()
    _together(charts, theme, heading).save(out, format="svg")
    return out.getvalue()


def png(charts: Sequence[Chart], theme: Theme = PAPER, heading: tuple[str, str] | None = None) -> bytes:
    """The same as PNG, in twice the resolution of a screen."""
    out = BytesIO()
    _together(charts, theme, heading).save(out, format="png", scale_factor=2.0)
    return out.getvalue()


def _together(charts: Sequence[Chart], theme: Theme, heading: tuple[str, str] | None) -> Any:
    drawn = [_drawn(chart, theme, titled=heading is not None) for chart in charts]
    whole = drawn[0] if len(drawn) == 1 and heading is None else alt.vconcat(*drawn, spacing=36)
    whole = whole.resolve_scale(color="independent")
    if heading is not None:
        title = alt.TitleParams(heading[0], subtitle=heading[1], fontSize=22, subtitleFontSize=14, offset=24)
        whole = whole.properties(title=title)
    options: dict[str, Any] = {
        # Each cell of a grid saying its row and column helps nobody: whoever shows the picture has words for it.
        "aria": False, "font": FONT, "padding": 20 if heading is not None else 4,
        "background": theme.background or "transparent",
        "view": alt.ViewConfig(stroke=None),
        "title": alt.TitleConfig(
            anchor="start", frame="group", fontSize=17, fontWeight="bold", color=theme.ink, subtitleColor=theme.ink,
            subtitleFontSize=13, subtitlePadding=6, offset=24,
        ),
        "axis": alt.AxisConfig(
            labelColor=theme.ink, titleColor=theme.ink, labelFontSize=13, titleFontSize=13, titleFontWeight="normal",
            domainColor=theme.ink, tickColor=theme.ink, gridColor=theme.ink, gridOpacity=0.14, domainOpacity=0.5,
            tickOpacity=0.5, labelLimit=LABEL_WIDTH, titlePadding=10, labelPadding=7,
        ),
        "text": alt.MarkConfig(fontSize=13, color=theme.ink),
        "legend": alt.LegendConfig(
            labelColor=theme.ink, titleColor=theme.ink, labelFontSize=13, titleFontSize=13, titleFontWeight="normal",
            orient="top", direction="horizontal", symbolType="square", symbolSize=160, symbolStrokeWidth=1,
        ),
    }  # fmt: skip
    return whole.configure(**options)


def _drawn(chart: Chart, theme: Theme, *, titled: bool) -> Any:
    if chart.nothing:
        found = _layer([{"text": chart.nothing}]).mark_text(align="left", fontSize=14, color=theme.ink).encode(
            x=alt.value(0), y=alt.value(12), text="text:N"
        ).properties(width=WIDTH, height=24)  # fmt: skip
    elif isinstance(chart, Curve):
        found = _curve(chart, theme)
    elif isinstance(chart, Bars):
        found = _bars(chart, theme)
    else:
        found = _grid(chart, theme)
    # A page has titles of its own.
    subtitle = textwrap.wrap(said(chart), 112)
    return found.properties(title=alt.TitleParams(chart.title, subtitle=subtitle)) if titled else found


def said(chart: Chart) -> str:
    """What stands below the title of a picture."""
    if isinstance(chart, Curve) and chart.gaps and not chart.nothing:
        return f"{chart.subtitle}; grey: not recorded"
    if isinstance(chart, Grid) and chart.incomplete and not chart.nothing:
        return f"{chart.subtitle}; \N{EN DASH} {chart.absent}"
    return chart.subtitle


def _layer(rows: Rows) -> Any:
    return alt.Chart({"values": rows})


def _axis(marks: Iterable[Tick], title: str, **options: Any) -> alt.Axis:
    """An axis with these marks, in words of ours."""
    texts = {f"{tick.at:.10g}" if tick.at < 1e6 else f"{tick.at:.0f}": tick.text for tick in marks}
    return alt.Axis(
        values=[float(at) for at in texts], labelExpr=f"{json.dumps(texts)}[datum.value]", title=title, **options
    )


def _scale_axis(scale: Sequence[float], title: str, **options: Any) -> alt.Axis:
    return _axis((Tick(at, shown(at)) for at in scale), title, **options)


def _curve(chart: Curve, theme: Theme) -> Any:
    begin, end, top = chart.pieces[0].begin, chart.pieces[-1].end, chart.scale[-1]
    # The ends of dashes and lines at the very top are not cut off: only what lies outside of the period is.
    x = alt.X("at:Q", scale=alt.Scale(domain=[begin, end], nice=False, zero=False),
        axis=_axis(chart.ticks, chart.time, grid=False, labelOverlap=True, labelFlush=False))  # fmt: skip
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, top], nice=False),
        axis=_scale_axis(chart.scale, chart.unit, domain=False, ticks=False))  # fmt: skip
    layers = [*_gaps(chart, theme, begin, end)]
    shape: Any = {"interpolate": "step-after"} if chart.steps else {}
    if chart.upper:
        band = _points(chart, chart.series[0].values, chart.upper)
        layers.append(
            _layer(band).mark_area(color=theme.series[0], opacity=0.3, **shape).encode(x=x, y=y, y2="upper:Q")
        )
    width = 2.2 if len(chart.pieces) <= DENSE else 1.1
    for number, series in enumerate(chart.series):
        colour, dash = theme.series[number % len(theme.series)], DASHES[number % len(DASHES)]
        points = _points(chart, series.values)
        layers.append(
            _layer(points).mark_line(color=colour, strokeWidth=width, strokeDash=dash, strokeCap="butt", **shape)
            .encode(x=x, y=y)
        )  # fmt: skip
        if not chart.steps:
            layers.append(
                _layer([point for point in points if point.get("alone")]).mark_point(
                    color=colour, filled=True, size=42, opacity=1
                ).encode(x=x, y=y)
            )  # fmt: skip
    layers += _marks(chart, theme, x, y, begin, end)
    if len(chart.series) > 1:
        layers += _names(chart, theme)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _points(chart: Curve, values: Sequence[Any], upper: Sequence[Any] = ()) -> Rows:
    """The corners of a line; where no value is known there is one without, so that the line ends there."""
    found: Rows = []
    for at, (piece, value) in enumerate(zip(chart.pieces, values, strict=True)):
        more = {"upper": upper[at]} if upper else {}
        if value is None:
            found.append({"at": piece.begin, "value": None, **more})
        elif chart.steps:
            found.append({"at": piece.begin, "value": value, **more})
            if at + 1 == len(values) or values[at + 1] is None:
                found.append({"at": piece.end, "value": value, **more})
        else:
            beside = [values[other] for other in (at - 1, at + 1) if 0 <= other < len(values)]
            alone = all(each is None for each in beside)
            found.append({"at": (piece.begin + piece.end) / 2, "value": value, "alone": alone})
    return found


def _gaps(chart: Curve, theme: Theme, begin: int, end: int) -> Iterable[Any]:
    if not chart.gaps:
        return
    rows = [{"at": since, "to": to} for since, to in chart.gaps]
    domain = alt.Scale(domain=[begin, end], nice=False, zero=False)
    yield _layer(rows).mark_rect(color=theme.ink, opacity=0.1).encode(x=alt.X("at:Q", scale=domain), x2="to:Q")
    wide = [(since, to) for since, to in chart.gaps if (to - since) / (end - begin) * WIDTH > 96]
    words = [{"at": (since + to) / 2, "text": "not recorded"} for since, to in wide]
    if words:
        yield _layer(words).mark_text(color=theme.ink, opacity=0.75, fontSize=13).encode(
            x=alt.X("at:Q", scale=domain), y=alt.value(HEIGHT / 2), text="text:N"
        )  # fmt: skip


def _marks(chart: Curve, theme: Theme, x: Any, y: Any, begin: int, end: int) -> Iterable[Any]:
    for mark in chart.marks:
        row = [{"at": mark.at, "value": mark.value, "text": mark.text}]
        yield _layer(row).mark_point(
            shape="diamond", filled=True, size=110, color=theme.series[1], opacity=1
        ).encode(x=x, y=y)  # fmt: skip
        # The words stand above all lines, and inside of the frame.
        place = (mark.at - begin) / (end - begin)
        align = "left" if place < 0.25 else "right" if place > 0.75 else "center"
        yield (
            _layer(row)
            .mark_text(align=align, baseline="bottom", dy=-9, color=theme.ink, fontSize=13)
            .encode(x=x, y=y, text="text:N")
        )


def _names(chart: Curve, theme: Theme) -> Iterable[Any]:
    """The name of each line, right of where it ends."""
    places = spread([HEIGHT * place for place, _ in chart.ends], 16, HEIGHT)
    for y, (_, number) in zip(places, chart.ends, strict=True):
        yield _layer([{"text": chart.series[number].name}]).mark_text(
            align="left", baseline="middle", color=theme.series[number % len(theme.series)], fontWeight="bold",
            fontSize=13,
        ).encode(x=alt.value(WIDTH + 8), y=alt.value(y), text="text:N")  # fmt: skip


def _bars(chart: Bars, theme: Theme) -> Any:
    top = chart.scale[-1]
    # Two things of one name are two bars.
    keys = [f"{at:03}" for at in range(len(chart.labels))]
    texts = dict(zip(keys, chart.labels, strict=True))
    y = alt.Y("key:N", sort=keys, title=None, scale=alt.Scale(paddingInner=0.3, paddingOuter=0.2),
        axis=alt.Axis(labelExpr=f"{json.dumps(texts)}[datum.value]", ticks=False, domain=False, labelPadding=8,
            labelLimit=LABEL_WIDTH))  # fmt: skip
    x = alt.X(
        "from:Q",
        scale=alt.Scale(domain=[0, top], nice=False),
        axis=_scale_axis(chart.scale, chart.unit, grid=False, labelFlush=False),
    )
    rows: Rows = []
    for at, key in enumerate(keys):
        begins = 0.0
        for number, series in enumerate(chart.series):
            value = series.values[at] or 0
            rows.append({"key": key, "from": begins, "to": begins + value, "name": series.name, "number": number})
            begins += value
    names = [series.name for series in chart.series]
    colours = list(theme.series[:1] if len(names) == 1 else (theme.series[0], theme.ramp[2]))
    legend = None if len(names) == 1 else alt.Legend(title=None, symbolStrokeColor=theme.ink)
    bars = _layer(rows).mark_bar().encode(
        x=x, x2="to:Q", y=y, color=alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    )  # fmt: skip
    ends = [max(total, (chart.before[at] or 0) if chart.before else 0) for at, total in enumerate(chart.totals)]
    layers = [bars]
    if chart.before:
        before = [{"key": key, "from": value} for key, value in zip(keys, chart.before, strict=True)
            if value is not None]  # fmt: skip
        layers.append(_layer(before).mark_tick(color=theme.ink, thickness=3, size=BAR - 4, opacity=1).encode(x=x, y=y))
    words = [{"key": key, "from": end, "text": text} for key, end, text in zip(keys, ends, chart.texts, strict=True)]
    layers.append(_layer(words).mark_text(align="left", dx=9, color=theme.ink).encode(x=x, y=y, text="text:N"))
    return alt.layer(*layers).properties(width=WIDTH - LABEL_WIDTH, height=BAR * len(keys))


def _grid(chart: Grid, theme: Theme) -> Any:
    keys = [[f"{at:03}" for at in range(len(each))] for each in (chart.rows, chart.columns)]
    rows: Rows = []
    scale = chart.scale()
    for row, values in zip(keys[0], chart.cells, strict=True):
        for column, value in zip(keys[1], values, strict=True):
            level = None if value is None else level_of(scale, value)
            dark = bool(level is not None and _shade(theme, level, len(scale) - 1) > len(theme.ramp) // 2)
            text = "\N{EN DASH}" if value is None else shown(value) if chart.numbers and value else ""
            rows.append({"row": row, "column": column, "text": text, "level": level, "dark": dark})
    wide = not chart.numbers
    flat = max(map(len, chart.columns)) <= 6
    axes = [
        alt.Axis(
            labelExpr=f"{json.dumps(dict(zip(each, texts, strict=True)))}[datum.value]", ticks=False, domain=False,
            title=title, labelPadding=6, **more,
        )
        for each, texts, title, more in (
            (keys[0], chart.rows, chart.down, {"labelLimit": 170}),
            (keys[1], chart.columns, chart.across, {
                "orient": "top", "labelAngle": 0, "labelLimit": 60} if flat else {
                "orient": "top", "labelAngle": -40, "labelAlign": "left", "labelLimit": 170}),
        )
    ]  # fmt: skip
    x = alt.X("column:N", sort=keys[1], axis=axes[1], scale=alt.Scale(paddingInner=0.06, paddingOuter=0.03))
    y = alt.Y("row:N", sort=keys[0], axis=axes[0], scale=alt.Scale(paddingInner=0.06, paddingOuter=0.03))
    base = _layer(rows)
    layers = [
        base.mark_rect(stroke=theme.ink, strokeWidth=0.6, strokeOpacity=0.25).encode(
            x=x, y=y, color=_levels(chart, theme)
        ),
        base.transform_filter("!datum.dark").mark_text(color=theme.ink).encode(x=x, y=y, text="text:N"),
        base.transform_filter("datum.dark").mark_text(color=theme.inverse).encode(x=x, y=y, text="text:N"),
    ]
    longest = max(len(each["text"]) for each in rows)
    cell = 30 if wide else max(44, 8 * longest + 10)
    return alt.layer(*layers).properties(
        width=cell * len(keys[1]) if wide else max(3, len(keys[1])) * cell, height=(26 if wide else 30) * len(keys[0])
    )


def _levels(chart: Grid, theme: Theme) -> alt.Color:
    """The colours of the levels, spread over the ramp, and what they mean."""
    scale = chart.scale()
    above = len(scale) - 1
    colours = [theme.ramp[_shade(theme, at, above)] for at in range(1, above + 1)]
    texts = {str(at): f"\N{LESS-THAN OR EQUAL TO} {shown(bound)}" if at else "0" for at, bound in enumerate(scale)}
    return alt.Color(
        "level:O", scale=alt.Scale(domain=list(range(above + 1)), range=["rgba(128,128,128,0.04)", *colours]),
        legend=alt.Legend(
            title=chart.unit, labelExpr=f"{json.dumps(texts)}[datum.value]", orient="bottom", titleOrient="left",
            offset=14, symbolStrokeColor=theme.ink,
        ),
    )  # fmt: skip


def _shade(theme: Theme, level: int, above: int) -> int:
    """Which of the ramp stands for a level of so many above 0; the highest is the darkest."""
    last = len(theme.ramp) - 1
    return round((level - 1) * last / (above - 1)) if above > 1 else last
