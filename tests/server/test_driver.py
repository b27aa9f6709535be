"""Every message passes through the driver: what it answers itself, and what it survives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.sip.errors import MalformedMessage
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.transaction.keys import Key
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN
from support.sip import response, written

MakeServer = Callable[..., Server]


def answer_to(server: Server, data: bytes, flow: Flow | None = None) -> Response | None:
    """The one response to these bytes, or None."""
    flow = flow or server.transports.udp_flow("192.0.2.7", 5060)
    server.receive(data, flow)
    found = server.sent_to(flow)
    assert len(found) <= 1
    assert server.transports.sent == []
    answer = found[0] if found else None
    assert answer is None or isinstance(answer, Response)
    return answer


def test_stateless_challenge_leaves_nothing_behind(server: Server) -> None:
    alice = Device(server, "alice")
    for method, status in (("REGISTER", 401), ("INVITE", 407), ("MESSAGE", 407), ("NEWMETHOD", 407)):
        answer = alice.ask(alice.write(method, f"sip:{DOMAIN}" if method == "REGISTER" else f"sip:bob@{DOMAIN}"))
        assert answer.status == status
    service = server.service
    assert (service.transactions.servers, len(service.timers)) == (0, 0)
    assert server.rows("SELECT * FROM calls") == server.rows("SELECT * FROM errors") == []


@pytest.mark.parametrize(("written", "as_one_may"), [("", ""), (";tag=", "; Tag = "), (">;", ">;x;")])
def test_ack_of_a_stateless_407_is_dropped(server: Server, written: str, as_one_may: str) -> None:
    alice = Device(server, "alice")
    uri = f"sip:bob@{DOMAIN}"
    challenge = alice.ask(alice.write("INVITE", uri, branch="z9hG4bKx", cseq=1))
    to = (challenge.header("to") or "").replace(written, as_one_may)
    alice.send(alice.write("ACK", uri, to=to, branch="z9hG4bKx", cseq=1))
    assert (alice.received(), server.driver.requests, server.driver.stray) == ([], 2, 1)
    assert server.rows("SELECT * FROM errors") == []


def test_datagram_without_transaction_that_was_not_sent_is_lost(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(alice.write("INVITE", f"sip:bob@{DOMAIN}"))
    for lost in (answer.to_bytes(), alice.write("ACK", f"sip:bob@{DOMAIN}"), b"\r\n\r\n"):
        server.driver.on_unsent(lost, alice.flow)
    assert (alice.received(), server.driver.faults) == ([], 0)


def test_stateless_answer_has_the_same_tag_for_each_retransmission(server: Server) -> None:
    alice = Device(server, "alice")
    data = alice.write("INVITE", f"sip:bob@{DOMAIN}")
    assert alice.ask(data).to_tag == alice.ask(data).to_tag
    assert alice.ask(alice.write("INVITE", f"sip:bob@{DOMAIN}")).to_tag != alice.ask(data).to_tag


def test_ack_that_belongs_to_nothing_is_dropped(server: Server) -> None:
    alice = Device(server, "alice")
    for to in (f"<sip:bob@{DOMAIN}>", f"<sip:bob@{DOMAIN}>;tag=x"):
        alice.send(alice.write("ACK", f"sip:bob@{DOMAIN}", to=to))
        alice.send(alice.write("ACK", f"sip:bob@{DOMAIN}", "Route: <sip:192.0.2.1;lr;vc=forged>", to=to))
    assert (server.transports.sent, server.driver.stray) == ([], 4)


def test_response_that_belongs_to_nothing_is_dropped(server: Server) -> None:
    answer = response(written("SIP/2.0 200 OK", Via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx"))
    assert answer_to(server, answer.to_bytes()) is None
    assert (server.driver.responses, server.driver.stray) == (1, 1)


def test_malformed_response_is_dropped_and_counted(server: Server) -> None:
    assert answer_to(server, b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1\r\n\r\n") is None
    assert answer_to(server, b"SIP/2.0 OK\r\n\r\n") is None
    assert server.driver.malformed == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE"), 400),
        ((b"SIP/2.0\r\nVia", b"SIP/3.0\r\nVia"), 505),
        ((b"sip:example.test SIP", b"sip:" + b"x" * 2000 + b" SIP"), 414),
        ((b"sip:example.test SIP", b"http://example.test SIP"), 416),
        ((b"Max-Forwards: 70", b"Max-Forwards: seventy"), 400),
        ((b"Max-Forwards: 70", b"Max-Forwards: 0"), 200),
        ((b"Max-Forwards: 70", b"Proxy-Require: magic"), 420),
        ((b"\r\n\r\n", b"\r\n\r\n" + b"x" * 70_000), 513),
        ((b"Content-Length: 0", b"Content-Length: 9"), 400),
    ],
)
def test_request_that_cannot_be_served_is_told_why(server: Server, change: tuple[bytes, bytes], status: int) -> None:
    alice = Device(server, "alice")
    answer = answer_to(server, alice.write("OPTIONS", cseq=1).replace(*change), alice.flow)
    assert answer is not None
    assert answer.status == status
    assert answer.top_via.received == "192.0.2.7"


def test_malformed_ack_gets_no_answer(server: Server) -> None:
    alice = Device(server, "alice")
    assert answer_to(server, alice.write("ACK").replace(b"Call-ID: call\r\n", b""), alice.flow) is None
    (row,) = server.rows("SELECT kind, method, status FROM errors")
    assert row["kind"] == "malformed"


def test_answer_goes_to_the_port_that_the_via_names_but_to_no_other_host(server: Server) -> None:
    alice = Device(server, "alice", "192.0.2.7", 40_000)
    data = alice.write("OPTIONS").replace(b"192.0.2.7:40000", b"198.51.100.9:5099").replace(b";rport", b"")
    server.receive(data, alice.flow)
    ((flow, _),) = server.transports.sent
    assert (flow.host, flow.port) == ("192.0.2.7", 5099)


def test_answer_over_tcp_goes_over_its_connection(server: Server) -> None:
    alice = Device(server, "alice", tcp=True)
    data = alice.write("OPTIONS", "sip:bob@example.test").replace(b"192.0.2.7:5070", b"198.51.100.9:5099")
    answer = answer_to(server, data, alice.flow)
    assert answer is not None
    assert answer.status == 407


def test_stream_that_cannot_go_on_is_told_why(server: Server) -> None:
    alice = Device(server, "alice", tcp=True)
    request = parse(alice.write("OPTIONS"))
    server.driver.on_malformed(MalformedMessage(400, "Bad Content-Length", request), alice.flow)
    server.driver.on_malformed(MalformedMessage(400, "Bad Content-Length", None), alice.flow)
    assert statuses(alice.received()) == [400]


def test_options_for_the_server_is_answered(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(alice.write("OPTIONS"))
    assert answer.status == 200
    # Whoever asks may be anybody: nothing is kept of it.
    assert server.service.transactions.servers == 0
    assert answer.header("allow") == "NOTIFY, OPTIONS, PUBLISH, REGISTER"
    assert answer.header("server") == "sipserver"


def test_server_that_stops_takes_no_new_requests(server: Server) -> None:
    alice = Device(server, "alice")
    server.driver.stopping = True
    answer = alice.ask(alice.write("REGISTER"))
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert server.driver.overloaded == 1


def test_request_beyond_the_bound_is_answered_503(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config="[limits]\ntransactions = 2\n")
    alice = Device(server, "alice")
    assert alice.register().status == 200
    assert alice.register(cseq=90).status == 200
    assert server.service.transactions.servers == 2
    answer = alice.ask(alice.write("OPTIONS"))
    assert (answer.status, answer.reason, answer.header("retry-after")) == (503, "Too Many Transactions", "5")
    assert server.service.transactions.servers == 2
    server.advance(40)
    assert alice.ask(alice.write("OPTIONS", "sip:bob@example.test")).status == 407


class Broken:
    """Stands in for the registrar's side, with a fault of our own."""

    def __init__(self, server: Server, *, serve: bool = False) -> None:
        self._server = server
        self._serve = serve

    def on_request(self, request: Request, flow: Flow, key: Key) -> None:
        if self._serve:
            self._server.service.transactions.serve(key, request, flow)
        raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize("serve", [False, True])
