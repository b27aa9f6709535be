"""Reading what a running server measures of itself: its page for Prometheus, and rates of what is counted there."""

from __future__ import annotations

import http.client
from collections import deque
from typing import Final

from sipserver.telemetry.metrics import PREFIX

TIMEOUT: Final = 0.5
"""Seconds that the server may take to answer."""
MOST_BYTES: Final = 4_000_000
SPAN: Final = 5.0
"""Seconds that a rate is the mean of, at most."""

Values = dict[str, float]
"""By the metric's name without prefix and ``_total``, and its label's value after a slash where it has one."""


class Gauges:
    """The numbers of one server as it publishes them, asked for now and then."""

    def __init__(self, address: tuple[str, int]) -> None:
        host, port = address
        # Where it listens on all addresses it is also on loopback.
        self._address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared with
        self._taken: deque[tuple[float, Values]] = deque()

    def take(self, at: float) -> str:
        """Ask, at this time in seconds; a sentence where nothing came, and then there are no numbers any more."""
        try:
            text = _page(self._address)
            values = _values(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._taken.clear()
            return f"no metrics from {self._address[0]} port {self._address[1]}: {error}"
        if self._taken and values.get("process_start_time_seconds") != self.now.get("process_start_time_seconds"):
            self._taken.clear()
        self._taken.append((at, values))
        while len(self._taken) > 2 and at - self._taken[0][0] > SPAN:
            self._taken.popleft()
        return ""

    @property
    def now(self) -> Values:
        """What was found last."""
        return self._taken[-1][1] if self._taken else {}

    def rate(self, *names: str) -> float | None:
        """How many a second there were of these counters together; None where it is not known."""
        if len(self._taken) < 2:
            return None
        (before, first), (at, last) = self._taken[0], self._taken[-1]
        if at <= before or any(name not in first or name not in last for name in names):
            return None
        return sum(last[name] - first[name] for name in names) / (at - before)


def _page(address: tuple[str, int]) -> str:
    # No proxy of the environment is asked for what is on this machine.
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise ValueError(f"HTTP status {answer.status}")
        return answer.read(MOST_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()


def _values(text: str) -> Values:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - no other command needs it

    found: Values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX).removesuffix("_total")
            found["/".join((name, *sample.labels.values()))] = sample.value
    return found
