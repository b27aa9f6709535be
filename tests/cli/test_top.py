"""``sipserver top``: what a moment is made of, and how it is shown; with a server it is in ``tests/endtoend``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.analysis.now import now
from sipserver.calls.schema import MIGRATIONS
from sipserver.calls.times import parse_stamp
from sipserver.cli.gauges import Gauges, Values
from sipserver.cli.output import width_of
from sipserver.cli.panel import ALARM, SORTS, duration, view
from sipserver.cli.snapshot import Snapshot, Store, Watch, snapshot
from sipserver.storage.database import StoreError
from support.stores import new_store

Sipserver = Callable[..., Result]
AT = parse_stamp("2026-11-23T21:10:00.000Z")
NOTHING = (None,) * 6
HOSTILE = "電話\x1b[2J\r\n" + "x" * 100


@pytest.fixture
def moment(data_dir: Path) -> Snapshot:
    """A call that rings, one that is answered, one that nobody rang for yet; and one that is over."""
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.executemany(
            "INSERT INTO calls (id, call_id, caller, callee, started_at, ringing_at, answered_at, ended_at, video,"
            " content, encrypted, offered_video, caller_site, callee_country, caller_agent, caller_transport)"
            " VALUES (?, 'h', ?, 'p_callee_long', ?, ?, ?, ?, ?, ?, ?, 1, ?, 'AT', ?, 'TLS')",
            [
                ("c1", "p_1", "2026-11-23T20:00:00.000Z", None, "2026-11-23T20:00:05.000Z", None, 1, 1, 1, "Vienna",
                    HOSTILE),
                ("c2", "p_2", "2026-11-23T21:09:52.000Z", "2026-11-23T21:09:53.000Z", *NOTHING, "Acme/1"),
                ("c3", None, "2026-11-23T21:09:59.000Z", None, *NOTHING, None),
                ("c4", "p_4", "2026-11-23T21:09:30.000Z", None, None, "2026-11-23T21:09:31.000Z", *NOTHING[2:], None),
            ],
        )  # fmt: skip
        store.executemany(
            "INSERT INTO call_media (call, number, stream, kind, accepted, held_by, from_at, to_at, early)"
            " VALUES ('c1', ?, ?, ?, ?, ?, '', ?, ?)",
            [(0, 0, "audio", 1, None, "x", 0), (1, 0, "audio", 1, "callee", None, 0), (2, 1, "video", 1, None, None, 0),
                (3, 2, "content", 1, None, None, 0), (4, 3, "text", 0, None, None, 0),
                (5, 0, "early", 1, None, None, 1)],
        )  # fmt: skip
        store.executemany(
            "INSERT INTO errors (id, at, last_at, kind, count) VALUES (?, ?, ?, ?, ?)",
            [("e1", "2026-11-23T21:09:00.000Z", "2026-11-23T21:09:30.000Z", "timeout", 3),
                ("e2", "2026-11-23T21:08:00.000Z", "2026-11-23T21:08:00.000Z", "credentials", 40),
                ("e3", "2026-11-23T20:00:00.000Z", "2026-11-23T20:00:00.000Z", "fault", 1)],
        )  # fmt: skip
        store.execute(
            "INSERT INTO sign_ins (id, at, last_at, outcome, count)"
            " VALUES ('s', '2026-11-23T21:09:55.000Z', '2026-11-23T21:09:55.000Z', 'refused', 20)"
        )
        store.execute(
            "INSERT INTO server_runs (id, node, started_at, last_alive_at)"
            " VALUES ('r', 'node-1', '2026-11-20T00:00:00.000Z', '2026-11-23T21:09:58.000Z')"
        )
        found = now(store, AT)
    return snapshot(found, None, (3, [("UDP", "Acme/1", 2), ("TLS", None, 1), ("TLS", "Acme/1", 4)]), ["a note\x1b"])


def test_a_moment_counts_and_lists_what_goes_on(moment: Snapshot) -> None:
    assert (moment.node, moment.running, moment.open, moment.answered, moment.ringing) == ("node-1", True, 3, 1, 1)
    assert (moment.with_video, moment.with_content) == (1, 1)
    by_id = {call.id: call for call in moment.calls}
    assert set(by_id) == {"c1", "c2", "c3"}
    assert by_id["c1"].media == "audio+video+content encrypted on hold"
    assert (by_id["c1"].state, by_id["c1"].seconds, by_id["c1"].age) == ("answered", 4195.0, 4200.0)
    assert (by_id["c2"].state, by_id["c2"].seconds, by_id["c2"].media) == ("ringing", 7.0, "offers video")
    assert (by_id["c3"].state, by_id["c3"].caller, by_id["c3"].callee) == ("placed", None, "p_callee…")
    assert (by_id["c1"].caller_at, by_id["c1"].callee_at, by_id["c1"].transports) == ("Vienna", "AT", "TLS -")
    assert moment.errors == {"credentials": 40, "timeout": 3}
    assert moment.rates == {"calls": 0.2, "registrations": 0.0, "refused": 2.0, "messages": None}
    assert moment.rates_from == "record"
    assert (moment.bindings, moment.addresses) == (7, 3)
    assert moment.by_transport == {"TLS": 5, "UDP": 2}
    assert moment.by_agent == {"Acme/1": 6, "(does not say)": 1}
    assert json.loads(json.dumps(moment.plain()))["calls"][0]["id"] == "c3"


@pytest.mark.parametrize("width", [1, 20, 60, 80, 120, 300])
@pytest.mark.parametrize("height", [1, 5, 9, 24, 0])
def test_a_view_fits_the_terminal_and_cannot_speak_to_it(moment: Snapshot, width: int, height: int) -> None:
    for sort in SORTS:
        lines = view(moment, width, height, sort=sort)
        assert not height or len(lines) == height
        for _, text in lines:
            assert width_of(text) <= width
            assert text.isprintable()


def test_a_view_says_what_there_is(moment: Snapshot) -> None:
    lines = [text for _, text in view(moment, 200, 24)]
    assert lines[0] == "sipserver top   2026-11-23 21:10:00 UTC   node-1 runs since 2026-11-20 00:00:00"
    assert "Calls          3 open: 1 answered, 1 ringing; 1 with video, 1 with content" in lines
    assert "A second       0.2 calls   0.0 registrations   2.0 refused   - messages" in lines
    assert "Errors, 5 min  credentials 40, timeout 3" in lines
    assert "Registered     7 of 3 addresses   TLS 5, UDP 2" in lines
    assert "               a note\\x1b" in lines
    table = next(number for number, line in enumerate(lines) if "CALLER" in line)
    assert [line.split()[0:2] for line in lines[table + 1 : table + 4]] == [
        ["1:09:55", "answered"], ["7", "s"], ["1", "s"]
    ]  # fmt: skip
    assert "電話\\x1b[2J" in lines[table + 1]
    assert lines[-1] == "q quit   p pause   s sort (longest)"
    newest = [text for _, text in view(moment, 200, 24, sort="newest", paused=True)]
    assert "PAUSED" in newest[0]
    narrow = [text for _, text in view(moment, 40, 24, paused=True)]
    assert "PAUSED" in narrow[0]
    assert "placed" in newest[table + 1]


def test_where_there_is_little_room_some_calls_are_seen_and_others_counted(moment: Snapshot) -> None:
    many = replace(moment, calls=moment.calls * 10, open=30)
    lines = [text for _, text in view(many, 80, 12)]
    assert sum("answered  " in line for line in lines[3:]) >= 2
    assert any(line.startswith("and 2") and line.endswith(" more") for line in lines)
    narrow = " ".join(text for _, text in view(moment, 40, 12))
    assert "CALLER" in narrow
    assert "AGENT" not in narrow


def test_what_is_wrong_is_an_alarm(moment: Snapshot) -> None:
    ill = replace(
        moment, running=False, last_alive="2026-11-23T20:00:00.000Z", late_answers=2, overload_ms=130,
        overloaded_per_s=1200.4, stores=[
            Store("calls", 120, 60.0, 2.0, 2000.0, failing=True), Store("location", 0, None, None, None, failing=False)
        ],
    )  # fmt: skip
    alarms = [text for style, text in view(ill, 200, 24) if style == ALARM]
    assert alarms[0].endswith("no server runs: node-1 was last heard of at 2026-11-23 20:00:00")
    assert alarms[1] == "calls.db       120 rows wait, about 2,000 ms   60.0 rows/s   2.0 commits/s   FAILING"
    assert alarms[2] == "Overload       work waits for about 130 ms, 1,200 new requests a second are refused"
    assert alarms[3].startswith("Late           2 answers")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0 s"), (59, "59 s"), (60, "1:00"), (3_723, "1:02:03"), (273_600, "3 d 04 h")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Answers(Gauges):
    """Numbers as a test has them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 9))

    def add(self, at: float, **values: float) -> None:
        named: Values = {name.replace("__", "/"): value for name, value in values.items()}
        self._taken.append((at, named))


