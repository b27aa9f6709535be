"""Overload control (RFC 6357): what is refused while work waits, and that it ends."""

from __future__ import annotations

from itertools import count

import pytest

from sipserver.proxy.overload import BEGAN, BEGUN, ENDED, LOOK, MEMORY, NEW, QUIET, Overload, Settings

TARGET = 0.05


class Server:
    """A server that does ``capacity`` pieces of work a second in order of arrival, told by the machine what to take."""

    def __init__(self, capacity: float, settings: Settings | None = None) -> None:
        self.overload = Overload(settings or Settings(target=TARGET))
        self.capacity = capacity
        self.now = 1000.0
        self.queue: list[float] = []
        self.owed = 0.0
        self.done = 0
        self.refused = 0
        self.delays: list[float] = []
        self.changes: list[tuple[str, float]] = []
        self._keys = count(1)

    def run(self, seconds: float, offered: float, refusal: float = 0.02) -> None:
        """So many pieces a second arrive; refusing one takes the ``refusal`` part of the work."""
        for _ in range(round(seconds / LOOK)):
            self.now += LOOK
            self.owed += offered * LOOK
            while self.owed >= 1:
                self.owed -= 1
                self.queue.append(self.now)
            self._work()
            waited = self.now - self.queue[0] if self.queue else 0.0
            self.delays.append(waited)
            change = self.overload.look(self.now, waited)
            if change:
                self.changes.append((change, self.now))

    def _work(self) -> None:
        left = self.capacity * LOOK
        taken = 0
        for _ in self.queue:
            if left <= 0:
                break
            taken += 1
            if self.overload.shedding and not self.overload.admits(NEW, next(self._keys)):
                left -= 0.02
                self.refused += 1
            else:
                left -= 1
                self.done += 1
        del self.queue[:taken]


def waiting(seconds: float, *, settings: Settings | None = None) -> Overload:
    """One in which work has waited for so long for a second."""
    overload = Overload(settings or Settings(target=TARGET))
    for look in range(50):
        overload.look(look * LOOK, seconds)
    return overload


def refused(overload: Overload, kind: int, of: int = 1000) -> int:
    """How many of so many are refused."""
    return sum(not overload.admits(kind, key) for key in range(kind * of, kind * of + of))


def test_nothing_is_refused_while_nothing_waits() -> None:
    server = Server(1000)
    server.run(10, 700)
    assert (server.overload.shedding, server.refused, server.changes) == (False, 0, [])


def test_one_long_stop_is_no_overload() -> None:
    overload = Overload(Settings(target=TARGET))
    assert [overload.look(0.0, 0.001), overload.look(5.0, 5.0), overload.look(5.02, 0.001)] == ["", "", ""]


@pytest.mark.parametrize(
    ("times", "of_new", "of_begun"), [(0.9, 0, 0), (1.5, 500, 0), (2.0, 1000, 0), (3.0, 1000, 500)]
)
def test_share_that_is_refused_grows_with_the_delay(times: float, of_new: int, of_begun: int) -> None:
    overload = waiting(times * TARGET)
    assert overload.shedding is (times > 1)
    assert refused(overload, BEGUN) == pytest.approx(of_begun, abs=5)
    assert refused(overload, NEW) == pytest.approx(of_new, abs=5)


def test_everything_is_refused_that_waits_for_longer_than_anybody_has_patience() -> None:
    overload = waiting(10.0)
    assert refused(overload, BEGUN) == pytest.approx(1000, abs=5)


def test_refusals_are_spread_evenly_over_requests() -> None:
    overload = waiting(1.5 * TARGET)
    taken = [overload.admits(NEW, key) for key in range(20)]
    assert all(taken[at : at + 4].count(True) in (2, 3) for at in range(16))


@pytest.mark.parametrize("times", [1.2, 3.0, 10.0])
def test_goodput_stays_near_the_peak_whatever_is_offered(times: float) -> None:
    server = Server(1000)
    server.run(5, times * 1000)
    before, server.delays = server.done, []
    server.run(20, times * 1000)
    spent_on_refusals = 0.02 * (times - 1)
    assert server.done - before > 20 * 1000 * (1 - spent_on_refusals) * 0.97
    # Nobody waits until he sends again, and the server is never idle.
    assert 0 < min(server.delays) <= max(server.delays) < 4 * TARGET


def test_overload_is_over_soon_after_the_load_is() -> None:
    server = Server(1000)
    server.run(60, 3000)
    over_at = server.now
    server.run(5, 700)
    assert [change for change, _ in server.changes] == [BEGAN, ENDED]
    assert server.changes[1][1] - over_at < QUIET + 1.0
    before = server.refused
    server.run(10, 700)
    assert server.refused == before


def test_refused_requests_stay_refused_as_long_as_copies_may_wait() -> None:
    overload = waiting(10.0)
    assert not any(overload.admits(NEW, key) for key in range(100, 200))
    now = 1.0
    while now < MEMORY:
        now += LOOK
        overload.look(now, 0.6 * TARGET)
    assert overload.admits(NEW, 1)
    counted = overload.refused
    assert not any(overload.admits(NEW, key) for key in range(110, 190))
    assert overload.refused == counted


def test_refusals_that_are_remembered_are_bounded() -> None:
    overload = waiting(10.0)
    for round_ in range(10):
        for key in range(20_000):
            overload.admits(NEW, round_ * 20_000 + key)
        overload.look(1.0 + round_ * LOOK, 10.0)
    assert len(overload._recent) + len(overload._older) <= 2 * 20_000


def test_those_who_are_refused_come_back_one_after_the_other() -> None:
    # A hundred thousand endpoints at once, of which the server takes a thousand a second.
    overload = waiting(1.9 * TARGET, settings=Settings(target=TARGET, longest=60))
    seconds: list[int] = []
    now, key = 1.0, 0
    for _ in range(100):
        now += LOOK
        for _ in range(200):
            key += 1
            if not overload.admits(NEW, key):
                seconds.append(overload.retry_after())
        overload.look(now, 1.9 * TARGET)
    late = seconds[-1000:]
    assert min(seconds) == 1
    assert max(late) == pytest.approx(18_000 / 500, abs=8)
    # As many in each second.
    often = [late.count(second) for second in range(1, max(late) - 3)]
    assert max(often) < 1.5 * min(often)


def test_retry_after_is_never_longer_than_configured() -> None:
    overload = waiting(10.0, settings=Settings(target=TARGET, longest=10))
    for key in range(5000):
        overload.admits(NEW, key)
    times = [overload.retry_after() for _ in range(1000)]
    assert (min(times), max(times)) == (1, 10)


def test_stopping_lets_everything_through() -> None:
    overload = waiting(10.0)
    overload.stop()
    assert not overload.shedding
    assert overload.look(2.0, 0.0) == ""
