from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.location.base import MAX_LINE
from sipserver.location.query import list_bindings, request_removal
from sipserver.location.sqlite import SqliteLocation
from sipserver.registrar.binding import Change
from sipserver.sip.errors import SipError
from sipserver.storage.database import StoreError, connect
from support.location import AOR, NOW, Bench, binding, put

LATER = NOW + 5


@pytest.fixture
def location(bench: Bench) -> SqliteLocation:
    location = bench.open()
    put(location, binding("sip:one@x"), binding("sip:two@x", registered_at=NOW + 1), binding(aor="bob@example.test"))
    bench.settle(location)
    return location


def poll(bench: Bench, location: SqliteLocation) -> None:
    location.poll_removals()
    bench.settle(location)


def requests(bench: Bench) -> int:
    connection = connect(bench.path, readonly=True)
    (count,) = connection.execute("SELECT COUNT(*) FROM removals").fetchone()
    connection.close()
    assert isinstance(count, int)
    return count


def test_bindings_are_listed_by_address_and_then_the_latest_first(bench: Bench, location: SqliteLocation) -> None:
    assert [each.contact for each in list_bindings(bench.path, NOW)] == [
        "sip:two@x", "sip:one@x", "sip:alice@192.0.2.7",
    ]  # fmt: skip
    assert [each.aor for each in list_bindings(bench.path, NOW, "bob@example.test")] == ["bob@example.test"]
    assert list_bindings(bench.path, NOW + 3600) == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    with pytest.raises(StoreError, match="does not exist yet"):
        list_bindings(path, NOW)
    with pytest.raises(StoreError, match="does not exist yet"):
        request_removal(path, NOW, AOR)
    assert not path.exists()


def test_a_removal_is_on_disk_at_once_and_in_the_server_with_the_next_poll(
    bench: Bench, location: SqliteLocation
) -> None:
    assert len(request_removal(bench.path, LATER, AOR)) == 2
    assert [each.aor for each in list_bindings(bench.path, NOW)] == ["bob@example.test"]
    assert len(location.get(AOR, NOW)) == 2
    poll(bench, location)
    assert location.get(AOR, NOW) == ()
    assert sorted(each.contact for each in bench.removed) == ["sip:one@x", "sip:two@x"]
    assert requests(bench) == 0
    assert location.count == 1


def test_one_contact_is_removed_by_an_equivalent_uri(bench: Bench, location: SqliteLocation) -> None:
    (found,) = request_removal(bench.path, LATER, AOR, "sip:%6fne@X")
    assert found.contact == "sip:one@x"
    poll(bench, location)
    assert [each.contact for each in location.get(AOR, NOW)] == ["sip:two@x"]


def test_nothing_found_is_nothing_asked(bench: Bench, location: SqliteLocation) -> None:
    assert request_removal(bench.path, LATER, AOR, "sip:nobody@x") == []
    assert request_removal(bench.path, LATER, "nobody@example.test") == []
    assert requests(bench) == 0


def test_a_contact_that_is_no_uri_is_refused(bench: Bench, location: SqliteLocation) -> None:
    with pytest.raises(SipError):
        request_removal(bench.path, LATER, AOR, "nonsense")


def test_what_was_registered_after_the_request_stays(bench: Bench, location: SqliteLocation) -> None:
    (old,) = [each for each in location.get(AOR, NOW) if each.contact == "sip:one@x"]
    request_removal(bench.path, LATER, AOR)
    location.replace(AOR, [Change(old, binding("sip:one@x", registered_at=LATER + 0.1))], lambda _: None)
    bench.settle(location)
    poll(bench, location)
    assert [each.contact for each in location.get(AOR, NOW)] == ["sip:one@x"]
    assert [each.contact for each in list_bindings(bench.path, NOW, AOR)] == ["sip:one@x"]


def test_a_request_older_than_the_registration_leaves_its_row(bench: Bench, location: SqliteLocation) -> None:
    assert [each.contact for each in request_removal(bench.path, NOW + 0.5, AOR)] == ["sip:one@x"]


def test_a_registration_on_its_way_is_waited_for(bench: Bench, location: SqliteLocation) -> None:
    request_removal(bench.path, LATER, AOR)
    location.acquire(AOR, lambda: None)
    old = location.get(AOR, NOW)[0]
    poll(bench, location)
    assert requests(bench) == 2
    location.replace(AOR, [Change(old, binding(old.contact, registered_at=NOW + 2))], lambda _: location.release(AOR))
    bench.settle(location)
    assert location.get(AOR, NOW) == ()
    assert list_bindings(bench.path, NOW, AOR) == []


def test_a_request_that_waits_is_not_taken_up_twice(bench: Bench, location: SqliteLocation) -> None:
    request_removal(bench.path, LATER, AOR, "sip:one@x")
    location.acquire(AOR, lambda: None)
    poll(bench, location)
    put(location, binding(aor="carol@example.test"))
    bench.settle(location)
    poll(bench, location)
    location.release(AOR)
    bench.settle(location)
    assert [each.contact for each in bench.removed] == ["sip:one@x"]
    assert location.acquire(AOR, lambda: None)


def test_a_request_that_nobody_carried_out_counts_at_the_next_start(bench: Bench, location: SqliteLocation) -> None:
    connection = connect(bench.path)
    connection.execute("INSERT INTO removals (aor, key, requested_at) VALUES (?, 'sip:one@x', ?)", (AOR, LATER))
    connection.close()
    bench.close()
    assert [each.contact for each in bench.open().get(AOR, NOW)] == ["sip:two@x"]
    assert requests(bench) == 0


def test_a_request_waits_for_a_store_that_fails(bench: Bench, location: SqliteLocation) -> None:
    request_removal(bench.path, LATER, AOR)
    blocker = connect(bench.path)
    blocker.execute("BEGIN EXCLUSIVE")
    poll(bench, location)
    assert len(location.get(AOR, NOW)) == 2
    blocker.execute("ROLLBACK")
    blocker.close()
    poll(bench, location)
    assert location.get(AOR, NOW) == ()


def test_a_request_waits_for_room_in_the_queue(bench: Bench) -> None:
    location = bench.open(max_rows=1)
    put(location, binding())
    bench.settle(location)
    request_removal(bench.path, LATER, AOR)
    poll(bench, location)
    assert (len(location.get(AOR, NOW)), requests(bench)) == (1, 1)


def test_a_request_waits_for_a_line_that_is_full(bench: Bench, location: SqliteLocation) -> None:
    request_removal(bench.path, LATER, AOR, "sip:one@x")
    for _ in range(MAX_LINE + 1):
        location.acquire(AOR, lambda: location.release(AOR))
    poll(bench, location)
    assert requests(bench) == 1
    location.release(AOR)
    poll(bench, location)
    assert requests(bench) == 0


def test_many_requests_are_carried_out_in_portions(bench: Bench) -> None:
    location = bench.open()
    put(location, *[binding(f"sip:u@h{number}") for number in range(150)])
    bench.settle(location)
    assert len(request_removal(bench.path, LATER, AOR)) == 150
    # An address has one line, so the first poll fills it.
    for _ in range(10):
        poll(bench, location)
    assert (location.get(AOR, NOW), requests(bench)) == ((), 0)


def test_a_poll_that_cannot_read_is_counted(bench: Bench, location: SqliteLocation) -> None:
    connection = connect(bench.path)
    connection.execute("DROP TABLE removals")
    connection.close()
    location.poll_removals()
    assert location.poll_failures == 1
