"""Differentially private tables: what each party did is bounded, and noise hides whether it did it at all.

**Unit.** One party, with all that it did in the whole period: the tables come out about as likely (``epsilon``,
``delta``) whether its facts are in the store or not. Releases add up over all periods.

**Whose a fact is.** A call belongs to its caller, an error to whoever asked, being there on a day to whoever was. What
others did with a party, such as calling it, is theirs: it is hidden as theirs, and not with that party's.

**Bounds.** Of each party at most ``contributions`` calls are counted, and as many errors, and ``DAYS`` days. Which ones
depends on that party's own facts alone, so no other party changes by whether it is there.

**Mechanism.** ``epsilon`` is split evenly over the tables. Where the cells are known beforehand (days, hours, outcomes,
…) each gets discrete Laplace noise, zeros as well. Where they come from the facts (devices, codecs, places), only cells
are shown whose noisy count is above a threshold: that a cell is there at all tells of somebody with probability
``delta`` at most. Both are OpenDP's, which also does the sums (``map``) that say what was spent. What is below zero is
shown as zero; totals are not shown. Nothing is hidden beyond that, and nothing rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from sipserver.analysis.sharing.cells import Facts, Key
from sipserver.analysis.sharing.facts import DURATIONS, HOURS, LONGER, NO, WEEKDAYS, YES
from sipserver.analysis.sharing.tables import Shared
from sipserver.calls.faults import KINDS
from sipserver.calls.outcomes import ANSWERED, CALL_OUTCOMES

DAYS: Final = 7
"""On how many days a party counts at most."""
MISSING: Final = "private releases need OpenDP: pip install 'sipserver[analysis]'"

_MARGIN: Final = 1 + 1e-9
"""So that rounding of floating point numbers cannot spend more than was meant."""


@dataclass(slots=True, frozen=True)
class Settings:
    """How private."""

    epsilon: float
    delta: float = 1e-6
    contributions: int = 20
    """Calls of one party that are counted at most, and errors as well."""


@dataclass(slots=True)
class Private:
    """Tables with noise, and what they cost."""

    shared: Shared
    epsilon: float
    delta: float


@dataclass(slots=True, frozen=True)
class Counted:
    """A table before the noise."""

    counts: dict[Key, int]
    most: int
    """By how much all its counts together differ at most by one party."""
    domain: tuple[Key, ...] | None
    """Its cells; None where they come from the facts."""
    in_one: int
    """By how much one count differs at most."""


def bounded(facts: Facts, limit: int, *, by: str) -> Facts:
    """At most so many facts of each party, in an order that depends on the party and the value of ``by`` alone.

    They belong to the first party then, and happened once each.
    """
    weights = facts.weights or [1] * len(facts)
    order: dict[int, list[tuple[bytes, int]]] = {}
    for at, (party, value) in enumerate(zip(facts.first, facts.columns[by], strict=True)):
        draw = blake2b(value.encode("utf-8", "replace"), key=party.to_bytes(8), digest_size=8).digest()
        order.setdefault(party, []).append((draw, at))
    chosen: list[int] = []
    for mine in order.values():
        left = limit
        for _, at in sorted(mine):
            taken = min(weights[at], left)
            chosen += [at] * taken
            left -= taken
            if not left:
                break
    return Facts(
        {name: [column[at] for at in chosen] for name, column in facts.columns.items()},
        [facts.first[at] for at in chosen], [-1] * len(chosen),
    )  # fmt: skip


def privately(
    calls: Facts, errors: Facts, there: Facts, days: Mapping[str, str], settings: Settings
) -> Private:  # fmt: skip
    """The tables of a period; ``days`` are its days with their weekdays, in order. Raises ModuleNotFoundError."""
    tables = counted(calls, errors, there, days, settings.contributions)
    opened = sum(table.domain is None for table in tables.values())
    share, delta = settings.epsilon / len(tables), settings.delta / opened
    shared = Shared()
    spent = [0.0, 0.0]
    for name, table in tables.items():
        if table.domain is not None:
            values, scale, epsilon = laplace([table.counts.get(key, 0) for key in table.domain], table.most, share)
            rows, lost = list(zip(table.domain, values, strict=True)), 0.0
        else:
            found, scale, epsilon, lost = _threshold(table, share, delta)
            rows = sorted(found.items(), key=lambda row: (-row[1], row[0]))
        shared.rows[name] = [(*key, max(value, 0)) for key, value in rows]
        shared.noise[name] = round(scale * math.log(20), 1)
        spent[0] += epsilon
        spent[1] += lost
    assert spent[0] <= settings.epsilon, "no more is spent than was meant"
    assert spent[1] <= settings.delta, "no more is spent than was meant"
    return Private(shared, settings.epsilon, settings.delta)


def counted(calls: Facts, errors: Facts, there: Facts, days: Mapping[str, str], most: int) -> dict[str, Counted]:
    """Every table, of bounded facts."""
    calls = bounded(calls, most, by="call")
    errors = bounded(errors, most, by="kind")
    there = bounded(there, DAYS, by="day")
    answered = calls.only("outcome", ANSWERED)
    durations = (*(name for _, name in DURATIONS), LONGER)
    features = {(name, *key): value for name in ("video", "content") for key, value in _counts(answered, name).items()}
    codecs = {
        (kind, *key): value
        for kind, each in (("audio", answered), ("video", answered.only("video", YES)))
        for key, value in _counts(each, f"{kind}_codec").items()
    }
    devices = {("calling", *key): value for key, value in _counts(calls, "device").items()}

    def closed(counts: dict[Key, int], domain: list[Key], each: int = most, times: int = 1) -> Counted:
        return Counted(counts, times * each, tuple(domain), each)

    return {
        "calls_by_day": closed(_counts(calls, "weekday", "day"), [(days[day], day) for day in days]),
        "calls_by_hour_of_week": closed(
            _counts(calls, "weekday", "hour"), [(weekday, hour) for weekday in WEEKDAYS for hour in HOURS]
        ),
        "places": Counted(_counts(calls, "from", "to"), most, None, most),
        "outcomes": closed(_counts(calls, "outcome"), [(name,) for name in CALL_OUTCOMES]),
        "durations": closed(_counts(answered, "duration"), [(name,) for name in durations]),
        "features": closed(features, [(name, value) for name in ("video", "content") for value in (YES, NO)], times=2),
        "codecs": Counted(codecs, 2 * most, None, most),
        "devices": Counted(devices, most, None, most),
        "errors": closed(_counts(errors, "kind"), [(kind,) for kind in KINDS]),
        "active_parties": closed(_counts(there, "day"), [(day,) for day in days], 1, min(DAYS, len(days))),
    }


def _counts(facts: Facts, *names: str) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for key in facts.keys(*names):
        found[key] = found.get(key, 0) + 1
    return found


def laplace(counts: list[int], most: int, epsilon: float) -> tuple[list[int], float, float]:
    """Counts with noise, its scale, and what they cost."""
    dp = _opendp()
    scale = most / epsilon * _MARGIN
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    measurement = space >> dp.m.then_laplace(scale=scale)
    return measurement(counts), scale, measurement.map(most)


def _threshold(table: Counted, epsilon: float, delta: float) -> tuple[dict[Key, int], float, float, float]:
    """The cells above the threshold with noisy counts, the scale of the noise, and what they cost."""
    dp = _opendp()
    scale = table.most / epsilon * _MARGIN
    counts = {"\x1f".join(key): value for key, value in table.counts.items()}
    space = (
        dp.map_domain(dp.atom_domain(T="String"), dp.atom_domain(T="i64")),
        dp.l01inf_distance(dp.absolute_distance(T="i64")),
    )
    # A party is in as many cells as it has facts, at most.
    reach = (table.most, table.most, table.in_one)

    def measurement(threshold: int) -> Any:
        return space >> dp.m.then_laplace_threshold(scale=scale, threshold=threshold)

    # With each step of the scale's length the probability falls by e.
    threshold = table.in_one + math.ceil(scale * math.log(table.most / delta))
    while measurement(threshold).map(reach)[1] > delta:
        threshold += math.ceil(scale)
    made = measurement(threshold)
    spent_epsilon, spent_delta = made.map(reach)
    return {tuple(key.split("\x1f")): value for key, value in made(counts).items()}, scale, spent_epsilon, spent_delta


def _opendp() -> Any:
    """OpenDP, which takes half a second to load."""
    import opendp.prelude as dp  # noqa: PLC0415 - for those alone who want it

    dp.enable_features("contrib")
    return dp
