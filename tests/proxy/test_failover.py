"""Another way to the same target: the next place of a domain (RFC 3263 §4.3), the next flow of a device (RFC 5626)."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.proxy.effects import (
    BRANCH_FAILED,
    FAILOVER,
    LINGER,
    TRIED,
    Abandon,
    CallEvent,
    CancelBranch,
    Forward,
    NeedFlow,
    SetBranchTimer,
)
from sipserver.proxy.plan import Target
from sipserver.proxy.targets import MAX_ALTERNATES, group_targets
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Effect
from sipserver.sip.uri import Uri
from support.proxy import Driver, flow, kinds, plan, replied, request, response, settings, targets


class Domain(Driver):
    """A request for a domain with so many places: 198.51.100.1 and on."""

    def __init__(self, places: int, method: str = "INVITE", **more: Any) -> None:
        made = plan([Target("sip:bob@far.test")], located=False, callee=None)
        super().__init__(request(method, "sip:bob@far.test"), made, resolve=False, **more)
        self.places = places
        self.tried = 0

    def do(self, effects: Any) -> list[Effect]:
        """The same, but that each place is reached in its turn."""
        happened = super().do(effects)
        for effect in list(happened):
            if isinstance(effect, NeedFlow):
                self.tried += 1
                found = flow(f"198.51.100.{self.tried}", 5060)
                happened += self.do(self.context.on_flow(effect.branch, found, more=self.tried < self.places))
        return happened


def events(driver: Driver, kind: str) -> list[CallEvent]:
    return [each for each in driver.log if isinstance(each, CallEvent) and each.kind == kind]


def of(kind: type[Effect], happened: list[Effect]) -> list[Any]:
    return [each for each in happened if isinstance(each, kind)]


def device(*connections: int) -> Target:
    """A device with a flow over each of these connections, the newest first."""
    first, *others = [
        Target("sip:bob@10.0.0.1;transport=tcp", transport="TCP", host="192.0.2.9", port=each, connection=each,
               instance="<urn:uuid:1>", aor="bob@example.test")
        for each in connections
    ]  # fmt: skip
    first.alternates = tuple(others)
    return first


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_next_place_is_tried_with_a_branch_of_its_own_after_a_503(method: str) -> None:
    driver = Domain(2, method)
    driver.start()
    happened = driver.answer(0, 503)
    (need,) = of(NeedFlow, happened)
    assert (need.branch, need.after, need.uri.raw) == (1, 0, "sip:bob@far.test")
    (sent,) = of(Forward, happened)
    assert sent.flow.host == "198.51.100.2"
    assert sent.request.uri_text == driver.sent[0].uri_text
    assert sent.request.branch != driver.sent[0].branch
    assert driver.statuses() == ([100] if method == "INVITE" else [])
    assert replied(driver.answer(1, 200)).status == 200


@pytest.mark.parametrize("cause", [TIMED_OUT, UNREACHABLE])
def test_next_place_is_tried_after_silence_and_after_a_failed_connection(cause: str) -> None:
    driver = Domain(3)
    driver.start()
    driver.do(driver.context.on_failed(0, cause))
    driver.do(driver.context.on_failed(1, cause))
    assert sorted(driver.sent) == [0, 1, 2]
    failed = events(driver, BRANCH_FAILED)
    assert [(each.branch, each.cause) for each in failed] == [(0, cause), (1, cause)]
    assert [each.flow.host for each in events(driver, TRIED) if each.flow] == [f"198.51.100.{n}" for n in (1, 2, 3)]
    # The last one's failure is the answer.
    assert replied(driver.do(driver.context.on_failed(2, TIMED_OUT))).status == 408


def test_place_without_a_connection_is_on_record_and_the_next_is_tried() -> None:
    driver = Domain(2)
    made = driver.context.start()
    refused = flow("198.51.100.9", 5060, "TCP")
    happened = driver.do(driver.context.on_no_flow(0, 480, "Temporarily Unavailable", more=True, tried=refused))
    assert kinds(happened)[:3] == [TRIED, BRANCH_FAILED, "NeedFlow"]
    assert [each.flow for each in of(CallEvent, happened)[:2]] == [refused, refused]
    assert len(of(Forward, happened)) == 1
    assert made


def test_any_other_answer_is_the_domains_and_no_other_place_is_tried() -> None:
    for status in (302, 404, 430, 486, 500, 603):
        driver = Domain(2)
        driver.start()
        driver.answer(0, status)
        assert sorted(driver.sent) == [0]


def test_place_that_rang_is_not_exchanged_for_another() -> None:
    for status in (180, 183):
        driver = Domain(2)
        driver.start()
        driver.answer(0, status)
        assert replied(driver.answer(0, 503)).status == 500
    driver = Domain(2)
    driver.start()
    driver.answer(0, 100)
    assert len(of(Forward, driver.answer(0, 503))) == 1


def test_timer_waits_for_a_first_response_only_where_there_is_another_way() -> None:
    driver = Domain(2, failover_after=1.5)
    happened = driver.start()
    assert SetBranchTimer(0, FAILOVER, 1.5) in happened
    happened = driver.do(driver.context.on_timer(0, FAILOVER))
    (abandoned,) = of(Abandon, happened)
    assert (abandoned.branch, abandoned.request.branch) == (0, driver.sent[0].branch)
    # The last one has the whole of timer B.
    assert not [each for each in happened if isinstance(each, SetBranchTimer) and each.timer == FAILOVER]
    (failed,) = events(driver, BRANCH_FAILED)
    assert (failed.branch, failed.status, failed.cause) == (0, 408, TIMED_OUT)


def test_timer_changes_nothing_once_something_was_heard() -> None:
    driver = Domain(2)
    driver.start()
    driver.answer(0, 100)
    assert driver.do(driver.context.on_timer(0, FAILOVER)) == []


def test_abandoned_invite_that_arrives_after_all_is_cancelled_once() -> None:
    driver = Domain(2)
    driver.start()
    driver.do(driver.context.on_timer(0, FAILOVER))
    first = driver.sent[0]
    happened = driver.do(driver.context.on_response(0, response(first, 180)))
    assert kinds(happened) == ["CancelBranch", "timer cancelling"]
    (cancel,) = of(CancelBranch, happened)
    assert cancel.request.branch == first.branch
    assert driver.do(driver.context.on_response(0, response(first, 180))) == []
    assert driver.do(driver.context.on_response(0, response(first, 487))) == []
    assert driver.do(driver.context.on_failed(0, TIMED_OUT)) == []


def test_abandoned_invite_is_waited_for_after_the_caller_has_an_answer() -> None:
    driver = Domain(2)
    driver.start()
    driver.do(driver.context.on_timer(0, FAILOVER))
    assert replied(driver.answer(1, 486)).status == 486
    assert not driver.context.done
    assert kinds(driver.answer(0, 180)) == ["CancelBranch", "timer cancelling"]
    assert kinds(driver.do(driver.context.on_timer(0, LINGER))) == ["Done"]


def test_late_answer_of_an_abandoned_invite_is_an_answer() -> None:
    driver = Domain(2)
    driver.start()
    driver.do(driver.context.on_timer(0, FAILOVER))
    driver.answer(1, 180, tag="two")
    happened = driver.answer(0, 200, tag="one")
    assert replied(happened).to_tag == "one"
    assert [each.branch for each in of(CancelBranch, happened)] == [1]
    driver.answer(1, 487)
    # Both of its timers have to fire.
    assert driver.do(driver.context.on_timer(0, LINGER)) == []
    assert kinds(driver.do(driver.context.on_timer(0, LINGER))) == ["Done"]


def test_late_answer_of_an_abandoned_message_is_the_answer_if_it_is_the_first() -> None:
    driver = Domain(2, "MESSAGE")
    driver.start()
    driver.do(driver.context.on_timer(0, FAILOVER))
    assert replied(driver.answer(0, 200)).status == 200
    assert driver.context.done


def test_who_cancels_is_not_sent_on() -> None:
    driver = Domain(2)
    driver.start()
    driver.do(driver.context.on_cancel(None))
    assert driver.do(driver.context.on_timer(0, FAILOVER)) == []
    driver.do(driver.context.on_failed(0, UNREACHABLE))
    assert sorted(driver.sent) == [0]


# Flows of one device.


def test_next_flow_of_a_device_is_tried_in_its_place() -> None:
    driver = Driver(request(), plan([device(3, 2, 1), *targets(1)]))
    driver.start()
    assert sorted(driver.sent) == [0, 1]
    happened = driver.do(driver.context.on_failed(0, UNREACHABLE))
    (need,) = of(NeedFlow, happened)
    assert (need.branch, need.target and need.target.connection, need.after) == (2, 2, -1)
    happened = driver.answer(2, 430)
    (need,) = of(NeedFlow, happened)
    assert need.target is not None
    assert need.target.connection == 1
    driver.answer(1, 486)
    assert driver.statuses() == [100]
    assert replied(driver.answer(3, 200)).status == 200


@pytest.mark.parametrize("how", ["no flow", "silence", "503", "broken"])
def test_flow_fails_in_many_ways(how: str) -> None:
    driver = Driver(request(), plan([device(2, 1)]), resolve=how != "no flow")
    driver.start()
    if how == "no flow":
        driver.resolve = True
        driver.do(driver.context.on_no_flow(0, 480, "Temporarily Unavailable"))
    elif how == "silence":
        driver.do(driver.context.on_timer(0, FAILOVER))
    elif how == "503":
        driver.answer(0, 503)
    else:
        driver.do(driver.context.on_failed(0, UNREACHABLE))
    assert replied(driver.answer(1, 200)).status == 200


def test_contact_that_cannot_be_read_gives_way_to_the_next_flow() -> None:
    broken = device(2, 1)
    broken.path = ("<tel:1>",)
    driver = Driver(request(), plan([broken]))
    assert kinds(driver.start()) == [
        "100", "NoHop", "tried", "branch_failed", "NeedFlow", "tried", "timer C", "Forward",
    ]  # fmt: skip


def test_device_that_declines_is_not_asked_over_its_other_flow() -> None:
    driver = Driver(request(), plan([device(2, 1)]))
    driver.start()
    assert replied(driver.answer(0, 486)).status == 486
    assert sorted(driver.sent) == [0]


def test_caller_is_not_told_of_flows() -> None:
    driver = Driver(request(), plan([device(2, 1)]))
    driver.start()
    driver.answer(0, 430)
    answer = replied(driver.answer(1, 430))
    assert (answer.status, answer.reason) == (480, "Temporarily Unavailable")
    driver = Driver(request(), plan([Target("sip:bob@far.test")], located=False))
    driver.start()
    assert replied(driver.answer(0, 430)).status == 430


def binding(contact: str, instance: str | None, connection: int = 0, q: int = 1000) -> Target:
    return Target(contact, q, connection=connection, instance=instance)


def test_bindings_of_one_instance_are_flows_of_one_device() -> None:
    uri = Uri.parse("sip:bob@example.test")
    bound = [
        binding("sip:b@10.0.0.1;ob", "<urn:uuid:1>", 7), binding("sip:b@10.0.0.2", "<urn:uuid:2>", 6),
        binding("sip:b@10.0.0.1;ob", "<urn:uuid:1>", 5, q=500), binding("sip:b@10.0.0.3", None),
        binding("sip:b@10.0.0.1;ob", "<urn:uuid:1>", 7),
    ]  # fmt: skip
    (group,) = group_targets(bound, uri, settings())
    assert [each.uri_text for each in group] == ["sip:b@10.0.0.1;ob", "sip:b@10.0.0.2", "sip:b@10.0.0.3"]
    assert [each.connection for each in group[0].alternates] == [5]
    assert group[1].alternates == group[2].alternates == ()


def test_flows_of_one_device_are_bounded() -> None:
    bound = [binding("sip:b@10.0.0.1", "<urn:uuid:1>", number) for number in range(1, 50)]
    ((only,),) = group_targets(bound, Uri.parse("sip:bob@example.test"), settings())
    assert len(only.alternates) == MAX_ALTERNATES
