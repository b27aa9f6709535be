"""What became of a call or of one device, by the response that ended it. One table.

    status           outcome      because
    2xx              answered
    486, 600         busy         the callee is in another call
    486 after 180    declined     a device that is busy does not ring first; many endpoints decline like this
    603, 607         declined     a person refused (607: and does not want such calls)
    608              declined     refused on the callee's behalf (RFC 8688)
    404, 410, 484,   not_found    there is no such address, or not any more
    485, 604
    401, 402, 403,   forbidden    the caller may not, or did not show who it is
    407, 433, 436,
    437, 438
    430              offline      the flow to the device is gone (RFC 5626)
    408              no_answer    a device was reached, and nobody took the call in time
    480 (callee's)   no_answer    the device was reached, nobody is there (RFC 3261 §21.4.18)
    480 (ours)       offline      the address has no binding
    487              cancelled    also where some other server cancelled it
    anything else    failed       3xx included, where it is left to the caller to follow it

Two things come before the table: a call that the caller gave up is ``cancelled`` whatever the devices said in the
same moment, and one that was sent to devices of which none ever responded is ``offline``.

How a call came to its end (``end_cause``):

    bye                an endpoint hung up, and the other agreed or knew of no such call any more
    cancel             the caller gave up before the answer
    refused            a device, or this server, said no
    timeout            nobody answered in time
    unreachable        no device ever responded
    session_expired    the endpoints did not refresh the session in time (RFC 4028)
    connection_lost    the connection of one side broke, and it was not found any more
    registration_lost  one side's contact was no longer registered, and it was not found any more
    probe_failed       one side did not answer when it was asked, or knew of no such call, twice in a row
    no_evidence        for too long nothing showed that the call was up
    server_restart     the server was stopped or killed; nobody was watching the end

A BYE that nobody answers (64*T1 pass, or there is no way to the other side) ends the call all the same: whoever sent
it has hung up. ``ended_at`` is then when the BYE came, and ``end_uncertainty_ms`` is from then until it was given up,
within which the other side may have been in the call still.

The last six were not observed. ``ended_at`` is then the last moment at which both sides are known to have been there,
and the call ended within ``end_uncertainty_ms`` after it; ``talk_ms`` is the least that it lasted.
"""

from __future__ import annotations

from typing import Final

ANSWERED: Final = "answered"
CANCELLED: Final = "cancelled"
DECLINED: Final = "declined"
BUSY: Final = "busy"
NO_ANSWER: Final = "no_answer"
OFFLINE: Final = "offline"
NOT_FOUND: Final = "not_found"
FORBIDDEN: Final = "forbidden"
FAILED: Final = "failed"

CALL_OUTCOMES: Final = (ANSWERED, CANCELLED, DECLINED, BUSY, NO_ANSWER, OFFLINE, NOT_FOUND, FORBIDDEN, FAILED)
"""Every outcome that a call can have."""

ALSO_ANSWERED: Final = "also_answered"
"""Of a device: it answered as well as another one, and the caller kept the other."""
ELSEWHERE: Final = "elsewhere"
"""Of a device: it stopped ringing because another answered."""
UNREACHABLE: Final = "unreachable"
"""Of a device: it never responded."""
REDIRECTED: Final = "redirected"
"""Of a device: it named others (3xx), and they were tried in its place."""
CUT_SHORT: Final = "cut_short"
"""Of a device: the server was stopped or killed while it was tried or rang, and what became of it is not known."""

BY_STATUS: Final = {
    486: BUSY, 600: BUSY,
    603: DECLINED, 607: DECLINED, 608: DECLINED,
    404: NOT_FOUND, 410: NOT_FOUND, 484: NOT_FOUND, 485: NOT_FOUND, 604: NOT_FOUND,
    401: FORBIDDEN, 402: FORBIDDEN, 403: FORBIDDEN, 407: FORBIDDEN, 433: FORBIDDEN, 436: FORBIDDEN,
    437: FORBIDDEN, 438: FORBIDDEN,
    430: OFFLINE,
    408: NO_ANSWER, 480: NO_ANSWER,
    487: CANCELLED,
}  # fmt: skip


def call_outcome(status: int, *, by_server: bool, cancelled: bool, tried: bool, reached: bool, rang: bool) -> str:
    """What became of a call whose final response was this status, no 2xx.

    ``by_server``: the response was this server's own. ``tried``: at least one device was sent the INVITE;
    ``reached``: at least one of them responded; ``rang``: one of them rang.
    """
    if cancelled:
        return CANCELLED
    if tried and not reached:
        return OFFLINE
    if status == 480 and by_server:
        return OFFLINE
    return _by_status(status, rang)


def branch_outcome(
    status: int, *, responded: bool, rang: bool, answered_elsewhere: bool, cancelled: bool = False
) -> str:
    """What became of one device that did not answer; ``responded``: its final response came from itself."""
    if answered_elsewhere and (status == 487 or (rang and not responded)):
        return ELSEWHERE
    # It rang, was told to stop, and never said that it did.
    if cancelled and rang and not responded:
        return CANCELLED
    if responded:
        return _by_status(status, rang)
    return NO_ANSWER if rang else UNREACHABLE


def _by_status(status: int, rang: bool) -> str:
    return DECLINED if status == 486 and rang else BY_STATUS.get(status, FAILED)
