"""Challenges that nobody answers: scanners, endpoints without a password, calls that end before they begin.

A challenge is sent without a transaction, so all that is kept is an entry per Call-ID, taken away by the request that
comes again with credentials. What is left after PATIENCE is an error. Until then a retransmission of the request gets
the same answer, as from a transaction: one with another nonce is a second answer to whoever compares them. Bounded:
beyond MAX_WATCHED a challenge is not watched, and counted.

Challenges inside calls (``proxy.source``) are watched apart, by Call-ID and host, and not for as long: a device that
has roamed answers at once, and a forger never does.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from sipserver.calls.faults import CHALLENGE_UNANSWERED
from sipserver.calls.observe import printable
from sipserver.calls.recorder import Recorder
from sipserver.sip import names
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request

PATIENCE: Final = 32.0
"""Seconds, 64*T1: by then the transaction of whoever was challenged has ended. Who asks a person may take longer."""
EXPIRED_AT_ONCE: Final = 1_000
"""Challenges that are given up in one go at most."""
MAX_WATCHED: Final = 20_000
"""Challenges that are watched at a time; each takes about a kilobyte."""


class Challenges:
    """The challenges that wait for an answer, the oldest first. Times are UNIX time in seconds."""

    def __init__(
        self, recorder: Recorder, patience: float = PATIENCE, max_watched: int = MAX_WATCHED,
        kind: str = CHALLENGE_UNANSWERED,
    ) -> None:  # fmt: skip
        """``kind`` is that of the errors."""
        self._recorder = recorder
        self._kind = kind
        self.patience = patience
        """Seconds."""
        self._max_watched = max_watched
        self._waiting: dict[str, tuple[float, str, int, str, str | None, str | None, bytes, str | None, int]] = {}
        self.unanswered = 0
        """Challenges that were never answered."""
        self.unwatched = 0
        """Challenges of which nobody will know, since too many were waiting."""

    def __len__(self) -> int:
        return len(self._waiting)

    def repeated(self, request: Request) -> bytes | None:
        """The challenge that this very request got already, and has not answered yet; None where it got none."""
        waiting = self._waiting.get(request.call_id)
        return waiting[6] if waiting is not None and waiting[5] == request.top_via.branch else None

    def sent(
        self, request: Request, flow: Flow, status: int, now: float, answer: bytes, key: str = "",
        call: str | None = None, offset: int = 0,
    ) -> None:  # fmt: skip
        """This request was challenged, by this answer. Its retransmissions are too, and change nothing.

        ``key`` is for ``answered``, where that is not the Call-ID. ``call`` is the row of the call that it is for, and
        ``offset`` how many milliseconds its clock is ahead.
        """
        waiting = self._waiting
        key = key or request.call_id
        if key in waiting:
            return
        if len(waiting) >= self._max_watched:
            self.unwatched += 1
            return
        # Most are answered at once, and then nobody wants to know the agent: only its line is kept.
        place = request.places.get(names.USER_AGENT, -1)
        agent = request.lines[place] if place >= 0 else None
        waiting[key] = (
            now, request.method, status, flow.host, agent, request.top_via.branch, answer, call, offset
        )  # fmt: skip

    def answered(self, key: str) -> None:
        """A request with credentials came, whatever becomes of it."""
        self._waiting.pop(key, None)

    def expire(self, now: float) -> bool:
        """Note some of those that have waited too long; whether there may be more. To be called about once a second,
        and until then."""
        waiting = self._waiting
        for call_id, entry in list(islice(waiting.items(), EXPIRED_AT_ONCE)):
            since, method, status, host, agent = entry[:5]
            # A clock that was set back makes them wait once more at most.
            if 0 <= now - since < self.patience:
                return False
            del waiting[call_id]
            if now < since:
                waiting[call_id] = now, method, status, host, agent, entry[5], entry[6], entry[7], entry[8]
                continue
            self.unanswered += 1
            self._recorder.error(
                at=int(since * 1000), kind=self._kind, method=method, status=status,
                agent=printable(agent.partition(":")[2].strip()) if agent is not None else None, source=host,
                call=entry[7], offset=entry[8],
            )  # fmt: skip
        return len(waiting) > 0
