"""Releases of a store, and somebody who compares two of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.analysis.periods import Bucket, recorded, zone
from sipserver.analysis.sample import write_sample
from sipserver.analysis.sharing.blocks import Block, whole_blocks
from sipserver.analysis.sharing.cells import Key, Rules, count
from sipserver.analysis.sharing.facts import Reader, product
from sipserver.analysis.sharing.ledger import Ledger, open_ledger
from sipserver.analysis.sharing.privacy import Settings
from sipserver.analysis.sharing.release import Asked, Released, share_blocks, share_privately
from sipserver.calls.times import parse_stamp
from sipserver.storage.database import sqlite

DAY = 86_400_000
END = parse_stamp("2026-11-02T00:00:00.000Z")
BEGIN = END - 28 * DAY
"""Both are Mondays."""
RULES = Rules()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "calls.db"
    write_sample(path, calls=4_000, subscribers=150, begin=BEGIN, end=END, seed=5)
    return path


@pytest.fixture
def store(path: Path) -> Iterator[sqlite.Connection]:
    """A store; what a test changes is as before after it."""
    with closing(sqlite.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


@contextmanager
def book(folder: Path) -> Iterator[Ledger]:
    with open_ledger(folder / "shared.db") as ledger:
        yield ledger


def asked(store: sqlite.Connection, begin: int, end: int, by: Block = "week", **more: Any) -> Asked:
    """A period in days from the beginning of the record."""
    where = zone("UTC")
    blocks = whole_blocks(BEGIN + begin * DAY, BEGIN + end * DAY, by, where)
    return Asked(
        store, recorded(store), blocks, by, "UTC", where, more.get("place", "country"), more.get("rules", RULES)
    )


def release(folder: Path, store: sqlite.Connection, begin: int, end: int, **more: Any) -> Released:
    with book(folder) as ledger:
        return share_blocks(asked(store, begin, end, **more), ledger)


def naive(store: sqlite.Connection, begin: int, end: int) -> dict[Key, int]:
    """Calls by places, with small cells left out and nothing else done."""
    bucket = Bucket(BEGIN + begin * DAY, BEGIN + end * DAY, "")
    facts = Reader(store, bucket, zone("UTC"), "country").calls()
    return {key: cell.count for key, cell in count(facts, "from", "to", rules=RULES).items() if cell.is_safe(RULES)}


def small(store: sqlite.Connection, begin: int, end: int) -> dict[Key, int]:
    """The cells that may not be known."""
    bucket = Bucket(BEGIN + begin * DAY, BEGIN + end * DAY, "")
    facts = Reader(store, bucket, zone("UTC"), "country").calls()
    return {key: cell.count for key, cell in count(facts, "from", "to", rules=RULES).items() if not cell.is_safe(RULES)}


def test_one_day_more_shows_what_happened_on_it_in_naive_tables(store: sqlite.Connection) -> None:
    without, with_it, secret = naive(store, 0, 13), naive(store, 0, 14), small(store, 13, 14)
    revealed = {key: with_it[key] - without[key] for key in without if key in with_it and key in secret}
    assert revealed
    assert all(secret[key] == value for key, value in revealed.items())


def test_one_day_more_cannot_be_had(store: sqlite.Connection) -> None:
    with pytest.raises(ValueError, match="whole weeks"):
        asked(store, 0, 13)


def test_overlapping_periods_have_the_same_numbers_where_they_overlap(tmp_path: Path, store: sqlite.Connection) -> None:
    first, second, whole = (release(tmp_path, store, *days) for days in ((0, 14), (7, 21), (0, 28)))
    for name, rows in whole.rows.items():
        periods = {row[0] for row in rows}
        assert periods == {"2026-10-05", "2026-10-12", "2026-10-19", "2026-10-26"}, name
        for other in (first, second):
            shared = {row[0] for row in other.rows[name]}
            assert other.rows[name] == [row for row in rows if row[0] in shared]


def test_a_party_that_goes_shows_in_naive_tables_and_not_in_a_release(tmp_path: Path, store: sqlite.Connection) -> None:
    before, shared = naive(store, 0, 7), release(tmp_path, store, 0, 7)
    (party,) = store.execute("SELECT caller FROM calls GROUP BY caller ORDER BY count(*) DESC LIMIT 1").fetchone()
    theirs = store.execute("SELECT count(*) FROM calls WHERE caller = ?", (party,)).fetchone()[0]
    assert theirs
    store.execute("DELETE FROM calls WHERE ? IN (caller, callee)", (party,))
    after = naive(store, 0, 7)
    assert any(before[key] != after[key] for key in before if key in after)
    again = release(tmp_path, store, 0, 7)
    assert again.rows == shared.rows
    # What was not shared before is made of what there is now.
    assert release(tmp_path, store, 7, 14).rows["outcomes"]


def test_another_k_or_place_or_zone_would_show_what_is_hidden(tmp_path: Path, store: sqlite.Connection) -> None:
    release(tmp_path, store, 0, 7)
    for more in ({"rules": Rules(parties=5)}, {"rules": Rules(base=1)}, {"place": "region"}):
        with pytest.raises(ValueError, match="shared by other rules"):
            release(tmp_path, store, 7, 14, **more)


def test_the_same_total_is_the_same_number_in_every_table(tmp_path: Path, store: sqlite.Connection) -> None:
    rows = release(tmp_path, store, 0, 7).rows
    hours = {row[2]: row[3] for row in rows["calls_by_hour_of_week"] if row[1] == "(all)"}
    assert hours == {row[1]: row[3] for row in rows["calls_by_hour_and_place"] if row[2] == "(all)"}
    weekdays = {row[1]: row[3] for row in rows["calls_by_hour_of_week"] if row[2] == "(all)"}
    days = {row[1]: row[3] for row in rows["calls_by_day"] if row[2] != "(all)"}
    assert days.items() <= weekdays.items()
    outcomes = {row[1]: row[2] for row in rows["outcomes"]}
    durations = {row[1]: row[2] for row in rows["durations"]}
    assert outcomes["answered"] == durations["(all)"]
    assert outcomes["(all)"] == hours["(all)"] == days.get("(all)", hours["(all)"])
    assert all(row[-1] is None or row[-1] % 5 == 0 for table in rows.values() for row in table)


def test_days_of_a_month_stand_below_their_weekdays(tmp_path: Path, store: sqlite.Connection) -> None:
    found = release(tmp_path, store, -4, 27, by="month")
    assert [period["period"] for period in found.periods] == ["2026-10-01"]
    assert 80 < found.periods[0]["recorded_percent"] < 90
    rows = [row[1:] for row in found.rows["calls_by_day"]]
    assert not any(str(row[1]) < "2026-10-05" for row in found.rows["active_parties"] if row[1] != "(all)"), "no record"
    shown = {row[0] for row in rows if row[1] == "(all)"} - {"(other)"}
    assert len(shown) >= 5
    for weekday in shown:
        (total,) = (int(row[2] or 0) for row in rows if row[:2] == (weekday, "(all)"))
        days = [int(row[2] or 0) for row in rows if row[0] == weekday and row[1] != "(all)"]
        assert 3 <= len(days) <= 5
        assert abs(sum(days) - total) < 5 * (len(days) + 1), "each is rounded by itself"


def test_what_peers_call_themselves_passes_for_nothing_of_ours(tmp_path: Path, store: sqlite.Connection) -> None:
    store.execute("UPDATE calls SET caller_agent = '(other)' WHERE caller_agent LIKE 'Vesta%'")
    store.execute("UPDATE calls SET caller_agent = char(27) || 'evil' WHERE caller_agent LIKE 'Halo%'")
    rows = release(tmp_path, store, 0, 7).rows["devices"]
    names = [str(row[2]) for row in rows if row[1] == "calling"]
    assert "(unknown)" in names
    assert names.count("(other)") <= 1
    assert all(name.isprintable() for name in names)


def test_what_was_not_recorded_has_no_rows_and_is_not_remembered(tmp_path: Path, store: sqlite.Connection) -> None:
    found = release(tmp_path, store, -7, 7)
    assert {row[0] for rows in found.rows.values() for row in rows} == {"2026-10-05"}
    assert [period["recorded_percent"] for period in found.periods] == [0.0, 100.0]
    with book(tmp_path) as ledger:
        assert ledger.block("2026-09-28") is None


def test_budget_of_private_releases_is_kept(tmp_path: Path, store: sqlite.Connection) -> None:
    with book(tmp_path) as ledger:
        first = share_privately(asked(store, 0, 14), ledger, Settings(1.0), 2.5)
        again = share_privately(asked(store, 0, 14), ledger, Settings(1.0), None)
        assert first.rows == again.rows
        assert first.spent == again.spent
        other = share_privately(asked(store, 7, 21), ledger, Settings(1.0), 2.5)
        assert other.spent is not None
        assert (other.spent.epsilon, other.spent.releases) == (2.0, 2)
        with pytest.raises(ValueError, match=r"of the budget of 2\.5 there is 0\.5 left"):
            share_privately(asked(store, 21, 28), ledger, Settings(1.0), None)
        with pytest.raises(ValueError, match="shared by other rules"):
            share_blocks(asked(store, 21, 28), ledger)


def test_products_are_those_of_the_views(store: sqlite.Connection) -> None:
    rows = store.execute("SELECT DISTINCT product FROM v_error_rates WHERE product IS NOT NULL").fetchall()
    agents = store.execute("SELECT caller_agent FROM calls UNION SELECT callee_agent FROM calls").fetchall()
    seen = {product(agent) for (agent,) in agents if agent}
    assert seen <= {name for (name,) in rows}
    for agent, name in (
        ("Acme-Phone/5.1 (x)", "Acme-Phone"), ("baresip v1.0.0 (x)", "baresip"), ("Acme Desk 66.84", "Acme Desk"),
        ("Halo (web)", "Halo"), ("plain", "plain"), ("/1.0", "/1.0"),
    ):  # fmt: skip
        assert product(agent) == name
