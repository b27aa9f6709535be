"""Messages out of a stream (RFC 3261 §18.3): where one ends is what its one Content-Length says.

Bytes go in by ``feed``, whole messages come out; nothing here reads a socket. A stream whose
next message has no certain end cannot go on: whatever follows might be a body taken for a request.

Between messages CRLFs may stand (RFC 3261 §7.5); two of them are a keep-alive (RFC 5626 §3.5.1).
"""

from __future__ import annotations

import re
from typing import Final

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.message import DEFAULT_LIMITS, Limits, Message, parse

PING: Final = b"\r\n\r\n"
"""The frame that stands for a keep-alive ping; answered with ``PONG``. Compare with ``is``."""
PONG: Final = b"\r\n"

_LINE_ENDS: Final = re.compile(rb"(?:\r\n)+")
_CONTENT_LENGTH: Final = re.compile(rb"\r\n(?:content-length|l)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)")
"""Content-Length in a lower-cased header section: long or compact, with its folds."""
_CR: Final = 13


class StreamFramer:
    """Cuts one stream into messages; holds one unfinished message at most, within the limits."""

    __slots__ = ("_buffer", "_half_ping", "_limits", "_needed", "_searched", "fault")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._needed = 0
        """Size of the message at the head of the buffer; 0 until its header section is complete."""
        self._searched = 0
        """How much of the buffer holds no end of the header section."""
        self._half_ping = False
        """A single CRLF was the last thing received."""
        self.fault: MalformedMessage | None = None
        """Why the stream cannot go on; set once and for all."""

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete, in order, and PING (a run of keep-alives is one).

        Raises MalformedMessage where the stream cannot go on: answer it where it has a message,
        then close. Messages that were complete before the fault are returned first; then ``fault``
        is set and the next call raises it.
        """
        if self.fault is not None:
            raise self.fault
        buffer = self._buffer
        if buffer:
            buffer += data
        # A read that begins a message mostly holds all of it: then nothing is copied.
        source: bytes | bytearray = buffer or data
        frames: list[bytes] = []
        try:
            used = self._cut(source, frames)
        except MalformedMessage as fault:
            self.fault = fault
            buffer.clear()
            if not frames:
                raise
            return frames
        if source is buffer:
            del buffer[:used]
        elif used < len(source):
            buffer += source[used:]
        return frames

    def _cut(self, source: bytes | bytearray, frames: list[bytes]) -> int:
        """Put every whole message of the source into ``frames``; returns how many bytes they took."""
        at, size = 0, len(source)
        while at < size:
            if not self._searched and not self._needed:
                at = self._skip_line_ends(source, at, frames)
                if at >= size or (source[at] == _CR and at + 1 == size):
                    break
                # No message begins with a control character or a blank: this is no SIP, or no longer.
                if not 32 < source[at] < 127:
                    raise MalformedMessage(400, "Bad start of message")
                self._half_ping = False
            needed = self._needed or self._measure(source, at)
            if not needed or at + needed > size:
                break
            frames.append(source if needed == size and isinstance(source, bytes) else bytes(source[at : at + needed]))
            at += needed
            self._needed = self._searched = 0
        return at

    def _skip_line_ends(self, source: bytes | bytearray, at: int, frames: list[bytes]) -> int:
        """Where the CRLFs between messages end; two in a row are a ping, a single one (a pong) means nothing."""
        run = _LINE_ENDS.match(source, at)
        if run is None:
            return at
        count = (run.end() - at) // 2 + self._half_ping
        self._half_ping = count % 2 == 1
        if count > 1:
            frames.append(PING)
        return run.end()

    def _measure(self, source: bytes | bytearray, at: int) -> int:
        """The size of the message that begins here; 0 where its header section is not complete."""
        limits = self._limits
        end = source.find(b"\r\n\r\n", at + max(0, self._searched - 3))
        size = (len(source) if end < 0 else end + 4) - at
        if size > limits.message:
            head = bytes(source[at : at + limits.message])
            raise MalformedMessage(513, "Message Too Large", self._read(head.rpartition(b"\r\n")[0]))
        if end < 0:
            self._searched = size
            return 0
        head = bytes(source[at:end])
        # RFC 3261 §18.3: a stream needs Content-Length; two of them, even equal ones, are what smuggling is made of.
        values = _CONTENT_LENGTH.findall(head.lower())
        if len(values) != 1:
            reason = "Several Content-Length" if values else "Missing Content-Length"
            raise MalformedMessage(400, reason, self._read(head))
        value = values[0].strip()
        if not value.isdigit() or len(value) > 10:
            raise MalformedMessage(400, "Bad Content-Length", self._read(head))
        length = int(value)
        if length > limits.body:
            raise MalformedMessage(413, "Request Entity Too Large", self._read(head))
        if size + length > limits.message:
            raise MalformedMessage(513, "Message Too Large", self._read(head))
        self._needed = size + length
        return self._needed

    def _read(self, head: bytes) -> Message | None:
        """What can be indexed of a header section, so that its sender may be answered."""
        try:
            return parse(head + b"\r\n\r\n", self._limits)
        except MalformedMessage as error:
            read: Message | None = error.message
            return read
