"""``location.db`` as another process sees it: what operators list, and what they ask the server to remove."""

from __future__ import annotations

from pathlib import Path

from sipserver.location.rows import from_row
from sipserver.location.schema import MIGRATIONS, PRAGMAS, SELECT
from sipserver.registrar.binding import Binding
from sipserver.sip.uri import Uri
from sipserver.storage.database import StoreError, explain, sqlite
from sipserver.storage.migrations import open_store, transaction


def list_bindings(path: Path | str, now: float, aor: str | None = None) -> list[Binding]:
    """The bindings that have not expired, of one address or of all, by address and then the latest first.

    ``now`` is UNIX time in seconds. Raises StoreError.
    """
    connection = open_store(path, MIGRATIONS, readonly=True)
    try:
        where = "expires_at > ?" if aor is None else "expires_at > ? AND aor = ?"
        values = (now,) if aor is None else (now, aor)
        rows = connection.execute(f"{SELECT} WHERE {where} ORDER BY aor, registered_at DESC", values)
        return [from_row(row) for row in rows]
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error
    finally:
        connection.close()


def count_bindings(path: Path | str, now: float) -> tuple[int, list[tuple[str, str | None, int]]]:
    """How many addresses are registered, and how many bindings by transport and User-Agent, the most first.

    ``now`` is UNIX time in seconds. Raises StoreError.
    """
    connection = open_store(path, MIGRATIONS, readonly=True)
    try:
        (addresses,) = connection.execute(
            "SELECT count(DISTINCT aor) FROM bindings WHERE expires_at > ?", (now,)
        ).fetchone()
        rows = connection.execute(
            "SELECT transport, user_agent, count(*) FROM bindings WHERE expires_at > ? GROUP BY 1, 2"
            " ORDER BY 3 DESC, 1, 2",
            (now,),
        )
        return addresses, [(transport, agent, count) for transport, agent, count in rows]
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error
    finally:
        connection.close()


def request_removal(path: Path | str, now: float, aor: str, contact: str | None = None) -> list[Binding]:
    """Have the bindings of this address removed, or the one with an equivalent contact; those that were found.

    They are deleted from the file at once, and a server that runs on it forgets them within about a second. What is
    registered after ``now`` (UNIX time in seconds) stays. Raises StoreError, and SipError for a contact that
    is no URI.
    """
    if not Path(path).exists():
        raise StoreError(f"{path} does not exist yet")
    wanted = None if contact is None else Uri.parse(contact)
    connection = open_store(path, MIGRATIONS, pragmas=PRAGMAS)
    try:
        with transaction(connection):
            rows = connection.execute(f"{SELECT} WHERE aor = ? AND registered_at <= ?", (aor, now)).fetchall()
            found = [from_row(row) for row in rows]
            if wanted is not None:
                found = [each for each in found if Uri.parse(each.contact).equivalent(wanted)]
            for binding in found:
                # The server may have the address in its memory, or be about to write it again.
                connection.execute(
                    "INSERT INTO removals (aor, key, requested_at) VALUES (?, ?, ?)", (aor, binding.key, now)
                )
                connection.execute("DELETE FROM bindings WHERE aor = ? AND key = ?", (aor, binding.key))
        return found
    except sqlite.Error as error:
        raise StoreError(explain(path, error)) from error
    finally:
        connection.close()
