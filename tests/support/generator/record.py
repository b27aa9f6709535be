"""What a comparison works with: the store as those read it who know the keys, the server's pauses, the findings."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b

from sipserver.accounts.schema import open_accounts, open_keyring
from sipserver.calls.times import parse_stamp
from support.generator.dialog import Played
from support.generator.probe import ASKED_EVERY, Probe
from support.generator.story import Story
from support.generator.world import ClockSet, World
from support.pen import DOMAIN
from support.server import Row, ServerProcess

EXACT = 0.05
"""Seconds that a time on record may be later than what it tells of."""
EARLY = 0.003
"""Seconds that it may be earlier: the store has whole milliseconds, and clocks are read one after the other."""
UNCERTAIN = 2.0
"""Seconds before a SIGKILL in which what reached the server may or may not have been looked at and stored, unless the
server said that it was: a busy disk takes its time for a commit."""
PROMPT = 0.008
"""Seconds in which a question is answered by a server that has a processor."""
LONGEST_STALL = 5.0


@dataclass(slots=True)
class Report:
    """What the comparison found."""

    mismatches: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """Of each call with a mismatch: all that is known of it."""
    calls: int = 0
    rows: int = 0
    scenarios: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    restarted: int = 0
    """Calls that a restart cut short."""
    media_rows: int = 0
    early_rows: int = 0
    branch_rows: int = 0
    times: int = 0
    """Moments that were compared."""
    worst_ms: float = 0.0
    """The latest of them."""
    stalled: int = 0
    """Those that were later than EXACT, at moments when the server answered nobody."""
    forced: int = 0
    """Calls that did not come about because the endpoints or the server stood still for longer than a timer ran."""
    untold: int = 0
    """Forks whose caller's BYEs came too late to tell which device it kept."""

    def __str__(self) -> str:
        lines = [
            f"{self.calls} calls on the wire, {self.rows} rows, {self.restarted} cut short by a restart",
            f"{self.branch_rows} branches, {self.media_rows} media rows, {self.early_rows} of early media",
            f"{self.times} times, the latest by {self.worst_ms:.0f} ms; {self.stalled} more while the server slept",
            "outcomes: " + ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common()),
            "scenarios: " + ", ".join(f"{name} {count}" for name, count in self.scenarios.most_common()),
        ]
        lines.append(f"{self.forced} forced by a standstill, {self.untold} forks that nobody could tell")
        lines.append(f"{len(self.mismatches)} mismatches")
        return "\n".join((*lines, *self.mismatches[:200], *self.details[:12]))


class Store:
    """``calls.db`` as somebody reads it who knows the keys and the people."""

    def __init__(self, server: ServerProcess) -> None:
        with closing(open_accounts(server.data_dir)) as connection:
            self._key = open_keyring(server.data_dir, connection, os.environ).derive("call-id")
        parties = server.rows("SELECT address, party FROM parties", store="accounts.db")
        self._parties = {row["address"]: row["party"] for row in parties}
        self.calls: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
        rows = server.rows("SELECT rowid, * FROM calls ORDER BY rowid")
        for row in rows:
            self.calls[row["call_id"], row["caller"]].append(row)
        self.count = len(rows)
        self.branches = _by_call(server.rows("SELECT * FROM call_branches ORDER BY call, branch"))
        self.media = _by_call(server.rows("SELECT * FROM call_media ORDER BY call, number"))
        self.events = _by_call(server.rows("SELECT * FROM call_events ORDER BY call, number"))
        self.links = server.rows("SELECT * FROM call_links")
        self.errors = server.rows("SELECT * FROM errors")

    def rows_of(self, played: Played) -> list[Row]:
        """The rows of a plan's call, oldest first."""
        hashed = blake2b(played.call_id.encode(), digest_size=16, key=self._key).hexdigest()
        return self.calls.get((hashed, self.party(played.plan.caller.name)), [])

    def party(self, user: str) -> str | None:
        """What stands for a user."""
        return self._parties.get(f"{user}@{DOMAIN}")


def _by_call(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["call"]].append(row)
    return found


class Clockwork:
    """How late a time may be: EXACT, but where the server was seen to stand still.

    On a machine that does other things too a process gets no processor for a tenth of a second now and then. The
    questions that are asked all the time are then answered late as well.
    """

    def __init__(self, *probes: Probe) -> None:
        self._probes = probes

    def stall(self, since: float, until: float) -> float:
        """For how long the server answered nothing within this time, in seconds; 0 where it answered at once."""
        longest = max(_longest(each.asked, each.answered, since, until) for each in self._probes)
        return longest if longest > PROMPT else 0.0


def _longest(asked: list[float], answered: dict[int, float], since: float, until: float) -> float:
    first = bisect_left(asked, since - LONGEST_STALL)
    last = bisect_right(asked, until)
    longest = 0.0
    for number in range(first, last):
        answered_at = answered.get(number, 0.0)
        if answered_at >= since:
            longest = max(longest, answered_at - asked[number])
        # Whoever asks may have stood still as well, and with it the relays that tell the time.
        asked_next = asked[number + 1] if number + 1 < len(asked) else 0.0
        if asked_next >= since:
            longest = max(longest, asked_next - asked[number] - ASKED_EVERY)
    return longest


def ahead(settings: list[ClockSet], started: float, stamp: str) -> float:
    """How far a clock that was set like this is ahead in a call that began then, and on record at ``stamp``."""
    may_be = [settings[0].ahead]
    for each in settings:
        if each.noticed_at <= started:
            may_be = [each.ahead]
        elif each.written_at <= started + LONGEST_STALL:
            may_be.append(each.ahead)
    return min(may_be, key=lambda seconds: abs(parse_stamp(stamp) / 1000 - seconds - started))


class Scene:
    """What every comparison of one run needs."""

    def __init__(self, store: Store, world: World) -> None:
        self.store = store
        self.clock = Clockwork(world.probe, world.stream_probe)
        self.outages = {each.run: each for each in world.outages}
        self._settings = world.clock
        self.report = Report()

    def ahead(self, started: float, stamp: str) -> float:
        """How far the server's clock was ahead, by which all times of the call are told that began then."""
        return ahead(self._settings, started, stamp)

    def just_restarted(self, story: Story) -> bool:
        """Whether the call began right after a restart, when devices with connections were still signing on."""
        return any(each.up - EARLY <= story.started < each.back for each in self.outages.values())

    def doubtful(self, story: Story, at: float) -> bool:
        """Whether what reached the server then may have been lost with it."""
        outage = self.outages.get(story.run)
        return outage is not None and outage.signal == "KILL" and at > outage.down - UNCERTAIN

    def wrong(self, played: Played, what: str) -> None:
        """Something is not as it has to be."""
        self.report.mismatches.append(f"call {played.plan.number} ({played.plan.scenario}): {what}")
