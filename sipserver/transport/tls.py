"""TLS on a connection: the handshake, computed in a thread of its own, then what is decrypted and encrypted.

A handshake costs thousands of times what a message does, and anybody may ask for one. So the loop only gathers the
peer's records; a single thread does the arithmetic, and OpenSSL lets the loop run meanwhile. Handshakes are bounded in
number, for each source, in time, in bytes and in steps. Nothing is computed, and nearly nothing kept, for a peer that
connects and says nothing.

    WAITING ── a whole record ──► COMPUTING ── more is needed ──► WAITING
                                      ├── done ──► READY: ``received`` decrypts, ``seal`` encrypts
                                      └── failed, too long, too much ──► the connection is told why, and ends
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

from sipserver.transport.contract import Settings
from sipserver.transport.identity import names_of, speaks_for

READ_SIZE: Final = 65_536
MAX_HANDSHAKE: Final = 131_072
"""Bytes that a peer may send in a handshake; chains of certificates are long."""
MAX_STEPS: Final = 64
"""How often a handshake may ask for the thread."""

OTHER_NAME: Final = "certificate is for another name"
TOO_SLOW: Final = "took too long"
TOO_MANY: Final = "too many handshakes"
TOO_LONG: Final = "handshake too long"
PEER_CLOSED: Final = "closed by the peer"

_HEADER: Final = 5
"""Bytes in front of each record: its kind, two of version, two of length (RFC 8446 §5.1)."""
_HOST_MISMATCH: Final = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose text has the name in it."""


class Carrier(Protocol):
    """The connection under a TLS session."""

    def write_raw(self, data: bytes) -> None:
        """Put bytes on the wire."""

    def secured(self, names: tuple[str, ...]) -> None:
        """The handshake is over; the peer's verified certificate has these names, none where it showed none."""

    def not_secured(self, why: str) -> None:
        """The handshake failed. ``why`` has nothing in it that the peer could choose."""


