"""A call as a ladder."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.cli.ladder import ladder

DAY = "2026-11-23T21:00:"
Record = dict[str, Any]


def event(at: str, kind: str, side: str | None = None, status: int | None = None, detail: str | None = None) -> Record:
    return {"at": f"{DAY}{at}Z", "kind": kind, "side": side, "status": status, "detail": detail}


def branch(number: int, tried: str, outcome: str | None, *, rang: str = "", answered: str = "", ended: str = "",
           status: int | None = None, agent: str | None = None) -> Record:  # fmt: skip
    def time(text: str) -> str | None:
        return f"{DAY}{text}Z" if text else None

    return {
        "branch": number, "tried_at": time(tried), "ringing_at": time(rang), "answered_at": time(answered),
        "ended_at": time(ended), "status": status, "outcome": outcome, "agent": agent, "transport": "UDP",
    }  # fmt: skip


def call(events: list[Record], branches: list[Record], **values: Any) -> Record:
    known: Record = {
        "caller": "p_a", "callee": "p_b", "caller_address": "a@x.test", "callee_address": "b@x.test",
        "caller_agent": "Acme/1", "caller_transport": "TCP", "node": "n1", "answered_at": None, "ended_at": None,
        "outcome": "answered", "media": [],
    }  # fmt: skip
    return {**known, "events": events, "branches": branches, **values}


ANSWERED = [
    event("00.000", "placed", "caller"), event("00.250", "ringing", "callee"),
    event("02.250", "answered", "callee", 200), event("02.300", "confirmed", "caller"),
    event("42.300", "changed", "callee"), event("59.999", "ended", "callee", None, "bye"),
]  # fmt: skip


def rungs(text: str) -> list[str]:
    """What follows the heads."""
    lines = text.splitlines()
    return lines[[line.startswith("2026-") for line in lines].index(True) :]


def test_answered_call() -> None:
    devices = [branch(0, "00.010", "answered", rang="00.249", answered="02.249", status=200, agent="B/2")]
    assert ladder(call(ANSWERED, devices), 80).splitlines() == [
        "                             caller             server             callee",
        "                            a@x.test              n1              b@x.test",
        "                             Acme/1                                  B/2",
        "                               TCP                                   UDP",
        "2026-11-23                      │                  │                  │",
        "21:00:00.000                    │───── INVITE ────>│                  │",
        "21:00:00.010    +0.010          │                  │───── INVITE ────>│",
        "21:00:00.249    +0.239          │                  │<──── rings ──────│",
        "21:00:00.250    +0.001          │<──── rings ──────│                  │",
        "21:00:02.249    +1.999          │                  │<───── 200 ───────│",
        "21:00:02.250    +0.001          │<───── 200 ───────│                  │",
        "21:00:02.300    +0.050          │────── ACK ───────┼─────────────────>│",
        "21:00:42.300   +40.000          │<─────────────────┼───── change ─────│",
        "21:00:59.999   +17.699          │<─────────────────┼────── BYE ───────│",
    ]


def test_fork_tells_devices_apart_the_one_that_answered_first() -> None:
    branches = [
        branch(0, "00.010", "busy", ended="00.300", status=486),
        branch(1, "00.010", "elsewhere", rang="00.200", ended="02.280", status=487),
        branch(2, "00.010", "answered", rang="00.249", answered="02.249", status=200),
        branch(3, "00.010", "unreachable", ended="02.250"),
    ]
    record = call(ANSWERED, branches, answered_at=f"{DAY}02.250Z")
    text = ladder(record, 140)
    assert text.splitlines()[0].split() == [
        "caller", "server", "device", "2", "device", "0", "device", "1", "device", "3"
    ]  # fmt: skip
    lines = rungs(text)
    assert any("486 busy" in line for line in lines)
    assert any(line.endswith("x│") and "INVITE" in line for line in lines)
    assert any("· device 3 unreachable ·" in line for line in lines)
    (cancel,) = [line for line in lines if "CANCEL" in line]
    assert cancel.startswith("21:00:02.250")
    assert cancel.rstrip("│ ").endswith(">"), "it passes the devices before its own"
    assert "┼" not in cancel, "only what passes through the server crosses its line"
    narrow = ladder(record, 60)
    assert "4 devices" in narrow
    assert "INVITE #3" in narrow
    assert max(map(len, narrow.splitlines())) <= 79


def test_device_that_rings_when_the_server_is_killed() -> None:
    events = [event("00.000", "placed", "caller"), event("00.250", "ringing", "callee")]
    ringing = call(events, [branch(0, "00.010", None)], ringing_at=f"{DAY}00.250Z")
    assert sum("rings" in line for line in rungs(ladder(ringing, 100))) == 2, "the device's and the server's"
    events.append(event("59.000", "ended", "server", None, "server_restart"))
    left = call(
        events, [branch(0, "00.010", "cut_short", rang="00.250", ended="00.250")], ringing_at=f"{DAY}00.250Z",
        ended_at=f"{DAY}00.250Z",
    )  # fmt: skip
    assert any("what became of device 0 is not known" in line for line in rungs(ladder(left, 100)))


def test_call_that_was_cancelled() -> None:
    events = [event("00.000", "placed", "caller"), event("01.000", "cancelled", "caller", None, "too long")]
    branches = [branch(0, "00.010", "cancelled", rang="00.100", ended="01.020", status=487)]
    lines = rungs(ladder(call(events, branches, outcome="cancelled"), 100))
    found = [line for line in lines if "CANCEL" in line]
    assert len(found) == 2, "the caller's and the server's"
    assert "487" in lines[-1]


def test_call_that_was_refused_by_the_server_has_no_device() -> None:
    events = [event("00.000", "placed", "caller"), event("00.001", "failed", "server", 404)]
    error = {"at": f"{DAY}00.001Z", "kind": "refused", "status": 404, "answered_by": "server"}
    text = ladder(call(events, [], outcome="not_found", errors=[error]), 80)
    assert "→ b@x.test" in text
    lines = rungs(text)
    assert "404 not_found" in lines[2]
    assert "· error: refused 404 (server) ·" in lines[3]


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ("session_expired", "ended by server: session_expired"),
        ("server_restart", "closed by the next start; the last sign of it was at 21:00:02.300"),
    ],
)
def test_end_that_nobody_sent_is_a_remark(detail: str, text: str) -> None:
    events = [*ANSWERED[:4], event("50.000", "ended", "server", None, detail)]
    branches = [branch(0, "00.010", "answered", answered="02.249", status=200)]
    assert text in ladder(call(events, branches, ended_at=f"{DAY}02.300Z"), 110)


def test_media_stand_where_they_begin_and_end() -> None:
    def stream(kind: str, codec: str | None, start: str, end: str, accepted: int = 1) -> Record:
        return {
            "kind": kind, "codec": codec, "direction": "sendrecv" if accepted else None, "accepted": accepted,
            "from_at": f"{DAY}{start}Z", "to_at": f"{DAY}{end}Z",
        }  # fmt: skip

    media = [
        stream("audio", "PCMU", "02.250", "59.999"), stream("video", "VP8", "02.250", "42.300"),
        stream("video", None, "42.300", "59.999", accepted=0),
    ]  # fmt: skip
    branches = [branch(0, "00.010", "answered", answered="02.249", status=200)]
    lines = rungs(ladder(call(ANSWERED, branches, ended_at=f"{DAY}59.999Z", media=media), 110))
    said = [line.split("·")[1].strip() for line in lines if "·" in line]
    assert said == ["audio PCMU sendrecv, video VP8 sendrecv", "video VP8 sendrecv ends", "video refused"]


def test_kinds_of_events_that_are_not_known_are_shown_all_the_same() -> None:
    events = [*ANSWERED[:4], event("05.000", "waved", "callee", 202), event("06.000", "moved", None, None, "x")]
    text = ladder(call(events, [branch(0, "00.010", "answered", answered="02.249")]), 110)
    assert "waved 202" in text
    assert "· moved x ·" in text


def test_nothing_speaks_to_the_terminal_and_wide_characters_keep_the_columns() -> None:
    branches = [branch(0, "00.010", "answered", answered="02.249", status=200, agent="会議室の端末\x1b[2J\x07")]
    record = call(ANSWERED, branches, caller_agent="e\u0301" * 40)
    text = ladder(record, 80)
    assert all(line.isprintable() for line in text.splitlines())
    for line in rungs(text):
        assert line.index("│") == 32


def test_ascii_where_the_terminal_has_no_more() -> None:
    text = ladder(call(ANSWERED, [branch(0, "00.010", "answered", agent="Ä" * 30)]), 80, ascii_only=True)
    assert text.isascii()
    assert "|------ ACK -------+----------------->|" in text


def test_long_waits_and_midnight_are_told() -> None:
    events = [
        {**ANSWERED[0], "at": "2026-11-23T23:00:00.000Z"}, {**ANSWERED[2], "at": "2026-11-23T23:05:30.000Z"},
        {**ANSWERED[5], "at": "2026-11-24T02:06:31.500Z"},
    ]  # fmt: skip
    text = ladder(call(events, []), 80)
    assert "+5:30.000" in text
    assert "+3:01:01" in text
    assert "\n2026-11-24 " in text


def test_record_that_makes_no_sense_is_drawn_without_a_fault() -> None:
    events = [{"at": "now", "kind": "placed", "side": None, "status": None, "detail": None}]
    assert "now" in ladder(call(events, [], caller=None, caller_address=None, callee_address=None, callee=None), 20)


def said(text: str) -> list[str]:
    """The remarks, in order."""
    return [line.split("·")[1].strip() for line in rungs(text) if "·" in line]


GOES_ON = "the times of this call go on as before"
ONE = [branch(0, "00.010", "answered", answered="02.249", status=200)]


def test_device_that_was_not_kept_is_hung_up() -> None:
    events = [*ANSWERED[:4], event("02.400", "dropped", "caller", None, "bye"), ANSWERED[5]]
    branches = [
        branch(0, "00.010", "also_answered", answered="02.240", ended="02.400", status=200),
        branch(1, "00.010", "answered", answered="02.249", status=200),
    ]  # fmt: skip
    lines = rungs(ladder(call(events, branches, answered_at=f"{DAY}02.250Z"), 110))
    (dropped,) = [line for line in lines if line.startswith("21:00:02.400")]
    assert "BYE not kept" in dropped
    assert dropped.rstrip().endswith(">│"), "it goes to the other device, which stands last"
    assert len([line for line in lines if " 200 " in line]) == 3, "one for each device, and one for the caller"


def test_transfers_and_their_calls_are_told() -> None:
    events = [
        *ANSWERED[:4], event("05.000", "referred", "callee"), event("06.000", "referred", "caller", None, "attended"),
    ]  # fmt: skip
    links = [
        {"call": "me", "other": "c-1", "kind": "transfer", "at": f"{DAY}05.200Z"},
        {"call": "me", "other": "c-2", "kind": "attended_transfer", "at": f"{DAY}06.200Z"},
        {"call": "c-0", "other": "me", "kind": "transfer", "at": f"{DAY}00.000Z"},
        {"call": "c-9", "other": "me", "kind": "replaced", "at": f"{DAY}00.000Z"},
        {"call": "me", "other": "c-3", "kind": "replaced", "at": f"{DAY}07.000Z"},
    ]  # fmt: skip
    text = ladder(call(events, ONE, id="me", links=links), 120)
    assert said(text) == [
        "comes of the transfer of call c-0", "replaces call c-9", "the callee transfers the call to somebody else",
        "transferred: goes on as call c-1", "the caller transfers the call to somebody it talks to",
        "transferred, attended: goes on as call c-2", "replaced by call c-3",
    ]  # fmt: skip
    assert len([line for line in rungs(text) if "── REFER ──" in line]) == 2


@pytest.mark.parametrize(
    ("kind", "detail", "words"),
    [
        ("seen", None, "both sides are still there"),
        ("clock_stepped", "+3600000 ms", f"the clock was set forward by 1:00:00; {GOES_ON}"),
        ("clock_stepped", "-1500 ms", f"the clock was set back by 0:00:01.500; {GOES_ON}"),
        ("clock_stepped", "x", f"the clock was set x; {GOES_ON}"),
        ("dropped", "session_expired", "the answer that was not kept is over: session_expired"),
    ],
)
def test_what_the_server_noted_is_told_in_words(kind: str, detail: str | None, words: str) -> None:
    events = [*ANSWERED[:4], event("05.000", kind, "server" if kind == "dropped" else None, None, detail)]
    assert said(ladder(call(events, ONE), 130)) == [words]


def test_bye_that_nobody_answered_did_not_arrive() -> None:
    (*_, last) = rungs(ladder(call(ANSWERED, ONE, end_uncertainty_ms=32_000), 110))
    assert "BYE unanswered" in last
    assert "x" in last.partition("BYE unanswered")[0] or "x" in last.partition("BYE unanswered")[2]


def test_early_media_and_media_on_hold_are_told() -> None:
    def stream(start: str, end: str, **values: Any) -> Record:
        given = {"kind": "audio", "codec": "PCMU", "direction": "sendrecv", "accepted": 1, "early": 0, "held_by": None}
        return {**given, "from_at": f"{DAY}{start}Z", "to_at": f"{DAY}{end}Z", **values}

    media = [
        stream("00.250", "02.250", early=1), stream("00.250", "01.000", early=1, kind="video", codec=None, accepted=0),
        stream("02.250", "10.000"), stream("10.000", "20.000", direction="sendonly", held_by="caller"),
        stream("20.000", "59.999", direction="inactive", held_by="both"),
    ]  # fmt: skip
    text = ladder(call(ANSWERED, ONE, answered_at=f"{DAY}02.250Z", ended_at=f"{DAY}59.999Z", media=media), 130)
    assert said(text) == [
        "early audio PCMU sendrecv, early video refused", "audio PCMU sendrecv", "audio PCMU sendrecv ends",
        "audio PCMU on hold by the caller", "audio PCMU on hold by the caller ends",
        "audio PCMU on hold by both sides",
    ]  # fmt: skip
