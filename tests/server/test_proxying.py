"""Calls through the whole server: what is forwarded, what is recorded, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.inprocess import Device, Server, disable, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]

CALLS = "SELECT * FROM calls ORDER BY started_at"
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"


class Pair:
    """Alice, and bob who is registered."""

    def __init__(self, server: Server, *, tcp: bool = False) -> None:
        self.server = server
        self.alice = Device(server, "alice", tcp=tcp)
        self.bob = Device(server, "bob", "192.0.2.8", tcp=tcp)
        assert self.bob.register().status == 200

    def ring(self, *lines: str, **options: Any) -> Request:
        """Alice calls; what arrives at bob's device."""
        self.alice.send(self.alice.invite("bob", *lines, **options))
        (invite,) = self.bob.requests("INVITE")
        return invite

    def talk(self) -> Response:
        """A call that is up; the 200 as alice got it."""
        self.bob.send(self.bob.answer(self.ring(), 200))
        self.server.settle()
        answer = self.alice.received()[-1]
        assert isinstance(answer, Response)
        assert answer.status == 200
        self.alice.send(self.alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        assert len(self.bob.requests("ACK")) == 1
        return answer


@pytest.fixture
def pair(server: Server) -> Pair:
    return Pair(server)


def only(server: Server, query: str = CALLS) -> dict[str, Any]:
    """The only row."""
    (row,) = server.rows(query)
    return row


def test_answer_of_a_call_is_not_passed_on_before_the_commit(pair: Pair) -> None:
    server, invite = pair.server, pair.ring()
    assert statuses(pair.alice.received()) == [100]
    pair.bob.send(pair.bob.answer(invite, 180))
    assert statuses(pair.alice.received()) == [180]
    pair.bob.send(pair.bob.answer(invite, 200))
    assert statuses(pair.alice.received()) == []
    server.settle()
    assert statuses(pair.alice.received()) == [200]
    assert only(server)["answered_at"] is not None
    assert server.service.gate.released_late == 0


def test_answer_of_a_call_is_passed_on_after_200_ms_when_the_store_hangs(pair: Pair) -> None:
    pair.bob.send(pair.bob.answer(pair.ring(), 200))
    pair.alice.received()
    pair.server.advance(0.19)
    assert statuses(pair.alice.received()) == []
    pair.server.advance(0.01)
    assert statuses(pair.alice.received()) == [200]
    assert pair.server.service.gate.released_late == 1
    assert only(pair.server)["ended_at"] is None


def test_answer_of_a_bye_is_not_passed_on_before_the_commit(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, cseq=9))
    (bye,) = pair.bob.requests("BYE")
    pair.server.advance(1)
    pair.bob.send(pair.bob.answer(bye, 200))
    assert statuses(pair.alice.received()) == []
    pair.server.settle()
    assert statuses(pair.alice.received()) == [200]
    row = only(pair.server)
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "caller", "bye")
    assert 1000 <= row["talk_ms"] < 1100
    assert row["disconnect_ms"] == 1000


def test_reason_of_an_accepted_bye_is_on_record(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, 'Reason: Q.850;cause=16;text="Done talking"', cseq=9))
    (bye,) = pair.bob.requests("BYE")
    pair.bob.send(pair.bob.answer(bye, 200))
    assert only(pair.server)["reason"] == "Done talking"


def test_reason_of_a_bye_that_nobody_knows_any_more_is_on_record(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, 'Reason: SIP;cause=480;text="Gone"', cseq=9))
    (bye,) = pair.bob.requests("BYE")
    pair.bob.send(pair.bob.answer(bye, 481))
    assert statuses(pair.alice.received()) == []
    row = only(pair.server)
    assert statuses(pair.alice.received()) == [481]
    assert (row["ended_at"] is not None, row["reason"]) == (True, "Gone")
    assert row["disconnect_ms"] == 0


def test_bye_that_nobody_answers_says_how_long_it_was_waited_for(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, cseq=9))
    for _ in range(40):
        pair.server.advance(1)
    row = only(pair.server)
    assert row["disconnect_ms"] == row["end_uncertainty_ms"] == 32_000


def test_refused_bye_ends_nothing(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, cseq=9))
    (bye,) = pair.bob.requests("BYE")
    pair.bob.send(pair.bob.answer(bye, 403))
    assert statuses(pair.alice.received()) == [403]
    assert only(pair.server)["ended_at"] is None


