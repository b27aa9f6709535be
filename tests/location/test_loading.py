"""A location that is used while its file is read."""

from __future__ import annotations

import random

import pytest

from sipserver.location import loading
from sipserver.location.query import list_bindings, request_removal
from sipserver.location.rows import to_row
from sipserver.location.schema import MIGRATIONS, PRAGMAS, UPSERT
from sipserver.location.sqlite import FIRST_PORTIONS, SqliteLocation
from sipserver.registrar.binding import Binding, Change
from sipserver.storage.database import StoreError, connect
from sipserver.storage.migrations import open_store
from support.location import AOR, NOW, Bench, binding, put

FIRST = FIRST_PORTIONS * loading.PORTION
MANY = FIRST + 3 * loading.PORTION


def address(number: int) -> str:
    """Addresses in this order."""
    return f"u{number:06}@example.test"


def fill(bench: Bench, *bindings: Binding) -> None:
    """Put these into the file."""
    connection = open_store(bench.path, MIGRATIONS, pragmas=PRAGMAS)
    connection.execute("BEGIN")
    connection.executemany(UPSERT, map(to_row, bindings))
    connection.execute("COMMIT")
    connection.close()


def many(count: int = MANY, **values: object) -> list[Binding]:
    """A binding for each of so many addresses."""
    return [binding(aor=address(number), **values) for number in range(count)]  # type: ignore[arg-type]


def load(location: SqliteLocation) -> int:
    """Read the rest; in how many portions."""
    portions = 1
    while location.load():
        portions += 1
    return portions


def test_all_of_it_is_there_at_once_where_it_is_not_much(bench: Bench) -> None:
    fill(bench, *many(1_000))
    assert not bench.open().is_loading


