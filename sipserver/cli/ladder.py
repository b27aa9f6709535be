"""One call as a ladder: caller, server and devices side by side, what passed between them from top to bottom.

It is drawn from the record, not from messages: what the record does not have is not there (the 487 that a caller gets
after its CANCEL, the 200 to a BYE), and where it does not know a message by name the arrow says what it meant:
``change`` is a re-INVITE or an UPDATE, ``BYE not kept`` ends the dialog of a device that answered and was not wanted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sipserver.calls import media, outcomes, transfers
from sipserver.calls.events import CALLEE, CALLER
from sipserver.calls.recovery import SERVER_RESTART
from sipserver.calls.times import parse_stamp
from sipserver.cli.output import plain

Record = dict[str, Any]

TIMES: Final = 23
"""Columns of the terminal for time and difference."""
LEAST: Final = 14
MOST: Final = 28
"""Columns from one line of life to the next."""
WIDEST: Final = 250

_ASCII: Final = str.maketrans({"│": "|", "─": "-", "┼": "+", "…": "~", "·": "*", "→": ">"})

_LINKS: Final = {
    transfers.TRANSFER: ("transferred: goes on as call {}", "comes of the transfer of call {}"),
    transfers.ATTENDED_TRANSFER: (
        "transferred, attended: goes on as call {}", "comes of the attended transfer of call {}"
    ),
    transfers.REPLACED: ("replaced by call {}", "replaces call {}"),
}  # fmt: skip
"""What a link says of the call that the other one came of, and of the other one."""
_BOTH_SIDES: Final = {CALLER: "the caller", CALLEE: "the callee", media.BOTH: "both sides"}

_CALLER: Final = 0
_SERVER: Final = 1
_DEVICE: Final = 2
"""The first of the devices."""


@dataclass(slots=True)
class Step:
    """Something that passed, or that is to be said, at a time."""

    at: str
    rank: int
    """What comes first of what has the same time."""
    label: str
    source: int = -1
    """Columns between which it passed; -1 for a remark."""
    target: int = -1
    lost: bool = False
    """It did not arrive, or nothing is known to have come of it."""


def ladder(record: Record, width: int, ascii_only: bool = False) -> str:
    """The ladder of a call as ``calls.query.show_call`` has it, for a terminal with so many columns."""
    devices = _devices(record, width)
    columns = _DEVICE + max(devices.values(), default=-1) + 1
    pitch = max(LEAST, min(MOST, (width - TIMES) // columns))
    steps = sorted(_steps(record, devices), key=lambda step: (step.at, step.rank))
    painter = _Painter(columns, pitch, width)
    lines = [*painter.heads(_heads(record, devices)), *painter.rows(steps)]
    text = "\n".join(line.rstrip() for line in lines)
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


# ---- who takes part


def _devices(record: Record, width: int) -> dict[int, int]:
    """Which device stands where, counted from the first; those that there is no room for share the last place."""
    branches = sorted(record["branches"], key=lambda each: (each["outcome"] != outcomes.ANSWERED, each["branch"]))
    room = max(1, (min(width, WIDEST) - TIMES) // LEAST - _DEVICE)
    return {each["branch"]: min(place, room - 1) for place, each in enumerate(branches)}


def _heads(record: Record, devices: dict[int, int]) -> list[list[str]]:
    """What stands above each column, line by line."""
    caller = record.get("caller_address") or record["caller"] or "(unknown)"
    callee = record.get("callee_address") or record["callee"] or "(unknown)"
    heads = [
        ["caller", caller, record["caller_agent"] or "", record["caller_transport"] or ""],
        ["server", record["node"] or "", "", ""],
    ]
    for place in range(max(devices.values(), default=-1) + 1):
        here = [each for each in record["branches"] if devices[each["branch"]] == place]
        if len(here) > 1:
            heads.append([f"{len(here)} {'devices' if place == 0 else 'more devices'}", callee, "", ""])
        else:
            (each,) = here
            name = "callee" if len(devices) == 1 else f"device {each['branch']}"
            heads.append([name, callee, each["agent"] or "", each["transport"] or ""])
    if not devices:
        heads[_SERVER][1] = f"→ {callee}"
    return heads


# ---- what happened


def _steps(record: Record, devices: dict[int, int]) -> Iterator[Step]:
    answered = [each["branch"] for each in record["branches"] if each["outcome"] == outcomes.ANSWERED]
    other = _DEVICE + devices[answered[0]] if answered else (_DEVICE if devices else _SERVER)
    dropped = {
        each["ended_at"]: _DEVICE + devices[each["branch"]]
        for each in record["branches"] if each["outcome"] == outcomes.ALSO_ANSWERED
    }  # fmt: skip
    for event in record["events"]:
        yield from _event(event, record, dropped.get(event["at"], other) if event["kind"] == "dropped" else other)
    for link in record.get("links", ()):
        yield _link(link, record)
    places = list(devices.values())
    for branch in record["branches"]:
        place = devices[branch["branch"]]
        shared = f" #{branch['branch']}" if places.count(place) > 1 else ""
        for step in _branch(branch, _DEVICE + place, record):
            step.label += shared if step.source >= 0 else ""
            yield step
    yield from _media(record)
    for error in record.get("errors", ()):
        status = f" {error['status']}" if error["status"] is not None else ""
        yield Step(error["at"], 14, f"error: {error['kind']}{status} ({error['answered_by']})")


def _event(event: Record, record: Record, other: int) -> Iterator[Step]:
    at, kind, side, status, detail = (event[name] for name in ("at", "kind", "side", "status", "detail"))
    ends = (other, _CALLER) if side == CALLEE else (_CALLER, other)
    match kind:
        case "placed":
            yield Step(at, 0, "INVITE", _CALLER, _SERVER)
        case "ringing":
            yield Step(at, 3, "rings", _SERVER, _CALLER)
        case "answered":
            yield Step(at, 6, f"{status or 'answer'}", _SERVER, _CALLER)
        case "confirmed":
            yield Step(at, 8, "ACK", _CALLER, other)
        case "changed":
            yield Step(at, 9, detail or "change", *ends)
        case "cancelled":
            yield Step(at, 10, f"CANCEL {detail or ''}".rstrip(), _CALLER, _SERVER)
        case "failed":
            yield Step(at, 12, f"{status or ''} {detail or record['outcome'] or ''}".strip(), _SERVER, _CALLER)
        case "dropped" if detail == "bye" and side in (CALLER, CALLEE):
            yield Step(at, 10, "BYE not kept", *ends)
        case "dropped":
            yield Step(at, 10, f"the answer that was not kept is over: {detail or 'unknown'}")
        case "referred" if side in (CALLER, CALLEE):
            yield Step(at, 11, "REFER", *ends)
            to = "to somebody it talks to" if detail == "attended" else "to somebody else"
            yield Step(at, 11, f"{_BOTH_SIDES[side]} transfers the call {to}")
        case "seen":
            yield Step(at, 11, "both sides are still there")
        case "clock_stepped":
            yield Step(at, 11, f"the clock was set {_how_far(detail)}; the times of this call go on as before")
        case "ended" if detail == "bye" and record.get("end_uncertainty_ms") is not None:
            yield Step(at, 13, "BYE unanswered", *ends, lost=True)
        case "ended" if detail == "bye":
            yield Step(at, 13, "BYE", *ends)
        case "ended" if detail == SERVER_RESTART:
            yield Step(at, 13, f"closed by the next start; the last sign of it was at {_time(record['ended_at'])}")
        case "ended":
            yield Step(at, 13, f"ended by {side or 'server'}: {detail or 'unknown'}")
        case _ if side in (CALLER, CALLEE):
            yield Step(at, 11, " ".join(str(each) for each in (kind, status, detail) if each is not None), *ends)
        case _:
            yield Step(at, 11, " ".join(str(each) for each in (kind, status, detail) if each is not None))


def _branch(branch: Record, column: int, record: Record) -> Iterator[Step]:
    outcome, status = branch["outcome"], branch["status"]
    yield Step(branch["tried_at"], 1, "INVITE", _SERVER, column, lost=outcome == outcomes.UNREACHABLE)
    ringing_at = branch["ringing_at"]
    if outcome is None and len(record["branches"]) == 1:
        # It is not over, and the call's ringing is its own (``calls.machine``).
        ringing_at = record["ringing_at"]
    if ringing_at is not None:
        yield Step(ringing_at, 2, "rings", column, _SERVER)
    if branch["answered_at"] is not None:
        yield Step(branch["answered_at"], 5, f"{status or 'answer'}", column, _SERVER)
    ended = branch["ended_at"]
    if ended is None:
        return
    cancelled = _cancelled_at(branch, record)
    if cancelled is not None:
        yield Step(cancelled, 10, "CANCEL", _SERVER, column)
    if outcome == outcomes.ALSO_ANSWERED:
        # How it ended is in the timeline.
        return
    if outcome == outcomes.UNREACHABLE:
        yield Step(ended, 4, f"{_name(branch)} unreachable")
    elif status is not None:
        word = "" if cancelled is not None or outcome in (None, outcomes.FAILED) else f" {outcome}"
        yield Step(ended, 11 if cancelled else 4, f"{status}{word}", column, _SERVER)
    elif outcome == outcomes.CUT_SHORT:
        yield Step(ended, 4, f"what became of {_name(branch)} is not known")
    elif cancelled is None:
        yield Step(ended, 4, f"{_name(branch)}: {outcome or 'over'}")


def _cancelled_at(branch: Record, record: Record) -> str | None:
    """When this device was told to stop, where it was: the caller gave up, or another device answered."""
    if branch["outcome"] == outcomes.ELSEWHERE:
        moment: str | None = record["answered_at"]
    elif branch["outcome"] == outcomes.CANCELLED:
        moment = next((each["at"] for each in record["events"] if each["kind"] == "cancelled"), None)
    else:
        return None
    return moment if moment is not None and moment >= branch["tried_at"] else None


def _link(link: Record, record: Record) -> Step:
    """That another call came of this one, or this one of another."""
    came_of, other = _LINKS.get(link["kind"], (link["kind"] + " to call {}", link["kind"] + " from call {}"))
    if link["call"] == record.get("id"):
        return Step(link["at"], 12, came_of.format(link["other"]))
    return Step(link["at"], 1, other.format(link["call"]))


def _how_far(detail: str | None) -> str:
    """``+3600000 ms`` as ``forward by 1:00:00``; what is written otherwise as it is."""
    try:
        by = int((detail or "").removesuffix(" ms"))
    except ValueError:
        return detail or "anew"
    seconds, thousandths = divmod(abs(by), 1000)
    hours, minutes = divmod(seconds // 60, 60)
    fraction = f".{thousandths:03d}" if thousandths else ""
    return f"{'forward' if by >= 0 else 'back'} by {hours}:{minutes:02d}:{seconds % 60:02d}{fraction}"


def _name(branch: Record) -> str:
    return f"device {branch['branch']}"


def _media(record: Record) -> Iterator[Step]:
    """What the call has from when on, and what it had no longer before its end."""
    begun: dict[str, list[str]] = {}
    over: dict[str, list[str]] = {}
    for stream in record["media"]:
        name = _stream(stream)
        begun.setdefault(stream["from_at"], []).append(name)
        # Early media are over with the answer at the latest, and everything with the call.
        ends = (record["ended_at"], record["answered_at"] if stream.get("early") else None)
        if stream["accepted"] and stream["to_at"] is not None and stream["to_at"] not in ends:
            over.setdefault(stream["to_at"], []).append(name)
    for at, names in over.items():
        yield Step(at, 9, f"{', '.join(names)} ends")
    for at, names in begun.items():
        yield Step(at, 9, ", ".join(names))


def _stream(stream: Record) -> str:
    """What a stream is, in words."""
    kind = f"early {stream['kind']}" if stream.get("early") else stream["kind"]
    if not stream["accepted"]:
        return f"{kind} refused"
    held_by = stream.get("held_by")
    how = f"on hold by {_BOTH_SIDES.get(held_by, held_by)}" if held_by else stream["direction"]
    return " ".join(str(part) for part in (kind, stream["codec"], how) if part)


# ---- how it is drawn


class _Painter:
    """Lines of cells, each of which is one column of the terminal."""

    def __init__(self, columns: int, pitch: int, width: int) -> None:
        self._pitch = pitch
        self._places = [TIMES + pitch // 2 + number * pitch for number in range(columns)]
        self._width = max(TIMES + columns * pitch, width)

    def heads(self, heads: Sequence[Sequence[str]]) -> Iterator[str]:
        """The names above the columns; lines in which there is nothing are left out."""
        for line in zip(*heads, strict=True):
            if any(line):
                cells = [" "] * self._width
                for place, text in zip(self._places, line, strict=True):
                    self._write(cells, text, place - self._pitch // 2 + 1, self._pitch - 2)
                yield "".join(cells)

    def rows(self, steps: Sequence[Step]) -> Iterator[str]:
        """A line for each step, and one for each date."""
        day, before = "", ""
        for step in steps:
            if step.at[:10] != day:
                day = step.at[:10]
                yield "".join(self._put(self._empty(), plain(day), 0))
            cells = self._empty()
            self._put(cells, plain(_time(step.at)), 0)
            difference = _difference(before, step.at)
            self._put(cells, difference, TIMES - 1 - len(difference))
            before = step.at
            if step.source < 0 or step.source == step.target:
                self._remark(cells, step.label)
            else:
                self._arrow(cells, step)
            yield "".join(cells)

    def _empty(self) -> list[str]:
        cells = [" "] * self._width
        for place in self._places:
            cells[place] = "│"
        return cells

    def _remark(self, cells: list[str], label: str) -> None:
        """Between the outer lines of life, or beginning there where it is longer."""
        label = f"· {plain(label)} ·"
        first, between = self._places[0], self._places[-1] - self._places[0] - 1
        if len(_cells(label)) <= between:
            self._write(cells, label, first + 1, between)
        else:
            room = self._width - first - 2
            self._write(cells, label, first + 2, min(room, len(_cells(label))))

    def _arrow(self, cells: list[str], step: Step) -> None:
        start, end = self._places[step.source], self._places[step.target]
        low, high = min(start, end), max(start, end)
        for at in range(low + 1, high):
            if cells[at] == " ":
                cells[at] = "─"
            elif at == self._places[_SERVER]:
                # It passes through the server; other devices only stand in front of it.
                cells[at] = "┼"
        forward = end > start
        head = "x" if step.lost else ">" if forward else "<"
        cells[end - 1 if forward else end + 1] = head
        # The label stands beside the sender, where no line of life is crossed yet.
        left = start + 2 if forward else start - self._pitch + 2
        self._write(cells, f" {step.label} ", left, self._pitch - 3)

    def _write(self, cells: list[str], text: str, left: int, room: int) -> None:
        """Text in the middle of a room, cut where it is longer."""
        text = plain(text)
        # A wide character may take one more column than is left.
        while len(_cells(text)) > room:
            text = text[:-2].rstrip() + "…"
        self._put(cells, text, left + (room - len(_cells(text))) // 2)

    @staticmethod
    def _put(cells: list[str], text: str, left: int) -> list[str]:
        for offset, cell in enumerate(_cells(text)):
            cells[left + offset] = cell
        return cells


def _cells(text: str) -> list[str]:
    """The text as columns of a terminal: a wide character takes two, a combining one none."""
    cells: list[str] = []
    for character in text:
        if unicodedata.combining(character) and cells:
            cells[-1] += character
            continue
        cells.append(character)
        if unicodedata.east_asian_width(character) in "WF":
            cells.append("")
    return cells


def _time(at: str | None) -> str:
    """The time of day of a time in the store; anything else as it is."""
    return at[11:23] if at is not None and len(at) == 24 else (at or "?")[:12]


def _difference(before: str, at: str) -> str:
    """How long after the line before; empty for none."""
    try:
        passed = parse_stamp(at) - parse_stamp(before)
    except ValueError:
        return ""
    if passed == 0:
        return ""
    seconds, thousandths = divmod(passed, 1000)
    if seconds < 60:
        return f"+{seconds}.{thousandths:03d}"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"+{minutes}:{seconds:02d}.{thousandths:03d}"
    return f"+{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
