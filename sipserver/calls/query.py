"""Reading the record, for the command line: plain dictionaries in the columns' order, nothing formatted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sipserver.calls.quality_schema import ACTIVITY_COLUMNS
from sipserver.calls.times import Stamp, uuid7
from sipserver.storage.database import sqlite

Record = dict[str, Any]

_BEFORE_ALL, _AFTER_ALL = "", "~"

# Static texts, so that each runs by one index: what is not asked for compares with what always holds.
_NEWEST: Final = """
    SELECT * FROM calls
    WHERE started_at >= :since AND started_at < :until AND (:outcome IS NULL OR outcome = :outcome)
    ORDER BY started_at DESC LIMIT :limit
"""
_NEWEST_OPEN: Final = """
    SELECT * FROM calls
    WHERE ended_at IS NULL AND started_at >= :since AND started_at < :until
        AND (:outcome IS NULL OR outcome = :outcome)
    ORDER BY id DESC LIMIT :limit
"""
_NEWEST_OF_PARTY: Final = """
    SELECT * FROM calls WHERE rowid IN (
        SELECT * FROM (
            SELECT rowid FROM calls
            WHERE caller = :party AND started_at >= :since AND started_at < :until
                AND (:outcome IS NULL OR outcome = :outcome) AND (NOT :open_only OR ended_at IS NULL)
            ORDER BY rowid DESC LIMIT :limit)
        UNION SELECT * FROM (
            SELECT rowid FROM calls
            WHERE callee = :party AND started_at >= :since AND started_at < :until
                AND (:outcome IS NULL OR outcome = :outcome) AND (NOT :open_only OR ended_at IS NULL)
            ORDER BY rowid DESC LIMIT :limit)
    ) ORDER BY rowid DESC LIMIT :limit
"""
# A flood's row is of when it began.
_SIGN_INS: Final = """
    SELECT at AS first_at, last_at, count, party, outcome, status, agent, transport, network,
        country, region, city, site, location_source, detail, node, id
    FROM sign_ins
    WHERE at >= :since AND at < :until
        AND (:outcome IS NULL OR outcome = :outcome) AND (:party IS NULL OR party = :party)
    ORDER BY at DESC, rowid DESC LIMIT :limit
"""
_REFRESHES: Final = """
    SELECT day, party, refreshes, first_at, last_at FROM sign_in_days
    WHERE day >= substr(:since, 1, 10) AND first_at < :until AND (:party IS NULL OR party = :party)
    ORDER BY day DESC, refreshes DESC, party LIMIT :limit
"""
# Rows come in the order of time, and the identifiers begin with it (UUIDv7).
_QUALITY: Final = """
    SELECT v_quality.* FROM quality_reports JOIN v_quality USING (id)
    WHERE at >= :since AND at < :until AND quality_reports.id >= :least
        AND (:party IS NULL OR quality_reports.party = :party)
    ORDER BY quality_reports.id DESC LIMIT :limit
"""
_AT_ONCE: Final = 500
"""Values in one statement."""
_LINKS: Final = """
    SELECT * FROM call_links WHERE call = ? UNION SELECT * FROM call_links WHERE other = ? ORDER BY at, kind
