"""The machine of a call by events and rows: every arrow of its figure, every race that the figure allows."""

from __future__ import annotations

import pytest

from sipserver.calls import machine
from sipserver.calls.events import (
    CALLEE,
    CALLER,
    SERVER,
    Answered,
    BranchFailed,
    Cancelled,
    Changed,
    ClockStepped,
    Confirmed,
    Ended,
    Event,
    Failed,
    Placed,
    Rang,
    Seen,
    Tried,
)
from sipserver.calls.machine import Call
from sipserver.calls.rows import (
    CallAnswered,
    CallConfirmed,
    CallEnded,
    CallMedia,
    CallRang,
    CloseMedia,
    InsertBranch,
    InsertCall,
    InsertEvent,
    OpenBranch,
    OpenMedia,
)
from sipserver.sip import sdp
from sipserver.sip.sdp import Description
from support.machine import BOTH, VOICE, T, answered, feed, kinds, of, one, placed, ringing
from support.sdp import AUDIO, VIDEO, description


def ended(*events: Event) -> CallEnded:
    """How a call that was placed and went through these events ended."""
    return one(CallEnded, feed(placed(), *events))


# ---------------------------------------------------------------------- the figure


def test_placed_makes_the_row_of_the_call() -> None:
    row = Call("id", Placed(T, "key", "abc@host", "p1", "p2", "baresip", "UDP", "192.0.2.0/24", BOTH)).start()
    assert row == InsertCall("id", "abc@host", "p1", "p2", T, "baresip", "UDP", "192.0.2.0/24", 1)


@pytest.mark.parametrize(
    ("offer", "video"), [(None, None), (sdp.UNREADABLE, None), (description(AUDIO), 0), (description(VIDEO), 1)]
)
def test_placed_says_whether_video_was_offered(offer: Description | None, video: int | None) -> None:
    assert Call("id", Placed(T, "key", "x", offer=offer)).start().offered_video == video


def test_placed_to_ringing() -> None:
    call = placed()
    rows = feed(call, Tried(T + 5, 0), Rang(T + 100, 0, "phone"))
    assert rows == [CallRang("id", T + 100, 100)]
    assert call.state == machine.RINGING


def test_ringing_again_changes_nothing() -> None:
    assert feed(ringing(), Rang(T + 200, 0)) == []


def test_ringing_of_another_device_changes_only_its_own_row() -> None:
    call = ringing()
    assert feed(call, Tried(T + 6, 1), Rang(T + 300, 1)) == [OpenBranch("id", 1, T + 6, T + 300, None, None, None)]
    assert one(InsertBranch, feed(call, BranchFailed(T + 400, 1, 486))).ringing_at == T + 300


def test_device_is_on_record_since_it_was_tried() -> None:
    rows = feed(placed(), Tried(T + 5, 3, "TCP", "198.51.100.0/24", "phone"))
    assert rows == [OpenBranch("id", 3, T + 5, None, "phone", "TCP", "198.51.100.0/24")]


def test_device_that_rings_alone_costs_no_row_of_its_own_for_that() -> None:
    call = placed()
    feed(call, Tried(T + 5, 0))
    assert of(OpenBranch, call.handle(Rang(T + 100, 0))) == []


def test_ringing_is_put_on_its_device_as_soon_as_there_are_two() -> None:
    call = ringing()
    rows = call.handle(Tried(T + 300, 1))
    assert [(row.branch, row.ringing_at) for row in of(OpenBranch, rows)] == [(0, T + 100), (1, None)]
    assert of(OpenBranch, call.handle(Tried(T + 400, 2)))[0].branch == 2, "it is put once"


def test_ringing_of_an_unknown_device_still_rings() -> None:
    assert of(CallRang, feed(placed(), Rang(T + 100, 7)))


def test_ringing_to_answered() -> None:
    call = ringing()
    rows = feed(call, Answered(T + 2_100, 0, 200, "phone/2", BOTH))
    assert one(CallAnswered, rows) == CallAnswered(
        "id", T + 2_100, 200, 100, 2_000, "phone/2", "TCP", "198.51.100.0/24", 1, 1, 0, 0
    )
    assert one(InsertBranch, rows) == InsertBranch(
        "id", 0, T + 5, T + 100, T + 2_100, None, 200, "answered", "phone/2", "TCP", "198.51.100.0/24"
    )
    assert (call.state, call.outcome) == (machine.ANSWERED, "answered")


