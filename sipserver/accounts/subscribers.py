"""Subscribers, as the operator looks after them: add, list, show, change, remove, and import many from CSV.

Works on ``accounts.db`` directly; a running server sees each change within a second or two by itself.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipserver.accounts.credentials import Keyring
from sipserver.accounts.faults import AccountError
from sipserver.accounts.parties import INSERT as INSERT_PARTY
from sipserver.accounts.parties import new_party
from sipserver.accounts.schema import FILE, utc_now
from sipserver.sip.digest import ha1
from sipserver.sip.errors import SipError
from sipserver.sip.uri import canonical_aor
from sipserver.storage.database import StoreError, explain, sqlite
from sipserver.storage.migrations import transaction

ALGORITHMS = ("MD5", "SHA-256", "SHA-512-256")
"""One HA1 is kept for each, so that the algorithms offered can change without asking for the password again."""

COLUMNS = ("address", "password", "name", "email", "company", "country")
"""The columns of an import; the first two are required."""

_INSERT_SUBSCRIBER = (
    "INSERT INTO subscribers (address, name, email, company, country, created_at, updated_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CREDENTIALS = (
    "INSERT INTO credentials (address, algorithm, key_id, sealed) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (address, algorithm) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed"
)
_SELECT = (
    "SELECT address, party, name, email, company, country, disabled, subscribers.created_at, updated_at"
    " FROM subscribers LEFT JOIN parties USING (address)"
)


@dataclass(slots=True, frozen=True)
class Fault:
    """A line of an import that cannot be taken."""

    line: int
    """Counted from 1, the header included."""
    sentence: str


class RefusedImportError(AccountError):
    """An import with faults: nothing of it was taken."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(f"line {fault.line}: {fault.sentence}" for fault in faults))
        self.faults = tuple(faults)


@dataclass(slots=True, frozen=True)
class Subscriber:
    """A person or device that may register this address."""

    address: str
    party: str | None
    """What stands for the address in the call record."""
    name: str | None
    email: str | None
    company: str | None
    country: str | None
    disabled: bool
    """May neither register nor call."""
    created_at: str
    """UTC text with milliseconds, as ``updated_at``."""
    updated_at: str


def subscriber_address(text: str) -> str:
    """The canonical ``user@domain`` that an operator means by this. Raises AccountError."""
    try:
        address = canonical_aor(text)
    except SipError:
        address = ""
    user, at, domain = address.rpartition("@")
    if not (user and at and domain):
        raise AccountError(f"{text!r} is not an address like alice@example.com")
    return address


