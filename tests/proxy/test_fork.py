"""One request, its branches, one answer (proxy/fork.py, RFC 3261 §16.7 to §16.10)."""

from __future__ import annotations

from typing import Any

from sipserver.proxy.effects import (
    BRANCH_FAILED,
    CANCELLING,
    FAILED,
    LINGER,
    TRIED,
    TRYING,
    CallEvent,
    CancelBranch,
    Done,
    Forward,
    NeedFlow,
    Reply,
    SetBranchTimer,
)
from sipserver.proxy.plan import Target
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE, Effect, Terminated
from sipserver.sip.message import Response
from sipserver.sip.timers import TIMER_C, Timers
from sipserver.sip.transaction.server import Server
from support.proxy import KEY, Driver, flow, kinds, plan, replied, request, response, targets


def invite(number: int = 1, **more: Any) -> Driver:
    """An INVITE to so many devices at once, sent."""
    driver = Driver(request(), plan(targets(number)), **more)
    driver.start()
    return driver


def cancels(effects: list[Effect]) -> list[int]:
    """The branches that are cancelled."""
    return [effect.branch for effect in effects if isinstance(effect, CancelBranch)]


# beginning


def test_invite_is_answered_100_first_and_sent_with_timer_c() -> None:
    driver = Driver(request(), plan(targets(1)))
    assert kinds(driver.start()) == ["100", "NeedFlow", "tried", "timer C", "Forward"]


def test_other_request_is_not_answered_100_at_once() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(1)))
    assert kinds(driver.start()) == ["timer trying", "NeedFlow", "Forward"]


def test_other_request_is_answered_100_when_it_takes_long() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(1)))
    driver.start()
    assert kinds(driver.do(driver.context.on_timer(0, TRYING))) == ["100"]
    driver.answer(0, 200)
    assert driver.context.on_timer(0, TRYING) == ()


def test_flow_is_asked_for_with_the_target() -> None:
    asked = [effect for effect in invite().log if isinstance(effect, NeedFlow)]
    assert asked[0].target is not None
    assert (asked[0].dialog, asked[0].reliable, asked[0].uri.host) == (None, False, "192.0.2.20")


def test_flow_may_come_later() -> None:
    driver = Driver(request(), plan(targets(1)), resolve=False)
    assert kinds(driver.start()) == ["100", "NeedFlow"]
    assert kinds(driver.do(driver.context.on_flow(0, flow()))) == ["tried", "timer C", "Forward"]
    assert driver.context.on_flow(0, flow()) == ()


def test_response_before_anything_was_sent_is_ignored() -> None:
    driver = invite()
    late = response(driver.sent[0], 200)
    other = Driver(request(), plan(targets(1)), resolve=False)
    other.start()
    assert other.context.on_response(0, late) == ()
    assert other.context.on_failed(0, TIMED_OUT) == ()


# size (§18.1.1)


def test_large_request_asks_for_a_stream() -> None:
    driver = Driver(request(body=b"x" * 1300), plan(targets(1)), resolve=False)
    driver.start()
    happened = driver.do(driver.context.on_flow(0, flow()))
    assert kinds(happened) == ["NeedFlow"]
    assert isinstance(happened[0], NeedFlow)
    assert happened[0].reliable
    happened = driver.do(driver.context.on_flow(0, flow(transport="TCP")))
    assert "Via: SIP/2.0/TCP" in driver.sent[0].lines[0]


def test_large_request_goes_by_udp_where_there_is_no_stream() -> None:
    driver = Driver(request(body=b"x" * 1300), plan(targets(1)), resolve=False)
    driver.start()
    driver.do(driver.context.on_flow(0, flow()))
    assert kinds(driver.do(driver.context.on_no_flow(0, 503, "No"))) == ["tried", "timer C", "Forward"]
    assert "Via: SIP/2.0/UDP" in driver.sent[0].lines[0]


def test_large_request_goes_by_udp_where_the_uri_says_so() -> None:
    driver = Driver(request(body=b"x" * 1300), plan([Target("sip:bob@192.0.2.20;transport=udp")]))
    assert kinds(driver.start())[-1] == "Forward"


