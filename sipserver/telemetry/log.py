"""Structured logs: one event a line, dotted names, values by key (structlog and orjson).

    log = configure("json", "info")
    log.info("registration.bound", address="alice@example.test", contacts=1)

writes ``{"ts":"2026-11-23T21:02:17.942Z","level":"info","event":"registration.bound","address":…}``. Values
that are None are left out. Whatever a peer put into a value, it cannot end the line, forge another or
speak to a terminal. Lines are gathered: ``flush`` is called at the end of each batch of messages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from sipserver.telemetry.sink import LineSink

Redact = Callable[[str], str | None]
"""From an address to the party id that stands for it; None where it has none."""

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

ADDRESS_KEYS: Final = frozenset({"address", "caller", "callee", "identity", "username"})
"""Keys whose value is somebody's address."""
OPEN_KEYS: Final = frozenset({"event", "level", "ts", "call", "call_id", "listen"})
"""Keys whose value may hold an ``@`` without naming anybody."""
SECRET_KEYS: Final = frozenset({"password", "authorization", "proxy_authorization", "ha1", "secret", "nonce"})
"""Keys that have no place in a log; a value that comes under one is not written."""
HIDDEN: Final = "(hidden)"

MAX_VALUE: Final = 2_000
"""Characters of one text value."""
MAX_ITEMS: Final = 100
"""Elements of one list."""

_UNSAFE: Final = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    # Line ends to some readers, and marks that turn the direction of text.
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)},
}

Event = dict[str, Any]
"""What a line says, by key."""
Render = Callable[[str, Event], bytes]
"""From a level and what a line says to the line."""

_MILLISECONDS: Final = [f".{number:03}Z" for number in range(1_000)]
"""How times end; a format takes five times as long as finding one of these."""


class Log(structlog.BoundLoggerBase):
    """A logger with the levels we use; ``bind`` gives one with values that stand on each of its lines."""

    _logger: _Output

    def debug(self, event: str, **values: object) -> None:
        """Of use to somebody who looks for a fault."""
        if self._logger.threshold <= 10:
            self._write("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """What the server is there for: somebody registered, a call was placed."""
        if self._logger.threshold <= 20:
            self._write("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Something was refused or did not work; the server copes."""
        if self._logger.threshold <= 30:
            self._write("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """An operator should look."""
        if self._logger.threshold <= 40:
            self._write("error", event, values)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        # structlog's own way from here to the sink unpacks and packs the values twice: 1.3 us of a line's 4.
        if self._context:
            values = {**self._context, **values}
        self._logger.write(level, event, values)

    def flush(self) -> None:
        """Write what has gathered, as far as it is taken."""
        self._logger.sink.flush()

    def close(self) -> None:
        """Write the rest; a reader that does not read is waited for a second."""
        self._logger.sink.close()

    def set_level(self, level: str) -> None:
        """Write lines of this level and above from now on."""
        self._logger.threshold = LEVELS[level]

    @property
    def waiting(self) -> bool:
        """Whether lines have gathered."""
        return self._logger.sink.waiting

    @property
    def dropped(self) -> int:
        """Lines that were lost because nobody read them."""
        return self._logger.sink.dropped


@dataclass(slots=True)
class _Output:
    """What structlog calls the wrapped logger."""

    sink: LineSink
    threshold: int
    """The lowest level that is written."""
    stamp: _Stamp
    redact: Redact | None
    render: Render

    def write(self, level: str, event: str, values: Event) -> None:
        """Write a line; what is None is left out of it, and what must not be written."""
        line: Event = {"ts": self.stamp.now(), "level": level, "event": event}
        for key, value in values.items():
            if value is not None:
                line[key] = HIDDEN if key in SECRET_KEYS else value
        if self.redact is not None:
            _redact(line, self.redact)
        self.sink.write(self.render(level, line))


def configure(
    style: str = "auto",
    level: str = "info",
    descriptor: int = 1,
    *,
    redact: Redact | None = None,
    clock: Callable[[], float] = time.time,
) -> Log:
    """The server's logger, on an open file descriptor.

    ``style`` is ``json``, ``console``, or ``auto``: console where the descriptor is a terminal. ``redact`` turns
    the addresses in every line into party ids. ``clock`` gives UNIX time in seconds.
    """
    terminal = os.isatty(descriptor)
    console = style == "console" or (style == "auto" and terminal)
    stamp = _Stamp(clock)
    render: Render = _console_renderer(terminal) if console else _render_json

    def dropped_line(lines: int) -> bytes:
        return render("warning", {"ts": stamp.now(), "level": "warning", "event": "log.dropped", "lines": lines})

    sink = LineSink(descriptor, dropped_line=dropped_line)
    # No processors: what structlog has those for, the output does.
    return Log(_Output(sink, LEVELS[level], stamp, redact, render), [], {})


class _Stamp:
    """Tells the time as lines have it."""

    __slots__ = ("_clock", "_millisecond", "_second", "_text", "_ts")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._millisecond = -1
        self._second = -1
        self._text = ""
        """Date and time of the second."""
        self._ts = ""

    def now(self) -> str:
        """The time by now."""
        millisecond = int(self._clock() * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second = millisecond // 1000
            if second != self._second:
                self._second = second
                self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._ts = self._text + _MILLISECONDS[millisecond % 1000]
        return self._ts


def _redact(line: Event, party: Redact) -> None:
    """Put party ids in the place of addresses."""
    for key, value in line.items():
        if key in ADDRESS_KEYS:
            line[key] = (party(value) if isinstance(value, str) else None) or HIDDEN
        elif key not in OPEN_KEYS and "@" in (value if isinstance(value, str) else str(value)):
            # A Contact, a display name, a list of either: better nothing than somebody's address.
            line[key] = HIDDEN


def _render_json(_level: str, line: Event) -> bytes:
    try:
        data: bytes = orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, keys that are no text, integers beyond 64 bits, a value that holds itself.
        data = orjson.dumps({key: _encodable(value) for key, value in line.items()}, option=orjson.OPT_APPEND_NEWLINE)
    if len(data) > MAX_VALUE:
        data = orjson.dumps({key: _encodable(value) for key, value in line.items()}, option=orjson.OPT_APPEND_NEWLINE)
    # In bytes a number is found ten times as quickly as a text of one byte.
    if not data.isascii() or 0x7F in data:
        # JSON itself escapes only what is below a space.
        return data[:-1].decode().translate(_UNSAFE).encode() + b"\n"
    return data


def _console_renderer(colors: bool) -> Render:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", pad_event_to=24, sort_keys=False)

    def render(level: str, line: Event) -> bytes:
        safe = {key: _plain(value).translate(_UNSAFE) for key, value in line.items()}
        return renderer(None, level, safe).encode("utf-8", "replace") + b"\n"

    return render


def _encodable(value: object) -> object:
    """A value that orjson takes; what stands within an element of a list is told as text."""
    if isinstance(value, list | tuple):
        return [_scalar(each) for each in value[:MAX_ITEMS]]
    return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return _plain(value)


def _plain(value: object) -> str:
    """A value as text that every encoder takes."""
    text = value if isinstance(value, str) else repr(value)
    return text[:MAX_VALUE].encode("utf-8", "replace").decode()
