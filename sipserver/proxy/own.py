"""What ends at this server itself: questions about it, and reports to it."""

from __future__ import annotations

from typing import Final

from sipserver.proxy.plan import ANSWER, COLLECT, Plan, Settings
from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request
from sipserver.sip.quality import EVENT as QUALITY_EVENT
from sipserver.sip.quality import MEDIA_TYPE as QUALITY_TYPE

ALLOW: Final = "Allow: NOTIFY, OPTIONS, PUBLISH, REGISTER"
"""What this server itself does, as opposed to what it passes on."""

_KNOWN_METHODS: Final = frozenset(
    ("INVITE", "BYE", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "INFO", "UPDATE", "REFER", "PRACK", "REGISTER")
)
REPORTING: Final = frozenset(("PUBLISH", "NOTIFY"))


def plan_answer(plan: Plan, settings: Settings) -> Plan:
    """RFC 3261 §11.2: what this server says of itself when it is asked."""
    plan.kind = ANSWER
    plan.headers = (
        ALLOW, f"Allow-Events: {QUALITY_EVENT}", f"Accept: application/sdp, {QUALITY_TYPE}",
        "Accept-Encoding: identity", "Accept-Language: en", f"Supported: {', '.join(settings.supported)}",
    )  # fmt: skip
    return plan


def is_report(request: Request, for_us: bool) -> bool:
    """Whether a PUBLISH or NOTIFY brings a report of quality: that ends here, whichever of our addresses it names.

    Raises SipError(489) for another event that is published to this server itself (RFC 3903 §6 step 2).
    """
    event = (request.header(names.EVENT) or "").partition(";")[0].strip().lower()
    if event == QUALITY_EVENT:
        return True
    if for_us and request.method == "PUBLISH":
        raise SipError(489, "Bad Event", (f"Allow-Events: {QUALITY_EVENT}",))
    return False


def plan_collect(plan: Plan) -> Plan:
    """RFC 6035 §6: reports are taken from whom one knows. No Route leads past this server."""
    if plan.caller is None or plan.routes:
        raise SipError(403, "Forbidden")
    plan.kind = COLLECT
    return plan


def not_for_us(method: str) -> SipError:
    """RFC 3261 §8.2.1 and §21.5.2: 405 for a method that is known and not for this server, 501 for one that is not."""
    if method in _KNOWN_METHODS:
        return SipError(405, "Method Not Allowed", (ALLOW,))
    return SipError(501, "Not Implemented")