"""


def list_calls(
    connection: sqlite.Connection,
    *,
    since: int | None = None,
    until: int | None = None,
    party: str | None = None,
    outcome: str | None = None,
    open_only: bool = False,
    limit: int = 50,
) -> list[Record]:
    """The newest calls, newest first, that began from ``since`` to before ``until`` (milliseconds).

    ``party`` is a party id, on either side; ``outcome`` one of ``outcomes.CALL_OUTCOMES``.
    """
    values = {
        **period(since, until),
        "party": party,
        "outcome": outcome,
        "open_only": open_only,
        "limit": limit,
    }
    if party is not None:
        return records(connection, _NEWEST_OF_PARTY, values)
    return records(connection, _NEWEST_OPEN if open_only else _NEWEST, values)


def calls_by_id(connection: sqlite.Connection, ids: Sequence[str]) -> list[Record]:
    """The calls with these ids that there are, in no order."""
    found: list[Record] = []
    for first in range(0, len(ids), _AT_ONCE):
        some = ids[first : first + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        found += records(connection, f"SELECT * FROM calls WHERE id IN ({marks})", some)  # noqa: S608 - only marks
    return found


def show_call(connection: sqlite.Connection, row_id: str) -> Record | None:
    """One call by its id, or by the beginning of it that no other has; with ``branches``, ``media``, ``quality``,
    ``links`` and ``events``.

    None where there is none; raises LookupError where several begin so.
    """
    row_id = row_id.strip().lower()
    found = records(
        connection, "SELECT * FROM calls WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", (row_id, row_id + "~")
    )
    if not found or not row_id:
        return None
    if len(found) > 1:
        raise LookupError(f"several calls begin with {row_id}")
    call = found[0]
    key = (call["id"],)
    call["branches"] = records(connection, "SELECT * FROM call_branches WHERE call = ? ORDER BY branch", key)
    call["media"] = records(connection, "SELECT * FROM call_media WHERE call = ? ORDER BY number", key)
    call["quality"] = records(connection, "SELECT * FROM quality_reports WHERE call = ? ORDER BY rowid", key)
    call["links"] = records(connection, _LINKS, key * 2)
    call["events"] = records(connection, "SELECT * FROM call_events WHERE call = ? ORDER BY number", key)
    return call


def list_sign_ins(
    connection: sqlite.Connection,
    *,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    party: str | None = None,
    limit: int = 50,
) -> list[Record]:
    """The newest changes of bindings and refusals, newest first, that began in this time (milliseconds)."""
    values = {**period(since, until), "outcome": outcome, "party": party, "limit": limit}
    return records(connection, _SIGN_INS, values)


def list_refreshes(
    connection: sqlite.Connection,
    *,
    since: int | None = None,
    until: int | None = None,
    party: str | None = None,
    limit: int = 50,
) -> list[Record]:
    """Refreshes by day and party, the newest day first; days that are not wholly in this time count whole."""
    return records(connection, _REFRESHES, {**period(since, until), "party": party, "limit": limit})


def list_quality(
    connection: sqlite.Connection,
    *,
    since: int | None = None,
    until: int | None = None,
    party: str | None = None,
    limit: int = 50,
) -> list[Record]:
    """The newest rows of ``v_quality``, newest first, that arrived in this time; ``party`` is who reported by
    PUBLISH or NOTIFY."""
    least = "" if since is None else uuid7(since, bytes(10))[:13]
    values = {**period(since, until), "least": least, "party": party, "limit": limit}
    return records(connection, _QUALITY, values)


def period(since: int | None, until: int | None) -> dict[str, Any]:
    """The parameters ``since`` and ``until`` of a query: from then on, and before then."""
    stamp = Stamp()
    return {
        "since": _BEFORE_ALL if since is None else stamp(since),
        "until": _AFTER_ALL if until is None else stamp(until),
    }


def list_activity(connection: sqlite.Connection, party: str | None = None) -> list[Record]:
    """``v_activity`` of one party, by the indices that there are; of everybody, those seen last first, for None."""
    if party is None:
        return records(connection, "SELECT * FROM v_activity ORDER BY last_seen DESC", ())
    query = f"SELECT {ACTIVITY_COLUMNS} FROM activity_rows WHERE party = ? GROUP BY party"  # noqa: S608 - a constant
    return records(connection, query, (party,))


def list_devices(connection: sqlite.Connection, party: str | None = None) -> list[Record]:
    """The devices of one party, or of everybody for None, those seen last first."""
    if party is None:
        return records(connection, "SELECT * FROM devices ORDER BY last_seen DESC", ())
    return records(connection, "SELECT * FROM devices WHERE party = ? ORDER BY last_seen DESC", (party,))


def records(connection: sqlite.Connection, query: str, values: Any) -> list[Record]:
    """What a query finds, as dictionaries in the order of its columns."""
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
