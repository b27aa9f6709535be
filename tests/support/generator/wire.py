"""What passed between the endpoints and the server, and when: the only witness of what the server could see."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from dataclasses import dataclass

_FIELDS = re.compile(
    rb"\r\n(?:(?P<via>Via:[^\r\n]*?;branch=(?P<branch>[^;,\r\n]+))|(?P<from>From:[^\r\n]*?;tag=(?P<from_tag>[^;\r\n]+))"
    rb"|(?P<to>To:(?:[^\r\n]*?;tag=(?P<to_tag>[^;\r\n]+))?)|(?P<cseq>CSeq: *(?P<number>\d+) +(?P<method>\w+))"
    rb"|(?P<id>Call-ID: *(?P<call_id>[^\r\n]+)))",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Seen:
    """A message that was handed to the server's socket, or that left it."""

    at: float
    """UNIX time in seconds."""
    to_server: bool
    run: int
    """Of the server: 0 until it was first restarted."""
    link: str
    """Over which socket."""
    status: int
    """Of a response; 0 for a request."""
    method: str
    """Of a request, or the CSeq's of a response."""
    number: int
    """Of the CSeq."""
    call_id: str
    from_tag: str
    to_tag: str
    """Empty outside of a dialog."""
    branch: str
    """Of the topmost Via."""

    def __str__(self) -> str:
        arrow = "->" if self.to_server else "<-"
        what = f"{self.status} {self.method}" if self.status else self.method
        return (
            f"{time.strftime('%H:%M:%S', time.gmtime(self.at))}.{int(self.at * 1000) % 1000:03d} {arrow} server  "
            f"{what:<12} {self.number} from={self.from_tag} to={self.to_tag} over {self.link}"
        )


def read(data: bytes, at: float, to_server: bool, run: int, link: str) -> Seen | None:
    """What the record of the wire keeps of a message; None for what is no SIP (a keep-alive)."""
    first, _, _ = data.partition(b"\r\n")
    status = 0
    if first.startswith(b"SIP/2.0 "):
        status = int(first[8:11])
    elif not first.endswith(b"SIP/2.0"):
        return None
    end = data.find(b"\r\n\r\n")
    found: dict[str, bytes] = {}
    for match in _FIELDS.finditer(data, 0, end if end > 0 else len(data)):
        kind = match.lastgroup
        if kind is not None and kind not in found:
            found |= {name: value for name, value in match.groupdict().items() if value and name not in found}

    def text(name: str) -> str:
        return found.get(name, b"").decode("latin-1").strip()

    return Seen(
        at, to_server, run, link, status, text("method"), int(text("number") or 0), text("call_id"), text("from_tag"),
        text("to_tag"), text("branch"),
    )  # fmt: skip


class Wire:
    """Every message of every call, in the order in which the server's sockets had them."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Seen]] = defaultdict(list)
        """By Call-ID."""
        self.run = 0
        """The run of the server that is going on."""
        self.messages = 0

    def note(self, data: bytes, at: float, *, to_server: bool, link: str) -> Seen | None:
        """A message is at the server, or left it."""
        seen = read(data, at, to_server, self.run, link)
        if seen is not None:
            self.messages += 1
            self.calls[seen.call_id].append(seen)
        return seen