def test_rates_are_of_what_the_server_counts(data_dir: Path) -> None:
    gauges = Answers()
    names = ("calls_placed", "registrations_accepted", "registrations_refused", "requests", "responses")
    gauges.add(10.0, **dict.fromkeys(names, 5.0), store_rows_written__calls=100, store_commits__calls=1)
    assert gauges.rate("requests") is None
    gauges.add(
        14.0, **dict.fromkeys(names, 13.0), store_rows_written__calls=500, store_commits__calls=5,
        store_failing__calls=1, store_rows_waiting__calls=10, answers_late=3, overload=1, waiting_ms=130,
    )  # fmt: skip
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        found = snapshot(now(store, AT), gauges, None, [])
    assert found.rates == {"calls": 2.0, "registrations": 2.0, "refused": 2.0, "messages": 4.0}
    assert found.rates_from == "metrics"
    assert found.stores == [Store("calls", 10, 100.0, 1.0, 100.0, failing=True)]
    assert (found.late_answers, found.overload_ms) == (3, 130)
    assert (found.running, found.node, found.bindings) == (False, None, None)
    assert "no server has run yet" in view(found, 80, 24)[0][1]


def test_a_store_that_cannot_be_read_any_more_is_told_in_a_sentence(data_dir: Path) -> None:
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        watch = Watch(store, data_dir, None, 5.0)
        assert watch.take().open == 0
        store.execute("DROP VIEW v_runs")
        with pytest.raises(StoreError, match=r"calls\.db: no such table: v_runs"):
            watch.take()


def test_metrics_that_do_not_come_are_told(sipserver: Sipserver, moment: Snapshot) -> None:
    result = sipserver("top", "--once", "--metrics", "127.0.0.1:9")
    assert result.exit_code == 0
    assert "no metrics from 127.0.0.1 port 9: " in result.stdout
    result = sipserver("top", "--once", "--json")
    assert "metrics.listen" in json.loads(result.stdout)["notes"][0]
    assert sipserver("top", "--metrics", "nowhere").exit_code == 2
