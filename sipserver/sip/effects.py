"""What a machine asks of the world around it. Machines return these; the driver carries them out, in order.

A transaction machine's effects mean its own transaction: ``Send`` goes to its flow, ``SetTimer``
comes back to its ``on_timer``. A timer that is no longer wanted needs no cancelling: a machine
ignores a timer that does not belong to its state.

Treat instances as immutable. They are not frozen because that doubles the cost of making one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.sip.message import Message

TIMED_OUT: Final = "timeout"
"""``Failed``: no response in time (RFC 3261 §8.1.3.1: like a 408)."""
UNREACHABLE: Final = "transport"
"""``Failed``: the transport could not deliver (RFC 3261 §8.1.3.1: like a 503)."""


class Effect:
    """Base of all effects."""

    __slots__ = ()


@dataclass(slots=True)
class Send(Effect):
    """Put these bytes on the transaction's flow."""

    data: bytes


@dataclass(slots=True)
class SetTimer(Effect):
    """Call ``on_timer(timer)`` after so many seconds."""

    timer: str
    after: float


@dataclass(slots=True)
class Deliver(Effect):
    """Hand the message to the transaction user."""

    message: Message


@dataclass(slots=True)
class Failed(Effect):
    """Tell the transaction user that the transaction failed: TIMED_OUT or UNREACHABLE."""

    cause: str


@dataclass(slots=True)
class Terminated(Effect):
    """The machine has ended: forget it."""


@dataclass(slots=True)
class NeedCredentials(Effect):
    """Whose credentials are these? Answered with ``digest.Credentials`` or None."""

    username: str
    realm: str
    algorithm: str
    """``MD5``, ``SHA-256`` or ``SHA-512-256``."""
