"""Compares what is on record with what was planned and with what passed on the wire, and explains each difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sipserver.calls.times import parse_stamp
from support.generator import media
from support.generator.dialog import Played
from support.generator.plan import CALLEE, CALLER, SERVER, CallPlan, Media
from support.generator.play import Outage, World
from support.generator.record import Clockwork, Report, Store
from support.generator.station import TIMERS
from support.generator.story import Bye, Story, tell
from support.generator.wire import Seen
from support.server import Row

EXACT = 0.05
"""Seconds that a time on record may be later than what it tells of."""
EARLY = 0.003
"""Seconds that it may be earlier: the store has whole milliseconds, and clocks are read one after the other."""
UNCERTAIN = 2.0
"""Seconds before a SIGKILL in which what reached the server may or may not have been looked at and stored, unless the
server said that it was: a busy disk takes its time for a commit."""
GIVEN_UP = 64 * TIMERS.t1
"""Seconds after which a BYE that nobody answered is given up (RFC 3261 §17.1.2.2)."""
IMPATIENT = 0.18
"""Seconds after which an answer may have been passed on without its row: it waits for a slow store no longer."""
KNOWN_EVENTS = ("placed", "ringing", "answered", "confirmed", "changed", "cancelled", "failed", "ended")

_REFUSALS = {
    486: "busy", 600: "busy", 603: "declined", 607: "declined", 608: "declined", 404: "not_found", 484: "not_found",
    403: "forbidden", 480: "no_answer", 487: "cancelled", 408: "no_answer",
}  # fmt: skip
"""What a device's refusal makes of its branch; not read from the server, whose table is what is tested."""


