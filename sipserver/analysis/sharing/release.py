"""A release: the blocks of a period, made or remembered, as the rows of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from sipserver.analysis.periods import Bucket, Recorded, buckets
from sipserver.analysis.sharing.blocks import Block
from sipserver.analysis.sharing.cells import Rules
from sipserver.analysis.sharing.facts import WEEKDAYS, Place, Reader
from sipserver.analysis.sharing.ledger import Ledger, Spent
from sipserver.analysis.sharing.privacy import Settings, privately
from sipserver.analysis.sharing.rounding import Rounding
from sipserver.analysis.sharing.tables import TABLES, Row, Shared, share
from sipserver.storage.database import sqlite

SCHEME: Final = 1
"""Which tables there are and how they hang together; those of another do not go with them."""


@dataclass(slots=True)
class Asked:
    """What is to be shared."""

    connection: sqlite.Connection
    recorded: Recorded
    blocks: list[Bucket]
    by: Block
    zone: str
    where: tzinfo
    place: Place
    rules: Rules
    progress: Callable[[int], None] = lambda _: None
    """Told how many blocks are done since it was last told."""


@dataclass(slots=True)
class Released:
    """What may be published."""

    rows: dict[str, list[Row]]
    """By table; each row begins with its period."""
    periods: list[dict[str, Any]]
    primary: int
    complementary: int
    settings: Settings | None = None
    noise: dict[str, float] | None = None
    spent: Spent | None = None
    budget: float = 0.0


def share_blocks(asked: Asked, ledger: Ledger) -> Released:
    """Tables with few parties' cells hidden, for each block of its own. Raises ValueError for other rules."""
    rules = asked.rules
    ledger.agree(
        {
            **_common(asked, "suppression"), "k": rules.parties, "dominance": rules.dominance, "rounding": rules.base,
        }
    )  # fmt: skip
    found = Released({name: [] for name in TABLES}, [], 0, 0)
    for block in asked.blocks:
        shared = ledger.block(block.label)
        if shared is None and not asked.recorded.within(block.begin, block.end):
            # Zeros would be invented; and should a record turn up, nothing was said of it.
            shared = Shared()
        elif shared is None:
            reader = Reader(asked.connection, block, asked.where, asked.place)
            rounding = Rounding(ledger.rounding_key, rules.base, block.label)
            calls, days = reader.calls(), _days(block, asked)
            shared = share(calls, reader.errors(), reader.there(calls), days, rules, rounding)
            ledger.keep(block.label, shared)
        _add(found, block.label, shared)
        found.periods.append(_period(block, asked, shared))
        asked.progress(1)
    return found


def share_privately(asked: Asked, ledger: Ledger, settings: Settings, budget: float | None) -> Released:
    """Tables with noise, for the whole period. Raises ValueError where the budget does not allow it."""
    ledger.agree(_common(asked, "noise"))
    allowed = ledger.budget(budget)
    whole = Bucket(asked.blocks[0].begin, asked.blocks[-1].end, asked.blocks[0].label)
    key = {
        "bounds": whole.bounds, "epsilon": settings.epsilon, "delta": settings.delta,
        "contributions": settings.contributions,
    }  # fmt: skip
    shared = ledger.private(key)
    if shared is None:
        left = allowed - ledger.spent.epsilon
        if settings.epsilon > left * (1 + 1e-9):
            raise ValueError(f"of the budget of {allowed:g} there is {max(left, 0.0):.4g} left: nothing is shared")
        reader = Reader(asked.connection, whole, asked.where, asked.place)
        calls = reader.calls()
        made = privately(calls, reader.errors(), reader.there(calls), _days(whole, asked), settings)
        shared = made.shared
        ledger.spend(key, made.epsilon, made.delta, shared)
    found = Released({name: [] for name in TABLES}, [], 0, 0, settings, shared.noise, ledger.spent, allowed)
    _add(found, whole.label, shared)
    found.periods.append(_period(whole, asked, shared))
    asked.progress(len(asked.blocks))
    return found


def _days(bucket: Bucket, asked: Asked) -> Mapping[str, str]:
    """The days of a piece of time with their weekdays, in order; without those of which nothing was recorded."""
    return {
        day.label: WEEKDAYS[datetime.fromtimestamp(day.begin // 1000, asked.where).weekday()]
        for day in buckets(bucket.begin, bucket.end, "day", asked.where)
        if asked.recorded.within(day.begin, day.end)
    }


def _common(asked: Asked, mode: str) -> dict[str, Any]:
    return {"scheme": SCHEME, "mode": mode, "by": asked.by, "tz": asked.zone, "place": asked.place}


def _add(found: Released, period: str, shared: Shared) -> None:
    for name, rows in shared.rows.items():
        found.rows[name] += [(period, *row) for row in rows]
    found.primary += shared.primary
    found.complementary += shared.complementary


def _period(block: Bucket, asked: Asked, shared: Shared) -> dict[str, Any]:
    begin, end = (datetime.fromtimestamp(at / 1000, asked.where).isoformat() for at in (block.begin, block.end))
    length = block.end - block.begin
    return {
        "period": block.label, "from": begin, "to": end,
        "recorded_percent": round(100.0 * asked.recorded.within(block.begin, block.end) / length, 1),
        "withheld": shared.withheld,
    }  # fmt: skip