# answers


def test_100_goes_no_further() -> None:
    assert kinds(invite().answer(0, 100)) == []


def test_ringing_goes_upstream_at_once_and_sets_timer_c_again() -> None:
    driver = invite()
    assert kinds(driver.answer(0, 180)) == ["timer C", "rang", "180"]
    assert kinds(driver.answer(0, 180)) == ["timer C", "180"]
    assert kinds(driver.answer(0, 183)) == ["timer C", "rang", "183"]
    assert kinds(invite().answer(0, 199)) == ["timer C", "199"]


def test_ringing_of_another_dialog_and_every_body_is_an_event() -> None:
    driver = invite()
    driver.answer(0, 180, tag="a")
    assert "rang" in kinds(driver.answer(0, 180, tag="b"))
    assert "rang" not in kinds(driver.answer(0, 180, tag="b"))
    assert "rang" in kinds(driver.answer(0, 180, tag="b", body=b"x"))
    assert "rang" in kinds(driver.answer(0, 180, tag="b", body=b"x"))


def test_another_endpoint_behind_a_branch_that_answers_is_an_event() -> None:
    driver = invite()
    driver.answer(0, 200, tag="a")
    assert kinds(driver.answer(0, 200, tag="a")) == ["200"]
    assert kinds(driver.answer(0, 200, tag="b")) == ["answered", "200"]
    assert kinds(driver.answer(0, 200, tag="b")) == ["200"]


def test_response_goes_upstream_without_our_via_and_otherwise_as_it_came() -> None:
    message = replied(invite().answer(0, 180, "X-Odd : a ,b", body=b"\x00"))
    assert [via.branch for via in message.vias] == ["z9hG4bKcaller"]
    assert "X-Odd : a ,b" in message.lines
    assert message.body == b"\x00"


def test_success_is_written_down_before_it_is_passed_on() -> None:
    driver = invite()
    happened = driver.answer(0, 200)
    assert kinds(happened) == ["timer linger", "answered", "200"]
    assert isinstance(happened[-1], Reply)
    assert happened[-1].durable


def test_every_2xx_is_passed_on_and_waits_like_the_first() -> None:
    driver = invite()
    driver.answer(0, 200)
    happened = driver.answer(0, 200)
    assert kinds(happened) == ["200"]
    assert isinstance(happened[0], Reply)
    assert happened[0].durable


def test_2xx_of_two_branches_are_both_passed_on() -> None:
    driver = invite(2)
    driver.answer(0, 200, tag="a")
    happened = driver.answer(1, 200, tag="b")
    assert kinds(happened) == ["timer linger", "answered", "200"]
    assert replied(happened).to_tag == "b"


def test_success_cancels_the_others_with_the_reason() -> None:
    driver = invite(3)
    for branch in range(3):
        driver.answer(branch, 180)
    happened = driver.answer(1, 200)
    assert cancels(happened) == [0, 2]
    cancel = next(effect for effect in happened if isinstance(effect, CancelBranch))
    assert 'Reason: SIP;cause=200;text="Call completed elsewhere"' in cancel.request.lines
    assert cancel.request.branch == driver.sent[0].branch
    assert cancel.request.method == "CANCEL"


def test_cancel_waits_for_a_provisional_response() -> None:
    driver = invite(2)
    assert cancels(driver.answer(0, 200)) == []
    assert cancels(driver.answer(1, 100)) == [1]
    assert cancels(driver.answer(1, 180)) == []


def test_provisional_after_the_final_answer_is_dropped() -> None:
    driver = invite(2)
    driver.answer(1, 180)
    driver.answer(0, 200)
    assert kinds(driver.answer(1, 180)) == []


def test_context_ends_when_nothing_can_come_any_more() -> None:
    driver = invite(2)
    driver.answer(1, 180)
    driver.answer(0, 200)
    assert kinds(driver.do(driver.context.on_timer(0, LINGER))) == []
    assert kinds(driver.answer(1, 487)) == ["branch_failed", "Done"]
    assert driver.context.done
    assert driver.context.final == 200


