"""``sipserver calls``: the record of calls."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from sipserver.accounts import parties
from sipserver.accounts.subscribers import subscriber_address
from sipserver.calls.errors import errors_of_call
from sipserver.calls.outcomes import CALL_OUTCOMES
from sipserver.calls.query import calls_by_id, list_calls, list_quality, show_call
from sipserver.calls.times import Stamp, parse_stamp
from sipserver.cli.ladder import ladder
from sipserver.cli.output import Form, csv_text, fields, form_options, plain, show_rows, table
from sipserver.cli.refusal import Refusal
from sipserver.cli.selecting import Moment, limit_option, names_option, since_option, until_option
from sipserver.cli.stores import accounts_if_readable, calls_store, store_options
from sipserver.storage.database import sqlite

COLUMNS = ("started_at", "caller", "callee", "outcome", "talk", "video", "id")
QUALITY = (
    "started", "reporter", "other", "direction", "source", "kind", "codec", "loss_percent", "jitter_ms",
    "round_trip_ms", "mos_lq", "mos_cq", "alert_metric", "call",
)  # fmt: skip
PARTS = {
    "branches": ("branch", "tried_at", "ringing_at", "answered_at", "ended_at", "status", "outcome", "agent"),
    "media": ("stream", "kind", "codec", "direction", "held_by", "resolution", "from_at", "to_at"),
    "quality": (
        "side",
        "direction",
        "kind",
        "stream",
        "codec",
        "loss_percent",
        "packets_lost",
        "jitter_ms",
        "round_trip_ms",
        "mos_lq",
        "mos_cq",
        "format",
    ),
    "links": ("at", "kind", "call", "other"),
    "events": ("at", "kind", "side", "status", "detail"),
    "errors": ("at", "kind", "method", "status", "answered_by", "agent", "detail", "count"),
}
LADDER_WIDTH = 110
"""Columns of a ladder that is not printed on a terminal."""

POLL_SECONDS = 0.5
LATE_ROWS_MS = 60_000
MOST_CALLS = 100_000
"""Calls that are looked at in one go."""

Record = dict[str, Any]


@click.group()
def calls() -> None:
    """Look at the record of calls. Times are UTC.

    \b
    Example:
      sipserver calls list --since 1d
    """


@calls.command("list")
@click.option("--since", type=Moment(), metavar="TIME", help="Calls that began then (2026-11-23, 2h, 1d) or later.")
@click.option("--until", type=Moment(), metavar="TIME", help="Calls that began before this time.")
@click.option("--address", metavar="ADDRESS", help="Calls from or to this address.")
@click.option("--party", metavar="ID", help="Calls from or to this party id.")
@click.option("--outcome", type=click.Choice(CALL_OUTCOMES), help="Calls that ended like this.")
@click.option("--open", "open_only", is_flag=True, help="Calls that go on.")
@limit_option
@names_option
@form_options
@store_options
def list_(
    since: int | None,
    until: int | None,
    address: str | None,
    party: str | None,
    outcome: str | None,
    open_only: bool,
    limit: int,
    names: bool,
    form: Form | None,
    data_dir: Path,
) -> None:
    """List calls, the newest first.

    \b
    Example:
      sipserver calls list --since 2h --outcome no_answer
      sipserver calls list --address alice@example.test --csv > calls.csv
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        records = list_calls(
            connection, since=since, until=until, party=party, outcome=outcome, open_only=open_only, limit=limit
        )
        name_parties(records, people if names else None)
    rows = records if form else [as_line(record) for record in records]
    show_rows(rows, form, COLUMNS, "No calls.")


@calls.command()
@click.argument("row_id", metavar="ID")
@names_option
@form_options
@store_options
def show(row_id: str, names: bool, form: Form | None, data_dir: Path) -> None:
    """Show the call ID, whole: a ladder of what happened when between the caller, the server and each device, then
    the record with its devices, media, their quality, timeline and errors. The beginning of an id is enough.

    Wide terminals have room for more devices; COLUMNS says how wide it is where that is not known.

    \b
    Example:
      sipserver calls show 0199c2f1-6a40
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        try:
            record = show_call(connection, row_id)
        except LookupError as error:
            raise Refusal(str(error.args[0])) from error
        if record is None:
            raise Refusal(f"there is no call {row_id!r}")
        name_parties([record], people if names else None)
        record["errors"] = errors_of_call(connection, record["id"])
    if form == "json":
        click.echo(json.dumps(record, indent=2, default=str))
        return
    parts = {part: record.pop(part) for part in PARTS}
    if form == "csv":
        click.echo(csv_text([record], ()), nl=False)
        return
    columns = shutil.get_terminal_size((LADDER_WIDTH, 24)).columns
    click.echo(ladder({**record, **parts}, columns, ascii_only=not _has_lines()) + "\n")
    click.echo(fields(record))
    if record["end_uncertainty_ms"] is not None:
        click.echo(f"\n{uncertain_end(record)}")
    for part, rows in parts.items():
        if rows:
            click.echo(f"\n{part}\n{table(rows, PARTS[part])}")


@calls.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as a JSON object on each line.")
@names_option
@store_options
def follow(as_json: bool, names: bool, data_dir: Path) -> None:
    """Print a line whenever a call is placed, rings, is answered or ends, until Ctrl-C.

    \b
    Example:
      sipserver calls follow --data-dir var
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        watched = Watched(connection, int(time.time() * 1000))
        try:
            while True:
                for record in watched.changes(int(time.time() * 1000)):
                    name_parties([record], people if names else None)
                    click.echo(json.dumps(record, default=str) if as_json else change_line(record))
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return


