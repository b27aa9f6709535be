"""The parts of a report as Parquet: columns whose types do not hang on what happened to be in them.

Pieces of time are dates, hours are moments in the zone of the report, everything countable is a 64-bit integer. Each
column that has a definition carries it, and the file says what it is about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from io import BytesIO
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from sipserver.analysis.drawings import Frame
from sipserver.analysis.report import WEEKDAYS, Rows
from sipserver.analysis.views import FIGURES

COUNTS: Final = frozenset((
    "again", "answered", "active", "before", "bound", "calls", "channels", "days", "errors", "open", "parties",
    "peak_calls", "peak_calls_most", "peak_calls_per_s", "placed", "received", "refreshes", "refused", "reports",
    "signed_in", "sign_ins", "sip_status", "upgraded", "with_content", "with_video",
))  # fmt: skip
"""Columns of whole numbers."""

TEXTS: Final = frozenset((
    "agent", "answered_by", "begins", "busy_hour", "callee_country", "callee_region", "callee_site",
    "callee_transport", "caller_country", "caller_region", "caller_site", "caller_transport", "codec", "end_cause",
    "figure", "kind", "outcome", "product", "resolution", "value_text", "version",
))  # fmt: skip
"""Columns of words."""

MEASURES: Final = frozenset((
    "acd_s", "blocking", "erlang", "erlang_most", "errors_per_100", "jitter_ms_p50", "jitter_ms_p95", "minutes",
    "mos_lq_p5", "mos_lq_p50", "round_trip_ms_p50", "round_trip_ms_p95", "sdt_failed_s", "sdt_s", "srd_failed_s",
    "srd_s", "value", "video_minutes", *WEEKDAYS,
))  # fmt: skip
"""Columns of numbers that need not be whole; those in percent are, too."""


def write(part: str, rows: Rows, frame: Frame) -> bytes:
    """A part of a report as a file."""
    if part == "figures":
        # One of the figures is a time of day.
        rows = [_split(row) for row in rows]
    names = list(rows[0]) if rows else []
    fields = [_field(part, name, frame) for name in names]
    columns = [pa.array([_value(row.get(field.name), field.type) for row in rows], field.type) for field in fields]
    about = {
        "part": part, "from": _moment(frame.asked.begin, frame), "to": _moment(frame.asked.end, frame),
        "by": frame.asked.by, "tz": frame.zone, **frame.asked.kpis.parameters,
    }  # fmt: skip
    schema = pa.schema(fields, {"sipserver.report": json.dumps(about)})
    out = BytesIO()
    parquet.write_table(pa.Table.from_arrays(columns, schema=schema), out)
    return out.getvalue()


def _split(row: Mapping[str, Any]) -> dict[str, Any]:
    value = row["value"]
    text = value if isinstance(value, str) else None
    return {**row, "value": None if text is not None else value, "value_text": text}


def _field(part: str, name: str, frame: Frame) -> Any:
    meaning = {"meaning": f"{FIGURES[name].meaning} ({FIGURES[name].source})"} if name in FIGURES else None
    return pa.field(name, _type(part, name, frame), metadata=meaning)


def _type(part: str, name: str, frame: Frame) -> Any:
    if name == "hour":
        # An hour of the week is no moment.
        return pa.string() if part == "weekdays" else pa.timestamp("ms", frame.zone)
    if name in ("day", "week", "month"):
        return pa.date32()
    if name in TEXTS:
        return pa.string()
    if name == "before" and part in ("figures", "products"):
        return pa.float64()
    if name in COUNTS or (name.endswith("_ms") and name not in MEASURES):
        return pa.int64()
    return pa.float64() if name in MEASURES or "_percent" in name else pa.string()


def _value(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_string(kind):
        return str(value)
    return int(value) if pa.types.is_integer(kind) else float(value)


def _moment(at: int, frame: Frame) -> str:
    return datetime.fromtimestamp(at / 1000, frame.asked.where).isoformat()
