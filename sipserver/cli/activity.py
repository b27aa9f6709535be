"""``sipserver activity``: what parties do, and the devices that they do it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sipserver.accounts import parties
from sipserver.calls.query import list_activity, list_devices, list_refreshes, list_sign_ins
from sipserver.cli.calls import party_of
from sipserver.cli.output import Form, form_options, show_rows
from sipserver.cli.selecting import (
    address_option,
    limit_option,
    names_option,
    party_option,
    since_option,
    until_option,
)
from sipserver.cli.stores import accounts_if_readable, calls_store, store_options
from sipserver.storage.database import sqlite

ACTIVITY = (
    "who", "sign_ins", "refreshes", "calls_begun", "calls_received", "calls_ended", "minutes", "errors", "last_seen",
    "bytes",
)  # fmt: skip
DEVICES = ("who", "agent", "transport", "network", "first_seen", "last_seen")
SIGN_INS = (
    "last_at", "count", "who", "outcome", "status", "agent", "transport", "network", "country", "region", "city",
    "site", "detail",
)  # fmt: skip
REFRESHES = ("day", "who", "refreshes", "first_at", "last_at")
OUTCOMES = ("bound", "unbound", "expired", "removed", "lost", "refused")

Record = dict[str, Any]


@click.group()
def activity() -> None:
    """Look at what subscribers do: sign-ins, refreshes, calls, minutes, errors, devices. Times are UTC.

    \b
    Example:
      sipserver activity list
    """


@activity.command("list")
@address_option
@party_option
@names_option
@form_options
@store_options
def list_(address: str | None, party: str | None, names: bool, form: Form | None, data_dir: Path) -> None:
    """List what each party has done, those seen last first.

    Of all parties it reads the whole record; of one it is quick. The bytes are those of the rows about the party.

    \b
    Example:
      sipserver activity list --address alice@example.test
      sipserver activity list --csv > activity.csv
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        records = named(list_activity(connection, party), people if names else None)
    show_rows(records, form, ACTIVITY, "Nothing has happened.")


@activity.command()
@address_option
@party_option
@names_option
@form_options
@store_options
def devices(address: str | None, party: str | None, names: bool, form: Form | None, data_dir: Path) -> None:
    """List the devices that have registered, those seen last first, with what they say of themselves.

    \b
    Example:
      sipserver activity devices --address alice@example.test
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        records = named(list_devices(connection, party), people if names else None)
    show_rows(records, form, DEVICES, "No devices.")


@activity.command("sign-ins")
@since_option
@until_option
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Those that came to this.")
@address_option
@party_option
@limit_option
@names_option
@form_options
@store_options
def sign_ins(
    since: int | None,
    until: int | None,
    outcome: str | None,
    address: str | None,
    party: str | None,
    limit: int,
    names: bool,
    form: Form | None,
    data_dir: Path,
) -> None:
    """List every change of a binding and every refusal, the newest first, with agent, transport and place.

    A row of refusals may stand for many from one network: that is its count. What only lasted longer is counted by day,
    see `activity refreshes`.

    \b
    Example:
      sipserver activity sign-ins --since 1d --outcome refused
      sipserver activity sign-ins --address alice@example.test
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        found = list_sign_ins(connection, since=since, until=until, outcome=outcome, party=party, limit=limit)
        records = named(found, people if names else None)
    rows = records if form else [{**each, "last_at": each["last_at"].replace("T", " ").rstrip("Z")} for each in records]
    columns = [column for column in SIGN_INS if any(row.get(column) is not None for row in rows)]
    show_rows(rows, form, columns or SIGN_INS, "No sign-ins.")


@activity.command()
@since_option
@until_option
@address_option
@party_option
@limit_option
@names_option
@form_options
@store_options
def refreshes(
    since: int | None,
    until: int | None,
    address: str | None,
    party: str | None,
    limit: int,
    names: bool,
    form: Form | None,
    data_dir: Path,
) -> None:
    """List how often each party's registrations were refreshed, by day (UTC), the newest day first.

    \b
    Example:
      sipserver activity refreshes --since 1w --address alice@example.test
    """
    with calls_store(data_dir) as connection, accounts_if_readable(data_dir) as people:
        if address is not None:
            party = party_of(people, address)
        found = list_refreshes(connection, since=since, until=until, party=party, limit=limit)
        records = named(found, people if names else None)
    show_rows(records, form, REFRESHES, "No refreshes.")


def named(records: list[Record], people: sqlite.Connection | None) -> list[Record]:
    """The records with ``who`` in front: the address, where it is known, else the party id."""
    known: dict[str, str | None] = {}
    for record in records:
        party = record["party"]
        if people is not None and party is not None and party not in known:
            known[party] = parties.address_of(people, party)
    return [{"who": known.get(record["party"]) or record["party"], **record} for record in records]
