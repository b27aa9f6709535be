"""Reports: what is zero, what is absent, what changed, and when the busy hour is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import By, recorded, zone
from sipserver.analysis.report import REPORTS, SUMMARY, Asked, change, make
from sipserver.analysis.views import FIGURES, VIEW_NAMES
from support.copies import SOURCES, Copies
from support.record import BEGIN, DAY, END, HOUR, Record

QUARTER = HOUR // 4
MINUTE = HOUR // 60


@pytest.fixture(params=SOURCES)
def empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Record]:
    """A store in which nothing happened, yet."""
    made = Record(tmp_path, 0, calls=0)
    copies = Copies(tmp_path, made.connection, END)
    made.copies = copies if request.param == "copy" else None
    for table in ("sign_ins", "errors", "sign_in_days", "quality_reports"):
        made.connection.execute(f"DELETE FROM {table}")
    yield made
    copies.close()
    made.connection.close()


def asked(record: Record, begin: int, end: int, by: By = "day", where: str = "UTC") -> Asked:
    return Asked(Kpis(record.source), recorded(record.connection), begin, end, by, zone(where))


def up(record: Record, name: str, begin: int, end: int, uncertain: int | None = None) -> None:
    record.insert("calls", {
        "id": name, "call_id": "h", "started_at": begin - 1_000, "answered_at": begin, "ended_at": end,
        "talk_ms": end - begin, "outcome": "answered", "sip_status": 200, "end_cause": "bye", "setup_ms": 500,
        "end_uncertainty_ms": uncertain, "devices": 1, "video": 0, "content": 0, "video_ms": 0,
    })  # fmt: skip


def test_zero_where_zero_is_true_and_absent_where_nothing_was_recorded(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY)
    empty.run(BEGIN + 2 * DAY, BEGIN + 2 * DAY + 6 * HOUR)
    rows = make("traffic", asked(empty, BEGIN, BEGIN + 3 * DAY), "traffic")["traffic"]
    none = dict.fromkeys(("calls", "answered", "open", "erlang", "erlang_most", "peak_calls", "peak_calls_most",
        "peak_calls_per_s"))  # fmt: skip
    zero = dict.fromkeys(none, 0)
    assert rows == [
        {"day": "2026-10-23", **zero, "recorded_percent": 100.0},
        {"day": "2026-10-24", **none, "recorded_percent": 0.0},
        {"day": "2026-10-25", **zero, "recorded_percent": 25.0},
    ]
    for name in REPORTS:
        for part in make(name, asked(empty, BEGIN + DAY, BEGIN + 2 * DAY)).values():
            for row in part:
                kept = {key: value for key, value in row.items() if value is not None}
                assert set(kept) <= {"day", "recorded_percent", "figure", "before"}


def test_ratio_of_nothing_is_absent(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY)
    (row,) = make("quality", asked(empty, BEGIN, BEGIN + DAY), "quality")["quality"]
    assert row["calls"] == row["answered"] == 0
    assert row["ser_percent"] is row["acd_s"] is row["pdd_p50_ms"] is row["rrd_p50_ms"] is row["sdd_p95_ms"] is None


def test_spanning_call_counts_in_each_piece_and_traffic_is_of_what_was_recorded(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY + 12 * HOUR)
    up(empty, "a", BEGIN + 12 * HOUR, BEGIN + DAY + 6 * HOUR)
    rows = make("traffic", asked(empty, BEGIN, BEGIN + 2 * DAY), "traffic")["traffic"]
    assert [(row["calls"], row["erlang"], row["peak_calls"]) for row in rows] == [(1, 0.5, 1), (0, 0.5, 1)]
    assert [row["recorded_percent"] for row in rows] == [100.0, 50.0]


def test_uncertain_end_gives_a_range(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + DAY)
    up(empty, "a", BEGIN, BEGIN + 6 * HOUR, uncertain=6 * HOUR)
    up(empty, "b", BEGIN + 9 * HOUR, BEGIN + 10 * HOUR)
    (row,) = make("traffic", asked(empty, BEGIN, BEGIN + DAY), "traffic")["traffic"]
    assert (row["erlang"], row["erlang_most"]) == (round(7 / 24, 4), round(13 / 24, 4))
    assert (row["peak_calls"], row["peak_calls_most"]) == (1, 2)


def test_open_call_is_up_as_far_as_the_record_reaches(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + 18 * HOUR, killed=True)
    empty.insert("calls", {"id": "a", "call_id": "h", "started_at": BEGIN, "answered_at": BEGIN + 6 * HOUR,
        "outcome": "answered"})  # fmt: skip
    (row,) = make("traffic", asked(empty, BEGIN, BEGIN + DAY), "traffic")["traffic"]
    assert (row["calls"], row["open"], row["recorded_percent"]) == (1, 1, 75.0)
    assert row["erlang"] == round(12 / 18, 4)


@pytest.mark.parametrize("where", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_busy_hours_against_a_slow_count(record: Record, where: str) -> None:
    record.run(BEGIN, END)
    rows = make("traffic", asked(record, BEGIN, END, where=where), "busy_hours")["busy_hours"]
    spans = [(row["answered_at"], row.get("ended_at", END)) for row in record.calls if "answered_at" in row]
    times: dict[str, list[float]] = {}
    days: dict[Any, list[float]] = {}
    for begin in range(BEGIN, END - HOUR + 1, QUARTER):
        erlang = sum(max(0, min(begin + HOUR, to) - max(begin, since)) for since, to in spans) / HOUR
        local = datetime.fromtimestamp(begin / 1000, zone(where))
        times.setdefault(f"{local:%H:%M}", []).append(erlang)
        if local.minute == 0:
            days.setdefault(local.date(), []).append(erlang)
    most = max(map(len, times.values()))
    means = {time: sum(each) / len(each) for time, each in times.items() if 2 * len(each) > most}
    best = max(means.values())
    busiest = [max(each) for each in days.values()]
    same, fixed, mean = rows
    assert same["erlang"] == round(best, 4)
    assert means[same["begins"]] == pytest.approx(best)
    assert fixed["erlang"] == round(max(busiest), 4)
    assert mean["erlang"] == round(sum(busiest) / len(busiest), 4)


def test_hour_that_comes_twice_is_no_habit_of_two_days(empty: Record) -> None:
    berlin_midnight = BEGIN + DAY + 22 * HOUR
    empty.run(BEGIN, END)
    up(empty, "a", berlin_midnight + 12 * HOUR, berlin_midnight + 13 * HOUR)
    found = asked(empty, berlin_midnight, berlin_midnight + 25 * HOUR, where="Europe/Berlin")
    same, fixed, _ = make("traffic", found, "busy_hours")["busy_hours"]
    assert (same["begins"], same["days"], same["erlang"]) == ("11:00", 1, 1.0)
    assert fixed["begins"] == "2026-10-25T11:00+01:00"


def test_day_of_25_hours_holds_25_hours_of_a_call(empty: Record) -> None:
    berlin_midnight = BEGIN + DAY + 22 * HOUR
    empty.run(BEGIN, END)
    up(empty, "a", BEGIN, END)
    found = asked(empty, berlin_midnight, berlin_midnight + 49 * HOUR, where="Europe/Berlin")
    rows = make("traffic", found, "traffic")["traffic"]
    assert [(row["day"], row["erlang"]) for row in rows] == [("2026-10-25", 1.0), ("2026-10-26", 1.0)]
    hours = asked(empty, berlin_midnight, berlin_midnight + 25 * HOUR, "hour", "Europe/Berlin")
    assert len(make("traffic", hours, "traffic")["traffic"]) == 25


@pytest.mark.parametrize("where", ["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
@pytest.mark.parametrize("by", ["hour", "month"])
def test_weekdays_against_a_slow_count(record: Record, where: str, by: By) -> None:
    begin, end = BEGIN + 7 * MINUTE, END - 3 * HOUR - 11 * MINUTE
    runs = [(begin - HOUR, BEGIN + DAY + 3 * MINUTE), (BEGIN + DAY + 5 * HOUR, END - 5 * HOUR)]
    for since, to in runs:
        record.run(since, to)
    rows = make("traffic", asked(record, begin, end, by, where), "weekdays")["weekdays"]
    spans = [(row["answered_at"], row.get("ended_at", END - 5 * HOUR)) for row in record.calls if "answered_at" in row]
    talk: dict[tuple[str, str], int] = {}
    known: dict[tuple[str, str], int] = {}
    for quarter in range(BEGIN, END, QUARTER):
        since, to = max(quarter, begin), min(quarter + QUARTER, end)
        there = sum(max(0, min(to, stop) - max(since, start)) for start, stop in runs)
        local = datetime.fromtimestamp(quarter / 1000, zone(where))
        place = f"{local:%H:00}", f"{local:%A}".lower()
        if there:
            talk[place] = talk.get(place, 0) + sum(max(0, min(to, b) - max(since, a)) for a, b in spans)
            known[place] = known.get(place, 0) + there
    assert len(rows) == 24
    for row in rows:
        for day in list(row)[1:]:
            place = row["hour"], day
            assert row[day] == (round(talk[place] / known[place], 4) if place in known else None), place
    assert sum(value is None for row in rows for value in row.values()) > 48, "two days were not in the period"


def test_change_against_the_period_before(empty: Record) -> None:
    empty.run(BEGIN, BEGIN + 2 * DAY)
    for number, (day, kind, count) in enumerate(
        ((0, "timeout", 4), (0, "store", 3), (1, "timeout", 6), (1, "rate", 1))
    ):
        at = BEGIN + day * DAY + HOUR
        empty.insert("errors", {"id": f"e{number}", "at": at, "last_at": at, "kind": kind, "answered_by": "server",
            "count": count})  # fmt: skip
    rows = make("errors", asked(empty, BEGIN + DAY, BEGIN + 2 * DAY), "kinds")["kinds"]
    assert [(row["kind"], row["errors"], row["before"], row["change_percent"]) for row in rows] == [
        ("timeout", 6, 4, 50.0), ("rate", 1, 0, None), ("store", 0, 3, -100.0),
    ]  # fmt: skip
    rows = make("errors", asked(empty, BEGIN, BEGIN + DAY), "kinds")["kinds"]
    assert all(row["before"] is row["change_percent"] is None for row in rows), "nothing was recorded before"


def test_change_is_absent_where_there_is_nothing_to_compare() -> None:
    assert change(3, 2) == 50
    assert change(0, 2) == -100
    assert change(3, 0) is None
    assert change(3, None) is change(None, 3) is None


def test_summary_has_the_figures_of_the_other_reports(record: Record) -> None:
    record.run(BEGIN, END)
    found = asked(record, BEGIN + DAY, BEGIN + 3 * DAY, "month")
    rows = {row["figure"]: row["value"] for row in make("summary", found)["figures"]}
    assert list(rows)[: len(SUMMARY)] == list(SUMMARY)
    (traffic,) = make("traffic", found, "traffic")["traffic"]
    (quality,) = make("quality", found, "quality")["quality"]
    (features,) = make("features", found, "features")["features"]
    for part, names in ((traffic, "erlang peak_calls peak_calls_per_s"), (features, "minutes video_percent"),
            (quality, "calls answered ser_percent scr_percent ner_percent acd_s pdd_p95_ms")):  # fmt: skip
        for name in names.split():
            assert rows[name] == part[name], name


def test_figures_of_people_are_defined(record: Record) -> None:
    record.run(BEGIN, END)
    known = set(FIGURES)
    for name in REPORTS:
        for rows in make(name, asked(record, BEGIN, END)).values():
            for row in rows:
                undefined = {key for key in row if key.endswith(("_percent", "_ms")) and not key.startswith(
                    ("loss", "jitter", "round_trip"))} - known  # fmt: skip
                assert not undefined
    assert set(SUMMARY) <= known


def test_every_view_is_in_the_store_with_its_definition(record: Record) -> None:
    stored = dict(record.connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'").fetchall())
    for name in VIEW_NAMES:
        assert "\n-- " in stored[name]
        record.connection.execute(f"SELECT * FROM {name}").fetchall()


def test_queries_can_be_run_as_they_are_explained(record: Record) -> None:
    record.run(BEGIN, END)
    for name in REPORTS:
        found = asked(record, BEGIN, END)
        found.kpis.site = None if name == "errors" else "north"
        found.kpis.agent = "acme"
        make(name, found)
        assert found.kpis.queries or name == "none"
        bounds = found.parameters
        for query in found.kpis.queries.values():
            assert "{" not in query.text()
            found.kpis.source.ask(query.text(), bounds)


def test_facts_of_a_period_are_found_by_time(record: Record) -> None:
    plan = record.connection.execute(
        "EXPLAIN QUERY PLAN SELECT sum(answered), sum(delivered), avg(talk_ms), sum(video_ms) FROM v_call_facts "
        "WHERE started_at >= 'a' AND started_at < 'b'"
    ).fetchall()
    assert "SEARCH calls USING INDEX calls_started" in plan[0][3]
