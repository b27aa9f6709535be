"""Which answer is the best (proxy/branch.py, RFC 3261 §16.7 step 6)."""

from __future__ import annotations

import pytest

from sipserver.proxy.branch import FinalAnswer, choose_best_response


@pytest.mark.parametrize(
    ("statuses", "best"),
    [
        ((486,), 486),
        ((503, 407, 501, 404), 407),
        ((404, 302), 302),
        ((404, 603, 302), 603),
        ((500, 404), 404),
        ((486, 401), 401),
        ((486, 415), 415),
        ((486, 420), 420),
        ((486, 484), 484),
        ((408, 486), 486),
        ((487, 408), 408),
        ((480, 486), 486),
        ((408, 480), 480),
        ((503, 500), 500),
        ((503, 503), 503),
        ((486, 404), 486),
    ],
)
def test_best_is_what_helps_the_caller_most(statuses: tuple[int, ...], best: int) -> None:
    assert choose_best_response([FinalAnswer(status) for status in statuses], cancelled=False).status == best


@pytest.mark.parametrize(("statuses", "best"), [((486, 487), 487), ((302, 487), 487), ((600, 487), 600), ((486,), 486)])
def test_who_cancelled_is_told_so(statuses: tuple[int, ...], best: int) -> None:
    assert choose_best_response([FinalAnswer(status) for status in statuses], cancelled=True).status == best