class Subscribers:
    """The subscribers in an open ``accounts.db``. Faults of the operator's raise AccountError.

    Without a keyring everything works that sets no password: that is how one gets along when the key is lost.
    """

    def __init__(self, connection: sqlite.Connection, keyring: Keyring | None) -> None:
        self._connection = connection
        self._keyring = keyring

    def add(
        self,
        address: str,
        password: str,
        *,
        name: str | None = None,
        email: str | None = None,
        company: str | None = None,
        country: str | None = None,
    ) -> Subscriber:
        """A new subscriber, with credentials for every algorithm and a party id."""
        address = subscriber_address(address)
        credentials = self._seal(address, password)
        now = utc_now()
        about = (_given(name), _given(email), _given(company), _given(country))
        try:
            with self._change():
                self._connection.execute(_INSERT_SUBSCRIBER, (address, *about, now, now))
                self._connection.executemany(_INSERT_CREDENTIALS, credentials)
                self._connection.execute(INSERT_PARTY, (address, new_party(), now))
        except sqlite.IntegrityError:
            raise AccountError(f"{address} exists already") from None
        return self.show(address)

    def passwd(self, address: str, password: str) -> Subscriber:
        """The subscriber, with a new password; sealed under the current key."""
        address = subscriber_address(address)
        credentials = self._seal(address, password)
        with self._change():
            self._update("UPDATE subscribers SET updated_at = ? WHERE address = ?", utc_now(), address)
            self._connection.executemany(_INSERT_CREDENTIALS, credentials)
        return self.show(address)

    def disable(self, address: str) -> Subscriber:
        """The subscriber, who may not register or call from now on; bindings that exist run out or are removed."""
        return self._set_disabled(address, disabled=True)

    def enable(self, address: str) -> Subscriber:
        """The subscriber, who may register and call again."""
        return self._set_disabled(address, disabled=False)

    def remove(self, address: str) -> None:
        """Delete the subscriber, the credentials, and the link from the address to its party in the call record."""
        address = subscriber_address(address)
        with self._change():
            if not self._connection.execute("DELETE FROM subscribers WHERE address = ?", (address,)).rowcount:
                raise AccountError(f"{address} is not a subscriber")
            self._connection.execute("DELETE FROM parties WHERE address = ?", (address,))

    def show(self, address: str) -> Subscriber:
        """The subscriber with this address."""
        address = subscriber_address(address)
        row = self._connection.execute(f"{_SELECT} WHERE address = ?", (address,)).fetchone()
        if row is None:
            raise AccountError(f"{address} is not a subscriber")
        return _subscriber(row)

    def listing(self) -> list[Subscriber]:
        """All subscribers by address."""
        return [_subscriber(row) for row in self._connection.execute(f"{_SELECT} ORDER BY address")]

    def import_csv(self, path: Path | str, progress: Callable[[int, int], None] | None = None) -> int:
        """Add every line of this file or, if any has a fault, none; how many were added.

        UTF-8 with a header that names COLUMNS in any order. ``progress(done, total)`` is called now and then.
        Raises RefusedImportError with every fault, AccountError when the file cannot be read.
        """
        lines, faults = _read_csv(Path(path))
        lines = self._without_faulty(lines, faults)
        if faults:
            raise RefusedImportError(sorted(faults, key=lambda fault: fault.line))
        now = utc_now()
        subscribers, credentials, parties = [], [], []
        # Sealing takes most of the time, so it is done before the write lock is held.
        for done, (_, line) in enumerate(lines, 1):
            address = line["address"]
            subscribers.append((address, *(_given(line.get(column)) for column in COLUMNS[2:]), now, now))
            credentials.extend(self._seal(address, line["password"]))
            parties.append((address, new_party(), now))
            if progress is not None and (done % 100 == 0 or done == len(lines)):
                progress(done, len(lines))
        try:
            with self._change():
                self._connection.executemany(_INSERT_SUBSCRIBER, subscribers)
                self._connection.executemany(_INSERT_CREDENTIALS, credentials)
                self._connection.executemany(INSERT_PARTY, parties)
        except sqlite.IntegrityError:
            raise AccountError("some of these were added by somebody else meanwhile; nothing was imported") from None
        return len(lines)

    # ---- steps

    def _without_faulty(
        self, lines: Sequence[tuple[int, dict[str, str]]], faults: list[Fault]
    ) -> list[tuple[int, dict[str, str]]]:
        """The lines that can be added, with canonical addresses; what is wrong with the others joins ``faults``."""
        good = []
        first_at: dict[str, int] = {}
        for number, line in lines:
            problems = []
            try:
                address = subscriber_address(line["address"])
            except AccountError as error:
                problems.append(str(error))
            else:
                if address in first_at:
                    problems.append(f"{address} stands in line {first_at[address]} already")
                elif self._exists(address):
                    problems.append(f"{address} exists already")
                first_at.setdefault(address, number)
                line["address"] = address
            if (problem := _password_problem(line["password"])) is not None:
                problems.append(problem)
            faults.extend(Fault(number, problem) for problem in problems)
            if not problems:
                good.append((number, line))
        return good

    def _exists(self, address: str) -> bool:
        query = "SELECT 1 FROM subscribers WHERE address = ?"
        return self._connection.execute(query, (address,)).fetchone() is not None

    def _seal(self, address: str, password: str) -> list[tuple[str, str, str, bytes]]:
        """The rows of ``credentials`` for this password."""
        if (problem := _password_problem(password)) is not None:
            raise AccountError(problem)
        assert self._keyring is not None, "Subscribers was made without a keyring"
        user, _, realm = address.rpartition("@")
        rows = []
        for algorithm in ALGORITHMS:
            key_id, sealed = self._keyring.seal(address, algorithm, ha1(user, realm, password, algorithm))
            rows.append((address, algorithm, key_id, sealed))
        return rows

    def _set_disabled(self, address: str, *, disabled: bool) -> Subscriber:
        address = subscriber_address(address)
        query = "UPDATE subscribers SET disabled = ?, updated_at = ? WHERE address = ?"
        with self._change():
            self._update(query, disabled, utc_now(), address)
        return self.show(address)

    def _update(self, query: str, *values: object) -> None:
        """Run an update of one subscriber, whose address is the last value."""
        if not self._connection.execute(query, values).rowcount:
            raise AccountError(f"{values[-1]} is not a subscriber")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction; a store that fails is told as StoreError, a row that collides as sqlite's IntegrityError."""
        try:
            with transaction(self._connection):
                yield
        except sqlite.IntegrityError:
            raise
        except sqlite.Error as error:
            raise StoreError(explain(FILE, error)) from error


def _subscriber(row: tuple[Any, ...]) -> Subscriber:
    address, party, name, email, company, country, disabled, created_at, updated_at = row
    return Subscriber(address, party, name, email, company, country, bool(disabled), created_at, updated_at)


def _given(text: str | None) -> str | None:
    """The text without blanks around it; nothing is None, never an empty text."""
    return (text or "").strip() or None


def _password_problem(password: str) -> str | None:
    if not password:
        return "the password is empty"
    try:
        password.encode("utf-8")
    except UnicodeEncodeError:
        return "the password is not valid UTF-8 text"
    return None


def _read_csv(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[Fault]]:
    """The lines that have the header's shape, with their numbers, and the faults of the others."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AccountError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedImportError([Fault(data.count(b"\n", 0, error.start) + 1, "is not UTF-8 text")]) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _check_header(reader)
    lines: list[tuple[int, dict[str, str]]] = []
    faults: list[Fault] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            faults.append(Fault(number, f"is not valid CSV: {error}"))
            continue
        if fields is None:
            return lines, faults
        if len(fields) == len(header):
            lines.append((number, dict(zip(header, fields, strict=True))))
        elif fields:
            faults.append(Fault(number, f"has {len(fields)} fields where the header has {len(header)}"))


def _check_header(reader: Iterator[list[str]]) -> list[str]:
    """The names in the first line."""
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise RefusedImportError([Fault(1, f"is not valid CSV: {error}")]) from None
    wanted = f"the header must be {','.join(COLUMNS[:2])}[,{','.join(COLUMNS[2:])}]"
    if missing := [name for name in COLUMNS[:2] if name not in header]:
        raise RefusedImportError([Fault(1, f"lacks {' and '.join(missing)}: {wanted}")])
    if unknown := [name for name in header if name not in COLUMNS]:
        raise RefusedImportError([Fault(1, f"has an unknown column {unknown[0]!r}: {wanted}")])
    if len(set(header)) != len(header):
        raise RefusedImportError([Fault(1, f"names a column twice: {wanted}")])
    return header
