"""A terminal that is written anew again and again, with keys; it is left as it was found, however that ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
_OWN_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
_STYLES: Final[Mapping[str, str]] = {
    "title": "\x1b[1m", "head": "\x1b[7m", "alarm": "\x1b[1;31m", "dim": "\x1b[2m",
}  # fmt: skip
_COLOURLESS: Final[Mapping[str, str]] = {**_STYLES, "alarm": "\x1b[1m"}


class Screen:
    """What is shown on standard output, and the keys of standard input."""

    def __init__(self, wake: int) -> None:
        self._wake = wake
        self._styles = _COLOURLESS if os.environ.get("NO_COLOR") else _STYLES

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        # COLUMNS and LINES of the environment are what the terminal had when somebody looked, perhaps another one.
        found = os.get_terminal_size(sys.stdout.fileno())
        if not (found.columns and found.lines):
            found = shutil.get_terminal_size((80, 24))
        return max(1, found.columns), max(1, found.lines)

    def show(self, lines: list[tuple[str, str]], width: int) -> None:
        """Write these lines, each with how it looks, from the top; what was there before is gone."""
        out = ["\x1b[H"]
        for number, (style, text) in enumerate(lines):
            shown = text.ljust(width) if style == "head" else text
            code = self._styles.get(style, "")
            # The last line has no end, or the terminal would scroll.
            end = "" if number == len(lines) - 1 else "\n"
            out.append(f"{code}{shown}{chr(27) + '[0m' if code else ''}\x1b[K{end}")
        out.append("\x1b[J")
        sys.stdout.write("".join(out))
        sys.stdout.flush()

    def key(self, seconds: float) -> str:
        """A key that was pressed within this time; empty where none was, or the size has changed."""
        ready, _, _ = select.select([sys.stdin, self._wake], [], [], max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 512)
            return ""
        if not ready:
            return ""
        pressed = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
        if not pressed:
            # The terminal is gone.
            return "q"
        # What begins like this and goes on is an arrow or the like.
        return "" if pressed.startswith("\x1b") and len(pressed) > 1 else pressed[0]


@contextmanager
def screen() -> Iterator[Screen]:
    """The terminal for us alone: another screen, keys as they are pressed and not shown, no cursor."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def enter() -> None:
        tty.setcbreak(keyboard)
        sys.stdout.write(_OTHER_SCREEN)

    def leave() -> None:
        sys.stdout.write(_OWN_SCREEN)
        sys.stdout.flush()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def suspend(*_: object) -> None:
        leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, suspend)
        enter()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {signal.SIGWINCH: lambda *_: None, signal.SIGTERM: _stop, signal.SIGTSTP: suspend}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        enter()
        yield Screen(reading)
    finally:
        leave()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(reading)
        os.close(writing)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
