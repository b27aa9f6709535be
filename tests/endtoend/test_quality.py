"""How good calls were, as endpoints tell: over real sockets, until it stands in the store and on the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipserver.sip.message import Response
from support import baresip
from support.baresip import Baresip
from support.pen import DOMAIN
from support.phone import Phone
from support.server import Row, ServerProcess, sipserver

StartServer = Callable[..., ServerProcess]

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 4002 RTP/AVP 96\r\n"
    b"a=rtpmap:96 VP8/90000\r\nm=audio 4000 RTP/AVP 0\r\n"
)
TYPE = "Content-Type: application/sdp"
EVENT = ("Event: vq-rtcpxr", "Content-Type: application/vq-rtcpxr")
COLLECTOR = f"sip:quality@{DOMAIN}"

REPORT = """VQSessionReport: CallTerm
CallID: {call_id}
LocalID: "Alice" <sip:alice@example.test>
RemoteID: <sip:bob@example.test>
OrigID: <sip:alice@example.test>
LocalGroup: phones
RemoteGroup: gateways
LocalAddr: IP=10.1.2.3 PORT=5000 SSRC=0x1a3b5c7d
RemoteAddr: IP=192.0.2.77 PORT=5002 SSRC=0x2468abcd
LocalMetrics:
Timestamps:START=2026-11-24T18:23:43Z STOP=2026-11-24T18:26:02Z
SessionDesc:PT=0 PD=PCMU SR=8000 FD=20 FPP=1 PPS=50 PLC=3 SSUP=off
PacketLoss:NLR=1.5 JDR=0.25
BurstGapLoss:BLD=10.0 BD=120 GLD=0.5 GD=500 GMIN=16
Delay:RTD=48 ESD=20 IAJ=3.5
QualityEst:RLQ=88 RCQ=85 MOSLQ=4.1 MOSCQ=4.0 QoEEstAlg=P.564
RemoteMetrics:
Timestamps:START=2026-11-24T18:23:43Z STOP=2026-11-24T18:26:02Z
SessionDesc:PT=0 PD=PCMU SR=8000
PacketLoss:NLR=0.0 JDR=0.0
Delay:RTD=48 IAJ=2
""".replace("\n", "\r\n")


class Call:
    """A server with two phones that had a call of a moment."""

    def __init__(self, server: ServerProcess, stack: ExitStack) -> None:
        self.server = server
        self.alice = stack.enter_context(Phone(server.port, "alice"))
        self.bob = stack.enter_context(Phone(server.port, "bob"))
        self.carol = stack.enter_context(Phone(server.port, "carol"))
        self.call_id = ""

    def begin(self, call_id: str = "first") -> Response:
        """Registered, called, answered."""
        self.call_id = call_id
        self.alice.register()
        self.bob.register()
        uri = f"sip:bob@{DOMAIN}"
        self.alice.exchange("INVITE", uri, f"Contact: <{self.alice.contact}>", TYPE, call_id=call_id, body=SDP)
        self.alice.expect(100)
        self.bob.respond(self.bob.expect("INVITE"), 200, TYPE, body=SDP)
        answer = self.alice.expect(200)
        assert isinstance(answer, Response)
        self.alice.send(self.alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        self.bob.expect("ACK")
        return answer

    def end(self, answer: Response, *of_caller: str, of_callee: tuple[str, ...] = ()) -> None:
        """BYE and its 200, with these lines in them."""
        self.alice.send(self.alice.in_dialog("BYE", answer, *of_caller, cseq=answer.cseq[0] + 5))
        self.bob.respond(self.bob.expect("BYE"), 200, *of_callee)
        self.alice.expect(200)

    def report(self, phone: Phone, body: str, method: str = "PUBLISH", uri: str = COLLECTOR) -> None:
        """Send a report; what comes back is for the test."""
        phone.exchange(method, uri, *EVENT, call_id=f"p{time.monotonic_ns()}", body=body.encode())

    def rows(self) -> list[Row]:
        return self.server.rows("SELECT * FROM quality_reports ORDER BY rowid")

    def row_of_call(self) -> Row:
        (row,) = self.server.rows("SELECT * FROM calls")
        return row


@pytest.fixture
def made(start_server: StartServer) -> Iterator[Call]:
    server = start_server("alice", "bob", "carol")
    with ExitStack() as stack:
        yield Call(server, stack)
    assert not [event for event in server.events if event["event"] == "internal.fault"]


def test_report_after_the_call_is_joined_to_its_call_and_stream(made: Call) -> None:
    made.end(made.begin())
    made.report(made.alice, REPORT.format(call_id=made.call_id))
    answer = made.alice.expect(200)
    assert answer.header("sip-etag")
    assert answer.header("expires") == "3600"
    # It was answered, so it is there.
    local, remote = made.rows()
    call = made.row_of_call()
    for row in (local, remote):
        assert (row["call"], row["party"], row["side"]) == (call["id"], made.server.party("alice"), "caller")
        # Audio is the second stream, and the second row.
        assert (row["media_kind"], row["stream"], row["media"]) == ("audio", 1, 2)
    assert (local["direction"], local["loss_percent"], local["jitter_ms"], local["mos_lq"]) == ("local", 1.5, 3.5, 4.1)
    assert (local["receiver_ssrc"], local["receiver_network"]) == ("1a3b5c7d", "10.1.2.0/24")
    assert (local["source_ssrc"], local["source_network"]) == ("2468abcd", "192.0.2.0/24")
    assert (local["from_at"], local["to_at"]) == ("2026-11-24T18:23:43.000Z", "2026-11-24T18:26:02.000Z")
    assert (remote["direction"], remote["loss_percent"], remote["mos_lq"]) == ("remote", 0.0, None)
    assert (remote["receiver_ssrc"], remote["source_ssrc"]) == ("2468abcd", "1a3b5c7d")


def test_store_names_nobody(made: Call) -> None:
    made.end(made.begin())
    made.report(made.alice, REPORT.format(call_id=made.call_id))
    made.alice.expect(200)
    text = json.dumps(made.rows())
    assert not [word for word in ("alice", "bob@", "10.1.2.3", "192.0.2.77", "first", "phones") if word in text]


def test_report_during_the_call_and_from_the_callee_by_notify(made: Call) -> None:
    answer = made.begin()
    body = REPORT.format(call_id=made.call_id).replace("VQSessionReport: CallTerm", "VQIntervalReport")
    made.report(made.bob, body, "NOTIFY", f"sip:{DOMAIN}")
    assert made.bob.expect(200).header("sip-etag") is None
    row = made.rows()[0]
    call = made.row_of_call()
    assert (row["call"], row["side"], row["kind"], row["source"]) == (call["id"], "callee", "interval", "notify")
    assert row["party"] == made.server.party("bob")
    made.end(answer)


def test_report_after_a_restart_finds_its_call(made: Call) -> None:
    made.end(made.begin())
    made.server.kill()
    made.server.start()
    made.report(made.alice, REPORT.format(call_id=made.call_id))
    made.alice.expect(200)
    assert made.rows()[0]["call"] == made.row_of_call()["id"]


def test_same_report_twice_counts_once(made: Call) -> None:
    made.end(made.begin())
    for _ in range(2):
        made.report(made.alice, REPORT.format(call_id=made.call_id))
        made.alice.expect(200)
    assert len(made.rows()) == 2


def test_report_on_the_call_of_others_is_kept_without_it(made: Call) -> None:
    made.end(made.begin())
    made.report(made.carol, REPORT.format(call_id=made.call_id))
    made.carol.expect(200)
    assert {(row["call"], row["party"], row["stream"]) for row in made.rows()} == {
        (None, made.server.party("carol"), None)
    }


def test_who_proves_nothing_is_challenged_and_nothing_is_kept(made: Call) -> None:
    body = REPORT.format(call_id="x").encode()
    made.alice.send(made.alice.write("PUBLISH", COLLECTOR, *EVENT, body=body))
    made.alice.expect(407)
    made.alice.exchange("PUBLISH", COLLECTOR, *EVENT, call_id="wrong", body=body, password="guess")
    made.alice.expect(407)
    stranger = "<sip:mallory@example.org>;tag=m"
    made.alice.send(made.alice.write("PUBLISH", COLLECTOR, *EVENT, from_=stranger, call_id="s", body=body))
    made.alice.expect(403)
    assert made.rows() == []


def test_malformed_report_is_refused_and_noted(made: Call) -> None:
    made.report(made.alice, "VQSessionReport: CallTerm\r\nCallID: x\r\n")
    made.alice.expect(400)
    (row,) = made.server.wait_for_rows("SELECT * FROM errors WHERE kind = 'quality'", bool)
    assert (row["method"], row["status"], row["party"]) == ("PUBLISH", 400, made.server.party("alice"))
    assert made.rows() == []


def test_other_event_to_the_server_itself_is_489(made: Call) -> None:
    made.alice.exchange("PUBLISH", f"sip:{DOMAIN}", "Event: presence", call_id="e")
    assert made.alice.expect(489).header("allow-events") == "vq-rtcpxr"


def test_other_event_to_a_subscriber_goes_there(made: Call) -> None:
    made.bob.register()
    made.alice.exchange("PUBLISH", f"sip:bob@{DOMAIN}", "Event: presence", call_id="e", body=b"x")
    made.bob.respond(made.bob.expect("PUBLISH"), 200)
    made.alice.expect(200)


def test_summaries_in_bye_and_its_answer(made: Call) -> None:
    made.end(
        made.begin(),
        "P-RTP-Stat: PS=100,OS=16000,PR=98,OR=15680,PL=2,JI=4,LA=60,DU=2,EN=G711u,DE=PCMU",
        of_callee=("X-RTP-Stat: PS=98;OS=15680;PR=0;OR=0;PL=0;JI=0;LA=0",),
    )
    first, second = made.rows()
    call = made.row_of_call()
    assert {row["call"] for row in (first, second)} == {call["id"]}
    assert (first["side"], first["party"], first["source"]) == ("caller", call["caller"], "bye")
    assert (first["packets_lost"], first["jitter_ms"], first["round_trip_ms"]) == (2, 4.0, 60.0)
    assert (first["stream"], first["kind"], first["format"]) == (1, "summary", "p-rtp-stat")
    assert (second["side"], second["party"], second["source"]) == ("callee", call["callee"], "bye_response")
    # Nothing came, so nothing is known of its loss.
    assert (second["packets_received"], second["packets_lost"], second["jitter_ms"]) == (0, None, None)
    (view,) = made.server.rows("SELECT * FROM v_quality WHERE side = 'caller'")
    assert view["loss_percent"] == 2.0


def test_call_and_activity_on_the_command_line(made: Call) -> None:
    made.end(made.begin())
    made.alice.register()
    made.report(made.alice, REPORT.format(call_id=made.call_id))
    made.alice.expect(200)
    call = made.row_of_call()
    shown = json.loads(sipserver("calls", "show", call["id"], "--json", "--data-dir", made.server.data_dir))
    assert [row["direction"] for row in shown["quality"]] == ["local", "remote"]
    assert "\nquality\n" in sipserver("calls", "show", call["id"], "--data-dir", made.server.data_dir)
    made.server.stop()
    (alice,) = json.loads(
        sipserver("subscribers", "show", f"alice@{DOMAIN}", "--json", "--data-dir", made.server.data_dir)
    )
    activity = alice["activity"]
    counted = {name: activity[name] for name in ("sign_ins", "refreshes", "calls_begun", "calls_ended", "devices")}
    assert counted == {"sign_ins": 1, "refreshes": 1, "calls_begun": 1, "calls_ended": 1, "devices": 1}
    assert activity["bytes"] > 1_000
    assert len(alice["devices"]) == 1
    table = sipserver("activity", "list", "--data-dir", made.server.data_dir)
    assert f"alice@{DOMAIN}" in table
    assert f"alice@{DOMAIN}" not in sipserver("activity", "list", "--no-names", "--data-dir", made.server.data_dir)


def test_refreshes_are_counted_and_make_no_row_each(made: Call) -> None:
    made.bob.register("User-Agent: Set 1.0", f"Contact: <{made.bob.contact}>", "Allow: INVITE, ACK")
    for _ in range(5):
        made.bob.register("User-Agent: Set 1.0", f"Contact: <{made.bob.contact}>", "Allow: INVITE, ACK")
    party = made.server.party("bob")
    (row,) = made.server.wait_for_rows(f"SELECT * FROM sign_in_days WHERE party = '{party}'", bool)
    assert row["refreshes"] == 5
    assert row["day"] == row["first_at"][:10]
    assert len(made.server.rows("SELECT * FROM sign_ins WHERE party = ?", party)) == 1
    (device,) = made.server.rows("SELECT * FROM devices")
    assert (device["agent"], device["allow"], device["named"]) == ("Set 1.0", "ACK, INVITE", 0)
    made.server.stop()


@pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not())
def test_statistics_of_real_endpoints_are_on_record(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("alice", "bob")
    with (
        Baresip(tmp_path, "bob", server.port, statistics=True),
        Baresip(tmp_path, "alice", server.port, statistics=True) as alice,
    ):
        alice.dial(f"sip:bob@{DOMAIN}")
        alice.wait("CALL_ESTABLISHED")
        # It tells of them once a sender report has come with packets in it, after five seconds (RFC 3550 §6.2).
        time.sleep(7)
        alice.hang_up()
        (call,) = server.ended_calls()
    reports = server.rows("SELECT * FROM quality_reports WHERE direction = 'local' ORDER BY rowid")
    assert {(row["call"], row["format"], row["kind"]) for row in reports} == {(call["id"], "x-rtp-stat", "summary")}
    first = reports[0]
    assert (first["side"], first["source"], first["party"]) == ("caller", "bye", server.party("alice"))
    # Audio is the first stream; twenty milliseconds a packet.
    assert (first["media_kind"], first["stream"], first["packets_lost"]) == ("audio", 0, 0)
    assert 100 < first["packets_received"] < 2_000
    assert first["jitter_ms"] is not None
    assert abs(first["duration_ms"] - call["talk_ms"]) < 2_000
