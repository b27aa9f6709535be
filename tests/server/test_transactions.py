"""Effects of transaction machines meet sockets and timers."""

from __future__ import annotations

import pytest

from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import TransactionLayer
from sipserver.sip.build import OutgoingRequest, reply
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.timers import Timers
from sipserver.sip.transaction.keys import server_key
from support.inprocess import ManualLoop
from support.sip import request, written

UDP = Flow("UDP", "192.0.2.7", 5060, "192.0.2.1:5060", False)
TCP = Flow("TCP", "192.0.2.8", 5060, "192.0.2.1:5060", True, connection=7)


class Sender:
    """Remembers what was sent, and can be cut off."""

    def __init__(self) -> None:
        self.sent: list[tuple[Flow, bytes]] = []
        self.works = True

    def send(self, flow: Flow, data: bytes) -> bool:
        if self.works:
            self.sent.append((flow, data))
        return self.works


class User:
    """Hears of everything."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def on_response(self, branch: int, response: Response) -> None:
        self.heard.append(("response", (branch, response.status)))

    def on_failed(self, branch: int, cause: str) -> None:
        self.heard.append(("failed", (branch, cause)))

    def on_server_failed(self, cause: str) -> None:
        self.heard.append(("server_failed", cause))

    def on_server_cancel(self, cancel: Request) -> None:
        self.heard.append(("cancel", cancel.method))


class Bench:
    """A layer with everything around it."""

    def __init__(self) -> None:
        self.loop, self.sender, self.user = ManualLoop(), Sender(), User()
        self.layer = TransactionLayer(self.sender, TimerQueue(self.loop.time, self.loop.call_at), Timers(), 2)

    @property
    def sent(self) -> list[bytes]:
        return [data for _, data in self.sender.sent]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def incoming(method: str = "INVITE", branch: str = "z9hG4bK1", **changed: str) -> Request:
    via = f"SIP/2.0/UDP 192.0.2.7;branch={branch}"
    return request(written(f"{method} sip:bob@example.test SIP/2.0", CSeq=f"1 {method}", Via=via, **changed))


def outgoing(method: str = "INVITE", branch: str = "z9hG4bKours") -> OutgoingRequest:
    lines = [
        f"Via: SIP/2.0/UDP 192.0.2.1;branch={branch}", "From: <sip:a@example.test>;tag=1", "To: <sip:b@example.test>",
        "Call-ID: x", f"CSeq: 1 {method}", "Max-Forwards: 70",
    ]  # fmt: skip
    return OutgoingRequest(method, "sip:b@192.0.2.8", lines, b"", branch)


def answer(sent: OutgoingRequest, status: int) -> Response:
    made = parse(sent.data)
    assert isinstance(made, Request)
    response = parse(reply(made, status, to_tag="t"))
    assert isinstance(response, Response)
    return response


def test_repeated_request_is_answered_from_its_transaction(bench: Bench) -> None:
    bye = incoming("BYE")
    transaction = bench.layer.serve(server_key(bye), bye, UDP)
    transaction.respond(200, b"ok")
    again = bench.layer.find_server(server_key(incoming("BYE")))
    assert again is transaction
    bench.layer.receive_again(again, incoming("BYE"))
    assert bench.sent == [b"ok", b"ok"]
    bench.loop.advance(32)
    assert bench.layer.servers == 0


def test_refusal_of_an_invite_is_repeated_until_its_ack(bench: Bench) -> None:
    invite = incoming()
    transaction = bench.layer.serve(server_key(invite), invite, UDP)
    transaction.respond(486, b"busy")
    bench.loop.advance(1.5)
    assert len(bench.sent) == 3
    ack = incoming("ACK", To="<sip:bob@example.test>;tag=t")
    found = bench.layer.find_server(server_key(ack))
    assert found is transaction
    bench.layer.receive_again(found, ack)
    bench.loop.advance(40)
    assert (len(bench.sent), bench.layer.servers) == (3, 0)


def test_refusal_that_is_never_acknowledged_is_reported(bench: Bench) -> None:
    invite = incoming()
    transaction = bench.layer.serve(server_key(invite), invite, UDP)
    transaction.user = bench.user
    transaction.respond(486, b"busy")
    bench.loop.advance(32)
    assert bench.user.heard == [("server_failed", TIMED_OUT)]
    assert bench.layer.servers == 0


def test_answer_that_cannot_be_sent_is_reported(bench: Bench) -> None:
    invite = incoming()
    transaction = bench.layer.serve(server_key(invite), invite, TCP)
    transaction.user = bench.user
    bench.sender.works = False
    transaction.respond(200, b"ok")
    assert bench.user.heard == [("server_failed", UNREACHABLE)]
    bench.loop.advance(32)
    assert bench.layer.servers == 0


def test_ack_of_a_2xx_with_the_branch_of_its_invite_goes_on(bench: Bench) -> None:
    acks: list[Request] = []
    bench.layer.on_ack = lambda ack, flow: acks.append(ack)
    invite = incoming()
    bench.layer.serve(server_key(invite), invite, UDP).respond(200, b"ok")
    ack = incoming("ACK", To="<sip:bob@example.test>;tag=t")
    found = bench.layer.find_server(server_key(ack))
    assert found is not None
    bench.layer.receive_again(found, ack)
    assert acks == [ack]


def test_request_is_repeated_until_it_is_answered(bench: Bench) -> None:
    invite = outgoing()
    bench.layer.request(invite, UDP, bench.user, 3)
    bench.loop.advance(1.6)
    assert bench.sent == [invite.data] * 3
    assert bench.layer.receive_response(answer(invite, 180))
    assert bench.layer.receive_response(answer(invite, 486))
    assert bench.user.heard == [("response", (3, 180)), ("response", (3, 486))]
    assert bench.sent[-1].startswith(b"ACK sip:b@192.0.2.8 SIP/2.0\r\n")
    bench.loop.advance(32)
    assert bench.layer.clients == 0


def test_response_to_nothing_is_not_taken(bench: Bench) -> None:
    assert not bench.layer.receive_response(answer(outgoing(), 200))
    bench.layer.request(outgoing(), UDP, bench.user)
    assert not bench.layer.receive_response(answer(outgoing("BYE"), 200))
    assert bench.user.heard == []


def test_request_without_answer_times_out(bench: Bench) -> None:
    bench.layer.request(outgoing("BYE"), UDP, bench.user, 1)
    bench.loop.advance(32)
    assert bench.user.heard == [("failed", (1, TIMED_OUT))]
    assert bench.layer.clients == 0


def test_request_that_cannot_be_sent_fails_at_once(bench: Bench) -> None:
    bench.sender.works = False
    bench.layer.request(outgoing(), TCP, bench.user, 1)
    assert bench.user.heard == [("failed", (1, UNREACHABLE))]
    assert bench.layer.clients == 0
    assert bench.layer._over_connection == {}


def test_request_that_turns_out_not_to_be_sent_fails(bench: Bench) -> None:
    invite = outgoing()
    bench.layer.request(invite, UDP, bench.user, 1)
    bench.layer.undelivered(parse(invite.data))
    assert bench.user.heard == [("failed", (1, UNREACHABLE))]
    assert bench.layer.clients == 0
    bench.layer.undelivered(parse(invite.data))
    assert len(bench.user.heard) == 1


def test_ack_that_turns_out_not_to_be_sent_ends_its_invite(bench: Bench) -> None:
    invite = outgoing()
    bench.layer.request(invite, UDP, bench.user, 1)
    bench.layer.receive_response(answer(invite, 486))
    bench.layer.undelivered(parse(bench.sent[-1]))
    assert bench.user.heard == [("response", (1, 486)), ("failed", (1, UNREACHABLE))]
    assert bench.layer.clients == 0


def test_answer_that_turns_out_not_to_be_sent_is_reported(bench: Bench) -> None:
    invite = incoming()
    transaction = bench.layer.serve(server_key(invite), invite, UDP)
    transaction.user = bench.user
    transaction.respond(486, reply(invite, 486, to_tag="t"))
    bench.layer.undelivered(parse(reply(incoming(branch="z9hG4bK2"), 486, to_tag="t")))
    assert bench.user.heard == []
    bench.layer.undelivered(parse(bench.sent[-1]))
    assert bench.user.heard == [("server_failed", UNREACHABLE)]


def test_lost_connection_fails_what_waits_for_it_and_nothing_else(bench: Bench) -> None:
    other = Flow("TCP", "192.0.2.9", 5060, "192.0.2.1:5060", True, connection=8)
    bench.layer.request(outgoing(branch="z9hG4bKa"), TCP, bench.user, 1)
    bench.layer.request(outgoing("BYE", "z9hG4bKb"), TCP, bench.user, 2)
    bench.layer.request(outgoing(branch="z9hG4bKc"), other, bench.user, 3)
    bench.layer.flow_lost(TCP)
    assert sorted(bench.user.heard) == [("failed", (1, UNREACHABLE)), ("failed", (2, UNREACHABLE))]
    assert bench.layer.clients == 1
    bench.layer.flow_lost(TCP)
    assert len(bench.user.heard) == 2


def test_finished_requests_over_a_connection_are_forgotten(bench: Bench) -> None:
    one, two = outgoing("BYE", "z9hG4bKa"), outgoing("BYE", "z9hG4bKb")
    bench.layer.request(one, TCP, bench.user, 1)
    bench.layer.request(two, TCP, bench.user, 2)
    bench.layer.receive_response(answer(one, 200))
    bench.layer.receive_response(answer(two, 200))
    assert bench.layer.clients == 0
    assert bench.layer._over_connection == {}


def test_cancelled_invite_is_not_waited_for_beyond_64_t1(bench: Bench) -> None:
    invite, cancel = outgoing(), outgoing("CANCEL")
    bench.layer.request(invite, UDP, bench.user, 1)
    bench.layer.receive_response(answer(invite, 180))
    bench.layer.request(cancel, UDP, None)
    bench.layer.receive_response(answer(cancel, 200))
    bench.loop.advance(32)
    assert bench.user.heard[-1] == ("failed", (1, TIMED_OUT))
    bench.loop.advance(32)
    assert bench.layer.clients == 0


def test_user_that_is_nobody_hears_nothing(bench: Bench) -> None:
    bench.layer.request(outgoing("CANCEL"), UDP, None)
    bench.loop.advance(32)
    assert bench.layer.clients == 0


def test_layer_is_full_at_its_bound(bench: Bench) -> None:
    for branch in ("z9hG4bK1", "z9hG4bK2"):
        assert not bench.layer.full
        invite = incoming(branch=branch)
        bench.layer.serve(server_key(invite), invite, UDP)
    assert bench.layer.full
