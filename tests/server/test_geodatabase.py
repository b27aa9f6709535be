"""The operator's database: what is read of it, how it is replaced, and what is told when it cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import maxminddb
import pytest

from sipserver.calls.places import NOWHERE, Place
from sipserver.server import geodatabase
from sipserver.server.geodatabase import DatabaseError, GeoDatabase, described, open_copy, place_of
from support.places import city, write_database

VIENNA = ip_address("192.0.2.7")


class Bench:
    """A database, what it told, and how often answers changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[tuple[str, str]] = []
        self.changes = 0
        self.database = GeoDatabase(path, self._changed, self._tell)

    def _changed(self) -> None:
        self.changes += 1

    def _tell(self, event: str, sentence: str) -> None:
        self.told.append((event.removeprefix("location.database_"), sentence))

    async def seconds(self, count: int = 1) -> None:
        """Polls that are waited for."""
        for _ in range(count):
            self.database.poll()
            assert self.database._busy is not None
            await self.database._busy

    def country(self, host: str = "192.0.2.7") -> str | None:
        return self.database.look_up(ip_address(host)).country


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "geo.mmdb")


async def test_networks_of_both_versions_are_found(bench: Bench) -> None:
    write_database(
        bench.path, {"192.0.2.0/24": city("AT", "Wien", "Wien Mitte"), "2001:db8::/32": city("DE"), "8.8.8.0/24": {}}
    )
    await bench.database.start()
    assert bench.database.look_up(VIENNA) == Place("AT", "Wien", "Wien Mitte", None, "database")
    assert bench.country("2001:db8::1") == "DE"
    assert bench.database.look_up(ip_address("198.51.100.1")) is NOWHERE
    assert bench.database.look_up(ip_address("8.8.8.8")) is NOWHERE
    ((event, sentence),) = bench.told
    assert event == "loaded"
    assert sentence.startswith(f"{bench.path}: Test-City of 20")


async def test_database_of_ipv4_knows_nothing_of_ipv6(bench: Bench) -> None:
    write_database(bench.path, {"192.0.2.0/24": city("AT")}, ip_version=4)
    await bench.database.start()
    assert bench.country() == "AT"
    assert bench.country("2001:db8::1") is None
    assert [event for event, _ in bench.told] == ["loaded"]


async def test_file_that_changes_is_read_once_it_stands_still(bench: Bench) -> None:
    write_database(bench.path, {"192.0.2.0/24": city("AT")})
    await bench.database.start()
    await bench.seconds(2)
    assert bench.changes == 1
    write_database(bench.path, {"192.0.2.0/24": city("DE")})
    await bench.seconds(1)
    assert bench.country() == "AT"
    await bench.seconds(1)
    assert bench.country() == "DE"
    await bench.seconds(3)
    assert bench.changes == 2


async def test_file_that_keeps_changing_is_left_alone(bench: Bench) -> None:
    write_database(bench.path, {"192.0.2.0/24": city("AT")})
    await bench.database.start()
    for length in range(1, 6):
        bench.path.write_bytes(b"x" * length)
        await bench.seconds(1)
    assert [event for event, _ in bench.told] == ["loaded"]
    assert bench.country() == "AT"


async def test_look_ups_go_on_when_the_file_is_cut_short(bench: Bench) -> None:
    write_database(bench.path, {f"10.{i}.0.0/16": city("AT", f"R{i}", f"C{i}") for i in range(250)})
    await bench.database.start()
    os.truncate(bench.path, 0)
    assert bench.database.look_up(ip_address("10.249.0.1")).region == "R249"


async def test_broken_file_is_told_once_and_the_old_one_used(bench: Bench) -> None:
    write_database(bench.path, {"192.0.2.0/24": city("AT")})
    await bench.database.start()
    bench.path.write_bytes(b"nothing of the kind")
    await bench.seconds(5)
    sentence = f"{bench.path} is no database in MaxMind's format, or a damaged one"
    assert bench.told[1:] == [("failing", f"{sentence}; the one that was read before is still used")]
    assert bench.country() == "AT"
    bench.path.unlink()
    await bench.seconds(5)
    assert bench.told[-1][1].startswith(f"{bench.path} cannot be read: No such file or directory; ")
    assert len(bench.told) == 3
    write_database(bench.path, {"192.0.2.0/24": city("IT")})
    await bench.seconds(2)
    assert bench.country() == "IT"
    await bench.database.close()
    assert bench.country() is None


