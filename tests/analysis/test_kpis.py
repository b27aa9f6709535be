"""Every figure against a slow, obvious reference on random stores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sipserver.analysis.kpis import Kpis
from sipserver.analysis.periods import Bucket
from support.record import BEGIN, DAY, END, HOUR, Record, Row, stamp

PERIODS = [Bucket(BEGIN, END, ""), Bucket(BEGIN + DAY, BEGIN + 2 * DAY, ""), Bucket(BEGIN + 7, BEGIN + 5 * HOUR, "")]
EMPTY = Bucket(BEGIN - DAY, BEGIN, "")
SCOPES: list[dict[str, str]] = [{}, {"site": "north"}, {"agent": "acme"}, {"site": "south", "agent": "halo/"}]

Case = Callable[[Row], bool]


@pytest.fixture(params=SCOPES, ids=str)
def scope(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.param
    return found


def of(bucket: Bucket, rows: list[Row], scope: dict[str, str], at: str = "started_at") -> list[Row]:
    """The rows of this time and scope."""
    return [row for row in rows if bucket.begin <= row[at] < bucket.end and fits(row, scope)]


def fits(row: Row, scope: dict[str, str]) -> bool:
    site, agent = scope.get("site"), scope.get("agent", "").lower()
    sites = {row.get("caller_site"), row.get("callee_site"), row.get("site")}
    agents = [row.get(name) for name in ("caller_agent", "callee_agent", "agent")]
    return (site is None or site in sites) and (not agent or any(agent in each.lower() for each in agents if each))


def over(bucket: Bucket, record: Record, scope: dict[str, str]) -> list[Row]:
    return [row for row in of(bucket, record.calls, scope) if "ended_at" in row]


def percent(part: float, whole: float) -> Any:
    return pytest.approx(100 * part / whole) if whole else None


def mean(values: list[float]) -> Any:
    return pytest.approx(sum(values) / len(values) / 1000) if values else None


def answered(row: Row) -> bool:
    return "answered_at" in row


def status(row: Row) -> int:
    return row.get("sip_status") or 0


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_sessions(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    calls = over(bucket, record, scope)
    up = [row for row in calls if answered(row)]
    down = [row for row in calls if not answered(row)]
    bye = [row for row in up if row["end_cause"] == "bye"]
    orderly = [row for row in bye if row.get("end_uncertainty_ms") is None]
    asked = len(calls) - sum(1 for row in down if 300 <= status(row) < 400)
    failed = [row for row in down if status(row) >= 400 and status(row) not in (401, 402, 407, 487)]
    delivered = [row for row in down if row["outcome"] in ("busy", "declined", "no_answer")
        or (row["outcome"] == "cancelled" and row.get("ring_ms") is not None)]  # fmt: skip
    known = [row for row in calls if row["outcome"] not in ("not_found", "forbidden")]
    assert Kpis(record.source, **scope).sessions(bucket) == {
        "calls": len(calls),
        "answered": len(up),
        "ser_percent": percent(len(up), asked),
        "seer_percent": percent(len(up) + sum(1 for row in down if status(row) in (480, 486, 600, 603)), asked),
        "isa_percent": percent(sum(1 for row in down if status(row) in (408, 500, 503, 504)), len(calls)),
        "scr_percent": percent(len(orderly), len(calls)),
        "asr_percent": percent(len(up), sum(1 for row in calls if row["devices"])),
        "ner_percent": percent(len(up) + len(delivered), len(calls)),
        "abr_percent": percent(len(up), len(calls)),
        "acd_s": mean([row["talk_ms"] for row in up]),
        "sdt_s": mean([row["talk_ms"] for row in orderly]),
        "sdt_failed_s": mean([row["talk_ms"] + row["end_uncertainty_ms"] for row in bye if row not in orderly]),
        "srd_s": mean([row["setup_ms"] for row in up if row["setup_ms"] is not None]),
        "srd_failed_s": mean([row["setup_ms"] for row in failed if row["setup_ms"] is not None]),
        "reachable_percent": percent(sum(1 for row in known if row["outcome"] != "offline"), len(known)),
    }


def rank(values: list[Any], share: int) -> Any:
    return sorted(values)[math.ceil(len(values) * share / 100) - 1] if values else None


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_delays(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    delays = [row["setup_ms"] for row in over(bucket, record, scope)
        if (answered(row) or row.get("ring_ms") is not None) and row["setup_ms"] is not None]  # fmt: skip
    assert Kpis(record.source, **scope).delays(bucket) == {
        f"pdd_p{share}_ms": rank(delays, share) for share in (50, 90, 95, 99)
    }
    hung_up = [row["disconnect_ms"] for row in over(bucket, record, scope)
        if row.get("disconnect_ms") is not None and row.get("end_uncertainty_ms") is None]  # fmt: skip
    assert Kpis(record.source, **scope).disconnects_each([bucket])[0] == {
        f"sdd_p{share}_ms": rank(hung_up, share) for share in (50, 95)
    }


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_features(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    up = [row for row in over(bucket, record, scope) if answered(row)]
    upgraded = 0
    for row in up:
        mine = [each for each in record.media if each["call"] == row["id"] and each["accepted"] and not each["early"]]
        began = [each["from_at"] for each in mine if each["kind"] == "video"]
        upgraded += bool(row["video"] and began and min(began) > row["answered_at"])
    assert Kpis(record.source, **scope).features(bucket) == {
        "answered": len(up),
        "with_video": sum(row["video"] for row in up),
        "video_percent": percent(sum(row["video"] for row in up), len(up)),
        "with_content": sum(row["content"] for row in up),
        "content_percent": percent(sum(row["content"] for row in up), len(up)),
        "minutes": pytest.approx(sum(row["talk_ms"] for row in up) / 60_000),
        "video_minutes": pytest.approx(sum(row["video_ms"] for row in up) / 60_000),
        "upgraded": upgraded,
    }


@pytest.mark.parametrize("bucket", PERIODS, ids=range(3))
def test_what_is_counted_by_kind(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    kpis = Kpis(record.source, **scope)
    calls, all_calls = over(bucket, record, scope), of(bucket, record.calls, scope)
    ids = {row["id"] for row in calls}
    media = {(each["call"], each["kind"], each["codec"], each["resolution"]) for each in record.media
        if each["call"] in ids and each["accepted"] and not each["early"]}  # fmt: skip
    assert counted(kpis.media(bucket), "kind codec resolution") == Counter(each[1:] for each in media)
    assert counted(kpis.outcomes(bucket), "outcome sip_status end_cause") == Counter(
        (row["outcome"], row["sip_status"], row["end_cause"]) for row in calls
    )
    places = [f"{side}_{part}" for side in ("caller", "callee") for part in ("country", "region", "site")]
    matrix = kpis.matrix(bucket)
    assert counted(matrix, " ".join(places)) == Counter(tuple(map(row.get, places)) for row in all_calls)
    assert sum(row["answered"] for row in matrix) == sum(map(answered, all_calls))
    assert counted(kpis.transports(bucket), "caller_transport callee_transport") == Counter(
        (row["caller_transport"], row["callee_transport"]) for row in all_calls
    )
    placed = Counter(row["caller"] for row in all_calls if row["caller"])
    assert {row["placed"]: row["parties"] for row in kpis.parties(bucket)} == Counter(placed.values())
    agents = {row["agent"]: (row["placed"], row["received"], row["with_video"]) for row in kpis.agents(bucket)}
    assert agents == {
        agent: (
            sum(row["caller_agent"] == agent for row in calls),
            sum(row["callee_agent"] == agent and answered(row) for row in calls),
            sum(row.get("video", 0) * (row["caller_agent"] == agent) for row in calls)
            + sum(row.get("video", 0) * (row["callee_agent"] == agent) for row in calls if answered(row)),
        )
        for agent in {row["caller_agent"] for row in calls} | {row["callee_agent"] for row in calls if answered(row)}
        if agent is not None
    }


def counted(rows: list[Row], names: str) -> dict[tuple[Any, ...], int]:
    return {tuple(row[name] for name in names.split()): row["calls"] for row in rows}


@pytest.mark.parametrize("bucket", PERIODS, ids=range(3))
def test_retries(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    tried: Counter[str] = Counter()
    again: Counter[str] = Counter()
    paired = [row for row in record.calls if row["caller"] and row["callee"] and fits(row, scope)]
    for row in paired:
        if bucket.begin <= row["started_at"] < bucket.end and not answered(row) and "ended_at" in row:
            key = (row["started_at"], row["id"])
            later = [other["started_at"] for other in paired if (other["started_at"], other["id"]) > key
                and (other["caller"], other["callee"]) == (row["caller"], row["callee"])]  # fmt: skip
            tried[row["outcome"]] += 1
            again[row["outcome"]] += bool(later and min(later) - row["ended_at"] < 900_000)
    found = Kpis(record.source, **scope).retries(bucket)
    assert {row["outcome"]: (row["calls"], row["again"]) for row in found} == {
        outcome: (count, again[outcome]) for outcome, count in tried.items()
    }
    assert all(row["again_percent"] == percent(row["again"], row["calls"]) for row in found)


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_placed_and_peak_rate(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    kpis, calls = Kpis(record.source, **scope), of(bucket, record.calls, scope)
    assert kpis.placed(bucket) == {
        "calls": len(calls), "answered": sum(map(answered, calls)), "open": sum("ended_at" not in row for row in calls)
    }  # fmt: skip
    rate = Counter(row["started_at"] // 1000 for row in calls)
    assert kpis.peak_rate(bucket) == max(rate.values(), default=0)


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_errors_and_reports(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    agent = {"agent": scope["agent"]} if "agent" in scope else {}
    kpis = Kpis(record.source, **agent)
    found = of(bucket, record.errors, agent, "at")
    assert kpis.errors(bucket) == sum(row["count"] for row in found)
    kinds: Counter[tuple[str, str]] = Counter()
    for row in found:
        kinds[row["kind"], row["answered_by"]] += row["count"]
    assert {(row["kind"], row["answered_by"]): row["errors"] for row in kpis.kinds(bucket)} == kinds
    reports = [row for row in of(bucket, record.reports, agent, "at") if row["kind"] == "session"]
    scores = [row["mos_lq"] for row in reports if row["mos_lq"] is not None]
    losses = [row["loss_percent"] for row in reports]
    assert kpis.reported(bucket) == {
        "reports": len(reports), "mos_lq_p50": rank(scores, 50), "mos_lq_p5": rank(scores, 5),
        "loss_percent_p50": rank(losses, 50), "loss_percent_p95": rank(losses, 95), "jitter_ms_p50": None,
        "jitter_ms_p95": None, "round_trip_ms_p50": None, "round_trip_ms_p95": None,
    }  # fmt: skip


@pytest.mark.parametrize("bucket", [*PERIODS, EMPTY], ids=range(4))
def test_registrations(record: Record, scope: dict[str, str], bucket: Bucket) -> None:
    rows = of(bucket, record.sign_ins, scope, "at")
    bound = sum(row["count"] for row in rows if row["outcome"] == "bound")
    refused = sum(row["count"] for row in rows if row["outcome"] == "refused")
    whole_days = not scope and bucket.begin % DAY == bucket.end % DAY == 0
    first, last = (stamp(bucket.begin) or "")[:10], (stamp(bucket.end) or "")[:10]
    refreshes = sum(row["refreshes"] for row in record.days if first <= row["day"] < last) if whole_days else None
    there = {row["party"] for row in rows if row["outcome"] == "bound"}
    if not scope:
        there |= {row["party"] for row in record.days
            if any(bucket.begin <= row[name] < bucket.end for name in ("first_at", "last_at"))}  # fmt: skip
    calls = of(bucket, record.calls, scope)
    active = there | {row["caller"] for row in calls} | {row["callee"] for row in calls if answered(row)}
    assert Kpis(record.source, **scope).registrations(bucket) == {
        "bound": bound, "refused": refused, "refused_percent": percent(refused, bound + refused),
        "refreshes": refreshes,
        "ira_percent": None if refreshes is None else percent(refused, bound + refused + refreshes),
        "signed_in": len(there - {None}), "active": len(active - {None}),
    }  # fmt: skip


def test_views_by_day_say_the_same(record: Record) -> None:
    cursor = record.connection.execute("SELECT * FROM v_session_figures_by_day")
    names = [column[0] for column in cursor.description]
    by_day = {row[0]: dict(zip(names, row, strict=True)) for row in cursor}
    features = {row[0]: row[1:] for row in record.connection.execute("SELECT * FROM v_features_by_day")}
    registrations = {
        row[0]: row[1:] for row in record.connection.execute("SELECT * FROM v_registration_figures_by_day")
    }
    active = {row[0]: row[1] for row in record.connection.execute("SELECT day, active FROM v_active_parties_by_day")}
    kpis = Kpis(record.source)
    for day in range(5):
        bucket = Bucket(BEGIN + day * DAY, BEGIN + (day + 1) * DAY, "")
        name = bucket.bounds["from"][:10]
        sessions = kpis.sessions(bucket)
        del sessions["reachable_percent"]
        assert {key: by_day[name][key] for key in sessions} == sessions
        found = kpis.features(bucket)
        assert features[name] == tuple(found[key] for key in found if key != "upgraded")
        assert registrations[name][2] == pytest.approx(kpis.registrations(bucket)["ira_percent"])
        assert active[name] >= kpis.registrations(bucket)["signed_in"]


def test_views_of_the_whole_store(record: Record) -> None:
    everything = Bucket(BEGIN, END, "")
    kpis = Kpis(record.source)
    rows = record.connection.execute("SELECT placed, parties FROM v_calls_per_party").fetchall()
    assert dict(rows) == {row["placed"]: row["parties"] for row in kpis.parties(everything)}
    (calls,) = record.connection.execute("SELECT sum(calls) FROM v_location_matrix").fetchone()
    assert calls == len(record.calls)
    retries = record.connection.execute(
        "SELECT outcome, count(*), sum(again_after_s < 900) FROM v_retries GROUP BY outcome"
    ).fetchall()
    assert {row[0]: (row[1], row[2] or 0) for row in retries} == {
        row["outcome"]: (row["calls"], row["again"]) for row in kpis.retries(everything)
    }
    mix = record.connection.execute("SELECT sum(calls) FROM v_media_mix").fetchone()[0]
    ids = {row["id"] for row in record.calls}
    assert mix == len({(each["call"], each["kind"], each["codec"], each["resolution"]) for each in record.media
        if each["accepted"] and not each["early"] and each["call"] in ids})  # fmt: skip


def test_registration_delays(record: Record) -> None:
    delays: list[int] = []
    for hour, up_to, count in ((0, 2, 5), (3, 6, 10), (3, 48, 4), (30, 1_024, 7)):
        row = {"at": BEGIN + hour * HOUR, "outcome": "accepted", "up_to_ms": up_to, "count": count}
        record.insert("registration_delays", row)
        if hour < 24:
            delays += [up_to] * count
    record.insert("registration_delays", {"at": BEGIN, "outcome": "refused", "up_to_ms": 512, "count": 90})
    kpis = Kpis(record.source)
    wanted = {"rrd_p50_ms": rank(delays, 50), "rrd_p95_ms": rank(delays, 95)}
    found = kpis.registration_delays_each([Bucket(BEGIN, BEGIN + DAY, ""), Bucket(BEGIN + 2 * DAY, END, "")])
    assert found == [wanted, dict.fromkeys(wanted)]
    assert Kpis(record.source, site="north").registration_delays_each([PERIODS[0]]) == [dict.fromkeys(wanted)]
    day = stamp(BEGIN)
    assert day is not None
    rows = record.connection.execute("SELECT * FROM v_registration_delays_by_day WHERE day = ?", (day[:10],))
    assert rows.fetchall() == [(day[:10], "accepted", 19, *wanted.values()), (day[:10], "refused", 90, 512, 512)]


def test_view_of_disconnect_delays(record: Record) -> None:
    kpis = Kpis(record.source)
    rows = record.connection.execute("SELECT day, p50_ms, p95_ms FROM v_disconnect_delays_by_day WHERE answered")
    found = {row[0]: row[1:] for row in rows}
    for day in range(5):
        bucket = Bucket(BEGIN + day * DAY, BEGIN + (day + 1) * DAY, "")
        assert found[bucket.bounds["from"][:10]] == tuple(kpis.disconnects_each([bucket])[0].values())