def test_placed_to_answered_has_setup_but_no_ringing() -> None:
    row = one(CallAnswered, feed(placed(), Tried(T, 0), Answered(T + 700, 0)))
    assert (row.setup_ms, row.ring_ms) == (700, None)


def test_agent_is_the_one_that_rang_where_the_answer_names_none() -> None:
    assert one(CallAnswered, feed(ringing(), Answered(T + 700, 0))).agent == "phone"


def test_answer_of_an_unknown_device_is_still_the_answer() -> None:
    assert one(CallAnswered, feed(placed(), Answered(T + 700, 3))).answered_at == T + 700


def test_answered_to_confirmed() -> None:
    call = answered()
    rows = feed(call, Confirmed(T + 2_200))
    assert rows == [CallConfirmed("id", T + 2_200)]
    assert call.state == machine.CONFIRMED


def test_confirmed_again_changes_nothing() -> None:
    assert feed(answered(), Confirmed(T + 2_200), Confirmed(T + 2_300)) == []


def test_confirmed_to_ended() -> None:
    call = answered()
    rows = feed(call, Confirmed(T + 2_200), Ended(T + 62_100, CALLEE, "bye", "tired"))
    assert one(CallEnded, rows) == CallEnded(
        "id", T + 62_100, "answered", None, "tired", CALLEE, "bye", None, 100, 2_000, 60_000, 60_000, 1
    )
    assert (call.state, call.talk_ms) == (machine.ENDED, 60_000)


def test_answered_to_ended_without_ack() -> None:
    assert one(CallEnded, feed(answered(), Ended(T + 3_100, CALLER))).talk_ms == 1_000


def test_end_says_how_long_the_bye_waited_for_its_answer() -> None:
    ended = Ended(T + 62_100, CALLEE, asked_at=T + 62_070)
    assert one(CallEnded, feed(answered(), ended)).disconnect_ms == 30
    given_up = Ended(T + 62_100, CALLEE, uncertainty_ms=32_000, asked_at=T + 62_100)
    assert one(CallEnded, feed(answered(), given_up)).disconnect_ms == 32_000
    lost = Ended(T + 62_100, SERVER, "connection_lost", uncertainty_ms=5_000)
    assert one(CallEnded, feed(answered(), lost)).disconnect_ms is None


def test_an_end_that_was_not_observed_says_how_uncertain_it_is() -> None:
    row = one(CallEnded, feed(answered(), Ended(T + 3_100, SERVER, "session_expired", None, 90_000)))
    assert (row.ended_by, row.end_cause, row.end_uncertainty_ms) == (SERVER, "session_expired", 90_000)


AFTER_THE_END: list[Event] = [
    Tried(T, 1), Rang(T, 1), Answered(T, 1), Confirmed(T), BranchFailed(T, 1, 486), Failed(T, 486, CALLEE),
    Cancelled(T), Changed(T, CALLER, BOTH, BOTH), Ended(T, CALLER),
]  # fmt: skip


@pytest.mark.parametrize("event", AFTER_THE_END, ids=lambda event: type(event).__name__)
def test_nothing_happens_after_the_end(event: Event) -> None:
    assert feed(answered(), Ended(T + 3_100, CALLER), event) == []


# ---------------------------------------------------------------------- calls that are not answered


def test_callee_is_busy() -> None:
    row = ended(Tried(T, 0), BranchFailed(T + 900, 0, 486), Failed(T + 900, 486, CALLEE, "Busy Here"))
    assert (row.outcome, row.status, row.reason, row.ended_by, row.end_cause) == (
        "busy", 486, "Busy Here", CALLEE, "refused"
    )  # fmt: skip
    assert (row.setup_ms, row.ring_ms, row.talk_ms, row.video_ms, row.devices) == (900, None, None, None, 1)


def test_callee_declines_by_saying_busy_after_ringing() -> None:
    row = ended(Tried(T, 0), Rang(T + 100, 0), BranchFailed(T + 900, 0, 486), Failed(T + 900, 486, CALLEE))
    assert (row.outcome, row.status, row.setup_ms, row.ring_ms) == ("declined", 486, 100, 800)


def test_refused_without_ringing_has_setup_until_the_refusal() -> None:
    row = ended(Tried(T, 0), BranchFailed(T + 90, 0, 603), Failed(T + 90, 603, CALLEE))
    assert (row.outcome, row.setup_ms, row.ring_ms) == ("declined", 90, None)


