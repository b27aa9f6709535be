from __future__ import annotations

from sipserver.transport.bound import GRACE, Absences


def looked(absences: Absences, addresses: list[str], there: set[str], now: float) -> list[tuple[str, bool]]:
    told: list[tuple[str, bool]] = []
    absences.on_change = lambda address, back: told.append((address, back))
    absences.look(addresses, there.__contains__, now)
    return told


def test_an_address_that_goes_and_comes_back_is_told_once_each_time() -> None:
    absences, ours = Absences(), ["192.0.2.1", "2001:db8::1"]
    assert looked(absences, ours, set(ours), 1.0) == []
    assert looked(absences, ours, {"2001:db8::1"}, 2.0) == [("192.0.2.1", False)]
    assert looked(absences, ours, {"2001:db8::1"}, 5.0) == []
    assert absences.since == {"192.0.2.1": 2.0}
    assert looked(absences, ours, set(ours), 6.0) == [("192.0.2.1", True)]
    assert absences.since == {}


def test_one_that_stays_away_is_long_gone_after_a_while_and_forgotten_with_what_used_it() -> None:
    absences = Absences()
    looked(absences, ["192.0.2.1"], set(), 2.0)
    assert absences.long_gone(2.0 + GRACE - 0.1) == frozenset()
    looked(absences, ["192.0.2.1"], set(), 7.0)
    assert absences.long_gone(2.0 + GRACE) == {"192.0.2.1"}
    looked(absences, [], set(), 20.0)
    assert absences.since == {}


def test_loopback_and_link_local_addresses_are_not_looked_at() -> None:
    assert looked(Absences(), ["127.0.0.1", "127.9.9.9", "::1", "fe80::1%3"], set(), 1.0) == []