def test_bye_of_the_callee_is_its_own(pair: Pair) -> None:
    answer = pair.talk()
    routes = [f"Route: {value}" for value in answer.values("record-route")]
    to = f"<sip:alice@{DOMAIN}>;tag=falice"
    from_ = answer.header("to") or ""
    pair.bob.send(pair.bob.write("BYE", pair.alice.contact, *routes, from_=from_, to=to, call_id=answer.call_id))
    (bye,) = pair.alice.requests("BYE")
    pair.alice.send(pair.alice.answer(bye, 200))
    assert only(pair.server)["ended_by"] == "callee"
    assert statuses(pair.bob.received()) == [200]


def test_call_passes_header_lines_and_body_as_they_are(pair: Pair) -> None:
    invite = pair.ring("X-Odd:  spaces ,;", "Content-Type: application/sdp", body=SDP)
    assert "X-Odd:  spaces ,;" in invite.lines
    assert invite.body == SDP
    assert invite.uri_text == pair.bob.contact
    assert invite.number("max-forwards") == 69
    assert [via.host for via in invite.vias] == ["192.0.2.1", "192.0.2.7"]
    assert not invite.has("proxy-authorization")


def test_asserted_identity_is_dropped(pair: Pair) -> None:
    invite = pair.ring("P-Asserted-Identity: <sip:boss@example.test>", "P-Preferred-Identity: <sip:boss@example.test>")
    assert not any("boss" in line for line in invite.lines)


def test_retransmitted_invite_is_one_call(pair: Pair) -> None:
    data = pair.alice.invite("bob")
    pair.alice.send(data)
    pair.alice.send(data)
    assert statuses(pair.alice.received()) == [100, 100]
    assert len(pair.bob.requests("INVITE")) == 1
    assert only(pair.server)["outcome"] is None


def test_cancel_ends_the_ringing(pair: Pair) -> None:
    invite = pair.ring(branch="z9hG4bKcall", cseq=7)
    pair.bob.send(pair.bob.answer(invite, 180))
    uri = f"sip:bob@{DOMAIN}"
    cancel = pair.alice.write("CANCEL", uri, "Reason: SIP;cause=487;text=Changed", branch="z9hG4bKcall", cseq=7)
    pair.alice.send(cancel)
    (forwarded,) = pair.bob.requests("CANCEL")
    assert forwarded.top_via.branch == invite.top_via.branch
    assert forwarded.header("reason") == "SIP;cause=487;text=Changed"
    pair.bob.send(pair.bob.answer(forwarded, 200))
    pair.bob.send(pair.bob.answer(invite, 487))
    assert statuses(pair.alice.received()) == [100, 180, 200, 487]
    assert len(pair.bob.requests("ACK")) == 1
    row = only(pair.server)
    assert (row["outcome"], row["ended_by"]) == ("cancelled", "caller")


def test_cancel_from_another_host_finds_nothing(pair: Pair) -> None:
    invite = pair.ring(branch="z9hG4bKcall", cseq=7)
    pair.bob.send(pair.bob.answer(invite, 180))
    pair.alice.received()
    cancel = pair.alice.write("CANCEL", f"sip:bob@{DOMAIN}", branch="z9hG4bKcall", cseq=7)
    mallory = Device(pair.server, "mallory", "198.51.100.66")
    assert mallory.ask(cancel).status == 481
    assert pair.bob.received() == pair.alice.received() == []


