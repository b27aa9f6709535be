"""What can go wrong with a message, and how it is answered.

    SipError                a peer's fault that has an answer: status, reason phrase, extra header lines
      MalformedMessage      the bytes are no valid SIP message; carries what could be read of them

A fault of our own never appears here: it fails an assertion instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SipError(Exception):
    """A peer's fault, with the response that answers it (RFC 3261 §21)."""

    def __init__(self, status: int, reason: str, headers: Sequence[str] = ()) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        """The reason phrase: names the fault, never echoes what the peer sent."""
        self.headers: tuple[str, ...] = tuple(headers)
        """Whole header lines for the response, such as ``Unsupported: foo``."""


class MalformedMessage(SipError):
    """Bytes that are no valid SIP message.

    ``message`` holds what could be indexed, a ``sip.message.Message``, so that a request may still be answered;
    None means that nothing can be said to the sender.
    """

    def __init__(self, status: int, reason: str, message: Any = None) -> None:
        super().__init__(status, reason)
        self.message = message
