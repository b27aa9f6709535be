"""Every arrow of figure 8, with RFC 6026 §8.8 and RFC 4320."""

from __future__ import annotations

import pytest

from sipserver.sip.effects import UNREACHABLE, Failed, Send, SetTimer, Terminated
from sipserver.sip.transaction.server import COMPLETED, PROCEEDING, TERMINATED, TRYING, Server
from support.transactions import TIMERS, request, sent, timers_set

REQUEST = request("REGISTER")


def machine(*, reliable: bool = False) -> Server:
    return Server(reliable, TIMERS)


def completed() -> Server:
    server = machine()
    server.respond(200, b"ok")
    return server


def test_trying_drops_repeated_requests() -> None:
    server = machine()
    assert list(server.on_request(REQUEST)) == []
    assert server.state == TRYING


def test_100_leads_to_proceeding() -> None:
    server = machine()
    assert list(server.respond(100, b"trying")) == [Send(b"trying")]
    assert server.state == PROCEEDING


def test_proceeding_sends_and_repeats_the_last_provisional() -> None:
    server = machine()
    server.respond(100, b"trying")
    assert list(server.respond(100, b"still trying")) == [Send(b"still trying")]
    assert list(server.on_request(REQUEST)) == [Send(b"still trying")]
    assert server.state == PROCEEDING


def test_no_provisional_but_100_is_sent() -> None:
    server = machine()
    assert list(server.respond(183, b"progress")) == []
    assert server.state == TRYING


@pytest.mark.parametrize("provisional", [False, True])
@pytest.mark.parametrize("status", [200, 302, 404, 503, 603])
def test_final_response_on_udp_is_sent_and_starts_timer_j(status: int, provisional: bool) -> None:
    server = machine()
    if provisional:
        server.respond(100, b"trying")
    effects = server.respond(status, b"final")
    assert sent(effects) == b"final"
    assert timers_set(effects) == {"J": 64.0}
    assert server.state == COMPLETED


def test_final_response_on_a_reliable_transport_ends_at_once() -> None:
    server = machine(reliable=True)
    # The Send is last: a driver whose send fails still has forgotten the transaction.
    assert list(server.respond(200, b"ok")) == [Terminated(), Send(b"ok")]
    assert server.state == TERMINATED


def test_completed_resends_final_on_repeated_request() -> None:
    server = completed()
    assert list(server.on_request(REQUEST)) == [Send(b"ok")]
    assert server.state == COMPLETED


def test_completed_drops_further_responses_of_the_tu() -> None:
    server = completed()
    assert list(server.respond(500, b"error")) == []
    assert list(server.respond(100, b"trying")) == []
    assert list(server.on_request(REQUEST)) == [Send(b"ok")]


def test_timer_j_ends_completed() -> None:
    server = completed()
    assert list(server.on_timer("J")) == [Terminated()]
    assert server.state == TERMINATED
    assert list(server.on_request(REQUEST)) == []


def test_408_on_udp_goes_silent_until_timer_j() -> None:
    server = machine()
    server.respond(100, b"trying")
    assert list(server.respond(408, b"timeout")) == [SetTimer("J", 64.0)]
    assert list(server.on_request(REQUEST)) == []
    assert list(server.on_timer("J")) == [Terminated()]


def test_408_on_a_reliable_transport_ends_in_silence() -> None:
    assert list(machine(reliable=True).respond(408, b"timeout")) == [Terminated()]


def test_transport_error_is_reported_and_leaves_the_state() -> None:
    proceeding = machine()
    proceeding.respond(100, b"trying")
    for server in (proceeding, completed()):
        before = server.state
        assert list(server.on_transport_error()) == [Failed(UNREACHABLE)]
        assert server.state == before


def test_transport_error_before_anything_was_sent_means_nothing() -> None:
    assert list(machine().on_transport_error()) == []
