"""Metrics for Prometheus that cost nothing until somebody asks for them.

The server counts in plain integers; what is registered here says where each of them is. Prometheus'
own counters, with a lock for each step, are not on the path of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Value = int | float
Read = Callable[[], Value | Mapping[str, Value]]
"""The value now; where the metric has a label, a value for each of the label's."""
Kind = Literal["counter", "gauge"]

PREFIX = "sipserver_"


@dataclass(slots=True)
class _Source:
    name: str
    help: str
    read: Read
    kind: Kind
    label: str


class Metrics(Collector):
    """Everything that is measured, read when it is asked for."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._stop: Callable[[], None] | None = None

    def register(self, name: str, help_text: str, read: Read, kind: Kind = "counter", label: str = "") -> None:
        """Publish ``sipserver_NAME``; ``read`` is called in the thread that serves metrics, so it only looks.

        With a ``label``, ``read`` returns a mapping from its values. A counter's name gets ``_total`` added.
        """
        if any(source.name == name for source in self._sources):
            raise ValueError(f"{name} is registered already")
        self._sources.append(_Source(name, help_text, read, kind, label))

    def collect(self) -> Iterable[Metric]:
        """One family for each registered name (called by prometheus-client)."""
        return [_family(source) for source in self._sources]

    def serve(self, host: str, port: int) -> int:
        """Answer Prometheus at this address from a thread of its own; the port, which may have been 0.

        Raises OSError where the address cannot be used.
        """
        server, thread = start_http_server(port, addr=host, registry=self._registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop
        return int(server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        if self._stop is not None:
            self._stop()
            self._stop = None


def _family(source: _Source) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    labels = [source.label] if source.label else []
    if source.kind == "counter":
        family = CounterMetricFamily(PREFIX + source.name, source.help, labels=labels)
    else:
        family = GaugeMetricFamily(PREFIX + source.name, source.help, labels=labels)
    value = source.read()
    if isinstance(value, Mapping):
        for label, each in value.items():
            family.add_metric([label], each)
    else:
        family.add_metric([], value)
    return family
