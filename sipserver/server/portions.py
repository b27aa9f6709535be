"""Work on very many things at once: done a portion at a time, and everything else has its turn in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SHORTEST_PAUSE: Final = 0.001
"""Seconds between two portions at least."""

Step = Callable[[], bool]
"""Does a portion that takes a few milliseconds; whether there is more to be done now."""


class Portions:
    """Calls steps until they are done. Half of the loop's time is left to others, however long a portion takes."""

    def __init__(
        self,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        after_step: Callable[[], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        """``clock`` in seconds. A step that fails is not called any more, and ``on_fault`` is told why."""
        self._clock = clock
        self._later = later
        self._after_step = after_step
        self._on_fault = on_fault
        self._steps: list[Step] = []
        self._is_over = False

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, step: Step) -> bool:
        return step in self._steps

    def go_on(self, step: Step) -> None:
        """Call this step soon and as often as it takes; one that is being called already is not called twice."""
        if step in self._steps or self._is_over:
            return
        self._steps.append(step)
        if len(self._steps) == 1:
            self._later(SHORTEST_PAUSE, self._turn)

    def stop(self) -> None:
        """No step is called any more, also none that is still to be handed over."""
        self._is_over = True
        self._steps.clear()

    def _turn(self) -> None:
        """One portion of one of them, each in its turn."""
        if not self._steps:
            return
        began = self._clock()
        step = self._steps[0]
        try:
            is_unfinished = step()
        except Exception as fault:
            is_unfinished = False
            self._on_fault(fault)
        if self._is_over:
            return
        # What a step asks to be done as well has come behind it.
        del self._steps[0]
        if is_unfinished:
            self._steps.append(step)
        if self._steps:
            self._later(max(SHORTEST_PAUSE, self._clock() - began), self._turn)
        self._after_step()