class Watched:
    """The calls that go on, and what each of them was found to be doing last."""

    def __init__(self, connection: sqlite.Connection, now: int) -> None:
        self._connection = connection
        self._version = 0
        self._stages = {record["id"]: stage(record) for record in self._lately(now)}
        """Of calls that may change, and of those that ended lately."""
        self._stages |= {record["id"]: "" for record in list_calls(connection, open_only=True, limit=MOST_CALLS)}

    def changes(self, now: int) -> list[Record]:
        """The calls that are at another stage than when last asked, oldest first; ``now`` in milliseconds.

        The first time, that is every call that goes on.
        """
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return []
        self._version = version
        found = {record["id"]: record for record in self._lately(now)}
        # However long a call goes on, it is found by its id and not among all that began since.
        going_on = [each for each, stage in self._stages.items() if stage != "ended" and each not in found]
        found |= {record["id"]: record for record in calls_by_id(self._connection, going_on)}
        changed = [record for record in found.values() if self._stages.get(record["id"]) != stage(record)]
        self._stages = {each: stage(record) for each, record in found.items()}
        return sorted(changed, key=lambda record: (record["started_at"], record["id"]))

    def _lately(self, now: int) -> list[Record]:
        # A row may come a little later than its call began.
        return list_calls(self._connection, since=now - LATE_ROWS_MS, limit=MOST_CALLS)


def stage(record: Record) -> str:
    """How far a call has come."""
    if record["ended_at"] is not None:
        return "ended"
    if record["answered_at"] is not None:
        return "answered"
    return "ringing" if record["ringing_at"] is not None else "placed"


def change_line(record: Record) -> str:
    """A change as a line for people."""
    at = {"ended": "ended_at", "answered": "answered_at", "ringing": "ringing_at", "placed": "started_at"}
    line = as_line(record)
    sides = f"{plain(line['caller'] or '-')} -> {plain(line['callee'] or '-')}"
    ending = f"{line['outcome']} {line['talk'] or ''}".rstrip() if record["ended_at"] is not None else ""
    when = str(record[at[stage(record)]]).replace("T", " ").rstrip("Z")
    return "  ".join(part for part in (when, f"{stage(record):8}", sides, ending, line["id"]) if part)


def _has_lines() -> bool:
    """Whether standard output can show lines and arrows."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "│─┼…·→".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def uncertain_end(record: Record) -> str:
    """How much is known of an end that nobody observed."""
    latest = Stamp()(parse_stamp(record["ended_at"]) + record["end_uncertainty_ms"])
    how = "the BYE was not answered" if record["end_cause"] == "bye" else f"end not observed ({record['end_cause']})"
    line = f"{how}: between {record['ended_at']} and {latest}"
    if record["answered_at"] is not None:
        longest = (parse_stamp(latest or "") - parse_stamp(record["answered_at"])) / 1000
        line += f"; talk from {(record['talk_ms'] or 0) / 1000:.1f} to {longest:.1f} s"
    return line


def party_of(people: sqlite.Connection | None, address: str) -> str:
    """The party id of this address; an address that never had one matches no call."""
    if people is None:
        raise Refusal("accounts.db cannot be read here, and only it knows whose calls are whose: use --party")
    return parties.party_of(people, subscriber_address(address)) or "(none)"


@calls.command()
@since_option
@until_option
@click.option("--address", metavar="ADDRESS", help="Reports that this address's endpoints sent by PUBLISH or NOTIFY.")
@click.option("--party", metavar="ID", help="The same by party id.")
@limit_option
@names_option
@form_options
@store_options
def quality(
    since: int | None,
    until: int | None,
    address: str | None,
    party: str | None,
    limit: int,
    names: bool,
    form: Form | None,
    data_dir: Path,
) -> None:
    """List what endpoints reported of the quality of calls, the newest first: a row for each direction.

    What is not known is empty. The view v_quality of calls.db has the same; `calls show` has the reports of one call.

    \b
    Example:
      sipserver calls quality --since 1d
      sipserver calls quality --address alice@example.test --csv > quality.csv
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        found = list_quality(connection, since=since, until=until, party=party, limit=limit)
        name_parties(found, people if names else None, ("reporter", "other"))
    rows = found if form else [quality_line(record) for record in found]
    columns = [column for column in QUALITY if any(row.get(column) is not None for row in rows)]
    show_rows(rows, form, columns or QUALITY, "No reports.")


def quality_line(record: Record) -> Record:
    """What a table shows of a report."""
    return {
        **record,
        "started": record["started"].replace("T", " ").rstrip("Z"),
        "reporter": record.get("reporter_address") or record["reporter"],
        "other": record.get("other_address") or record["other"],
        "call": record["call"][:18] if record["call"] else None,
    }


def name_parties(
    records: list[Record], people: sqlite.Connection | None, columns: tuple[str, ...] = ("caller", "callee")
) -> None:
    """Puts ``caller_address`` and ``callee_address`` behind the party ids, where they are known."""
    known: dict[str, str | None] = {}
    for record in records:
        named: Record = {}
        for key, value in record.items():
            named[key] = value
            if key in columns and people is not None:
                if value is not None and value not in known:
                    known[value] = parties.address_of(people, value)
                named[f"{key}_address"] = known.get(value) if value is not None else None
        record.clear()
        record.update(named)


def as_line(record: Record) -> Record:
    """What a table shows of a call."""
    talk = record["talk_ms"]
    return {
        "started_at": record["started_at"].replace("T", " ").rstrip("Z"),
        "caller": record.get("caller_address") or record["caller"],
        "callee": record.get("callee_address") or record["callee"],
        "outcome": record["outcome"] or "(open)",
        "talk": None if talk is None else f"{talk / 1000:.1f} s",
        "video": None if record["video"] is None else bool(record["video"]),
        # Time and the first random bits: enough to tell calls apart, and `calls show` takes it.
        "id": record["id"][:18],
    }
