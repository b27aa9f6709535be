"""``sipserver check``: what would stand in the way of a start, without starting."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from sipserver.accounts import schema as accounts
from sipserver.accounts.credentials import Keyring
from sipserver.calls import schema as calls
from sipserver.cli.output import Form, form_options, show_rows
from sipserver.cli.stores import CALLS_FILE, LOCATION_FILE, config_option, configured, data_dir_option
from sipserver.location import schema as location
from sipserver.server.config import Config, split_host_port
from sipserver.server.geodatabase import DatabaseError, described, open_copy
from sipserver.storage.database import StoreError
from sipserver.storage.migrations import Migrations, open_store

COLUMNS = ("what", "state", "detail")


@dataclass(slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    detail: str
    ok: bool = True


@click.command()
@config_option
@data_dir_option
@click.option("--ports/--no-ports", default=True, help="Try whether the ports are free; not while the server runs.")
@form_options
@click.pass_context
def check(
    ctx: click.Context, config_file: Path | None, data_dir: Path | None, ports: bool, form: Form | None
) -> None:
    """Check the configuration, the folder of the stores, the key, the stores and the ports. Changes nothing.

    Exits 0 when a start would work, 1 when something stands in its way, 2 when the configuration is wrong.

    \b
    Example:
      sipserver check --config /etc/sipserver/sipserver.toml
    """
    config = configured(config_file, data_dir)
    findings = [Finding("configuration", str(config_file or "built-in defaults")), *_findings(config, ports)]
    rows = [
        {"what": each.what, "state": "ok" if each.ok else "FAULT", "detail": each.detail} for each in findings
    ]
    show_rows(rows, form, COLUMNS, "")
    ctx.exit(0 if all(each.ok for each in findings) else 1)


def _findings(config: Config, ports: bool) -> Iterator[Finding]:
    folder = config.data_dir
    yield _folder(folder)
    yield from _accounts(folder)
    for file, migrations in ((LOCATION_FILE, location.MIGRATIONS), (CALLS_FILE, calls.MIGRATIONS)):
        yield _store(folder / file, migrations)
    database = config.location_database
    if database is not None:
        yield _database(database)
    links = {name for _, name in socket.if_nameindex()}
    for site in config.location.sites:
        if site.interface:
            # A tunnel may come later, so this is no fault.
            detail = "is there" if site.interface in links else "is not there now, so nobody is at its site"
            yield Finding(f"interface {site.interface}", detail)
    if ports:
        for listener in config.listeners:
            yield _port(listener.address)
        if config.metrics.listen:
            yield _port(f"tcp:{config.metrics.listen}")


def _folder(folder: Path) -> Finding:
    what = f"folder {folder}"
    if folder.is_dir():
        writable = os.access(folder, os.W_OK | os.X_OK)
        return Finding(what, "may be written" if writable else "cannot be written by this user", writable)
    if folder.exists():
        return Finding(what, "is no folder", ok=False)
    above = next(each for each in folder.absolute().parents if each.exists())
    writable = os.access(above, os.W_OK | os.X_OK)
    return Finding(what, "will be made" if writable else f"cannot be made: {above} cannot be written", writable)


def _store(path: Path, migrations: Migrations) -> Finding:
    """Whether the store can be opened and has the schema of this version."""
    if not path.exists():
        return Finding(path.name, "will be made")
    try:
        with closing(open_store(path, migrations, readonly=True)):
            return Finding(path.name, "can be read")
    except StoreError as error:
        return Finding(path.name, str(error), ok=False)


def _database(path: Path) -> Finding:
    """Whether places can be looked up. A server would start without, but not do what it was told."""
    try:
        return Finding("location database", described(path, open_copy(path)))
    except DatabaseError as error:
        return Finding("location database", str(error), ok=False)


def _accounts(folder: Path) -> Iterator[Finding]:
    path = folder / accounts.FILE
    finding = _store(path, accounts.MIGRATIONS)
    yield finding
    if not finding.ok:
        return
    try:
        keyring = Keyring.load(folder, os.environ)
        if path.exists():
            with closing(open_store(path, accounts.MIGRATIONS, readonly=True)) as connection:
                sealed = connection.execute("SELECT EXISTS (SELECT 1 FROM credentials)").fetchone()[0]
                if sealed or keyring is not None:
                    keyring = accounts.open_keyring(folder, connection, os.environ)
    except StoreError as error:
        yield Finding("key", str(error), ok=False)
    else:
        yield Finding("key", f"from {keyring.source}" if keyring is not None else "will be made")


def _port(listener: str) -> Finding:
    """Whether this address can be listened at now."""
    transport, _, address = listener.partition(":")
    place = split_host_port(address)
    assert place is not None, "the configuration was checked"
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            return Finding(listener, f"cannot be listened at: {error.strerror}", ok=False)
    return Finding(listener, "is free")
