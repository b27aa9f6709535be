"""Pictures are really drawn, say everything that their charts say, and what peers wrote stays text."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from sipserver.analysis.axes import time_ticks
from sipserver.analysis.charts import Bars, Chart, Curve, Grid, Mark, Series
from sipserver.analysis.periods import buckets
from support.record import BEGIN, DAY, HOUR

pictures = pytest.importorskip("sipserver.analysis.pictures", reason="needs altair and vl-convert")

HOSTILE = "<script>alert(1)</script>"
QUOTED = "\"'};alert(2)//\\"
UTC = ZoneInfo("UTC")
SVG = "{http://www.w3.org/2000/svg}"


def charts() -> list[Chart]:
    pieces = tuple(buckets(BEGIN, BEGIN + 6 * HOUR, "hour", UTC))
    ticks = time_ticks(BEGIN, BEGIN + 6 * HOUR, UTC)
    return [
        Curve(
            "curve", "A curve", "its subtitle", "Erlang", "time, UTC", pieces,
            (Series("p50", (1, 2, None, None, 3, 4)), Series("p99", (2, 4, None, None, None, 7.25))), ticks,
            gaps=((BEGIN + 2 * HOUR, BEGIN + 4 * HOUR),), upper=(2, 2, None, None, 3, 5),
            marks=(Mark(BEGIN + 1.5 * HOUR, 6, "the busiest of all"),),
        ),
        Bars("bars", "Bars", "", "calls", (HOSTILE, QUOTED, "c"), (Series("placed", (3, 2, 0)),), ("(new)", "", ""),
            (1, None, 2)),
        Bars("stack", "Stack", "", "calls", ("d", "d"), (Series("one", (3, 2)), Series("two", (0, 4)))),
        Grid("grid", "A grid", "of cells", "calls", (HOSTILE, "b"), ("x", QUOTED), "to", "from",
            ((1, 0), (None, 1234)), "?", numbers=True),
        Bars("none", "None", "", "calls", (), (Series("placed", ()),), empty="Nobody called."),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> str:
    return str(pictures.svg(charts(), heading=("Summary", "2026, UTC")))


def test_svg_says_what_the_charts_say(drawn: str) -> None:
    document = ET.fromstring(drawn)
    words = ["".join(element.itertext()) for element in document.iter(f"{SVG}text")]
    for text in (
        "Summary", "2026, UTC", "A curve", "its subtitle; grey: not recorded", "Erlang", "time, UTC", "03:00", "p50",
        "p99", "8", "not recorded", "the busiest of all", HOSTILE, QUOTED, "3  (new)", "6", "one", "two",
        "to", "from", "1,234", "\N{EN DASH}", "of cells; \N{EN DASH} ?", "≤ 1,400", "Nobody called.",
    ):  # fmt: skip
        assert text in words, text
    assert words.count("d") == 2, "two things of one name are two bars"
    assert words.count("0") >= 3


def test_svg_has_nothing_but_drawing(drawn: str) -> None:
    document = ET.fromstring(drawn)
    assert {element.tag.rpartition("}")[2] for element in document.iter()} <= {
        "svg", "rect", "g", "path", "line", "text", "tspan", "defs", "clipPath", "title", "desc", "style",
    }  # fmt: skip
    for element in document.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert not name.endswith(("href", "src"))
            assert "url(" not in value or value.startswith("url(#")


def test_png_is_a_picture_in_twice_the_resolution() -> None:
    found = pictures.png(charts()[:1], heading=("Summary", "2026, UTC"))
    assert found[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", found[16:24])
    assert 2 * pictures.WIDTH < width < 3 * pictures.WIDTH
    assert height > 2 * pictures.HEIGHT


@pytest.mark.parametrize("highest", [1, 2, 3, 7, 1000])
def test_numbers_stand_out_from_the_darkest_cells(highest: int) -> None:
    grid = Grid("g", "", "", "calls", ("a", "b"), ("c", "d"), "", "", ((highest, 1), (0, None)), "?", numbers=True)
    drawn = ET.fromstring(pictures.svg([grid]))
    texts = {"".join(element.itertext()): element.get("fill") for element in drawn.iter(f"{SVG}text")}
    cells = [element.get("fill") for element in drawn.iter(f"{SVG}path") if "h" in (element.get("d") or "")]
    assert pictures.PAPER.ramp[-1] in cells
    assert texts[f"{highest:,}"] == pictures.PAPER.inverse
    if highest > 2:
        assert pictures.PAPER.ramp[0] in cells
        assert texts["1"] == pictures.PAPER.ink


def test_lines_end_where_nothing_is_known() -> None:
    curve = charts()[0]
    assert isinstance(curve, Curve)
    points = pictures._points(curve, curve.series[1].values)
    assert [point["value"] for point in points] == [2, 4, None, None, None, 7.25]
    assert [point.get("alone") for point in points] == [False, False, None, None, None, True], "a dot, since no line"


def test_steps_last_as_long_as_their_pieces() -> None:
    pieces = tuple(buckets(BEGIN, BEGIN + 3 * DAY, "day", UTC))
    curve = Curve("c", "", "", "", "", pieces, (Series("s", (5, None, 6)),), (), steps=True)
    points = pictures._points(curve, curve.series[0].values)
    assert [((point["at"] - BEGIN) / DAY, point["value"]) for point in points] == [
        (0, 5), (1, 5), (1, None), (2, 6), (3, 6),
    ]  # fmt: skip
