"""Tables that cannot speak to a terminal, CSV that cannot be a formula."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.cli.output import csv_text, fields, plain, show_rows, table


def test_table_aligns_text_left_and_numbers_right() -> None:
    rows = [{"name": "a", "talk_ms": 5}, {"name": "long", "talk_ms": 1234}]
    assert table(rows, ["name", "talk_ms"]).splitlines() == ["NAME  TALK MS", "a           5", "long     1234"]


def test_table_counts_wide_and_combining_characters() -> None:
    rows = [{"name": "日本", "x": "1"}, {"name": "e\u0301", "x": "2"}, {"name": "abcd", "x": "3"}]
    assert [line[-1] for line in table(rows, ["name", "x"]).splitlines()[1:]] == ["1", "2", "3"]
    assert table(rows, ["name", "x"]).splitlines()[1] == "日本  1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb", "a\\x0ab"),
        ("\u202eabc", "\\u202eabc"),
        ("\U000e0001", "\\U000e0001"),
        ("\udc80", "\\udc80"),
        ("Grüße", "Grüße"),
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (("a", 1), "a, 1"),
    ],
)
def test_value_is_printable(value: object, expected: str) -> None:
    assert plain(value) == expected


@given(st.text(st.characters(exclude_categories=())))
def test_no_value_breaks_a_line_or_moves_the_cursor(value: str) -> None:
    assert plain(value).isprintable()
    assert len(f"{table([{'a': value}], ['a'])}.".splitlines()) == 2


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_formula_is_neutralised_in_csv(start: str) -> None:
    text = csv_text([{"agent": f"{start}HYPERLINK(1)"}], ["agent"])
    ((_,), (cell,)) = list(csv.reader(io.StringIO(text, newline="")))
    assert cell == f"'{start}HYPERLINK(1)"


@pytest.mark.parametrize("start", ["\t", "\r", "\n"])
def test_control_character_is_visible_in_csv(start: str) -> None:
    assert csv_text([{"agent": f"{start}=1"}], ["agent"]) == f"agent\n\\x{ord(start):02x}=1\n"


def test_negative_number_is_no_formula() -> None:
    assert csv_text([{"a": -5, "b": None, "c": True, "d": ("x", "y")}], ["a"]) == 'a,b,c,d\n-5,,yes,"x, y"\n'


def test_csv_without_rows_has_its_header() -> None:
    assert csv_text([], ["a", "b"]) == "a,b\n"


def test_csv_survives_a_lone_surrogate() -> None:
    assert csv_text([{"a": "x\udc80"}], ["a"]).encode() == b"a\nx\\udc80\n"


def test_fields_leave_out_what_is_unknown() -> None:
    assert fields({"a_b": 1, "none": None, "long_name": "x"}) == "a b        1\nlong name  x"
    assert fields({}) == ""


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (None, "A\n1\n"),
        ("csv", "a,b\n1,2\n"),
        ("json", json.dumps([{"a": 1, "b": 2}], indent=2) + "\n"),
    ],
)
def test_rows_are_printed_in_the_form_asked_for(form: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"a": 1, "b": 2}], form, ["a"], "Nothing.")
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(("form", "expected"), [(None, "Nothing.\n"), ("csv", "a\n"), ("json", "[]\n")])
def test_no_rows_are_told_in_each_form(form: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], form, ["a"], "Nothing.")
    assert capsys.readouterr().out == expected
