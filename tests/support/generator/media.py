"""Session descriptions of what a plan wants, and how long each stream then lasts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from support.generator.plan import CALLER, MIRROR, Media, Stream

_FORMATS = {"opus": "96 opus/48000/2", "H264": "97 H264/90000", "VP8": "98 VP8/90000"}


def describe(media: Media, side: str, *, offer: bool) -> bytes:
    """What this side says of these streams; an offer never has a stream refused that the answer refuses."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    for number, stream in enumerate(media):
        payload, _, name = _FORMATS[stream.codec].partition(" ")
        port = 40_000 + 2 * number if offer or stream.accepted else 0
        kind = "video" if stream.kind == "content" else stream.kind
        direction = stream.direction if side == CALLER else MIRROR.get(stream.direction, stream.direction)
        lines += [f"m={kind} {port} RTP/AVP {payload}", f"a=rtpmap:{payload} {name}", f"a={direction}"]
        if stream.kind == "content":
            lines.append("a=content:slides")
    return "".join(f"{line}\r\n" for line in lines).encode()


@dataclass(slots=True)
class Row:
    """What ``call_media`` has to say of one stream."""

    stream: int
    kind: str
    accepted: int
    codec: str | None
    direction: str | None
    since: float
    until: float


def rows(changes: list[tuple[float, Media]], end: float) -> list[Row]:
    """One row for each stream and each change of it; ``changes`` are in order of time."""
    made: list[Row] = []
    now: dict[int, tuple[Stream, Row]] = {}
    for at, media in changes:
        for number, stream in enumerate(media):
            # Of a refused stream nothing but its kind is known.
            same = stream if stream.accepted else replace(stream, codec="", direction="")
            before = now.get(number)
            if before is not None and before[0] == same:
                continue
            if before is not None:
                before[1].until = at
            row = Row(
                number, stream.kind, int(stream.accepted), same.codec or None, same.direction or None, at, end
            )  # fmt: skip
            made.append(row)
            now[number] = same, row
    return made


def video_seconds(changes: list[tuple[float, Media]], end: float) -> float | None:
    """How long there was video; None where there are no media at all."""
    if not changes:
        return None
    total = 0.0
    for (at, media), until in zip(changes, [*(when for when, _ in changes[1:]), end], strict=True):
        if any(each.kind == "video" and each.accepted and each.direction != "inactive" for each in media):
            total += until - at
    return total