class Handshakes:
    """Those in progress on accepted connections, within their bounds, and the thread that computes all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, connections: int) -> None:
        """``connections`` are the most that there may be: those that only begin leave half of them to all others."""
        self.connections = connections
        self.done = 0
        """Handshakes that led to a connection, accepted or our own."""
        self.failed = 0
        """Handshakes that came to nothing, whatever the reason; the refused are counted apart."""
        self.refused = 0
        """Connections refused since their source had too many handshakes in progress."""
        self._loop = loop
        self.settings = settings
        self._open: dict[TlsSession, None] = {}
        self._by_source: dict[str, int] = {}
        self._thread: ThreadPoolExecutor | None = None

    @property
    def open(self) -> int:
        """Handshakes in progress on accepted connections."""
        return len(self._open)

    def admit(self, session: TlsSession) -> bool:
        """Whether one more handshake of this session's source is within the bounds."""
        of_source = self._by_source.get(session.source, 0)
        if of_source >= self.settings.handshakes_per_source:
            self.refused += 1
            return False
        if len(self._open) >= min(self.settings.handshakes, self.connections // 2):
            # Who has had the longest time and is not done is the least likely to be: the others go on.
            next(iter(self._open)).fail(TOO_MANY)
        self._open[session] = None
        self._by_source[session.source] = of_source + 1
        return True

    def leave(self, session: TlsSession) -> None:
        """A handshake is over, one way or the other."""
        if self._open.pop(session, self) is self:
            return
        left = self._by_source[session.source] - 1
        if left:
            self._by_source[session.source] = left
        else:
            del self._by_source[session.source]

    def compute(self, session: TlsSession, data: bytes) -> None:
        """Take the session's next step in the thread, and bring the outcome back to the loop."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="tls")
        self._thread.submit(self._compute, session, data)

    def _compute(self, session: TlsSession, data: bytes) -> None:
        outcome = session.step(data)
        with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(session.stepped, *outcome)

    def close(self) -> None:
        """Compute nothing more."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


class TlsSession:
    """One connection's TLS. It knows no socket: bytes come by ``received``, and go by the carrier's ``write_raw``."""

    __slots__ = (
        "_carrier", "_computing", "_context", "_failed", "_handshakes", "_incoming", "_object", "_outgoing", "_size",
        "_steps", "_waiting", "accepted", "name", "over", "ready", "source",
    )  # fmt: skip

    def __init__(
        self, carrier: Carrier, handshakes: Handshakes, context: ssl.SSLContext, *, source: str = "", name: str = ""
    ) -> None:
        """``name`` is the domain that the certificate of a peer has to speak for that we connect to; without one the
        peer connected, and came from ``source``."""
        self.accepted = not name
        self.name = name
        self.source = source
        self.ready = False
        """Whether the handshake is over and messages may pass."""
        self.over = False
        """Whether the peer has closed the session, or broken it."""
        self._carrier: Carrier | None = carrier
        self._handshakes = handshakes
        self._context = context
        self._object: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._waiting = bytearray()
        """What the peer sent and no step has been given yet."""
        self._size = 0
        self._steps = 0
        self._computing = False
        self._failed = False

    def start(self) -> bool:
        """Begin; False where there are too many handshakes already."""
        if not self.accepted:
            self._compute()
            return True
        self._failed = not self._handshakes.admit(self)
        return not self._failed

    def received(self, data: bytes) -> bytes:
        """What these bytes say; nothing while the handshake lasts. See ``over`` afterwards."""
        if self.ready:
            if self._waiting:
                # What came along with the end of the handshake.
                data = bytes(self._waiting) + data
                self._waiting.clear()
            return self._decrypt(data)
        self._size += len(data)
        self._waiting += data
        if self._size > MAX_HANDSHAKE:
            self.fail(TOO_LONG)
        elif not self._computing and _has_record(self._waiting):
            self._compute()
        return b""

    def seal(self, data: bytes) -> bytes:
        """The bytes that carry this; none where the session is over."""
        assert self._object is not None, "nothing is sent before the handshake is over"
        with suppress(ssl.SSLError):
            self._object.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """The bytes that tell the peer that nothing more comes (RFC 8446 §6.1)."""
        if not self.ready or self._object is None:
            return b""
        with suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()

    def release(self) -> None:
        """The connection is gone."""
        self._failed = True
        self._carrier = None
        self._handshakes.leave(self)

    def fail(self, why: str) -> None:
        """The handshake ends here."""
        if self._failed or self.ready or self._carrier is None:
            return
        self._failed = True
        self._handshakes.failed += 1
        self._handshakes.leave(self)
        self._carrier.not_secured(why)

    # The handshake, step by step.

    def _compute(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            self.fail(TOO_LONG)
            return
        self._computing = True
        data = bytes(self._waiting)
        self._waiting.clear()
        self._handshakes.compute(self, data)

    def step(self, data: bytes) -> tuple[bool, str, bytes, tuple[str, ...]]:
        """In the thread: go on with these bytes. Whether the handshake is done, what went wrong, what is to be sent,
        and the names of the peer."""
        if self._failed:
            return False, PEER_CLOSED, b"", ()
        try:
            if self._object is None:
                self._object = self._context.wrap_bio(
                    self._incoming, self._outgoing, server_side=self.accepted, server_hostname=self.name or None
                )
            self._incoming.write(data)
            self._object.do_handshake()
            return True, "", self._outgoing.read(), names_of(self._object.getpeercert())
        except ssl.SSLWantReadError:
            return False, "", self._outgoing.read(), ()
        except (OSError, ValueError) as error:
            # ValueError: a name that no certificate can have.
            return False, explain(error), self._outgoing.read(), ()

    def stepped(self, done: bool, why: str, data: bytes, names: tuple[str, ...]) -> None:
        """Back on the loop."""
        carrier = self._carrier
        self._computing = False
        if carrier is None or self._failed:
            return
        if data:
            # An alert says what was wrong, so it goes out in that case too.
            carrier.write_raw(data)
        if done and not self.accepted and not speaks_for(names, self.name):
            why = OTHER_NAME
        if why:
            self.fail(why)
        elif done:
            self.ready = True
            self._handshakes.done += 1
            self._handshakes.leave(self)
            carrier.secured(names)
        elif _has_record(self._waiting):
            self._compute()

    def _decrypt(self, data: bytes) -> bytes:
        session, incoming = self._object, self._incoming
        assert session is not None, "decrypted is what comes after the handshake"
        incoming.write(data)
        found = b""
        try:
            while incoming.pending or session.pending():
                part = session.read(READ_SIZE)
                if not part:
                    self.over = True
                    break
                found = found + part if found else part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # What came before the fault is whole and true.
            self.over = True
        if self._outgoing.pending and self._carrier is not None:
            # An answer of TLS itself: to an update of keys, or an alert.
            self._carrier.write_raw(self._outgoing.read())
        return found


def explain(error: Exception) -> str:
    """Why a handshake failed, in words of OpenSSL alone: no name and no address is in it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _HOST_MISMATCH:
            return OTHER_NAME
        return f"certificate not verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return "no TLS"


def _has_record(data: bytearray) -> bool:
    """Whether there is a whole record, or something that OpenSSL will refuse at once."""
    if len(data) < _HEADER:
        return bool(data) and not 20 <= data[0] <= 23
    return not 20 <= data[0] <= 23 or len(data) >= _HEADER + int.from_bytes(data[3:5], "big")
