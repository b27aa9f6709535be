"""What a media relay says of a session when it is deleted (rtpengine's answer to ``delete`` and ``query``).

    tags    by the tag of each side its media, and of each the streams with what the relay received from that side
    SSRC    by SSRC what that endpoint said, in RTCP, of what reached it; absent where it sent no RTCP

So there are two rows for each media stream of a side. What it **sent** is counted at the relay: packets and octets.
What it **received** is what its own receiver reports say: loss, jitter, round trip, and the MOS that the relay makes of
them.
Whatever is missing, or is no number, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

LOCAL: Final = "local"
REMOTE: Final = "remote"

MAX_STREAMS: Final = 32
"""Streams of one session that are looked at."""
ALGORITHM: Final = "rtpengine"

_KINDS: Final = ("audio", "video")

Value = int | float | str


@dataclass(slots=True)
class Measured:
    """One direction of one stream of one side."""

    tag: str
    """Whose."""
    direction: str
    """REMOTE: the stream that this side sent; LOCAL: the one it received."""
    kind: str
    """``audio`` or ``video``."""
    ssrc: str | None
    """Of the stream that this side sent, eight hexadecimal digits."""
    metrics: dict[str, Value] = field(default_factory=dict)
    """By the columns of ``quality_reports``."""


def measured(reply: dict[str, Any]) -> list[Measured]:
    """The directions of which something is known."""
    found: list[Measured] = []
    reports = _table(reply.get("SSRC"))
    for tag, side in _table(reply.get("tags")).items():
        for medium in _list(_table(side).get("medias"))[:MAX_STREAMS]:
            kind = _text(_table(medium).get("type"))
            if kind in _KINDS and len(found) < 2 * MAX_STREAMS:
                found += _of_medium(tag, kind, _table(medium), reports)
    return found


def packets(reply: dict[str, Any]) -> int:
    """RTP packets that went through in all."""
    return _number(_table(_table(reply.get("totals")).get("RTP")).get("packets")) or 0


def _of_medium(tag: str, kind: str, medium: dict[str, Any], reports: dict[str, Any]) -> list[Measured]:
    # The first stream is RTP, another one RTCP.
    streams = _list(medium.get("streams"))
    stream = _table(streams[0]) if streams else {}
    number = _number(stream.get("SSRC"))
    ssrc = f"{number:08x}" if number is not None and 0 < number < 2**32 else None
    codec, _, rate = _text(medium.get("codec")).partition("/")
    common: dict[str, Value] = {"codec": codec} if codec else {}
    if rate.isdecimal() and len(rate) < 7:
        common["sample_rate"] = int(rate)
    made = []
    counts = _table(stream.get("stats"))
    count, octets = _number(counts.get("packets")), _number(counts.get("bytes"))
    if count:
        sent = {**common, "packets_received": count}
        if octets is not None:
            sent["octets_received"] = octets
        made.append(Measured(tag, REMOTE, kind, ssrc, sent))
    heard = _received(_table(reports.get(str(number)))) if number is not None else {}
    if heard:
        made.append(Measured(tag, LOCAL, kind, ssrc, {**common, **heard}))
    return made


def _received(report: dict[str, Any]) -> dict[str, Value]:
    """What an endpoint's receiver reports came to."""
    metrics: dict[str, Value] = {}
    lost = _number(report.get("cumulative loss"))
    if lost is not None:
        metrics["packets_lost"] = lost
    average = _table(report.get("average MOS"))
    # Without a round trip time there is no MOS, and no average of anything (the relay says 0).
    if not _number(average.get("samples")):
        return metrics
    loss, jitter = _number(average.get("packet loss")), _number(average.get("jitter"))
    if loss is not None and loss <= 100:
        metrics["loss_percent"] = float(loss)
    if jitter is not None:
        metrics["jitter_ms"] = float(jitter)
    delay, mos = _number(average.get("round-trip time")), _number(average.get("MOS"))
    if delay:
        metrics["round_trip_ms"] = delay / 1000
    if mos is not None and 10 <= mos <= 50:
        metrics["mos_cq"], metrics["mos_cq_algorithm"] = mos / 10, ALGORITHM
    return metrics


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:100].decode("latin-1") if isinstance(value, bytes) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
