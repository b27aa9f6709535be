"""Whatever the order in which things happen, the caller gets one answer (proxy/fork.py)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sipserver.proxy.effects import (
    ANSWERED,
    CANCELLING,
    LINGER,
    CallEvent,
    CancelBranch,
    Done,
    Forward,
    NeedFlow,
    Reply,
    SetBranchTimer,
)
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE
from sipserver.sip.timers import TIMER_C
from support.proxy import Driver, flow, plan, request, targets

BRANCHES = 3
PROVISIONALS = st.sampled_from([100, 180, 183])
FINALS = st.sampled_from([200, 302, 401, 404, 407, 408, 480, 486, 487, 500, 503, 600, 603])
BRANCH = st.integers(0, BRANCHES - 1)
EVENTS = st.one_of(
    st.tuples(st.just("flow"), BRANCH),
    st.tuples(st.just("no flow"), BRANCH),
    st.tuples(st.just("provisional"), BRANCH, PROVISIONALS),
    st.tuples(st.just("final"), BRANCH, FINALS),
    st.tuples(st.just("failed"), BRANCH, st.sampled_from([TIMED_OUT, UNREACHABLE])),
    st.tuples(st.just("timer"), BRANCH, st.sampled_from([TIMER_C, CANCELLING, LINGER])),
    st.tuples(st.just("cancel")),
)


class Peers:
    """Plays the devices, the caller and the clock, and only what each of them could do."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.ended: dict[int, int] = {}

    def play(self, event: tuple[Any, ...]) -> None:
        """One event, if it can happen now."""
        driver, context = self.driver, self.driver.context
        name, *rest = event
        if name == "cancel":
            driver.do(context.on_cancel(request("CANCEL")))
            return
        branch = rest[0]
        if name in ("flow", "no flow"):
            if any(isinstance(each, NeedFlow) and each.branch == branch for each in driver.log):
                driver.do(context.on_flow(branch, flow()) if name == "flow" else context.on_no_flow(branch, 480, "No"))
        elif name == "timer":
            if self.fire(branch, rest[1]):
                driver.do(context.on_timer(branch, rest[1]))
        elif branch in driver.sent:
            self.respond(name, branch, rest[1])

    def fire(self, branch: int, timer: str) -> bool:
        """Whether such a timer was set; it is taken from the log, since it fires once."""
        for i, each in enumerate(self.driver.log):
            if isinstance(each, SetBranchTimer) and (each.branch, each.timer) == (branch, timer):
                del self.driver.log[i]
                return True
        return False

    def respond(self, name: str, branch: int, what: Any) -> None:
        """A device speaks: nothing after its final response, but for 2xx again."""
        before = self.ended.get(branch)
        if name == "failed":
            if before is None:
                self.ended[branch] = 0
                self.driver.do(self.driver.context.on_failed(branch, what))
        elif before is None or (before == what == 200):
            if name == "final":
                self.ended[branch] = what
            self.driver.answer(branch, what)

    def finish(self) -> None:
        """Everything that is still open comes to its end."""
        for branch in range(BRANCHES):
            self.play(("no flow", branch))
        for _ in range(BRANCHES + 2):
            for branch in range(BRANCHES):
                self.play(("no flow", branch))
                self.play(("final", branch, 487))
        for branch in range(BRANCHES):
            self.play(("timer", branch, LINGER))


@given(
    method=st.sampled_from(["INVITE", "INVITE", "MESSAGE"]),
    split=st.integers(1, BRANCHES),
    breadth=st.sampled_from([1, 2, 60]),
    events=st.lists(EVENTS, max_size=40),
)
def test_any_order_ends_with_one_answer(method: str, split: int, breadth: int, events: list[tuple[Any, ...]]) -> None:
    found = targets(BRANCHES)
    groups = [group for group in (found[:split], found[split:]) if group]
    driver = Driver(request(method), plan(*groups, breadth=breadth), resolve=False)
    driver.start()
    peers = Peers(driver)
    for event in events:
        peers.play(event)
    peers.finish()

    finals = [status for status in driver.statuses() if status >= 200]
    refusals = [status for status in finals if status >= 300]
    assert len(refusals) <= 1
    assert not (refusals and len(finals) > 1)
    assert finals
    if method != "INVITE":
        assert len(finals) == 1
    assert driver.context.done
    assert isinstance(driver.log[-1], Done)
    assert sum(isinstance(each, Done) for each in driver.log) == 1
    check_log(driver, peers, answered=200 in finals)


def check_log(driver: Driver, peers: Peers, *, answered: bool) -> None:
    """What went out in the course of it."""
    cancelled = [each.branch for each in driver.log if isinstance(each, CancelBranch)]
    assert len(cancelled) == len(set(cancelled))
    told = False
    forwarded_after = False
    for i, each in enumerate(driver.log):
        if isinstance(each, Reply):
            assert not (told and each.status < 200), "a provisional response after the final one"
            told = told or each.status >= 200
        elif isinstance(each, Forward):
            forwarded_after = forwarded_after or told
        elif isinstance(each, CallEvent) and each.kind == ANSWERED:
            follower = driver.log[i + 1]
            assert isinstance(follower, Reply)
            assert follower.durable
    assert not forwarded_after, "a branch begun after the answer"
    if answered and driver.context.final == 200:
        # Whoever was still ringing when the call was answered was told to stop, once it had answered anything.
        rang = {b for b, status in peers.ended.items() if status == 487}
        assert set(cancelled) <= rang | set(peers.ended) | {b for b in driver.sent if b not in peers.ended}


@given(st.permutations(range(BRANCHES)), st.lists(FINALS.filter(lambda status: status != 200), min_size=3, max_size=3))
def test_refusals_in_any_order_give_the_same_class(order: list[int], statuses: list[int]) -> None:
    answers = []
    for sequence in (order, range(BRANCHES)):
        driver = Driver(request(), plan(targets(BRANCHES)))
        driver.start()
        for branch in sequence:
            driver.answer(branch, statuses[branch])
        answers.append(driver.statuses()[-1])
    assert answers[0] // 100 == answers[1] // 100
    expected = 6 if max(statuses) >= 600 else min(statuses) // 100
    assert answers[0] // 100 == expected


@given(st.permutations(range(BRANCHES)), BRANCH)
def test_whoever_answers_first_stops_the_others(order: list[int], winner: int) -> None:
    driver = Driver(request(), plan(targets(BRANCHES)))
    driver.start()
    for branch in order:
        driver.answer(branch, 180)
    happened = driver.answer(winner, 200)
    assert {each.branch for each in happened if isinstance(each, CancelBranch)} == set(range(BRANCHES)) - {winner}
