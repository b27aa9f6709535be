"""``sipserver turn-credentials``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.accounts.turn import make_credentials

Sipserver = Callable[..., Result]

SECRET = "a-secret-of-this-test"


@pytest.fixture
def config(tmp_path: Path, sipserver: Sipserver, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIPSERVER_TURN_SECRET", SECRET)
    path = tmp_path / "sipserver.toml"
    path.write_text('[turn]\nurls = ["turn:turn.example.test:3478?transport=udp", "turns:[2001:db8::7]"]\n')
    sipserver("subscribers", "add", "alice@example.test", "--password-stdin", text="pwalice\n")
    return str(path)


def test_credentials_are_an_entry_of_ice_servers_for_the_party(sipserver: Sipserver, config: str) -> None:
    result = sipserver("turn-credentials", "Alice@example.test".lower(), "--config", config)
    made = json.loads(result.stdout)
    party = json.loads(sipserver("subscribers", "show", "alice@example.test", "--json").stdout)
    until, _, name = made["username"].partition(":")
    assert name in json.dumps(party)
    assert name.startswith("p_")
    assert abs(int(until) - time.time() - 86_400) < 60
    assert made["credential"] == make_credentials(SECRET.encode(), name, int(until)).credential
    assert made["urls"] == ["turn:turn.example.test:3478?transport=udp", "turns:[2001:db8::7]"]
    assert made["ttl"] == 86_400


def test_whoever_is_not_there_or_disabled_gets_none(sipserver: Sipserver, config: str) -> None:
    assert sipserver("turn-credentials", "bob@example.test", "--config", config).exit_code == 1
    sipserver("subscribers", "disable", "alice@example.test")
    refused = sipserver("turn-credentials", "alice@example.test", "--config", config)
    assert refused.exit_code == 1
    assert "is disabled" in refused.stderr


def test_without_a_server_or_a_secret_a_sentence_says_so(
    sipserver: Sipserver, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "turn.urls is empty" in sipserver("turn-credentials", "alice@example.test").stderr
    monkeypatch.delenv("SIPSERVER_TURN_SECRET")
    assert "there is no secret" in sipserver("turn-credentials", "alice@example.test", "--config", config).stderr
