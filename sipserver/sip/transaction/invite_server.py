"""The INVITE server transaction: RFC 3261 §17.2.1 with figure 7 as RFC 6026 §8.6 redraws it.

State       on entering                   left by
PROCEEDING  (the INVITE came)             a final response of the TU
ACCEPTED    2xx sent, timer L             L
COMPLETED   300-699 sent, timers G and H  ACK, or H (the TU hears of it)
CONFIRMED   timer I                       I
TERMINATED  everything is let go

G runs on unreliable transports alone: T1, doubling up to T2; each G sets the next while COMPLETED lasts,
so there is one chain of them. H and L are 64*T1, I is T4, or nothing where the transport is reliable. Each is
set once, and in any other state than its own a timer means nothing.

The first 100 is the TU's to send. The machine repeats what was sent last for a repeated INVITE, but never
a 2xx: that one is repeated by whoever answered the call. A response that cannot be sent is reported and
leaves the state as it is, so that a repeated INVITE is not taken for a new call (RFC 6026 §7.1).
"""

from __future__ import annotations

from typing import Final

from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Effect, Failed, Send, SetTimer, Terminated
from sipserver.sip.message import Request
from sipserver.sip.timers import TIMER_G, TIMER_H, TIMER_I, TIMER_L, Timers
from sipserver.sip.transaction.keys import acknowledges

PROCEEDING: Final = 0
ACCEPTED: Final = 1
COMPLETED: Final = 2
CONFIRMED: Final = 3
TERMINATED: Final = 4


class InviteServer:
    """One INVITE being answered; the INVITE itself has gone to the TU already."""

    __slots__ = ("_interval", "_last", "_reliable", "_timers", "state")

    def __init__(self, reliable: bool, timers: Timers) -> None:
        self.state = PROCEEDING
        self._reliable = reliable
        self._timers = timers
        self._last = b""
        """What a repeated INVITE is answered with; empty while there is nothing."""
        self._interval = timers.t1
        """Seconds that timer G was last set to."""

    def respond(self, status: int, data: bytes) -> tuple[Effect, ...]:
        """The TU answers; what the state does not allow any more is dropped."""
        if 200 <= status < 300:
            return self._accept(data)
        if self.state != PROCEEDING:
            return ()
        self._last = data
        if status < 200:
            return (Send(data),)
        self.state = COMPLETED
        set_h = SetTimer(TIMER_H, 64 * self._timers.t1)
        if self._reliable:
            return set_h, Send(data)
        return set_h, SetTimer(TIMER_G, self._interval), Send(data)

    def _accept(self, data: bytes) -> tuple[Effect, ...]:
        if self.state == PROCEEDING:
            # RFC 6026 §7.1: stay for 64*T1 to absorb repetitions of the INVITE.
            self.state = ACCEPTED
            self._last = b""
            return SetTimer(TIMER_L, 64 * self._timers.t1), Send(data)
        if self.state == TERMINATED:
            return ()
        # RFC 6026 §7.1: a further 2xx is passed on as it is. RFC 3261 §16.7 step 5: so is one that comes
        # after another final response, which the figure has no arrow for; it changes nothing here.
        return (Send(data),)

    def on_request(self, request: Request) -> tuple[Effect, ...]:
        """The INVITE once more, or an ACK."""
        if request.method == "ACK":
            return self._on_ack(request)
        # ACCEPTED and CONFIRMED absorb it: they hold nothing to repeat.
        return (Send(self._last),) if self._last else ()

    def _on_ack(self, ack: Request) -> tuple[Effect, ...]:
        if self.state == ACCEPTED:
            # RFC 6026 §7.1: the ACK of a 2xx belongs to the TU, whatever branch it came with.
            return (Deliver(ack),)
        if self.state != COMPLETED:
            return ()
        if not acknowledges(ack, self._last):
            return (Deliver(ack),)
        if self._reliable:
            return self._terminate()
        self.state = CONFIRMED
        self._last = b""
        return (SetTimer(TIMER_I, self._timers.t4),)

    def on_timer(self, timer: str) -> tuple[Effect, ...]:
        """A timer that was set is due."""
        if self.state == COMPLETED:
            if timer == TIMER_G:
                self._interval = min(2 * self._interval, self._timers.t2)
                return SetTimer(TIMER_G, self._interval), Send(self._last)
            if timer == TIMER_H:
                # RFC 3261 §17.2.1: no ACK came; the TU is told.
                return (Failed(TIMED_OUT), *self._terminate())
        elif (self.state == CONFIRMED and timer == TIMER_I) or (self.state == ACCEPTED and timer == TIMER_L):
            return self._terminate()
        return ()

    def on_transport_error(self) -> tuple[Effect, ...]:
        """What was sent last could not be delivered."""
        # RFC 6026 §8.8: the TU is told and the state stays.
        return (Failed(UNREACHABLE),) if self.state in (PROCEEDING, ACCEPTED, COMPLETED) else ()

    def _terminate(self) -> tuple[Effect, ...]:
        self.state = TERMINATED
        self._last = b""
        return (Terminated(),)
