"""Reads from ``calls.db`` what shared tables count: the calls, errors and parties of one piece of time.

Who counts as a party of a fact: ``calls.caller`` and ``calls.callee``; ``errors.party`` and ``errors.target``;
``sign_ins.party``, ``sign_in_days.party``, callers, and callees who answered, for who was there. Where nobody is named,
a network prefix stands for a party, and all that have none for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, tzinfo
from hashlib import blake2b
from typing import Final, Literal

from sipserver.analysis.periods import Bucket
from sipserver.analysis.sharing.cells import ALL, OTHER, Facts
from sipserver.calls.outcomes import ANSWERED
from sipserver.storage.database import sqlite

Place = Literal["country", "region", "site"]
PLACES: Final[tuple[Place, ...]] = ("country", "region", "site")

UNKNOWN: Final = "(unknown)"
NOT_ANSWERED: Final = "(not answered)"
"""The place of a called side that was never reached."""
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS: Final = tuple(f"{hour:02d}" for hour in range(24))
DURATIONS: Final = (
    (10_000, "under 10 s"), (60_000, "10 s to 1 min"), (300_000, "1 to 5 min"), (900_000, "5 to 15 min"),
    (3_600_000, "15 to 60 min"),
)  # fmt: skip
LONGER: Final = "60 min and more"
YES, NO = "yes", "no"

_PRODUCT: Final = re.compile(r"(.*?)(?:/| \(| [0-9]| v[0-9]|\Z)", re.DOTALL)

_CODEC: Final = (
    "(SELECT codec FROM call_media WHERE call = calls.id AND kind = '{}' AND accepted = 1 AND early = 0 "
    "ORDER BY number LIMIT 1)"
)
_CALLS: Final = f"""
    SELECT started_at, caller, callee, caller_network, outcome, talk_ms, video, content, caller_agent, callee_agent,
        caller_{{place}}, callee_{{place}},
        CASE WHEN answered_at IS NOT NULL THEN {_CODEC.format("audio")} END,
        CASE WHEN video THEN {_CODEC.format("video")} END,
        id
    FROM calls WHERE started_at >= :from AND started_at < :to AND ended_at IS NOT NULL
"""  # noqa: S608 - made of constants
_ERRORS: Final = """
    SELECT kind, coalesce(party, target, network, ''), coalesce(target, ''), count
    FROM errors WHERE at >= :from AND at < :to
"""
_THERE: Final = """
    SELECT at, party FROM sign_ins WHERE at >= :from AND at < :to AND outcome = 'bound' AND party IS NOT NULL
    UNION ALL SELECT first_at, party FROM sign_in_days
        WHERE day >= substr(:from, 1, 10) AND day <= substr(:to, 1, 10) AND first_at >= :from AND first_at < :to
    UNION ALL SELECT last_at, party FROM sign_in_days
        WHERE day >= substr(:from, 1, 10) AND day <= substr(:to, 1, 10) AND last_at >= :from AND last_at < :to
