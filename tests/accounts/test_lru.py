from __future__ import annotations

from sipserver.accounts.lru import Lru


def test_entry_used_longest_ago_goes_first() -> None:
    lru: Lru[str, int] = Lru(2)
    lru.put("a", 1)
    lru.put("b", 2)
    assert lru.get("a", 0) == 1
    lru.put("c", 3)
    assert [lru.get(key, 0) for key in "abc"] == [1, 0, 3]
    assert len(lru) == 2


def test_none_is_a_value() -> None:
    lru: Lru[str, str | None] = Lru(2)
    lru.put("a", None)
    assert lru.get("a", "missing") is None
    assert lru.get("b", "missing") == "missing"


def test_forgotten_entries_are_missing() -> None:
    lru: Lru[str, int] = Lru(9)
    for key in "abc":
        lru.put(key, 1)
    lru.pop("a")
    lru.pop("never there")
    assert (lru.get("a", 0), lru.get("b", 0)) == (0, 1)
    assert lru.is_used
    lru.clear()
    assert (len(lru), lru.is_used) == (0, False)


def test_of_many_about_the_limit_is_kept_and_those_used_last_are_among_them() -> None:
    lru: Lru[int, int] = Lru(10_000)
    for key in range(50_000):
        lru.put(key, key)
        # One that is used all the time.
        assert lru.get(7, -1) == (7 if key >= 7 else -1)
    assert 9_900 <= len(lru) <= 10_008
    assert all(lru.get(key, -1) == key for key in range(45_000, 50_000))
    lru.clear()
    assert len(lru) == 0
