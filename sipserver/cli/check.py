"""``sipserver check``: what would stand in the way of a start, without starting."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from sipserver.accounts import schema as accounts
from sipserver.accounts.credentials import Keyring
from sipserver.calls import schema as calls
from sipserver.calls.verify import quick_check
from sipserver.cli.check_certificates import certificate_findings
from sipserver.cli.finding import Finding
from sipserver.cli.output import Form, form_options, show_rows
from sipserver.cli.records import look
from sipserver.cli.stores import CALLS_FILE, LOCATION_FILE, config_option, configured, data_dir_option
from sipserver.location import schema as location
from sipserver.server.config import Config
from sipserver.server.geodatabase import DatabaseError, described, open_copy
from sipserver.server.sections import split_host_port
from sipserver.storage.database import StoreError, connect, sqlite
from sipserver.storage.migrations import Migrations, open_store, version_of
from sipserver.transport.contract import hostport
from sipserver.transport.ng import ask_once

RELAY_PATIENCE = 1.0
"""Seconds that a media relay has to answer."""
COLUMNS = ("what", "state", "detail")


@click.command()
@config_option
@data_dir_option
@click.option("--ports/--no-ports", default=True, help="Try whether the ports are free; not while the server runs.")
@click.option("--records/--no-records", default=True, help="Read all that the stores hold and verify it.")
@form_options
@click.pass_context
def check(
    ctx: click.Context,
    config_file: Path | None,
    data_dir: Path | None,
    ports: bool,
    records: bool,
    form: Form | None,
) -> None:
    """Check the configuration, the data folder, the key, the stores, the ports and the media relays. Changes nothing.

    Of the stores it looks at the files, their schema versions, and whether the record of calls is whole: every call
    is there that was counted, is open or closed, and has its timeline, and nothing contradicts itself. That reads
    all of it, which takes a while for millions of calls; a server may write to it meanwhile.

    Exits 0 when a start would work and the record is whole, 1 when not, 2 when the configuration is wrong.

    \b
    Example:
      sipserver check --config /etc/sipserver/sipserver.toml
      sipserver check --data-dir /var/lib/sipserver --no-ports
    """
    config = configured(config_file, data_dir)
    findings = [Finding("configuration", str(config_file or "built-in defaults")), *_findings(config, ports, records)]
    rows = [{"what": each.what, "state": "ok" if each.ok else "FAULT", "detail": each.detail} for each in findings]
    show_rows(rows, form, COLUMNS, "")
    ctx.exit(0 if all(each.ok for each in findings) else 1)


def _findings(config: Config, ports: bool, records: bool) -> Iterator[Finding]:
    folder = config.data_dir
    yield _folder(folder)
    yield from _accounts(folder, records)
    yield _store(folder / LOCATION_FILE, location.MIGRATIONS, records)
    yield _store(folder / CALLS_FILE, calls.MIGRATIONS, False)
    running = False
    if _is_current(folder / CALLS_FILE, calls.MIGRATIONS):
        found = look(folder / CALLS_FILE, records)
        running = found.running
        yield Finding("server", found.server)
        if records:
            yield from (Finding("calls", sentence, ok=False) for sentence in found.violations)
            if not found.violations:
                yield Finding("calls", found.calls)
    database = config.location_database
    if database is not None:
        yield _database(database)
    yield from _peers(config)
    links = {name for _, name in socket.if_nameindex()}
    for site in config.location.sites:
        if site.interface:
            # A tunnel may come later, so this is no fault.
            detail = "is there" if site.interface in links else "is not there now, so nobody is at its site"
            yield Finding(f"interface {site.interface}", detail)
    if ports:
        yield from (_relay(host, port) for host, port in config.media_relays)
    yield from certificate_findings(config, time.time())
    if ports and running:
        yield Finding("ports", "not tried, since the server runs")
    elif ports:
        for listener in config.listeners:
            yield _port(listener.address)
        if config.metrics.listen:
            yield _port(f"tcp:{config.metrics.listen}")


def _peers(config: Config) -> Iterator[Finding]:
    """What each named peer may, and which routes lead to it."""
    for peer in config.proxy.named_peers:
        may = []
        if peer.direction != "out":
            may.append(f"may call {', '.join(peer.may_call) or 'everybody'}")
        if peer.direction != "in":
            routes = [route.domain or route.prefix for route in config.proxy.routes if route.peer == peer.name]
            may.append(f"is called for {', '.join(routes)}" if routes else "no route leads to it")
        if peer.trusted:
            may.append("is trusted")
        yield Finding(f"peer {peer.name}", "; ".join(may))


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


def _store(path: Path, migrations: Migrations, records: bool) -> Finding:
    """Whether the store can be opened, which schema it has, and, with ``records``, whether the file is whole."""
    if not path.exists():
        return Finding(path.name, "will be made")
    try:
        with closing(connect(path, readonly=True)) as connection:
            version = version_of(connection, migrations, path)
            if records and (faults := quick_check(connection)):
                return Finding(path.name, f"{version}; {'; '.join(faults)}", ok=False)
    except (StoreError, sqlite.Error) as error:
        return Finding(path.name, str(error), ok=False)
    if version.pending:
        return Finding(path.name, f"can be read, {version}; the next start adds {', '.join(version.pending)}")
    return Finding(path.name, f"can be read, {version}")


def _database(path: Path) -> Finding:
    """Whether places can be looked up. A server would start without, but not do what it was told."""
    try:
        return Finding("location database", described(path, open_copy(path)))
    except DatabaseError as error:
        return Finding("location database", str(error), ok=False)


def _is_current(path: Path, migrations: Migrations) -> bool:
    """Whether the store has the schema of this version."""
    try:
        with closing(open_store(path, migrations, readonly=True)):
            return True
    except StoreError:
        return False


def _accounts(folder: Path, records: bool) -> Iterator[Finding]:
    path = folder / accounts.FILE
    finding = _store(path, accounts.MIGRATIONS, records)
    yield finding
    if not finding.ok or (path.exists() and not _is_current(path, accounts.MIGRATIONS)):
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


def _relay(host: str, port: int) -> Finding:
    """Whether a media relay answers."""
    what = f"media relay {hostport(host, port)}"
    answer = ask_once(host, port, {"command": "ping"}, RELAY_PATIENCE)
    if answer is None or answer.get("result") != b"pong":
        return Finding(what, "does not answer", ok=False)
    return Finding(what, "answers")


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
