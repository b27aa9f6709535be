"""Every arrow of figure 5 as RFC 6026 redraws it."""

from __future__ import annotations

import pytest

from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Failed, Send, SetTimer, Terminated
from sipserver.sip.message import Request, parse
from sipserver.sip.transaction.invite_client import (
    ACCEPTED,
    CALLING,
    COMPLETED,
    PROCEEDING,
    TERMINATED,
    TIMER_CANCEL,
    InviteClient,
)
from support.transactions import TIMERS, outgoing, response, sent, timers_set

RINGING = response(180)
OK = response(200)
BUSY = response(486)


def calling(*, reliable: bool = False) -> InviteClient:
    client = InviteClient(outgoing(), reliable, TIMERS)
    client.start()
    return client


def after(*responses: int) -> InviteClient:
    client = calling()
    for status in responses:
        client.on_response(response(status))
    return client


def test_start_on_udp_sends_the_invite_with_timers_a_and_b() -> None:
    client = InviteClient(outgoing(), False, TIMERS)
    effects = client.start()
    assert sent(effects) == outgoing().data
    assert timers_set(effects) == {"A": 1.0, "B": 64.0}
    assert client.state == CALLING


def test_start_on_a_reliable_transport_sets_timer_b_alone() -> None:
    effects = InviteClient(outgoing(), True, TIMERS).start()
    assert sent(effects) == outgoing().data
    assert timers_set(effects) == {"B": 64.0}


def test_timer_a_repeats_the_invite_at_doubling_intervals() -> None:
    client = calling()
    intervals = []
    for _ in range(5):
        effects = client.on_timer("A")
        assert sent(effects) == outgoing().data
        intervals.append(timers_set(effects)["A"])
    assert intervals == [2.0, 4.0, 8.0, 16.0, 32.0]
    assert client.state == CALLING


def test_timer_b_fails_and_ends_calling() -> None:
    client = calling()
    assert list(client.on_timer("B")) == [Failed(TIMED_OUT), Terminated()]
    assert client.state == TERMINATED


def test_each_provisional_goes_to_the_tu() -> None:
    client = calling()
    assert list(client.on_response(RINGING)) == [Deliver(RINGING)]
    assert client.state == PROCEEDING
    assert list(client.on_response(RINGING)) == [Deliver(RINGING)]
    assert client.state == PROCEEDING


def test_proceeding_repeats_nothing_and_waits_for_ever() -> None:
    client = after(180)
    assert list(client.on_timer("A")) == []
    assert list(client.on_timer("B")) == []
    assert client.state == PROCEEDING


@pytest.mark.parametrize("before", [(), (100, 180)])
def test_2xx_goes_to_the_tu_without_an_ack_and_starts_timer_m(before: tuple[int, ...]) -> None:
    client = after(*before)
    assert list(client.on_response(OK)) == [SetTimer("M", 64.0), Deliver(OK)]
    assert client.state == ACCEPTED


def test_accepted_hands_every_2xx_to_the_tu() -> None:
    client = after(200)
    other = response(200, to_tag="another-branch")
    assert list(client.on_response(OK)) == [Deliver(OK)]
    assert list(client.on_response(other)) == [Deliver(other)]
    assert client.state == ACCEPTED


def test_accepted_drops_everything_else() -> None:
    client = after(200)
    assert list(client.on_response(RINGING)) == []
    assert list(client.on_response(BUSY)) == []
    assert list(client.on_transport_error()) == []
    assert client.state == ACCEPTED


def test_timer_m_ends_accepted() -> None:
    client = after(200)
    assert list(client.on_timer("M")) == [Terminated()]
    assert client.state == TERMINATED


@pytest.mark.parametrize("before", [(), (180,)])
@pytest.mark.parametrize("status", [302, 407, 486, 503, 603])
def test_refusal_on_udp_goes_to_the_tu_is_acknowledged_and_starts_timer_d(status: int, before: tuple[int, ...]) -> None:
    client = after(*before)
    refusal = response(status)
    effects = client.on_response(refusal)
    assert Deliver(refusal) in effects
    assert timers_set(effects) == {"D": 40.0}
    ack = parse(sent(effects))
    assert isinstance(ack, Request)
    assert ack.method == "ACK"
    assert ack.to_tag == "callee"
    assert ack.top_via.branch == "z9hG4bKout"
    assert client.state == COMPLETED


def test_refusal_on_a_reliable_transport_is_acknowledged_and_ends_at_once() -> None:
    client = calling(reliable=True)
    effects = client.on_response(BUSY)
    assert list(effects[:2]) == [Deliver(BUSY), Terminated()]
    assert sent(effects).startswith(b"ACK ")
    assert client.state == TERMINATED


def test_repeated_refusal_is_acknowledged_again_and_not_delivered() -> None:
    client = calling()
    ack = sent(client.on_response(BUSY))
    assert list(client.on_response(BUSY)) == [Send(ack)]
    assert list(client.on_response(response(503))) == [Send(ack)]
    assert client.state == COMPLETED


def test_completed_ignores_provisional_and_2xx() -> None:
    client = after(486)
    assert list(client.on_response(RINGING)) == []
    assert list(client.on_response(OK)) == []
    assert client.state == COMPLETED


def test_timer_d_ends_completed() -> None:
    client = after(486)
    assert list(client.on_timer("D")) == [Terminated()]
    assert client.state == TERMINATED


@pytest.mark.parametrize("before", [(), (180,), (486,)])
def test_transport_error_fails_and_ends(before: tuple[int, ...]) -> None:
    client = after(*before)
    assert list(client.on_transport_error()) == [Failed(UNREACHABLE), Terminated()]
    assert client.state == TERMINATED
    assert list(client.on_transport_error()) == []


def test_cancelled_invite_without_final_response_fails_after_64_t1() -> None:
    client = after(180)
    assert list(client.on_cancel()) == [SetTimer(TIMER_CANCEL, 64.0)]
    # Timer B of the start falls due in between; it ends nothing.
    assert list(client.on_timer("B")) == []
    assert list(client.on_timer(TIMER_CANCEL)) == [Failed(TIMED_OUT), Terminated()]
    assert client.state == TERMINATED


def test_final_response_after_cancel_is_delivered_and_disarms_it() -> None:
    client = after(180)
    client.on_cancel()
    assert Deliver(BUSY) in client.on_response(BUSY)
    assert list(client.on_timer(TIMER_CANCEL)) == []
    assert client.state == COMPLETED


@pytest.mark.parametrize("before", [(), (200,), (486,)])
def test_cancel_means_nothing_but_to_proceeding(before: tuple[int, ...]) -> None:
    assert list(after(*before).on_cancel()) == []


def test_terminated_drops_responses() -> None:
    client = calling()
    client.on_timer("B")
    for late in (RINGING, OK, BUSY):
        assert list(client.on_response(late)) == []
