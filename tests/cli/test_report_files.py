"""``sipserver report`` with ``--png --svg --html --parquet``: files, said on standard error, or a sentence why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Sipserver = Callable[..., Result]
PERIOD = ("--from", "2026-10-24", "--to", "2026-10-27", "--tz", "Europe/Berlin")


@pytest.fixture
def sample(sipserver: Sipserver, data_dir: Path) -> None:
    options = "--calls 400 --subscribers 60 --days 9 --until 2026-11-01 --seed 3 --out"
    assert sipserver("sample", *options.split(), str(data_dir)).exit_code == 0


def test_all_files_at_once(sipserver: Sipserver, sample: None, tmp_path: Path, data_dir: Path) -> None:
    for package in ("altair", "vl_convert", "pyarrow"):
        pytest.importorskip(package)
    names = ("page.html", "charts.png", "charts.svg", "rows.parquet")
    options = [text for name in names for text in (f"--{name.split('.')[1]}", str(tmp_path / name))]
    result = sipserver("report", "locations", *PERIOD, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert sorted(result.stderr.splitlines()) == sorted(f"wrote {tmp_path / name}" for name in names)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "24 October 2026 to 26 October 2026" in page
    assert str(data_dir / "calls.db") in page
    assert (tmp_path / "charts.png").read_bytes().startswith(b"\x89PNG")
    drawing = (tmp_path / "charts.svg").read_text("utf-8")
    assert "2026-10-24 00:00 to 2026-10-27 00:00, Europe/Berlin, by day" in drawing
    assert "From where to where people call" in drawing
    assert (tmp_path / "rows.parquet").read_bytes().startswith(b"PAR1")


def test_each_part_is_a_parquet_file_of_its_own(sipserver: Sipserver, sample: None, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    result = sipserver("report", "devices", *PERIOD, "--json", "--parquet", str(tmp_path / "all.parquet"))
    assert set(json.loads(result.stdout)) >= {"agents", "transports"}
    assert {path.name for path in tmp_path.glob("*.parquet")} == {"all-agents.parquet", "all-transports.parquet"}
    sipserver("report", "devices", *PERIOD, "--part", "agents", "--parquet", str(tmp_path / "one.parquet"))
    assert (tmp_path / "one.parquet").exists()


def test_a_part_without_charts_has_no_picture(sipserver: Sipserver, sample: None, tmp_path: Path) -> None:
    result = sipserver("report", "quality", *PERIOD, "--part", "retries", "--png", str(tmp_path / "x.png"))
    assert result.exit_code == 1
    assert result.stderr == "sipserver: part retries has no chart\n"


def test_a_file_that_cannot_be_written_is_told(sipserver: Sipserver, sample: None, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    result = sipserver("report", "locations", *PERIOD, "--parquet", str(tmp_path / "no" / "x.parquet"))
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'no' / 'x.parquet'}: No such file or directory" in result.stderr


def test_nobody_else_pays_for_what_draws() -> None:
    heavy = "altair vl_convert plotext pyarrow jinja2"
    code = f"import sys, sipserver.cli.main; sys.exit(' '.join({{*'{heavy}'.split()}} & {{*sys.modules}}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("option", "package", "says"),
    [
        (("--png", "x.png"), "altair", "pictures need altair and vl-convert"),
        (("--html", "x.html"), "altair", "pictures need altair and vl-convert"),
        (("--parquet", "x.parquet"), "pyarrow", "Parquet needs pyarrow"),
    ],
)
def test_what_is_missing_is_told(
    sipserver: Sipserver, sample: None, option: tuple[str, str], package: str, says: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name in (
        "sipserver.analysis.pictures", "sipserver.analysis.page", "sipserver.analysis.parquet")]:  # fmt: skip
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = sipserver("report", "locations", *PERIOD, *option)
    assert result.exit_code == 1
    assert result.stderr == f"sipserver: {says}: pip install 'sipserver[analysis]'\n"
    assert not list(tmp_path.glob("x.*"))
