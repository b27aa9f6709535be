"""How long work waits: measured while there is any, and told to the machine that decides what is refused.

Two things are measured, and the longer one counts. How old the datagrams are that are read, where more had arrived than
one read takes (``transport.udp``); and how late the loop comes to what it was to do at a certain time, as far as this
process was at work meanwhile, which is what messages on connections wait for: where the machine gave its processors to
others, refusing would help nobody. Of what waits longer on a connection its sender learns by not being read from.

Nothing is measured while nothing arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sipserver.proxy.overload import BEGAN, ENDED, LOOK, Overload, Settings
from sipserver.server.pulse import Pulse
from sipserver.telemetry.log import Log


class Pressure:
    """Looks every LOOK seconds while messages come."""

    def __init__(
        self, overload: Overload, loop: asyncio.AbstractEventLoop, waited: Callable[[], float],
        worked: Callable[[], float], pulse: Pulse, log: Log,
    ) -> None:  # fmt: skip
        """``waited`` tells for how many seconds datagrams have waited at most since it was last asked, ``worked`` how
        many seconds of processor time this process has had."""
        self._overload = overload
        self._loop = loop
        self._waited = waited
        self._worked = worked
        self._pulse = pulse
        self._log = log
        self._due = 0.0
        self._worked_before = 0.0
        """``worked`` when it was armed."""
        self.looking = False
        """Whether there is no need to ``begin``."""
        self.times = 0
        """How often overload began."""

    def begin(self) -> None:
        """Messages came: look soon, and for as long as work waits."""
        self.looking = True
        self._due = self._loop.time() + LOOK
        self._worked_before = self._worked()
        self._loop.call_at(self._due, self._look)

    def use(self, settings: Settings) -> None:
        """From now on these count."""
        self._overload.settings = settings
        if not settings.enabled:
            self._overload.stop()

    def _look(self) -> None:
        now, overload = self._loop.time(), self._overload
        late = min(now - self._due, self._worked() - self._worked_before)
        self._pulse.note(late)
        self.looking = False
        if not overload.settings.enabled:
            return
        change = overload.look(now, max(late, self._waited()))
        if change == BEGAN:
            self.times += 1
            self._log.warning("overload.began", delay_ms=_ms(overload.delay))
        elif change == ENDED:
            self._log.warning(
                "overload.ended", seconds=round(overload.lasted(now), 1), longest_delay_ms=_ms(overload.most),
                refused=overload.refused - overload.refused_before,
            )  # fmt: skip
        if overload.shedding or overload.delay > 0.1 * overload.settings.target:
            self.begin()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