def test_server_refuses_before_any_device_is_tried() -> None:
    row = ended(Failed(T + 3, 404, SERVER, "Not Found"))
    assert (row.outcome, row.ended_by, row.end_cause, row.devices) == ("not_found", SERVER, "refused", 0)


def test_callee_has_no_device() -> None:
    assert ended(Failed(T + 3, 480, SERVER)).outcome == "offline"


def test_device_that_says_unavailable_was_reached() -> None:
    assert ended(Tried(T, 0), BranchFailed(T + 9, 0, 480), Failed(T + 9, 480, CALLEE)).outcome == "no_answer"


def test_nobody_answers() -> None:
    end = T + 180_000
    row = ended(Tried(T, 0), Rang(T + 9, 0), BranchFailed(end, 0, 408, "timeout"), Failed(end, 408, SERVER))
    assert (row.outcome, row.end_cause, row.ended_by) == ("no_answer", "timeout", SERVER)


@pytest.mark.parametrize("cause", ["timeout", "transport"])
def test_no_device_can_be_reached(cause: str) -> None:
    row = ended(Tried(T, 0), BranchFailed(T + 9, 0, 408, cause), Failed(T + 9, 408, SERVER))
    assert (row.outcome, row.end_cause) == ("offline", "unreachable")


def test_device_that_said_no_more_than_trying_was_reached() -> None:
    call = placed()
    branch = one(InsertBranch, feed(call, Tried(T, 0), BranchFailed(T + 9, 0, 408, "timeout", heard=True)))
    row = one(CallEnded, feed(call, Failed(T + 9, 408, SERVER)))
    assert (row.outcome, row.end_cause, branch.outcome) == ("no_answer", "timeout", "no_answer")


def test_one_unreachable_device_does_not_hide_the_others_answer() -> None:
    row = ended(
        Tried(T, 0), Tried(T, 1), BranchFailed(T + 9, 0, 503, "transport"), BranchFailed(T + 50, 1, 486),
        Failed(T + 50, 486, CALLEE),
    )  # fmt: skip
    assert (row.outcome, row.devices) == ("busy", 2)


def test_failed_is_on_the_timeline() -> None:
    rows = feed(placed(), Failed(T + 3, 404, SERVER, "Not Found"))
    assert one(InsertEvent, rows) == InsertEvent("id", 2, T + 3, "failed", SERVER, 404, "Not Found")


# ---------------------------------------------------------------------- cancel


def test_cancel_alone_does_not_end_a_call() -> None:
    call = ringing()
    rows = feed(call, Cancelled(T + 900, "changed my mind"))
    assert rows == [InsertEvent("id", 3, T + 900, "cancelled", CALLER, None, "changed my mind")]
    assert call.state == machine.RINGING


def test_cancelled_call_ends_when_the_caller_gave_up() -> None:
    rows = feed(
        ringing(), Cancelled(T + 900, "changed my mind"), BranchFailed(T + 950, 0, 487), Failed(T + 999, 487, CALLEE)
    )
    row = one(CallEnded, rows)
    assert (row.outcome, row.ended_at, row.status, row.ended_by, row.end_cause, row.reason, row.ring_ms) == (
        "cancelled", T + 900, 487, CALLER, "cancel", "changed my mind", 800
    )  # fmt: skip
    assert of(InsertEvent, rows) == []


def test_cancelled_before_ringing_has_no_setup() -> None:
    assert ended(Tried(T, 0), Cancelled(T + 50), Failed(T + 60, 487, SERVER)).setup_ms is None


def test_cancel_again_changes_nothing() -> None:
    assert feed(ringing(), Cancelled(T + 900), Cancelled(T + 950)) == []


def test_answer_that_is_faster_than_the_cancel_wins() -> None:
    call = ringing()
    rows = feed(call, Cancelled(T + 900), Answered(T + 910, 0))
    assert one(CallAnswered, rows).answered_at == T + 910
    assert one(CallEnded, feed(call, Ended(T + 1_000, CALLER))).outcome == "answered"


def test_cancel_after_the_answer_changes_nothing() -> None:
    assert feed(answered(), Cancelled(T + 3_000)) == []


def test_failure_after_the_answer_changes_nothing() -> None:
    assert feed(answered(), Failed(T + 3_000, 487, CALLEE)) == []