class Checker:
    """Looks at every call of a world that has been played."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self._clock = Clockwork(world.probe)
        self._outages = {each.run: each for each in world.outages}
        self.report = Report()

    def check(self) -> Report:
        """Compare everything."""
        report, store, world = self.report, self._store, self._world
        report.unlinked = store.links is None
        placed = 0
        for played in world.played.values():
            seen = world.network.wire.calls[played.call_id]
            stories = tell(seen, f"c{played.plan.number}", played.kept)
            placed += len(stories)
            report.scenarios[played.plan.scenario] += 1
            self._check_plan(played, stories, seen)
        report.calls, report.rows = placed, store.count
        if placed != store.count and not world.outages:
            report.mismatches.append(f"{store.count} rows of calls, {placed} calls on the wire")
        self._check_errors()
        return report

    def _check_plan(self, played: Played, stories: list[Story], seen: Sequence[Seen]) -> None:
        rows = list(self._store.rows_of(played))
        before = len(self.report.mismatches)
        expected = len(stories)
        # What reached the server right before it was killed may have left no row.
        doubtful = [story for story in stories if self._doubtful(story, story.started)]
        if not expected - len(doubtful) <= len(rows) <= expected:
            self._wrong(played, f"has {len(rows)} rows, and {expected} INVITEs were let in")
        elif len(rows) < expected:
            gone = doubtful[: expected - len(rows)]
            stories = [story for story in stories if story not in gone]
        if len(rows) == len(stories):
            for row, story in zip(rows, stories, strict=True):
                CallCheck(self, played, story, row, seen).check()
        undisturbed = not any(self._near_an_outage(story) for story in stories)
        if undisturbed and not self._world.outages and not played.done:
            self._wrong(played, f"was not played to its end: {played.trouble or 'it hangs'}")
        if not stories and not self._world.outages:
            self._wrong(played, "never reached the server")
        self._check_links(played)
        if len(self.report.mismatches) > before:
            wire = "\n".join(f"        {each}" for each in seen)
            shown = "\n".join(f"        {row}" for row in rows)
            name = f"call {played.plan.number} ({played.plan.scenario})"
            self.report.details.append(f"{name}\n    on the wire:\n{wire}\n    on record:\n{shown}")

    def _near_an_outage(self, story: Story) -> bool:
        return story.run in self._outages

    def _just_restarted(self, story: Story) -> bool:
        """Whether the call began right after a restart, when connections are still coming up."""
        return any(each.up - EARLY <= story.started < each.up + 3 for each in self._outages.values())

    def _doubtful(self, story: Story, at: float) -> bool:
        """Whether what reached the server then may have been lost with it."""
        outage = self._outages.get(story.run)
        return outage is not None and outage.signal == "KILL" and at > outage.down - UNCERTAIN

    def _wrong(self, played: Played, what: str) -> None:
        self.report.mismatches.append(f"call {played.plan.number} ({played.plan.scenario}): {what}")

    # ------------------------------------------------------------------ across calls

    def _check_links(self, played: Played) -> None:
        """Where the store links calls: those that a REFER or a Replaces made belong together."""
        links, plan = self._store.links, played.plan
        if links is None or plan.link not in ("transfer", "attended") or not played.done:
            return
        if not self._seen_together(played, self._world.played[plan.rides]):
            return
        mine = {row["id"] for row in self._store.rows_of(played)}
        theirs = {row["id"] for row in self._store.rows_of(self._world.played[plan.rides])}
        if mine and theirs and not any(mine & set(_texts(row)) and theirs & set(_texts(row)) for row in links):
            self._wrong(played, f"is not linked to call {plan.rides}, which it was transferred from")
            wire = "\n".join(f"        {each}" for each in self._world.network.wire.calls[self._of(plan.rides)])
            self.report.details.append(f"call {plan.rides}, which call {plan.number} came from\n{wire}")

    def _seen_together(self, played: Played, origin: Played) -> bool:
        """Whether one run of the server saw both calls begin, and the REFER between them accepted."""
        wire = self._world.network.wire.calls
        before = wire[origin.call_id]
        refers = {each.run: each.at for each in before if each.method == "REFER" and each.status == 202}
        first = {story.run for story in tell(before, f"c{origin.plan.number}", origin.kept)}
        return any(
            story.run in first and story.run in refers and not self._doubtful(story, story.started)
            for story in tell(wire[played.call_id], f"c{played.plan.number}", played.kept)
        )

    def _of(self, number: int) -> str:
        return self._world.played[number].call_id

    def _check_errors(self) -> None:
        """Every forged request is counted; what stood in memory alone when the server was killed may be lost."""
        sent: Counter[str] = Counter()
        for played in self._world.played.values():
            seen = {each.branch for each in self._world.network.wire.calls[played.call_id] if each.link == "attacker"}
            for method, branch in played.forged:
                sent[method] += branch in seen
        killed = any(each.signal == "KILL" for each in self._world.outages)
        for method, status in (("BYE", 403), ("CANCEL", 481)):
            found = [row for row in self._store.errors if row["method"] == method and row["status"] == status]
            count = sum(row["count"] for row in found)
            if sent[method] and (count < 1 if killed else count < sent[method]):
                self.report.mismatches.append(f"errors count {count} refused {method}s, and {sent[method]} were forged")


def _texts(row: Row) -> list[str]:
    return [value for value in row.values() if isinstance(value, str)]


@dataclass(slots=True)
class CallCheck:
    """One row of ``calls`` and what belongs to it."""

    checker: Checker
    played: Played
    story: Story
    row: Row
    seen: Sequence[Seen]

    @property
    def plan(self) -> CallPlan:
        """What was planned."""
        return self.played.plan

    def check(self) -> None:
        """Compare all of it."""
        story, row = self.story, self.row
        outage = self.checker._outages.get(story.run)
        self.checker.report.outcomes[str(row["outcome"])] += 1
        self._same("callee", row["callee"], self._callee())
        self._time("started_at", story.started)
        if row["end_cause"] == "server_restart" or row["ended_at"] is None:
            self._cut_short(outage)
        else:
            self._whole(outage)
        self._sums()

    def _callee(self) -> str | None:
        callee = self.plan.callee
        return self.checker._store.party(callee.name) if callee.subscriber else None

    # ------------------------------------------------------------------ a call that a restart cut short

    def _cut_short(self, outage: Outage | None) -> None:
        story, row = self.story, self.row
        self.checker.report.restarted += 1
        end = story.end.at if story.end is not None else None
        if story.passed is not None and story.passed.status >= 300:
            end = story.passed.at
        if outage is None or row["ended_at"] is None:
            self._wrong("is open" if row["ended_at"] is None else "ended with server_restart, and there was none")
            return
        if end is not None and not self.checker._doubtful(story, end):
            self._wrong(f"ended at {end:.3f}, before the restart, but is on record as cut short")
        if story.bye_passed is not None and story.end is not None and story.bye_passed - story.end.at < IMPATIENT:
            self._wrong("the server passed on the answer to its BYE, but lost its end")
        answered = story.answered
        passed = story.passed
        prompt = passed is not None and answered is not None and passed.at - answered < IMPATIENT
        if passed is not None and passed.status < 300 and prompt and row["answered_at"] is None:
            self._wrong("the server passed on its answer, but lost it")
        sure = [at for at in self._evidence() if not self.checker._doubtful(story, at)]
        ended = _seconds(row["ended_at"])
        near = [each.at for each in self.seen if each.run == story.run and each.to_server]
        if not any(at - EARLY <= ended and not self._is_late(ended, at) for at in near):
            self._wrong(f"ended_at {ended:.3f} is no moment at which anything was heard of it")
        if ended < max(sure, default=0.0) - EARLY:
            self._wrong(f"ended_at {ended:.3f} is before the last sign of life at {max(sure):.3f}")
        until = ended + row["end_uncertainty_ms"] / 1000
        if not (ended <= outage.gone and outage.down <= until):
            self._wrong(f"its end is said to be in {ended:.3f}-{until:.3f}, and it was up at {outage.down:.3f}")
        if not outage.gone <= until <= outage.up + EXACT:
            self._wrong(f"its end is said to be before {until:.3f}; the restart was {outage.gone:.3f}-{outage.up:.3f}")
        self._same("ended_by", row["ended_by"], SERVER)
        outcome = "cancelled" if story.cancelled is not None else "failed"
        if answered is not None:
            outcome = "answered"
        in_doubt = [at for at in (answered, story.cancelled) if at is not None and self.checker._doubtful(story, at)]
        if row["outcome"] != outcome and not in_doubt:
            self._same("outcome", row["outcome"], outcome)
        if row["answered_at"] is not None and answered is not None:
            self._time("answered_at", answered)

    def _evidence(self) -> list[float]:
        story = self.story
        found = [story.started, story.ringing, story.answered, story.confirmed, story.cancelled]
        return [at for at in (*found, *(at for at, _, _ in story.changes)) if at is not None]

    # ------------------------------------------------------------------ a call that was seen to its end

    def _whole(self, outage: Outage | None) -> None:
        story, row = self.story, self.row
        if self.played.cut and row["end_cause"] == "connection_lost":
            self._connection_lost()
            return
        unanswered = self.plan.end == "unanswered" and not story.byes and story.hung_up is not None
        if unanswered:
            assert story.hung_up is not None
            story.byes.append(story.hung_up)
        if story.answered is not None:
            if self.checker.report.unlinked and self._answered_twice():
                self._same("outcome", row["outcome"], "answered")
                self._time("ringing_at", story.ringing)
                return
            if story.end is None:
                self._wrong(f"is on record as ended ({row['end_cause']}), and nobody ended it")
                return
            self._answered()
        elif story.passed is None:
            self._wrong(f"is on record as ended ({row['end_cause']}), and nothing final was sent to its caller")
        else:
            self._refused()
        self._events()
        if unanswered:
            waited = (row["end_uncertainty_ms"] or 0) / 1000
            stall = self.checker._clock.stall(story.started, _seconds(row["ended_at"]) + waited)
            if not GIVEN_UP <= waited + EARLY <= GIVEN_UP + EXACT + 0.2 + stall:
                self._wrong(f"its BYE was waited for for {waited:.3f} s")
        elif row["end_uncertainty_ms"] is not None:
            self._wrong(f"its end was seen, and is said to be uncertain by {row['end_uncertainty_ms']} ms")

    def _answered(self) -> None:
        story, row, plan = self.story, self.row, self.plan
        end = story.end
        assert end is not None
        self._same("outcome", row["outcome"], "answered")
        self._same("sip_status", row["sip_status"], 200)
        self._same("end_cause", row["end_cause"], "bye")
        end = self._end(end)
        side = end.side if end in story.dropped else plan.ended_by or end.side
        if plan.gives_up is not None:
            side = CALLER
        self._same("ended_by", row["ended_by"], side)
        self._time("ringing_at", story.ringing)
        self._answer_time()
        self._time("confirmed_at", story.confirmed)
        self._time("ended_at", end.at)
        self._branches()
        self._media(end.at)

    def _end(self, first: Bye) -> Bye:
        """Of two BYEs that were accepted at once over different sockets the one that the server read first."""
        for bye in self.story.byes:
            if bye.side == self.row["ended_by"] and not self._is_late(bye.at, first.at):
                return bye
        # The caller's BYE to a device that it did not keep may come when the call with the other one is over already:
        # until then both dialogs stood, and nobody could tell which of them is the call.
        for bye in self.story.dropped:
            if bye.at > first.at and abs(_seconds(self.row["ended_at"]) - bye.at) <= EXACT:
                return bye
        return first

    def _answered_twice(self) -> bool:
        return sum(each.status < 300 for each in self.story.finals.values()) > 1

    def _answer_time(self) -> None:
        """The answer of the device that the caller kept; of the first, where it was told apart later only."""
        story, kept = self.story, self.played.kept
        first = story.answered
        answered = _seconds(self.row["answered_at"]) if self.row["answered_at"] else 0.0
        if kept in story.finals and first is not None and abs(answered - first) > EXACT:
            self._time("answered_at", story.finals[kept].at)
        else:
            self._time("answered_at", first)

    def _refused(self) -> None:
        story, row, plan = self.story, self.row, self.plan
        passed = story.passed
        assert passed is not None
        cancelled = story.cancelled is not None
        outcome, by, cause = plan.outcome, plan.ended_by, plan.end_cause
        if cancelled:
            outcome, by, cause = "cancelled", CALLER, "cancel"
        elif outcome in ("busy", "declined") and passed.status == 486:
            # A device that rings first is not busy; its 180 may have been overtaken.
            outcome = "declined" if story.ringing is not None else "busy"
        elif not story.finals and self.checker._just_restarted(story):
            # A device whose connection broke has not come back yet.
            outcome, by, cause = row["outcome"], SERVER, row["end_cause"]
        self._same("outcome", row["outcome"], outcome)
        self._same("sip_status", row["sip_status"], passed.status)
        if by == plan.ended_by and plan.status and passed.status != plan.status:
            self._wrong(f"was answered {passed.status}, planned was {plan.status}")
        self._same("ended_by", row["ended_by"], by)
        self._same("end_cause", row["end_cause"], cause)
        self._time("ringing_at", story.ringing)
        for name in ("answered_at", "confirmed_at", "talk_ms", "video_ms"):
            self._same(name, row[name], None)
        if story.cancelled is not None:
            self._time("ended_at", story.cancelled)
        elif by == CALLEE and story.finals:
            # The last device to refuse, or the one that spoke for all, decided it.
            self._time("ended_at", max(each.at for each in story.finals.values() if each.at <= passed.at))
        else:
            self._until("ended_at", passed.at)
        self._branches()
        self._same("media rows", len(self.checker._store.media[row["id"]]), 0)

    def _connection_lost(self) -> None:
        """Where the server takes a broken connection for the end: it can be no later than the call's real one."""
        row, story = self.row, self.story
        end = story.end.at if story.end is not None else story.started + 3600
        ended = _seconds(row["ended_at"])
        until = ended + (row["end_uncertainty_ms"] or 0) / 1000
        self._same("ended_by", row["ended_by"], SERVER)
        if not (max(self._evidence()) - 3600 <= ended <= end + EXACT and ended <= until):
            self._wrong(f"ended_at {ended:.3f} is after the call's end at {end:.3f}")

    # ------------------------------------------------------------------ what belongs to it

    def _branches(self) -> None:
        story, row = self.story, self.row
        devices = self.plan.callee.devices
        rows = self.checker._store.branches[row["id"]]
        self.checker.report.branch_rows += len(rows)
        self._same("devices", row["devices"], len(devices))
        if len(rows) != len(devices):
            self._wrong(f"has {len(rows)} branches for {len(devices)} devices")
            return
        by_agent = {each["agent"]: each for each in rows}
        for index, device in enumerate(devices):
            found = by_agent.get(f"device {device.name}")
            tag = f"d{self.plan.number}.{index}.{story.number}"
            final = story.finals.get(tag)
            if found is None:
                # One that timer C cancelled may never have said who it is: its 487 is not looked at for that.
                if final is not None and final.status != 487 and final.at < self._over() - EXACT:
                    self._wrong(f"has no branch of {device.name}, which answered {final.status}")
                continue
            wanted = self._branch_outcome(tag)
            if found["outcome"] not in wanted:
                self._wrong(f"branch of {device.name}: outcome is {found['outcome']}, expected {' or '.join(wanted)}")
            rang = story.rang.get(tag)
            if rang is None and found["ringing_at"] is not None:
                rang = self._overtaken(story.rang_late.get(tag))
            self._moment(f"branch of {device.name}: ringing_at", found["ringing_at"], rang)
            if found["answered_at"] is not None and final is not None:
                self._moment(f"branch of {device.name}: answered_at", found["answered_at"], final.at)

    def _overtaken(self, rang: float | None) -> float | None:
        """A ringing that the server may have read before an answer that came a moment earlier over another socket."""
        answered = self.story.answered
        if rang is None or answered is None or self._is_late(rang, answered):
            return None
        return rang

    def _over(self) -> float:
        story = self.story
        if story.end is not None:
            return story.end.at
        return story.passed.at if story.passed is not None else story.started

    def _branch_outcome(self, tag: str) -> tuple[str, ...]:
        story = self.story
        final = story.finals.get(tag)
        if final is None or final.at > self._over():
            return ("elsewhere", "cancelled", "no_answer", "unreachable")
        if final.status < 300:
            if tag in (story.winner, self.played.kept):
                # Which of two answers is the call is known when the caller's ACK tells; see ``_answer_time``.
                one = tag == story.winner == (self.played.kept or tag)
                return ("answered",) if one else ("answered", "also_answered")
            return ("also_answered",)
        if final.status == 487:
            if story.answered is not None and final.at >= story.answered:
                return ("elsewhere",)
            return ("cancelled", "no_answer") if story.cancelled is None else ("cancelled",)
        if final.status == 486:
            return ("declined",) if tag in story.rang else ("busy",)
        return (_REFUSALS.get(final.status, "failed"),)

    def _media(self, end: float) -> None:
        plan, story, row = self.plan, self.story, self.row
        changes = self._media_changes(end)
        expected = sorted(media.rows(changes, end), key=lambda each: (each.since, each.stream))
        found = sorted(self.checker._store.media[row["id"]], key=lambda each: (each["from_at"], each["stream"]))
        self.checker.report.media_rows += len(found)
        told = [(each["stream"], each["kind"], each["accepted"], each["codec"], each["direction"]) for each in found]
        wanted = [(each.stream, each.kind, each.accepted, each.codec, each.direction) for each in expected]
        if self.checker.report.unlinked and self.played.delayed:
            return
        if told != wanted:
            self._wrong(f"media are {told}, expected {wanted}")
            return
        for each, want in zip(found, expected, strict=True):
            self._moment(f"media {want.stream} from_at", each["from_at"], want.since)
            self._moment(f"media {want.stream} to_at", each["to_at"], want.until)
        video = media.video_seconds(changes, end)
        had = any(each.kind == "video" and each.accepted for _, state in changes for each in state)
        self._same("video", row["video"], int(had) if changes else None)
        if row["video_ms"] is None or video is None:
            self._same("video_ms", row["video_ms"], video)
        else:
            stall = self.checker._clock.stall(story.started, _seconds(row["ended_at"]))
            if abs(row["video_ms"] / 1000 - video) > 2 * EXACT + 4 * stall:
                self._wrong(f"video_ms is {row['video_ms']}, expected {video * 1000:.0f}")
        if plan.end_cause and story.answered is None:
            self._wrong("has media and no answer")

    def _media_changes(self, end: float) -> list[tuple[float, Media]]:
        plan, story, played = self.plan, self.story, self.played
        changes: list[tuple[float, Media]] = []
        at = story.answered
        caller = f"c{plan.number}"
        if plan.delayed:
            at = story.acks.get((caller, story.number))
        if at is not None and at < end:
            changes.append((at, plan.agreed))
        for when, tag, number in story.changes:
            state = played.changes.get((tag, number))
            if state is None:
                continue
            moment: float | None = when
            if (tag, number) in played.delayed:
                moment = story.acks.get((tag, number))
            if moment is not None and moment < end:
                changes.append((moment, state))
        return sorted(changes, key=lambda each: each[0])

    def _events(self) -> None:
        story, row = self.story, self.row
        events = self.checker._store.events[row["id"]]
        self._same("numbers of events", [each["number"] for each in events], list(range(1, len(events) + 1)))
        found = Counter(each["kind"] for each in events if each["kind"] in KNOWN_EVENTS)
        wanted = Counter(["placed"])
        wanted["ringing"] += story.ringing is not None
        wanted["cancelled"] += story.cancelled is not None
        if story.answered is not None:
            wanted.update(["answered", "ended"])
            wanted["confirmed"] += story.confirmed is not None
            wanted["changed"] += len(story.changes)
        else:
            wanted["failed"] += story.cancelled is None
        if self._answered_twice() and found["confirmed"]:
            # The ACK of each dialog may stand on the timeline.
            found["confirmed"] = 1
        if self._crossed():
            found.pop("cancelled", None)
            wanted.pop("cancelled", None)
        if found != +wanted:
            self._wrong(f"events are {dict(found)}, expected {dict(+wanted)}")

    def _crossed(self) -> bool:
        """Whether a CANCEL and an answer came at once over different sockets, whose order nobody knows."""
        answered, cancelled = self.story.answered, self.story.cancel_at
        return answered is not None and cancelled is not None and abs(answered - cancelled) < EXACT

    def _sums(self) -> None:
        """Durations are the differences of the times beside them, to the millisecond."""
        row = self.row
        until = row["answered_at"] or row["ended_at"]
        for name, start, end in (
            ("talk_ms", row["answered_at"], row["ended_at"]),
            ("ring_ms", row["ringing_at"], until),
        ):
            if row["ended_at"] is None:
                continue
            expected = None
            if start is not None and end is not None and parse_stamp(end) >= parse_stamp(start):
                expected = parse_stamp(end) - parse_stamp(start)
            self._same(name, row[name], expected)

    # ------------------------------------------------------------------ comparing

    def _wrong(self, what: str) -> None:
        self.checker._wrong(self.played, what)

    def _same(self, name: str, found: Any, expected: Any) -> None:
        if found != expected:
            self._wrong(f"{name} is {found!r}, expected {expected!r}")

    def _time(self, name: str, at: float | None) -> None:
        self._moment(name, self.row[name], at)

    def _moment(self, name: str, found: str | None, at: float | None) -> None:
        if found is None or at is None:
            self._same(name, found, at)
            return
        report = self.checker.report
        late = _seconds(found) - at
        report.times += 1
        if late > EXACT and not self._is_late(_seconds(found), at):
            report.stalled += 1
            return
        report.worst_ms = max(report.worst_ms, late * 1000)
        if not -EARLY <= late <= EXACT:
            self._wrong(f"{name} is {found}, {late * 1000:+.0f} ms from what the server saw")

    def _until(self, name: str, passed: float) -> None:
        """A moment that only its consequence tells: right before it."""
        found = _seconds(self.row[name])
        if self._is_late(passed, found) or found > passed + EARLY:
            self._wrong(f"{name} is {found:.3f}, and what followed from it was sent at {passed:.3f}")

    def _is_late(self, found: float, at: float) -> bool:
        """Whether a time on record is later than what it tells of, and the server did not stand still either."""
        late = found - at
        return late > EXACT and late > EXACT + 2 * self.checker._clock.stall(at, found)


def _seconds(stamp: str) -> float:
    return parse_stamp(stamp) / 1000
