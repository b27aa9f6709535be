"""Requests inside a dialog, and how its sides are reached (proxy/fork.py)."""

from __future__ import annotations

from typing import Any

import pytest

from sipserver.proxy.effects import CHANGED, CallEvent, Learn, NeedFlow, Reply
from sipserver.proxy.plan import Target
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.effects import TIMED_OUT, UNREACHABLE
from sipserver.sip.message import Response
from support.proxy import KEY, MINTER, Driver, flow, kinds, plan, replied, request, targets


def in_dialog(method: str, side: str = CALLER, **more: Any) -> Driver:
    """A request inside the dialog, sent."""
    made = plan([Target("sip:bob@192.0.2.20")], dialog=(KEY, side), located=False)
    made.record_route = method in ("INVITE", "UPDATE")
    driver = Driver(request(method, "sip:bob@192.0.2.20", to="<sip:bob@example.test>;tag=to1"), made, **more)
    driver.start()
    return driver


def test_flow_to_the_other_side_is_asked_for() -> None:
    asked = [effect for effect in in_dialog("BYE", CALLER).log if isinstance(effect, NeedFlow)]
    assert (asked[0].target, asked[0].dialog) == (None, (KEY, CALLEE))


@pytest.mark.parametrize("side", [CALLER, CALLEE])
def test_accepted_bye_ends_the_call_and_is_written_down_first(side: str) -> None:
    happened = in_dialog("BYE", side).answer(0, 200)
    assert kinds(happened) == ["ended", "200", "Done"]
    assert isinstance(happened[0], CallEvent)
    assert isinstance(happened[1], Reply)
    assert (happened[0].side, happened[0].status, happened[1].durable) == (side, 200, True)


def test_bye_for_an_unknown_dialog_ends_the_call() -> None:
    assert kinds(in_dialog("BYE").answer(0, 481)) == ["ended", "481", "Done"]


def test_bye_that_is_not_answered_ends_the_call() -> None:
    driver = in_dialog("BYE")
    happened = driver.do(driver.context.on_failed(0, TIMED_OUT))
    assert kinds(happened) == ["ended", "408", "Done"]
    assert isinstance(happened[0], CallEvent)
    assert (happened[0].cause, happened[0].status) == (TIMED_OUT, 408)
    assert kinds(in_dialog("BYE").answer(0, 408)) == ["ended", "408", "Done"]


def test_bye_that_cannot_be_delivered_ends_the_call() -> None:
    driver = in_dialog("BYE")
    assert kinds(driver.do(driver.context.on_failed(0, UNREACHABLE))) == ["ended", "500", "Done"]


@pytest.mark.parametrize("status", [403, 407, 500, 503])
def test_refused_bye_leaves_the_call_on(status: int) -> None:
    assert "ended" not in kinds(in_dialog("BYE").answer(0, status))


def test_bye_outside_of_a_dialog_ends_no_call() -> None:
    driver = Driver(request("BYE"), plan(targets(1)))
    driver.start()
    assert kinds(driver.answer(0, 200)) == ["200", "Done"]
    driver = Driver(request("BYE"), plan(targets(1)))
    driver.start()
    assert kinds(driver.answer(0, 481)) == ["481", "Done"]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_accepted_change_is_an_event_with_request_and_response(method: str) -> None:
    happened = in_dialog(method, CALLEE).answer(0, 200)
    event = next(effect for effect in happened if isinstance(effect, CallEvent))
    assert (event.kind, event.side) == (CHANGED, CALLEE)
    assert event.request is not None
    assert event.request.method == method
    assert isinstance(event.message, Response)
    assert [effect.durable for effect in happened if isinstance(effect, Reply)] == [False]


def test_refused_change_is_no_event() -> None:
    driver = in_dialog("INVITE")
    driver.answer(0, 180)
    assert kinds(driver.answer(0, 488)) == ["488", "Done"]
    assert not [effect for effect in driver.log if isinstance(effect, CallEvent)]


def test_own_answer_inside_a_dialog_keeps_the_to_tag() -> None:
    driver = in_dialog("INVITE")
    assert replied(driver.do(driver.context.on_failed(0, TIMED_OUT))).to_tag == "to1"


