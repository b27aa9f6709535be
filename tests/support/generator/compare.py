"""One call: what is on record of it beside what was planned and what passed on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sipserver.calls.times import parse_stamp
from support.generator import media
from support.generator.dialog import Played
from support.generator.plan import CALLEE, CALLER, SERVER, CallPlan, Media
from support.generator.record import EARLY, EXACT, Scene
from support.generator.station import GRACE, TIMERS
from support.generator.story import Bye, Story
from support.generator.wire import Seen
from support.generator.world import Outage
from support.server import Row

GIVEN_UP = 64 * TIMERS.t1
"""Seconds after which a BYE that nobody answered is given up (RFC 3261 §17.1.2.2)."""
TICK = 2.0
"""Seconds from the moment at which a record may be closed until it is: calls are looked at once a second."""
STANDSTILL = 0.5
"""Seconds for which nobody had a processor, so that what takes longer may have been too late for a timer."""
IMPATIENT = 0.18
"""Seconds after which an answer may have been passed on without its row: it waits for a slow store no longer."""
KNOWN_EVENTS = ("placed", "ringing", "answered", "confirmed", "changed", "cancelled", "failed", "ended")

_REFUSALS = {
    486: "busy", 600: "busy", 603: "declined", 607: "declined", 608: "declined", 404: "not_found", 484: "not_found",
    403: "forbidden", 480: "no_answer", 487: "cancelled", 408: "no_answer",
}  # fmt: skip
"""What a device's refusal makes of its branch; not read from the server, whose table is what is tested."""


