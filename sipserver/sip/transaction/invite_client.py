"""The INVITE client transaction: RFC 3261 §17.1.1 with figure 5 as RFC 6026 §8.4 redraws it.

State       on entering                    left by
CALLING     INVITE sent, timers A and B    any response, or B (the TU hears of it)
PROCEEDING  1xx to the TU                  a final response
ACCEPTED    2xx to the TU, timer M         M
COMPLETED   300-699 to the TU, ACK sent,   D
            timer D
TERMINATED  everything is let go

A runs on unreliable transports alone: T1, doubling without end; each A sets the next while CALLING lasts,
so there is one chain of them. B and M are 64*T1; D is as configured (32 s), or nothing where the transport is
reliable. A transport error ends every state but ACCEPTED, which sends nothing.

PROCEEDING has no timer of its own: the TU's timer C watches the ringing. When the TU cancels, RFC 3261 §9.1 gives
the peer 64*T1 more for its final response; RFC 3261 has no letter for that timer, here it is TIMER_CANCEL.

Final responses after the first are ignored but for their ACK. A 2xx after a refusal is one of them: RFC 3261
§13.2.2.3 has the caller ignore it, RFC 6026 draws no arrow for it, and whoever answered so late gives up by itself.
"""

from __future__ import annotations

from typing import Final

from sipserver.sip import build
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Effect, Failed, Send, SetTimer, Terminated
from sipserver.sip.message import Response
from sipserver.sip.timers import TIMER_A, TIMER_B, TIMER_D, TIMER_M, Timers

CALLING: Final = 0
PROCEEDING: Final = 1
ACCEPTED: Final = 2
COMPLETED: Final = 3
TERMINATED: Final = 4

TIMER_CANCEL: Final = "CANCEL"
"""How long a cancelled INVITE is waited for (RFC 3261 §9.1)."""


class InviteClient:
    """One INVITE that was sent."""

    __slots__ = ("_abandoned", "_ack", "_interval", "_reliable", "_request", "_timers", "state")

    def __init__(self, request: OutgoingRequest, reliable: bool, timers: Timers) -> None:
        self.state = CALLING
        self._request: OutgoingRequest | None = request
        """The INVITE, until a final response came."""
        self._reliable = reliable
        self._abandoned = False
        self._timers = timers
        self._ack = b""
        """The ACK of a refusal, while COMPLETED."""
        self._interval = timers.t1
        """Seconds that timer A was last set to."""

    def start(self) -> tuple[Effect, ...]:
        """Send the INVITE; called once, before everything else."""
        assert self._request is not None, "start() after the end"
        set_b = SetTimer(TIMER_B, 64 * self._timers.t1)
        if self._reliable:
            return set_b, Send(self._request.data)
        return set_b, SetTimer(TIMER_A, self._interval), Send(self._request.data)

    def on_response(self, response: Response) -> tuple[Effect, ...]:
        """A response with the branch and method of the INVITE."""
        status = response.status
        if self.state == ACCEPTED:
            # RFC 6026 §7.2: each 2xx goes to the TU, the repeated and those of other branches downstream.
            return (Deliver(response),) if 200 <= status < 300 else ()
        if self.state == COMPLETED:
            # RFC 3261 §17.1.1.2: the refusal came again, so the ACK was lost.
            return (Send(self._ack),) if status >= 300 else ()
        if self._request is None:
            return ()
        if status < 200:
            self.state = PROCEEDING
            return (Deliver(response),)
        if status < 300:
            self.state = ACCEPTED
            self._request = None
            return SetTimer(TIMER_M, 64 * self._timers.t1), Deliver(response)
        ack = build.ack(self._request, response).data
        self._request = None
        if self._reliable:
            # Timer D of no length: the ACK leaves and nothing is left to wait for.
            self.state = TERMINATED
            return Deliver(response), Terminated(), Send(ack)
        self.state = COMPLETED
        self._ack = ack
        return SetTimer(TIMER_D, self._timers.d), Deliver(response), Send(ack)

    def on_cancel(self) -> tuple[Effect, ...]:
        """The TU has sent a CANCEL for this INVITE, which it may do once it is PROCEEDING (RFC 3261 §9.1)."""
        return (SetTimer(TIMER_CANCEL, 64 * self._timers.t1),) if self.state == PROCEEDING else ()

    def on_abandoned(self) -> None:
        """The TU has turned elsewhere (RFC 3263 §4.3): nothing is sent again, and who answers late is heard."""
        self._abandoned = True

    def on_timer(self, timer: str) -> tuple[Effect, ...]:
        """A timer that was set is due."""
        if self.state == CALLING:
            if timer == TIMER_A and self._request is not None and not self._abandoned:
                self._interval *= 2
                return SetTimer(TIMER_A, self._interval), Send(self._request.data)
            if timer == TIMER_B:
                return (Failed(TIMED_OUT), *self._terminate())
        elif self.state == PROCEEDING:
            # RFC 3261 §9.1: no final response 64*T1 after the CANCEL; the INVITE is over all the same.
            if timer == TIMER_CANCEL:
                return (Failed(TIMED_OUT), *self._terminate())
        elif (self.state == COMPLETED and timer == TIMER_D) or (self.state == ACCEPTED and timer == TIMER_M):
            return self._terminate()
        return ()

    def on_transport_error(self) -> tuple[Effect, ...]:
        """What was sent last could not be delivered, or the connection it went over is gone."""
        # ACCEPTED has its answer and sends nothing more.
        if self.state in (ACCEPTED, TERMINATED):
            return ()
        return (Failed(UNREACHABLE), *self._terminate())

    def _terminate(self) -> tuple[Effect, ...]:
        self.state = TERMINATED
        self._request = None
        self._ack = b""
        return (Terminated(),)