def test_bye_of_the_caller_before_the_answer_is_a_cancel() -> None:
    call = ringing()
    assert one(InsertEvent, feed(call, Ended(T + 900, CALLER))).kind == "cancelled"
    assert one(CallEnded, feed(call, Failed(T + 950, 487, CALLEE))).outcome == "cancelled"


def test_bye_of_the_callee_before_the_answer_changes_nothing() -> None:
    assert feed(ringing(), Ended(T + 900, CALLEE)) == []


def test_server_may_end_a_call_that_rings() -> None:
    row = one(CallEnded, feed(ringing(), Ended(T + 900, SERVER, "operator")))
    assert (row.outcome, row.ended_by, row.end_cause, row.talk_ms) == ("failed", SERVER, "operator", None)


# ---------------------------------------------------------------------- forks


def test_the_other_device_stops_because_one_answered() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Rang(T + 120, 1), Answered(T + 2_100, 0))
    row = one(InsertBranch, feed(call, BranchFailed(T + 2_150, 1, 487)))
    assert (row.branch, row.outcome, row.status, row.ended_at) == (1, "elsewhere", 487, T + 2_150)


def test_the_first_of_two_answers_is_the_call() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Answered(T + 2_100, 0))
    rows = feed(call, Answered(T + 2_110, 1, 200, "other"))
    row = one(InsertBranch, rows)
    assert rows == [row]
    assert (row.branch, row.outcome, row.agent, row.answered_at, row.ended_at) == (
        1, "also_answered", "other", T + 2_110, None
    )  # fmt: skip


def test_another_2xx_of_the_device_that_answered_changes_nothing() -> None:
    assert feed(answered(), Answered(T + 2_200, 0)) == []


def test_devices_that_are_left_at_the_end_get_their_row() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Answered(T + 2_100, 0))
    row = one(InsertBranch, feed(call, Ended(T + 3_000, CALLER)))
    assert (row.branch, row.outcome, row.status) == (1, "elsewhere", None)


def test_devices_that_are_left_at_a_failure_were_cancelled() -> None:
    row = one(InsertBranch, feed(ringing(), Failed(T + 900, 603, CALLEE)))
    assert (row.branch, row.outcome) == (0, "cancelled")


def test_failure_of_an_unknown_device_makes_no_row() -> None:
    assert feed(placed(), BranchFailed(T + 9, 4, 486)) == []


def test_device_whose_agent_is_known_from_its_registration_has_it_in_its_row() -> None:
    rows = feed(placed(), Tried(T, 0, "UDP", None, "Phone/1"), BranchFailed(T + 9, 0, 408, "timeout"))
    assert (one(InsertBranch, rows).agent, one(InsertBranch, rows).outcome) == ("Phone/1", "unreachable")


def test_device_that_never_responded_was_unreachable_whoever_answered() -> None:
    call = ringing()
    feed(call, Tried(T + 6, 1), Answered(T + 2_100, 0))
    assert one(InsertBranch, feed(call, BranchFailed(T + 32_000, 1, 408, "timeout"))).outcome == "unreachable"


def test_device_that_rang_and_never_confirmed_its_cancel_was_cancelled() -> None:
    rows = feed(ringing(), Cancelled(T + 900), BranchFailed(T + 32_900, 0, 487, "timeout"))
    assert one(InsertBranch, rows).outcome == "cancelled"


# ---------------------------------------------------------------------- media


def test_streams_open_with_the_answer() -> None:
    rows = feed(ringing(), Answered(T + 2_100, 0, answer=VOICE))
    assert kinds(rows) == [("audio", 1), ("video", 0)]
    assert one(CallAnswered, rows).video == 0


def test_streams_close_with_the_call() -> None:
    rows = feed(answered(), Ended(T + 3_100, CALLER))
    assert of(CloseMedia, rows) == [CloseMedia("id", 1, T + 3_100, streams=2)]


def test_early_answer_counts_where_the_2xx_has_none() -> None:
    call = placed()
    rows = feed(call, Tried(T, 0), Rang(T + 100, 0, None, BOTH), Rang(T + 150, 0), Answered(T + 2_100, 0))
    assert kinds(rows) == [("audio", 1), ("video", 1)]


def test_media_are_unknown_without_an_answer() -> None:
    call = answered(BOTH, None)
    row = one(CallEnded, feed(call, Ended(T + 3_100, CALLER)))
    assert row.video_ms is None


