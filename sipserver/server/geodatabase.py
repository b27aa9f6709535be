"""The operator's database of networks (``.mmdb``): read at the start, read again when the file changes.

The file is copied into memory that only this process has, and the copy is mapped: a file that is overwritten where it
lies would otherwise pull the ground from under a running look-up. A file is taken when it has stopped changing for a
second. One that cannot be read is told once, in a sentence; what was read before goes on to be used.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

import maxminddb

from sipserver.calls.observe import printable
from sipserver.calls.places import DATABASE, NOWHERE, Place, country_code

MAX_BYTES: Final = 1 << 30
"""A file of more is refused: it is held in memory."""

Stamp = tuple[int, int, int]
"""What tells a file from another one at the same path: inode, size, time of change in nanoseconds."""


class DatabaseError(Exception):
    """The file cannot be used: a sentence for the operator."""


class GeoDatabase:
    """One database. All methods are called on the loop; files are read in a thread."""

    def __init__(
        self, path: Path, on_change: Callable[[], None], tell: Callable[[str, str], None],
        executor: Executor | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._on_change = on_change
        """Called when look-ups may have other answers than before."""
        self._tell = tell
        """Called with an event and a sentence: ``location.database_loaded`` or ``location.database_failing``."""
        self._executor = executor
        self._reader: maxminddb.Reader | None = None
        self._taken: Stamp | None = None
        """The file that was looked at last, whether it could be read or not."""
        self._seen: Stamp | None = None
        """The file as it was when it was last looked for."""
        self._fault = ""
        self._busy: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Read the file, if that can be done."""
        loop = asyncio.get_running_loop()
        self._seen = await loop.run_in_executor(self._executor, stamp_of, self._path)
        await self._take()

    def poll(self) -> None:
        """Once a second: see whether the file has changed. Returns at once."""
        if self._busy is None or self._busy.done():
            self._busy = asyncio.ensure_future(self._poll())

    async def close(self) -> None:
        """Wait for what is under way, and let go of the database."""
        if self._busy is not None:
            await asyncio.wait((self._busy,))
        self._reader = None

    def look_up(self, address: IPv4Address | IPv6Address) -> Place:
        """Where this address is, as finely as the database knows."""
        if self._reader is None:
            return NOWHERE
        try:
            record = self._reader.get(str(address))
        except ValueError:
            # An IPv6 address in a database of IPv4 networks.
            return NOWHERE
        except Exception as error:  # a damaged file may lead the library anywhere
            self._failing(f"{self._path} is damaged: {error}")
            return NOWHERE
        return place_of(record)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        seen, before = await loop.run_in_executor(self._executor, stamp_of, self._path), self._seen
        self._seen = seen
        # Who writes it may be in the middle of it: the same twice in a row is whole, as far as anybody can see.
        if seen != self._taken and seen == before:
            await self._take()

    async def _take(self) -> None:
        self._taken = self._seen
        try:
            reader = await asyncio.get_running_loop().run_in_executor(self._executor, open_copy, self._path)
        except DatabaseError as error:
            self._failing(str(error))
            return
        self._reader, self._fault = reader, ""
        self._tell("location.database_loaded", described(self._path, reader))
        self._on_change()

    def _failing(self, sentence: str) -> None:
        if sentence != self._fault:
            self._fault = sentence
            used = "; the one that was read before is still used" if self._reader is not None else ""
            self._tell("location.database_failing", sentence + used)


def described(path: Path, reader: maxminddb.Reader) -> str:
    """What a database says that it is."""
    meta = reader.metadata()
    try:
        built = datetime.fromtimestamp(meta.build_epoch, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        built = "unknown date"
    return f"{path}: {printable(meta.database_type) or 'database'} of {built}"


def stamp_of(path: Path) -> Stamp | None:
    """What the file at this path is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_copy(path: Path) -> maxminddb.Reader:
    """The database in this file, copied into memory. Raises DatabaseError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise DatabaseError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
            return _open(file)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read: {error.strerror or error}") from error
    except (maxminddb.InvalidDatabaseError, ValueError, LookupError, TypeError) as error:
        # What a file says of itself is anybody's word; the library raises whatever comes of it.
        raise DatabaseError(f"{path} is no database in MaxMind's format, or a damaged one") from error


def _open(file: Any) -> maxminddb.Reader:
    if not hasattr(os, "memfd_create"):
        return maxminddb.open_database(file, maxminddb.MODE_FD)
    memory = os.memfd_create("mmdb", os.MFD_CLOEXEC)
    with os.fdopen(memory, "w+b") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        copy.seek(0)
        name = f"/proc/self/fd/{memory}"
        if not os.path.exists(name):  # noqa: PTH110  no /proc: slower, and just as safe
            return maxminddb.open_database(copy, maxminddb.MODE_FD)
        return maxminddb.open_database(name)


def place_of(record: Any) -> Place:
    """The place in a record: in the form of MaxMind's City and Country databases, or with plain texts.

    The country is where the network is, never where it was registered.
    """
    if not isinstance(record, dict):
        return NOWHERE
    country = record.get("country", record.get("country_code"))
    if isinstance(country, dict):
        country = country.get("iso_code")
    regions = record.get("subdivisions", record.get("region"))
    if isinstance(regions, list):
        regions = regions[0] if regions else None
    found = Place(
        country_code(country) if isinstance(country, str) else None,
        _name(regions),
        _name(record.get("city")),
        None,
        DATABASE,
    )
    return found if found.country or found.region or found.city else NOWHERE


def _name(value: Any) -> str | None:
    """The English name of something, or its code."""
    if isinstance(value, dict):
        names = value.get("names")
        value = (names.get("en") if isinstance(names, dict) else None) or value.get("iso_code")
    # The text is Unicode; what makes it fit for the record takes the bytes of a message.
    return printable(value.encode("utf-8", "replace").decode("latin-1")) if isinstance(value, str) else None
