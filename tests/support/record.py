"""Small stores of random calls, with everything that makes figures hard, and the same calls as plain dictionaries."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from sipserver.analysis.source import Source, Views
from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.times import Stamp, parse_stamp
from sipserver.storage.database import sqlite
from support.copies import Copies
from support.stores import new_store

Row = dict[str, Any]
stamp = Stamp()

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BEGIN = parse_stamp("2026-10-23T00:00:00.000Z")
"""A Friday; the clocks of Europe/Berlin are set back two days later."""
END = BEGIN + 5 * DAY

REFUSED = (
    ("busy", 486), ("busy", 600), ("declined", 603), ("no_answer", 408), ("no_answer", 480), ("offline", 480),
    ("not_found", 404), ("forbidden", 403), ("failed", 500), ("failed", 503), ("failed", 504), ("failed", 302),
    ("failed", None), ("cancelled", 487), ("failed", 488),
)  # fmt: skip


def draw_call(rng: Random, number: int) -> Row:
    """One call; some last for days, some have an uncertain end, some go on."""
    at = BEGIN + rng.randrange(5 * DAY)
    if rng.random() < 0.3:
        at -= at % (HOUR // 4)
    row: Row = {
        "id": f"c{number:05d}", "call_id": "h", "started_at": at, "caller": rng.choice(("p1", "p2", "p3", None)),
        "callee": rng.choice(("p1", "p2", "p3", "p4", None)), "caller_site": rng.choice(("north", "south", None)),
        "callee_site": rng.choice(("north", None)), "caller_country": rng.choice(("DE", "GB")),
        "callee_country": rng.choice(("DE", None)), "caller_agent": rng.choice(("Acme/1", "acme/2", "Halo/3", None)),
        "callee_agent": rng.choice(("Acme/1", "Halo/3")), "devices": rng.choice((0, 1, 2)),
        "caller_transport": rng.choice(("UDP", "TLS")), "callee_transport": rng.choice(("UDP", None)),
    }  # fmt: skip
    delay = rng.choice((5, 40, 120, 900))
    row["setup_ms"] = delay
    if rng.random() < 0.6:
        answered = at + delay + rng.choice((0, 1_500, 3 * HOUR if rng.random() < 0.05 else 9_000))
        row.update(
            answered_at=answered, outcome="answered", sip_status=200, video=rng.choice((0, 1)),
            content=rng.choice((0, 0, 1)), ring_ms=answered - at - delay,
        )  # fmt: skip
        if rng.random() < 0.06:
            return row
        talk = rng.choice((0, 1, rng.randrange(HOUR), rng.randrange(HOUR), rng.randrange(2 * DAY)))
        if rng.random() < 0.2:
            talk = HOUR // 4 - answered % (HOUR // 4)
        row.update(
            talk_ms=talk, ended_at=answered + talk, video_ms=talk // 2 if row["video"] else 0,
            end_cause=rng.choice(("bye", "bye", "connection_lost", "server_restart")), ended_by="caller",
        )  # fmt: skip
        if row["end_cause"] != "bye" or rng.random() < 0.1:
            row["end_uncertainty_ms"] = rng.choice((0, 500, 20 * MINUTE, 30 * HOUR))
        if row["end_cause"] == "bye":
            row["disconnect_ms"] = row.get("end_uncertainty_ms", talk % 300)
        return row
    outcome, status = rng.choice(REFUSED)
    rang = rng.random() < 0.5
    row.update(
        outcome=outcome, sip_status=status, ended_at=at + delay + rng.choice((0, 4_000)), end_cause="refused",
        ended_by="callee", ring_ms=4_000 if rang else None,
    )  # fmt: skip
    if rng.random() < 0.1:
        row["setup_ms"] = None
    if rng.random() < 0.04:
        for name in ("outcome", "sip_status", "ended_at", "end_cause", "ended_by", "ring_ms"):
            del row[name]
    return row


class Record:
    """A store of random calls and the rest, and all of it as lists. Times in ``calls`` are milliseconds."""

    def __init__(self, folder: Path, seed: int, calls: int = 120) -> None:
        rng = Random(seed)
        self.copies: Copies | None = None
        """Copies of it, where figures are asked of those."""
        self.changes = 0
        """How often something was written."""
        self.connection: sqlite.Connection = new_store(folder / "calls.db", MIGRATIONS, synchronous="OFF")
        self.connection.execute("BEGIN")
        self.calls = sorted((draw_call(rng, number) for number in range(calls)), key=lambda row: row["started_at"])
        self.media: list[Row] = []
        self.sign_ins: list[Row] = []
        self.errors: list[Row] = []
        self.days: list[Row] = []
        self.reports: list[Row] = []
        for row in self.calls:
            self.insert("calls", row)
            self._media(rng, row)
        for number in range(60):
            at = BEGIN + rng.randrange(5 * DAY)
            self.sign_ins.append(
                {"id": f"s{number:03d}", "at": at, "party": rng.choice(("p1", "p5", "p6", None)),
                    "outcome": rng.choice(("bound", "bound", "refused", "unbound")),
                    "agent": rng.choice(("Acme/1", None)), "site": rng.choice(("north", None)),
                    "count": rng.randrange(1, 4), "last_at": at}
            )  # fmt: skip
            self.errors.append(
                {"id": f"e{number:03d}", "at": at, "kind": rng.choice(("timeout", "malformed")),
                    "answered_by": rng.choice(("peer", "server")), "agent": rng.choice(("Acme/1", None)),
                    "count": rng.randrange(1, 9), "last_at": at}
            )  # fmt: skip
            self.reports.append(
                {"id": f"q{number:03d}", "digest": f"{number}", "at": at, "source": "publish", "format": "vq-rtcpxr",
                    "kind": rng.choice(("session", "interval")), "direction": "local",
                    "mos_lq": rng.choice((None, round(1 + 3 * rng.random(), 2))),
                    "loss_percent": rng.choice((0.0, 1.5)), "jitter_ms": None}
            )  # fmt: skip
        for day in range(5):
            for party in rng.sample(("p1", "p5", "p7"), 2):
                first = BEGIN + day * DAY + rng.randrange(DAY // 2)
                last = first + rng.randrange(DAY // 2)
                self.days.append(
                    {"day": (stamp(first) or "")[:10], "party": party, "refreshes": rng.randrange(1, 9),
                        "first_at": first, "last_at": last}
                )  # fmt: skip
        for table, rows in (("sign_ins", self.sign_ins), ("errors", self.errors), ("sign_in_days", self.days),
                ("quality_reports", self.reports)):  # fmt: skip
            for row in rows:
                self.insert(table, row)
        self.connection.execute("COMMIT")

    @property
    def source(self) -> Source:
        """Where figures are asked for."""
        return self.copies.current(self.changes) if self.copies else Views(self.connection)

    def _media(self, rng: Random, call: Row) -> None:
        if "answered_at" not in call:
            return
        for stream in range(rng.randrange(3)):
            since = call["answered_at"] + rng.choice((0, 0, 5_000))
            row = {
                "call": call["id"], "number": stream + 1, "stream": stream, "kind": rng.choice(("audio", "video")),
                "accepted": rng.choice((1, 1, 0)), "codec": rng.choice(("opus", "VP8")),
                "resolution": rng.choice((None, "640x480")), "from_at": since, "early": rng.choice((0, 0, 1)),
            }  # fmt: skip
            self.media.append(row)
            self.insert("call_media", row)

    def insert(self, table: str, row: Row) -> None:
        """A row of a table; what ends with ``_at`` or is ``at`` is written as the store does."""
        self.changes += 1
        values = [stamp(value) if name == "at" or name.endswith("_at") else value for name, value in row.items()]
        self.connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values)

    def run(self, since: int, until: int, *, killed: bool = False) -> None:
        """A server ran then."""
        row: Row = {"id": f"r{since}", "node": "n", "started_at": since, "last_alive_at": until}
        if not killed:
            row["stopped_at"] = until
        self.insert("server_runs", row)
