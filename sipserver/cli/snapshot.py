"""What ``sipserver top`` shows of one moment. Nobody is named: parties are their ids, cut short."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sipserver.analysis.now import Now, now
from sipserver.analysis.periods import stamp
from sipserver.calls.times import parse_stamp
from sipserver.cli.calls import stage
from sipserver.cli.gauges import Gauges
from sipserver.cli.stores import CALLS_FILE, LOCATION_FILE
from sipserver.location.query import count_bindings
from sipserver.storage.database import StoreError, explain, sqlite

SHORT: Final = 8
"""Characters of a party's id that are shown."""
SLOW_SECONDS: Final = 0.05
REST_SECONDS: Final = 10.0
"""Bindings are counted anew after this long where counting them was slow."""


@dataclass(slots=True)
class Up:
    """A call that goes on."""

    id: str
    state: str
    """placed, ringing or answered."""
    seconds: float
    """For how long it has been so."""
    age: float
    """Since it was placed, in seconds."""
    caller: str | None
    callee: str | None
    media: str
    """What goes on in it."""
    caller_at: str | None
    callee_at: str | None
    """Site, or country."""
    caller_agent: str | None
    callee_agent: str | None
    transports: str


@dataclass(slots=True)
class Store:
    """A store of the server, as the server counts it."""

    name: str
    waiting: int
    """Rows not yet committed."""
    rows_per_s: float | None
    commits_per_s: float | None
    delay_ms: float | None
    """About how long a row waits: those that wait over those that are written (Little's law)."""
    failing: bool


@dataclass(slots=True)
class Snapshot:
    """One moment. What is not known is None."""

    at: str
    node: str | None
    running: bool
    since: str | None
    """When the server started."""
    last_alive: str | None
    open: int
    answered: int
    ringing: int
    with_video: int
    with_content: int
    calls: list[Up]
    rates: dict[str, float | None]
    """A second: calls, registrations, refused registrations, messages."""
    rates_from: str
    """Where these come from: the server's metrics, or the record."""
    bindings: int | None
    addresses: int | None
    by_transport: dict[str, int]
    by_agent: dict[str, int]
    errors: dict[str, int]
    errors_minutes: float
    stores: list[Store]
    late_answers: int | None
    """Answers that did not wait for their row any longer, since the start."""
    overload_ms: int | None = None
    """Milliseconds that work waits, where new requests are refused for it."""
    overloaded_per_s: float | None = None
    """Requests answered 503 a second, for that or at a bound."""
    notes: list[str] = field(default_factory=list)
    """Why something is not known."""

    def plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


class Watch:
    """Looks again and again."""

    def __init__(self, connection: sqlite.Connection, data_dir: Path, gauges: Gauges | None, minutes: float) -> None:
        self._connection = connection
        self._calls = data_dir / CALLS_FILE
        self._location = data_dir / LOCATION_FILE
        self._gauges = gauges
        self._minutes = minutes
        self._bindings: tuple[int, list[tuple[str, str | None, int]]] | None = None
        self._counted_at = 0.0
        self._rest = 0.0
        self._why = ""

    def take(self) -> Snapshot:
        """What there is at this moment. Raises StoreError."""
        at = time.time()
        try:
            found = now(self._connection, round(at * 1000), errors_ms=round(self._minutes * 60_000))
        except sqlite.Error as error:
            raise StoreError(explain(self._calls, error)) from error
        notes = []
        if self._gauges is None:
            notes.append("messages and stores are known where metrics.listen is configured")
        elif problem := self._gauges.take(at):
            notes.append(problem)
        self._count_bindings(at)
        if self._why:
            notes.append(self._why)
        return snapshot(found, self._gauges, self._bindings, notes)

    def _count_bindings(self, at: float) -> None:
        if self._counted_at + self._rest > at >= self._counted_at:
            return
        began = time.monotonic()
        try:
            self._bindings, self._why = count_bindings(self._location, at), ""
        except StoreError as error:
            self._bindings, self._why = None, str(error)
        self._counted_at = at
        self._rest = REST_SECONDS if time.monotonic() - began > SLOW_SECONDS else 0.0


