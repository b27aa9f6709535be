"""Made-up stores are what a server would have written, and look like a service."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import recorded, zone
from sipserver.analysis.report import Asked, make
from sipserver.analysis.sample import write_sample
from sipserver.analysis.sample_rows import TABLES
from sipserver.analysis.source import Views
from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.verify import verify
from sipserver.storage.database import StoreError, connect
from sipserver.storage.migrations import open_store
from support.record import BEGIN, DAY

DAYS = 40


def write(path: Path, calls: int = 3_000, seed: int = 1, helpers: int | None = None) -> None:
    write_sample(
        path, calls=calls, subscribers=120, begin=BEGIN - DAYS * DAY, end=BEGIN, seed=seed, helpers=helpers
    )  # fmt: skip


def test_sample_is_a_store_with_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calls.db"
    write(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert {each.name for each in path.parent.iterdir()} == {"calls.db"}
    with closing(open_store(path, MIGRATIONS, readonly=True)) as connection:
        assert [sentence for found in verify(connection) for sentence in found] == []
        (count,) = connection.execute("SELECT count(*) FROM calls").fetchone()
        assert 2_700 < count < 3_300
        for table in TABLES:
            assert connection.execute(f"SELECT 1 FROM {table}").fetchone(), table
        outcomes = {row[0] for row in connection.execute("SELECT DISTINCT outcome FROM calls")}
        assert {"answered", "busy", "cancelled", "declined", "no_answer", "offline", "failed"} <= outcomes
        assert connection.execute("SELECT 1 FROM v_runs WHERE state = 'killed'").fetchone()
        assert connection.execute("SELECT 1 FROM calls WHERE end_uncertainty_ms IS NOT NULL").fetchone()


def test_sample_has_the_indices_of_every_store(tmp_path: Path) -> None:
    write(tmp_path / "one" / "calls.db", 50)
    open_store(tmp_path / "calls.db", MIGRATIONS).close()
    schemas = []
    for path in (tmp_path / "one" / "calls.db", tmp_path / "calls.db"):
        with closing(connect(path, readonly=True)) as connection:
            sql = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
            schemas.append(connection.execute(sql).fetchall())
    assert schemas[0] == schemas[1]


def test_same_seed_draws_the_same_and_another_something_else(tmp_path: Path) -> None:
    found = []
    # Whoever draws it: this process, or others for it.
    for name, seed, helpers in (("a", 1, None), ("b", 1, 2), ("c", 2, None)):
        write(tmp_path / name / "calls.db", 300, seed, helpers)
        with closing(connect(tmp_path / name / "calls.db", readonly=True)) as connection:
            found.append([connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_store_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        write(path)
    assert path.read_text() == "mine"


def test_people_call_by_day(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    write(path)
    with closing(open_store(path, MIGRATIONS, readonly=True)) as connection:
        asked = Asked(
            Kpis(Views(connection)), recorded(connection), BEGIN - DAYS * DAY, BEGIN, "hour", zone("Europe/Berlin")
        )
        rows = make("traffic", asked, "traffic")["traffic"]
        at_night = sum(row["calls"] or 0 for row in rows if row["hour"][11:13] in ("03", "04"))
        by_day = sum(row["calls"] or 0 for row in rows if row["hour"][11:13] in ("15", "16"))
        assert by_day > 3 * at_night
        assert any(row["recorded_percent"] == 0 and row["calls"] is None for row in rows), "the server was away"
