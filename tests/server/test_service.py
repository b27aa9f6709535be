"""What lives as long as the server: seconds that pass, reloads, metrics, the folder of the stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sipserver.location.base import EXPIRED_AT_ONCE
from sipserver.location.query import list_bindings
from sipserver.server.config import load
from sipserver.server.context import LOG_LINES_PER_SECOND
from sipserver.server.service import ROWS_AHEAD, check_folder
from sipserver.storage.database import StoreError
from support.inprocess import Device, Server, add_subscribers
from support.location import binding, put

MakeServer = Callable[..., Server]


def metrics(server: Server) -> dict[str, float]:
    """Every sample that Prometheus would get."""
    samples = [sample for family in server.service.metrics.collect() for sample in family.samples]
    return {"".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


def test_metrics_count_what_happened(server: Server) -> None:
    alice = Device(server, "alice")
    alice.register()
    alice.ask(alice.invite("nobody"))
    alice.send(b"x" * 20)
    server.settle()
    found = metrics(server)
    assert found["sipserver_requests_total"] == 4
    assert found["sipserver_malformed_total"] == 1
    assert found["sipserver_registrations_accepted_total"] == 1
    assert found["sipserver_bindings"] == 1
    assert (found["sipserver_calls_placed_total"], found["sipserver_calls_closed_total"]) == (1, 1)
    assert found["sipserver_store_rows_written_totallocation"] == 1
    assert found["sipserver_store_failingcalls"] == found["sipserver_faults_total"] == 0


def test_ready_line_tells_what_is_served(server: Server) -> None:
    server.service.ready()
    (line,) = server.log("server.ready")
    assert (line["domains"], line["bindings"]) == (["example.test"], 0)
    assert len(server.rows("SELECT * FROM server_runs")) == 1


def test_calls_that_were_cut_short_are_told_at_the_next_start(tmp_path: Path) -> None:
    with Server(tmp_path / "one", "alice", "bob") as server:
        alice, bob = Device(server, "alice"), Device(server, "bob", "192.0.2.8")
        bob.register()
        server.service.ready()
        alice.send(alice.invite("bob"))
        server.settle()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "data").rename(tmp_path / "two" / "data")
    with Server(tmp_path / "two") as server:
        server.service.ready()
        (line,) = server.log("calls.recovered")
        assert (line["calls"], line["end_cause"]) == (1, "server_restart")
        assert server.service.location.count == 1


def test_second_sees_that_the_clock_was_set(server: Server) -> None:
    server.service._clock._wall = lambda: 1_895_000_000.0
    server.service.tick()
    (line,) = server.log("clock.stepped")
    assert line["seconds"] == pytest.approx(100_000_000, abs=1500)


def test_second_sees_new_subscribers(server: Server) -> None:
    dave = Device(server, "dave")
    assert dave.ask(dave.signed("REGISTER")).status == 401
    add_subscribers(server.data_dir, ["dave"])
    server.service.tick()
    assert dave.register().status == 200


def test_every_fifth_second_leaves_a_sign_of_life(server: Server) -> None:
    server.service.ready()
    (before,) = server.rows("SELECT last_alive_at FROM server_runs")
    for _ in range(5):
        server.advance(1)
        server.service.tick()
    (after,) = server.rows("SELECT last_alive_at FROM server_runs")
    assert after["last_alive_at"] > before["last_alive_at"]


def test_reload_changes_what_can_change(server: Server) -> None:
    alice = Device(server, "alice")
    alice.register("Expires: 60", f"Contact: <{alice.contact}>")
    file = server.folder / "sipserver.toml"
    file.write_text('[registrar]\nmin_expires = 100\n[limits]\nuri = 300\n[log]\nlevel = "warning"\n')
    server.service.reload(load(file, domains=["example.test", "Other.test"], data_dir=server.data_dir))
    answer = alice.register("Expires: 60", f"Contact: <{alice.contact}>", cseq=90)
    assert (answer.status, answer.header("min-expires")) == (423, "100")
    assert alice.ask(alice.write("REGISTER", "sip:other.test", to="<sip:x@other.test>")).status == 401
    assert alice.ask(alice.write("OPTIONS", f"sip:{'x' * 400}")).status == 414


def test_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750


def test_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        check_folder(tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        check_folder(tmp_path)


def test_row_that_cannot_be_written_is_told(server: Server) -> None:
    server.service.calls_writer.put(0, ("not", "enough", "values"))
    server.settle()
    (line,) = server.log("store.row_refused")
    assert (line["store"], line["statement"]) == ("calls.db", 0)


def test_store_that_fails_and_recovers_is_told(server: Server) -> None:
    server.service._on_store_state("calls.db", False, "calls.db is full")
    server.service._on_store_state("calls.db", True, "calls.db is written again")
    assert [line["reason"] for line in server.log("store.failing")] == ["calls.db is full"]
    assert len(server.log("store.recovered")) == 1


def test_second_in_which_very_many_expire_is_worked_off_in_portions(server: Server) -> None:
    location, now = server.service.location, server.service._clock()
    bindings = [
        binding(aor=f"u{number}@example.test", lasts=0, expires_at=now + 0.5, registered_at=now)
        for number in range(3 * EXPIRED_AT_ONCE)
    ]  # fmt: skip
    put(location, *bindings)
    server.settle()
    server.advance(2)
    before = location.count
    server.service.tick()
    assert (before, location.count) == (3 * EXPIRED_AT_ONCE, 2 * EXPIRED_AT_ONCE)
    while len(server.service.portions):
        before = location.count
        server.settle()
        server.advance(0.001)
        assert before - location.count <= EXPIRED_AT_ONCE
    server.settle()
    assert location.count == 0
    (count,) = server.rows("SELECT count(*) AS rows FROM sign_ins WHERE outcome = 'expired'")
    assert count["rows"] == 3 * EXPIRED_AT_ONCE
    # Lines are bounded, rows are not.
    assert len(server.log("registration.expired")) <= LOG_LINES_PER_SECOND
    assert list_bindings(server.data_dir / "location.db", 0.0) == []


def test_rows_that_wait_for_the_disk_come_before_what_makes_more(server: Server) -> None:
    location, now = server.service.location, server.service._clock()
    put(location, binding(expires_at=now + 0.5, registered_at=now))
    server.settle()
    server.advance(2)
    server.service.calls_writer._in_flight = [(0, ())] * (ROWS_AHEAD + 1)
    server.service.tick()
    server.advance(0.1)
    assert (location.count, len(server.service.portions)) == (1, 0)
    server.service.calls_writer._in_flight = []
    server.service.tick()
    assert location.count == 0
