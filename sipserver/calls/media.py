"""Which streams a call had and when, from its offers and answers (RFC 3264). Pure.

Each stream of each agreement is a row that is open until an agreement says otherwise. What cannot be read makes
the media unknown: the open rows end there, and the time with video is not given for a call with such a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipserver.calls.rows import Agreed, CloseMedia, OpenMedia, Row
from sipserver.sip import sdp
from sipserver.sip.sdp import Description, Stream

_SEEN_FROM_THE_OTHER_SIDE: Final = {sdp.SENDONLY: sdp.RECVONLY, sdp.RECVONLY: sdp.SENDONLY}
_PEOPLE_MEET_BY: Final = (sdp.AUDIO, sdp.VIDEO, sdp.CONTENT)


def agree(offer: Description, answer: Description, offered_by_caller: bool) -> list[Agreed]:
    """What offer and answer come to, stream by stream; a stream the answer leaves out counts as refused."""
    answers = answer.streams
    return [
        _agreed(number, offered, answers[number] if number < len(answers) else None, offered_by_caller)
        for number, offered in enumerate(offer.streams)
    ]


def _agreed(number: int, offered: Stream, answered: Stream | None, offered_by_caller: bool) -> Agreed:
    # RFC 3264 §6: a stream is refused by port 0 in the answer.
    if answered is None or answered.refused:
        return Agreed(number, offered.kind, 0)
    direction = answered.direction
    if offered_by_caller:
        direction = _SEEN_FROM_THE_OTHER_SIDE.get(direction, direction)
    return Agreed(
        number,
        # Only one side may mark its slides (RFC 4796).
        sdp.CONTENT if answered.kind == sdp.CONTENT else offered.kind,
        1,
        answered.codec or offered.codec,
        direction,
        offered.bandwidth if answered.bandwidth is None else answered.bandwidth,
        answered.resolution or offered.resolution,
        answered.level or offered.level,
        answered.max_pixels or offered.max_pixels,
        int(offered.encrypted and answered.encrypted),
        int(offered.ice and answered.ice),
    )


def shows_video(kind: str, accepted: int, direction: str | None) -> bool:
    """Whether such a stream carries pictures of people at all; held both ways it does not."""
    return kind == sdp.VIDEO and accepted == 1 and direction != sdp.INACTIVE


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """How long at least one of these spans lasted: what overlaps counts once."""
    total, until = 0, 0
    for start, end in sorted(spans):
        begin = max(start, until)
        if end > begin:
            total += end - begin
            until = end
    return total


class MediaBook:
    """The streams of one call."""

    __slots__ = ("_gap", "_next", "_open", "_video", "content", "encrypted", "video")

    def __init__(self) -> None:
        self._open: list[tuple[int, Agreed, int]] = []
        self._next = 1
        self._video: list[tuple[int, int]] = []
        self._gap = False
        self.video: int | None = None
        """1 once a video stream was agreed on, 0 when only others were, None while nothing is known."""
        self.content: int | None = None
        """The same for content."""
        self.encrypted: int | None = None
        """1 while every agreed stream of audio, video and content was encrypted; 0 once one was not."""

    def change(self, call: str, at: int, offer: Description, answer: Description, offered_by_caller: bool) -> list[Row]:
        """From now on the call has what this offer and this answer come to."""
        if offer is sdp.UNREADABLE or answer is sdp.UNREADABLE:
            self._gap = True
            return self.close(call, at)
        agreed = agree(offer, answer, offered_by_caller)
        rows: list[Row] = []
        kept: list[tuple[int, Agreed, int]] = []
        for entry in self._open:
            if entry[1] in agreed:
                kept.append(entry)
            else:
                rows.append(self._close(call, entry, at))
        running = [entry[1] for entry in kept]
        for stream in agreed:
            if stream not in running:
                rows.append(OpenMedia(call, self._next, stream, at))
                kept.append((self._next, stream, at))
                self._next += 1
        self._open = kept
        self._note(agreed)
        return rows

    def close(self, call: str, at: int) -> list[Row]:
        """Every open stream ends."""
        rows: list[Row] = [self._close(call, entry, at) for entry in self._open]
        self._open = []
        return rows

    @property
    def video_ms(self) -> int | None:
        """How long the call had video, of the streams that are closed; None where that is not known."""
        if self._gap or self.video is None:
            return None
        return covered(self._video)

    def _close(self, call: str, entry: tuple[int, Agreed, int], at: int) -> CloseMedia:
        number, stream, since = entry
        if shows_video(stream.kind, stream.accepted, stream.direction):
            self._video.append((since, at))
        return CloseMedia(call, number, at)

    def _note(self, agreed: list[Agreed]) -> None:
        video, content, encrypted = self.video or 0, self.content or 0, self.encrypted
        for stream in agreed:
            if not stream.accepted or stream.kind not in _PEOPLE_MEET_BY:
                continue
            if stream.kind == sdp.VIDEO:
                video = 1
            elif stream.kind == sdp.CONTENT:
                content = 1
            encrypted = stream.encrypted if encrypted is None else encrypted and stream.encrypted
        self.video, self.content, self.encrypted = video, content, encrypted