def snapshot(
    found: Now,
    gauges: Gauges | None,
    bindings: tuple[int, list[tuple[str, str | None, int]]] | None,
    notes: list[str],
) -> Snapshot:
    """All of one moment, from the record, the server's numbers and who is registered."""
    run = found.run or {}
    by_transport: Counter[str] = Counter()
    by_agent: Counter[str] = Counter()
    for transport, agent, count in bindings[1] if bindings else ():
        by_transport[transport] += count
        by_agent[agent or "(does not say)"] += count
    numbers = gauges.now if gauges is not None else {}
    return Snapshot(
        at=stamp(found.at), node=run.get("node"), running=found.is_running, since=run.get("started_at"),
        last_alive=run.get("last_alive_at"),
        open=found.counts["open"], answered=found.counts["answered"], ringing=found.counts["ringing"],
        with_video=found.counts["with_video"], with_content=found.counts["with_content"],
        calls=[_up(row, found.at) for row in found.calls],
        rates=_rates(found, gauges), rates_from="metrics" if numbers else "record",
        bindings=by_transport.total() if bindings else None, addresses=bindings[0] if bindings else None,
        by_transport=dict(by_transport.most_common()), by_agent=dict(by_agent.most_common(10)),
        errors={row["kind"]: row["errors"] for row in found.errors}, errors_minutes=found.errors_ms / 60_000,
        stores=_stores(gauges) if gauges is not None else [],
        late_answers=int(numbers["answers_late"]) if "answers_late" in numbers else None,
        overload_ms=int(numbers["waiting_ms"]) if numbers.get("overload") else None,
        overloaded_per_s=gauges.rate("overloaded") if gauges is not None else None,
        notes=notes,
    )  # fmt: skip


def _rates(found: Now, gauges: Gauges | None) -> dict[str, float | None]:
    """By the server's own counters where they are known, which have refreshes as well; else by rows."""
    seconds = found.lately_ms / 1000
    rates: dict[str, float | None] = {
        "calls": found.lately["placed"] / seconds,
        "registrations": found.lately["bound"] / seconds,
        "refused": found.lately["refused"] / seconds,
        "messages": None,
    }
    for name, counters in (
        ("calls", ("calls_placed",)), ("registrations", ("registrations_accepted",)),
        ("refused", ("registrations_refused",)), ("messages", ("requests", "responses")),
    ):  # fmt: skip
        known = gauges.rate(*counters) if gauges is not None else None
        if known is not None:
            rates[name] = known
    return rates


def _stores(gauges: Gauges) -> list[Store]:
    prefix = "store_rows_waiting/"
    found = []
    for name in sorted(each.removeprefix(prefix) for each in gauges.now if each.startswith(prefix)):
        waiting, rows = gauges.now[prefix + name], gauges.rate(f"store_rows_written/{name}")
        delay = None if not rows else 1000.0 * waiting / rows
        commits = gauges.rate(f"store_commits/{name}")
        failing = gauges.now.get(f"store_failing/{name}", 0) > 0
        found.append(Store(name, int(waiting), rows, commits, delay, failing))
    return found


def _up(row: dict[str, Any], at: int) -> Up:
    state = stage(row)
    since = {"answered": "answered_at", "ringing": "ringing_at", "placed": "started_at"}[state]
    transports = (row["caller_transport"], row["callee_transport"])
    return Up(
        id=row["id"], state=state, seconds=_since(row[since], at), age=_since(row["started_at"], at),
        caller=short(row["caller"]), callee=short(row["callee"]), media=_media(row),
        caller_at=row["caller_site"] or row["caller_country"], callee_at=row["callee_site"] or row["callee_country"],
        caller_agent=row["caller_agent"], callee_agent=row["callee_agent"],
        transports=" ".join(each or "-" for each in transports) if any(transports) else "",
    )  # fmt: skip


def _since(began: str, at: int) -> float:
    # Another machine's clock, or one that was set, may be ahead.
    return max(0, at - parse_stamp(began)) / 1000


def _media(row: dict[str, Any]) -> str:
    if row["answered_at"] is None:
        return "offers video" if row["offered_video"] else ""
    parts = [row["media"] or ""]
    if row["encrypted"]:
        parts.append("encrypted")
    if row["held_by"]:
        parts.append("on hold")
    return " ".join(part for part in parts if part)


def short(party: str | None) -> str | None:
    """A party's id, as much of it as tells parties on one page apart."""
    return party if party is None or len(party) <= SHORT else f"{party[:SHORT]}…"
