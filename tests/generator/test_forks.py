"""Forks whose BYEs come, and are answered, in any order: the record says what the wire tells."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from sipserver.calls.events import CALLEE, CALLER, Answered, Confirmed, Ended, Event, HangingUp, Placed, Tried
from sipserver.calls.machine import Call
from sipserver.calls.rows import CallAnswered, CallEnded, Row
from support.generator.story import tell
from support.generator.wire import Seen
from support.machine import of, one


@dataclass(frozen=True, slots=True)
class HangUp:
    """A BYE of one side in one dialog; times are milliseconds, all different."""

    dialog: int
    side: str
    asked: int
    accepted: int


@st.composite
def hang_ups(draw: st.DrawFn) -> list[HangUp]:
    """For each of two or three dialogs a BYE of either side, or of both."""
    sides = [draw(st.sampled_from([(CALLER,), (CALLEE,), (CALLER, CALLEE)])) for _ in range(draw(st.integers(2, 3)))]
    count = 2 * sum(len(each) for each in sides)
    times = iter(draw(st.permutations(range(count))))
    made = []
    for dialog, some in enumerate(sides):
        for side in some:
            asked, accepted = sorted((2_000 + next(times), 2_000 + next(times)))
            made.append(HangUp(dialog, side, asked, accepted))
    return made


def by_the_wire(made: list[HangUp], dialogs: int) -> tuple[str, int, str]:
    """Who had the call, and when it ended by whom, as the messages say."""

    def seen(at: int, status: int, method: str, from_tag: str, to_tag: str, number: int) -> Seen:
        return Seen(at / 1000, True, 0, "udp", status, method, number, "call", from_tag, to_tag, f"{method}{from_tag}")

    messages = [seen(0, 0, "INVITE", "c1", "", 2)]
    for dialog in range(dialogs):
        messages.append(seen(1_000 + dialog, 200, "INVITE", "c1", f"d{dialog}", 2))
        messages.append(seen(1_100 + dialog, 0, "ACK", "c1", f"d{dialog}", 2))
    for each in made:
        tags = ("c1", f"d{each.dialog}") if each.side == CALLER else (f"d{each.dialog}", "c1")
        messages.append(seen(each.asked, 0, "BYE", *tags, 3))
        messages.append(seen(each.accepted, 200, "BYE", *tags, 3))
    (story,) = tell(sorted(messages, key=lambda each: each.at), "c1")
    assert story.end is not None
    return story.kept, round(story.end.at * 1000), story.end.side


def by_the_machine(made: list[HangUp], dialogs: int) -> tuple[str, int, str]:
    """The same, as the record says."""
    call = Call("id", Placed(0, "key", "call", tag="c1", number=2))
    call.start()
    events: list[tuple[int, Event]] = []
    for dialog in range(dialogs):
        tag = f"d{dialog}"
        events.append((1 + dialog, Tried(1 + dialog, dialog)))
        events.append((1_000 + dialog, Answered(1_000 + dialog, dialog, agent=tag, tag=tag)))
        events.append((1_100 + dialog, Confirmed(1_100 + dialog, tag=tag)))
    for each in made:
        tag = f"d{each.dialog}"
        if each.side == CALLER:
            events.append((each.asked, HangingUp(each.asked, tag)))
        events.append((each.accepted, Ended(each.accepted, each.side, tag=tag, asked_at=each.asked)))
    rows: list[Row] = []
    for _, event in sorted(events, key=lambda each: each[0]):
        rows += call.handle(event)
    end = one(CallEnded, rows)
    return of(CallAnswered, rows)[-1].agent or "", end.ended_at, end.ended_by


@given(hang_ups())
@example([HangUp(0, CALLER, 2_001, 2_004), HangUp(1, CALLER, 2_002, 2_003)])
@example([HangUp(0, CALLEE, 2_001, 2_002), HangUp(1, CALLER, 2_003, 2_004)])
def test_record_and_wire_agree_on_who_had_the_call(made: list[HangUp]) -> None:
    dialogs = 1 + max(each.dialog for each in made)
    assert by_the_machine(made, dialogs) == by_the_wire(made, dialogs)
