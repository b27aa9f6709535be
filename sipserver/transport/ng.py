"""The ng protocol of media relays: a cookie and a bencoded dictionary in a datagram, answered by the same.

A command is repeated with its cookie until it is answered: the relay knows cookies again, and answers without doing it
twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Final

LARGEST: Final = 65_507
"""Bytes of a datagram."""
MAX_DEPTH: Final = 16
"""How deep an answer may be nested."""
BATCH: Final = 64
"""Answers read at one wake-up at most."""


class NgError(ValueError):
    """Bytes that are no answer."""


def encode(value: object) -> bytes:
    """A value in bencode; text is written in Latin-1, as it came in. Keys keep their order."""
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, str):
        return encode(value.encode("latin-1"))
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, dict):
        return b"d" + b"".join([encode(key) + encode(each) for key, each in value.items()]) + b"e"
    if isinstance(value, list):
        return b"l" + b"".join([encode(each) for each in value]) + b"e"
    raise TypeError(f"not for bencode: {type(value).__name__}")


def decode(data: bytes) -> Any:
    """The one value in these bytes: int, bytes, list, or dict with text for keys. Raises NgError."""
    value, end = _decode(data, 0, MAX_DEPTH)
    if end != len(data):
        raise NgError("more than one value")
    return value


def decode_answer(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Cookie and dictionary of a datagram. Raises NgError."""
    cookie, space, rest = data.partition(b" ")
    if not space or len(cookie) > 64:
        raise NgError("no cookie")
    value = decode(rest)
    if not isinstance(value, dict):
        raise NgError("no dictionary")
    return cookie, value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.find(b"e", at)
        return _integer(data[at + 1 : end] if end > 0 else b""), end + 1
    if kind.isdigit():
        colon = data.find(b":", at, at + 8)
        start = colon + 1
        end = start + _integer(data[at:colon] if colon > 0 else b"")
        if end > len(data):
            raise NgError("cut off")
        return data[start:end], end
    if kind not in (b"l", b"d") or not depth:
        raise NgError("neither value nor end")
    values: list[Any] = []
    at += 1
    while data[at : at + 1] != b"e":
        value, at = _decode(data, at, depth - 1)
        values.append(value)
    if kind == b"l":
        return values, at + 1
    keys = values[::2]
    if len(values) % 2 or not all([isinstance(key, bytes) for key in keys]):
        raise NgError("bad dictionary")
    return {key.decode("latin-1"): value for key, value in zip(keys, values[1::2], strict=True)}, at + 1


def _integer(digits: bytes) -> int:
    if not digits.removeprefix(b"-").isdigit() or len(digits) > 20:
        raise NgError("bad number")
    return int(digits)


class NgSocket:
    """A UDP socket that talks to one relay; what comes from elsewhere is dropped.

    It is not connected: an error that the network reports would make the socket unusable for uvloop.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_data: Callable[[bytes], None] = _ignore
        self._on_batch_end: Callable[[], None] = _nothing

    def open(
        self, loop: asyncio.AbstractEventLoop, on_data: Callable[[bytes], None], on_batch_end: Callable[[], None]
    ) -> None:  # fmt: skip
        """Start reading. Raises OSError."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._socket, self._loop = sock, loop
        self._on_data, self._on_batch_end = on_data, on_batch_end
        loop.add_reader(sock, self._on_readable)

    def close(self) -> None:
        """Stop."""
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._socket = self._loop = None

    def send(self, data: bytes) -> bool:
        """Send a datagram; False where that is known to be in vain."""
        if self._socket is None or len(data) > LARGEST:
            return False
        try:
            self._socket.sendto(data, self._address)
        except BlockingIOError:
            # It is repeated soon.
            return True
        except OSError:
            return False
        return True

    def _on_readable(self) -> None:
        try:
            for _ in range(BATCH):
                if self._socket is None:
                    break
                try:
                    data, source = self._socket.recvfrom(LARGEST)
                except OSError:
                    break
                if source[:2] == self._address:
                    self._on_data(data)
        finally:
            self._on_batch_end()


def ask_once(host: str, port: int, fields: dict[str, Any], timeout: float) -> dict[str, Any] | None:
    """Put a command to a relay and wait for the answer; None where there is none. For commands, not for the server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError, NgError):
        sock.settimeout(timeout)
        sock.connect((host, port))
        # A relay answers a cookie that it knows with what it said before.
        sock.send(b"%d.%d " % (time.time_ns(), sock.fileno()) + encode(fields))
        return decode_answer(sock.recv(LARGEST))[1]
    return None


def _ignore(_data: bytes) -> None:
    """Nobody listens yet."""


def _nothing() -> None:
    """Nobody listens yet."""