def test_fault_of_our_own_is_answered_500_and_logged_and_stops_nothing(make_server: MakeServer, serve: bool) -> None:
    server = make_server("alice", faults=1)
    broken: Any = Broken(server, serve=serve)
    works, server.driver._registrations = server.driver._registrations, broken
    alice = Device(server, "alice")
    answer = alice.ask(alice.write("REGISTER"))
    assert (answer.status, answer.reason) == (500, "Server Internal Error")
    assert server.driver.faults == 1
    (line,) = server.log("internal.fault")
    assert (line["level"], line["fault"]) == ("error", "ZeroDivisionError")
    assert line["trace"].endswith("ZeroDivisionError: a fault of ours\n")
    server.driver._registrations = works
    assert alice.ask(alice.write("REGISTER")).status == 401


def test_fault_on_a_response_ack_lost_datagram_or_closed_connection_gets_no_answer(make_server: MakeServer) -> None:
    server = make_server("alice", faults=5)
    alice = Device(server, "alice", tcp=True)
    broken: Any = None
    server.driver._transactions = broken
    alice.send(alice.write("ACK"))
    server.driver.on_unsent(alice.write("ACK"), alice.flow)
    alice.send(response(written("SIP/2.0 200 OK")).to_bytes())
    server.driver.on_closed(alice.flow)
    # The request's fault strikes again while it is answered, which is one more.
    assert server.driver.faults == 4
    forgetful: Any = ForgetfulContext(server)
    server.driver._context = forgetful
    server.driver.on_malformed(MalformedMessage(400, "Bad", None), alice.flow)
    assert alice.received() == []


