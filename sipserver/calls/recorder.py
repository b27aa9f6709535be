"""From the machine's rows to the writer of ``calls.db``; the open calls; sign-ins, errors and the server's own runs.

Nothing waits here: rows are queued in the order in which things happened, the writer commits them in groups, and
whoever has to wait for that asks the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Any, Final, Protocol

from sipserver.calls import faults
from sipserver.calls.events import Ended, Event, Located, Placed
from sipserver.calls.floods import Floods
from sipserver.calls.machine import ENDED, Call
from sipserver.calls.network import NetworkPrefix
from sipserver.calls.observe import printable
from sipserver.calls.places import NOWHERE, Place
from sipserver.calls.rows import (
    CallAnswered,
    CallConfirmed,
    CallEnded,
    CallLocated,
    CallMedia,
    CallRang,
    CloseMedia,
    DropMedia,
    InsertBranch,
    InsertCall,
    InsertEvent,
    OpenBranch,
    OpenMedia,
    Row,
    UpdateBranch,
)
from sipserver.calls.times import Stamp, uuid7

REFUSED: Final = "refused"
"""The outcome of a sign-in that was not accepted; such rows are folded (see ``calls.floods``)."""

MAX_OPEN_CALLS: Final = 200_000
MAX_SAME_CALL_ID: Final = 8
"""Open calls with one Call-ID that can be found by it."""

CALL_ROW: Final = 0
"""The statement by which a call gets its row; the first, since everything else of a call needs it."""
END_ROW: Final = 5
"""The statement by which a call gets its end."""

_CALL: Final = CALL_ROW
_RANG: Final = 1
_ANSWERED: Final = 2
_CONFIRMED: Final = 3
_MEDIA: Final = 4
_ENDED: Final = END_ROW
_BRANCH: Final = 6
_OPEN: Final = 7
_CLOSE: Final = 8
_EVENT: Final = 9
_SIGN_IN: Final = 10
_SIGN_IN_COUNT: Final = 11
_ERROR: Final = 12
_ERROR_COUNT: Final = 13
_RUN: Final = 14
_ALIVE: Final = 15
_STOPPED: Final = 16
_CALLER_LOCATED: Final = 17
_CALLEE_LOCATED: Final = 18
_CALLER_FORGOTTEN: Final = 19
_CALLEE_FORGOTTEN: Final = 20
_SIGN_IN_FORGOTTEN: Final = 21
_BRANCH_CHANGED: Final = 22
_DROP: Final = 23
_LINK: Final = 24
_BRANCH_OPENED: Final = 25

STATEMENTS: Final = (
    """INSERT INTO calls (id, call_id, caller, callee, started_at, caller_agent, caller_transport, caller_network,
        offered_video, node, caller_country, caller_region, caller_city, caller_site, caller_location_source,
        caller_location_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "UPDATE calls SET ringing_at = ?, setup_ms = ? WHERE id = ?",
    """UPDATE calls SET answered_at = ?, sip_status = ?, setup_ms = ?, ring_ms = ?, callee_agent = ?,
        callee_transport = ?, callee_network = ?, devices = ?, video = ?, content = ?, encrypted = ?,
        callee_country = ?, callee_region = ?, callee_city = ?, callee_site = ?, callee_location_source = ?,
        callee_location_until = ?, outcome = 'answered' WHERE id = ?""",
    "UPDATE calls SET confirmed_at = ? WHERE id = ?",
    "UPDATE calls SET video = ?, content = ?, encrypted = ? WHERE id = ?",
    """UPDATE calls SET ended_at = ?, outcome = ?, sip_status = coalesce(?, sip_status), reason = ?, ended_by = ?,
        end_cause = ?, end_uncertainty_ms = ?, watched_until = ?, setup_ms = ?, ring_ms = ?, talk_ms = ?,
        video_ms = ?, devices = ?, disconnect_ms = ? WHERE id = ?""",
    """INSERT INTO call_branches (call, branch, tried_at, ringing_at, answered_at, ended_at, status, outcome, agent,
        transport, network) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (call, branch) DO UPDATE SET ringing_at = coalesce(excluded.ringing_at, ringing_at),
        answered_at = excluded.answered_at, ended_at = excluded.ended_at,
        status = excluded.status, outcome = excluded.outcome, agent = coalesce(excluded.agent, agent)""",
    """INSERT INTO call_media (call, number, stream, kind, accepted, codec, direction, bandwidth, resolution, level,
        max_pixels, encrypted, ice, from_at, branch, early, held_by, profile, encryption)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "UPDATE call_media SET to_at = ? WHERE call = ? AND number >= ? AND number < ?",
    "INSERT INTO stored_events (call, number, at, kind, side, status, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    """INSERT INTO sign_ins (id, at, party, outcome, status, agent, transport, network, detail, count, last_at, node,
        country, region, city, site, location_source, location_until)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "UPDATE sign_ins SET count = ?, last_at = ? WHERE id = ?",
    """INSERT INTO errors (id, at, kind, method, status, answered_by, agent, party, network, detail, count, last_at,
        node, call, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)""",
    "UPDATE errors SET count = ?, last_at = ? WHERE id = ?",
    "INSERT INTO server_runs (id, node, started_at, last_alive_at, calls_before) VALUES (?, ?, ?, ?, ?)",
    "UPDATE server_runs SET last_alive_at = ?, placed = ?, closed = ?, lost = ?, set_aside = ? WHERE id = ?",
    "UPDATE server_runs SET last_alive_at = ?, stopped_at = ? WHERE id = ?",
    """UPDATE calls SET caller_country = ?, caller_region = ?, caller_city = ?, caller_site = ?,
        caller_location_source = ?, caller_location_until = ? WHERE id = ?""",
    """UPDATE calls SET callee_country = ?, callee_region = ?, callee_city = ?, callee_site = ?,
        callee_location_source = ?, callee_location_until = ? WHERE id = ?""",
    """UPDATE calls SET caller_country = NULL, caller_region = NULL, caller_city = NULL, caller_site = NULL,
        caller_location_source = NULL, caller_location_until = NULL WHERE caller_location_until <= ?""",
    """UPDATE calls SET callee_country = NULL, callee_region = NULL, callee_city = NULL, callee_site = NULL,
        callee_location_source = NULL, callee_location_until = NULL WHERE callee_location_until <= ?""",
    """UPDATE sign_ins SET country = NULL, region = NULL, city = NULL, site = NULL, location_source = NULL,
        location_until = NULL WHERE location_until <= ?""",
    "UPDATE call_branches SET outcome = ?, ended_at = ? WHERE call = ? AND branch = ?",
    "DELETE FROM call_media WHERE call = ? AND number < ? AND early = 0",
    "INSERT OR IGNORE INTO call_links (call, other, kind, at) VALUES (?, ?, ?, ?)",
    # In one commit this comes after the row of a device whose part is over, and then changes nothing.
    """INSERT INTO call_branches (call, branch, tried_at, ringing_at, agent, transport, network)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (call, branch) DO UPDATE SET ringing_at = coalesce(ringing_at, excluded.ringing_at),
        agent = CASE WHEN outcome IS NULL THEN coalesce(excluded.agent, agent) ELSE agent END""",
)
"""What the writer of ``calls.db`` is made with. Their order holds inside a commit, whatever was put first: a call
before what belongs to it, and the updates of a call in the order of its life."""


