"""The timers of RFC 3261 (table 4) and RFC 6026, by name; durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TIMER_A: Final = "A"
"""INVITE client, unreliable: retransmit the request."""
TIMER_B: Final = "B"
"""INVITE client: no final response came."""
TIMER_C: Final = "C"
"""Proxy: an INVITE branch has been ringing for too long (§16.6 step 11)."""
TIMER_D: Final = "D"
"""INVITE client: how long response retransmissions are absorbed."""
TIMER_E: Final = "E"
"""Non-INVITE client, unreliable: retransmit the request."""
TIMER_F: Final = "F"
"""Non-INVITE client: no final response came."""
TIMER_G: Final = "G"
"""INVITE server, unreliable: retransmit the final response."""
TIMER_H: Final = "H"
"""INVITE server: no ACK came."""
TIMER_I: Final = "I"
"""INVITE server, unreliable: how long ACK retransmissions are absorbed."""
TIMER_J: Final = "J"
"""Non-INVITE server, unreliable: how long request retransmissions are absorbed."""
TIMER_K: Final = "K"
"""Non-INVITE client, unreliable: how long response retransmissions are absorbed."""
TIMER_L: Final = "L"
"""INVITE server: how long INVITE retransmissions are absorbed after a 2xx (RFC 6026)."""
TIMER_M: Final = "M"
"""INVITE client: how long 2xx retransmissions are passed on (RFC 6026)."""


@dataclass(slots=True)
class Timers:
    """The base values from which every duration follows."""

    t1: float = 0.5
    """Estimate of the round-trip time."""
    t2: float = 4.0
    """Longest interval between retransmissions of non-INVITE requests and INVITE responses."""
    t4: float = 5.0
    """Longest time a message stays in the network."""
    c: float = 185.0
    """Timer C; §16.6 step 11 asks for more than three minutes."""
    d: float = 32.0
    """Timer D on unreliable transports; at least 32 s."""