def test_nothing_happens_after_done() -> None:
    driver = invite()
    late = response(driver.sent[0], 200)
    assert kinds(driver.answer(0, 486)) == ["branch_failed", "failed", "486", "Done"]
    context = driver.context
    assert context.on_response(0, late) == ()
    assert context.on_timer(0, LINGER) == ()
    assert context.on_failed(0, TIMED_OUT) == ()
    assert context.on_cancel(None) == ()
    assert context.on_flow(0, flow()) == ()
    assert context.on_no_flow(0, 480, "No") == ()


def test_refusal_waits_for_the_other_branches() -> None:
    driver = invite(2)
    assert kinds(driver.answer(0, 486)) == ["branch_failed"]
    assert kinds(driver.answer(1, 404)) == ["branch_failed", "failed", "486", "Done"]


def test_groups_are_tried_one_after_the_other() -> None:
    driver = Driver(request(), plan(targets(2), [Target("sip:c@192.0.2.30", 100)]))
    driver.start()
    driver.answer(0, 486)
    assert kinds(driver.answer(1, 480)) == ["branch_failed", "NeedFlow", "tried", "timer C", "Forward"]
    assert kinds(driver.answer(2, 404)) == ["branch_failed", "failed", "486", "Done"]


def test_later_groups_are_not_tried_after_a_success() -> None:
    driver = Driver(request(), plan(targets(2), targets(1)))
    driver.start()
    driver.answer(0, 200)
    assert kinds(driver.answer(1, 486)) == ["branch_failed"]
    assert kinds(driver.do(driver.context.on_timer(0, LINGER))) == ["Done"]


def test_6xx_cancels_all_and_starts_nothing_new() -> None:
    driver = Driver(request(), plan(targets(3), targets(1)))
    driver.start()
    driver.answer(1, 180)
    happened = driver.answer(0, 603)
    assert cancels(happened) == [1]
    assert driver.statuses() == [100, 180]
    assert cancels(driver.answer(2, 180)) == [2]
    driver.answer(1, 487)
    assert kinds(driver.answer(2, 487)) == ["branch_failed", "failed", "603", "Done"]


def test_2xx_beats_a_6xx_that_was_not_passed_on_yet() -> None:
    driver = invite(2)
    driver.answer(0, 600)
    assert "200" in kinds(driver.answer(1, 200))
    assert driver.statuses() == [100, 200]


def test_only_503_becomes_500() -> None:
    driver = invite()
    happened = driver.answer(0, 503)
    assert kinds(happened) == ["branch_failed", "failed", "500", "Done"]
    assert replied(happened).to_tag == "p" + KEY


def test_challenges_of_all_branches_are_collected() -> None:
    driver = invite(4)
    driver.answer(0, 407, "Proxy-Authenticate: a", "Proxy-Authenticate: b")
    driver.answer(1, 401, "WWW-Authenticate: c")
    driver.answer(2, 486, "WWW-Authenticate: no")
    message = replied(driver.answer(3, 407, "proxy-authenticate: d", "X: no"))
    assert message.status == 407
    assert message.headers("proxy-authenticate") == ["a", "b", "d"]
    assert message.headers("www-authenticate") == ["c"]


def test_redirection_is_passed_on() -> None:
    message = replied(invite().answer(0, 302, "Contact: <sip:elsewhere>"))
    assert (message.status, message.header("contact")) == (302, "<sip:elsewhere>")


def test_response_with_no_other_via_than_ours_is_not_passed_on() -> None:
    driver = invite()
    happened = []
    for status in (180, 200):
        answer = response(driver.sent[0], status)
        position = len(answer.names) - 1 - answer.names[::-1].index("via")
        del answer.lines[position], answer.names[position]
        happened += driver.do(driver.context.on_response(0, answer))
    assert kinds(happened) == ["branch_failed", "failed", "502", "Done"]


