"""The non-INVITE server transaction: RFC 3261 §17.2.2 with figure 8, RFC 6026 §8.8 and RFC 4320.

State       on entering              left by
TRYING      (the request came)       any response of the TU
PROCEEDING  100 sent                 a final response of the TU
COMPLETED   final sent, timer J      J
TERMINATED  everything is let go

J is 64*T1 and set once; on a reliable transport it is nothing, so the final response ends the transaction.
A repeated request is answered with what was sent last. A response that cannot be sent is reported and leaves
the state as it is.

RFC 4320 takes two liberties away: no provisional response but 100 is sent, and no 408. A TU that has no answer
in time responds 408 all the same: nothing leaves, and repetitions are absorbed in silence until J.
When a 100 may be sent is a matter of time, and the TU's.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip.effects import UNREACHABLE, Effect, Failed, Send, SetTimer, Terminated
from sipserver.sip.message import Request
from sipserver.sip.timers import TIMER_J, Timers

TRYING: Final = 0
PROCEEDING: Final = 1
COMPLETED: Final = 2
TERMINATED: Final = 3


class Server:
    """One request other than INVITE and ACK being answered; it has gone to the TU already."""

    __slots__ = ("_last", "_reliable", "_timers", "state")

    def __init__(self, reliable: bool, timers: Timers) -> None:
        self.state = TRYING
        self._reliable = reliable
        self._timers = timers
        self._last = b""
        """What a repeated request is answered with; empty while there is nothing."""

    def respond(self, status: int, data: bytes) -> tuple[Effect, ...]:
        """The TU answers; what the state does not allow any more is dropped."""
        if self.state > PROCEEDING:
            # RFC 3261 §17.2.2: a second final response goes nowhere.
            return ()
        if status < 200:
            # RFC 4320 §4.1: of the provisional responses only 100.
            if status != 100:
                return ()
            self.state = PROCEEDING
            self._last = data
            return (Send(data),)
        # RFC 4320 §4.2: never a 408; who asked has given up by now.
        self._last = data if status != 408 else b""
        self.state = TERMINATED if self._reliable else COMPLETED
        ends: Effect = Terminated() if self._reliable else SetTimer(TIMER_J, 64 * self._timers.t1)
        if status == 408:
            return (ends,)
        if self._reliable:
            self._last = b""
        return ends, Send(data)

    def on_request(self, request: Request) -> tuple[Effect, ...]:
        """The request once more."""
        return (Send(self._last),) if self._last else ()

    def on_timer(self, timer: str) -> tuple[Effect, ...]:
        """A timer that was set is due."""
        if self.state == COMPLETED and timer == TIMER_J:
            self.state = TERMINATED
            self._last = b""
            return (Terminated(),)
        return ()

    def on_transport_error(self) -> tuple[Effect, ...]:
        """What was sent last could not be delivered."""
        # RFC 6026 §8.8 overrides figure 8: the TU is told and the state stays.
        return (Failed(UNREACHABLE),) if self.state in (PROCEEDING, COMPLETED) else ()
