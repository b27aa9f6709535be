"""Overload control (RFC 6357): what is refused while work waits, and that it ends."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count

import pytest

from sipserver.proxy.overload import BEGAN, BEGUN, ENDED, LOOK, MEMORY, NEW, QUIET, Overload, Settings

TARGET = 0.05


CALL = (
    ("INVITE", 0.0004, 0.0), ("INVITE again", 0.0006, 0.0), ("180, 200", 0.0005, 0.0), ("ACK", 0.0001, 0.0),
    ("BYE, 200", 0.0004, 0.3),
)  # fmt: skip
"""What a call brings to be done: seconds that each takes, and seconds that pass before."""
REFUSAL = 0.00003
PATIENCE = 0.5
"""Seconds after which who waits sends again."""


class Server:
    """A server that does its work in order of arrival, told by the machine what to take; each call takes 2 ms of it."""

    def __init__(self) -> None:
        self.overload = Overload(Settings(target=TARGET))
        self.now = 1000.0
        self.done: list[int] = []
        """Calls set up in each second."""
        self.refused = 0
        self.delays: list[float] = []
        self.changes: list[tuple[str, float]] = []
        self._queue: deque[tuple[float, int]] = deque()
        self._later: list[tuple[float, int]] = []
        self._next_call = self.now
        self._next_look = self.now
        self._keys = count(1)

    def run(self, seconds: int, offered: float) -> None:
        """So many calls a second."""
        for _ in range(seconds):
            self.done.append(0)
            until = self.now + 1.0
            while self.now < until:
                self._turn(1.0 / offered)

    def _turn(self, interval: float) -> None:
        while self._next_call <= self.now:
            self._queue.append((self._next_call, 0))
            self._next_call += interval
        while self._later and self._later[0][0] <= self.now:
            self._queue.append(heapq.heappop(self._later))
        waited = 0.0
        if self._queue:
            at, stage = self._queue.popleft()
            waited = self.now - at
            self.delays.append(waited)
            self._serve(stage)
        else:
            self.now += 0.001
        if self.now >= self._next_look:
            self._next_look = self.now + LOOK
            change = self.overload.look(self.now, waited)
            if change:
                self.changes.append((change, self.now))

    def _serve(self, stage: int) -> None:
        if stage < 2 and self.overload.shedding and not self.overload.admits((NEW, BEGUN)[stage], next(self._keys)):
            self.refused += 1
            self.now += REFUSAL
            return
        self.now += CALL[stage][1]
        self.done[-1] += stage == 2
        if stage + 1 < len(CALL):
            heapq.heappush(self._later, (self.now + CALL[stage + 1][2], stage + 1))


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
    server = Server()
    server.run(10, 350)
    assert (server.overload.shedding, server.refused, server.changes) == (False, 0, [])


def test_one_long_stop_is_no_overload() -> None:
    overload = Overload(Settings(target=TARGET))
    assert [overload.look(0.0, 0.001), overload.look(5.0, 5.0), overload.look(5.02, 0.001)] == ["", "", ""]


@pytest.mark.parametrize(("times", "of_begun"), [(0.9, 0), (1.9, 0), (2.5, 250), (3.0, 500), (3.5, 750)])
def test_share_of_begun_work_that_is_refused_follows_the_delay(times: float, of_begun: int) -> None:
    overload = waiting(times * TARGET)
    assert overload.shedding is (times > 1)
    assert refused(overload, BEGUN) == pytest.approx(of_begun, abs=5)


def test_share_of_new_work_that_is_refused_grows_until_the_delay_falls() -> None:
    overload = waiting(1.2 * TARGET)
    shares = [refused(overload, NEW)]
    now = 1.0
    for times in (1.2, 1.2, 0.8, 0.8, 0.8, 0.8):
        for _ in range(50):
            now += LOOK
            overload.look(now, times * TARGET)
        first = round(now * 1000)
        shares.append(sum(not overload.admits(NEW, key) for key in range(first, first + 1000)))
    # By 0.06 each second, and as much for what the delay is now.
    assert shares[:3] == pytest.approx([shares[0], shares[0] + 60, shares[0] + 120], abs=15)
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[-1] == 0


def test_everything_is_refused_that_waits_for_longer_than_anybody_has_patience() -> None:
    overload = waiting(10.0)
    assert refused(overload, BEGUN) == pytest.approx(1000, abs=5)


def test_refusals_are_spread_evenly_over_requests() -> None:
    overload = waiting(1.5 * TARGET)
    overload._shares[NEW] = 0.5
    taken = [overload.admits(NEW, key) for key in range(20)]
    assert all(taken[at : at + 4].count(True) in (2, 3) for at in range(16))


@pytest.mark.parametrize("times", [1.2, 3.0, 6.0])
def test_goodput_stays_near_the_peak_and_does_not_swing(times: float) -> None:
    server = Server()
    server.run(5, 350)
    server.run(3, times * 500)
    assert max(server.delays) < PATIENCE
    server.delays.clear()
    server.run(20, times * 500)
    peak = 500 * (1 - REFUSAL * 500 * (times - 1))
    assert min(server.done[-20:]) > 0.9 * peak
    assert sum(server.done[-20:]) > 0.95 * 20 * peak
    # Nobody waits until he sends again, and the server is never idle.
    assert 0 < min(server.delays) <= max(server.delays) < 3 * TARGET


def test_overload_is_over_soon_after_the_load_is() -> None:
    server = Server()
    server.run(30, 1500)
    over_at = server.now
    server.run(5, 350)
    assert [change for change, _ in server.changes] == [BEGAN, ENDED]
    assert server.changes[1][1] - over_at < QUIET + 1.5
    before = server.refused
    server.run(10, 350)
    assert server.refused == before
    assert server.done[-1] == pytest.approx(350, abs=5)


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
    # Ten thousand endpoints a second, of which some hundred are served.
    overload = waiting(1.5 * TARGET, settings=Settings(target=TARGET, longest=1000))
    seconds: list[int] = []
    now, key = 1.0, 0
    for _ in range(100):
        now += LOOK
        for _ in range(200):
            key += 1
            if not overload.admits(NEW, key):
                seconds.append(overload.retry_after())
        overload.look(now, 1.5 * TARGET)
        overload._shares[NEW] = 0.9
    late = seconds[-1000:]
    # Of two requests that each brings, 500 a second were served, and as long does it take until all are.
    assert min(seconds) == 1
    assert max(late) == pytest.approx(len(seconds) / 500, rel=0.2)
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