def test_branch_that_ended_is_heard_no_more_but_for_a_2xx() -> None:
    driver = invite(2)
    driver.answer(0, 486)
    assert kinds(driver.answer(0, 180)) == []
    assert kinds(driver.answer(0, 404)) == []
    answer = response(driver.sent[0], 486)
    del answer.lines[1], answer.names[1]
    assert kinds(driver.do(driver.context.on_response(0, answer))) == []
    assert driver.context.on_failed(0, TIMED_OUT) == ()


# failures


def test_timeout_counts_as_408_and_no_transport_as_503() -> None:
    driver = invite(2)
    happened = driver.do(driver.context.on_failed(0, UNREACHABLE))
    assert isinstance(happened[0], CallEvent)
    assert (happened[0].kind, happened[0].status, happened[0].cause) == (BRANCH_FAILED, 503, UNREACHABLE)
    happened = driver.do(driver.context.on_failed(1, TIMED_OUT))
    assert kinds(happened) == ["branch_failed", "failed", "408", "Done"]


def test_branch_without_a_flow_counts_with_the_status_given() -> None:
    driver = Driver(request(), plan(targets(1)), resolve=False)
    driver.start()
    happened = driver.do(driver.context.on_no_flow(0, 480, "Device Not Connected"))
    assert kinds(happened) == ["tried", "branch_failed", "failed", "480", "Done"]
    assert replied(happened).reason == "Device Not Connected"


def test_contact_that_cannot_be_read_counts_as_unreachable() -> None:
    driver = Driver(request(), plan([Target("sip:bob@")]))
    assert kinds(driver.start()) == ["100", "NoHop", "tried", "branch_failed", "failed", "500", "Done"]


def test_failures_of_an_invite_are_told_whose_they_are() -> None:
    driver = invite()
    failed = [effect for effect in driver.answer(0, 486) if isinstance(effect, CallEvent)]
    assert [(event.kind, event.status, event.message is None) for event in failed] == [
        (BRANCH_FAILED, 486, False), (FAILED, 486, False),
    ]  # fmt: skip


# breadth (RFC 5393)


def breadths(driver: Driver) -> list[str]:
    """The Max-Breadth of each branch."""
    return [next(line for line in sent.lines if line.startswith("Max-B")) for sent in driver.sent.values()]


def test_branches_share_the_breadth() -> None:
    assert breadths(invite(3)) == ["Max-Breadth: 20"] * 3
    assert breadths(invite(1)) == ["Max-Breadth: 60"]


def test_branches_beyond_the_breadth_wait_for_others_to_end() -> None:
    driver = Driver(request(), plan(targets(3), breadth=2))
    driver.start()
    assert sorted(driver.sent) == [0, 1]
    driver.answer(1, 486)
    assert sorted(driver.sent) == [0, 1, 2]
    assert breadths(driver) == ["Max-Breadth: 1"] * 3


def test_branches_that_wait_are_not_begun_after_a_success() -> None:
    driver = Driver(request(), plan(targets(2), breadth=1))
    driver.start()
    driver.answer(0, 200)
    driver.do(driver.context.on_timer(0, LINGER))
    assert sorted(driver.sent) == [0]
    assert driver.context.done


# CANCEL (§16.10)


def test_cancel_goes_to_every_ringing_branch_with_its_reason() -> None:
    driver = invite(3)
    driver.answer(0, 180)
    driver.answer(1, 486)
    cancel = request("CANCEL", "sip:bob@example.test", "Reason: Q.850;cause=16;\r\n text=x")
    happened = driver.do(driver.context.on_cancel(cancel))
    assert kinds(happened) == ["cancelled", "CancelBranch", "timer cancelling"]
    assert isinstance(happened[1], CancelBranch)
    assert "Reason: Q.850;cause=16; text=x" in happened[1].request.lines
    assert cancels(driver.answer(2, 100)) == [2]
    driver.answer(0, 487)
    assert kinds(driver.answer(2, 487)) == ["branch_failed", "failed", "487", "Done"]


