"""What can go wrong with a message, a call, a connection or a store: every ``kind`` in ``errors``, with its meaning.

A kind is stable: analysts count by it, so one is never renamed and never means something else. The list is closed:
whatever is noted is in ``KINDS``, and a test looks at every place where something is.

Who answered is told apart from what happened:

    server    this server refused, or could not do, what was asked of it; ``agent`` is who asked
    peer      an endpoint or another server answered with an error; ``agent`` is who answered
    network   nobody answered, or nothing could be sent; ``agent`` is who did not answer, where that is known

``party`` is whoever asked and proved who they are, ``target`` whoever was asked.

What is no error: that somebody is busy, declines, is not there or does not take the call in time, that a call is
cancelled, and answers that only ask for the request to be sent again in another way. The call's row has the outcome.
"""

from __future__ import annotations

from typing import Final

SERVER: Final = "server"
PEER: Final = "peer"
NETWORK: Final = "network"

ANSWERED_BY: Final = (SERVER, PEER, NETWORK)
"""Every value of ``answered_by``."""

MALFORMED: Final = "malformed"
MALFORMED_RESPONSE: Final = "malformed_response"
STRAY: Final = "stray"
CREDENTIALS: Final = "credentials"
CHALLENGE_UNANSWERED: Final = "challenge_unanswered"
REGISTRATION: Final = "registration"
REFUSED: Final = "refused"
CANCEL: Final = "cancel"
FORGED: Final = "forged"
UNREADABLE_SDP: Final = "unreadable_sdp"
QUALITY: Final = "quality"
LOCATION: Final = "location"
OVERLOAD: Final = "overload"
RATE: Final = "rate"
FAULT: Final = "fault"
STORE: Final = "store"
PEER_ERROR: Final = "peer_error"
TIMEOUT: Final = "timeout"
UNREACHABLE: Final = "unreachable"
FLOW_FAILED: Final = "flow_failed"
UNACKNOWLEDGED: Final = "unacknowledged"
UNDELIVERED: Final = "undelivered"
MEDIA_RELAY: Final = "media_relay"
ADDRESS_GONE: Final = "address_gone"
CONNECTION_TIMEOUT: Final = "connection_timeout"
CONNECTION_CUT_OFF: Final = "connection_cut_off"
CONNECTION_REFUSED: Final = "connection_refused"
CONNECTION_DEAD: Final = "connection_dead"
HANDSHAKE: Final = "handshake"
TLS_HANDSHAKE: Final = "tls_handshake"

KINDS: Final = {
    MALFORMED: "A request, or bytes that are no message at all, could not be read.",
    MALFORMED_RESPONSE: "A response could not be read or led nowhere, and was dropped.",
    STRAY: "A response or an ACK belongs to no request or call that is known here.",
    CREDENTIALS: "Credentials did not prove who sent the request.",
    CHALLENGE_UNANSWERED: "A request was challenged, and never came again with credentials.",
    REGISTRATION: "A registration was refused for another reason than its credentials.",
    REFUSED: "A request was not let through: forbidden, unknown address, no such call, loop, too many hops.",
    CANCEL: "A CANCEL matches no request of its sender.",
    FORGED: "A request for a call came from somebody who has no part in it.",
    UNREADABLE_SDP: "A session description could not be read; the call went on, and its media are not known.",
    QUALITY: "A quality report could not be read, or there were too many.",
    LOCATION: "A location that an endpoint sent could not be read; the call or sign-in went on without it.",
    OVERLOAD: "A bound of this server was reached, work waited too long for new to be taken, or it was stopping.",
    RATE: "A subscriber or a named peer sent more requests, or has more calls, than it may.",
    FAULT: "A mistake of this program; the log has where.",
    STORE: "A store refused what was to be written, or could not be read.",
    PEER_ERROR: "An endpoint or another server answered with an error.",
    TIMEOUT: "A request that was sent on got no answer in time.",
    UNREACHABLE: "A request could not be sent on: no address, no connection, or the connection broke.",
    FLOW_FAILED: "An endpoint behind a NAT did not answer its pings, and was taken out of use.",
    UNACKNOWLEDGED: "A final answer to an INVITE was never acknowledged.",
    UNDELIVERED: "An answer could not be sent, because the connection was gone.",
    ADDRESS_GONE: "This machine has lost an address that it listens at; nobody reaches it there until it is back.",
    MEDIA_RELAY: "A media relay did not answer, or a call that needs one was left without, or refused.",
    CONNECTION_TIMEOUT: "A connection was closed since no whole message came in time.",
    CONNECTION_CUT_OFF: "A connection was closed since its peer did not read what it was sent.",
    CONNECTION_REFUSED: "A connection was closed at once, since there were too many.",
    CONNECTION_DEAD: "A connection was closed since its peer did not answer a ping.",
    HANDSHAKE: "A WebSocket handshake was refused: origin, path, subprotocol, or none at all; the status is HTTP's.",
    TLS_HANDSHAKE: "A connection could not be secured: a certificate is not good, no TLS in common, too slow.",
}
"""Every kind, with what it means."""

ORDINARY: Final = frozenset((401, 407, 422, 480, 486, 487, 491, 600, 603, 607, 608))
"""Final responses that are no error, whoever sends them.

401, 407    a challenge, which the caller answers
422, 491    try again with another interval (RFC 4028 §6), or a little later (RFC 3261 §14.2)
480         nobody is there
486, 600    busy
487         cancelled
603 to 608  declined
"""

NO_ANSWER: Final = 408
"""Of an INVITE no error either: it rang, and nobody took the call."""


def is_error(method: str, status: int) -> bool:
    """Whether a peer's final response to this method is an error; redirections are none (RFC 3261 §21.3)."""
    return status >= 400 and status not in ORDINARY and not (status == NO_ANSWER and method == "INVITE")
