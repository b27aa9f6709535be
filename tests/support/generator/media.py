"""Session descriptions of what a plan wants, and how long each stream then lasts."""

from __future__ import annotations

from dataclasses import dataclass

from support.generator.plan import CALLER, MIRROR, Media, Stream

_FORMATS = {
    "opus": "96 opus/48000/2", "H264": "97 H264/90000", "VP8": "98 VP8/90000", "H265": "99 H265/90000",
    "AV1": "100 AV1/90000",
}  # fmt: skip
_PROTOCOLS = {"": "RTP/AVP", "sdes": "RTP/SAVP", "dtls": "UDP/TLS/RTP/SAVPF"}
_KEYS = {
    "": (),
    "sdes": ("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + 40 * "A",),
    "dtls": ("a=setup:actpass", "a=fingerprint:sha-256 " + ":".join(32 * ("AB",))),
}
_ICE = ("a=ice-ufrag:user", "a=ice-pwd:" + 22 * "p", "a=candidate:1 1 UDP 2130706431 127.0.0.1 40000 typ host")


def describe(media: Media, side: str, *, offer: bool) -> bytes:
    """What this side says of these streams; an offer never has a stream refused that the answer refuses."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    for number, stream in enumerate(media):
        payload, _, name = _FORMATS[stream.codec].partition(" ")
        port = 40_000 + 2 * number if offer or stream.accepted else 0
        kind = "video" if stream.kind == "content" else stream.kind
        direction = stream.direction if side == CALLER else MIRROR.get(stream.direction, stream.direction)
        lines.append(f"m={kind} {port} {_PROTOCOLS[stream.security]} {payload}")
        if stream.bandwidth is not None:
            # RFC 3890 and RFC 4566 §5.8: bits, or thousands of them.
            thousands, bits = divmod(stream.bandwidth, 1000)
            lines.append(f"b=TIAS:{stream.bandwidth}" if bits else f"b=AS:{thousands}")
        lines += [f"a=rtpmap:{payload} {name}", f"a={direction}", *_KEYS[stream.security]]
        if stream.picture.parameters:
            lines.append(f"a=fmtp:{payload} {stream.picture.parameters}")
        if stream.ice:
            lines += _ICE
        if stream.kind == "content":
            lines.append("a=content:slides")
    return "".join(f"{line}\r\n" for line in lines).encode()


COLUMNS = (
    "stream", "kind", "accepted", "codec", "direction", "bandwidth", "profile", "level", "max_pixels", "encrypted",
    "encryption", "ice",
)  # fmt: skip
"""Of ``call_media``, in the order of ``Row.columns``."""


@dataclass(slots=True)
class Row:
    """What ``call_media`` has to say of one stream."""

    columns: tuple[object, ...]
    since: float
    until: float


def rows(changes: list[tuple[float, Media]], end: float) -> list[Row]:
    """One row for each stream and each change of it; ``changes`` are in order of time."""
    made: list[Row] = []
    now: dict[int, Row] = {}
    for at, media in changes:
        for number, stream in enumerate(media):
            columns = _columns(number, stream)
            before = now.get(number)
            if before is not None and before.columns == columns:
                continue
            if before is not None:
                before.until = at
            now[number] = Row(columns, at, end)
            made.append(now[number])
    return made


def _columns(number: int, stream: Stream) -> tuple[object, ...]:
    if not stream.accepted:
        # Nothing but its kind is known.
        return (number, stream.kind, 0, *((len(COLUMNS) - 3) * (None,)))
    picture = stream.picture
    return (
        number, stream.kind, 1, stream.codec, stream.direction, stream.bandwidth, picture.profile, picture.level,
        picture.pixels, int(bool(stream.security)), stream.security or None, int(stream.ice),
    )  # fmt: skip


def has(changes: list[tuple[float, Media]], kind: str) -> int | None:
    """Whether a stream of this kind was ever accepted, as ``calls`` says it; None where there are no media at all."""
    return int(any(each.kind == kind and each.accepted for _, media in changes for each in media)) if changes else None


def all_encrypted(changes: list[tuple[float, Media]]) -> int | None:
    """Whether every stream that was ever accepted is encrypted; None where none is known."""
    accepted = [bool(each.security) for _, media in changes for each in media if each.accepted]
    return int(all(accepted)) if accepted else None
