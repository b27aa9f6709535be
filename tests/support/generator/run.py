"""One run of the generator: a server, its people, their calls, the restarts, and the comparison."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.generator.check import Checker
from support.generator.plan import CallPlan, Planner
from support.generator.play import World
from support.generator.record import Report, Store
from support.generator.station import TIMERS
from support.server import ServerProcess

CONFIG = f"""
[timers]
t1 = {TIMERS.t1}
t2 = {TIMERS.t2}
t4 = {TIMERS.t4}
d = {TIMERS.d}
c = 4.0

[limits]
calls = 100000

[tcp]
connections_per_source = 1000
"""
RATE = 45.0
"""Calls a second."""
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
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Play so many calls, ``rate`` of them a second, with these restarts in between; what the comparison found."""
    run = play(folder, calls=calls, seed=seed, rate=rate, restarts=restarts, say=say)
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
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Play the calls; the comparison is for the caller."""
    seconds = calls / rate
    planner = Planner(seed, calls, seconds)
    plans = list(planner.plans())
    names = [user.name for user in planner.people.everybody if user.subscriber]
    with ServerProcess(folder, names, config=CONFIG) as server:
        world = asyncio.run(_play(server, planner, plans, seed, seconds, restarts, say))
        open_calls = server.rows("SELECT count(*) AS open FROM calls WHERE ended_at IS NULL")[0]["open"]
        faults = [event for event in server.events if event["event"] == "internal.fault"]
        server.stop()
    network = world.network
    say(f"{network.wire.messages} messages; {network.lost} lost, {network.doubled} doubled, {network.delayed} delayed")
    return Run(world, server, open_calls, faults)


async def _play(
    server: ServerProcess, planner: Planner, plans: list[CallPlan], seed: int, seconds: float,
    restarts: Sequence[str], say: Callable[[str], None],
) -> World:  # fmt: skip
    world = World(server, planner.people, seed)
    began = time.monotonic()
    try:
        await world.open()
        say(f"registered in {time.monotonic() - began:.1f} s")
        loop = asyncio.get_running_loop()
        start = loop.time()
        tasks = [
            loop.create_task(_later(world, plan, start), name=f"call {plan.number} {plan.scenario}")
            for plan in plans
            if plan.rides < 0
        ]
        breaks = [
            loop.create_task(_restart_later(world, signal, start + seconds * number / (len(restarts) + 1)))
            for number, signal in enumerate(restarts, 1)
        ]
        _, hanging = await asyncio.wait(tasks, timeout=seconds + PATIENCE)
        await asyncio.gather(*breaks)
        for task in hanging:
            say(f"hangs: {task}")
            task.cancel()
        for task in tasks:
            if not task.cancelled() and task not in hanging:
                task.result()
        await world.finish()
        say(f"played in {time.monotonic() - began:.1f} s")
        # The last rows are committed.
        await asyncio.sleep(0.3)
    finally:
        await world.close()
    return world


async def _later(world: World, plan: CallPlan, start: float) -> None:
    await asyncio.sleep(start + plan.start - asyncio.get_running_loop().time())
    await world.play(plan)


async def _restart_later(world: World, signal: str, at: float) -> None:
    await asyncio.sleep(at - asyncio.get_running_loop().time())
    await world.restart(signal)
