"""A ``location.db`` of an earlier version."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sipserver.location.query import list_bindings
from sipserver.location.schema import MIGRATIONS
from sipserver.storage.database import connect
from sipserver.storage.migrations import open_store, transaction, version_of
from support.location import AOR, NOW, Bench

FIRST = "bindings"


def first_version(path: Path) -> None:
    """A store as the first version made it, with an endpoint for each way to be reached."""
    with closing(connect(path)) as connection, transaction(connection):
        later = [step for step in MIGRATIONS.steps if step != FIRST]
        assert later
        MIGRATIONS.apply(connection, stop_before=later)
        connection.executemany(
            """INSERT INTO bindings (aor, key, contact, q, expires_at, call_id, cseq, path, params, transport, host,
                port, registered_at) VALUES (?, ?, ?, 1000, ?, 'c', 1, ?, '', ?, '192.0.2.7', 5060, ?)""",
            [
                (AOR, contact, contact, NOW + 100, path, transport, NOW)
                for contact, path, transport in (
                    ("sip:udp@x", "", "UDP"), ("sip:tcp@x", "", "TCP"), ("sip:path@x", "<sip:edge;lr>", "TCP")
                )
            ],
        )  # fmt: skip


def test_first_version_is_upgraded_with_its_bindings(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    first_version(path)
    with closing(open_store(path, MIGRATIONS)) as store:
        assert version_of(store, MIGRATIONS, path).pending == []
    found = {each.contact: each for each in list_bindings(path, NOW)}
    assert {contact: each.flow_only for contact, each in found.items()} == {
        "sip:udp@x": False, "sip:tcp@x": True, "sip:path@x": False
    }  # fmt: skip
    assert {(each.local, each.natted, each.gruu_since) for each in found.values()} == {("", False, 0.0)}


def test_what_lived_by_a_connection_of_the_earlier_version_is_out_of_use(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "location.db")
    first_version(bench.path)
    location = bench.open(now=NOW)
    assert sorted(each.contact for each in location.get(AOR, NOW)) == ["sip:path@x", "sip:udp@x"]
    told: list[str] = []
    location.forget_orphans(lambda bindings: told.extend(each.contact for each in bindings))
    bench.settle(location)
    assert told == ["sip:tcp@x"]
    assert sorted(each.contact for each in list_bindings(bench.path, NOW)) == ["sip:path@x", "sip:udp@x"]
    location.forget_orphans(lambda _: told.append("again"))
    assert told == ["sip:tcp@x"]
    bench.close()
