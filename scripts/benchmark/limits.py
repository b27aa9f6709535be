"""How much this machine can do, how long one waits below that, and what happens far above.

The highest sustained rate is the highest of those tried at which everybody is served and nothing had to be sent again.
It is looked for by doubling and then in steps of a fifth, each of some seconds, and counts once it was held for longer;
so it is known to about a tenth, and only for this machine with the generator on it. Everything ends by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmark.generator import Generator, Second
from benchmark.systems import PEOPLE, BenchError, Sipserver

FIRST: Final = {"register": 50.0, "call": 20.0}
"""Operations a second that are tried first."""
MOST: Final = {"register": 30_000.0, "call": 8_000.0}
STRIDE: Final = 2.0
STEP: Final = 1.2
BEFOREHAND: Final = 400.0
"""Registrations a second before anything is measured."""
STEP_SECONDS: Final = 4.0
HELD_SECONDS: Final = 15.0
"""For how long a rate has to be sustained: some seconds can be lived on what buffers hold."""
SETTLE: Final = 2.0
SHARES: Final = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Of the sustained rate, at which delays are measured."""
NORMAL: Final = 0.7
"""The share that counts as ordinary load."""
TIMES: Final = 3.0
"""How much more than the sustained rate overload is."""
BEFORE: Final = 10.0
AFTER: Final = 20.0
"""Seconds of ordinary load before and after overload."""
TOGETHER: Final = 50
"""Registrations that begin at once, where everybody registers."""
LONGEST: Final = 300.0
"""Seconds that are waited for everybody."""
GOING_ON: Final = 300
"""Calls that go on when overload begins, and are ended one after the other while it lasts."""


@dataclass(slots=True)
class Level:
    """What was measured at one rate."""

    rate: float
    """Offered, operations a second."""
    offered: int
    served: int
    refused: int
    failed: int
    resent: int
    byes: int
    byes_answered: int
    median_ms: float | None
    p99_ms: float | None
    longest_ms: float | None
    cost_us: float
    """Processor time of the server for each operation served."""
    generator: float
    """The part of one core that the generator took."""

    @property
    def is_sustained(self) -> bool:
        """Whether everybody was served at once."""
        return (
            self.served >= 0.995 * self.offered
            and self.refused == self.failed == 0
            and self.resent <= 0.005 * self.offered
        )


@dataclass(slots=True)
class Moment:
    """One second of an overload."""

    at: float
    """Seconds since it began; before that below 0."""
    offered: int
    served: int
    refused: int
    failed: int
    resent: int
    byes: int
    byes_answered: int
    median_ms: float | None
    p99_ms: float | None
    ending_p99_ms: float | None
    """From BYE to its answer."""
    memory_mib: float


@dataclass(slots=True)
class Overloaded:
    """What became of an overload."""

    sustained: float
    peak: float
    """Served a second at the sustained rate."""
    lasted: float
    moments: list[Moment] = field(default_factory=list)
    longest_retry_after: int = 0

    @property
    def during(self) -> list[Moment]:
        """The seconds of overload."""
        return [each for each in self.moments if 0 <= each.at < self.lasted - 0.5]

    @property
    def goodput(self) -> float:
        """Of the peak, on average."""
        during = self.during
        return sum(each.served for each in during) / len(during) / self.peak

    @property
    def worst_goodput(self) -> float:
        """Of the peak, in the worst second."""
        return min(each.served for each in self.during) / self.peak

    @property
    def recovered_after(self) -> float | None:
        """Seconds after the end of overload from which on everybody was served; None where that was not reached."""
        recovered: float | None = None
        for each in self.moments:
            if each.at < self.lasted - 0.5:
                continue
            if each.refused or each.failed or each.resent:
                recovered = None
            elif recovered is None:
                recovered = max(each.at - self.lasted, 0.0)
        return recovered