async def test_missing_file_is_told_and_taken_when_it_comes(bench: Bench) -> None:
    await bench.database.start()
    await bench.seconds(3)
    assert bench.told == [("failing", f"{bench.path} cannot be read: No such file or directory")]
    assert bench.country() is None
    write_database(bench.path, {"192.0.2.0/24": city("AT")})
    await bench.seconds(2)
    assert bench.country() == "AT"


async def test_second_that_is_too_short_is_skipped(bench: Bench) -> None:
    bench.database.poll()
    busy = bench.database._busy
    bench.database.poll()
    assert bench.database._busy is busy
    await bench.database.close()


def damaged(whole: bytes) -> bytes:
    """A file whose records point nowhere."""
    marker = whole.rindex(b"\xab\xcd\xefMaxMind.com")
    return b"\xff" * marker + whole[marker:]


async def test_damage_that_shows_at_a_look_up_is_told_once(bench: Bench) -> None:
    write_database(bench.path, {"192.0.2.0/24": city("AT")})
    bench.path.write_bytes(damaged(bench.path.read_bytes()))
    await bench.database.start()
    assert bench.database.look_up(VIENNA) is NOWHERE
    assert bench.database.look_up(VIENNA) is NOWHERE
    failing = [sentence for event, sentence in bench.told if event == "failing"]
    assert len(failing) == 1
    assert " is damaged" in failing[0]


def test_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be read: Is a directory"):
        open_copy(tmp_path)


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.mmdb"
    with path.open("wb") as file:
        file.truncate(geodatabase.MAX_BYTES + 1)
    with pytest.raises(DatabaseError, match="is larger than 1024 MiB"):
        open_copy(path)


def test_empty_and_random_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mmdb"
    write_database(path, {"192.0.2.0/24": city("AT")})
    whole = path.read_bytes()
    marker = whole.rindex(b"MaxMind.com")
    for content in (b"", b"x" * 5000, whole[:-20], whole[: marker + 11], whole[: marker + 15] + b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(DatabaseError, match="no database in MaxMind's format"):
            open_copy(path)


class Meta:
    database_type = "a\x1bb"
    build_epoch = 10**18


class Strange:
    def metadata(self) -> Meta:
        return Meta()


def test_what_a_database_says_of_itself_cannot_do_harm() -> None:
    reader: Any = Strange()
    assert described(Path("x"), reader) == "x: a\ufffdb of unknown date"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"country": {"iso_code": "AT"}, "subdivisions": []}, Place("AT", source="database")),
        ({"registered_country": {"iso_code": "AT"}}, NOWHERE),
        ({"subdivisions": [{"iso_code": "9"}]}, Place(None, "9", source="database")),
        ({"country": "US", "region": "Texas", "city": "Austin"}, Place("US", "Texas", "Austin", None, "database")),
        ({"country_code": "us"}, Place("US", source="database")),
        ({"city": {"names": {"en": "Łódź\x07"}}}, Place(city="Łódź\ufffd", source="database")),
        ({"city": {"names": {"en": "x" * 999}}}, Place(city="x" * 200, source="database")),
        ({"country": {"iso_code": 7}, "city": {"names": "x"}, "subdivisions": [7]}, NOWHERE),
        ({"country": None, "region": 7.5, "city": [1]}, NOWHERE),
        (None, NOWHERE),
        ("AT", NOWHERE),
    ],
)
def test_records_of_many_kinds_are_read(record: Any, expected: Place) -> None:
    assert place_of(record) == expected


@pytest.mark.parametrize("missing", ["memfd", "proc"])
def test_without_memory_files_the_library_reads_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    path = tmp_path / "geo.mmdb"
    write_database(path, {"192.0.2.0/24": city("AT")})
    if missing == "memfd":
        monkeypatch.delattr(os, "memfd_create")
    else:
        exists: Callable[[str], bool] = lambda name: False  # noqa: E731
        monkeypatch.setattr(os.path, "exists", exists)
    reader = open_copy(path)
    assert isinstance(reader, maxminddb.Reader)
    os.truncate(path, 0)
    assert place_of(reader.get("192.0.2.1")).country == "AT"
