"""A device that a call was sent to, until its part in it is over: a row of ``call_branches`` (RFC 3261 §16.7). Pure."""

from __future__ import annotations

from sipserver.calls import outcomes
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.rows import InsertBranch, OpenBranch


class Branch:
    """A device that was tried and whose part is not over."""

    __slots__ = ("agent", "network", "place", "ringing_at", "transport", "tried_at")

    def __init__(
        self,
        tried_at: int,
        transport: str | None,
        network: str | None,
        agent: str | None = None,
        place: Place = NOWHERE,
    ) -> None:
        self.tried_at = tried_at
        self.transport = transport
        self.network = network
        self.place = place
        self.ringing_at: int | None = None
        self.agent = agent

    def begun(self, call: str, number: int) -> OpenBranch:
        """Its part has begun, or it rings."""
        return OpenBranch(call, number, self.tried_at, self.ringing_at, self.agent, self.transport, self.network)

    def over(
        self, call: str, number: int, at: int, status: int | None, outcome: str, agent: str | None
    ) -> InsertBranch:
        """Its part is over; of one that answered it is not, and its end is the call's."""
        answered = outcome in (outcomes.ANSWERED, outcomes.ALSO_ANSWERED)
        return InsertBranch(
            call, number, self.tried_at, self.ringing_at, at if answered else None, None if answered else at, status,
            outcome, agent or self.agent, self.transport, self.network,
        )  # fmt: skip
