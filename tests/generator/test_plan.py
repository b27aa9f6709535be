"""Plans are the same for one seed, and have everything that calls can come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.generator.people import populate
from support.generator.plan import (
    AUDIO,
    CALLEE,
    CALLER,
    SLIDES,
    VIDEO,
    CallPlan,
    Change,
    Cut,
    Forge,
    Refer,
    RefusedBye,
)
from support.generator.planner import Planner


def plans(seed: int, calls: int = 400) -> list[CallPlan]:
    return list(Planner(seed, calls, 60.0).plans())


def test_plans_of_one_seed_are_the_same_and_of_another_different() -> None:
    assert plans(3) == plans(3)
    assert plans(3) != plans(4)


def test_plans_begin_with_one_of_each_scenario() -> None:
    early, late = ({plan.scenario for plan in some} for some in (plans(5, 45), plans(5, 1_000)))
    assert {name.partition("_")[0] for name in late} == {name.partition("_")[0] for name in early}


@pytest.mark.parametrize(
    "outcome", ["answered", "cancelled", "declined", "busy", "no_answer", "offline", "not_found", "forbidden", "failed"]
)
def test_plans_have_every_outcome(outcome: str) -> None:
    assert outcome in {plan.outcome for plan in plans(1, 1_000)}


@pytest.mark.parametrize("kind", [Change, Cut, Forge, Refer, RefusedBye])
def test_plans_have_every_step(kind: type) -> None:
    assert any(isinstance(step, kind) for plan in plans(1) for _, step in plan.steps)


@pytest.mark.parametrize("end", ["bye", "double", "late", "deserted", "unconfirmed"])
def test_plans_have_every_end(end: str) -> None:
    assert end in {plan.end for plan in plans(1)}


def test_numbers_are_given_once_and_calls_that_ride_are_set_off_by_a_step() -> None:
    made = plans(2)
    numbers = {plan.number: plan for plan in made}
    assert len(numbers) == len(made)
    for plan in made:
        if plan.rides >= 0:
            steps = [step for _, step in numbers[plan.rides].steps if isinstance(step, Refer)]
            assert any(plan in (step.call, step.consult) for step in steps)


def test_every_device_of_the_callee_has_an_act() -> None:
    assert all(len(plan.acts) == len(plan.callee.devices) for plan in plans(6))


def test_twins_share_a_call_id_and_have_different_callers() -> None:
    made = {plan.number: plan for plan in plans(7)}
    pairs = [(made[plan.call_id_of], plan) for plan in made.values() if plan.call_id_of >= 0]
    assert pairs
    assert all(one.wire_id == other.wire_id and one.caller != other.caller for one, other in pairs)


def test_streams_are_never_taken_out_of_a_description() -> None:
    for plan in plans(8, 1_000):
        media = plan.agreed
        for _, step in plan.steps:
            if isinstance(step, Change) and step.media is not None and not step.glare:
                assert [each.kind for each in step.media[: len(media)]] == [each.kind for each in media]
                if step.status == 200:
                    media = step.media


def test_people_of_one_seed_are_the_same() -> None:
    assert populate(1) == populate(1)
    people = populate(1)
    assert len({user.name for user in people.everybody}) == len(people.everybody)
    assert all(len(user.devices) > 1 for user in people.pairs)
    assert {device.transport for user in people.everybody for device in user.devices} == {"UDP", "TCP"}


def test_a_call_that_is_held_is_planned() -> None:
    held = [
        step for plan in plans(9, 1_000) for _, step in plan.steps
        if isinstance(step, Change) and step.media and any(each.direction != "sendrecv" for each in step.media)
    ]  # fmt: skip
    assert {step.side for step in held} == {CALLER, CALLEE}
    assert {step.method for step in held} == {"INVITE", "UPDATE"}


def test_streams_differ_by_what_they_are() -> None:
    assert replace(AUDIO, direction="sendonly") != AUDIO
    assert len({AUDIO, VIDEO, SLIDES}) == 3


@pytest.mark.parametrize("end", ["stopped", "cut_off", "signed_off"])
def test_who_vanishes_does_so_once(end: str) -> None:
    made = [plan for plan in plans(1, 2_000) if plan.end == end]
    assert made
    if end != "stopped":
        gone = [plan.caller if plan.gone == CALLER else plan.callee for plan in made]
        assert len(gone) == len(set(gone))
        others = [user for plan in plans(1, 2_000) if plan not in made for user in (plan.caller, plan.callee)]
        assert not set(gone) & set(others)


def test_media_before_the_answer_are_planned_with_either_side_offering() -> None:
    early = [plan for plan in plans(1, 2_000) if plan.early]
    assert {plan.outcome for plan in early} == {"answered", "declined"}
    assert {plan.delayed for plan in early} == {True, False}


def test_sessions_are_refreshed_by_either_side_and_method() -> None:
    refreshes = [
        step for plan in plans(1, 2_000) for _, step in plan.steps if isinstance(step, Change) and step.refresh
    ]  # fmt: skip
    assert {(step.side, step.method) for step in refreshes} == {
        (side, method) for side in (CALLER, CALLEE) for method in ("INVITE", "UPDATE")
    }  # fmt: skip
