"""Reading ``errors``, for the command line: what went wrong, and how often for which agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sipserver.calls.error_views import rates_of, rates_query
from sipserver.calls.query import Record, period, records
from sipserver.storage.database import sqlite

# A flood's row is of when it began, and may have gone on into the time that is asked for: by no more than a window.
_LIST: Final = """
    SELECT at AS first_at, last_at, count, kind, method, status, answered_by, agent, party, target, network, detail,
        call, node, id
    FROM errors
    WHERE at >= :since AND at < :until
        AND (:kind IS NULL OR kind = :kind) AND (:answered_by IS NULL OR answered_by = :answered_by)
        AND (:agent IS NULL OR instr(lower(agent), lower(:agent)) > 0)
        AND (:party IS NULL OR party = :party OR target = :party)
    ORDER BY at DESC, rowid DESC LIMIT :limit
"""
_OF_CALL: Final = """
    SELECT at, kind, method, status, answered_by, agent, party, target, network, detail, count, last_at, id
    FROM errors WHERE call = ? ORDER BY at, rowid
"""
_GIVEN: Final = """
        SELECT value ->> 0 AS agent, value ->> 1 AS sign_ins, value ->> 2 AS calls, value ->> 3 AS errors
        FROM json_each(:activity)
"""


def list_errors(
    connection: sqlite.Connection,
    *,
    since: int | None = None,
    until: int | None = None,
    kind: str | None = None,
    answered_by: str | None = None,
    agent: str | None = None,
    party: str | None = None,
    limit: int = 50,
) -> list[Record]:
    """The newest errors, newest first, that began from ``since`` to before ``until`` (milliseconds).

    ``agent`` is a part of what endpoints call themselves, in either case; ``party`` asked or was asked.
    """
    values = {
        **period(since, until), "kind": kind, "answered_by": answered_by, "agent": agent, "party": party,
        "limit": limit,
    }  # fmt: skip
    return records(connection, _LIST, values)


def errors_of_call(connection: sqlite.Connection, call: str) -> list[Record]:
    """The errors that belong to a call, in order of time."""
    return records(connection, _OF_CALL, (call,))


def error_rates(
    connection: sqlite.Connection, *, since: int | None = None, until: int | None = None, by_day: bool = False
) -> list[Record]:
    """Errors against sign-ins and calls, for each product and version; what has most errors comes first."""
    within = "{0} >= :since AND {0} < :until"
    query = rates_query(
        by_day=by_day,
        sign_ins=within.format("at"), calls=within.format("started_at"), errors=within.format("at"),
    )  # fmt: skip
    order = "day DESC, errors DESC" if by_day else "errors DESC"
    return records(connection, f"{query} ORDER BY {order}, product, version", period(since, until))


def agent_rates(connection: sqlite.Connection, activity: Sequence[tuple[Any, ...]]) -> list[Record]:
    """The same of what was counted elsewhere: agent, sign-ins, calls and errors."""
    query = f"{rates_of(_GIVEN, by_day=False)} ORDER BY errors DESC, product, version"
    return records(connection, query, {"activity": json.dumps(activity)})
