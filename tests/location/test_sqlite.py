from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.location.query import list_bindings
from sipserver.location.sqlite import SqliteLocation
from sipserver.registrar.binding import Change
from sipserver.storage.database import StoreError, connect
from support.location import AOR, NOW, Bench, binding, fields, put


def on_disk(bench: Bench, now: float = NOW) -> list[str]:
    return [each.contact for each in list_bindings(bench.path, now)]


def test_a_change_shows_only_when_it_is_on_disk(bench: Bench) -> None:
    location = bench.open()
    told = put(location, binding())
    assert (told, location.get(AOR, NOW), location.count) == ([], (), 0)
    bench.settle(location)
    assert (told, location.count, on_disk(bench)) == ([True], 1, ["sip:alice@192.0.2.7"])


def test_everything_but_the_connection_survives_a_restart(bench: Bench) -> None:
    first = bench.open()
    made = binding(
        "sip:alice@192.0.2.8", aor="älice@example.test", q=250, instance="<urn:uuid:1>", reg_id=3, connection=9,
        path=("<sip:p1;lr>", '"x, y" <sip:p2;lr>'), user_agent="Phone ü", params=';x="\xc3\xbc"', cseq=2**31 - 1,
    )  # fmt: skip
    put(first, made, binding("sip:one@x", registered_at=NOW - 5), binding("sip:two@x", registered_at=NOW - 9))
    bench.settle(first)
    bench.close()
    second = bench.open(now=NOW + 10)
    (found,) = second.get(made.aor, NOW + 10)
    assert fields(found) == fields(made)
    assert found.connection == 0
    assert [each.contact for each in second.get(AOR, NOW + 10)] == ["sip:one@x", "sip:two@x"]
    assert second.count == 3


def test_what_was_not_closed_is_on_disk_too(bench: Bench) -> None:
    location = bench.open()
    put(location, binding())
    bench.settle(location)
    other = bench.open()
    assert other.count == 1


def test_expired_bindings_are_not_loaded_and_leave_the_file(bench: Bench) -> None:
    first = bench.open()
    put(first, binding("sip:brief@x", lasts=10), binding("sip:long@x", lasts=100))
    bench.settle(first)
    bench.close()
    second = bench.open(now=NOW + 10)
    assert [each.contact for each in second.get(AOR, NOW + 10)] == ["sip:long@x"]
    assert on_disk(bench, NOW - 1) == ["sip:long@x"]


def test_a_changed_contact_leaves_no_row_behind(bench: Bench) -> None:
    location = bench.open()
    one, two = binding("sip:one@x"), binding("sip:two@x")
    put(location, one, two)
    bench.settle(location)
    location.replace(AOR, [Change(one, binding("sip:two@x", cseq=2)), Change(two, None)], lambda _: None)
    bench.settle(location)
    assert [(each.contact, each.cseq) for each in list_bindings(bench.path, NOW)] == [("sip:two@x", 2)]
    assert location.count == 1


def test_a_device_keeps_its_row_when_it_moves(bench: Bench) -> None:
    location = bench.open()
    old = binding("sip:one@x", instance="<urn:x>", reg_id=1)
    put(location, old)
    bench.settle(location)
    new = binding("sip:two@x", instance="<urn:x>", reg_id=1)
    location.replace(AOR, [Change(old, new)], lambda _: None)
    bench.settle(location)
    assert on_disk(bench) == ["sip:two@x"]


def test_expiry_clears_the_file_later(bench: Bench) -> None:
    location = bench.open()
    put(location, binding("sip:brief@x", lasts=10), binding("sip:long@x", lasts=100))
    bench.settle(location)
    assert [each.contact for each in location.expire(NOW + 10)] == ["sip:brief@x"]
    bench.settle(location)
    assert on_disk(bench, NOW - 1) == ["sip:long@x"]


def test_expiry_spares_what_was_bound_since_under_the_same_key(bench: Bench) -> None:
    location = bench.open()
    put(location, binding(lasts=10))
    bench.settle(location)
    location.expire(NOW + 10)
    put(location, binding(lasts=100))
    bench.settle(location)
    location.expire(NOW + 11)
    bench.settle(location)
    assert on_disk(bench, NOW + 12) == ["sip:alice@192.0.2.7"]


def test_a_store_that_fails_changes_nothing_and_is_used_again(bench: Bench) -> None:
    location = bench.open()
    old = binding()
    put(location, old)
    bench.settle(location)
    blocker = connect(bench.path)
    blocker.execute("BEGIN EXCLUSIVE")
    told: list[bool] = []
    location.replace(AOR, [Change(old, binding("sip:new@x"))], told.append)
    bench.settle(location)
    assert (told, location.get(AOR, NOW)) == ([False], (old,))
    blocker.execute("ROLLBACK")
    blocker.close()
    location.replace(AOR, [Change(old, binding("sip:new@x"))], told.append)
    bench.settle(location)
    assert (told, on_disk(bench), bench.states) == ([False, True], ["sip:new@x"], [False, True])


def test_rows_of_expired_bindings_are_tried_again_after_a_failure(bench: Bench) -> None:
    location = bench.open()
    put(location, binding(lasts=10))
    bench.settle(location)
    blocker = connect(bench.path)
    blocker.execute("BEGIN EXCLUSIVE")
    location.expire(NOW + 10)
    bench.settle(location)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert on_disk(bench, NOW) == ["sip:alice@192.0.2.7"]
    assert location.expire(NOW + 11) == []
    bench.settle(location)
    assert on_disk(bench, NOW) == []


def test_more_rows_than_may_wait_are_refused_whole(bench: Bench) -> None:
    location = bench.open(max_rows=2)
    told = put(location, binding("sip:one@x"))
    location.replace(AOR, [Change(None, binding("sip:two@x")), Change(None, binding("sip:three@x"))], told.append)
    assert (told, location.writer.refused) == ([False], 2)
    bench.settle(location)
    assert (told, on_disk(bench)) == ([False, True], ["sip:one@x"])


def test_expired_rows_wait_where_the_queue_is_full(bench: Bench) -> None:
    location = bench.open(max_rows=1)
    put(location, binding("sip:one@x", lasts=10))
    bench.settle(location)
    put(location, binding("sip:two@x"))
    assert len(location.expire(NOW + 10)) == 1
    bench.settle(location)
    assert on_disk(bench, NOW) == ["sip:one@x", "sip:two@x"]
    location.expire(NOW + 11)
    bench.settle(location)
    assert on_disk(bench, NOW) == ["sip:two@x"]


def test_a_closed_location_refuses(bench: Bench) -> None:
    location = bench.open()
    put(location, binding("sip:one@x"))
    assert location.close() == 0
    assert put(location, binding("sip:two@x")) == [False]
    assert on_disk(bench) == ["sip:one@x"]


def test_a_waiter_that_goes_on_at_the_commit_needs_no_message_to_be_flushed(bench: Bench) -> None:
    location = bench.open()
    told: list[bool] = []
    location.acquire(AOR, lambda: None)

    def second() -> None:
        location.replace(AOR, [Change(None, binding("sip:two@x"))], told.append)

    def first_done(committed: bool) -> None:
        told.append(committed)
        location.release(AOR)

    location.replace(AOR, [Change(None, binding("sip:one@x"))], first_done)
    location.acquire(AOR, second)
    bench.settle(location)
    assert (told, location.count) == ([True, True], 2)


def test_the_file_is_for_its_owner_alone(bench: Bench) -> None:
    bench.open()
    assert bench.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        SqliteLocation(path, now=NOW, call_soon=lambda _: None)
