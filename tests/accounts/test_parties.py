from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sipserver.accounts.parties import INSERT, STATEMENTS, Parties, address_of, new_party, party_of
from sipserver.accounts.schema import FILE
from sipserver.accounts.subscribers import Subscribers
from sipserver.storage.database import StoreError, sqlite
from sipserver.storage.writer import Writer

CAROL = "carol@elsewhere.example"


class Bench:
    def __init__(self, path: Path, max_rows: int = 1000) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.writer = Writer(
            path, STATEMENTS, call_soon=self.calls.put, keep_failed=True, interval=0.0, max_rows=max_rows
        )
        self.parties = Parties(path, self.writer)

    def run_one(self) -> None:
        self.calls.get(timeout=10)()

    def close(self) -> None:
        self.parties.close()
        self.writer.close()


@pytest.fixture
def bench(tmp_path: Path, connection: sqlite.Connection) -> Iterator[Bench]:
    bench = Bench(tmp_path / FILE)
    yield bench
    bench.close()


def test_party_is_random_and_of_one_shape() -> None:
    made = {new_party() for _ in range(100)}
    assert len(made) == 100
    assert all(len(party) == 18 and party.startswith("p_") and party[2:].isalnum() for party in made)


def test_address_without_party_has_none(bench: Bench) -> None:
    assert bench.parties.party(CAROL) is None
    assert bench.parties.party(CAROL) is None


def test_party_is_made_once_and_goes_to_disk(bench: Bench, connection: sqlite.Connection) -> None:
    party = bench.parties.ensure(CAROL)
    assert bench.parties.ensure(CAROL) == party
    assert bench.parties.party(CAROL) == party
    bench.run_one()
    assert party_of(connection, CAROL) == party
    assert address_of(connection, party) == CAROL
    assert bench.parties.ensure(CAROL) == party


def test_unknown_party_has_no_address(connection: sqlite.Connection) -> None:
    assert address_of(connection, "p_unknown") is None
    assert party_of(connection, CAROL) is None


def test_subscriber_keeps_the_party_made_at_add(bench: Bench, subscribers: Subscribers) -> None:
    alice = subscribers.add("alice@example.com", "secret")
    assert bench.parties.ensure("alice@example.com") == alice.party


def test_removed_subscriber_gets_another_party(bench: Bench, subscribers: Subscribers) -> None:
    before = subscribers.add("alice@example.com", "secret").party
    bench.parties.refresh()
    assert bench.parties.party("alice@example.com") == before
    subscribers.remove("alice@example.com")
    assert bench.parties.refresh()
    assert bench.parties.party("alice@example.com") is None
    assert bench.parties.ensure("alice@example.com") != before


def test_parties_that_were_there_at_the_start_are_not_looked_up(tmp_path: Path, subscribers: Subscribers) -> None:
    alice = subscribers.add("alice@example.com", "secret")
    bench = Bench(tmp_path / FILE)
    bench.close()
    assert bench.parties.party("alice@example.com") == alice.party
    with pytest.raises(StoreError):
        bench.parties.party(CAROL)


def test_refresh_without_a_change_forgets_nothing(bench: Bench) -> None:
    assert not bench.parties.refresh()


def test_party_not_yet_on_disk_outlives_a_refresh(
    bench: Bench, subscribers: Subscribers, connection: sqlite.Connection
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    party = bench.parties.ensure(CAROL)
    connection.execute(INSERT, ("dave@example.com", "p_dave", "now"))
    connection.execute("COMMIT")
    bench.parties.refresh()
    assert bench.parties.party(CAROL) == party
    bench.run_one()
    bench.parties.refresh()
    assert bench.parties.party(CAROL) == party


def test_id_that_another_process_gave_first_counts(bench: Bench, connection: sqlite.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(INSERT, (CAROL, "p_first", "now"))
    assert bench.parties.ensure(CAROL) != "p_first"
    connection.execute("COMMIT")
    bench.run_one()
    assert bench.parties.party(CAROL) == "p_first"


def test_full_queue_is_tried_again_at_refresh(tmp_path: Path, connection: sqlite.Connection) -> None:
    bench = Bench(tmp_path / FILE, max_rows=2)
    connection.execute("BEGIN IMMEDIATE")
    kept = [bench.parties.ensure(f"{number}@example.com") for number in range(3)]
    bench.parties.refresh()
    assert bench.writer.refused >= 1
    connection.execute("COMMIT")
    while connection.execute("SELECT count(*) FROM parties").fetchone()[0] < 3:
        bench.run_one()
        bench.parties.refresh()
    assert [bench.parties.ensure(f"{number}@example.com") for number in range(3)] == kept
    bench.close()


def test_address_that_is_no_text_has_no_party(bench: Bench) -> None:
    assert bench.parties.party("\ud800@example.com") is None


def test_store_that_fails_raises_but_refresh_does_not(bench: Bench, connection: sqlite.Connection) -> None:
    connection.execute("DROP TABLE parties")
    with pytest.raises(StoreError, match="no such table"):
        bench.parties.party(CAROL)
    bench.parties.close()
    assert not bench.parties.refresh()
