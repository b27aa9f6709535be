"""What a comparison works with: the store as those read it who know the keys, the server's pauses, the findings."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b

from sipserver.accounts.schema import open_accounts, open_keyring
from support.generator.dialog import Played
from support.generator.play import ASKED_EVERY, Probe
from support.pen import DOMAIN
from support.server import Row, ServerProcess

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
    branch_rows: int = 0
    times: int = 0
    """Moments that were compared."""
    worst_ms: float = 0.0
    """The latest of them."""
    stalled: int = 0
    """Those that were later than EXACT, at moments when the server answered nobody."""
    unlinked: bool = False
    """The store has no ``call_links``: transfers are two calls only, and of two devices that answer at once the first
    is the call, whichever the caller keeps, and whichever dialog ends first ends it; an ACK of an earlier INVITE
    is taken for that of a re-INVITE whose 2xx brought the offer, so the media of such calls are not compared."""

    def __str__(self) -> str:
        lines = [
            f"{self.calls} calls on the wire, {self.rows} rows, {self.restarted} cut short by a restart",
            f"{self.branch_rows} branches, {self.media_rows} media rows",
            f"{self.times} times, the latest by {self.worst_ms:.0f} ms; {self.stalled} more while the server slept",
            "outcomes: " + ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common()),
            "scenarios: " + ", ".join(f"{name} {count}" for name, count in self.scenarios.most_common()),
        ]
        if self.unlinked:
            lines.append("no table call_links: transfers are two calls only, forks answered twice are not followed")
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
        tables = {row["name"] for row in server.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self.links = server.rows("SELECT * FROM call_links") if "call_links" in tables else None
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

    def __init__(self, probe: Probe) -> None:
        self._asked = probe.asked
        self._answered = probe.answered

    def stall(self, since: float, until: float) -> float:
        """For how long the server answered nothing within this time, in seconds; 0 where it answered at once."""
        first = bisect_left(self._asked, since - LONGEST_STALL)
        last = bisect_right(self._asked, until)
        longest = 0.0
        for number in range(first, last):
            answered = self._answered.get(number, 0.0)
            if answered >= since:
                longest = max(longest, answered - self._asked[number])
            # Whoever asks may have stood still as well, and with it the relays that tell the time.
            asked_next = self._asked[number + 1] if number + 1 < len(self._asked) else 0.0
            if asked_next >= since:
                longest = max(longest, asked_next - self._asked[number] - ASKED_EVERY)
        return longest if longest > PROMPT else 0.0
