"""Parquet files have the rows of their part, in types that are the same whatever happened."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from sipserver.analysis.drawings import Frame
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import By, recorded, zone
from sipserver.analysis.report import REPORTS, Asked, make
from sipserver.analysis.source import Views
from support.record import BEGIN, DAY, END, Record

pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
files = pytest.importorskip("sipserver.analysis.parquet")


def tables(record: Record, name: str, begin: int, end: int, by: By, where: str) -> dict[str, tuple[Any, Any]]:
    question = Asked(Kpis(Views(record.connection)), recorded(record.connection), begin, end, by, zone(where))
    frame = Frame.of(question, where)
    return {
        part: (rows, pq.read_table(io.BytesIO(files.write(part, rows, frame))))
        for part, rows in make(name, question).items()
    }


@pytest.mark.parametrize("name", REPORTS)
def test_files_have_the_rows_in_types_of_their_own(one: Record, name: str) -> None:
    one.run(BEGIN, END)
    found = tables(one, name, BEGIN, END, "hour", "Asia/Kathmandu")
    absent = tables(one, name, END + DAY, END + 2 * DAY, "hour", "Asia/Kathmandu")
    for part, (rows, table) in found.items():
        for column in table.column_names:
            assert column in files.COUNTS | files.TEXTS | files.MEASURES | {"hour"} or column.endswith(
                ("_ms", "_percent", "_percent_p50", "_percent_p95")), f"{column} has no type"  # fmt: skip
        assert table.num_rows == len(rows) > 0
        for row, kept in zip(rows, table.to_pylist(), strict=True):
            for column, value in row.items():
                if isinstance(kept[column], datetime):
                    assert kept[column].isoformat(timespec="minutes") == value
                elif part != "figures" or column != "value":
                    assert kept[column] == value
        nothing = absent[part][1]
        for column in nothing.column_names:
            assert nothing.schema.field(column).type == table.schema.field(column).type


def test_file_says_what_it_is_about(one: Record) -> None:
    one.run(BEGIN, END)
    (rows, table) = tables(one, "quality", BEGIN, END, "day", "UTC")["quality"]
    about = json.loads(table.schema.metadata[b"sipserver.report"])
    assert about == {"part": "quality", "from": "2026-10-23T00:00:00+00:00", "to": "2026-10-28T00:00:00+00:00",
        "by": "day", "tz": "UTC"}  # fmt: skip
    assert table.column("day")[0].as_py() == date(2026, 10, 23)
    meaning = table.schema.field("ser_percent").metadata[b"meaning"].decode()
    assert meaning.endswith("(RFC 6076 §4.6)")
    assert rows[0]["day"] == "2026-10-23"


def test_time_of_day_among_the_figures_is_text(one: Record) -> None:
    one.run(BEGIN, END)
    ((rows, table),) = tables(one, "summary", BEGIN, END, "day", "UTC").values()
    kept = {row["figure"]: (row["value"], row["value_text"]) for row in table.to_pylist()}
    wanted = {row["figure"]: row["value"] for row in rows}
    assert kept["busy_hour"] == (None, wanted["busy_hour"])
    assert kept["calls"] == (wanted["calls"], None)


def test_hour_that_comes_twice_is_two_moments(one: Record) -> None:
    one.run(BEGIN, END)
    (_, table) = tables(one, "errors", BEGIN + 2 * DAY, BEGIN + 2 * DAY + DAY // 8, "hour", "Europe/Berlin")["errors"]
    assert [at.as_py().astimezone(UTC).hour for at in table.column("hour")] == [0, 1, 2]
