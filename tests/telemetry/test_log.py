"""What stands on a log line, and what never does."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.telemetry.log import HIDDEN, MAX_VALUE, Log, configure


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def lines(descriptor: int) -> list[str]:
    return os.pread(descriptor, 1_000_000, 0).decode().split("\n")[:-1]


def logged(descriptor: int, use: Callable[[Log], object], **options: Any) -> list[str]:
    log = configure(options.pop("style", "json"), options.pop("level", "info"), descriptor, **options)
    use(log)
    log.close()
    return lines(descriptor)


def one(descriptor: int, use: Callable[[Log], object], **options: Any) -> dict[str, Any]:
    (line,) = logged(descriptor, use, **options)
    value = json.loads(line)
    assert isinstance(value, dict)
    return value


def test_line_begins_with_time_level_and_event(descriptor: int) -> None:
    (line,) = logged(descriptor, lambda log: log.info("call.placed", call="c1", n=3), clock=lambda: 1.5)
    assert line == '{"ts":"1970-01-01T00:00:01.500Z","level":"info","event":"call.placed","call":"c1","n":3}'


def test_milliseconds_follow_the_clock_within_a_second(descriptor: int) -> None:
    times = iter([1_000_000.001, 1_000_000.001, 1_000_000.999, 1_000_001.0])

    def use(log: Log) -> None:
        for _ in range(4):
            log.info("x")

    written = logged(descriptor, use, clock=lambda: next(times))
    assert [json.loads(line)["ts"][-7:] for line in written] == ["40.001Z", "40.001Z", "40.999Z", "41.000Z"]


def test_none_is_left_out(descriptor: int) -> None:
    assert "agent" not in one(descriptor, lambda log: log.info("x", agent=None, zero=0))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written(descriptor: int, level: str, expected: list[str]) -> None:
    def use(log: Log) -> None:
        log.debug("x")
        log.info("x")
        log.warning("x")
        log.error("x")

    assert [json.loads(line)["level"] for line in logged(descriptor, use, level=level)] == expected


def test_level_changes_while_the_log_is_in_use(descriptor: int) -> None:
    def use(log: Log) -> None:
        log.debug("before")
        log.set_level("debug")
        log.bind(a=1).debug("after")

    assert [json.loads(line)["event"] for line in logged(descriptor, use)] == ["after"]


def test_bound_values_stand_on_each_line(descriptor: int) -> None:
    line = one(descriptor, lambda log: log.bind(node="n1").info("x", a=1))
    assert (line["node"], line["a"]) == ("n1", 1)


@pytest.mark.parametrize("key", ["password", "ha1", "authorization", "proxy_authorization", "secret", "nonce"])
def test_secret_is_never_written(descriptor: int, key: str) -> None:
    (line,) = logged(descriptor, lambda log: log.info("x", **{key: "hunter2"}))
    assert "hunter2" not in line
    assert json.loads(line)[key] == HIDDEN


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("bad", ["\n", "\r", "\x1b[2J", "\x00", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e"])
def test_value_cannot_end_the_line_or_speak_to_a_terminal(descriptor: int, style: str, bad: str) -> None:
    (line,) = logged(descriptor, lambda log: log.info("x", agent=f"a{bad}b"), style=style)
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_lone_surrogate_is_replaced(descriptor: int) -> None:
    line = one(descriptor, lambda log: log.info("x", agent="a\udc80b", n=5, all=["\udc80", 1]))
    assert (line["agent"], line["n"], line["all"]) == ("a?b", 5, ["?", 1])


def test_value_of_any_kind_is_written(descriptor: int) -> None:
    endless: list[object] = []
    endless.append(endless)
    line = one(descriptor, lambda log: log.info("x", big=2**70, path=Path("/a"), endless=endless, keys={1: 2}))
    assert line["big"] == str(2**70)
    assert "/a" in line["path"]


def test_long_value_is_cut(descriptor: int) -> None:
    line = one(descriptor, lambda log: log.info("x", agent="y" * 100_000, many=list(range(10_000))))
    assert len(line["agent"]) == MAX_VALUE
    assert len(line["many"]) == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values=st.dictionaries(st.text("abcdef", min_size=1), json_values))
def test_whatever_is_logged_is_one_line_of_json(values: dict[str, Any]) -> None:
    reading, writing = os.pipe()
    try:
        log = configure("json", "info", writing)
        log.info("x", **values)
        log.flush()
        line = os.read(reading, 1_000_000).decode()
    finally:
        os.close(reading)
        os.close(writing)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["event"] == "x"


def party(address: str) -> str | None:
    return {"alice@example.test": "p_a"}.get(address)


def test_addresses_become_parties(descriptor: int) -> None:
    line = one(
        descriptor,
        lambda log: log.info("x", caller="alice@example.test", callee="nobody@example.test", call="a@host", n=1),
        redact=party,
    )
    assert (line["caller"], line["callee"], line["call"], line["n"]) == ("p_a", HIDDEN, "a@host", 1)


@pytest.mark.parametrize("value", ["<sip:alice@192.0.2.1>", ["sip:alice@192.0.2.1"], {"a": "alice@b"}])
def test_address_under_another_key_is_hidden(descriptor: int, value: object) -> None:
    (line,) = logged(descriptor, lambda log: log.info("x", contact=value), redact=party)
    assert "alice" not in line


def test_terminal_gets_coloured_text() -> None:
    theirs, ours = pty.openpty()
    try:
        log = configure("auto", "info", ours)
        log.info("call.placed", call="c1")
        log.flush()
        written = os.read(theirs, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\x1b[" in written
    assert "call.placed" in written
    assert not written.startswith("{")


def test_file_gets_json(descriptor: int) -> None:
    assert logged(descriptor, lambda log: log.info("x"), style="auto")[0].startswith("{")