def test_delayed_offer_is_answered_by_the_ack() -> None:
    call = ringing(None)
    assert kinds(feed(call, Answered(T + 2_100, 0, answer=BOTH))) == []
    rows = feed(call, Confirmed(T + 2_200, VOICE))
    assert kinds(rows) == [("audio", 1), ("video", 0)]
    assert one(CallMedia, rows) == CallMedia("id", 0, 0, 0)


def test_ack_without_the_answer_leaves_media_unknown() -> None:
    call = answered(None, BOTH)
    assert of(CallMedia, feed(call, Confirmed(T + 2_200))) == []
    assert one(CallEnded, feed(call, Ended(T + 3_100, CALLER))).video_ms is None


def test_no_description_at_all_leaves_media_unknown() -> None:
    assert one(CallEnded, feed(answered(None, None), Ended(T + 3_100, CALLER))).video_ms is None


def test_video_that_is_added_and_taken_away_is_counted() -> None:
    call = answered(description(AUDIO), description(AUDIO))
    rows = feed(call, Changed(T + 12_100, CALLER, BOTH, BOTH))
    assert kinds(rows) == [("video", 1)]
    assert one(CallMedia, rows).video == 1
    assert one(InsertEvent, rows).kind == "changed"
    rows = feed(call, Changed(T + 42_100, CALLEE, BOTH, VOICE))
    assert of(CloseMedia, rows) == [CloseMedia("id", 2, T + 42_100)]
    assert of(CallMedia, rows) == []
    assert one(CallEnded, feed(call, Ended(T + 62_100, CALLER))).video_ms == 30_000


def test_change_without_descriptions_is_a_sign_of_life() -> None:
    assert feed(answered(), Changed(T + 9_000, CALLEE)) == [InsertEvent("id", 4, T + 9_000, "changed", CALLEE)]


def test_change_whose_offer_is_in_the_response_is_answered_by_the_ack() -> None:
    call = answered(description(AUDIO), description(AUDIO))
    feed(call, Confirmed(T + 2_200))
    assert of(OpenMedia, feed(call, Changed(T + 9_000, CALLER, None, BOTH))) == []
    assert kinds(feed(call, Confirmed(T + 9_100, BOTH))) == [("video", 1)]


def test_direction_is_the_callers_whoever_offers() -> None:
    held = description(f"{AUDIO}\na=recvonly")
    for side, seen in ((CALLER, "sendonly"), (CALLEE, "recvonly")):
        rows = feed(answered(), Changed(T + 9_000, side, description(f"{AUDIO}\na=sendonly"), held))
        assert one(OpenMedia, rows).stream.direction == seen


def test_change_before_the_answer_or_confirmation_changes_nothing() -> None:
    assert feed(ringing(), Changed(T + 900, CALLER, BOTH, BOTH)) == []
    assert feed(ringing(), Confirmed(T + 900)) == []


def test_timeline_of_a_call_is_bounded_but_its_end_is_there() -> None:
    call = ringing()
    feed(call, *(Seen(T + 300 + number) for number in range(machine.MAX_EVENTS)))
    assert feed(call, Seen(T + 8_000)) == []
    assert one(InsertEvent, feed(call, Ended(T + 9_000, SERVER, "operator"))).number == machine.MAX_EVENTS + 1


def test_times_that_run_backwards_give_no_duration() -> None:
    assert one(CallEnded, feed(answered(), Ended(T + 2_000, CALLER))).talk_ms is None


def test_signs_of_life_are_on_the_timeline() -> None:
    assert feed(answered(), Seen(T + 9_000)) == [InsertEvent("id", 4, T + 9_000, "seen")]


def test_signs_of_life_end_with_the_room_for_them() -> None:
    call = answered()
    for number in range(machine.MAX_EVENTS + 5):
        call.handle(Seen(T + 9_000 + number))
    assert call.handle(Seen(T + 99_000)) == []


@pytest.mark.parametrize(("by_ms", "detail"), [(3_600_000, "+3600000 ms"), (-5_000, "-5000 ms")])
def test_clock_that_was_set_is_on_the_timeline(by_ms: int, detail: str) -> None:
    (row,) = feed(answered(), ClockStepped(T + 9_000, by_ms))
    assert row == InsertEvent("id", 4, T + 9_000, "clock_stepped", SERVER, detail=detail)


def test_until_when_an_end_was_watched_for_is_kept() -> None:
    ended = Ended(T + 3_100, SERVER, "connection_lost", None, 90_000, watched_until=T + 60_000)
    assert one(CallEnded, feed(answered(), ended)).watched_until == T + 60_000
