"""Where a command finds the stores, and how it opens them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sipserver.calls import schema as calls
from sipserver.server.config import Config, load
from sipserver.storage.database import sqlite
from sipserver.storage.migrations import open_store

if TYPE_CHECKING:
    from sipserver.accounts.subscribers import Subscribers

# What has to do with subscribers is imported where it is used: cryptography is a seventh of the start of a command.

CALLS_FILE = "calls.db"
LOCATION_FILE = "location.db"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``, as the parameter ``config_file``."""
    return click.option(
        "--config", "config_file", metavar="FILE", envvar="SIPSERVER_CONFIG",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The configuration (TOML). Default: $SIPSERVER_CONFIG, else built-in defaults.",
    )(command)  # fmt: skip


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--data-dir``, as the parameter ``data_dir``."""
    return click.option(
        "--data-dir", metavar="DIR", envvar="SIPSERVER_DATA_DIR", type=click.Path(file_okay=False, path_type=Path),
        help="The folder of the stores. Default: $SIPSERVER_DATA_DIR, else as configured, else ./var.",
    )(command)  # fmt: skip


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Both options; the command gets the folder as its parameter ``data_dir``."""

    @functools.wraps(command)
    def run(*args: Any, config_file: Path | None, data_dir: Path | None, **options: Any) -> Any:
        return command(*args, data_dir=configured(config_file, data_dir).data_dir, **options)

    return config_option(data_dir_option(run))


def configured(config_file: Path | None, data_dir: Path | None) -> Config:
    """The configuration that the two options mean."""
    return load(config_file, data_dir=data_dir)


@contextmanager
def subscribers_store(data_dir: Path) -> Iterator[Subscribers]:
    """The subscribers, for changes; makes the store and its key at first need."""
    from sipserver.accounts import schema as accounts  # noqa: PLC0415
    from sipserver.accounts.credentials import Keyring  # noqa: PLC0415
    from sipserver.accounts.subscribers import Subscribers  # noqa: PLC0415

    with closing(accounts.open_accounts(data_dir)) as connection:
        # Not open_keyring first: where one key of several is lost, setting the passwords again is the way out.
        keyring = Keyring.load(data_dir, os.environ) or accounts.open_keyring(data_dir, connection, os.environ)
        yield Subscribers(connection, keyring)


@contextmanager
def subscribers_without_key(data_dir: Path, *, readonly: bool) -> Iterator[Subscribers]:
    """The subscribers, for what seals no password: it has to work when the key is lost."""
    from sipserver.accounts import schema as accounts  # noqa: PLC0415
    from sipserver.accounts.subscribers import Subscribers  # noqa: PLC0415

    path = data_dir / accounts.FILE
    pragmas = None if readonly else accounts.PRAGMAS
    with closing(open_store(path, accounts.MIGRATIONS, readonly=readonly, pragmas=pragmas)) as connection:
        yield Subscribers(connection, None)


@contextmanager
def calls_store(data_dir: Path) -> Iterator[sqlite.Connection]:
    """The call records, for reading."""
    with closing(open_store(data_dir / CALLS_FILE, calls.MIGRATIONS, readonly=True)) as connection:
        yield connection


@contextmanager
def accounts_if_readable(data_dir: Path) -> Iterator[sqlite.Connection | None]:
    """``accounts.db`` for reading, or None for whoever may read call records but not who people are."""
    from sipserver.accounts import schema as accounts  # noqa: PLC0415

    path = data_dir / accounts.FILE
    if not os.access(path, os.R_OK):
        yield None
        return
    with closing(open_store(path, accounts.MIGRATIONS, readonly=True)) as connection:
        yield connection
