"""Which streams a call had and when, from its offers and answers (RFC 3264). Pure.

Each stream of each agreement is a row that is open until an agreement says otherwise. What cannot be read makes
the media unknown: the open rows end there, and the time with video is not given for a call with such a gap.

Before the answer each device may have agreed on something (early media). Those rows are marked ``early``, end with the
answer at the latest, and count for nothing: what the call had is what was agreed with the device that the caller kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sipserver.calls.events import CALLEE, CALLER
from sipserver.calls.negotiation import Agreement
from sipserver.calls.rows import Agreed, CloseMedia, DropMedia, OpenMedia, Row
from sipserver.sip import sdp
from sipserver.sip.sdp import Description, Stream

BOTH: Final = "both"
"""Of a stream on hold: neither side wants to receive it."""

_SENDS: Final = (sdp.SENDRECV, sdp.SENDONLY)
_RECEIVES: Final = (sdp.SENDRECV, sdp.RECVONLY)
_DIRECTIONS: Final = {
    (True, True): sdp.SENDRECV, (True, False): sdp.SENDONLY, (False, True): sdp.RECVONLY, (False, False): sdp.INACTIVE,
}  # fmt: skip
_PEOPLE_MEET_BY: Final = (sdp.AUDIO, sdp.VIDEO, sdp.CONTENT)

_stream: Final = lru_cache(1_024)(Agreed)
"""What was agreed on for a stream. Endpoints agree on the same in call after call: equal ones are one object."""
MAX_REMEMBERED: Final = 1_024
_together: Final[dict[tuple[int, ...], tuple[Agreed, ...]]] = {}
"""Streams that were agreed on together, by their identities; bounded."""

MAX_EARLY: Final = 16
"""Devices whose early media are written down."""


def agree(
    offer: Description, answer: Description, offered_by_caller: bool, before: dict[int, Agreed] | None = None
) -> list[Agreed]:
    """What offer and answer come to, stream by stream; a stream the answer leaves out counts as refused.

    ``before`` are the streams that ran until now, by their place. A stream that the offer takes out of use is none.
    """
    answers = answer.streams
    ran = before or {}
    return [
        _agreed(number, offered, answers[number] if number < len(answers) else None, offered_by_caller, ran.get(number))
        for number, offered in enumerate(offer.streams)
        # RFC 3264 §8.2: port 0 in an offer ends a stream that was; a first one that has it offers nothing.
        if not offered.refused
    ]


def _agreed(
    number: int, offered: Stream, answered: Stream | None, offered_by_caller: bool, before: Agreed | None
) -> Agreed:
    # RFC 3264 §6: a stream is refused by port 0 in the answer.
    if answered is None or answered.refused:
        return _stream(number, offered.kind, 0)
    caller, callee = (offered, answered) if offered_by_caller else (answered, offered)
    direction = sdp.SENDRECV
    held_by = None
    if offered.direction != sdp.SENDRECV or answered.direction != sdp.SENDRECV:
        # RFC 3264 §6.1: what flows is what one side sends and the other one takes.
        direction = _DIRECTIONS[
            caller.direction in _SENDS and callee.direction in _RECEIVES,
            callee.direction in _SENDS and caller.direction in _RECEIVES,
        ]
        if before is not None and before.kind != sdp.CONTENT:
            held_by = _held_by(before, offered.direction, answered.direction, offered_by_caller)
    same = answered.codec is None or offered.codec is None or answered.codec.upper() == offered.codec.upper()
    said = offered if same else answered
    encrypted = offered.encrypted and answered.encrypted
    return _stream(
        number,
        # Only one side may mark its slides (RFC 4796).
        sdp.CONTENT if answered.kind == sdp.CONTENT else offered.kind,
        1,
        answered.codec or offered.codec,
        direction,
        offered.bandwidth if answered.bandwidth is None else answered.bandwidth,
        answered.resolution or said.resolution,
        answered.level or said.level,
        answered.max_pixels or said.max_pixels,
        int(encrypted),
        int(offered.ice and answered.ice),
        answered.profile or said.profile,
        answered.encryption if encrypted else None,
        held_by,
    )


def _held_by(before: Agreed, offered: str, answered: str, offered_by_caller: bool) -> str | None:
    """Who has put the stream on hold (RFC 3264 §8.4): who received it and now says not to, until that side says so."""
    offerer, answerer = (CALLER, CALLEE) if offered_by_caller else (CALLEE, CALLER)
    held = []
    for side, direction, may_receive in ((offerer, offered, True), (answerer, answered, offered in _SENDS)):
        if direction in _RECEIVES:
            continue
        held_before = before.held_by in (side, BOTH)
        received = before.direction in (sdp.SENDRECV, sdp.RECVONLY if side == CALLER else sdp.SENDONLY)
        # An answer that does not receive what is not sent says nothing of its own.
        if held_before or (received and may_receive):
            held.append(side)
    return None if not held else held[0] if len(held) == 1 else BOTH


def offers_video(offer: Description | None) -> int | None:
    """1 where video is offered, 0 where other streams are, None where that is not known."""
    if offer is None or offer is sdp.UNREADABLE:
        return None
    return int(sdp.VIDEO in [stream.kind for stream in offer.streams])


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


Entry = tuple[int, Agreed, int]
"""Number of the row, what it says, and since when."""
_NOTHING: Final[list[Entry]] = []


def _shared(streams: tuple[Agreed, ...]) -> tuple[Agreed, ...]:
    """The same streams, in one tuple for all calls that have them."""
    key = tuple([id(stream) for stream in streams])
    found = _together.get(key)
    if found is None:
        if len(_together) >= MAX_REMEMBERED:
            _together.clear()
        # Whoever is kept here keeps its identity.
        found = _together[key] = streams
    return found


class MediaBook:
    """The streams of one call."""

    __slots__ = (
        "_apart", "_early", "_first", "_gap", "_next", "_since", "_streams", "_video", "content", "encrypted", "video",
    )  # fmt: skip

    def __init__(self) -> None:
        # Nearly always the open streams were opened together and are numbered in a row: then two numbers stand for all
        # of them, and the streams are those of every call that has the same.
        self._streams: tuple[Agreed, ...] = ()
        self._first = 0
        self._since = 0
        self._apart: tuple[Entry, ...] = ()
        """The open streams, where they are not like that."""
        self._next = 1
        self._early: dict[str, tuple[int, list[Entry]]] | None = None
        self._video: list[tuple[int, int]] | None = None
        self._gap = False
        self.video: int | None = None
        """1 once a video stream was agreed on, 0 when only others were, None while nothing is known."""
        self.content: int | None = None
        """The same for content."""
        self.encrypted: int | None = None
        """1 while every agreed stream of audio, video and content was encrypted; 0 once one was not."""

    def _open(self) -> list[Entry]:
        """The open streams."""
        if self._apart:
            return list(self._apart)
        first, since = self._first, self._since
        return [(first + place, stream, since) for place, stream in enumerate(self._streams)]

    def _hold(self, entries: list[Entry]) -> None:
        """From now on the open streams are these."""
        self._streams, self._apart = (), ()
        if not entries:
            return
        first, _, since = entries[0]
        for place, entry in enumerate(entries):
            if entry[0] != first + place or entry[2] != since:
                self._apart = tuple(entries)
                return
        self._first, self._since = first, since
        self._streams = _shared(tuple([entry[1] for entry in entries]))

    def change(self, call: str, at: int, agreement: Agreement, branch: int | None = None) -> list[Row]:
        """From now on the call has what this offer and this answer come to."""
        offer, answer = agreement.offer, agreement.answer
        if offer is sdp.UNREADABLE or answer is sdp.UNREADABLE:
            self._gap = True
            return self._close_call(call, at)
        running = self._open()
        before = {entry[1].stream: entry[1] for entry in running if entry[1].accepted} if running else None
        agreed = agree(offer, answer, agreement.by_caller, before)
        rows, running = self._turn(call, at, running, agreed, branch, early=0)
        self._hold(running)
        self._note(agreed)
        return rows

    def change_early(self, call: str, at: int, dialog: str, branch: int, agreement: Agreement) -> list[Row]:
        """What is agreed with a device before the answer, in this dialog."""
        early = self._early if self._early is not None else {}
        _, running = early.get(dialog, (branch, _NOTHING))
        if not running and len(early) >= MAX_EARLY:
            return []
        agreed: list[Agreed] = []
        if agreement.offer is not sdp.UNREADABLE and agreement.answer is not sdp.UNREADABLE:
            agreed = agree(
                agreement.offer, agreement.answer, agreement.by_caller, {entry[1].stream: entry[1] for entry in running}
            )
        rows, running = self._turn(call, at, running, agreed, branch, early=1)
        early[dialog] = branch, running
        self._early = early
        return rows

    def close_early(self, call: str, at: int, branch: int | None = None) -> list[Row]:
        """The early media of this device end, or those of all."""
        early = self._early
        if early is None:
            return []
        rows: list[Row] = []
        for dialog, (number, running) in list(early.items()):
            if branch is None or number == branch:
                rows += [CloseMedia(call, entry[0], at) for entry in running]
                del early[dialog]
        self._early = early or None
        return rows

    def close(self, call: str, at: int) -> list[Row]:
        """Every open stream ends."""
        rows = self._close_call(call, at)
        return rows + self.close_early(call, at) if self._early else rows

    def drop(self, call: str) -> list[Row]:
        """What the call was said to have was another device's: nothing of it was the call's."""
        self._hold([])
        self._video, self._gap = None, False
        self.video = self.content = self.encrypted = None
        return [DropMedia(call, self._next)]

    @property
    def video_ms(self) -> int | None:
        """How long the call had video, of the streams that are closed; None where that is not known."""
        if self._gap or self.video is None:
            return None
        return covered(self._video or ())

    def _close_call(self, call: str, at: int) -> list[Row]:
        running = self._open()
        if not running:
            return []
        for entry in running:
            self._stopped(entry, at)
        rows: list[Row] = [CloseMedia(call, entry[0], at) for entry in self._apart]
        self._hold([])
        return rows or [CloseMedia(call, running[0][0], at, len(running))]

    def _turn(
        self, call: str, at: int, running: list[Entry], agreed: list[Agreed], branch: int | None, *, early: int
    ) -> tuple[list[Row], list[Entry]]:
        """Close what is not agreed on any more, open what is new; the rows, and what runs from now on."""
        rows: list[Row] = []
        kept: list[Entry] = []
        for entry in running:
            if entry[1] in agreed:
                kept.append(entry)
            else:
                rows.append(CloseMedia(call, entry[0], at))
                if not early:
                    self._stopped(entry, at)
        still = [entry[1] for entry in kept]
        for stream in agreed:
            if stream not in still:
                rows.append(OpenMedia(call, self._next, stream, at, branch, early))
                kept.append((self._next, stream, at))
                self._next += 1
        return rows, kept

    def _stopped(self, entry: Entry, at: int) -> None:
        """A stream of the call runs no longer: how long there was video is counted by then."""
        _, stream, since = entry
        if shows_video(stream.kind, stream.accepted, stream.direction):
            if self._video is None:
                self._video = []
            self._video.append((since, at))

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
