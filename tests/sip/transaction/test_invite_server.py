"""Every arrow of figure 7 as RFC 6026 redraws it."""

from __future__ import annotations

import pytest

from sipserver.sip.build import reply
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Failed, Send, SetTimer, Terminated
from sipserver.sip.transaction.invite_server import (
    ACCEPTED,
    COMPLETED,
    CONFIRMED,
    PROCEEDING,
    TERMINATED,
    InviteServer,
)
from support.transactions import TIMERS, request, sent, timers_set

INVITE = request()
ACK = request("ACK", to_tag=";tag=callee")


def machine(*, reliable: bool = False) -> InviteServer:
    return InviteServer(reliable, TIMERS)


def completed(*, reliable: bool = False) -> InviteServer:
    server = machine(reliable=reliable)
    server.respond(486, b"busy")
    return server


def accepted() -> InviteServer:
    server = machine()
    server.respond(200, b"ok")
    return server


def confirmed() -> InviteServer:
    server = completed()
    server.on_request(ACK)
    return server


def test_starts_proceeding_with_nothing_to_repeat() -> None:
    server = machine()
    assert server.state == PROCEEDING
    assert list(server.on_request(INVITE)) == []


def test_proceeding_sends_each_provisional_and_stays() -> None:
    server = machine()
    assert list(server.respond(100, b"trying")) == [Send(b"trying")]
    assert list(server.respond(180, b"ringing")) == [Send(b"ringing")]
    assert server.state == PROCEEDING


def test_proceeding_repeats_the_last_provisional_on_repeated_invite() -> None:
    server = machine()
    server.respond(100, b"trying")
    server.respond(180, b"ringing")
    assert list(server.on_request(INVITE)) == [Send(b"ringing")]


def test_proceeding_ignores_an_ack() -> None:
    server = machine()
    server.respond(180, b"ringing")
    assert list(server.on_request(ACK)) == []


def test_2xx_is_sent_and_starts_timer_l_on_every_transport() -> None:
    for reliable in (False, True):
        server = machine(reliable=reliable)
        effects = server.respond(200, b"ok")
        assert sent(effects) == b"ok"
        assert timers_set(effects) == {"L": 64.0}
        assert server.state == ACCEPTED


def test_accepted_absorbs_repeated_invite() -> None:
    assert list(accepted().on_request(INVITE)) == []


def test_accepted_sends_further_2xx_of_the_tu() -> None:
    server = accepted()
    assert list(server.respond(200, b"ok again")) == [Send(b"ok again")]
    assert server.state == ACCEPTED


def test_accepted_drops_every_other_response_of_the_tu() -> None:
    server = accepted()
    assert list(server.respond(180, b"ringing")) == []
    assert list(server.respond(487, b"terminated")) == []
    assert server.state == ACCEPTED


def test_accepted_hands_every_ack_to_the_tu() -> None:
    server = accepted()
    assert list(server.on_request(ACK)) == [Deliver(ACK)]
    assert list(server.on_request(ACK)) == [Deliver(ACK)]
    assert server.state == ACCEPTED


def test_timer_l_ends_accepted() -> None:
    server = accepted()
    assert list(server.on_timer("L")) == [Terminated()]
    assert server.state == TERMINATED


def test_refusal_on_udp_is_sent_and_starts_timers_g_and_h() -> None:
    server = machine()
    effects = server.respond(486, b"busy")
    assert sent(effects) == b"busy"
    assert timers_set(effects) == {"G": 1.0, "H": 64.0}
    assert server.state == COMPLETED


def test_refusal_on_a_reliable_transport_starts_timer_h_alone() -> None:
    server = machine(reliable=True)
    effects = server.respond(302, b"moved")
    assert sent(effects) == b"moved"
    assert timers_set(effects) == {"H": 64.0}
    assert server.state == COMPLETED


def test_timer_g_repeats_the_refusal_at_intervals_doubling_to_t2() -> None:
    server = completed()
    intervals = []
    for _ in range(4):
        effects = server.on_timer("G")
        assert sent(effects) == b"busy"
        intervals.append(timers_set(effects)["G"])
    assert intervals == [2.0, 4.0, 4.0, 4.0]


def test_completed_resends_final_on_repeated_invite() -> None:
    server = completed()
    assert list(server.on_request(INVITE)) == [Send(b"busy")]
    assert server.state == COMPLETED


@pytest.mark.parametrize("status", [100, 180, 302, 487, 603])
def test_completed_drops_further_responses_of_the_tu(status: int) -> None:
    server = completed()
    assert list(server.respond(status, b"late")) == []
    assert list(server.on_request(INVITE)) == [Send(b"busy")]


def test_2xx_after_a_refusal_is_sent_and_changes_nothing() -> None:
    server = completed()
    assert list(server.respond(200, b"ok")) == [Send(b"ok")]
    assert server.state == COMPLETED
    assert list(server.on_request(INVITE)) == [Send(b"busy")]
    server = confirmed()
    assert list(server.respond(200, b"ok")) == [Send(b"ok")]
    assert server.state == CONFIRMED


def test_ack_on_udp_confirms_and_starts_timer_i() -> None:
    server = completed()
    assert list(server.on_request(ACK)) == [SetTimer("I", 5.0)]
    assert server.state == CONFIRMED


def test_ack_on_a_reliable_transport_ends_at_once() -> None:
    server = completed(reliable=True)
    assert list(server.on_request(ACK)) == [Terminated()]
    assert server.state == TERMINATED


def test_ack_without_cookie_and_with_another_to_tag_goes_to_the_tu() -> None:
    via = "SIP/2.0/UDP client.test:5070"
    server = machine()
    server.respond(486, reply(request(via=via), 486, to_tag="callee"))
    stray = request("ACK", via=via, to_tag=";tag=other")
    assert list(server.on_request(stray)) == [Deliver(stray)]
    assert server.state == COMPLETED
    server.on_request(request("ACK", via=via, to_tag=";tag=callee"))
    assert server.state == CONFIRMED


def test_confirmed_absorbs_acks_and_invites() -> None:
    server = confirmed()
    assert list(server.on_request(ACK)) == []
    assert list(server.on_request(INVITE)) == []
    assert server.state == CONFIRMED


def test_timer_i_ends_confirmed() -> None:
    server = confirmed()
    assert list(server.on_timer("I")) == [Terminated()]
    assert server.state == TERMINATED


def test_timer_g_after_the_ack_neither_sends_nor_goes_on() -> None:
    assert list(confirmed().on_timer("G")) == []


def test_timer_h_fails_and_ends_completed() -> None:
    server = completed()
    assert list(server.on_timer("H")) == [Failed(TIMED_OUT), Terminated()]
    assert server.state == TERMINATED


def test_transport_error_is_reported_and_leaves_the_state() -> None:
    for server in (machine(), accepted(), completed()):
        before = server.state
        assert list(server.on_transport_error()) == [Failed(UNREACHABLE)]
        assert server.state == before


def test_transport_error_once_confirmed_means_nothing() -> None:
    assert list(confirmed().on_transport_error()) == []


def test_terminated_sends_nothing_any_more() -> None:
    server = accepted()
    server.on_timer("L")
    assert list(server.respond(200, b"ok")) == []
    assert list(server.on_request(ACK)) == []
