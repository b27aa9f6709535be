"""``sipserver errors``: what was refused, failed or could not be read."""

from __future__ import annotations

from pathlib import Path

import click

from sipserver.calls.errors import error_rates, list_errors
from sipserver.calls.faults import ANSWERED_BY, KINDS
from sipserver.cli.calls import Record, name_parties, party_of
from sipserver.cli.output import Form, form_options, show_rows
from sipserver.cli.selecting import Moment, limit_option, names_option
from sipserver.cli.stores import accounts_if_readable, calls_store, store_options

COLUMNS = (
    "last_at", "count", "kind", "method", "status", "answered_by", "agent", "party", "target", "network", "detail",
    "call",
)  # fmt: skip
RATES = ("product", "version", "sign_ins", "calls", "errors", "errors_per_100")


@click.group()
def errors() -> None:
    """Look at what was refused, failed or could not be read. Times are UTC.

    \b
    Example:
      sipserver errors list --since 1d
    """


@errors.command("list")
@click.option("--since", type=Moment(), metavar="TIME", help="Errors from then on (2026-11-23, 2h, 1d).")
@click.option("--until", type=Moment(), metavar="TIME", help="Errors before this time.")
@click.option(
    "--kind", type=click.Choice(sorted(KINDS)), metavar="KIND", help="Errors of this kind; `errors kinds` has them all."
)
@click.option("--by", "answered_by", type=click.Choice(ANSWERED_BY), help="Errors that came from there.")
@click.option("--agent", metavar="TEXT", help="Errors of endpoints whose User-Agent or Server has this in it.")
@click.option("--address", metavar="ADDRESS", help="Errors of requests from or to this address.")
@limit_option
@names_option
@form_options
@store_options
def list_(
    since: int | None,
    until: int | None,
    kind: str | None,
    answered_by: str | None,
    agent: str | None,
    address: str | None,
    limit: int,
    names: bool,
    form: Form | None,
    data_dir: Path,
) -> None:
    """List errors, the newest first. A row may stand for many of one kind from one source: that is its count.

    \b
    Example:
      sipserver errors list --since 2h --kind peer_error
      sipserver errors list --agent baresip --csv > errors.csv
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        party = party_of(people, address) if address is not None else None
        found = list_errors(
            connection, since=since, until=until, kind=kind, answered_by=answered_by, agent=agent, party=party,
            limit=limit,
        )  # fmt: skip
        name_parties(found, people if names else None, ("party", "target"))
    rows = found if form else [as_line(record) for record in found]
    columns = [column for column in COLUMNS if any(row.get(column) is not None for row in rows)]
    show_rows(rows, form, columns or COLUMNS, "No errors.")


@errors.command()
@click.option("--since", type=Moment(), metavar="TIME", help="What happened from then on (2026-11-23, 2h, 1d).")
@click.option("--until", type=Moment(), metavar="TIME", help="What happened before this time.")
@click.option("--by-day", is_flag=True, help="A row for each day.")
@form_options
@store_options
def rates(since: int | None, until: int | None, by_day: bool, form: Form | None, data_dir: Path) -> None:
    """Show how many errors each kind of endpoint had, by product and version, against its sign-ins and calls.

    A call counts for the endpoints of both sides. Errors of senders that do not say what they are have no product.
    The views v_error_rates and v_error_rates_by_day of calls.db have the same.

    \b
    Example:
      sipserver errors rates --since 1w --by-day
    """
    with calls_store(data_dir) as connection:
        rows = error_rates(connection, since=since, until=until, by_day=by_day)
    show_rows(rows, form, ("day", *RATES) if by_day else RATES, "Nothing happened.")


@errors.command()
@form_options
def kinds(form: Form | None) -> None:
    """Show every kind of error, and what it means.

    \b
    Example:
      sipserver errors kinds --json
    """
    show_rows([{"kind": kind, "meaning": meaning} for kind, meaning in KINDS.items()], form, ("kind", "meaning"), "")


def as_line(record: Record) -> Record:
    """What a table shows of an error."""
    return {
        **record,
        "last_at": record["last_at"].replace("T", " ").rstrip("Z"),
        "party": record.get("party_address") or record["party"],
        "target": record.get("target_address") or record["target"],
        "call": record["call"][:18] if record["call"] else None,
    }
