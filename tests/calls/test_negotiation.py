"""Which descriptions belong together: one test for each line of the table, and for what must change nothing."""

from __future__ import annotations

import pytest

from sipserver.calls.negotiation import INVITE, PRACK, UPDATE, Agreement, Negotiation
from sipserver.sip.sdp import UNREADABLE, Description
from support.sdp import AUDIO, SLIDES, VIDEO, description

A, B, C, D = (description(section) for section in (AUDIO, VIDEO, SLIDES, f"{AUDIO}\na=inactive"))
CALLER, CALLEE = True, False


@pytest.fixture
def talks() -> Negotiation:
    return Negotiation()


def test_invite_offers_and_its_2xx_answers(talks: Negotiation) -> None:
    assert talks.accepted(INVITE, A, B, CALLER, 1) == Agreement(A, B, CALLER)
    assert talks.agreed == Agreement(A, B, CALLER)


def test_2xx_offers_and_the_ack_answers(talks: Negotiation) -> None:
    assert talks.accepted(INVITE, None, A, CALLER, 1) is None
    assert talks.acknowledged(B, CALLER, 1) == Agreement(A, B, CALLEE)


def test_ack_answers_only_the_invite_that_it_is_for(talks: Negotiation) -> None:
    talks.accepted(INVITE, None, A, CALLEE, 7)
    assert talks.acknowledged(None, CALLER, 7) is None
    assert talks.acknowledged(None, CALLEE, 6) is None
    assert talks.acknowledged(B, CALLEE, 7) == Agreement(A, B, CALLER)
    assert talks.acknowledged(C, CALLEE, 7) is None


def test_ack_without_the_answer_agrees_on_nothing(talks: Negotiation) -> None:
    talks.accepted(INVITE, None, A, CALLER, 1)
    assert talks.acknowledged(None, CALLER, 1) is None
    assert talks.acknowledged(B, CALLER, 1) is None


def test_reliable_18x_offers_and_its_prack_answers(talks: Negotiation) -> None:
    assert talks.early(None, A, CALLER, 1, reliable=True, first=True) is None
    assert talks.accepted(PRACK, B, None, CALLER, 2) == Agreement(A, B, CALLEE)
    # The 2xx may say the same again, or nothing; it offers nothing new.
    assert talks.accepted(INVITE, None, A, CALLER, 1) is None
    assert talks.acknowledged(C, CALLER, 1) is None


@pytest.mark.parametrize("repeated", [None, A])
def test_2xx_and_its_ack_may_overtake_the_prack_that_answers(talks: Negotiation, repeated: Description | None) -> None:
    talks.early(None, A, CALLER, 1, reliable=True, first=True)
    assert talks.accepted(INVITE, None, repeated, CALLER, 1) is None
    assert talks.acknowledged(None, CALLER, 1) is None
    assert talks.accepted(PRACK, B, None, CALLER, 2) == Agreement(A, B, CALLEE)
    # The next INVITE begins anew.
    assert talks.accepted(INVITE, C, D, CALLER, 3) == Agreement(C, D, CALLER)


def test_prack_without_the_answer_settles_it_all_the_same(talks: Negotiation) -> None:
    talks.early(None, A, CALLER, 1, reliable=True, first=True)
    assert talks.accepted(PRACK, None, None, CALLER, 2) is None
    assert talks.agreed is None


def test_repeated_18x_after_its_prack_offers_nothing(talks: Negotiation) -> None:
    talks.early(None, A, CALLER, 1, reliable=True, first=True)
    talks.accepted(PRACK, B, None, CALLER, 2)
    assert talks.early(None, A, CALLER, 1, reliable=True, first=True) is None
    assert talks.accepted(PRACK, C, D, CALLER, 3) == Agreement(C, D, CALLER)


def test_18x_that_is_not_acknowledged_cannot_offer(talks: Negotiation) -> None:
    talks.early(None, A, CALLER, 1, reliable=False, first=True)
    assert talks.accepted(PRACK, B, None, CALLER, 2) is None


def test_early_answer_to_the_first_invite_counts_at_once(talks: Negotiation) -> None:
    assert talks.early(A, B, CALLER, 1, reliable=False, first=True) == Agreement(A, B, CALLER)
    assert talks.accepted(INVITE, A, None, CALLER, 1) is None
    assert talks.agreed == Agreement(A, B, CALLER)


def test_2xx_that_answers_differently_than_the_18x_counts(talks: Negotiation) -> None:
    talks.early(A, B, CALLER, 1, reliable=False, first=True)
    assert talks.accepted(INVITE, A, C, CALLER, 1) == Agreement(A, C, CALLER)


@pytest.mark.parametrize("method", [UPDATE, PRACK])
def test_what_was_exchanged_after_an_early_answer_is_not_undone(talks: Negotiation, method: str) -> None:
    talks.early(A, B, CALLER, 1, reliable=True, first=True)
    assert talks.accepted(method, C, D, CALLER, 2) == Agreement(C, D, CALLER)
    assert talks.accepted(INVITE, A, B, CALLER, 1) is None
    assert talks.agreed == Agreement(C, D, CALLER)
    assert talks.accepted(INVITE, A, B, CALLER, 3) == Agreement(A, B, CALLER)


def test_early_answer_to_a_reinvite_waits_for_the_2xx(talks: Negotiation) -> None:
    talks.accepted(INVITE, A, A, CALLER, 1)
    assert talks.early(A, B, CALLEE, 5, reliable=True, first=False) is None
    assert talks.accepted(INVITE, A, None, CALLEE, 5) == Agreement(A, B, CALLEE)


def test_early_answer_to_a_reinvite_that_was_refused_is_forgotten(talks: Negotiation) -> None:
    talks.early(A, B, CALLEE, 5, reliable=True, first=False)
    assert talks.accepted(INVITE, A, None, CALLEE, 6) is None
    assert talks.accepted(INVITE, A, None, CALLEE, 5) is None


@pytest.mark.parametrize("method", [UPDATE, PRACK])
def test_request_without_both_descriptions_agrees_on_nothing(talks: Negotiation, method: str) -> None:
    assert talks.accepted(method, A, None, CALLER, 2) is None
    assert talks.accepted(method, None, A, CALLER, 2) is None
    assert talks.accepted(INVITE, None, None, CALLER, 2) is None
    assert talks.accepted(INVITE, A, None, CALLER, 2) is None


def test_offer_that_cannot_be_read_makes_everything_unknown(talks: Negotiation) -> None:
    assert talks.accepted(INVITE, UNREADABLE, None, CALLER, 2) == Agreement(UNREADABLE, UNREADABLE, CALLER)
