"""The peers of the benchmark start as they are configured; what is measured with them is nobody's business here."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark import systems

from support.ports import free_port


@pytest.mark.parametrize("name", [name for name in systems.SYSTEMS if name != "sipserver"])
def test_peer_of_the_benchmark_starts(tmp_path: Path, name: str) -> None:
    if reason := systems.missing(name):
        pytest.skip(reason)
    system = systems.make(name, tmp_path, free_port())
    try:
        system.start()
        assert system.kept() == {"bindings": 0, "calls": 0}
    finally:
        system.stop()
