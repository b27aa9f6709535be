"""What Prometheus reads."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from sipserver.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    published = Metrics()
    yield published
    published.close()


def scrape(metrics: Metrics) -> list[str]:
    port = metrics.serve("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        return str(page.read(), "utf-8").splitlines()


def test_value_is_read_when_it_is_asked_for(metrics: Metrics) -> None:
    counts = [0]
    metrics.register("requests", "Requests received", lambda: counts[0])
    counts[0] = 7
    page = scrape(metrics)
    assert "sipserver_requests_total 7.0" in page
    assert "# HELP sipserver_requests_total Requests received" in page
    assert "# TYPE sipserver_requests_total counter" in page


def test_label_has_a_value_each(metrics: Metrics) -> None:
    metrics.register("flows", "Flows open", lambda: {"UDP": 2, "TCP": 3.5}, "gauge", "transport")
    page = scrape(metrics)
    assert 'sipserver_flows{transport="UDP"} 2.0' in page
    assert 'sipserver_flows{transport="TCP"} 3.5' in page
    assert "# TYPE sipserver_flows gauge" in page


def test_process_is_measured_too(metrics: Metrics) -> None:
    assert any(line.startswith("process_resident_memory_bytes ") for line in scrape(metrics))


def test_name_is_published_once(metrics: Metrics) -> None:
    metrics.register("calls", "Calls", lambda: 1)
    with pytest.raises(ValueError, match="calls is registered already"):
        metrics.register("calls", "Calls again", lambda: 2)


def test_address_in_use_is_an_oserror(metrics: Metrics) -> None:
    port = metrics.serve("127.0.0.1", 0)
    second = Metrics()
    with pytest.raises(OSError, match="in use"):
        second.serve("127.0.0.1", port)
    second.close()


def test_closed_metrics_answer_no_more(metrics: Metrics) -> None:
    port = metrics.serve("127.0.0.1", 0)
    metrics.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
