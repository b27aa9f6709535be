"""The non-INVITE client transaction: RFC 3261 §17.1.2 with figure 6.

State       on entering                    left by
TRYING      request sent, timers E and F   any response, or F (the TU hears of it)
PROCEEDING  1xx to the TU                  a final response, or F
COMPLETED   final to the TU, timer K       K
TERMINATED  everything is let go

E runs on unreliable transports alone: T1, doubling up to T2 while TRYING, T2 while PROCEEDING. Only a due E sets
the next one, never a response, so there is one chain of them. F is 64*T1; K is T4, or nothing where the
transport is reliable. A transport error ends TRYING and PROCEEDING; COMPLETED sends nothing.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Effect, Failed, Send, SetTimer, Terminated
from sipserver.sip.message import Response
from sipserver.sip.timers import TIMER_E, TIMER_F, TIMER_K, Timers

TRYING: Final = 0
PROCEEDING: Final = 1
COMPLETED: Final = 2
TERMINATED: Final = 3


class Client:
    """One request other than INVITE and ACK that was sent."""

    __slots__ = ("_abandoned", "_interval", "_reliable", "_request", "_timers", "state")

    def __init__(self, request: OutgoingRequest, reliable: bool, timers: Timers) -> None:
        self.state = TRYING
        self._request: OutgoingRequest | None = request
        """The request, until a final response came."""
        self._reliable = reliable
        self._abandoned = False
        self._timers = timers
        self._interval = timers.t1
        """Seconds that timer E was last set to."""

    def start(self) -> tuple[Effect, ...]:
        """Send the request; called once, before everything else."""
        assert self._request is not None, "start() after the end"
        set_f = SetTimer(TIMER_F, 64 * self._timers.t1)
        if self._reliable:
            return set_f, Send(self._request.data)
        return set_f, SetTimer(TIMER_E, self._interval), Send(self._request.data)

    def on_response(self, response: Response) -> tuple[Effect, ...]:
        """A response with the branch and method of the request."""
        if self._request is None:
            return ()
        if response.status < 200:
            self.state = PROCEEDING
            return (Deliver(response),)
        self._request = None
        if self._reliable:
            # Timer K of no length.
            self.state = TERMINATED
            return Deliver(response), Terminated()
        self.state = COMPLETED
        return SetTimer(TIMER_K, self._timers.t4), Deliver(response)

    def on_abandoned(self) -> None:
        """The TU has turned elsewhere (RFC 3263 §4.3): nothing is sent again, and who answers late is heard."""
        self._abandoned = True

    def on_timer(self, timer: str) -> tuple[Effect, ...]:
        """A timer that was set is due."""
        if self._request is not None:
            if timer == TIMER_E and not self._abandoned:
                t2 = self._timers.t2
                self._interval = min(2 * self._interval, t2) if self.state == TRYING else t2
                return SetTimer(TIMER_E, self._interval), Send(self._request.data)
            if timer == TIMER_F:
                return (Failed(TIMED_OUT), *self._terminate())
        elif self.state == COMPLETED and timer == TIMER_K:
            return self._terminate()
        return ()

    def on_transport_error(self) -> tuple[Effect, ...]:
        """What was sent last could not be delivered, or the connection it went over is gone."""
        return () if self._request is None else (Failed(UNREACHABLE), *self._terminate())

    def _terminate(self) -> tuple[Effect, ...]:
        self.state = TERMINATED
        self._request = None
        return (Terminated(),)
