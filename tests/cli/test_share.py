"""``sipserver report share``."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.analysis.sharing.tables import TABLES

Sipserver = Callable[..., Result]


@pytest.fixture
def sample(sipserver: Sipserver, data_dir: Path) -> None:
    options = "--calls 1500 --subscribers 120 --days 28 --until 2026-11-02 --seed 3 --out"
    assert sipserver("sample", *options.split(), str(data_dir)).exit_code == 0


def test_release_has_its_tables_a_manifest_and_says_how_to_read_it(
    sipserver: Sipserver, sample: None, tmp_path: Path, data_dir: Path
) -> None:
    out = tmp_path / "out"
    result = sipserver("report", "share", "--from", "2026-10-12", "--to", "2026-10-26", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"wrote {out}: ")
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["tables"]) == set(TABLES)
    assert {path.name for path in out.iterdir()} == {f"{name}.csv" for name in TABLES} | {"manifest.json", "README.txt"}
    for table in manifest["tables"].values():
        data = (out / table["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == table["sha256"]
        rows = list(csv.reader(data.decode().splitlines()))
        assert rows[0] == list(table["columns"])
        assert len(rows) == table["rows"] + 1
        assert all(len(text) > 10 for text in table["columns"].values())
    assert manifest["rules"]["k"] == 10
    assert [period["period"] for period in manifest["periods"]] == ["2026-10-12", "2026-10-19"]
    assert manifest["cells"]["hidden_as_unsafe"] > 0
    text = (out / "README.txt").read_text()
    assert "from 2026-10-12 to 2026-10-26" in text
    assert "fewer than 10 parties" in " ".join(text.split())
    key = json.dumps(manifest)
    assert "seed" not in key
    assert (data_dir / "shared.db").stat().st_mode & 0o777 == 0o600


def test_same_release_is_the_same_files_and_the_last_week_is_what_is_shared(
    sipserver: Sipserver, sample: None, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert sipserver("report", "share", "--out", str(tmp_path / name)).exit_code == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert [period["period"] for period in manifest["periods"]] == ["2026-10-26"]


def test_private_release_says_what_it_spent(sipserver: Sipserver, sample: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    period = ("--from", "2026-10-05", "--to", "2026-11-02", "--tz", "UTC", "--epsilon", "1", "--budget", "1.5")
    result = sipserver("report", "share", *period, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote {out}: epsilon 1; 1 of 1.5 spent in 1 releases\n"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["mode"] == "noise"
    assert manifest["privacy"]["epsilon"] == 1
    assert "one party" in manifest["privacy"]["unit"]
    assert manifest["privacy"]["spent_by_all_releases"] == {"epsilon": 1.0, "delta": 1e-6, "releases": 1}
    assert not (out / "calls_by_hour_and_place.csv").exists()
    assert "differential privacy" in (out / "README.txt").read_text()
    more = sipserver("report", "share", "--epsilon", "1", "--out", str(tmp_path / "more"))
    assert more.exit_code == 2
    assert "of the budget of 1.5 there is 0.5 left: nothing is shared" in more.stderr
    assert not (tmp_path / "more").exists()


def test_without_opendp_a_sentence_says_what_to_install(
    sipserver: Sipserver, sample: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opendp", None)
    monkeypatch.delitem(sys.modules, "opendp.prelude", raising=False)
    result = sipserver("report", "share", "--epsilon", "1", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "private releases need OpenDP: pip install 'sipserver[analysis]'" in result.stderr
    assert not (tmp_path / "out").exists()
    # Nothing was spent, nor was anything decided.
    assert sipserver("report", "share", "--out", str(tmp_path / "out")).exit_code == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--from", "2026-10-13"), "whole weeks: use --from 2026-10-12 --to 2026-11-02"),
        (("--to", "2026-11-09", "--from", "2026-11-02"), "the record ends within the week"),
        (("--budget", "2"), "without noise nothing is spent"),
        (("--tz", "Mars/Base"), "is no time zone"),
        (("--from", "2026-11-02", "--to", "2026-10-05"), "ends before it begins"),
    ],
)
def test_wrong_use_is_told(
    sipserver: Sipserver, sample: None, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    result = sipserver("report", "share", *options, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_rules_and_a_folder_with_something_in_it_are_refused(
    sipserver: Sipserver, sample: None, tmp_path: Path
) -> None:
    assert sipserver("report", "share", "--out", str(tmp_path / "out")).exit_code == 0
    other = sipserver("report", "share", "--k", "5", "--out", str(tmp_path / "other"))
    assert (other.exit_code, "shared by other rules" in other.stderr) == (2, True)
    again = sipserver("report", "share", "--out", str(tmp_path / "out"))
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
