"""Dashboards of ``sipserver explore``: which questions are drawn, and how. Charts are data (Vega-Lite 5).

Only charts are drawn, on a canvas: what is on record of endpoints is their own word, and datasette-dashboards writes
the texts of its tables and numbers into the page as HTML.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sipserver.analysis.questions import Question

DATABASE: Final = "calls"
"""What the store is called on the pages."""

_BLUE: Final = "#2b6cb0"
_OUTCOMES: Final = {
    "answered": "#2b6cb0", "cancelled": "#a0aec0", "no_answer": "#ecc94b", "busy": "#ed8936", "declined": "#9c4221",
    "offline": "#b794f4", "not_found": "#4a5568", "forbidden": "#702459", "failed": "#e53e3e",
}  # fmt: skip
_SHADES: Final = ("#1a365d", "#2b6cb0", "#63b3ed", "#bee3f8")

Spec = dict[str, Any]


def _day(title: str = "day (UTC)") -> Spec:
    return {
        "field": "day", "type": "temporal", "timeUnit": "utcyearmonthdate", "title": title, "scale": {"type": "utc"},
        "axis": {"format": "%b %-d", "labelOverlap": True, "grid": False, "tickCount": {"interval": "day", "step": 1}},
    }  # fmt: skip


def _number(field: str, title: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _name(field: str, title: str | None, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", "title": title, **more}


def _spec(mark: Spec, encoding: Spec, *, height: int | dict[str, int] = 240, **more: Any) -> Spec:
    return {
        # Its name only; nothing is fetched from there.
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        # A menu would offer to send the data to an editor on the web.
        "usermeta": {"embedOptions": {"actions": False, "renderer": "svg"}},
        "height": height, "autosize": {"type": "fit-x", "contains": "padding"},
        "mark": {"tooltip": True, **mark}, "encoding": encoding,
        "config": {
            "background": "#00000000", "view": {"stroke": None}, "font": "Helvetica, Arial, sans-serif",
            "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 220,
                "gridColor": "#e2e8f0", "domainColor": "#a0aec0", "tickColor": "#a0aec0"},
            "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        },
        **more,
    }  # fmt: skip


_WEEKDAYS: Final = "['', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][datum.value]"

_CHARTS: Final[dict[str, tuple[str, Spec]]] = {
    "calls_by_day": (
        "Calls by day, by what became of them",
        _spec(
            {"type": "bar"},
            {
                "x": _day(), "y": _number("calls", "calls"),
                "color": _name("outcome", None, sort=list(_OUTCOMES),
                    scale={"domain": list(_OUTCOMES), "range": list(_OUTCOMES.values())}),
                "order": {"field": "rank"},
            },
            transform=[{"calculate": f"indexof({list(_OUTCOMES)}, datum.outcome)", "as": "rank"}],
        ),
    ),
    "week": (
        "Mean traffic by weekday and hour (UTC), in Erlang",
        _spec(
            {"type": "rect"},
            {
                "x": {"field": "hour", "type": "ordinal", "title": "hour of the day (UTC)",
                    "scale": {"domain": list(range(24))}, "axis": {"labelAngle": 0}},
                "y": {"field": "weekday", "type": "ordinal", "title": None, "scale": {"domain": list(range(1, 8))},
                    "axis": {"labelExpr": _WEEKDAYS}},
                "color": _number("erlang", "Erlang", scale={"scheme": "blues"}),
            },
        ),
    ),
    "busy_hour": (
        "Mean traffic by hour of the day (UTC); the busy hour is dark",
        _spec(
            {"type": "bar"},
            {
                "x": {"field": "hour", "type": "ordinal", "title": "hour of the day (UTC)", "axis": {"labelAngle": 0,
                    "labelExpr": "substring(datum.value, 0, 2)"}},
                "y": _number("erlang", "Erlang, mean over the days"),
                "color": {"condition": {"test": "datum.rank == 1", "value": _SHADES[0]}, "value": "#90cdf4"},
            },
            transform=[{"window": [{"op": "row_number", "as": "rank"}],
                "sort": [{"field": "erlang", "order": "descending"}]}],
        ),
    ),
    "setup_delays": (
        "Time until it rings, by day (percentiles of post-dial delay)",
        _spec(
            {"type": "line", "point": False, "strokeWidth": 2},
            {
                "x": _day(), "y": _number("ms", "milliseconds"),
                "color": _name("of", None, sort=["p99_ms", "p95_ms", "p90_ms", "p50_ms"], scale={
                    "domain": ["p99_ms", "p95_ms", "p90_ms", "p50_ms"], "range": list(_SHADES[::-1])},
                    legend={"labelExpr": "{'p50_ms': 'half of the calls', 'p90_ms': '90 %', 'p95_ms': '95 %', "
                        "'p99_ms': '99 %'}[datum.label]"}),
            },
            transform=[{"fold": ["p50_ms", "p90_ms", "p95_ms", "p99_ms"], "as": ["of", "ms"]}],
        ),
    ),
    "outcomes": (
        "What becomes of calls",
        _spec(
            {"type": "bar"},
            {
                "y": _name("outcome", None, sort="-x"), "x": _number("calls", "calls", aggregate="sum"),
                "color": _name("outcome", None, legend=None,
                    scale={"domain": list(_OUTCOMES), "range": list(_OUTCOMES.values())}),
            },
        ),
    ),
    "errors_by_day": (
        "Errors by day and kind",
        _spec(
            {"type": "bar"},
            {"x": _day(), "y": _number("errors", "errors"),
                "color": _name("kind", None, scale={"scheme": "tableau10"})},
        ),
    ),
    "errors_by_agent": (
        "Errors for a hundred sign-ins and calls, by product and version",
        _spec(
            {"type": "bar", "color": "#c05621"},
            {"y": _name("name", None, sort="-x"), "x": _number("errors_per_100", "errors for a hundred")},
            height={"step": 20},
            transform=[
                {"filter": "datum.product != null && datum.errors_per_100 != null"},
                {"calculate": "datum.product + (datum.version == null ? '' : ' ' + datum.version)", "as": "name"},
                {"window": [{"op": "row_number", "as": "rank"}],
                    "sort": [{"field": "errors", "order": "descending"}]},
                {"filter": "datum.rank <= 15"},
            ],
        ),
    ),
    "retries": (
        "Tried again within a quarter of an hour, by what became of the call",
        _spec(
            {"type": "bar", "color": _BLUE},
            {"y": _name("outcome", None, sort="-x"), "x": _number("again_percent", "percent of the calls",
                scale={"domainMax": 100})},
        ),
    ),
    "sign_ins_by_day": (
        "Sign-ins by day, and those that were refused",
        _spec(
            {"type": "bar"},
            {
                "x": _day(), "y": _number("number", "sign-ins"),
                "color": _name("of", None, scale={"domain": ["bound", "refused"], "range": [_BLUE, "#c53030"]}),
            },
            transform=[
                {"calculate": "datum.attempts - datum.ineffective", "as": "bound"},
                {"calculate": "datum.ineffective", "as": "refused"},
                {"fold": ["bound", "refused"], "as": ["of", "number"]},
            ],
        ),
    ),
    "features": (
        "Answered calls with video and with content, by day",
        _spec(
            {"type": "line", "point": False, "strokeWidth": 2},
            {
                "x": _day(), "y": _number("percent", "percent of the answered calls", scale={"domain": [0, 100]}),
                "color": _name("of", None, scale={"domain": ["video", "content"], "range": [_BLUE, "#d69e2e"]}),
            },
            transform=[
                {"calculate": "datum.video_percent", "as": "video"},
                {"calculate": "datum.content_percent", "as": "content"},
                {"fold": ["video", "content"], "as": ["of", "percent"]},
            ],
        ),
    ),
    "calls_by_agent": (
        "Calls by agent, placed and received",
        _spec(
            {"type": "bar"},
            {
                "y": _name("agent", None, sort="-x"), "x": _number("number", "calls"),
                "color": _name("of", None, scale={"domain": ["placed", "received"], "range": [_BLUE, "#90cdf4"]}),
            },
            height={"step": 20},
            transform=[
                {"window": [{"op": "row_number", "as": "rank"}],
                    "sort": [{"field": "placed", "order": "descending"}]},
                {"filter": "datum.rank <= 15"}, {"fold": ["placed", "received"], "as": ["of", "number"]},
            ],
        ),
    ),
    "matrix": (
        "Answered calls from country to country",
        _spec(
            {"type": "rect"},
            {
                "y": _name("caller", "from"), "x": _name("callee", "to", axis={"labelAngle": 0}),
                "color": _number("answered", "answered calls", aggregate="sum",
                    scale={"scheme": "blues", "type": "log"}),
            },
            transform=[
                {"filter": "datum.answered > 0"},
                {"calculate": "datum.caller_country || 'not known'", "as": "caller"},
                {"calculate": "datum.callee_country || 'not known'", "as": "callee"},
            ],
        ),
    ),
}  # fmt: skip
"""By the name of the question: a title, and what is drawn of its rows."""

_DASHBOARDS: Final = {
    "calls": ("Calls", "When people call, and what becomes of it.",
        [["calls_by_day", "calls_by_day"], ["week", "busy_hour"], ["outcomes", "retries"]]),
    "quality": ("Quality and errors", "How fast calls come about, and where it goes wrong.",
        [["setup_delays", "setup_delays"], ["errors_by_day", "errors_by_agent"]]),
    "people": ("People and devices", "Who is there, with what, and from where.",
        [["sign_ins_by_day", "features"], ["calls_by_agent", "matrix"]]),
}  # fmt: skip
"""Title, what it is about, and rows of charts."""

_FILTERS: Final = {
    "from": {"name": "from (UTC)", "type": "date"},
    "to": {"name": "to, without that day", "type": "date"},
    "site": {"name": "site", "type": "text", "default": ""},
    "agent": {"name": "agent has in it", "type": "text", "default": ""},
}
"""What every dashboard can be narrowed by, as the parameters of its questions."""


def dashboards(questions: Iterable[Question]) -> dict[str, Any]:
    """The configuration of datasette-dashboards."""
    by_name = {question.name: question for question in questions}

    def chart(name: str) -> dict[str, Any]:
        title, display = _CHARTS[name]
        return {"title": title, "db": DATABASE, "query": by_name[name].sql, "library": "vega-lite", "display": display}

    return {
        slug: {
            "title": title,
            "description": about,
            "layout": layout,
            "filters": _FILTERS,
            "charts": {name: chart(name) for name in dict.fromkeys(name for row in layout for name in row)},
        }
        for slug, (title, about, layout) in _DASHBOARDS.items()
    }
