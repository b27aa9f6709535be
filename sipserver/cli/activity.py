"""``sipserver activity``: what parties do, and the devices that they do it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sipserver.accounts import parties
from sipserver.calls.query import list_activity, list_devices
from sipserver.cli.calls import party_of
from sipserver.cli.output import Form, form_options, show_rows
from sipserver.cli.stores import accounts_if_readable, calls_store, store_options
from sipserver.storage.database import sqlite

ACTIVITY = (
    "who", "sign_ins", "refreshes", "calls_begun", "calls_received", "calls_ended", "minutes", "errors", "last_seen",
    "bytes",
)  # fmt: skip
DEVICES = ("who", "agent", "transport", "network", "first_seen", "last_seen")

Record = dict[str, Any]


@click.group()
def activity() -> None:
    """Look at what subscribers do: sign-ins, calls, minutes, errors, devices. Times are UTC.

    \b
    Example:
      sipserver activity list
    """


address_option = click.option("--address", metavar="ADDRESS", help="Of this address only.")
party_option = click.option("--party", metavar="ID", help="Of this party id only.")
names_option = click.option(
    "--names/--no-names", default=True, help="Show addresses where accounts.db may be read, or party ids."
)


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


def named(records: list[Record], people: sqlite.Connection | None) -> list[Record]:
    """The records with ``who`` in front: the address, where it is known, else the party id."""
    known: dict[str, str | None] = {}
    for record in records:
        party = record["party"]
        if people is not None and party not in known:
            known[party] = parties.address_of(people, party)
    return [{"who": known.get(record["party"]) or record["party"], **record} for record in records]
