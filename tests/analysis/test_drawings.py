"""Charts say what the rows of their report say: no more, no less, and nothing where nothing was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.analysis.charts import Bars, Chart, Curve, Grid
from sipserver.analysis.drawings import CHARTS, Frame, charts, lent
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import By, recorded, zone
from sipserver.analysis.report import REPORTS, WEEKDAYS, Asked, Rows, make
from sipserver.analysis.source import Views
from support.record import BEGIN, DAY, END, HOUR, Record


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Record]:
    made = Record(tmp_path, 0, calls=0)
    for table in ("sign_ins", "errors", "sign_in_days", "quality_reports"):
        made.connection.execute(f"DELETE FROM {table}")
    yield made
    made.connection.close()


def asked(record: Record, begin: int, end: int, by: By = "day", where: str = "UTC") -> Asked:
    return Asked(Kpis(Views(record.connection)), recorded(record.connection), begin, end, by, zone(where))


def drawn(name: str, question: Asked) -> tuple[dict[str, Chart], dict[str, Rows]]:
    found = make(name, question) | lent(name, question, briefly=False)
    return {chart.name: chart for chart in charts(name, found, Frame.of(question, "UTC"))}, found


def curve(chart: Chart) -> Curve:
    assert isinstance(chart, Curve)
    return chart


def bars(chart: Chart) -> Bars:
    assert isinstance(chart, Bars)
    return chart


def grid(chart: Chart) -> Grid:
    assert isinstance(chart, Grid)
    return chart


def test_every_report_has_charts_of_its_parts(one: Record) -> None:
    one.run(BEGIN, END)
    assert set(CHARTS) == set(REPORTS)
    for name in REPORTS:
        question = asked(one, BEGIN, END)
        found, _ = drawn(name, question)
        assert len(found) == len(CHARTS[name])
        for chart in found.values():
            assert chart.title
            assert chart.unit
            assert not chart.nothing
            assert chart.words.startswith(chart.unit)
    assert list(drawn("summary", asked(one, BEGIN, END))[0]) == ["traffic", "weekdays", "delays", "matrix", "kinds"]


@pytest.mark.parametrize("by", ["hour", "day"])
def test_curves_are_their_columns_and_unrecorded_pieces_are_gaps(one: Record, by: By) -> None:
    one.run(BEGIN, BEGIN + DAY)
    one.run(BEGIN + 3 * DAY, END)
    for name, part, chart, columns in (
        ("traffic", "traffic", "traffic", ("erlang",)),
        ("quality", "quality", "delays", ("pdd_p99_ms", "pdd_p95_ms", "pdd_p90_ms", "pdd_p50_ms")),
        ("quality", "quality", "ratios", ("ner_percent", "seer_percent", "ser_percent")),
        ("features", "features", "features", ("video_percent", "content_percent")),
        ("errors", "errors", "errors", ("errors",)),
        ("sign-ins", "sign_ins", "active", ("active", "signed_in")),
        ("sign-ins", "sign_ins", "registrations", ("bound", "refused")),
    ):
        made, rows = drawn(name, asked(one, BEGIN, END, by))
        found = curve(made[chart])
        assert found.gaps == ((BEGIN + DAY, BEGIN + 3 * DAY),)
        assert [series.values for series in found.series] == [
            tuple(row[column] for row in rows[part]) for column in columns
        ]
        absent = {piece.begin for piece, value in zip(found.pieces, found.series[0].values, strict=True)
            if value is None}  # fmt: skip
        assert {at for at in absent if BEGIN + DAY <= at < BEGIN + 3 * DAY} == {
            piece.begin for piece in found.pieces if BEGIN + DAY <= piece.begin < BEGIN + 3 * DAY
        }
        assert max(value for series in found.series for value in series.values if value is not None) <= found.scale[-1]


def test_busiest_hour_is_marked_where_it_was(one: Record) -> None:
    one.run(BEGIN, END)
    made, rows = drawn("traffic", asked(one, BEGIN, END, "hour"))
    found = curve(made["traffic"])
    (mark,) = found.marks
    at = next(at for at, piece in enumerate(found.pieces) if piece.begin <= mark.at < piece.end)
    assert mark.value == found.series[0].values[at] == max(value or 0 for value in found.series[0].values)
    assert found.upper == tuple(row["erlang_most"] for row in rows["traffic"])
    assert "cut short" not in curve(drawn("errors", asked(one, BEGIN, END))[0]["errors"]).subtitle
    edges: tuple[tuple[int, int, By, str], ...] = (
        (BEGIN + HOUR, END, "day", "; the first day cut short"), (BEGIN, END - 1, "day", "; the last day cut short"),
        (BEGIN, END, "week", "; the first and the last week cut short"), (BEGIN + 3 * DAY, END, "hour", ""),
    )  # fmt: skip
    for begin, end, by, cut in edges:
        chart = drawn("errors", asked(one, begin, end, by))[0]["errors"]
        assert chart.subtitle == f"errors in each {by}{cut}"


def test_heat_map_has_the_hours_of_each_weekday(one: Record) -> None:
    one.run(BEGIN, END)
    made, rows = drawn("traffic", asked(one, BEGIN, END))
    found = grid(made["weekdays"])
    assert (len(found.rows), len(found.columns)) == (7, 24)
    for day, name in enumerate(WEEKDAYS):
        assert found.rows[day] == name[:3].capitalize()
        assert found.cells[day] == tuple(row[name] for row in rows["weekdays"])


def test_matrix_has_every_answered_call_once(one: Record) -> None:
    one.run(BEGIN, END)
    for country in ("AA", "BB", "CC", "DD", "EE", "FF", "GG", "HH", "II", "JJ", "KK"):
        for number in range(3):
            at = BEGIN + HOUR
            one.insert("calls", {
                "id": f"{country}{number}", "call_id": "h", "started_at": at, "answered_at": at + 1, "ended_at": at + 2,
                "outcome": "answered", "caller_country": country, "callee_country": "ZZ", "talk_ms": 1,
            })  # fmt: skip
    for name, part in (("locations", "matrix"), ("devices", "transports")):
        made, rows = drawn(name, asked(one, BEGIN, END))
        found = grid(made[part])
        assert sum(value or 0 for row in found.cells for value in row) == sum(row["answered"] for row in rows[part]) > 0
        assert found.rows == found.columns
    made, rows = drawn("locations", asked(one, BEGIN, END))
    found = grid(made["matrix"])
    assert [label for label in found.rows if label.startswith("other")]
    assert len(found.rows) <= 10
    there = found.rows.index("north, DE")
    wanted = sum(row["answered"] for row in rows["matrix"] if (row["caller_site"], row["callee_site"],
        row["caller_country"], row["callee_country"]) == ("north", "north", "DE", "DE"))  # fmt: skip
    assert found.cells[there][there] == wanted


def test_bars_have_the_sums_of_their_rows(one: Record) -> None:
    one.run(BEGIN, END)
    made, rows = drawn("errors", asked(one, BEGIN, END))
    found = bars(made["kinds"])
    assert sum(found.totals) == sum(row["errors"] for row in rows["kinds"])
    assert list(found.totals) == sorted(found.totals, reverse=True)
    assert found.before == (), "the period before was not recorded"
    made, rows = drawn("quality", asked(one, BEGIN, END))
    assert sum(bars(made["outcomes"]).totals) == sum(row["calls"] for row in rows["outcomes"])
    made, rows = drawn("traffic", asked(one, BEGIN, END))
    assert sum(bars(made["parties"]).totals) == sum(row["parties"] for row in rows["parties"])
    made, rows = drawn("devices", asked(one, BEGIN, END))
    assert list(bars(made["agents"]).totals) == sorted((row["placed"] + row["received"] for row in rows["agents"]),
        reverse=True)  # fmt: skip
    made, rows = drawn("features", asked(one, BEGIN, END))
    assert sum(bars(made["media"]).totals) == sum(row["calls"] for row in rows["media"])


def test_change_stands_beside_the_bar(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + 2 * DAY)
    for number, (day, kind, count) in enumerate(
        ((0, "timeout", 4), (1, "timeout", 6), (1, "rate", 1), (0, "store", 2))
    ):
        at = BEGIN + day * DAY + HOUR
        empty.insert("errors", {"id": f"e{number}", "at": at, "last_at": at, "kind": kind, "answered_by": "server",
            "count": count})  # fmt: skip
    found = bars(drawn("errors", asked(empty, BEGIN + DAY, BEGIN + 2 * DAY))[0]["kinds"])
    assert found.labels == ("timeout (server)", "rate (server)", "store (server)")
    assert found.texts == ("6  (+50 %)", "1  (new)", "0  (\N{MINUS SIGN}100 %)")
    assert found.before == (4, 0, 2)


def test_nothing_is_said_to_be_nothing(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY)
    for name in REPORTS:
        for chart in drawn(name, asked(empty, BEGIN + DAY, BEGIN + 2 * DAY))[0].values():
            assert chart.nothing == chart.words == "Nothing was recorded in this period."
    said = {chart.name: chart.nothing for name in REPORTS for chart in drawn(name, asked(empty, BEGIN, BEGIN + DAY))[
        0].values()}  # fmt: skip
    assert said["kinds"] == "There were no errors in this period."
    assert said["matrix"] == "No call was answered in this period."
    assert said["delays"] == "No call rang or was answered in this period."
    assert said["traffic"] == said["weekdays"] == said["errors"] == said["active"] == "", "0 is something"


def test_a_single_call_is_drawn(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY)
    empty.insert("calls", {"id": "a", "call_id": "h", "started_at": BEGIN + HOUR, "answered_at": BEGIN + HOUR + 900,
        "ended_at": BEGIN + 2 * HOUR, "talk_ms": HOUR - 900, "outcome": "answered", "setup_ms": 700, "ring_ms": 200,
        "caller": "p1", "callee": "p2", "caller_country": "DE", "callee_country": "FR", "devices": 1})  # fmt: skip
    made, _ = drawn("summary", asked(empty, BEGIN, BEGIN + DAY))
    assert curve(made["delays"]).series[0].values == (700,)
    assert grid(made["matrix"]).cells == ((0, 1), (0, 0))
    (mark,) = curve(made["traffic"]).marks
    assert mark.text == "busiest hour, 23 Oct 01:00: 1 Erlang"


def test_what_peers_wrote_is_made_visible(one: Record) -> None:
    one.run(BEGIN, END)
    hostile, seen = "a\x1b[2J\u202eb\ufffe\n", "a\\x1b[2J\\u202eb\\ufffe\\x0a"
    one.connection.execute(
        "UPDATE calls SET caller_site = $it, caller_agent = $it, caller_transport = $it, outcome = $it",
        {"it": hostile},
    )
    one.connection.execute("UPDATE errors SET kind = $it, agent = $it", {"it": hostile})
    one.connection.execute("UPDATE call_media SET codec = $it", {"it": hostile})
    labels: list[str] = []
    for name in REPORTS:
        for chart in drawn(name, asked(one, BEGIN, END))[0].values():
            labels += chart.labels if isinstance(chart, Bars) else chart.rows if isinstance(chart, Grid) else ()
    assert all(label.isprintable() for label in labels)
    assert sum(seen in label for label in labels) >= 6


def test_summary_of_a_site_has_no_errors(one: Record) -> None:
    one.run(BEGIN, END)
    question = asked(one, BEGIN, END)
    question.kpis.site = "north"
    assert "kinds" not in drawn("summary", question)[0]
    assert set(lent("summary", question, briefly=True)) == {"weekdays"}
    assert lent("traffic", question, briefly=False) == {}