def test_cancel_without_a_reason_has_none() -> None:
    driver = invite()
    driver.answer(0, 180)
    happened = driver.do(driver.context.on_cancel(request("CANCEL")))
    (cancel,) = [effect.request for effect in happened if isinstance(effect, CancelBranch)]
    assert not [line for line in cancel.lines if line.startswith("Reason")]


def test_cancel_before_anything_was_sent_is_487_at_once() -> None:
    driver = Driver(request(), plan(targets(2), targets(1)), resolve=False)
    driver.start()
    assert kinds(driver.do(driver.context.on_cancel(None))) == ["cancelled", "failed", "487", "Done"]


def test_flow_that_comes_after_the_cancel_is_not_used() -> None:
    driver = Driver(request(), plan(targets(2)), resolve=False)
    driver.start()
    driver.do(driver.context.on_flow(0, flow()))
    driver.do(driver.context.on_cancel(None))
    assert driver.context.on_flow(1, flow()) == ()
    assert driver.context.on_no_flow(1, 480, "x") == ()


def test_success_that_crosses_the_cancel_is_passed_on() -> None:
    driver = invite()
    driver.answer(0, 180)
    driver.do(driver.context.on_cancel(None))
    assert kinds(driver.answer(0, 200)) == ["timer linger", "answered", "200"]


def test_second_cancel_and_cancel_after_the_answer_do_nothing() -> None:
    driver = invite()
    driver.answer(0, 180)
    driver.do(driver.context.on_cancel(None))
    assert driver.context.on_cancel(None) == ()
    driver = invite()
    driver.answer(0, 200)
    assert driver.context.on_cancel(None) == ()


def test_request_other_than_invite_cannot_be_cancelled() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(1)))
    driver.start()
    assert driver.context.on_cancel(None) == ()


def test_cancelled_branch_that_never_ends_is_given_up() -> None:
    driver = invite()
    driver.answer(0, 180)
    driver.do(driver.context.on_cancel(None))
    assert kinds(driver.do(driver.context.on_timer(0, CANCELLING))) == ["branch_failed", "failed", "487", "Done"]


def test_branch_that_was_given_up_and_answers_after_all_counts() -> None:
    driver = invite(2)
    driver.answer(0, 180)
    driver.answer(1, 180)
    driver.do(driver.context.on_cancel(None))
    driver.do(driver.context.on_timer(0, CANCELLING))
    assert kinds(driver.answer(0, 200)) == ["timer linger", "answered", "200"]
    driver.answer(1, 487)
    assert driver.statuses() == [100, 180, 180, 200]


def test_cancelled_caller_is_told_so_even_after_a_redirection() -> None:
    driver = invite(2)
    driver.answer(0, 302)
    driver.answer(1, 180)
    driver.do(driver.context.on_cancel(None))
    assert "487" in kinds(driver.answer(1, 487))


# timer C (§16.8)


def test_timer_c_cancels_a_ringing_branch_and_the_caller_gets_408() -> None:
    driver = invite()
    driver.answer(0, 180)
    assert kinds(driver.do(driver.context.on_timer_c(0))) == []
    happened = driver.do(driver.context.on_timer_c(0))
    assert kinds(happened) == ["CancelBranch", "timer cancelling"]
    assert kinds(driver.answer(0, 487)) == ["branch_failed", "failed", "408", "Done"]


def test_branch_that_fails_tells_whether_its_device_was_heard() -> None:
    def failed(effects: list[Effect]) -> list[bool]:
        return [each.heard for each in effects if isinstance(each, CallEvent) and each.kind == BRANCH_FAILED]

    ringing, silent = invite(), invite()
    ringing.answer(0, 100)
    ringing.do(ringing.context.on_timer_c(0))
    assert failed(ringing.answer(0, 487)) == [True]
    assert failed(silent.do(silent.context.on_timer_c(0))) == [False]


