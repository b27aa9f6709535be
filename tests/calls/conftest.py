"""A store of calls and a recorder that writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.calls.recorder import Recorder
from support.calls import Store
from support.calls import recorder as make_recorder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path)
    yield found
    found.connection.close()


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return make_recorder(store)
