"""``sipserver subscribers``: who may register and call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sipserver.accounts.subscribers import Subscriber, Subscribers, subscriber_address
from sipserver.calls.query import list_activity, list_devices
from sipserver.cli.output import Form, fields, form_options, plain, show_rows, table
from sipserver.cli.stores import (
    CALLS_FILE,
    LOCATION_FILE,
    calls_store,
    store_options,
    subscribers_store,
    subscribers_without_key,
)
from sipserver.location.query import request_removal
from sipserver.storage.database import StoreError

DEVICES = ("agent", "transport", "network", "first_seen", "last_seen")
COLUMNS = ("address", "name", "email", "company", "country", "disabled", "created_at")

password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line, instead of asking."
)


@click.group()
def subscribers() -> None:
    """Add, change and remove the people and devices that may register and call.

    A running server has each change in force within two seconds.

    \b
    Example:
      sipserver subscribers add alice@example.test --name "Alice Example"
    """


@subscribers.command()
@click.argument("address")
@click.option("--name", metavar="TEXT", help="Name of the person or device.")
@click.option("--email", metavar="TEXT", help="Where to write to.")
@click.option("--company", metavar="TEXT", help="Company it belongs to.")
@click.option("--country", metavar="TEXT", help="Country it is in.")
@password_option
@store_options
def add(
    address: str,
    name: str | None,
    email: str | None,
    company: str | None,
    country: str | None,
    password_stdin: bool,
    data_dir: Path,
) -> None:
    """Add the subscriber ADDRESS; the password is asked for.

    \b
    Example:
      sipserver subscribers add alice@example.test --name "Alice Example"
      sipserver subscribers add bob@example.test --password-stdin < password.txt
    """
    password = read_password(password_stdin)
    with subscribers_store(data_dir) as store:
        added = store.add(address, password, name=name, email=email, company=company, country=country)
    click.echo(f"{added.address} added")


@subscribers.command("list")
@form_options
@store_options
def list_(form: Form | None, data_dir: Path) -> None:
    """List all subscribers.

    \b
    Example:
      sipserver subscribers list --csv > subscribers.csv
    """
    with subscribers_without_key(data_dir, readonly=True) as store:
        rows = [asdict(each) for each in store.listing()]
    show_rows(rows, form, COLUMNS, "No subscribers.")


@subscribers.command()
@click.argument("address")
@form_options
@store_options
def show(address: str, form: Form | None, data_dir: Path) -> None:
    """Show what is known about the subscriber ADDRESS, what it did, and with which devices.

    \b
    Example:
      sipserver subscribers show alice@example.test
    """
    with subscribers_without_key(data_dir, readonly=True) as store:
        row: dict[str, Any] = asdict(store.show(address))
    activity, devices = _activity(data_dir, row["party"])
    if form == "json":
        show_rows([{**row, "activity": activity or None, "devices": devices}], form, COLUMNS, "")
        return
    # The party and the number of devices stand in both.
    row = {**row, **{name: value for name, value in activity.items() if name not in row}}
    if form == "csv":
        show_rows([row], form, COLUMNS, "")
        return
    click.echo(fields(row))
    if devices:
        click.echo(f"\ndevices\n{table(devices, DEVICES)}")


def _activity(data_dir: Path, party: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the call record has of this party; nothing where there is no record yet, or none that may be read."""
    path = data_dir / CALLS_FILE
    if party is None or not os.access(path, os.R_OK):
        return {}, []
    try:
        with calls_store(data_dir) as connection:
            activity = list_activity(connection, party)
            return activity[0] if activity else {}, list_devices(connection, party)
    except StoreError as error:
        # The subscriber is there all the same.
        click.echo(f"sipserver: {error}", err=True)
        return {}, []


@subscribers.command()
@click.argument("address")
@password_option
@store_options
def passwd(address: str, password_stdin: bool, data_dir: Path) -> None:
    """Give the subscriber ADDRESS another password, which is asked for.

    \b
    Example:
      sipserver subscribers passwd alice@example.test
    """
    with subscribers_without_key(data_dir, readonly=True) as store:
        store.show(address)
    password = read_password(password_stdin)
    with subscribers_store(data_dir) as store:
        changed = store.passwd(address, password)
    click.echo(f"{changed.address} has a new password")


@subscribers.command()
@click.argument("address")
@store_options
def disable(address: str, data_dir: Path) -> None:
    """Forbid the subscriber ADDRESS to register and call, put its endpoints out, and keep everything else.

    \b
    Example:
      sipserver subscribers disable alice@example.test
    """
    _change(data_dir, lambda store: store.disable(address), "disabled")
    _put_out(data_dir, address)


@subscribers.command()
@click.argument("address")
@store_options
def enable(address: str, data_dir: Path) -> None:
    """Allow the subscriber ADDRESS to register and call again.

    \b
    Example:
      sipserver subscribers enable alice@example.test
    """
    _change(data_dir, lambda store: store.enable(address), "enabled")


@subscribers.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask whether this is meant.")
@store_options
def remove(address: str, yes: bool, data_dir: Path) -> None:
    """Remove the subscriber ADDRESS, and the link between the address and its calls.

    The calls stay on record under an id that nobody can resolve any more. This cannot be undone.

    \b
    Example:
      sipserver subscribers remove alice@example.test --yes
    """
    with subscribers_without_key(data_dir, readonly=False) as store:
        known = store.show(address)
        if not yes and sys.stdin.isatty():
            click.confirm(f"Remove {plain(known.address)} for good?", abort=True)
        store.remove(address)
    _put_out(data_dir, address)
    click.echo(f"{known.address} removed")


def _put_out(data_dir: Path, address: str) -> None:
    """Endpoints of somebody who may not register any more are not kept until they expire."""
    path = data_dir / LOCATION_FILE
    if path.exists():
        request_removal(path, time.time(), subscriber_address(address))


@subscribers.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@store_options
def import_(file: Path, data_dir: Path) -> None:
    """Add all subscribers in FILE (CSV, UTF-8), or none of them if any line has a fault.

    The first line names the columns: address,password and, where wanted, name,email,company,country.

    \b
    Example:
      sipserver subscribers import people.csv --data-dir var
    """
    with subscribers_store(data_dir) as store, click.progressbar(
        length=1, label="Importing", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:  # fmt: skip

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        count = store.import_csv(file, progress)
    click.echo(f"{count} subscribers imported")


def _change(data_dir: Path, change: Callable[[Subscribers], Subscriber], what: str) -> None:
    with subscribers_without_key(data_dir, readonly=False) as store:
        changed = change(store)
    click.echo(f"{changed.address} {what}")


def read_password(from_stdin: bool) -> str:
    """The password, asked for twice without echo, or one line of standard input; never an argument."""
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask for the password at: use --password-stdin.")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.buffer.readline()
    try:
        password = line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError("The password on standard input is not UTF-8.") from None
    if not password:
        raise click.UsageError("There is no password on standard input.")
    return password