class Sink(Protocol):
    """The part of ``storage.writer.Writer`` that is needed here."""

    def put(self, statement: int, row: tuple[Any, ...], /) -> bool:
        """Queue a row; False when the queue is full."""


class Recorder:
    """The record of calls. All times are UNIX time in integer milliseconds.

    ``call_id_key`` keys the hash of Call-IDs (at most 64 bytes), ``random`` gives ten random bytes a call.
    """

    def __init__(
        self,
        writer: Sink,
        *,
        node: str,
        call_id_key: bytes,
        random: Callable[[], bytes],
        network: NetworkPrefix | None = None,
        max_open_calls: int = MAX_OPEN_CALLS,
    ) -> None:
        self.network = network or NetworkPrefix()
        """From a host to the prefix that may be stored; for the events' ``network``."""
        self.placed = 0
        """Calls since the start. ``placed = closed + open + lost + ends_waiting`` at any time."""
        self.closed = 0
        """Calls whose end was put."""
        self.lost = 0
        """Calls that could not be recorded because a bound was reached. Never silently: a metric shows it."""
        self.set_aside = 0
        """Calls whose row the store can never take (a constraint, a fault of ours)."""
        self.errors = 0
        """Errors noted, each occurrence counted."""
        self._put = writer.put
        self._node = node
        # Keyed once and copied for each call.
        self._call_id_hash = blake2b(digest_size=16, key=call_id_key)
        self._random = random
        self._max_open_calls = max_open_calls
        self._calls: dict[str, Call] = {}
        self._by_call_id: dict[str, Call | tuple[Call, ...]] = {}
        """One alone stands without a tuple, since nearly all are."""
        self._stamp = Stamp()
        self._sign_ins = Floods()
        self._errors = Floods()
        self._run = ""
        self._unput_ends: list[CallEnded] = []
        self._writes: dict[type, Callable[[Any], bool]] = {
            CallRang: self._call_rang,
            CallAnswered: self._call_answered,
            CallLocated: self._call_located,
            CallConfirmed: self._call_confirmed,
            CallMedia: self._call_media,
            CallEnded: self._call_ended,
            OpenBranch: self._open_branch,
            InsertBranch: self._insert_branch,
            OpenMedia: self._open_media,
            CloseMedia: self._close_media,
            UpdateBranch: self._update_branch,
            DropMedia: self._drop_media,
            InsertEvent: self._insert_event,
        }

    # ------------------------------------------------------------------ calls

    @property
    def open(self) -> int:
        """Calls that are going on."""
        return len(self._calls)

    @property
    def full(self) -> bool:
        """Whether another call could not be recorded, and so should be refused with 503."""
        return len(self._calls) >= self._max_open_calls

    def place(self, placed: Placed) -> Call:
        """A new call; its row is put. Its events are then handed over under ``placed.key``."""
        self.placed += 1
        call = Call(uuid7(placed.at, self._random()), placed)
        # Without its row nothing else of the call can be stored, so its events are not looked at either.
        if self.full or not self._insert_call(call.start()):
            self.lost += 1
            return call
        self._calls[placed.key] = call
        others_of_id = self._of_call_id(placed.call_id)
        self._by_call_id[placed.call_id] = (call, *others_of_id[: MAX_SAME_CALL_ID - 1]) if others_of_id else call
        return call

    def handle(self, key: str, event: Event) -> Call | None:
        """The call that this happened to, its rows being put; None for a call that is over or is not recorded."""
        call = self._calls.get(key)
        if call is None:
            return None
        writes = self._writes
        for row in call.handle(event):
            if not writes[type(row)](row) and isinstance(row, CallEnded):
                self._unput_ends.append(row)
        if call.state == ENDED:
            del self._calls[key]
            self._forget_call_id(call)
            if not self._unput_ends or self._unput_ends[-1].id != call.id:
                self.closed += 1
            if call.answered_at is not None and not call.confirmed and isinstance(event, Ended):
                self.error(
                    at=event.at, kind=faults.UNACKNOWLEDGED, method="INVITE", status=200, agent=call.caller_agent,
                    party=call.caller, target=call.callee, answered_by=faults.NETWORK, call=call.id,
                )  # fmt: skip
        return call

    def locate(self, call: Call, event: Located) -> None:
        """A place has become known late, maybe after the end of the call."""
        for row in call.handle(event):
            self._write(row)

    @property
    def ends_waiting(self) -> int:
        """Calls that are over and whose end the full queue did not take yet."""
        return len(self._unput_ends)

    def _put_ends(self) -> None:
        """Put the ends that the queue had no room for. There are never more than calls were open at a time."""
        while self._unput_ends and self._write(self._unput_ends[0]):
            del self._unput_ends[0]
            self.closed += 1

    def find(self, key: str) -> Call | None:
        """The open call of this key."""
        return self._calls.get(key)

    def find_dialog(self, call_id: str, one: str, other: str) -> Call | None:
        """The open call that has a dialog with this Call-ID and these two tags, whichever is whose (RFC 3891 §3)."""
        for call in self._of_call_id(call_id):
            if call.is_between(one, other):
                return call
        return None

    def link(self, call: str, other: str, kind: str, at: int) -> None:
        """The other call came of this one; both are ids of calls whose rows were put."""
        self._put(_LINK, (call, other, kind, self._stamp(at)))

    def _forget_call_id(self, call: Call) -> None:
        left = tuple([each for each in self._of_call_id(call.call_id) if each is not call])
        if left:
            self._by_call_id[call.call_id] = left if len(left) > 1 else left[0]
        else:
            self._by_call_id.pop(call.call_id, None)

    def _of_call_id(self, call_id: str) -> tuple[Call, ...]:
        found = self._by_call_id.get(call_id)
        if found is None:
            return ()
        return (found,) if isinstance(found, Call) else found

    def open_keys(self) -> list[str]:
        """The keys of the calls that go on."""
        return list(self._calls)

    # ------------------------------------------------------------------ sign-ins and errors

    def sign_in(
        self,
        *,
        at: int,
        party: str | None,
        outcome: str,
        status: int = 200,
        agent: str | None = None,
        transport: str | None = None,
        source: str | None = None,
        detail: str | None = None,
        place: Place = NOWHERE,
    ) -> None:
        """A registration that changed something (``bound``, ``removed``, ``expired``, …), or was ``refused``.

        ``source`` is the host it came from; only its network is stored.
        """
        network = self.network(source)
        row_id: str | None
        if outcome == REFUSED:
            row_id, is_coarse = self._fold(self._sign_ins, (party, status, network, place), (status,), at)
            if row_id is None:
                return
            if is_coarse:
                party = agent = network = None
                place = NOWHERE
        else:
            row_id = uuid7(at, self._random())
        when = self._stamp(at)
        self._put(
            _SIGN_IN,
            (
                row_id, when, party, outcome, status, agent, transport, network, printable(detail), when, self._node,
                *place[:5], self._stamp(place.until),
            ),
        )  # fmt: skip

    def error(
        self,
        *,
        at: int,
        kind: str,
        method: str | None = None,
        status: int | None = None,
        agent: str | None = None,
        party: str | None = None,
        detail: str | None = None,
        source: str | None = None,
        answered_by: str = faults.SERVER,
        call: str | None = None,
        target: str | None = None,
        offset: int = 0,
    ) -> None:
        """Something was refused, failed or malformed: ``kind`` and ``answered_by`` as ``calls.faults`` has them.

        ``source`` is a host. ``party`` asked and ``target`` was asked, party ids both. ``call`` is the id of a call
        whose row was put, and ``offset`` how far its clock is ahead of ``at``: the row is written by that. A row that
        stands for several occurrences has the call of the first.
        """
        self.errors += 1
        network = self.network(source)
        method = printable(method[:32] if method else None)
        row_id, is_coarse = self._fold(
            self._errors, (kind, method, status, network, party, target, agent), (kind, status), at, offset
        )
        if row_id is None:
            return
        if is_coarse:
            method = agent = party = network = call = target = None
        when = self._stamp(at + offset)
        self._put(
            _ERROR,
            (
                row_id, when, kind, method, status, answered_by, agent, party, network, printable(detail), when,
                self._node, call, target,
            ),
        )  # fmt: skip

    def _fold(
        self, floods: Floods, key: Hashable, coarse: Hashable, at: int, offset: int = 0
    ) -> tuple[str | None, bool]:
        """The id for a new row, None where an open row took the occurrence; and whether it stands for many sources."""
        if floods.join(key, at):
            return None, False
        is_coarse = floods.full(at)
        if is_coarse:
            if floods.join(coarse, at):
                return None, True
            key = coarse
        row_id = uuid7(at, self._random())
        floods.open(key, row_id, at, offset)
        return row_id, is_coarse

    # ------------------------------------------------------------------ the server itself

    def started(self, at: int, calls_before: int | None = None) -> None:
        """The server begins to serve. ``calls_before`` is the last rowid of calls by then: its own come after it."""
        self._run = uuid7(at, self._random())
        when = self._stamp(at)
        self._put(_RUN, (self._run, self._node, when, when, calls_before))

    def alive(self, at: int) -> None:
        """To be called every few seconds: the server sees what passes, and its counts and those of floods are put."""
        self._put_ends()
        # In the transaction that has these counts, or before it, stand the rows that they count.
        self._put(_ALIVE, (self._stamp(at), self.placed, self.closed, self.lost, self.set_aside, self._run))
        for statement, floods in ((_SIGN_IN_COUNT, self._sign_ins), (_ERROR_COUNT, self._errors)):
            for fold in floods.take_changed(at):
                self._put(statement, (fold.count, self._stamp(fold.last_at + fold.offset), fold.id))

    def forget_places(self, at: int) -> None:
        """To be called now and then: places that may not be kept any longer (``Place.until``) are put as unknown."""
        when = self._stamp(at)
        for statement in (_CALLER_FORGOTTEN, _CALLEE_FORGOTTEN, _SIGN_IN_FORGOTTEN):
            self._put(statement, (when,))

    def stopped(self, at: int) -> None:
        """The server stops in order; calls that are open stay so until the next start (``calls.recovery``)."""
        self.alive(at)
        when = self._stamp(at)
        self._put(_STOPPED, (when, when, self._run))

    # ------------------------------------------------------------------ rows

    def _write(self, row: Row) -> bool:
        return self._writes[type(row)](row)

    def hash_call_id(self, call_id: str) -> str:
        """A SIP Call-ID as ``calls.call_id`` has it."""
        digest = self._call_id_hash.copy()
        digest.update(call_id.encode("latin-1", "replace"))
        return digest.hexdigest()

    def _insert_call(self, row: InsertCall) -> bool:
        return self._put(
            _CALL,
            (
                row.id, self.hash_call_id(row.call_id), row.caller, row.callee, self._stamp(row.started_at), row.agent,
                row.transport, row.network, row.offered_video, self._node,
                *row.place[:5], self._stamp(row.place.until),
            ),
        )  # fmt: skip

    def _call_rang(self, row: CallRang) -> bool:
        return self._put(_RANG, (self._stamp(row.ringing_at), row.setup_ms, row.id))

    def _call_answered(self, row: CallAnswered) -> bool:
        return self._put(
            _ANSWERED,
            (
                self._stamp(row.answered_at), row.status, row.setup_ms, row.ring_ms, row.agent, row.transport,
                row.network, row.devices, row.video, row.content, row.encrypted,
                *row.place[:5], self._stamp(row.place.until), row.id,
            ),
        )  # fmt: skip

    def _call_located(self, row: CallLocated) -> bool:
        statement = _CALLER_LOCATED if row.is_caller else _CALLEE_LOCATED
        return self._put(statement, (*row.place[:5], self._stamp(row.place.until), row.id))

    def _call_confirmed(self, row: CallConfirmed) -> bool:
        return self._put(_CONFIRMED, (self._stamp(row.confirmed_at), row.id))

    def _call_media(self, row: CallMedia) -> bool:
        return self._put(_MEDIA, (row.video, row.content, row.encrypted, row.id))

    def _call_ended(self, row: CallEnded) -> bool:
        return self._put(
            _ENDED,
            (
                self._stamp(row.ended_at), row.outcome, row.status, row.reason, row.ended_by, row.end_cause,
                row.end_uncertainty_ms, self._stamp(row.watched_until), row.setup_ms, row.ring_ms, row.talk_ms,
                row.video_ms, row.devices, row.disconnect_ms, row.id,
            ),
        )  # fmt: skip

    def _open_branch(self, row: OpenBranch) -> bool:
        stamp = self._stamp
        return self._put(
            _BRANCH_OPENED,
            (
                row.id, row.branch, stamp(row.tried_at), stamp(row.ringing_at), row.agent, row.transport, row.network,
            ),
        )  # fmt: skip

    def _insert_branch(self, row: InsertBranch) -> bool:
        stamp = self._stamp
        return self._put(
            _BRANCH,
            (
                row.id, row.branch, stamp(row.tried_at), stamp(row.ringing_at), stamp(row.answered_at),
                stamp(row.ended_at), row.status, row.outcome, row.agent, row.transport, row.network,
            ),
        )  # fmt: skip

    def _open_media(self, row: OpenMedia) -> bool:
        stream = row.stream
        return self._put(
            _OPEN,
            (
                row.id, row.number, stream.stream, stream.kind, stream.accepted, stream.codec, stream.direction,
                stream.bandwidth, stream.resolution, stream.level, stream.max_pixels, stream.encrypted, stream.ice,
                self._stamp(row.from_at), row.branch, row.early, stream.held_by, stream.profile, stream.encryption,
            ),
        )  # fmt: skip

    def _close_media(self, row: CloseMedia) -> bool:
        return self._put(_CLOSE, (self._stamp(row.to_at), row.id, row.number, row.number + row.streams))

    def _update_branch(self, row: UpdateBranch) -> bool:
        return self._put(_BRANCH_CHANGED, (row.outcome, self._stamp(row.ended_at), row.id, row.branch))

    def _drop_media(self, row: DropMedia) -> bool:
        return self._put(_DROP, (row.id, row.before))

    def _insert_event(self, row: InsertEvent) -> bool:
        return self._put(_EVENT, (row.id, row.number, self._stamp(row.at), row.kind, row.side, row.status, row.detail))