def test_cancel_of_nothing_is_481(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(alice.write("CANCEL", f"sip:bob@{DOMAIN}")).status == 481


@pytest.mark.parametrize(("callee", "status", "outcome"), [("nobody", 404, "not_found"), ("carol", 480, "offline")])
def test_call_that_the_server_refuses_is_a_call(server: Server, callee: str, status: int, outcome: str) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(alice.invite(callee))
    assert answer.status == status
    row = only(server)
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == (outcome, status, "server")
    assert row["caller"] is not None
    assert (row["callee"] is None) == (callee == "nobody")


def test_refusal_of_a_call_is_repeated_until_its_ack(server: Server) -> None:
    alice = Device(server, "alice")
    data = alice.invite("nobody", branch="z9hG4bKcall", cseq=7)
    alice.send(data)
    server.advance(1.6)
    answers = alice.received()
    assert statuses(answers) == [404] * 3
    to = answers[0].header("to") or ""
    alice.send(alice.write("ACK", f"sip:nobody@{DOMAIN}", to=to, branch="z9hG4bKcall", cseq=7))
    server.advance(40)
    assert alice.received() == []
    assert server.service.transactions.servers == 0


def outcome_for_a_stranger(make_server: MakeServer, callee: str) -> tuple[Any, ...]:
    """Everything that a stranger and the record see of a call."""
    with make_server("alice", "bob", config='[proxy]\ninbound = "anyone"\n') as server:
        stranger = Device(server, "eve", "203.0.113.5")
        invite = stranger.write("INVITE", f"sip:{callee}@{DOMAIN}", from_="<sip:eve@elsewhere.test>;tag=1")
        stranger.send(invite)
        server.settle()
        answers = stranger.received()
        to_length = [len(each.header("to") or "") - len(callee) for each in answers]
        names = [[name for name in each.names if name != "date"] for each in answers]
        timers = (len(server.service.timers), server.service.transactions.servers, server.service.transactions.clients)
        return statuses(answers), [each.start_line for each in answers], names, to_length, timers


def test_unknown_and_offline_look_the_same_to_strangers(tmp_path: Any) -> None:
    def make(*users: str, config: str) -> Server:
        made.append(config)
        return Server(tmp_path / str(len(made)), *users, config=config)

    made: list[str] = []
    offline, unknown = outcome_for_a_stranger(make, "bob"), outcome_for_a_stranger(make, "not")
    assert offline == unknown
    assert offline[0] == [480]


def test_stranger_is_refused_whoever_is_asked_for(pair: Pair) -> None:
    stranger = Device(pair.server, "eve", "203.0.113.5")
    answers = [
        stranger.ask(stranger.write("INVITE", f"sip:{callee}@{DOMAIN}", from_="<sip:eve@elsewhere.test>;tag=1"))
        for callee in ("bob", "carol", "nobody")
    ]
    assert [answer.status for answer in answers] == [403] * 3
    assert len({tuple(answer.names) for answer in answers}) == 1
    assert pair.bob.received() == []
    rows = pair.server.rows(CALLS)
    assert {(row["caller"], row["callee"], row["outcome"]) for row in rows} == {(None, None, "forbidden")}


def test_flood_of_strangers_makes_a_bounded_number_of_rows(server: Server) -> None:
    stranger = Device(server, "eve", "203.0.113.5")
    for _ in range(30):
        server.driver.on_message(
            stranger.write("INVITE", f"sip:bob@{DOMAIN}", from_="<sip:eve@elsewhere.test>;tag=1"), stranger.flow
        )
    assert statuses(stranger.received()) == [403] * 30
    assert len(server.rows(CALLS)) == 20
    assert server.service.transactions.servers == 20


def test_disabled_subscriber_is_unreachable_although_registered(pair: Pair) -> None:
    disable(pair.server.data_dir, "bob")
    pair.server.service.tick()
    assert pair.alice.ask(pair.alice.invite("bob")).status == 404
    assert pair.bob.received() == []


def test_disabled_subscriber_cannot_call(pair: Pair) -> None:
    data = pair.alice.invite("bob")
    disable(pair.server.data_dir, "alice")
    pair.server.service.tick()
    assert pair.alice.ask(data).status == 407
    assert pair.bob.received() == []


def test_one_may_call_only_as_oneself(pair: Pair) -> None:
    answer = pair.alice.ask(pair.alice.invite("bob", from_=f"<sip:carol@{DOMAIN}>;tag=1"))
    assert answer.status == 403
    assert pair.bob.received() == []
    assert only(pair.server)["outcome"] == "forbidden"


def test_crafted_route_is_refused(pair: Pair) -> None:
    answer = pair.talk()
    token = answer.values("record-route")[0].partition("vc=")[2].partition(">")[0].partition(";")[0]
    to = f"<sip:bob@{DOMAIN}>;tag=callee"
    target = "sip:victim@203.0.113.9"
    for routes in (
        ["Route: <sip:192.0.2.1;lr>"],
        ["Route: <sip:192.0.2.1;lr;vc=0123456789abcdef01234567890123456789>"],
        ["Route: <sip:203.0.113.9;lr>"],
        [],
    ):
        assert pair.alice.ask(pair.alice.write("BYE", target, *routes, to=to)).status == 403
    # A token of a call, in another one.
    stolen = f"Route: <sip:192.0.2.1;lr;vc={token}>"
    assert pair.alice.ask(pair.alice.write("BYE", target, stolen, to=to, call_id="another")).status == 403
    assert pair.server.transports.sent == []
    assert only(pair.server)["ended_at"] is None


def test_foreign_domain_is_not_relayed_to(server: Server) -> None:
    alice = Device(server, "alice")
    assert alice.ask(alice.signed("INVITE", "sip:x@203.0.113.9")).status == 403
    assert alice.ask(alice.invite("bob", "Route: <sip:203.0.113.9;lr>")).status == 403
    assert server.transports.sent == []


def test_foreign_domain_is_relayed_to_where_that_is_allowed(make_server: MakeServer) -> None:
    server = make_server("alice", config="[proxy]\noutbound = true\n")
    alice = Device(server, "alice")
    alice.send(alice.signed("INVITE", "sip:x@203.0.113.9"))
    ((flow, data),) = [each for each in server.transports.sent if each[0] is not alice.flow]
    assert (flow.label, data[:26]) == ("UDP 203.0.113.9:5060", b"INVITE sip:x@203.0.113.9 S")


def test_wrong_password_is_refused_and_noted(server: Server) -> None:
    alice = Device(server, "alice")
    answer = alice.ask(alice.signed("INVITE", f"sip:bob@{DOMAIN}", password="wrong"))
    assert answer.status == 407
    row = only(server, "SELECT kind, method, status FROM errors")
    assert row == {"kind": "credentials", "method": "INVITE", "status": 407}
    assert server.rows(CALLS) == []


def test_call_without_room_for_its_record_is_answered_503(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", config="[limits]\ncalls = 1\n")
    pair = Pair(server)
    pair.talk()
    answer = pair.alice.ask(pair.alice.invite("bob", call_id="second"))
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert len(server.rows(CALLS)) == 1


def test_call_is_answered_503_while_the_queue_of_rows_is_full(make_server: MakeServer) -> None:
    server = make_server("alice", "bob")
    pair = Pair(server)
    data = pair.alice.invite("bob", call_id="second")
    server.service.calls_writer.close()
    answer = pair.alice.ask(data)
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert pair.bob.received() == []
    assert server.service.recorder.lost == 1


def test_registered_over_a_connection_is_reached_over_it_and_not_after(server: Server) -> None:
    pair = Pair(server, tcp=True)
    pair.ring()
    del server.transports.alive[pair.bob.flow.connection]
    server.driver.on_closed(pair.bob.flow)
    server.settle()
    assert statuses(pair.alice.received()) == [100, 500]
    assert pair.alice.ask(pair.alice.invite("bob", call_id="second")).status == 480
    outcomes = [row["outcome"] for row in server.rows(CALLS)]
    assert outcomes == ["offline", "offline"]


def test_in_dialog_requests_go_over_the_connections_of_the_call(server: Server) -> None:
    pair = Pair(server, tcp=True)
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("INVITE", answer, cseq=9))
    (again,) = pair.bob.requests("INVITE")
    pair.bob.send(pair.bob.answer(again, 200))
    assert statuses(pair.alice.received()) == [100, 200]
    assert len(server.service.dialogs) == 1
    pair.alice.send(pair.alice.in_dialog("BYE", answer, cseq=10))
    (bye,) = pair.bob.requests("BYE")
    pair.bob.send(pair.bob.answer(bye, 200))
    server.settle()
    assert statuses(pair.alice.received()) == [200]
    assert len(server.service.dialogs) == 0


def test_large_invite_goes_over_tcp_where_the_callee_listens(pair: Pair) -> None:
    pair.server.transports.accepting.add((pair.bob.flow.host, pair.bob.flow.port))
    pair.alice.send(pair.alice.invite("bob", body=b"x" * 1400))
    ((flow, data),) = [each for each in pair.server.transports.sent if each[0] is not pair.alice.flow]
    assert flow.label == "TCP 192.0.2.8:5070"
    assert data.startswith(b"INVITE")


def test_large_invite_falls_back_to_udp(pair: Pair) -> None:
    assert len(pair.ring(body=b"x" * 1400).body) == 1400


def test_every_device_rings_and_the_first_to_answer_gets_the_call(server: Server) -> None:
    pair = Pair(server)
    mobile = Device(server, "bob", "192.0.2.9")
    mobile.register(call_id="mobile")
    pair.alice.send(pair.alice.invite("bob"))
    (at_desk,), (at_mobile,) = pair.bob.requests("INVITE"), mobile.requests("INVITE")
    for device, invite in ((pair.bob, at_desk), (mobile, at_mobile)):
        device.send(device.answer(invite, 180, tag=f"t{device.flow.host}"))
    mobile.send(mobile.answer(at_mobile, 200, tag="t192.0.2.9"))
    (cancel,) = pair.bob.requests("CANCEL")
    assert "elsewhere" in (cancel.header("reason") or "")
    pair.bob.send(pair.bob.answer(cancel, 200))
    pair.bob.send(pair.bob.answer(at_desk, 487))
    server.settle()
    assert statuses(pair.alice.received()) == [100, 180, 180, 200]
    assert only(server)["devices"] == 2
    branches = server.rows("SELECT outcome FROM call_branches ORDER BY branch")
    assert len(branches) == 2


def test_callee_that_never_answers_is_a_time_out(pair: Pair) -> None:
    pair.ring()
    pair.alice.received()
    pair.server.advance(32)
    assert statuses(pair.alice.received()) == [408]
    row = only(pair.server)
    # Nobody rang, so nobody was there.
    assert (row["outcome"], row["sip_status"]) == ("offline", 408)


def test_answer_that_cannot_be_delivered_is_counted(server: Server) -> None:
    pair = Pair(server, tcp=True)
    invite = pair.ring()
    del server.transports.alive[pair.alice.flow.connection]
    pair.bob.send(pair.bob.answer(invite, 486))
    server.settle()
    assert server.service.proxying.unanswered == 1


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE", "BYE"])
def test_request_inside_a_call_goes_to_the_other_side_of_it_and_nowhere_else(pair: Pair, method: str) -> None:
    answer = pair.talk()
    elsewhere = pair.alice.in_dialog(method, answer, cseq=9).replace(
        answer.addresses("contact")[0].uri_text.encode(), b"sip:victim@203.0.113.9", 1
    )
    sent = len(pair.server.transports.sent)
    pair.alice.send(elsewhere)
    (refusal,) = pair.alice.received()
    assert isinstance(refusal, Response)
    assert (refusal.status, refusal.reason) == (403, "Target Not In This Dialog")
    assert all(flow.host != "203.0.113.9" for flow, _ in pair.server.transports.sent[sent:])


def test_ack_inside_a_call_goes_nowhere_else_either(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(
        pair.alice.in_dialog("ACK", answer, cseq=1).replace(
            answer.addresses("contact")[0].uri_text.encode(), b"sip:victim@203.0.113.9", 1
        )
    )
    assert all(flow.host != "203.0.113.9" for flow, _ in pair.server.transports.sent)
    assert pair.server.service.driver.stray == 1


def test_everything_is_forgotten_when_calls_are_over(pair: Pair) -> None:
    answer = pair.talk()
    pair.alice.send(pair.alice.in_dialog("BYE", answer, cseq=9))
    (bye,) = pair.bob.requests("BYE")
    pair.bob.send(pair.bob.answer(bye, 200))
    pair.server.settle()
    pair.server.advance(1000)
    service = pair.server.service
    assert (service.transactions.servers, service.transactions.clients, len(service.timers)) == (0, 0, 0)
    assert (service.recorder.open, len(service.dialogs)) == (0, 0)


def test_other_requests_go_through_and_make_no_call(pair: Pair) -> None:
    data = pair.alice.signed("MESSAGE", f"sip:bob@{DOMAIN}", "Content-Type: text/plain", body=b"hi")
    pair.alice.send(data)
    (message,) = pair.bob.requests("MESSAGE")
    pair.bob.send(pair.bob.answer(message, 200))
    assert statuses(pair.alice.received()) == [200]
    assert pair.server.rows(CALLS) == []


def test_slow_answer_to_another_request_is_preceded_by_a_100(pair: Pair) -> None:
    pair.alice.send(pair.alice.signed("MESSAGE", f"sip:bob@{DOMAIN}"))
    pair.server.advance(3.5)
    assert statuses(pair.alice.received()) == [100]


def test_accounts_that_cannot_be_read_mean_503(server: Server) -> None:
    nobody = Device(server, "nobody")
    data = nobody.invite("bob")
    server.service.credentials.close()
    answer = nobody.ask(data)
    assert (answer.status, answer.header("retry-after")) == (503, "5")


def test_call_whose_callee_cannot_be_looked_up_is_refused_on_record(server: Server) -> None:
    alice = Device(server, "alice")
    data = alice.invite("nobody")
    # The caller is remembered; the callee would have to be looked up.
    assert server.service.credentials.get("alice", DOMAIN, "MD5") is not None
    server.service.credentials.close()
    answer = alice.ask(data)
    assert answer.status == 503
    row = only(server)
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("failed", 503, "server")
