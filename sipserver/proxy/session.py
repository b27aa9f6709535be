"""Session timers at a proxy (RFC 4028 §8): what a session refresh request and its 2xx look like when they go on.

A session refresh request is an INVITE or an UPDATE, the first one as well as those inside the call. Where the operator
wants it, this server asks for a timer in each of them; then either endpoint that knows the extension refreshes the
session, and a session that was not refreshed in time is over, whether or not anybody said so.

    ``insert``    ask for a timer where nobody did, shorten intervals that are longer than wanted, refuse those that are
                  too short (422), and tell a caller that it has to refresh where the callee does not know timers
    ``observe``   change nothing, but believe the interval that the endpoints agree on
    ``off``       look at none of it

A value that cannot be read is left to the endpoints: it is passed on as it came, and promises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Request, Response

INSERT: Final = "insert"
OBSERVE: Final = "observe"
OFF: Final = "off"

DEFAULT_MINIMUM: Final = 90
"""Seconds: what Min-SE is where nobody says so, and the least that it may be (§5)."""

TIMER: Final = "timer"
"""The option tag."""

LONGEST: Final = 2**31 - 1
"""Seconds of the longest interval that a session is taken to have."""


@dataclass(slots=True, eq=False)
class Timing:
    """What was asked for in a session refresh request; remembered until its final response (§8.1)."""

    interval: int
    """Seconds, as in the request that goes on; 0 where this server asked for nothing."""
    supported: bool
    """Whether the sender of the request knows session timers."""
    session_expires: str | None = None
    """The line to put in the place of the Session-Expires that came."""
    min_se: str | None = None
    """The line to put in the place of the Min-SE that came."""
    added: tuple[str, ...] = ()
    """Lines to add."""


NOTHING: Final = Timing(0, False)
"""Nothing was asked for."""


class SessionTimers:
    """What the operator decided about session timers; times in seconds."""

    __slots__ = ("_inserted", "_inserted_for_supporter", "expires", "minimum", "mode")

    def __init__(self, mode: str = OFF, expires: int = 1800, minimum: int = DEFAULT_MINIMUM) -> None:
        self.mode = mode
        self.expires = expires
        """The interval that is asked for, and the longest that is let through."""
        self.minimum = minimum
        """A shorter interval is refused, or raised where its sender would not know what the refusal means."""
        asked = f"Session-Expires: {expires}"
        # Most INVITEs say nothing of timers, and get one of these two.
        self._inserted_for_supporter = Timing(expires, True, added=(asked,))
        # §8.1: Min-SE is never put into the request of somebody who would put it there himself. For all others it keeps
        # the callee from choosing less (§11.1); the default of 90 need not be said.
        least = (f"Min-SE: {minimum}",) if minimum > DEFAULT_MINIMUM else ()
        self._inserted = Timing(expires, False, added=(asked, *least))

    def on_request(self, request: Request) -> Timing:
        """What this session refresh request asks for when it goes on (§8.1). Raises SipError(422)."""
        if self.mode != INSERT:
            return NOTHING
        found = request.places
        supported = supports_timer(request)
        if names.SESSION_EXPIRES not in found and names.MIN_SE not in found:
            return self._inserted_for_supporter if supported else self._inserted
        least = _only_seconds(request, names.MIN_SE)
        interval = _only_seconds(request, names.SESSION_EXPIRES)
        if least < 0 or interval < 0:
            return NOTHING
        if supported:
            if 0 < interval < self.minimum:
                raise SipError(422, "Session Interval Too Small", (f"Min-SE: {max(self.minimum, DEFAULT_MINIMUM)}",))
            return self._timing(request, interval, least, supported=True)
        return self._timing(request, interval, max(least, self.minimum), supported=False)

    def _timing(self, request: Request, interval: int, least: int, *, supported: bool) -> Timing:
        """``interval`` and ``least`` are 0 where the request says nothing of them."""
        # An interval is shortened to what is wanted, but never below Min-SE; one below Min-SE is raised to it.
        wanted = max(min(interval or self.expires, self.expires), least)
        timing = Timing(wanted, supported)
        if not interval:
            timing.added = (f"Session-Expires: {wanted}",)
        elif wanted != interval:
            # The refresher is for the endpoints to choose: that parameter, and every other, stays.
            rest = (request.header(names.SESSION_EXPIRES) or "").partition(";")
            timing.session_expires = f"Session-Expires: {wanted}{rest[1]}{rest[2]}"
        if not supported and least != _only_seconds(request, names.MIN_SE):
            if request.has(names.MIN_SE):
                timing.min_se = f"Min-SE: {least}"
            elif least > DEFAULT_MINIMUM:
                timing.added = (*timing.added, f"Min-SE: {least}")
        return timing

    def interval(self, response: Response) -> int:
        """The session interval of a 2xx that goes upstream, in seconds; 0 for a session that does not expire (§8.2)."""
        if self.mode == OFF or not response.has(names.SESSION_EXPIRES):
            return 0
        return min(max(_only_seconds(response, names.SESSION_EXPIRES), 0), LONGEST)


def complete_answer(response: Response, timing: Timing) -> None:
    """Ask the sender of the request to refresh, where the answering side knows no timers (§8.2), in place.

    For a 2xx to a session refresh request. Where several proxies asked, the one nearest to the answer does this.
    """
    if not timing.supported or not timing.interval or response.has(names.SESSION_EXPIRES):
        return
    response.add_line(names.SESSION_EXPIRES, f"Session-Expires: {timing.interval};refresher=uac")
    if not response.has(names.REQUIRE):
        response.add_line(names.REQUIRE, f"Require: {TIMER}")
    elif TIMER not in response.option_tags(names.REQUIRE):
        position = response.places[names.REQUIRE]
        response.replace_line(position, f"Require: {response.value_at(position)}, {TIMER}")


def supports_timer(message: Message) -> bool:
    """Whether its sender knows session timers: ``timer`` in Supported (§7.1)."""
    return message.has(names.SUPPORTED) and TIMER in message.option_tags(names.SUPPORTED)


def _only_seconds(message: Message, name: str) -> int:
    """The delta-seconds of this header; 0 where it is not there, -1 where it cannot be read or stands there twice."""
    count = message.count(name)
    if count != 1:
        return -1 if count else 0
    text = (message.header(name) or "").partition(";")[0].strip(" \t")
    if not text.isdigit() or not text.isascii() or len(text) > 10:
        return -1
    # None lasts no time at all: such a value promises nothing.
    return int(text) or -1
