"""``sipserver check``."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.accounts import schema as accounts
from sipserver.calls import schema as calls
from sipserver.location import schema as location
from sipserver.storage.database import connect
from sipserver.storage.migrations import open_store
from support.places import city, write_database
from support.ports import free_port

Sipserver = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "x.toml"
    port = free_port()
    file.write_text(
        f'[server]\nlisten = ["udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}"]\n[metrics]\nlisten = "127.0.0.1:0"\n'
    )
    return file


def states(result: Result) -> dict[str, str]:
    return {row["what"]: row["state"] for row in json.loads(result.stdout)}


def details(result: Result) -> dict[str, str]:
    return {row["what"]: row["detail"] for row in json.loads(result.stdout)}


def test_fresh_folder_is_fine_and_stays_untouched(sipserver: Sipserver, config: Path, data_dir: Path) -> None:
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert set(states(result).values()) == {"ok"}
    found = details(result)
    assert found[f"folder {data_dir}"] == found["accounts.db"] == found["key"] == "will be made"
    assert not data_dir.exists()


def test_stores_in_use_are_fine(sipserver: Sipserver, config: Path, data_dir: Path) -> None:
    sipserver("subscribers", "add", "alice@example.test", "--password-stdin", text="x\n")
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert details(result)["accounts.db"] == "can be read, schema version 1 (subscribers)"
    assert details(result)["key"] == f"from {data_dir}/secret.key"


def test_table_is_for_people(sipserver: Sipserver, config: Path) -> None:
    lines = sipserver("check", "--config", str(config)).stdout.splitlines()
    assert lines[0].split() == ["WHAT", "STATE", "DETAIL"]
    assert lines[1].split() == ["configuration", "ok", str(config)]


def test_port_in_use_is_a_fault(sipserver: Sipserver, config: Path) -> None:
    port = free_port()
    config.write_text(f'[server]\nlisten = ["tcp:127.0.0.1:{port}"]\n')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        result = sipserver("check", "--config", str(config), "--json")
        assert result.exit_code == 1
        assert details(result)[f"tcp:127.0.0.1:{port}"] == "cannot be listened at: Address already in use"
        assert sipserver("check", "--config", str(config), "--no-ports").exit_code == 0


def test_lost_key_is_a_fault(sipserver: Sipserver, config: Path, data_dir: Path) -> None:
    sipserver("subscribers", "add", "alice@example.test", "--password-stdin", text="x\n")
    (data_dir / "secret.key").unlink()
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 1
    assert states(result)["key"] == "FAULT"
    assert "is gone" in details(result)["key"]


def test_file_that_is_no_database_is_a_fault(sipserver: Sipserver, config: Path, data_dir: Path) -> None:
    data_dir.mkdir()
    for name in ("calls.db", "accounts.db"):
        (data_dir / name).write_text("something else " * 100)
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 1
    assert details(result)["calls.db"].endswith("is not an SQLite database")
    assert "key" not in states(result)


def migrated(path: Path, change: str) -> None:
    """Changes which steps of its schema a store says that it has."""
    with closing(connect(path)) as store:
        assert store.execute(f"{change.format(table='_sqlite_migrations')}").rowcount == 1


def test_schema_versions_are_told_and_a_later_one_is_a_fault(
    sipserver: Sipserver, config: Path, data_dir: Path
) -> None:
    stores = {"accounts.db": accounts.MIGRATIONS, "location.db": location.MIGRATIONS, "calls.db": calls.MIGRATIONS}
    for name, migrations in stores.items():
        open_store(data_dir / name, migrations).close()
        steps = migrations.steps
        found = details(sipserver("check", "--config", str(config), "--json"))
        assert found[name] == f"can be read, schema version {len(steps)} ({steps[-1]})"
        migrated(data_dir / name, "INSERT INTO {table} (migration_set, name, applied_at) "
            f"VALUES ('{name.partition('.')[0]}', 'z999', 'now')")  # fmt: skip
        result = sipserver("check", "--config", str(config), "--json")
        assert result.exit_code == 1
        assert details(result)[name].endswith("was written by a later version of sipserver (schema step z999)")
        assert sipserver("serve", "--config", str(config)).exit_code == 1
        migrated(data_dir / name, "DELETE FROM {table} WHERE name = 'z999'")
        migrated(data_dir / name, f"DELETE FROM {{table}} WHERE name = '{steps[-1]}'")
        result = sipserver("check", "--config", str(config), "--json")
        assert result.exit_code == 0
        assert details(result)[name].endswith(f"; the next start adds {steps[-1]}")
        (data_dir / name).unlink()


def test_record_that_is_not_whole_is_a_fault_unless_it_is_not_looked_at(
    sipserver: Sipserver, config: Path, data_dir: Path
) -> None:
    with closing(open_store(data_dir / "calls.db", calls.MIGRATIONS)) as store:
        store.execute("INSERT INTO calls (id, call_id, started_at) VALUES ('x', 'h', '2026-11-23T21:00:00.000Z')")
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 1
    sentences = [row["detail"] for row in json.loads(result.stdout) if row["what"] == "calls"]
    assert sentences == ["1 call open, and no server has run: x"]
    assert details(result)["server"] == "has not run yet"
    assert sipserver("check", "--config", str(config), "--no-records").exit_code == 0


def test_folder_that_is_a_file_is_a_fault(sipserver: Sipserver, config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = sipserver("check", "--config", str(config), "--data-dir", str(tmp_path / "file" / "data"), "--json")
    assert result.exit_code == 1
    assert states(result)[f"folder {tmp_path / 'file' / 'data'}"] == "FAULT"


def test_wrong_configuration_exits_2(sipserver: Sipserver, config: Path) -> None:
    config.write_text("[nothing]\n")
    result = sipserver("check", "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"sipserver: {config}: nothing: there is no such key")


def test_location_database_is_looked_at(sipserver: Sipserver, config: Path, tmp_path: Path) -> None:
    with config.open("a") as file:
        file.write('[location]\ndatabase = "geo.mmdb"\n')
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 1
    reason = f"{tmp_path / 'geo.mmdb'} cannot be read: No such file or directory"
    assert (states(result)["location database"], details(result)["location database"]) == ("FAULT", reason)
    write_database(tmp_path / "geo.mmdb", {"192.0.2.0/24": city("AT")})
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert "Test-City of 20" in details(result)["location database"]


def test_links_that_are_sites_are_looked_for(sipserver: Sipserver, config: Path) -> None:
    with config.open("a") as file:
        file.write('[location]\nsites = [{ interface = "lo", site = "a" }, { interface = "none0", site = "b" }]\n')
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert details(result)["interface lo"] == "is there"
    assert details(result)["interface none0"] == "is not there now, so nobody is at its site"


def test_what_peers_may_is_told(sipserver: Sipserver, config: Path) -> None:
    config.write_text(
        config.read_text()
        + '[[proxy.named_peers]]\nname = "carrier"\nnetworks = ["192.0.2.20"]\ntrusted = true\n'
        + '[[proxy.named_peers]]\nname = "idle"\ntarget = "sip:192.0.2.21"\ndirection = "out"\n'
        + '[[proxy.routes]]\nprefix = "+43"\npeer = "carrier"\n'
    )
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 0
    assert details(result)["peer carrier"] == "may call everybody; is called for +43; is trusted"
    assert details(result)["peer idle"] == "no route leads to it"


def test_media_relays_are_asked(sipserver: Sipserver, config: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        port = relay.getsockname()[1]

        def answer() -> None:
            data, source = relay.recvfrom(100)
            relay.sendto(data.partition(b" ")[0] + b" d6:result4:ponge", source)

        thread = threading.Thread(target=answer)
        thread.start()
        with config.open("a") as file:
            file.write(f'[media]\nrelay = ["127.0.0.1:{port}"]\n')
        result = sipserver("check", "--config", str(config), "--json")
        thread.join(5)
    assert details(result)[f"media relay 127.0.0.1:{port}"] == "answers"
    result = sipserver("check", "--config", str(config), "--json")
    assert result.exit_code == 1
    assert details(result)[f"media relay 127.0.0.1:{port}"] == "does not answer"
