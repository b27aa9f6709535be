"""Sources of places that come, change and go while the server runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sipserver.server.config import load
from sipserver.server.whereabouts import Whereabouts
from support.places import city, write_database


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.flushed = 0

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(f"{event} {values['database']}")

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append(f"{event} {values['reason']}")

    def flush(self) -> None:
        self.flushed += 1


class Bench:
    """A locator in a folder with databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Lines()
        for country in ("AT", "DE"):
            write_database(folder / f"{country}.mmdb", {"192.0.2.0/24": city(country)})

    def config(self, text: str) -> Any:
        path = self.folder / "x.toml"
        path.write_text(f"[location]\n{text}\n")
        return load(path)

    def make(self, text: str) -> Whereabouts:
        log: Any = self.log
        recorder: Any = None
        return Whereabouts(self.config(text), lambda: 1_795_000_000.0, log, recorder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def country(where: Whereabouts) -> str | None:
    return where.locator.of_device("a", "c", "192.0.2.7", is_relayed=False).country


async def changed(where: Whereabouts) -> None:
    assert where._change is not None
    await where._change


def threads() -> set[str]:
    return {each.name for each in threading.enumerate()} & {"links", "netlink"}


async def test_database_is_there_from_the_start(bench: Bench) -> None:
    where = bench.make('database = "AT.mmdb"')
    assert country(where) is None
    await where.start()
    assert country(where) == "AT"
    where.tick()
    await where.close()
    assert bench.log.lines[0].startswith(f"location.database_loaded {bench.folder / 'AT.mmdb'}: Test-City of ")
    assert bench.log.flushed == len(bench.log.lines) == 1


async def test_reload_takes_another_database(bench: Bench) -> None:
    where = bench.make('database = "AT.mmdb"')
    await where.start()
    where.reload(bench.config('database = "DE.mmdb"'))
    where.reload(bench.config('database = "none.mmdb"'))
    where.reload(bench.config('database = "DE.mmdb"'))
    await changed(where)
    assert country(where) == "DE"
    where.reload(bench.config('database = "none.mmdb"'))
    await changed(where)
    assert country(where) is None
    assert bench.log.lines[-1].startswith("location.database_failing")
    await where.close()


async def test_reload_of_something_else_keeps_the_database(bench: Bench) -> None:
    where = bench.make('database = "AT.mmdb"')
    await where.start()
    where.reload(bench.config('precision = "country"\ndatabase = "AT.mmdb"'))
    assert where._change is None
    assert country(where) == "AT"
    await where.close()


async def test_no_precision_lets_go_of_everything(bench: Bench) -> None:
    sites = 'sites = [{ interface = "lo", site = "Loop" }]'
    where = bench.make(f'database = "AT.mmdb"\n{sites}')
    await where.start()
    assert "links" in threads()
    where.reload(bench.config(f'precision = "none"\ndatabase = "AT.mmdb"\n{sites}'))
    assert country(where) is None
    await changed(where)
    assert threads() == set()
    where.tick()
    await where.close()