class Bench:
    """This server with everybody registered, and who loads it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.server = Sipserver("sipserver", folder, port)
        self.server.start()
        self.port = port
        # The called are where everybody has registered.
        self.called = Generator("register", port)

    def close(self) -> None:
        """Stop the server."""
        self.called.close()
        self.server.stop()

    def everybody_registers(self) -> None:
        """So that everybody can be called; who is refused comes again."""
        self.called.comes_back = True
        self.called.run(PEOPLE / BEFOREHAND, BEFOREHAND)
        self.called.finish(60.0)
        self.called.comes_back = False

    def generator(self, operation: str) -> Generator:
        """Endpoints that do this."""
        return self.called if operation == "register" else Generator("call", self.port, called=self.called)

    def measure(self, generator: Generator, rate: float, seconds: float) -> Level:
        """So many operations a second for so long."""
        return measure(self.server, generator, rate, seconds)

    def sustained(self, operation: str, show: Callable[[Level], None]) -> Level:
        """The highest rate at which everybody is served at once, for HELD_SECONDS. What fails is tried once more."""
        generator = self.generator(operation)
        best, rate, factor = 0.0, FIRST[operation], STRIDE
        while rate <= MOST[operation]:
            level = self._try(generator, rate, show)
            if not level.is_sustained:
                level = self._try(generator, rate, show)
            if level.is_sustained:
                best, rate = rate, rate * factor
            elif best and factor > STEP:
                factor, rate = STEP, best * STEP
            else:
                break
        while best >= FIRST[operation]:
            for _ in range(2):
                level = self._try(generator, best, show, HELD_SECONDS)
                if level.is_sustained:
                    return level
            best /= STEP
        raise BenchError(f"not even {FIRST[operation]:g} operations a second are sustained here")

    def _try(
        self, generator: Generator, rate: float, show: Callable[[Level], None], seconds: float = STEP_SECONDS
    ) -> Level:
        level = self.measure(generator, rate, seconds)
        show(level)
        return level

    def latency(self, operation: str, sustained: float, seconds: float, show: Callable[[Level], None]) -> list[Level]:
        """Delays at SHARES of the sustained rate."""
        generator = self.generator(operation)
        levels = []
        for share in SHARES:
            levels.append(self.measure(generator, share * sustained, seconds))
            show(levels[-1])
        return levels

    def overload(self, operation: str, sustained: Level, seconds: float, show: Callable[[Moment], None]) -> Overloaded:
        """Ordinary load, overload for so long, ordinary load again."""
        generator = self.generator(operation)
        found = Overloaded(sustained.rate, sustained.served / HELD_SECONDS, seconds)
        ordinary = NORMAL * sustained.rate
        if operation == "call":
            generator.talk(GOING_ON, ordinary)
        at = -BEFORE
        owed = 0.0

        def note(second: Second) -> None:
            nonlocal at, owed
            found.moments.append(self._moment(at, second))
            found.longest_retry_after = max((found.longest_retry_after, *second.retry_after))
            show(found.moments[-1])
            at += 1.0
            if 0 <= at < seconds:
                owed += GOING_ON / seconds
                while owed >= 1 and generator.end_one():
                    owed -= 1

        generator.run(BEFORE, ordinary, note)
        generator.run(seconds, TIMES * sustained.rate, note)
        generator.run(AFTER, ordinary, note)
        generator.finish(40.0)
        return found

    def everybody_at_once(self, sustained: Level) -> float:
        """Everybody registers at ten times the sustained rate, as after an outage, and comes back when told to: how
        long that takes, by how long it would at the sustained rate; infinite where it takes more than LONGEST."""
        generator = self.generator("register")
        first = len(generator.seconds)
        generator.comes_back = True
        began = time.monotonic()
        for _ in range(PEOPLE // TOGETHER):
            for _ in range(TOGETHER):
                generator.begin()
            generator.run(TOGETHER / sustained.rate / 10, 0)
        took = 0.0
        while sum(each.served for each in generator.seconds[first:]) < PEOPLE and took < LONGEST:
            generator.run(0.1, 0)
            took = time.monotonic() - began
        generator.comes_back = False
        return took / (PEOPLE / sustained.rate) if took < LONGEST else math.inf

    def _moment(self, at: float, second: Second) -> Moment:
        delays, ending = sorted(second.delays), sorted(second.ending)
        return Moment(
            at, second.offered, second.served, second.refused, second.failed, second.resent, second.byes,
            second.byes_answered, quantile(delays, 0.5), quantile(delays, 0.99), quantile(ending, 0.99),
            self.server.resident(),
        )  # fmt: skip


def measure(server: Sipserver, generator: Generator, rate: float, seconds: float) -> Level:
    """So many operations a second for so long, and what a server that does nothing else has to do for them."""
    first = len(generator.seconds)
    before, mine = sum(server.processor_time()), time.process_time()
    generator.run(seconds, rate)
    used = time.process_time() - mine
    generator.finish()
    time.sleep(SETTLE)
    found = generator.seconds[first:]
    cost = sum(server.processor_time()) - before
    delays = sorted(delay for second in found for delay in second.delays)
    served = sum(each.served for each in found)
    return Level(
        rate, sum(each.offered for each in found), served, sum(each.refused for each in found),
        sum(each.failed for each in found), sum(each.resent for each in found), sum(each.byes for each in found),
        sum(each.byes_answered for each in found), quantile(delays, 0.5), quantile(delays, 0.99),
        quantile(delays, 1.0), 1e6 * cost / max(served, 1), used / seconds,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float | None:
    """Of sorted seconds, in milliseconds."""
    return 1000 * values[min(int(len(values) * share), len(values) - 1)] if values else None
