"""The table from status to outcome, row by row."""

from __future__ import annotations

import pytest

from sipserver.calls import outcomes
from sipserver.calls.outcomes import branch_outcome, call_outcome

TABLE = [
    (486, "busy"), (600, "busy"),
    (603, "declined"), (607, "declined"), (608, "declined"),
    (404, "not_found"), (410, "not_found"), (484, "not_found"), (485, "not_found"), (604, "not_found"),
    (401, "forbidden"), (402, "forbidden"), (403, "forbidden"), (407, "forbidden"), (433, "forbidden"),
    (436, "forbidden"), (437, "forbidden"), (438, "forbidden"),
    (430, "offline"),
    (408, "no_answer"), (480, "no_answer"),
    (487, "cancelled"),
    (302, "failed"), (400, "failed"), (415, "failed"), (488, "failed"), (500, "failed"), (503, "failed"),
    (606, "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "outcome"), TABLE)
def test_outcome_of_a_final_response_of_a_device(status: int, outcome: str) -> None:
    assert call_outcome(status, by_server=False, cancelled=False, tried=True, reached=True, rang=False) == outcome
    assert branch_outcome(status, responded=True, rang=False, answered_elsewhere=False) == outcome


def test_busy_after_ringing_is_a_refusal_by_a_person() -> None:
    assert call_outcome(486, by_server=False, cancelled=False, tried=True, reached=True, rang=True) == "declined"
    assert branch_outcome(486, responded=True, rang=True, answered_elsewhere=False) == "declined"


def test_table_is_tested_whole_and_names_only_outcomes() -> None:
    tested = {status for status, outcome in TABLE if outcome != "failed"}
    assert tested == set(outcomes.BY_STATUS)
    assert {outcome for _, outcome in TABLE} <= set(outcomes.CALL_OUTCOMES)


@pytest.mark.parametrize("status", [404, 408, 480, 486, 487, 500, 603])
def test_a_call_that_was_given_up_is_cancelled_whatever_the_devices_say(status: int) -> None:
    assert call_outcome(status, by_server=False, cancelled=True, tried=True, reached=True, rang=False) == "cancelled"


@pytest.mark.parametrize("status", [408, 480, 500, 503])
def test_a_call_whose_devices_never_responded_is_offline(status: int) -> None:
    assert call_outcome(status, by_server=True, cancelled=False, tried=True, reached=False, rang=False) == "offline"


def test_an_address_without_binding_is_offline() -> None:
    assert call_outcome(480, by_server=True, cancelled=False, tried=False, reached=False, rang=False) == "offline"


@pytest.mark.parametrize(("status", "outcome"), [(404, "not_found"), (403, "forbidden"), (503, "failed")])
def test_a_call_that_the_server_refuses(status: int, outcome: str) -> None:
    assert call_outcome(status, by_server=True, cancelled=False, tried=False, reached=False, rang=False) == outcome


@pytest.mark.parametrize(
    ("status", "responded", "rang", "elsewhere", "outcome"),
    [
        (487, True, True, True, "elsewhere"),
        (408, False, True, True, "elsewhere"),
        (603, True, True, True, "declined"),
        (487, True, True, False, "cancelled"),
        (408, False, True, False, "no_answer"),
        (408, False, False, False, "unreachable"),
        (503, False, False, False, "unreachable"),
    ],
)
def test_outcome_of_a_device(status: int, responded: bool, rang: bool, elsewhere: bool, outcome: str) -> None:
    found = outcomes.branch_outcome(status, responded=responded, rang=rang, answered_elsewhere=elsewhere)
    assert found == outcome
