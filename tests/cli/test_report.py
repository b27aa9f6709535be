"""``sipserver report`` and ``sipserver sample``."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.analysis.report import REPORTS

Sipserver = Callable[..., Result]
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def sample(sipserver: Sipserver, data_dir: Path) -> None:
    options = "--calls 800 --subscribers 120 --days 20 --until 2026-11-01 --seed 3 --out"
    result = sipserver("sample", *options.split(), str(data_dir))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {data_dir / 'calls.db'}\n"


def test_every_report_in_every_form(sipserver: Sipserver, sample: None) -> None:
    document = {}
    for name, parts in REPORTS.items():
        period = ("report", name, "--from", "2026-10-24", "--to", "2026-10-27", "--tz", "Europe/Berlin", "--by", "day")
        text = sipserver(*period)
        assert text.exit_code == 0, text.output
        assert f"{name}: 2026-10-24 00:00 to 2026-10-27 00:00, Europe/Berlin" in text.stdout
        document = json.loads(sipserver(*period, "--json").stdout)
        assert document["from"] == "2026-10-24T00:00:00+02:00"
        assert document["to"] == "2026-10-27T00:00:00+01:00"
        for number, part in enumerate(parts):
            assert part.title in text.stdout
            rows = document[part.name]
            more = () if not number else ("--part", part.name)
            found = list(csv.DictReader(io.StringIO(sipserver(*period, "--csv", *more).stdout)))
            assert len(found) == len(rows)
            assert not rows or list(found[0]) == list(rows[0])
    assert [row["day"] for row in document["sign_ins"]] == ["2026-10-24", "2026-10-25", "2026-10-26"]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no SCHED_IDLE")
@pytest.mark.parametrize(
    "command", ["report summary", "report prepare", "report share --from 2026-10-12 --to 2026-10-26 --out"]
)
def test_what_reads_the_store_beside_a_server_stands_back(
    sipserver: Sipserver, sample: None, tmp_path: Path, command: str
) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    more = [str(tmp_path / "out")] if command.endswith("--out") else []
    result = sipserver(*command.split(), *more)
    assert result.exit_code == 0, result.output
    # On a machine that is busy for seconds it stands back less.
    assert os.sched_getscheduler(0) in (os.SCHED_IDLE, os.SCHED_BATCH)
    # What writes does not.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert sipserver("check").exit_code in (0, 1)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_explain_says_what_figures_mean_and_how_they_were_made(sipserver: Sipserver, sample: None) -> None:
    text = sipserver("report", "quality", "--explain").stdout
    assert re.search(r"^ser_percent +Session establishment ratio.*\(RFC 6076 §4.6\)$", text, re.MULTILINE)
    assert "JOIN v_call_facts ON started_at >= since" in text
    assert "-- $from = '2026-10-02T00:00:00.000Z'" in text
    document = json.loads(sipserver("report", "summary", "--explain", "--json").stdout)
    assert document["definitions"]["seer_percent"]["source"] == "RFC 6076 §4.7"
    assert any("v_call_facts" in query["sql"] for query in document["queries"])


def test_the_last_thirty_days_of_the_record_are_what_is_looked_at(sipserver: Sipserver, sample: None) -> None:
    document = json.loads(sipserver("report", "traffic", "--json").stdout)
    assert (document["from"], document["to"]) == ("2026-10-02T00:00:00+00:00", "2026-11-01T00:00:00+00:00")
    rows = document["traffic"]
    assert rows[0]["calls"] is None, "nothing was recorded then"
    assert rows[-1]["calls"] > 0


def test_site_and_agent_narrow_what_is_looked_at(sipserver: Sipserver, sample: None) -> None:
    def calls(*options: str) -> int:
        rows = json.loads(sipserver("report", "traffic", "--by", "month", "--json", *options).stdout)["traffic"]
        return sum(row["calls"] or 0 for row in rows)

    every, site, agent = calls(), calls("--site", "london"), calls("--agent", "HALO")
    assert 0 < site < every
    assert 0 < agent < every
    assert calls("--site", "nowhere") == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tz", "Mars/Base"), "is no time zone"),
        (("--from", "yesterday"), "is no time"),
        (("--from", "2026-10-02", "--to", "2026-10-01"), "ends before it begins"),
        (("--part", "nothing"), "has no part 'nothing': use traffic, busy_hours, parties"),
        (("--from", "1990-01-01", "--by", "hour"), "use longer pieces"),
    ],
)
def test_wrong_use_is_told(sipserver: Sipserver, sample: None, options: tuple[str, ...], says: str) -> None:
    result = sipserver("report", "traffic", *options)
    assert result.exit_code == 2
    assert says in result.stderr


def test_errors_have_no_site(sipserver: Sipserver, sample: None) -> None:
    result = sipserver("report", "errors", "--site", "london")
    assert result.exit_code == 2
    assert "errors have no site" in result.stderr


def test_without_a_store_there_is_no_report(sipserver: Sipserver) -> None:
    result = sipserver("report", "summary")
    assert result.exit_code == 1
    assert "does not exist yet" in result.stderr


def test_sample_is_not_written_over_a_store(sipserver: Sipserver, sample: None, data_dir: Path) -> None:
    result = sipserver("sample", "--out", str(data_dir))
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert sipserver("sample", "--out", str(data_dir / "x"), "--until", "soon").exit_code == 2


def test_readme_begins_its_part_for_analysts_with_three_questions(
    sipserver: Sipserver, sample: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some of its commands write files.
    monkeypatch.chdir(tmp_path)
    part = README.read_text("utf-8").split("## For analysts\n")[1].split("\n## ")[0]
    questions = re.findall(r"^\*\*(.+\?)\*\*$", part, re.MULTILINE)
    assert len(questions) == 3
    commands = re.findall(r"^(sipserver report .+?)(?: +#.*)?$", part, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        result = sipserver(*command.split()[1:])
        assert result.exit_code == 0, command
    for name in REPORTS:
        assert f"`{name}`" in part or f"report {name}" in part
    assert "sipserver sample" in part