def test_record_route_of_a_change_carries_the_dialogs_token() -> None:
    line = next(line for line in in_dialog("UPDATE").sent[0].lines if line.startswith("Record-Route"))
    assert f"vc={MINTER.token(KEY, 'call-1', 'from1')}>" in line


# which connections are learned


def learned(driver: Driver) -> list[tuple[str, str, str]]:
    """What was learned: side, hop, transport."""
    return [(each.side, each.hop, each.flow.transport) for each in driver.log if isinstance(each, Learn)]


def over_tcp(message: Any, made: Any) -> Driver:
    """A request whose both sides are reached over TCP, sent."""
    driver = Driver(message, made, from_flow=flow(transport="TCP"), resolve=False)
    driver.start()
    driver.do(driver.context.on_flow(0, flow("192.0.2.20", 5060, "TCP")))
    return driver


def test_connections_of_both_sides_are_learned() -> None:
    driver = over_tcp(request(), plan(targets(1)))
    assert learned(driver) == [(CALLER, "sip:alice@192.0.2.1:5070", "TCP")]
    driver.answer(0, 180, "Contact: <sip:bob@x.invalid>")
    driver.answer(0, 200, "Contact: <sip:bob@x.invalid>")
    assert learned(driver)[1:] == [(CALLEE, "sip:bob@x.invalid", "TCP")]


def test_learning_comes_before_the_answer() -> None:
    driver = over_tcp(request(), plan(targets(1)))
    assert kinds(driver.answer(0, 200, "Contact: <sip:b@h>")) == ["timer linger", "Learn", "answered", "200"]


def test_nothing_is_learned_of_datagrams_or_without_a_tag_or_contact() -> None:
    driver = Driver(request(), plan(targets(1)))
    driver.start()
    driver.answer(0, 200, "Contact: <sip:b@h>")
    assert learned(driver) == []
    driver = over_tcp(request(), plan(targets(1)))
    driver.answer(0, 180, "Contact: <sip:b@h>", tag=None)
    driver.answer(0, 183)
    assert len(learned(driver)) == 1


def test_nothing_is_learned_of_what_forms_no_dialog() -> None:
    driver = over_tcp(request("MESSAGE"), plan(targets(1), record_route=False))
    driver.answer(0, 200, "Contact: <sip:b@h>")
    assert learned(driver) == []


def test_target_refresh_is_learned_when_it_is_accepted() -> None:
    made = plan([Target("sip:alice@192.0.2.1")], dialog=(KEY, CALLEE), located=False)
    driver = over_tcp(request("INVITE", to="<sip:b@h>;tag=to1"), made)
    driver.answer(0, 183, "Contact: <sip:a@new>")
    assert learned(driver) == []
    driver.answer(0, 200, "Contact: <sip:a@new>")
    assert learned(driver) == [(CALLEE, "sip:alice@192.0.2.1:5070", "TCP"), (CALLER, "sip:a@new", "TCP")]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("INVITE", "changed"), ("UPDATE", "changed"), ("PRACK", "changed"), ("REFER", "referred"),
        ("NOTIFY", "retargeted"), ("SUBSCRIBE", "retargeted"), ("INFO", None), ("MESSAGE", None),
    ],
)  # fmt: skip
def test_what_is_accepted_inside_a_dialog_is_an_event_of_its_kind(method: str, kind: str | None) -> None:
    happened = in_dialog(method, CALLEE).answer(0, 200)
    events = [effect for effect in happened if isinstance(effect, CallEvent)]
    assert [(event.kind, event.side) for event in events] == ([(kind, CALLEE)] if kind else [])


def test_description_in_an_18x_to_a_reinvite_is_an_event() -> None:
    driver = in_dialog("INVITE")
    assert "progressed" not in kinds(driver.answer(0, 183))
    (event,) = [effect for effect in driver.answer(0, 183, body=b"x") if isinstance(effect, CallEvent)]
    assert (event.kind, event.side, event.status) == ("progressed", CALLER, 183)
    assert event.request is not None