def test_what_was_not_reached_is_there_all_the_same(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    assert (location.is_loading, location.count, len(location.addresses())) == (True, MANY, FIRST - FIRST_PORTIONS)
    last = address(MANY - 1)
    (found,) = location.get(last, NOW)
    assert location.get(address(MANY), NOW) == ()
    assert load(location) > 1
    assert (location.is_loading, location.count, len(location.addresses())) == (False, MANY, MANY)
    assert location.get(last, NOW) == (found,)


def test_a_portion_is_bounded_and_holds_whole_addresses(bench: Bench) -> None:
    rows = many()
    fill(bench, *rows, *[binding(f"sip:second@{each.host}", aor=each.aor, registered_at=NOW - 1) for each in rows])
    location = bench.open()
    seen = set(location.addresses())
    while location.is_loading:
        location.load()
        new = set(location.addresses()) - seen
        assert len(new) <= loading.PORTION // 2
        for aor in new:
            assert [each.contact for each in location.get(aor, NOW)] == ["sip:alice@192.0.2.7", "sip:second@192.0.2.7"]
        seen |= new
    assert len(seen) == MANY


def test_an_address_with_more_bindings_than_a_portion(bench: Bench) -> None:
    fill(bench, *[binding(f"sip:{number}@x", registered_at=NOW - number) for number in range(3 * loading.PORTION)])
    location = bench.open()
    assert [each.contact for each in location] == [f"sip:{number}@x" for number in range(3 * loading.PORTION)]


def test_what_changed_before_it_was_reached_stays_changed(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    moved, gone, new = address(MANY - 1), address(MANY - 2), f"{address(MANY - 1)}.new"
    (old,) = location.get(moved, NOW)
    location.replace(moved, [Change(old, binding("sip:other@x", aor=moved, cseq=2))], lambda _: None)
    location.replace(gone, [Change(location.get(gone, NOW)[0], None)], lambda _: None)
    location.get(new, NOW)
    put(location, binding(aor=new))
    # One is committed when it is reached, the others are on their way.
    load(location)
    bench.settle(location)
    assert [each.contact for each in location.get(moved, NOW)] == ["sip:other@x"]
    assert (location.get(gone, NOW), len(location.get(new, NOW))) == ((), 1)
    assert location.count == MANY
    assert len(list_bindings(bench.path, NOW)) == MANY


def test_memory_is_the_file_whatever_happens_while_it_is_read(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    chance = random.Random(5)
    while location.is_loading:
        for _ in range(40):
            aor = address(chance.randrange(MANY + 100))
            before = location.get(aor, NOW)
            after = binding(f"sip:{chance.random()}@x", aor=aor) if chance.random() < 0.7 else None
            if before or after:
                location.replace(aor, [Change(before[0] if before else None, after)], lambda _: None)
                bench.settle(location)
        location.load()
    assert {(each.aor, each.contact) for each in location} == {
        (each.aor, each.contact) for each in list_bindings(bench.path, NOW)
    }
    assert location.count == len(list(location))


def test_what_expires_before_it_is_reached_is_reported_then(bench: Bench) -> None:
    fill(bench, *many(MANY - 1), binding(aor=address(MANY - 1), lasts=5))
    location = bench.open()
    assert location.expire(NOW + 6) == []
    load(location)
    (gone,) = location.expire(NOW + 7)
    assert gone.aor == address(MANY - 1)
    assert location.count == MANY - 1


def test_what_had_expired_before_the_start_is_no_news_and_leaves_the_file(bench: Bench) -> None:
    fill(bench, *many(lasts=10))
    fill(bench, binding(aor=address(MANY)), *[binding(aor=f"v{number}", lasts=10) for number in range(MANY)])
    location = bench.open(now=NOW + 10)
    assert location.count == 1
    load(location)
    told = location.expire(NOW + 11)
    while location.is_behind:
        bench.settle(location)
        told += location.expire(NOW + 11)
    bench.settle(location)
    assert (told, len(list_bindings(bench.path, NOW))) == ([], 1)


def test_connections_of_the_last_process_are_no_use_wherever_they_are_met(bench: Bench) -> None:
    fill(bench, *many(transport="TCP", flow_only=True))
    location = bench.open()
    assert location.get(address(MANY - 1), NOW) == ()
    load(location)
    told: list[Binding] = []
    while location.forget_orphans(told.extend):
        bench.settle(location)
    bench.settle(location)
    assert (len(told), location.count, list_bindings(bench.path, NOW)) == (MANY, 0, [])


def test_a_removal_of_what_was_not_reached(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    last = address(MANY - 1)
    request_removal(bench.path, NOW + 1, last)
    location.poll_removals()
    bench.settle(location)
    load(location)
    assert location.get(last, NOW) == ()


def test_everything_that_comes_into_memory_is_told(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    told: list[Binding] = []
    location.on_loaded = told.append
    location.get(address(MANY - 1), NOW)
    load(location)
    assert len({each.aor for each in told}) == len(told) == MANY - (FIRST - FIRST_PORTIONS)


def test_a_file_that_cannot_be_read_is_tried_again(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    other = connect(bench.path)
    other.execute("ALTER TABLE bindings RENAME TO hidden")
    assert not location.load()
    with pytest.raises(StoreError):
        location.get(address(MANY - 1), NOW)
    other.execute("ALTER TABLE hidden RENAME TO bindings")
    other.close()
    assert location.load_failures == 1
    load(location)
    assert len(location.addresses()) == MANY


def test_what_was_not_read_when_reading_stops_stays_in_the_file(bench: Bench) -> None:
    fill(bench, *many())
    location = bench.open()
    location.stop_reading()
    assert not location.load()
    with pytest.raises(StoreError):
        location.get(address(MANY - 1), NOW)
    put(location, binding())
    assert location.close() == 0
    assert len(bench.open().get(AOR, NOW)) == len(bench.open().get(address(MANY - 1), NOW)) == 1


def test_an_address_that_no_file_can_hold_has_no_bindings(bench: Bench) -> None:
    fill(bench, *many())
    assert bench.open().get("\udcff@example.test", NOW) == ()
