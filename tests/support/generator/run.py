"""One run of the generator: a server, its people, their calls, the restarts, and the comparison."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.generator.check import Checker
from support.generator.plan import CallPlan
from support.generator.planner import Planner
from support.generator.play import play as play_call
from support.generator.record import Report, Store
from support.generator.station import GRACE, LONG, TIMERS
from support.generator.world import World
from support.server import ServerProcess
from support.settable import SettableServer

CONFIG = f"""
[timers]
t1 = {TIMERS.t1}
t2 = {TIMERS.t2}
t4 = {TIMERS.t4}
d = {TIMERS.d}
c = 4.0

[sessions]
min = 1
grace = {GRACE}

[registrar]
max_expires = {LONG}

[limits]
calls = 100000

[tcp]
connections_per_source = 1000
"""
CLOCK = (3600.0, 0.0, -3600.0)
"""Seconds that the server's clock is ahead, one after the other: it is set forward once, and back twice."""
RATE = 50.0
"""Calls a second."""
BREATH = 0.02
"""Seconds after which it is looked again whether the server follows."""
SLOWEST = 0.05
RECOVERY = 5.0
"""Seconds in which the pace is what it was again."""
PATIENCE = 30.0
"""Seconds that the last calls may take to end."""


@dataclass(slots=True)
class Run:
    """What was played, and the server that is stopped by now."""

    world: World
    server: ServerProcess
    open_calls: int
    """Calls that were open after all had ended."""
    faults: list[dict[str, object]]
    """Faults of the server's own that its log tells of."""


def generate(
    folder: Path,
    *,
    calls: int,
    seed: int,
    rate: float = RATE,
    restarts: Sequence[str] = ("KILL", "TERM"),
    clock: Sequence[float] = CLOCK,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Play so many calls, ``rate`` of them a second, with these restarts in between and the server's clock set to be so
    many seconds ahead; what the comparison found."""
    run = play(folder, calls=calls, seed=seed, rate=rate, restarts=restarts, clock=clock, say=say)
    report = Checker(run.world, Store(run.server)).check()
    if run.open_calls:
        report.mismatches.append(f"{run.open_calls} calls are open after all have ended")
    if run.faults:
        report.mismatches.append(f"the server had faults of its own: {run.faults[0]}")
    return report


def play(
    folder: Path,
    *,
    calls: int,
    seed: int,
    rate: float = RATE,
    restarts: Sequence[str] = (),
    clock: Sequence[float] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Play the calls; the comparison is for the caller."""
    seconds = calls / rate
    planner = Planner(seed, calls, seconds)
    plans = list(planner.plans())
    names = [user.name for user in planner.people.everybody if user.subscriber]
    with SettableServer(folder, names, config=CONFIG) as server:
        world = asyncio.run(_play(server, planner, plans, seed, seconds, restarts, clock, say))
        open_calls = server.rows("SELECT count(*) AS open FROM calls WHERE ended_at IS NULL")[0]["open"]
        faults = world.faults()
        server.stop()
    network = world.network
    say(f"{network.wire.messages} messages; {network.lost} lost, {network.doubled} doubled, {network.delayed} delayed")
    return Run(world, server, open_calls, faults)


async def _all_closed(server: ServerProcess) -> None:
    """Wait until no call is open: the server takes its time to miss who has vanished."""
    open_calls = "SELECT count(*) AS open FROM calls WHERE ended_at IS NULL"
    for _ in range(int(4 * PATIENCE)):
        if not server.rows(open_calls)[0]["open"]:
            break
        await asyncio.sleep(0.25)


class Pace:
    """The time of the plan: it stands still while the server cannot follow, or this process has no processor.

    A machine that is busy with other things would else have to do in one second what was planned for five.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._now = 0.0
        self._speed = 1.0
        self._read_at = self._loop.time()

    async def until(self, at: float) -> None:
        """Wait for a moment of the plan."""
        while self._now < at:
            await asyncio.sleep(min(at - self._now, BREATH))
            self._read()

    def _read(self) -> None:
        now = self._loop.time()
        passed, self._read_at = now - self._read_at, now
        if not self._world.is_prompt() or passed > 5 * BREATH:
            self._speed = max(self._speed * 0.7, SLOWEST)
            return
        self._speed = min(self._speed + passed / RECOVERY, 1.0)
        self._now += self._speed * min(passed, 2 * BREATH)


async def _play(
    server: SettableServer, planner: Planner, plans: list[CallPlan], seed: int, seconds: float,
    restarts: Sequence[str], clock: Sequence[float], say: Callable[[str], None],
) -> World:  # fmt: skip
    world = World(server, planner.people, seed)
    began = time.monotonic()
    try:
        await world.open()
        say(f"registered in {time.monotonic() - began:.1f} s")
        pace = Pace(world)
        breaks = [
            asyncio.create_task(_restart_later(world, pace, signal, seconds * number / (len(restarts) + 1)))
            for number, signal in enumerate(restarts, 1)
        ] + [
            asyncio.create_task(_set_clock_later(world, pace, ahead, seconds * (number - 0.5) / len(clock)))
            for number, ahead in enumerate(clock, 1)
        ]
        tasks = []
        for plan in sorted((each for each in plans if each.rides < 0), key=lambda each: each.start):
            await pace.until(plan.start)
            name = f"call {plan.number} {plan.scenario}"
            tasks.append(asyncio.create_task(play_call(world, plan), name=name))
        _, hanging = await asyncio.wait(tasks, timeout=PATIENCE)
        await asyncio.gather(*breaks)
        for task in hanging:
            say(f"hangs: {task}")
            task.cancel()
        for task in tasks:
            if not task.cancelled() and task not in hanging:
                task.result()
        await world.finish()
        await _all_closed(server)
        say(f"played in {time.monotonic() - began:.1f} s")
        # The last rows are committed.
        await asyncio.sleep(0.3)
    finally:
        await world.close()
    return world


async def _set_clock_later(world: World, pace: Pace, ahead: float, at: float) -> None:
    await pace.until(at)
    await world.set_clock(ahead)


async def _restart_later(world: World, pace: Pace, signal: str, at: float) -> None:
    await pace.until(at)
    await world.restart(signal)
