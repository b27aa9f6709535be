"""The timers of RFC 3261 (table 4) and RFC 6026, by name; durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass

TIMER_A = "A"
"""INVITE client, unreliable: retransmit the request."""
TIMER_B = "B"
"""INVITE client: no final response came."""
TIMER_C = "C"
"""Proxy: an INVITE branch has been ringing for too long (§16.6 step 11)."""
TIMER_D = "D"
"""INVITE client: how long response retransmissions are absorbed."""
TIMER_E = "E"
"""Non-INVITE client, unreliable: retransmit the request."""
TIMER_F = "F"
"""Non-INVITE client: no final response came."""
TIMER_G = "G"
"""INVITE server, unreliable: retransmit the final response."""
TIMER_H = "H"
"""INVITE server: no ACK came."""
TIMER_I = "I"
"""INVITE server, unreliable: how long ACK retransmissions are absorbed."""
TIMER_J = "J"
"""Non-INVITE server, unreliable: how long request retransmissions are absorbed."""
TIMER_K = "K"
"""Non-INVITE client, unreliable: how long response retransmissions are absorbed."""
TIMER_L = "L"
"""INVITE server: how long INVITE retransmissions are absorbed after a 2xx (RFC 6026)."""
TIMER_M = "M"
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