@dataclass(slots=True)
class CallCheck:
    """One row of ``calls`` and what belongs to it."""

    scene: Scene
    played: Played
    story: Story
    row: Row
    seen: Sequence[Seen]
    ahead: float = 0.0
    """Seconds that the server's clock was ahead when the call began."""

    def __post_init__(self) -> None:
        """All times of the call are told by the clock as it was set when it began."""
        self.ahead = self.scene.ahead(self.story.started, self.row["started_at"])

    def _seconds(self, stamp: str) -> float:
        return parse_stamp(stamp) / 1000 - self.ahead

    @property
    def plan(self) -> CallPlan:
        """What was planned."""
        return self.played.plan

    def check(self) -> None:
        """Compare all of it."""
        story, row = self.story, self.row
        outage = self.scene.outages.get(story.run)
        self.scene.report.outcomes[str(row["outcome"])] += 1
        self._same("callee", row["callee"], self._callee())
        self._time("started_at", story.started)
        if row["end_cause"] == "server_restart" or row["ended_at"] is None:
            self._cut_short(outage)
        else:
            self._whole(outage)
        self._sums()

    def _callee(self) -> str | None:
        callee = self.plan.callee
        return self.scene.store.party(callee.name) if callee.subscriber else None

    # ------------------------------------------------------------------ a call that a restart cut short

    def _cut_short(self, outage: Outage | None) -> None:
        story, row = self.story, self.row
        self.scene.report.restarted += 1
        end = story.end.at if story.end is not None else None
        if story.passed is not None and story.passed.status >= 300:
            end = story.passed.at
        if outage is None or row["ended_at"] is None:
            self._wrong("is open" if row["ended_at"] is None else "ended with server_restart, and there was none")
            return
        if end is not None and not self.scene.doubtful(story, end):
            self._wrong(f"ended at {end:.3f}, before the restart, but is on record as cut short")
        if story.bye_passed is not None and story.end is not None and story.bye_passed - story.end.at < IMPATIENT:
            self._wrong("the server passed on the answer to its BYE, but lost its end")
        answered = story.first_answer
        passed = story.passed
        prompt = passed is not None and answered is not None and passed.at - answered < IMPATIENT
        if passed is not None and passed.status < 300 and prompt and row["answered_at"] is None:
            self._wrong("the server passed on its answer, but lost it")
        sure = [at for at in self._evidence() if not self.scene.doubtful(story, at)]
        ended = self._seconds(row["ended_at"])
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
        in_doubt = [at for at in (answered, story.cancelled) if at is not None and self.scene.doubtful(story, at)]
        if row["outcome"] != outcome and not in_doubt:
            self._same("outcome", row["outcome"], outcome)
        if row["answered_at"] is not None and answered is not None:
            # What had told which device was kept may not have been looked at any more.
            found = self._seconds(row["answered_at"])
            before = [at for at in story.answers.values() if at <= found + EARLY]
            self._time("answered_at", max(before, default=answered))

    def _evidence(self) -> list[float]:
        story = self.story
        found = [story.started, story.ringing, story.first_answer, story.confirmed, story.cancelled]
        return [at for at in (*found, *(at for at, _, _ in story.changes)) if at is not None]

    # ------------------------------------------------------------------ a call that was seen to its end

    def _whole(self, outage: Outage | None) -> None:
        story, row = self.story, self.row
        closed_at = self._seconds(row["ended_at"]) + (row["end_uncertainty_ms"] or 0) / 1000
        if self.played.cut and row["end_cause"] == "connection_lost" and self._stood_still(closed_at):
            # Whoever was cut off came back too late.
            self.scene.report.forced += 1
            return
        unanswered = self.plan.end == "unanswered" and not story.byes and story.hung_up is not None
        if story.end is not None and story.end.at - story.end.asked_at > GIVEN_UP:
            # By then the server did not wait for its answer any more.
            unanswered, story.byes = True, []
        if unanswered:
            assert story.hung_up is not None
            story.byes.append(story.hung_up)
        if story.answered is not None and row["end_cause"] == "session_expired" and self._lapsed(story.answered):
            # Nobody had a processor in time for the refresh.
            self.scene.report.forced += 1
            return
        if story.answered is not None and story.end is None and (self.plan.gone or self.plan.end == "stopped"):
            self._presumed(story.answered)
            return
        if story.answered is not None:
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
            stall = self.scene.clock.stall(story.started, self._seconds(row["ended_at"]) + waited)
            if not GIVEN_UP <= waited + EARLY <= GIVEN_UP + EXACT + 0.2 + stall:
                self._wrong(f"its BYE was waited for for {waited:.3f} s")
        elif row["end_uncertainty_ms"] is not None:
            self._wrong(f"its end was seen, and is said to be uncertain by {row['end_uncertainty_ms']} ms")

    def _answered(self) -> None:
        story, row, plan = self.story, self.row, self.plan
        end = story.end
        assert end is not None
        self._which_device()
        self._same("outcome", row["outcome"], "answered")
        self._same("sip_status", row["sip_status"], 200)
        self._same("end_cause", row["end_cause"], "bye")
        end = self._end(end)
        side = end.side if self._stood_still(end.at) else plan.ended_by or end.side
        if plan.gives_up is not None:
            side = CALLER
        self._same("ended_by", row["ended_by"], side)
        self._time("ringing_at", story.ringing)
        self._time("answered_at", story.answered)
        self._time("confirmed_at", self._confirmed())
        self._time("ended_at", end.at)
        self._branches()
        self._media(end.at)

    def _end(self, first: Bye) -> Bye:
        """Of two BYEs that were accepted at once over different sockets the one that the server read first."""
        for bye in self.story.byes:
            if bye.side == self.row["ended_by"] and not self._is_late(bye.at, first.at):
                return bye
        return first

    def _which_device(self) -> None:
        """The call is that of the device which the caller kept, unless the server could not know that."""
        story, kept = self.story, self.played.kept
        if story.kept == kept or kept not in story.answers:
            return
        # The BYE for the one that was not kept came only after that of the call.
        self.scene.report.untold += 1
        last = story.parted.get(story.kept)
        own = story.parted.get(kept)
        if last is None or own is None or last < own:
            self._wrong(f"the caller kept {kept}, and what reached the server says {story.kept}")

    def _refused(self) -> None:
        story, row, plan = self.story, self.row, self.plan
        passed = story.passed
        assert passed is not None
        cancelled, absent = story.cancelled is not None, False
        outcome, by, cause = plan.outcome, plan.ended_by, plan.end_cause
        if cancelled:
            outcome, by, cause = "cancelled", CALLER, "cancel"
        elif outcome in ("busy", "declined") and passed.status == 486:
            # A device that rings first is not busy; its 180 may have been overtaken.
            outcome = "declined" if story.ringing is not None else "busy"
        elif self.scene.just_restarted(story) and passed.status == 480 and not story.finals and row["devices"] == 0:
            # No device has come back yet.
            absent = True
            outcome, by, cause = "offline", SERVER, "refused"
        elif self.scene.just_restarted(story) and all(each.status == 487 for each in story.finals.values()):
            # A device whose connection broke has not come back yet.
            outcome, by, cause = row["outcome"], SERVER, row["end_cause"]
        elif self.scene.just_restarted(story) and plan.status == 200 and passed.status in (480, 486):
            # Of those that are there somebody refuses for all: the device that was to answer has not come back yet.
            refused = "declined" if story.ringing is not None else "busy"
            outcome, by, cause = "no_answer" if passed.status == 480 else refused, CALLEE, "refused"
        elif passed.status == 408 and self._stood_still(passed.at):
            # Timer C ran out before the endpoints came to say what they had planned.
            self.scene.report.forced += 1
            outcome, cause = ("no_answer", "timeout") if story.heard else ("offline", "unreachable")
            by = SERVER
        self._same("outcome", row["outcome"], outcome)
        self._same("sip_status", row["sip_status"], passed.status)
        as_planned = by == plan.ended_by and not absent and not self._stood_still(passed.at)
        if as_planned and plan.status and passed.status != plan.status:
            self._wrong(f"was answered {passed.status}, planned was {plan.status}")
        self._same("ended_by", row["ended_by"], by)
        self._same("end_cause", row["end_cause"], cause)
        self._time("ringing_at", story.ringing)
        for name in ("answered_at", "confirmed_at", "talk_ms", "video_ms"):
            self._same(name, row[name], None)
        if story.cancelled is not None:
            self._time("ended_at", story.cancelled)
        elif by == CALLEE and any(each.at <= passed.at for each in story.finals.values()):
            # The last device to refuse, or the one that spoke for all, decided it.
            self._time("ended_at", max(each.at for each in story.finals.values() if each.at <= passed.at))
        else:
            self._until("ended_at", passed.at)
        self._branches()
        self._early_media()
        self._same("media rows", sum(not each["early"] for each in self.scene.store.media[row["id"]]), 0)

    def _stood_still(self, until: float) -> bool:
        return self.scene.clock.stall(self.story.started, until) > STANDSTILL

    def _presumed(self, answered: float) -> None:
        """Nobody hung up: the record ends at the last sign of both sides, and the truth is within what it says."""
        story, row, plan = self.story, self.row, self.plan
        for name in ("outcome", "ended_by", "end_cause"):
            self._same(name, row[name], getattr(plan, name))
        self._time("answered_at", story.answered)
        self._time("confirmed_at", story.confirmed)
        last = min(story.seen_of.get(side, answered) for side in (CALLER, CALLEE))
        end = max([last, *(at for at, _ in self._media_changes(float("inf")))])
        self._time("ended_at", end)
        ended = self._seconds(row["ended_at"])
        until = ended + (row["end_uncertainty_ms"] or 0) / 1000
        gone = self.played.silent_at
        stall = self.scene.clock.stall(story.started, until)
        waited = max(gone, last + plan.session) + GRACE + TICK + (GIVEN_UP if plan.end == "signed_off" else 0)
        if self._is_late(ended, gone) or gone > until + EARLY:
            self._wrong(f"its end is said to be in {ended:.3f}-{until:.3f}, and it was up until {gone:.3f}")
        if until > waited + 2 * stall:
            self._wrong(f"its record was closed at {until:.3f}, and could have been at {waited:.3f}")
        self._branches()
        self._media(end)
        self._events()

    def _lapsed(self, answered: float) -> bool:
        """Whether the session was not refreshed in time, although it was to be."""
        story, plan = self.story, self.plan
        refreshed = [answered, *(at for at, _, _ in story.changes)]
        over = story.end.at if story.end is not None else refreshed[-1]
        gaps = [until - since for since, until in zip(refreshed, [*refreshed[1:], over], strict=True)]
        # An accepted refresh that the server does not believe any more may be a late one, too.
        return bool(plan.session) and max(gaps) > plan.session + GRACE - EXACT

    # ------------------------------------------------------------------ what belongs to it

    def _branches(self) -> None:
        story, row = self.story, self.row
        devices = self.plan.callee.devices
        rows = self.scene.store.branches[row["id"]]
        self.scene.report.branch_rows += len(rows)
        if self.scene.just_restarted(story):
            # Whose connection is gone cannot be tried until it has signed on again.
            agents = {each["agent"] for each in rows}
            devices = tuple(
                each for each in devices if each.transport == "UDP" or f"device {each.name}" in agents
            )  # fmt: skip
        self._same("devices", row["devices"], len(devices))
        if len(rows) != len(devices):
            self._wrong(f"has {len(rows)} branches for {len(devices)} devices")
            return
        by_agent = {each["agent"]: each for each in rows}
        for index, device in enumerate(self.plan.callee.devices):
            if device not in devices:
                continue
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
            elif found["ringing_at"] is None and self._overtakes(tag, rang):
                rang = None
            self._moment(f"branch of {device.name}: ringing_at", found["ringing_at"], rang)
            if found["answered_at"] is not None and final is not None:
                self._moment(f"branch of {device.name}: answered_at", found["answered_at"], final.at)

    def _overtaken(self, rang: float | None) -> float | None:
        """A ringing that the server may have read before an answer that came a moment earlier over another socket."""
        answered = self.story.first_answer
        if rang is None or answered is None or self._is_late(rang, answered):
            return None
        return rang

    def _overtakes(self, tag: str, rang: float | None) -> bool:
        """Whether an answer that came a moment later over another socket may have been read before this ringing."""
        if rang is None:
            return False
        others = [at for device, at in self.story.answers.items() if device != tag]
        return any(not self._is_late(at, rang) for at in others)

    def _over(self) -> float:
        story = self.story
        if story.end is not None and story.answered is not None:
            return story.end.at
        if story.answered is not None and self.row["ended_at"]:
            return self._seconds(self.row["ended_at"])
        return story.passed.at if story.passed is not None else story.started

    def _branch_outcome(self, tag: str) -> tuple[str, ...]:
        story = self.story
        final = story.finals.get(tag)
        if final is None or final.at > self._over():
            return ("elsewhere", "cancelled", "no_answer", "unreachable")
        if final.status < 300:
            return ("answered",) if tag == story.kept else ("also_answered",)
        if final.status == 487:
            if story.first_answer is not None and final.at >= story.first_answer:
                return ("elsewhere",)
            return ("cancelled", "no_answer") if story.cancelled is None else ("cancelled",)
        if final.status == 486:
            return ("declined",) if tag in story.rang else ("busy",)
        return (_REFUSALS.get(final.status, "failed"),)

    def _media(self, end: float) -> None:
        row = self.row
        changes = self._media_changes(end)
        self._early_media()
        expected = sorted(media.rows(changes, end), key=lambda each: (each.since, each.columns[0]))
        rows = [each for each in self.scene.store.media[row["id"]] if not each["early"]]
        found = sorted(rows, key=lambda each: (each["from_at"], each["stream"]))
        self.scene.report.media_rows += len(found)
        told = [tuple(each[name] for name in media.COLUMNS) for each in found]
        wanted = [each.columns for each in expected]
        if told != wanted:
            self._wrong(f"media are {told}, expected {wanted}")
            return
        for each, want in zip(found, expected, strict=True):
            self._moment(f"media {want.columns[0]} from_at", each["from_at"], want.since)
            self._moment(f"media {want.columns[0]} to_at", each["to_at"], want.until)
        self._same("video", row["video"], media.has(changes, "video"))
        self._same("content", row["content"], media.has(changes, "content"))
        self._same("encrypted", row["encrypted"], media.all_encrypted(changes))
        if all(each["to_at"] for each in found):
            # The rows were compared with the wire; so their sum is exact.
            self._same("video_ms", row["video_ms"], _video_ms(found) if changes else None)

    def _early_media(self) -> None:
        """What was agreed on before the answer, until that, or until nobody waited for one any more."""
        story, plan = self.story, self.plan
        found = [each for each in self.scene.store.media[self.row["id"]] if each["early"]]
        since = story.ringing
        if plan.delayed:
            since = story.pracked if story.pracked_early else None
        until = story.first_answer or story.cancelled
        if until is None:
            until = min((each.at for each in story.finals.values()), default=None)
        changes = []
        if plan.early and since is not None and until is not None and since <= until:
            changes.append((since, plan.agreed))
        expected = media.rows(changes, until or 0.0)
        told = [tuple(each[name] for name in media.COLUMNS) for each in found]
        if told != [each.columns for each in expected]:
            self._wrong(f"early media are {told}, expected {[each.columns for each in expected]}")
            return
        self.scene.report.early_rows += len(found)
        for each, want in zip(found, expected, strict=True):
            self._moment(f"early media {want.columns[0]} from_at", each["from_at"], want.since)
            self._moment(f"early media {want.columns[0]} to_at", each["to_at"], want.until)

    def _media_changes(self, end: float) -> list[tuple[float, Media]]:
        plan, story, played = self.plan, self.story, self.played
        changes: list[tuple[float, Media]] = []
        at = story.answered
        caller = f"c{plan.number}"
        if plan.delayed and plan.early:
            at = max(story.answered or 0.0, story.pracked) if story.pracked is not None else None
        elif plan.delayed:
            at = story.acks.get((caller, story.number))
        if at is not None and at <= end:
            changes.append((at, plan.agreed))
        for when, tag, number in story.changes:
            state = played.changes.get((tag, number))
            if state is None:
                continue
            moment: float | None = when
            if (tag, number) in played.delayed:
                moment = story.acks.get((tag, number))
            if moment is not None and moment <= end:
                changes.append((moment, state))
        return sorted(changes, key=lambda each: each[0])

    def _events(self) -> None:
        story, row = self.story, self.row
        events = self.scene.store.events[row["id"]]
        self._same("numbers of events", [each["number"] for each in events], list(range(1, len(events) + 1)))
        found = Counter(each["kind"] for each in events if each["kind"] in KNOWN_EVENTS)
        wanted = Counter(["placed"])
        wanted["ringing"] += story.ringing is not None
        wanted["cancelled"] += story.cancelled is not None
        if story.answered is not None:
            wanted.update(["answered", "ended"])
            wanted["confirmed"] += self._confirmed() is not None
            wanted["changed"] += len(story.changes)
            if len(story.changes) - self._changes_at_the_end() <= found["changed"] < len(story.changes):
                wanted["changed"] = found["changed"]
        else:
            wanted["failed"] += story.cancelled is None
        if len(story.answers) > 1 and found["confirmed"]:
            # The ACK of each dialog may stand on the timeline.
            found["confirmed"] = 1
        if self._crossed():
            found.pop("cancelled", None)
            wanted.pop("cancelled", None)
        if found != +wanted:
            self._wrong(f"events are {dict(found)}, expected {dict(+wanted)}")

    def _confirmed(self) -> float | None:
        """The ACK, unless it and the end came at once over different sockets, whose order nobody knows."""
        story, found = self.story, self.row["confirmed_at"]
        if story.end is None or story.acked is None or (found is None) == (story.confirmed is None):
            return story.confirmed
        acked, ended = story.acked, story.end.at
        if self._is_late(max(acked, ended), min(acked, ended)):
            return story.confirmed
        return acked if found is not None else None

    def _changes_at_the_end(self) -> int:
        """Those that were accepted right before the BYE was, over another socket."""
        end = self.story.end
        return 0 if end is None else sum(not self._is_late(end.at, at) for at, _, _ in self.story.changes)

    def _crossed(self) -> bool:
        """Whether a CANCEL and an answer came at once over different sockets, whose order nobody knows."""
        answered, cancelled = self.story.first_answer, self.story.cancel_at
        if answered is None or cancelled is None:
            return False
        return not self._is_late(max(answered, cancelled), min(answered, cancelled))

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
        self.scene.wrong(self.played, what)

    def _same(self, name: str, found: Any, expected: Any) -> None:
        if found != expected:
            self._wrong(f"{name} is {found!r}, expected {expected!r}")

    def _time(self, name: str, at: float | None) -> None:
        self._moment(name, self.row[name], at)

    def _moment(self, name: str, found: str | None, at: float | None) -> None:
        if found is None or at is None:
            self._same(name, found, at)
            return
        report = self.scene.report
        late = self._seconds(found) - at
        report.times += 1
        if late > EXACT and not self._is_late(self._seconds(found), at):
            report.stalled += 1
            return
        report.worst_ms = max(report.worst_ms, late * 1000)
        if not -EARLY <= late <= EXACT:
            self._wrong(f"{name} is {found}, {late * 1000:+.0f} ms from what the server saw")

    def _until(self, name: str, passed: float) -> None:
        """A moment that only its consequence tells: right before it."""
        found = self._seconds(self.row[name])
        if self._is_late(passed, found) or found > passed + EARLY:
            self._wrong(f"{name} is {found:.3f}, and what followed from it was sent at {passed:.3f}")

    def _is_late(self, found: float, at: float) -> bool:
        """Whether a time on record is later than what it tells of, and the server did not stand still either."""
        late = found - at
        return late > EXACT and late > EXACT + 2 * self.scene.clock.stall(at, found)


def _video_ms(rows: list[Row]) -> int:
    """How long there was video; a plan never has two streams of it."""
    return sum(
        parse_stamp(each["to_at"]) - parse_stamp(each["from_at"])
        for each in rows
        if each["kind"] == "video" and each["accepted"] and each["direction"] != "inactive"
    )
