"""Who there is to call, and with which devices. Pure, and the same for one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from support.generator.plan import DevicePlan, UserPlan


@dataclass(frozen=True, slots=True)
class Population:
    """Everybody there is, by what they are good for."""

    callers: tuple[UserPlan, ...]
    callees: tuple[UserPlan, ...]
    pairs: tuple[UserPlan, ...]
    """With two or three devices."""
    silent: tuple[UserPlan, ...]
    half_silent: tuple[UserPlan, ...]
    """With a device that answers and one that is silent."""
    offline: tuple[UserPlan, ...]
    ghosts: tuple[UserPlan, ...]
    """Addresses that nobody has."""
    cuttable: tuple[UserPlan, ...]
    """Each with a connection of its own, which may break."""
    mortal: tuple[UserPlan, ...]
    """The same; they vanish in their only call."""
    shy: tuple[UserPlan, ...]
    """They sign off in their only call, and then hear nothing more."""

    @property
    def everybody(self) -> tuple[UserPlan, ...]:
        """All of them."""
        return (
            *self.callers, *self.callees, *self.pairs, *self.silent, *self.half_silent, *self.offline, *self.ghosts,
            *self.cuttable, *self.mortal, *self.shy,
        )  # fmt: skip


UDP_STATIONS = 12
TCP_STATIONS = 6
CUTTABLE_STATIONS = 8
MORTAL_STATIONS = 16
"""TCP too; their numbers follow."""
SHY = 16


def populate(seed: int) -> Population:
    """The users and their devices."""
    dice = random.Random(f"people {seed}")
    numbers = iter(range(1_000_000))

    def user(*devices: str, subscriber: bool = True) -> UserPlan:
        name = f"u{next(numbers)}"
        made = []
        for index, kind in enumerate(devices):
            transport = "TCP" if kind == "TCP" else "UDP"
            station = dice.randrange(TCP_STATIONS if transport == "TCP" else UDP_STATIONS)
            made.append(DevicePlan(f"{name}-{index}", transport, station, kind == "silent"))
        return UserPlan(name, tuple(made), subscriber)

    def some(count: int, *choices: tuple[str, ...], subscriber: bool = True) -> tuple[UserPlan, ...]:
        return tuple(user(*choices[i % len(choices)], subscriber=subscriber) for i in range(count))

    def alone(number: int) -> UserPlan:
        name = f"u{next(numbers)}"
        return UserPlan(name, (DevicePlan(f"{name}-0", "TCP", TCP_STATIONS + number),))

    return Population(
        callers=some(48, ("UDP",), ("UDP",), ("TCP",)),
        callees=some(48, ("UDP",), ("UDP",), ("TCP",)),
        pairs=some(24, ("UDP", "UDP"), ("UDP", "TCP"), ("UDP", "UDP", "TCP"), ("UDP", "UDP", "UDP")),
        silent=some(4, ("silent",)),
        half_silent=some(6, ("UDP", "silent"), ("TCP", "silent")),
        offline=some(3, ()),
        ghosts=some(3, (), subscriber=False),
        cuttable=tuple(alone(number) for number in range(CUTTABLE_STATIONS)),
        mortal=tuple(alone(CUTTABLE_STATIONS + number) for number in range(MORTAL_STATIONS)),
        shy=some(SHY, ("UDP",)),
    )