"""


def product(agent: str) -> str:
    """The name in a User-Agent, without its version: as ``calls.error_views`` cuts it."""
    found = _PRODUCT.match(agent)
    return (found[1].strip() if found else "") or agent


class Reader:
    """Reads the facts of one piece of time, with days and hours as clocks in a zone show them."""

    def __init__(self, connection: sqlite.Connection, bucket: Bucket, where: tzinfo, place: Place) -> None:
        self._connection, self._bucket, self._where, self._place = connection, bucket, where, place
        self._parties: dict[str, int] = {}
        self._nobody: set[int] = set()
        self._minutes: dict[str, tuple[str, str, str]] = {}
        self._products: dict[str | None, str] = {None: UNKNOWN}

    def calls(self) -> Facts:
        """Calls that began then and are over."""
        rows = self._rows(_CALLS.replace("{place}", self._place)).fetchall()
        (at, caller, callee, network, outcome, talk, video, content, agent, its_agent, here, there, audio, seen,
            call) = zip(*rows, strict=True) if rows else ((),) * 15  # fmt: skip
        when = [self._when(each) for each in at]
        columns: dict[str, Sequence[str]] = {
            "weekday": [each[0] for each in when],
            "day": [each[1] for each in when],
            "hour": [each[2] for each in when],
            "outcome": [each or UNKNOWN for each in outcome],
            "duration": [_bucket(each) for each in talk],
            "video": [_FLAGS[each] for each in video],
            "content": [_FLAGS[each] for each in content],
            "device": [self._product(each) for each in agent],
            "called_device": [self._product(each) for each in its_agent],
            "from": [_named(each) for each in here],
            "to": [
                _named(each) if what == ANSWERED else NOT_ANSWERED for each, what in zip(there, outcome, strict=True)
            ],
            "audio_codec": [_named(each) for each in audio],
            "video_codec": [_named(each) for each in seen],
            "call": call,
        }
        first = [
            self._stranger(place) if each is None else self._party(each)
            for each, place in zip(caller, network, strict=True)
        ]
        second = [
            -1 if each is None or each == other else self._party(each)
            for each, other in zip(callee, caller, strict=True)
        ]
        return Facts(columns, first, second)

    def errors(self) -> Facts:
        """Errors that began then, as often as each happened."""
        kinds: list[str] = []
        first: list[int] = []
        second: list[int] = []
        weights: list[int] = []
        for kind, party, target, times in self._rows(_ERRORS):
            kinds.append(kind)
            first.append(self._party(party))
            second.append(self._party(target) if target and target != party else -1)
            weights.append(times)
        return Facts({"kind": kinds}, first, second, weights)

    def there(self, calls: Facts) -> Facts:
        """Parties that signed in, or called or answered in one of these calls, each once for each day."""
        parties = {(self._when(at)[1], self._party(party)) for at, party in self._rows(_THERE)}
        days = calls.columns["day"]
        parties |= {each for each in zip(days, calls.first, strict=True) if each[1] not in self._nobody}
        parties |= {
            (day, party) for day, party, outcome in zip(days, calls.second, calls.columns["outcome"], strict=True)
            if party >= 0 and outcome == ANSWERED
        }  # fmt: skip
        found = sorted(parties)
        return Facts({"day": [day for day, _ in found]}, [party for _, party in found], [-1] * len(found))

    def _rows(self, sql: str) -> sqlite.Cursor:
        return self._connection.execute(sql, self._bucket.bounds)

    def _party(self, name: str) -> int:
        """The same number whoever else there is."""
        found = self._parties.get(name)
        if found is None:
            digest = blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
            found = self._parties[name] = int.from_bytes(digest) >> 1
        return found

    def _stranger(self, network: str | None) -> int:
        """What stands for a caller that is no party."""
        found = self._party(f"network {network or ''}")
        self._nobody.add(found)
        return found

    def _product(self, agent: str | None) -> str:
        found = self._products.get(agent)
        if found is None and agent is not None:
            found = self._products[agent] = _named(product(agent))
        return found or UNKNOWN

    def _when(self, at: str) -> tuple[str, str, str]:
        """Weekday, day and hour."""
        minute = at[:16]
        found = self._minutes.get(minute)
        if found is None:
            local = datetime.fromisoformat(f"{minute}:00+00:00").astimezone(self._where)
            found = WEEKDAYS[local.weekday()], local.date().isoformat(), HOURS[local.hour]
            self._minutes[minute] = found
        return found


def _bucket(talk: int | None) -> str:
    if talk is None:
        return UNKNOWN
    return next((name for limit, name in DURATIONS if talk < limit), LONGER)


_FLAGS: Final = {None: UNKNOWN, 0: NO, 1: YES}


def _named(value: str | None) -> str:
    """What peers wrote, unless it would pass for something of ours."""
    return value if value and value.isprintable() and value not in (OTHER, ALL, NOT_ANSWERED) else UNKNOWN
