"""The questions of ``sipserver explore``, against the figures of the reports."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from sipserver.analysis.dashboards import dashboards
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import DAY_MS, Bucket
from sipserver.analysis.questions import DAYS, PARAMETERS, QUESTIONS, Question, fitting_days, within_days
from sipserver.analysis.source import Views
from support.record import BEGIN, END, HOUR, Record

Row = dict[str, Any]
BY_NAME = {question.name: question for question in QUESTIONS}
WHOLE = Bucket(BEGIN, END, "")


def ask(record: Record, name: str, **values: str) -> list[Row]:
    question = BY_NAME[name]
    given = dict.fromkeys(question.parameters, "") | {
        each: value for each, value in {**WHOLE.bounds, **values}.items() if each in question.parameters
    }
    cursor = record.connection.execute(question.sql, given)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


@pytest.mark.parametrize("question", QUESTIONS, ids=BY_NAME)
def test_every_question_is_answered(record: Record, question: Question) -> None:
    assert set(question.parameters) <= set(PARAMETERS)
    assert question.title.endswith("?")
    for value in ("", "x", "2026-10-24"):
        record.connection.execute(question.sql, dict.fromkeys(question.parameters, value)).fetchall()


def test_names_are_no_names_of_tables(record: Record) -> None:
    tables = {name for (name,) in record.connection.execute("SELECT name FROM sqlite_master WHERE type <> 'index'")}
    # Of a table and a question of one name only the question would have a page.
    assert not tables & set(BY_NAME)


def test_what_is_asked_for_narrows_what_is_found(record: Record) -> None:
    def calls(**values: str) -> int:
        return sum(row["calls"] for row in ask(record, "outcomes", **values))

    every = calls()
    assert every == Kpis(Views(record.connection)).sessions(WHOLE)["calls"]
    assert 0 < calls(site="north") == Kpis(Views(record.connection), site="north").sessions(WHOLE)["calls"] < every
    assert 0 < calls(agent="HALO") == Kpis(Views(record.connection), agent="halo").sessions(WHOLE)["calls"] < every
    assert 0 < calls(**{"from": "2026-10-25", "to": "2026-10-26"}) < every


def test_delays_are_those_of_the_report(record: Record) -> None:
    for number, row in enumerate(ask(record, "setup_delays")):
        day = Bucket(BEGIN + number * DAY_MS, BEGIN + (number + 1) * DAY_MS, "")
        expected = Kpis(Views(record.connection)).delays(day)
        assert {f"pdd_{name}": value for name, value in row.items() if name.startswith("p")} == expected


def test_agents_come_in_the_order_of_their_calls(record: Record) -> None:
    totals = [row["placed"] + row["received"] for row in ask(record, "calls_by_agent")]
    assert len(set(totals)) > 2
    assert totals == sorted(totals, reverse=True)


def test_retries_are_those_of_the_report(record: Record) -> None:
    found = {row["outcome"]: row["again"] for row in ask(record, "retries", to="")}
    expected = {
        row["outcome"]: row["again"] for row in Kpis(Views(record.connection)).retries(Bucket(BEGIN, END + DAY_MS, ""))
    }
    assert found == expected


def test_the_matrix_leaves_out_what_few_have_part_in(record: Record) -> None:
    every = ask(record, "matrix")
    expected = Kpis(Views(record.connection)).matrix(WHOLE)
    assert sum(row["calls"] for row in every) == sum(row["calls"] for row in expected)
    some = ask(record, "matrix", k="3")
    assert some == [row for row in every if row["callers"] >= 3]


def test_traffic_is_talk_time_in_the_hours_that_it_was_in(record: Record) -> None:
    begun = [row for row in record.calls if BEGIN <= row["started_at"] < END and row.get("talk_ms") is not None]
    talk: dict[int, int] = {}
    for row in begun:
        at = row["answered_at"]
        while at < row["ended_at"]:
            following = min(at - at % HOUR + HOUR, row["ended_at"])
            talk[at // HOUR] = talk.get(at // HOUR, 0) + following - at
            at = following
    hours = ask(record, "busiest_hours")
    assert hours[0]["erlang"] == round(max(talk.values()) / HOUR, 3)
    days = max(talk) // 24 - min(talk) // 24 + 1
    by_hour = {row["hour"]: row["erlang"] for row in ask(record, "busy_hour")}
    for hour in range(24):
        expected = sum(ms for at, ms in talk.items() if at % 24 == hour) / HOUR / days
        assert by_hour.get(f"{hour:02}:00", 0) == pytest.approx(expected, abs=0.001)
    week = {(row["weekday"], row["hour"]): row["erlang"] for row in ask(record, "week")}
    dates = [date(1970, 1, 1) + timedelta(day) for day in range(min(talk) // 24, max(talk) // 24 + 1)]
    for (weekday, hour), erlang in week.items():
        same = [day for day in dates if day.isoweekday() == weekday]
        there = sum(talk.get((day - date(1970, 1, 1)).days * 24 + hour, 0) for day in same)
        assert erlang == pytest.approx(there / HOUR / len(same), abs=0.001)
    assert {(dates[at // 24 - min(talk) // 24].isoweekday(), at % 24) for at in talk} <= set(week)
    moved = {row["hour"]: row["erlang"] for row in ask(record, "busy_hour", utc_offset="+01:00")}
    # Among other days, where the last hour of one is the first of the next.
    assert moved["01:00"] == pytest.approx(by_hour["00:00"], rel=0.5)
    assert {row["hour"][3:] for row in ask(record, "busy_hour", utc_offset="+05:30")} == {"30"}


def test_the_story_of_a_call_is_found_by_the_beginning_of_its_id(record: Record) -> None:
    insert = "INSERT INTO calls (id, call_id, started_at) VALUES (?, 'h', '2026-10-24T00:00:00.000Z')"
    record.connection.executemany(insert, [("0199c2f1-6a40-7abc",), ("0199c2f1-6a41-7abc",)])
    record.connection.executemany(
        "INSERT INTO stored_events (call, number, at, kind) VALUES (?, ?, ?, ?)",
        [("0199c2f1-6a40-7abc", 0, "1", "placed"), ("0199c2f1-6a40-7abc", 1, "3", "ended"),
            ("0199c2f1-6a41-7abc", 0, "1", "other")],
    )  # fmt: skip
    record.connection.execute(
        "INSERT INTO call_branches (call, branch, tried_at, status, outcome) VALUES ('0199c2f1-6a40-7abc', 0, '2', 486,"
        " 'busy')"
    )
    story = ask(record, "story", call="0199C2F1-6A40")
    assert [(row["what"], row["detail"]) for row in story] == [
        ("placed", None), ("device 0 was tried", "busy"), ("ended", None)
    ]  # fmt: skip
    assert ask(record, "story", call="0199") == []


def test_fewer_days_are_looked_at_where_very_many_call(record: Record) -> None:
    assert fitting_days(record.connection) == DAYS
    assert within_days(DAYS) == QUESTIONS
    week = {question.name: question for question in within_days(7)}
    assert "-6 days" in week["outcomes"].sql
    assert week["outcomes"].means("from").endswith("empty: the last 7 days")
    assert BY_NAME["outcomes"].means("from").endswith("empty: the last 30 days")


def test_what_is_drawn_is_answered_by_a_question(record: Record) -> None:
    for board in dashboards(QUESTIONS).values():
        assert {name for row in board["layout"] for name in row} == set(board["charts"])
        for name, chart in board["charts"].items():
            question = BY_NAME[name]
            assert set(board["filters"]) >= set(question.parameters) - {"k", "utc_offset", "kind"}
            columns = {each for row in ask(record, name) for each in row}
            made = {name for step in chart["display"].get("transform", ()) for name in _made(step)}
            used = {encoding["field"] for encoding in chart["display"]["encoding"].values() if "field" in encoding}
            assert used <= columns | made


def _made(step: dict[str, Any]) -> list[str]:
    if "window" in step:
        return [each["as"] for each in step["window"]]
    names = step.get("as", [])
    return [names] if isinstance(names, str) else names
