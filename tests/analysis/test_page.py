"""The page of a report: whole with nothing from outside, harmless whatever peers are called, and small."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from sipserver.analysis.drawings import CHARTS, Frame, lent
from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import By, recorded, zone
from sipserver.analysis.report import SUMMARY, Asked, make
from sipserver.analysis.source import Views
from support.record import BEGIN, DAY, END, HOUR, Record

pages = pytest.importorskip("sipserver.analysis.page", reason="needs altair and vl-convert")

HOSTILE = "<script>alert('x')</script>&amp;\"><img src=x onerror=alert(1)>"


class Found(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "rect", "path", "line"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open[-1:] != ["style"]:
            self.words.append(data.strip())


def page(
    record: Record, name: str, begin: int, end: int, by: By = "day", *, only: str | None = None, **scope: str
) -> str:  # fmt: skip
    """The page; with ``only`` one part, and no charts but its own."""
    kpis = Kpis(Views(record.connection), **scope)
    question = Asked(kpis, recorded(record.connection), begin, end, by, zone("Europe/Berlin"))
    rows, more = make(name, question, only), {} if only else lent(name, question, briefly=False)
    frame = Frame.of(question, "Europe/Berlin")
    return str(pages.page(name, rows, more, frame, store="var/calls.db", made="2026-11-01 by a test"))


@pytest.fixture
def hostile(one: Record) -> Record:
    one.run(BEGIN, END)
    one.connection.execute("UPDATE calls SET caller_site = ?, caller_agent = ?", (HOSTILE, HOSTILE))
    one.connection.execute("UPDATE errors SET kind = ?", (HOSTILE,))
    return one


def test_page_is_whole_harmless_and_small(hostile: Record) -> None:
    text = page(hostile, "summary", BEGIN - 2 * HOUR, END - 2 * HOUR, site=HOSTILE)
    found = Found(text)
    assert len(text) < 300_000
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))
    assert not {"script", "img", "link", "iframe", "object", "embed", "form", "base", "image", "use", "a"} & {
        *found.tags
    }
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "href", "xlink:href", "srcset", "action", "style"), (tag, name)
        assert "url(" not in value
        assert "://" not in value or name.startswith("xmlns"), (tag, name, value)
    assert "@import" not in text
    assert "url(" not in text
    policy = [value for tag, name, value in found.attributes if tag == "meta" and name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy
    assert any(HOSTILE in word for word in found.words), "in a table or a picture, as text"
    assert f"site {HOSTILE}" in found.words


def test_page_says_what_it_is_about(one: Record) -> None:
    one.run(BEGIN, END - 5 * DAY // 4)
    text = page(one, "summary", BEGIN + 2 * DAY - 2 * HOUR, BEGIN + 4 * DAY - HOUR, only="figures")
    words = Found(text).words
    assert "How people call" in words
    assert "25 October 2026 to 26 October 2026" in words, "whole days, one of them of 25 hours"
    facts = dict(pairwise(words))
    assert facts["Time zone"] == "Europe/Berlin"
    assert facts["Only"] == "no filter: all calls"
    assert facts["Store"] == "var/calls.db"
    assert facts["Made"] == "2026-11-01 by a test"
    assert facts["Recorded"] == "89.8 % of the period"
    assert facts["Compared with"] == "22 October 2026, 23:00 to 25 October 2026, 00:00, 93.9 % of it recorded"
    assert "What the figures mean" in words
    assert any(word.startswith("Session establishment ratio: ") and word.endswith("(RFC 6076 §4.6)") for word in words)
    assert facts["figure"] == "value"
    assert set(SUMMARY) <= set(words)


def test_every_chart_has_words_and_its_table(one: Record) -> None:
    one.run(BEGIN, END)
    text = page(one, "devices", BEGIN, END)
    found = Found(text)
    spoken = [value for tag, name, value in found.attributes if name == "aria-label"]
    assert found.tags.count("svg") == len(CHARTS["devices"]) == len(spoken)
    assert spoken[0].startswith("What people call with. calls. ")
    assert spoken[1].startswith("Over which transports people call. answered calls; rows: transport of the caller")
    assert found.tags.count("table") == 2


def test_key_figures_stand_beside_those_of_before(one: Record) -> None:
    one.run(BEGIN, END)
    question = Asked(Kpis(Views(one.connection)), recorded(one.connection), BEGIN + DAY, BEGIN + 2 * DAY, "day",
        zone("UTC"))  # fmt: skip
    rows = make("summary", question)["figures"]
    values: dict[str, Any] = {row["figure"]: row for row in rows}
    words = Found(page(one, "summary", BEGIN + DAY, BEGIN + 2 * DAY, only="figures")).words
    at = words.index("Calls")
    assert words[at + 1] == str(values["calls"]["value"])
    assert words[at + 3] == f"before: {values['calls']['before']}"
    at = words.index("Answered")
    points = values["abr_percent"]["value"] - values["abr_percent"]["before"]
    assert words[at + 2] == f"{points:+.1f} points".replace("-", "\N{MINUS SIGN}")


def test_page_about_nothing_says_so(one: Record) -> None:
    one.run(BEGIN, END)
    words = Found(page(one, "summary", END + DAY, END + 2 * DAY)).words
    assert words.count("Nothing was recorded in this period.") == len(CHARTS["summary"])
    assert "nothing of the period" in words
    assert "Calls" not in words, "an absent figure is no 0"


def test_long_tables_are_cut_and_say_so(one: Record) -> None:
    one.run(BEGIN, END)
    text = page(one, "errors", BEGIN, END, "hour", only="errors")
    assert "20 more rows are in what" in text
    assert text.count("<tr>") < 150