def test_device_that_timer_c_stopped_says_who_it_is() -> None:
    driver = invite()
    driver.answer(0, 180)
    driver.do(driver.context.on_timer_c(0))
    driver.do(driver.context.on_timer_c(0))
    effects = driver.answer(0, 487)
    (event,) = [each for each in effects if isinstance(each, CallEvent) and each.kind == BRANCH_FAILED]
    assert (event.status, event.cause) == (408, TIMED_OUT)
    assert isinstance(event.message, Response)
    assert event.message.status == 487


def test_timer_c_ends_a_silent_branch_as_408() -> None:
    driver = invite()
    assert kinds(driver.do(driver.context.on_timer(0, TIMER_C))) == ["branch_failed", "failed", "408", "Done"]


def test_timer_that_belongs_to_no_state_of_the_branch_is_ignored() -> None:
    driver = invite()
    assert kinds(driver.do(driver.context.on_timer(0, LINGER))) == []
    driver.answer(0, 200)
    assert kinds(driver.do(driver.context.on_timer_c(0))) == []
    assert kinds(driver.do(driver.context.on_timer(0, CANCELLING))) == []


def test_flood_of_provisional_responses_sets_few_timers() -> None:
    driver = invite()
    for _ in range(100):
        driver.answer(0, 180)
    armed = [effect for effect in driver.log if isinstance(effect, SetBranchTimer)]
    assert len(armed) == 4
    for _ in range(3):
        driver.do(driver.context.on_timer_c(0))
    assert kinds(driver.do(driver.context.on_timer_c(0))) == ["timer C"]
    assert cancels(driver.do(driver.context.on_timer_c(0))) == [0]


def test_branch_given_up_by_timer_c_is_408_when_it_never_ends() -> None:
    driver = invite()
    driver.answer(0, 100)
    driver.do(driver.context.on_timer_c(0))
    assert kinds(driver.do(driver.context.on_timer(0, CANCELLING))) == ["branch_failed", "failed", "408", "Done"]


# requests other than INVITE


def test_provisional_of_another_method_is_dropped() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(1)))
    driver.start()
    assert kinds(driver.answer(0, 183)) == []


def test_first_2xx_of_another_method_ends_it() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(2)))
    driver.start()
    happened = driver.answer(0, 202)
    assert kinds(happened) == ["202", "Done"]
    assert isinstance(happened[0], Reply)
    assert not happened[0].durable


def test_timeout_of_another_method_ends_its_transaction_and_nothing_is_sent() -> None:
    for answered in (False, True):
        driver = Driver(request("MESSAGE"), plan(targets(1)))
        driver.start()
        happened = driver.answer(0, 408) if answered else driver.do(driver.context.on_failed(0, TIMED_OUT))
        assert kinds(happened) == ["408", "Done"]
        assert isinstance(happened[0], Reply)
        transaction = Server(reliable=True, timers=Timers())
        assert list(transaction.respond(happened[0].status, happened[0].data)) == [Terminated()]


def test_branch_that_ended_does_not_answer_again() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(2)))
    driver.start()
    driver.answer(0, 486)
    assert kinds(driver.answer(0, 200)) == []
    assert kinds(driver.answer(1, 200)) == ["200", "Done"]


def test_6xx_to_another_method_waits_since_it_cannot_cancel() -> None:
    driver = Driver(request("MESSAGE"), plan(targets(3)), resolve=False)
    driver.start()
    for branch in (0, 1):
        driver.do(driver.context.on_flow(branch, flow()))
    driver.answer(1, 100)
    assert kinds(driver.answer(0, 603)) == []
    assert kinds(driver.answer(1, 200)) == ["200", "Done"]


def test_events_name_the_device_and_its_flow() -> None:
    driver = invite()
    events = [effect for effect in driver.log if isinstance(effect, CallEvent)]
    assert [(event.kind, event.branch) for event in events] == [(TRIED, 0)]
    assert events[0].target is not None
    assert events[0].flow is not None
    assert [effect.branch for effect in driver.log if isinstance(effect, Forward)] == [0]


def test_done_comes_once() -> None:
    driver = invite(2)
    driver.answer(0, 486)
    driver.answer(1, 486)
    assert kinds(driver.log).count("Done") == 1
    assert isinstance(driver.log[-1], Done)
