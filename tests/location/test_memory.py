from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.location.base import MAX_LINE, Location
from sipserver.location.memory import LARGEST_SET, MemoryLocation
from sipserver.registrar.binding import Binding, Change
from sipserver.sip.errors import SipError
from support.location import AOR, NOW, binding, put


@pytest.fixture
def location() -> MemoryLocation:
    return MemoryLocation()


def test_memory_is_a_location(location: MemoryLocation) -> None:
    kept: Location = location
    kept.flush()
    assert kept.close() == 0


def test_an_unknown_address_has_no_bindings(location: MemoryLocation) -> None:
    assert location.get(AOR, NOW) == ()


def test_the_latest_binding_comes_first(location: MemoryLocation) -> None:
    one, two = binding("sip:a@b"), binding("sip:c@d")
    assert put(location, one, two) == [True, True]
    assert location.get(AOR, NOW) == (two, one)
    assert location.count == 2


def test_a_change_replaces_and_removes(location: MemoryLocation) -> None:
    one, two, three = binding("sip:a@b"), binding("sip:c@d"), binding("sip:e@f")
    put(location, one, two)
    location.replace(AOR, [Change(one, three), Change(two, None)], lambda _: None)
    assert location.get(AOR, NOW) == (three,)
    location.replace(AOR, [Change(three, None)], lambda _: None)
    assert (location.get(AOR, NOW), location.count) == ((), 0)


def test_an_expired_binding_is_not_shown_though_it_was_not_swept(location: MemoryLocation) -> None:
    brief, long = binding("sip:a@b", lasts=10), binding("sip:c@d", lasts=20)
    put(location, brief, long)
    assert location.get(AOR, NOW + 9.9) == (long, brief)
    assert location.get(AOR, NOW + 10) == (long,)
    assert location.get(AOR, NOW + 20) == ()


def test_expiry_reports_each_binding_once(location: MemoryLocation) -> None:
    brief, long = binding("sip:a@b", lasts=10), binding("sip:c@d", lasts=20)
    put(location, brief, long)
    assert location.expire(NOW + 9) == []
    assert location.expire(NOW + 10) == [brief]
    assert location.expire(NOW + 10) == []
    assert location.expire(NOW + 1000) == [long]
    assert location.count == 0


def test_expiry_is_bounded_and_goes_on_next_time(location: MemoryLocation) -> None:
    everybody = [binding(f"sip:a@h{number}", aor=f"u{number}@x", lasts=10 + number % 3) for number in range(10)]
    put(location, *everybody)
    found = []
    for count in (4, 4, 2, 0):
        batch = location.expire(NOW + 60, limit=4)
        assert len(batch) == count
        found += batch
    assert set(found) == set(everybody)


def test_a_refreshed_binding_does_not_expire_with_the_old_one(location: MemoryLocation) -> None:
    old, new = binding(lasts=10), binding(lasts=100)
    put(location, old)
    location.replace(AOR, [Change(old, new)], lambda _: None)
    assert location.expire(NOW + 50) == []
    assert location.expire(NOW + 100) == [new]


def test_refreshes_leave_nothing_behind(location: MemoryLocation) -> None:
    last = binding(lasts=10)
    put(location, last)
    for number in range(100):
        new = binding(lasts=10 + number)
        location.replace(AOR, [Change(last, new)], lambda _: None)
        last = new
    assert sum(len(some) for sets in location._due.values() for some in sets) == location.count == 1


def test_a_held_address_expires_later_and_holds_up_nobody(location: MemoryLocation) -> None:
    mine, other = binding(lasts=10), binding(aor="bob@example.test", lasts=11)
    put(location, mine, other)
    location.acquire(AOR, lambda: None)
    assert location.expire(NOW + 30) == [other]
    location.release(AOR)
    assert location.expire(NOW + 31) == [mine]


