"""Thousands of random calls over a bad network, with the server restarted in the middle: the record equals the plan.

The plans are in ``support.generator``; ``python -m support.generator --calls 20000 --seed 7`` plays more of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sipserver.storage.database import sqlite
from support.generator.check import Checker
from support.generator.record import Report, Store
from support.generator.run import Run, generate, play
from support.server import environment

CALLS = 2_100
COMPARED = 2_000
"""Of those at least: what is called while the server is away may never reach it."""
SEED = 1


def test_store_equals_the_plan_of_two_thousand_calls(tmp_path: Path) -> None:
    report = generate(tmp_path / "server", calls=CALLS, seed=SEED)
    assert faults_found(tmp_path / "server" / "data") == []
    assert not report.mismatches, str(report)
    # What is compared is there: enough calls, and each kind of them.
    assert report.calls >= COMPARED
    assert report.restarted > 20
    assert report.media_rows > CALLS / 2
    assert {"answered", "cancelled", "declined", "busy", "no_answer", "offline", "not_found"} <= set(report.outcomes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Some calls that were played, and the stopped server's stores."""
    return play(tmp_path_factory.mktemp("generator") / "server", calls=80, seed=5, rate=25.0, clock=(3600.0, -3600.0))


def faults_found(data_dir: Path) -> list[str]:
    """What ``sipserver check`` has to say against the stores of a server that is stopped."""
    command = [sys.executable, "-m", "sipserver", "check", "--data-dir", str(data_dir), "--no-ports", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), timeout=120)
    faults = [str(row) for row in json.loads(done.stdout) if row["state"] != "ok"]
    return faults or ([] if done.returncode == 0 else [done.stderr])


def test_store_of_calls_without_a_restart_is_whole(run: Run) -> None:
    assert faults_found(run.server.data_dir) == []


def test_calls_without_a_restart_all_come_to_their_planned_end(run: Run) -> None:
    report = Checker(run.world, Store(run.server)).check()
    assert not report.mismatches, str(report)
    assert report.restarted == 0
    assert all(played.done for played in run.world.played.values())
    # What the lies below are about.
    assert {"bye_unanswered", "early", "session_stopped", "cut_off", "signed_off"} <= set(report.scenarios)


LIES = {
    "a call is missing": "DELETE FROM calls WHERE rowid = (SELECT max(rowid) FROM calls)",
    "a call is there twice": """INSERT INTO calls (id, call_id, caller, started_at)
        SELECT 'x', call_id, caller, started_at FROM calls LIMIT 1""",
    "another outcome": "UPDATE calls SET outcome = 'busy' WHERE outcome = 'declined'",
    "another status": "UPDATE calls SET sip_status = 480 WHERE outcome = 'busy'",
    "ended by the other side": """UPDATE calls SET ended_by = iif(ended_by = 'caller', 'callee', 'caller')
        WHERE end_cause = 'bye'""",
    "another cause": "UPDATE calls SET end_cause = 'session_expired' WHERE end_cause = 'bye'",
    "an invented end": "UPDATE calls SET end_uncertainty_ms = 0 WHERE end_cause = 'bye'",
    "answered a second later": """UPDATE calls
        SET answered_at = strftime('%Y-%m-%dT%H:%M:%fZ', answered_at, '+1 second') WHERE answered_at IS NOT NULL""",
    "ended 60 ms later": """UPDATE calls SET ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', ended_at, '+0.06 seconds')""",
    "ringing counted as talk": "UPDATE calls SET talk_ms = talk_ms + ring_ms WHERE ring_ms > 0 AND talk_ms > 0",
    "no ringing": "UPDATE calls SET ringing_at = NULL, ring_ms = NULL",
    "confirmed without an ACK": "UPDATE calls SET confirmed_at = answered_at",
    "another callee": "UPDATE calls SET callee = caller",
    "a device too many": "UPDATE calls SET devices = devices + 1",
    "a branch is missing": "DELETE FROM call_branches WHERE branch = 1",
    "the wrong device answered": """UPDATE call_branches
        SET outcome = iif(outcome = 'answered', 'elsewhere', 'answered')
        WHERE call IN (SELECT id FROM calls WHERE devices > 1)""",
    "a media row is missing": "DELETE FROM call_media WHERE number = 2",
    "another codec": "UPDATE call_media SET codec = 'VP9' WHERE kind = 'video'",
    "another direction": "UPDATE call_media SET direction = 'inactive' WHERE direction = 'sendonly'",
    "a refused stream accepted": "UPDATE call_media SET accepted = 1",
    "another bandwidth": "UPDATE call_media SET bandwidth = bandwidth + 1 WHERE bandwidth IS NOT NULL",
    "a larger picture": "UPDATE call_media SET max_pixels = max_pixels * 2 WHERE max_pixels IS NOT NULL",
    "another profile": "UPDATE call_media SET profile = 'high' WHERE profile = 'main'",
    "another level": "UPDATE call_media SET level = '5.0' WHERE level IS NOT NULL",
    "encrypted in another way": "UPDATE call_media SET encryption = 'tls' WHERE encryption = 'dtls'",
    "not encrypted": "UPDATE call_media SET encrypted = 0 WHERE encrypted = 1",
    "a call that is not encrypted": "UPDATE calls SET encrypted = 0 WHERE encrypted = 1",
    "without ICE": "UPDATE call_media SET ice = 0 WHERE ice = 1",
    "slides that nobody showed": "UPDATE calls SET content = 1 WHERE content = 0",
    "early media that came late": "UPDATE call_media SET early = 0 WHERE early = 1",
    "a session that nobody let expire": "UPDATE calls SET end_cause = 'bye' WHERE end_cause = 'session_expired'",
    "an end that leaves the truth out": """UPDATE calls SET end_uncertainty_ms = 1
        WHERE end_cause IN ('session_expired', 'connection_lost', 'registration_lost')""",
    "a connection that was not lost": """UPDATE calls SET end_cause = 'registration_lost'
        WHERE end_cause = 'connection_lost'""",
    "an hour too much": """UPDATE calls SET talk_ms = talk_ms + 3600000 WHERE talk_ms IS NOT NULL""",
    "the other device kept": """UPDATE call_branches
        SET outcome = iif(outcome = 'answered', 'also_answered', 'answered')
        WHERE call IN (SELECT call FROM call_branches WHERE outcome = 'also_answered')""",
    "a stream that never ends": "UPDATE call_media SET to_at = NULL",
    "video longer than it was": "UPDATE calls SET video_ms = video_ms + 500 WHERE video = 1",
    "an event is missing": "DELETE FROM stored_events WHERE kind = 'changed'",
    "forged requests uncounted": "DELETE FROM errors WHERE method = 'BYE'",
    "a call cut short by no restart": "UPDATE calls SET end_cause = 'server_restart' WHERE outcome = 'cancelled'",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_record_that_says_something_else_is_found_out(run: Run, lie: str) -> None:
    path = run.server.data_dir / "calls.db"
    kept = path.with_suffix(".kept")
    shutil.copy(path, kept)
    try:
        with closing(sqlite.connect(path, isolation_level=None)) as connection:
            assert connection.execute(lie).rowcount > 0, "the lie is about nothing"
        report: Report = Checker(run.world, Store(run.server)).check()
        assert report.mismatches
    finally:
        for leftover in (path.with_suffix(".db-wal"), path.with_suffix(".db-shm")):
            leftover.unlink(missing_ok=True)
        shutil.move(kept, path)
