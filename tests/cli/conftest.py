"""A folder of stores and a way to run commands in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sipserver.cli.main import main

Sipserver = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def sipserver(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sipserver]:
    """Runs the command with this data folder; ``text`` is its standard input, which is no terminal."""
    for name in ("SIPSERVER_CONFIG", "SIPSERVER_SECRET_KEY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIPSERVER_DATA_DIR", str(data_dir))

    def run(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), input=text)

    nice = os.getpriority(os.PRIO_PROCESS, 0)
    yield run
    # Reports stand back, and this process is to go on as before, as far as that is allowed.
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
