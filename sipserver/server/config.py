"""The configuration: how a file of it is read, and what the rest of the server asks of it.

A wrong file is reported whole, not by its first fault: every fault names the file, the key and what is
allowed there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sipserver.server import tables
from sipserver.server.sections import Config, TlsSection
from sipserver.server.wrong import faults_of

__all__ = ["Config", "ConfigError", "load"]


class ConfigError(Exception):
    """A configuration that cannot be used: one sentence for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def load(
    path: Path | None = None,
    *,
    domains: Sequence[str] = (),
    listen: Sequence[str] = (),
    data_dir: Path | None = None,
) -> Config:
    """The configuration of this file, or the defaults, with the given values in place of the file's.

    Raises ConfigError, which names every fault.
    """
    given: dict[str, Any] = {"domains": list(domains), "listen": list(listen)}
    if data_dir is not None:
        given["data_dir"] = str(data_dir)
    try:
        read = tables.read(path) if path is not None else {}
        config = tables.convert(_with_given(read, given), Config, str(path))
    except tables.TableError as error:
        raise ConfigError(error.problems) from None
    problems = [f"{_origin(fault, given, path)}: {fault}" for fault in faults_of(config)]
    if problems:
        raise ConfigError(problems)
    server = config.server
    domains = tuple(dict.fromkeys(domain.lower() for domain in server.domains))
    # Relative to the file, so that the server and every command that reads it mean the same stores.
    folder = path.parent / server.data_dir if path is not None and data_dir is None else Path(server.data_dir)
    server = msgspec.structs.replace(server, domains=domains, data_dir=os.path.normpath(folder))
    location = config.location
    if path is not None and location.database:
        location = msgspec.structs.replace(location, database=os.path.normpath(path.parent / location.database))
    tls = _beside(config.tls, path.parent) if path is not None else config.tls
    return msgspec.structs.replace(config, server=server, location=location, tls=tls)


def _beside(tls: TlsSection, folder: Path) -> TlsSection:
    """The same with the names of its files counted from the folder of the configuration file."""

    def there(file: str) -> str:
        return os.path.normpath(folder / file) if file else ""

    certificates = tuple(
        msgspec.structs.replace(each, certificate=there(each.certificate), key=there(each.key))
        for each in tls.certificates
    )
    return msgspec.structs.replace(
        tls, certificate=there(tls.certificate), key=there(tls.key), certificates=certificates, ca=there(tls.ca),
        client_ca=there(tls.client_ca),
    )  # fmt: skip


def _with_given(read: tables.Tables, given: dict[str, Any]) -> tables.Tables:
    server = read.get("server", {})
    if not isinstance(server, dict):
        return read
    return {**read, "server": {**server, **{key: value for key, value in given.items() if value}}}


def _origin(fault: str, given: dict[str, Any], path: Path | None) -> str:
    """Who set what is wrong."""
    key = fault.removeprefix("server.").partition(":")[0].partition("[")[0]
    return "command line" if path is None or given.get(key) else str(path)
