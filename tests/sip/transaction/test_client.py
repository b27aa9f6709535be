"""Every arrow of figure 6."""

from __future__ import annotations

import pytest

from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Deliver, Failed, SetTimer, Terminated
from sipserver.sip.transaction.client import COMPLETED, PROCEEDING, TERMINATED, TRYING, Client
from support.transactions import TIMERS, outgoing, response, sent, timers_set

TRYING_RESPONSE = response(100, "OPTIONS")
OK = response(200, "OPTIONS")


def trying(*, reliable: bool = False) -> Client:
    client = Client(outgoing("OPTIONS"), reliable, TIMERS)
    client.start()
    return client


def after(*responses: int) -> Client:
    client = trying()
    for status in responses:
        client.on_response(response(status, "OPTIONS"))
    return client


def test_start_on_udp_sends_the_request_with_timers_e_and_f() -> None:
    client = Client(outgoing("OPTIONS"), False, TIMERS)
    effects = client.start()
    assert sent(effects) == outgoing("OPTIONS").data
    assert timers_set(effects) == {"E": 1.0, "F": 64.0}
    assert client.state == TRYING


def test_start_on_a_reliable_transport_sets_timer_f_alone() -> None:
    effects = Client(outgoing("OPTIONS"), True, TIMERS).start()
    assert sent(effects) == outgoing("OPTIONS").data
    assert timers_set(effects) == {"F": 64.0}


def test_timer_e_while_trying_repeats_at_intervals_doubling_to_t2() -> None:
    client = trying()
    intervals = []
    for _ in range(4):
        effects = client.on_timer("E")
        assert sent(effects) == outgoing("OPTIONS").data
        intervals.append(timers_set(effects)["E"])
    assert intervals == [2.0, 4.0, 4.0, 4.0]


def test_provisional_goes_to_the_tu_and_starts_no_second_chain_of_timer_e() -> None:
    client = trying()
    assert list(client.on_response(TRYING_RESPONSE)) == [Deliver(TRYING_RESPONSE)]
    assert client.state == PROCEEDING
    assert list(client.on_response(TRYING_RESPONSE)) == [Deliver(TRYING_RESPONSE)]
    assert client.state == PROCEEDING


def test_timer_e_while_proceeding_repeats_every_t2() -> None:
    client = after(100)
    for _ in range(3):
        effects = client.on_timer("E")
        assert sent(effects) == outgoing("OPTIONS").data
        assert timers_set(effects) == {"E": 4.0}


@pytest.mark.parametrize("before", [(), (100,)])
def test_timer_f_fails_and_ends(before: tuple[int, ...]) -> None:
    client = after(*before)
    assert list(client.on_timer("F")) == [Failed(TIMED_OUT), Terminated()]
    assert client.state == TERMINATED


@pytest.mark.parametrize("before", [(), (100,)])
@pytest.mark.parametrize("status", [200, 302, 404, 503, 603])
def test_final_response_on_udp_goes_to_the_tu_and_starts_timer_k(status: int, before: tuple[int, ...]) -> None:
    client = after(*before)
    final = response(status, "OPTIONS")
    assert list(client.on_response(final)) == [SetTimer("K", 5.0), Deliver(final)]
    assert client.state == COMPLETED


def test_final_response_on_a_reliable_transport_ends_at_once() -> None:
    client = trying(reliable=True)
    assert list(client.on_response(OK)) == [Deliver(OK), Terminated()]
    assert client.state == TERMINATED


def test_completed_absorbs_responses_and_sends_nothing() -> None:
    client = after(200)
    assert list(client.on_response(OK)) == []
    assert list(client.on_response(TRYING_RESPONSE)) == []
    assert list(client.on_timer("E")) == []
    assert list(client.on_timer("F")) == []
    assert list(client.on_transport_error()) == []
    assert client.state == COMPLETED


def test_timer_k_ends_completed() -> None:
    client = after(200)
    assert list(client.on_timer("K")) == [Terminated()]
    assert client.state == TERMINATED


@pytest.mark.parametrize("before", [(), (100,)])
def test_transport_error_fails_and_ends(before: tuple[int, ...]) -> None:
    client = after(*before)
    assert list(client.on_transport_error()) == [Failed(UNREACHABLE), Terminated()]
    assert client.state == TERMINATED
