"""Text that peers wrote, made harmless for whatever shows it."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text with everything in it that is not printed, such as control characters and marks of direction, escaped.

    Terminals obey such characters, and XML, so SVG, cannot hold them.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