def test_fault_that_strikes_again_while_it_is_answered_is_one_more(make_server: MakeServer) -> None:
    server = make_server("alice", faults=2)
    alice = Device(server, "alice")
    broken: Any = None
    server.driver._transactions = broken
    alice.send(alice.write("OPTIONS"))
    assert alice.received() == []
    assert len(server.log("internal.fault")) == 2


def test_fault_over_a_message_that_cannot_be_read_gets_no_answer(make_server: MakeServer) -> None:
    server = make_server("alice", faults=1)
    alice = Device(server, "alice")
    forgetful: Any = ForgetfulContext(server)
    server.driver._context = forgetful
    alice.send(b"OPTIONS sip:x SIP/3.0\r\nVia: SIP/2.0/UDP h\r\n\r\n")
    assert alice.received() == []


class ForgetfulContext:
    """A context that can only log."""

    def __init__(self, server: Server) -> None:
        self.log = server.service.log


def test_callback_of_the_loop_that_fails_is_logged(make_server: MakeServer) -> None:
    server = make_server("alice", faults=2)
    loop: Any = server.loop
    server.service.on_loop_fault(loop, {"message": "x", "exception": ValueError("from a timer")})
    server.service.on_loop_fault(loop, {"message": "without exception"})
    traces = [line["trace"] for line in server.log("internal.fault")]
    assert "ValueError: from a timer" in traces[0]
    assert "without exception" in traces[1]


def test_tick_that_fails_does_not_stop_time(make_server: MakeServer) -> None:
    server = make_server("alice", faults=1)
    broken: Any = None
    works, server.service.registrations = server.service.registrations, broken
    server.service.tick()
    server.service.registrations = works
    server.service.tick()
    assert len(server.log("internal.fault")) == 1


def test_flood_of_refusals_makes_a_bounded_number_of_log_lines_and_rows(server: Server) -> None:
    flow = server.transports.udp_flow("192.0.2.66", 5060)
    for _ in range(300):
        server.driver.on_message(b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n", flow)
    server.driver.on_batch_end()
    assert len(server.log("message.rejected")) == 50
    assert server.service.context.log_suppressed == 250
    assert len(server.rows("SELECT * FROM errors")) == 1
    server.advance(1)
    server.driver.on_message(b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n", flow)
    assert server.log("message.rejected")[-1]["suppressed"] == 250
