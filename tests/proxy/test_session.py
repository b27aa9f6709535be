"""Session timers at a proxy, rule by rule (RFC 4028 §8)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sipserver.proxy.effects import CHANGED, FAILED, CallEvent
from sipserver.proxy.forward import forward
from sipserver.proxy.plan import CallPlaced, Target
from sipserver.proxy.record_route import CALLER
from sipserver.proxy.session import INSERT, NOTHING, OBSERVE, OFF, SessionTimers, Timing, complete_answer
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Request, Response, parse
from support.proxy import KEY, MINTER, Driver, World, flow, kinds, plan, replied, request, signed

TIMERS = SessionTimers(INSERT, 1800, 600)
KNOWS = "Supported: replaces, Timer"


def sent(message: Request, timers: SessionTimers = TIMERS) -> list[str]:
    """The lines about the session in the request that goes on."""
    made = plan([Target("sip:bob@192.0.2.20")])
    made.timing = timers.on_request(message)
    out = forward(message, made, made.groups[0][0], flow(), flow(), "b1", MINTER, KEY)
    return [line for line in out.lines if line.partition(":")[0].lower() in ("session-expires", "x", "min-se")]


def completed(timing: Timing, *lines: str) -> list[str]:
    """What a 2xx says of the session when it goes upstream."""
    message = parse("\r\n".join(("SIP/2.0 200 OK", "Via: x", *lines, "", "")).encode())
    assert isinstance(message, Response)
    complete_answer(message, timing)
    again = parse(message.to_bytes())
    assert again.names == message.names
    return [line for line in message.lines if line.startswith(("Session-Expires", "Require"))]


# ---- §8.1, requests


def test_timer_is_asked_for_where_nobody_does() -> None:
    assert sent(request("INVITE", "sip:bob@example.test", KNOWS)) == ["Session-Expires: 1800"]


def test_least_interval_is_said_for_a_caller_who_knows_no_timers() -> None:
    assert sent(request()) == ["Session-Expires: 1800", "Min-SE: 600"]
    assert sent(request(), SessionTimers(INSERT, 1800, 90)) == ["Session-Expires: 1800"]


def test_interval_that_is_asked_for_is_never_below_min_se() -> None:
    assert sent(request("INVITE", "sip:b@x", KNOWS, "Min-SE: 3600")) == ["Min-SE: 3600", "Session-Expires: 3600"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("Session-Expires: 1800",), ["Session-Expires: 1800"]),
        (("x: 900;refresher=uac",), ["x: 900;refresher=uac"]),
        (("Session-Expires: 7200 ;refresher=uas;a=b",), ["Session-Expires: 1800;refresher=uas;a=b"]),
        (("Session-Expires: 7200", "Min-SE: 3600"), ["Session-Expires: 3600", "Min-SE: 3600"]),
        (("Session-Expires: 700", "Min-SE: 800"), ["Session-Expires: 800", "Min-SE: 800"]),
        (("Session-Expires: 600",), ["Session-Expires: 600"]),
    ],
)
def test_interval_of_a_caller_who_knows_timers(lines: tuple[str, ...], expected: list[str]) -> None:
    assert sent(request("INVITE", "sip:b@x", KNOWS, *lines)) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("Session-Expires: 300",), ["Session-Expires: 600", "Min-SE: 600"]),
        (("Session-Expires: 300", "Min-SE: 100;a"), ["Session-Expires: 600", "Min-SE: 600"]),
        (("Session-Expires: 300", "Min-SE: 900"), ["Session-Expires: 900", "Min-SE: 900"]),
        (("Session-Expires: 1000", "Min-SE: 900"), ["Session-Expires: 1000", "Min-SE: 900"]),
        (("Session-Expires: 7200",), ["Session-Expires: 1800", "Min-SE: 600"]),
    ],
)
def test_interval_of_a_caller_who_knows_no_timers(lines: tuple[str, ...], expected: list[str]) -> None:
    assert sent(request("INVITE", "sip:b@x", *lines)) == expected


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_too_small_interval_is_refused_with_the_least_one(method: str) -> None:
    with pytest.raises(SipError) as caught:
        TIMERS.on_request(request(method, "sip:b@x", KNOWS, "Session-Expires: 599"))
    assert (caught.value.status, caught.value.headers) == (422, ("Min-SE: 600",))


def test_least_interval_of_a_422_is_never_below_90() -> None:
    with pytest.raises(SipError) as caught:
        SessionTimers(INSERT, 10, 5).on_request(request("INVITE", "sip:b@x", KNOWS, "Session-Expires: 3"))
    assert caught.value.headers == ("Min-SE: 90",)


@pytest.mark.parametrize(
    "lines",
    [
        ("Session-Expires: soon",), ("Session-Expires: -1",), ("Session-Expires: 99999999999",),
        ("Session-Expires: 0",), ("Session-Expires:",), ("Session-Expires: 100", "x: 1800"),
        ("Session-Expires: 1800", "Min-SE: \xb2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("knows", [(KNOWS,), ()])
def test_what_cannot_be_read_is_left_to_the_endpoints(lines: tuple[str, ...], knows: tuple[str, ...]) -> None:
    message = request("INVITE", "sip:b@x", *knows, *lines)
    assert TIMERS.on_request(message) is NOTHING
    assert sent(message) == list(lines)


SECONDS = st.one_of(st.integers(0, 2**40).map(str), st.text(st.characters(codec="latin-1", exclude_characters="\r\n")))


@given(expires=SECONDS, least=SECONDS, knows=st.booleans())
@example(expires="600;refresher=uac", least="90", knows=True)
def test_whatever_is_asked_for_ends_within_the_bounds(expires: str, least: str, knows: bool) -> None:
    supported = [KNOWS] if knows else []
    message = request("INVITE", "sip:b@x", *supported, f"Session-Expires: {expires}", f"Min-SE: {least}")
    refused, timing = 0, NOTHING
    try:
        timing = TIMERS.on_request(message)
    except SipError as error:
        refused = error.status
    assert refused == 0 or (refused == 422 and knows)
    if timing is not NOTHING:
        wanted = int(least.partition(";")[0].strip(" \t"))
        assert max(TIMERS.minimum, wanted) <= timing.interval <= max(TIMERS.expires, wanted)


@pytest.mark.parametrize("mode", [OBSERVE, OFF])
def test_whoever_does_not_ask_changes_nothing(mode: str) -> None:
    timers = SessionTimers(mode, 1800, 600)
    assert sent(request("INVITE", "sip:b@x", KNOWS, "Session-Expires: 90"), timers) == ["Session-Expires: 90"]
    assert sent(request(), timers) == []


def test_what_most_invites_get_is_made_once() -> None:
    assert TIMERS.on_request(request()) is TIMERS.on_request(request())
    invite, update = request("INVITE", "sip:b@x", KNOWS), request("UPDATE", "sip:b@x", KNOWS)
    assert TIMERS.on_request(invite) is TIMERS.on_request(update)


# ---- §8.2, responses


def test_caller_is_asked_to_refresh_where_the_callee_knows_no_timers() -> None:
    assert completed(Timing(1800, True)) == ["Session-Expires: 1800;refresher=uac", "Require: timer"]


def test_option_tag_joins_those_that_are_required() -> None:
    expected = ["Require: 100rel, timer", "Session-Expires: 1800;refresher=uac"]
    assert completed(Timing(1800, True), "Require: 100rel") == expected
    assert completed(Timing(1800, True), "Require: TIMER")[0] == "Require: TIMER"


@pytest.mark.parametrize("timing", [NOTHING, Timing(1800, False), Timing(0, True)])
def test_answer_without_a_timer_stays_so(timing: Timing) -> None:
    assert completed(timing) == []


def test_timer_in_an_answer_stays_as_it_is() -> None:
    line = "Session-Expires: 300;refresher=uas"
    assert completed(Timing(1800, True), line) == [line]


@pytest.mark.parametrize(
    ("mode", "line", "interval"),
    [
        (INSERT, "Session-Expires: 300;refresher=uas", 300), (OBSERVE, "x: 300", 300), (OFF, "x: 300", 0),
        (INSERT, "x: later", 0), (INSERT, "x: 0", 0), (INSERT, "Server: y", 0),
        (INSERT, "x: 9999999999", 2**31 - 1),
    ],
)  # fmt: skip
def test_interval_of_an_answer(mode: str, line: str, interval: int) -> None:
    message = parse(f"SIP/2.0 200 OK\r\n{line}\r\n\r\n".encode())
    assert isinstance(message, Response)
    assert SessionTimers(mode).interval(message) == interval


# ---- on the way of a request


def test_call_with_a_too_small_interval_is_placed_and_refused() -> None:
    world = World(bob=[Target("sip:bob@192.0.2.20")])
    short = signed(request("INVITE", "sip:bob@example.test", KNOWS, "Session-Expires: 100"))
    with pytest.raises(SipError) as caught:
        world.admit(short, sessions=TIMERS)
    assert caught.value.status == 422
    assert [effect for effect in world.asked if isinstance(effect, CallPlaced)]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "BYE", "INFO"])
def test_only_what_refreshes_a_session_asks_for_a_timer(method: str) -> None:
    token = MINTER.token(KEY, "call-1", "from1")
    route = f"Route: <sip:192.0.2.10;lr;vc={token}>"
    message = request(method, "sip:bob@192.0.2.20", route, KNOWS, to="<sip:bob@example.test>;tag=to1")
    made = World().admit(message, sessions=TIMERS)
    assert made.timing.interval == (1800 if method in ("INVITE", "UPDATE") else 0)


def answering(timing: Timing, **more: Any) -> Driver:
    made = plan([Target("sip:bob@192.0.2.20")])
    made.timing = timing
    driver = Driver(request("INVITE", "sip:bob@example.test", KNOWS), made, **more)
    driver.start()
    return driver


def test_repeated_answer_is_completed_as_well() -> None:
    driver = answering(Timing(1800, True))
    for _ in range(2):
        answer = replied([each for each in driver.answer(0, 200) if type(each).__name__ == "Reply"])
        assert answer.header("session-expires") == "1800;refresher=uac"
        assert answer.header("require") == "timer"


def test_provisional_and_refusing_answers_are_not_completed() -> None:
    driver = answering(Timing(1800, True))
    for status in (180, 486):
        answer = replied([each for each in driver.answer(0, status) if type(each).__name__ == "Reply"])
        assert answer.header("session-expires") is None


def test_422_from_downstream_is_passed_back_before_other_refusals() -> None:
    made = plan([Target("sip:a@192.0.2.20"), Target("sip:b@192.0.2.21")])
    driver = Driver(request(), made)
    driver.start()
    driver.answer(0, 404)
    happened = driver.answer(1, 422, "Min-SE: 4000")
    assert FAILED in kinds(happened)
    answer = replied([each for each in happened if type(each).__name__ == "Reply"])
    assert (answer.status, answer.header("min-se")) == (422, "4000")


def test_accepted_refresh_tells_the_answer_as_it_goes_upstream() -> None:
    made = plan([Target("sip:bob@192.0.2.20")], dialog=(KEY, CALLER), located=False)
    made.timing = Timing(1800, True)
    driver = Driver(request("UPDATE", "sip:bob@192.0.2.20", KNOWS, to="<sip:bob@example.test>;tag=t"), made)
    driver.start()
    (event,) = [each for each in driver.answer(0, 200) if isinstance(each, CallEvent)]
    assert event.kind == CHANGED
    assert isinstance(event.message, Response)
    assert TIMERS.interval(event.message) == 1800


# ---- two proxies


def through_two(*caller: str, answer: tuple[str, ...] = ()) -> tuple[Message, Message, Message]:
    """A call through two proxies, of which the second wants 900 s: the INVITE as it arrives, and the answer as it goes
    from the second to the first and from there to the caller."""
    first = answering_with(request("INVITE", "sip:bob@example.test", *caller), SessionTimers(INSERT, 1800, 90))
    between = parse(first.sent[0].data)
    assert isinstance(between, Request)
    second = answering_with(between, SessionTimers(INSERT, 900, 90))
    arrived = parse(second.sent[0].data)
    back = replied([each for each in second.answer(0, 200, *answer) if type(each).__name__ == "Reply"])
    upstream = [each for each in first.do(first.context.on_response(0, back)) if type(each).__name__ == "Reply"]
    return arrived, back, replied(upstream)


def answering_with(message: Request, timers: SessionTimers) -> Driver:
    made = plan([Target("sip:bob@192.0.2.20")])
    made.timing = timers.on_request(message)
    driver = Driver(message, made)
    driver.start()
    return driver


def test_two_proxies_agree_on_the_shorter_interval() -> None:
    arrived, _, answer = through_two(KNOWS, answer=("Session-Expires: 900;refresher=uas",))
    assert arrived.headers("session-expires") == ["900"]
    assert answer.headers("session-expires") == ["900;refresher=uas"]


def test_the_proxy_nearest_to_the_callee_answers_for_it() -> None:
    _, between, answer = through_two(KNOWS)
    assert between.headers("session-expires") == answer.headers("session-expires") == ["900;refresher=uac"]
    assert answer.headers("require") == ["timer"]


def test_two_proxies_between_endpoints_without_timers_agree_on_none() -> None:
    arrived, _, answer = through_two()
    assert arrived.headers("session-expires") == ["900"]
    assert answer.headers("session-expires") == []
