"""The collector with real stores: nothing is acknowledged that is not on disk, and nobody is believed unproved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.server import quality
from sipserver.sip.message import Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]

COLLECTOR = f"sip:quality@{DOMAIN}"
EVENT = "Event: vq-rtcpxr"
TYPE = "Content-Type: application/vq-rtcpxr"
BODY = b"VQSessionReport: CallTerm\r\nCallID: c1\r\nLocalMetrics:\r\nPacketLoss:NLR=1.5\r\nDelay:IAJ=%d\r\n"
COUNT = "SELECT count(*) AS n FROM quality_reports"


def publish(device: Device, *lines: str, method: str = "PUBLISH", uri: str = COLLECTOR, **options: Any) -> bytes:
    """A report with credentials, not yet sent."""
    return device.signed(method, uri, *(lines or (EVENT, TYPE)), **{"body": BODY % 1, **options})


def count(server: Server) -> int:
    """Rows on disk."""
    return int(server.rows(COUNT)[0]["n"])


def test_200_is_not_sent_before_the_commit(server: Server) -> None:
    alice = Device(server, "alice")
    alice.send(publish(alice))
    assert alice.received() == []
    server.settle()
    (answer,) = alice.received()
    assert isinstance(answer, Response)
    assert answer.status == 200
    assert answer.header("sip-etag")
    assert answer.header("expires") == "3600"
    assert count(server) == 1
    assert [line["address"] for line in server.log("quality.reported")] == [f"alice@{DOMAIN}"]
    assert server.service.proxying.collector.accepted == 1


def test_retransmission_is_one_report(server: Server) -> None:
    alice = Device(server, "alice")
    data = publish(alice)
    alice.send(data)
    alice.send(data)
    server.settle()
    alice.send(data)
    assert statuses(alice.received()) == [200, 200]
    assert count(server) == 1


@pytest.mark.parametrize("uri", [f"sip:{DOMAIN}", f"sip:bob@{DOMAIN}", "sip:192.0.2.1", "sip:quality@192.0.2.1:5060"])
@pytest.mark.parametrize("method", ["PUBLISH", "NOTIFY"])
def test_whatever_address_of_ours_it_names(server: Server, method: str, uri: str) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(publish(alice, method=method, uri=uri))
    assert answer.status == 200
    assert answer.has("sip-etag") == (method == "PUBLISH")
    assert server.rows("SELECT source FROM quality_reports") == [{"source": method.lower()}]


def test_event_with_parameters_and_compact_form(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(publish(alice, "o: VQ-RTCPXR ;id=7", "c: Application/VQ-RTCPXR;charset=utf-8")).status == 200
    assert count(server) == 1


def test_late_commit_is_503_and_no_second_answer_follows(server: Server) -> None:
    alice = Device(server, "alice")
    alice.send(publish(alice))
    server.advance(quality.PATIENCE + 0.1)
    (answer,) = alice.received()
    assert isinstance(answer, Response)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    server.settle()
    assert alice.received() == []
    # It was written after all; sent again it counts once.
    assert alice.ask(publish(alice)).status == 200
    assert count(server) == 1


def test_failing_store_is_503_and_nothing_is_kept(server: Server) -> None:
    alice = Device(server, "alice")
    data = publish(alice)
    server.service.calls_writer.failing = True
    answer = alice.ask(data)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    server.service.calls_writer.failing = False
    assert count(server) == 0


def test_full_queue_is_503(server: Server) -> None:
    alice = Device(server, "alice")
    data = publish(alice)
    writer = server.service.calls_writer
    room, writer._room = writer._room, 0
    assert alice.ask(data).status == 503
    writer._room = room
    assert count(server) == 0


def test_more_than_so_many_a_minute_are_503(server: Server) -> None:
    alice, bob = Device(server, "alice"), Device(server, "bob", port=5080)
    answers = [alice.ask(publish(alice, body=BODY % number)).status for number in range(quality.PER_MINUTE + 1)]
    assert answers == [200] * quality.PER_MINUTE + [503]
    assert bob.ask(publish(bob)).status == 200
    server.advance(61)
    assert alice.ask(publish(alice, body=BODY % 1_000)).status == 200


def test_refresh_and_removal_of_what_was_published_change_nothing(server: Server) -> None:
    alice = Device(server, "alice")
    for expires in ("0", "99999999"):
        answer = alice.ask(publish(alice, EVENT, "SIP-If-Match: abc", f"Expires: {expires}", body=b""))
        assert answer.status == 200
        assert answer.header("expires") == str(min(int(expires), quality.MAX_EXPIRES))
    assert count(server) == 0


def test_parts_of_a_multipart_body(server: Server) -> None:
    alice = Device(server, "alice")
    part = b"--x\r\nContent-Type: application/vq-rtcpxr\r\n\r\n"
    body = b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n" + part + BODY % 1 + part + BODY % 2 + b"--x--\r\n"
    kind = "Content-Type: multipart/mixed;boundary=x"
    assert alice.ask(publish(alice, EVENT, kind, body=body)).status == 200
    rows = server.rows("SELECT jitter_ms FROM quality_reports ORDER BY rowid")
    assert [row["jitter_ms"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((EVENT, TYPE), b"VQSessionReport: CallTerm\r\n", 400),
        ((EVENT, TYPE), b"", 400),
        ((EVENT, TYPE), b"V" * 20_000, 413),
        ((EVENT, TYPE, "Expires: soon"), BODY % 1, 400),
        ((EVENT, "Content-Type: text/plain"), BODY % 1, 415),
        ((EVENT,), BODY % 1, 415),
        ((EVENT, TYPE, "Content-Encoding: gzip"), BODY % 1, 415),
        ((EVENT, "Content-Type: multipart/mixed;boundary=x"), BODY % 1, 415),
        (("Event: presence",), b"", 489),
        (("Subject: none",), b"", 489),
    ],
)
def test_what_is_no_report_is_refused_and_noted(
    server: Server, lines: tuple[str, ...], body: bytes, status: int
) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(publish(alice, *lines, body=body, uri=f"sip:{DOMAIN}"))
    assert answer.status == status
    if status == 415:
        assert answer.header("accept") == "application/vq-rtcpxr"
    if status == 489:
        assert answer.header("allow-events") == "vq-rtcpxr"
    (row,) = server.rows("SELECT kind, method, status FROM errors")
    assert row == {"kind": "refused" if status == 489 else "quality", "method": "PUBLISH", "status": status}
    assert count(server) == 0


def test_notify_of_another_event_is_405(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(publish(alice, "Event: message-summary", method="NOTIFY", uri=f"sip:{DOMAIN}"))
    assert answer.status == 405


def test_wrong_password_and_foreign_sender(server: Server) -> None:
    alice = Device(server, "alice")
    unsigned = alice.write("PUBLISH", COLLECTOR, EVENT, TYPE, body=BODY % 1)
    assert alice.ask(unsigned).status == 407
    stranger = alice.write("PUBLISH", COLLECTOR, EVENT, TYPE, from_="<sip:m@example.org>;tag=1", body=BODY % 1)
    assert alice.ask(stranger).status == 403
    other = alice.signed("PUBLISH", COLLECTOR, EVENT, TYPE, from_=f"<sip:bob@{DOMAIN}>;tag=1", body=BODY % 1)
    assert alice.ask(other).status == 403
    assert count(server) == 0


def test_strangers_report_nothing_even_where_they_may_call(make_server: MakeServer) -> None:
    server = make_server("alice", config='[proxy]\ninbound = "anyone"\n')
    alice = Device(server, "alice")
    stranger = alice.write("PUBLISH", COLLECTOR, EVENT, TYPE, from_="<sip:m@example.org>;tag=1", body=BODY % 1)
    assert alice.ask(stranger).status == 403
    assert count(server) == 0


def test_refreshes_are_written_at_the_tick_and_devices_at_once(server: Server) -> None:
    alice = Device(server, "alice")
    for number in range(4):
        alice.register(call_id="r", cseq=10 + number)
    assert server.rows("SELECT * FROM sign_in_days") == []
    for _ in range(5):
        server.service.tick()
    (row,) = server.rows("SELECT refreshes FROM sign_in_days")
    assert row == {"refreshes": 3}
    assert len(server.rows("SELECT * FROM sign_ins")) == 1
    assert len(server.rows("SELECT * FROM devices")) == 1
    assert server.service.activity.refreshes == 3
