"""Far more calls than the server can do: new ones are refused, those that go on can be ended, and it is soon over."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from benchmark.generator import Generator, Second
from benchmark.systems import DOMAIN, person

from support.server import ServerProcess

PEOPLE = 60
"""Has no factor in common with the step from a caller to the called."""
GOING_ON = 30
FLOOD = 2_000.0
"""Calls a second to begin with: how many are too many is up to the machine."""
MOST = 32_000.0
"""Calls a second that no machine can serve."""


def overload(callers: Generator) -> float:
    """Call more and more often, until most calls are refused; how often that is."""
    rate = FLOOD
    while rate <= MOST:
        seconds = callers.run(1.0, rate)
        if total(seconds, "refused") > total(seconds, "served"):
            return rate
        rate *= 1.5
    raise AssertionError("never too many calls")


def total(seconds: list[Second], name: str) -> int:
    """Of all these seconds."""
    return sum(getattr(each, name) for each in seconds)


def test_calls_can_be_ended_in_overload_which_is_soon_over(tmp_path: Path) -> None:
    config = "[limits]\nsubscriber_calls = 0\nsubscriber_requests = 0\n"
    people = [person(number) for number in range(PEOPLE)]
    with (
        ServerProcess(tmp_path / "server", people, config=config, domain=DOMAIN) as server,
        closing(Generator("register", server.port, people=PEOPLE)) as called,
        closing(Generator("call", server.port, called=called, people=PEOPLE)) as callers,
    ):
        called.run(PEOPLE / 50, 50)
        called.finish()
        assert total(called.seconds, "served") >= PEOPLE - 1
        callers.talk(GOING_ON, 60)
        assert len(callers.kept) == GOING_ON

        rate = overload(callers)
        byes = total(callers.seconds, "byes")
        while callers.end_one():
            callers.run(0.02, rate)
        assert total(callers.seconds, "byes") >= byes + GOING_ON
        assert total(callers.seconds, "served") > GOING_ON
        began = server.wait("overload.began")
        callers.finish(10.0)

        # Every call that was begun has been ended, and nobody was left without an answer.
        assert total(callers.seconds, "byes_answered") == total(callers.seconds, "byes")
        assert (callers.open, total(callers.seconds, "failed")) == (0, 0)
        after = [wait for each in callers.seconds for wait in each.retry_after]
        assert len(after) == total(callers.seconds, "refused")
        assert min(after) == 1 < max(after) <= 30

        since = time.monotonic()
        ended = server.wait("overload.ended", timeout=5.0)
        assert time.monotonic() - since < 5.0
        assert ended["refused"] <= len(after)
        assert began["delay_ms"] >= 50
        calm = callers.run(1.0, 5)
        callers.finish()
        assert total(calm, "refused") == 0
        assert total(callers.seconds[-20:], "failed") == 0
    rows = server.rows("SELECT sum(count) AS refused FROM errors WHERE kind = 'overload'")
    # Copies of a request count as well.
    assert rows[0]["refused"] >= len(after)
    open_calls = server.rows("SELECT count(*) AS calls FROM calls WHERE ended_at IS NULL")
    assert open_calls[0]["calls"] == 0