def test_a_change_of_what_expired_meanwhile_still_adds(location: MemoryLocation) -> None:
    old, new = binding(lasts=10), binding(lasts=100)
    put(location, old)
    location.expire(NOW + 20)
    location.replace(AOR, [Change(old, new)], lambda _: None)
    assert (location.get(AOR, NOW + 20), location.count) == ((new,), 1)


def test_a_clock_set_back_loses_no_expiry(location: MemoryLocation) -> None:
    location.expire(NOW + 10_000)
    late = binding(lasts=60)
    put(location, late)
    assert location.expire(NOW) == []
    assert location.expire(NOW + 60) == [late]


def test_an_address_is_held_by_one_and_then_by_the_next(location: MemoryLocation) -> None:
    order: list[str] = []
    assert location.acquire(AOR, lambda: order.append("never"))
    assert not location.acquire(AOR, lambda: order.append("second"))
    assert not location.acquire(AOR, lambda: order.append("third"))
    assert location.acquire("bob@example.test", lambda: None)
    location.release(AOR)
    assert order == ["second"]
    location.release(AOR)
    location.release(AOR)
    assert order == ["second", "third"]
    assert location.acquire(AOR, lambda: None)


def test_a_long_line_is_refused(location: MemoryLocation) -> None:
    location.acquire(AOR, lambda: None)
    for _ in range(MAX_LINE):
        location.acquire(AOR, lambda: None)
    with pytest.raises(SipError) as refused:
        location.acquire(AOR, lambda: None)
    assert (refused.value.status, refused.value.headers) == (503, ("Retry-After: 1",))


def test_a_line_that_goes_on_from_within_is_no_deep_recursion(location: MemoryLocation) -> None:
    done: list[int] = []

    def resume() -> None:
        done.append(1)
        location.release(AOR)

    location.acquire(AOR, resume)
    for _ in range(MAX_LINE):
        location.acquire(AOR, resume)
    location.release(AOR)
    assert len(done) == MAX_LINE
    assert location.acquire(AOR, resume)


def test_releasing_what_nobody_holds_is_our_own_fault(location: MemoryLocation) -> None:
    with pytest.raises(AssertionError):
        location.release(AOR)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 10), st.integers(1, 3)), max_size=30))
def test_every_binding_expires_exactly_once_unless_replaced(steps: list[tuple[int, int, int, int]]) -> None:
    location, now = MemoryLocation(), NOW
    current: dict[int, Binding] = {}
    for user, lasts, later, limit in steps:
        now += later
        made = binding(aor=f"u{user}@x", lasts=now - NOW + lasts)
        location.replace(made.aor, [Change(current.get(user), made)], lambda _: None)
        current[user] = made
        for gone in location.expire(now, limit):
            assert gone.expires_at <= now
            user_gone = int(gone.aor[1])
            assert current.pop(user_gone) is gone
        for each, kept in current.items():
            assert location.get(f"u{each}@x", now) == ((kept,) if kept.expires_at > now else ())
    while gone_now := location.expire(now + 100, 2):
        for gone in gone_now:
            assert current.pop(int(gone.aor[1])) is gone
    assert not current
    assert location.count == 0


def test_very_many_that_expire_at_once_are_kept_in_pieces_and_all_go(location: MemoryLocation) -> None:
    many = [binding(f"sip:{number}@b", lasts=10, aor=f"{number}@x") for number in range(2 * LARGEST_SET + 5)]
    for each in many:
        location.replace(each.aor, [Change(None, each)], lambda _: None)
    refreshed = many[1::2]
    for each in refreshed:
        location.replace(each.aor, [Change(each, None)], lambda _: None)
    gone = location.expire(NOW + 10, limit=LARGEST_SET)
    assert location.is_behind
    gone += location.expire(NOW + 10, limit=LARGEST_SET)
    assert (len(gone), set(gone), location.count) == (LARGEST_SET + 3, set(many[::2]), 0)
    assert (list(location), location.addresses()) == ([], [])
