"""``sipserver errors``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sipserver.calls.faults import KINDS
from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.migrations import open_store
from support.stores import new_store

Sipserver = Callable[..., Result]
README = Path(__file__).resolve().parents[2] / "README.md"

DAY = "2026-11-23T21:0{}:00.000Z"


@pytest.fixture
def people(sipserver: Sipserver) -> dict[str, str]:
    for name in ("alice", "bob"):
        sipserver("subscribers", "add", f"{name}@example.test", "--password-stdin", text="x\n")
    rows = json.loads(sipserver("subscribers", "list", "--json").stdout)
    return {row["address"].partition("@")[0]: row["party"] for row in rows}


@pytest.fixture
def errors(people: dict[str, str], data_dir: Path) -> None:
    """Three errors, a call and sign-ins."""
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute(
            """INSERT INTO calls (id, call_id, started_at, caller_agent, callee_agent)
            VALUES ('call-with-a-long-id', 'h', ?, 'Acme-Phone/5.1.2 (x; y)', 'baresip v1.0.0 (x86_64/linux)')""",
            (DAY.format(0),),
        )
        rows = [
            ("e1", DAY.format(1), "malformed", "INVITE", 400, "server", "=HYPERLINK(1)\x1b[2J", None, None, 7, None),
            ("e2", DAY.format(2), "peer_error", "INVITE", 500, "peer", "baresip v1.0.0 (x86_64/linux)",
                people["alice"], people["bob"], 1, "call-with-a-long-id"),
            ("e3", "2026-11-24T10:00:00.000Z", "timeout", "MESSAGE", None, "network", "Acme-Phone/5.1.2 (x; y)",
                people["bob"], None, 2, None),
        ]  # fmt: skip
        store.executemany(
            """INSERT INTO errors (id, at, kind, method, status, answered_by, agent, party, target, count, last_at,
                call) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?2, ?11)""",
            rows,
        )
        store.executemany(
            "INSERT INTO sign_ins (id, at, outcome, agent, count, last_at) VALUES (?1, ?2, 'bound', ?3, ?4, ?2)",
            [("s1", DAY.format(0), "Acme-Phone/5.1.2 (x; y)", 3), ("s2", DAY.format(0), None, 9)],
        )


def listed(sipserver: Sipserver, *options: str) -> list[dict[str, Any]]:
    result = sipserver("errors", "list", "--json", *options)
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("errors")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["e3", "e2", "e1"]),
        (("--limit", "1"), ["e3"]),
        (("--kind", "peer_error"), ["e2"]),
        (("--by", "network"), ["e3"]),
        (("--agent", "ACME"), ["e3"]),
        (("--agent", "%"), []),
        (("--address", "bob@example.test"), ["e3", "e2"]),
        (("--since", "2026-11-24"), ["e3"]),
        (("--until", "2026-11-23T21:02:00Z"), ["e1"]),
    ],
)
def test_list_has_what_is_asked_for(sipserver: Sipserver, options: tuple[str, ...], expected: list[str]) -> None:
    assert [row["id"] for row in listed(sipserver, *options)] == expected


@pytest.mark.usefixtures("errors")
def test_list_names_who_asked_and_who_was_asked(sipserver: Sipserver, people: dict[str, str]) -> None:
    row = listed(sipserver, "--kind", "peer_error")[0]
    assert (row["party"], row["party_address"]) == (people["alice"], "alice@example.test")
    assert (row["target"], row["target_address"]) == (people["bob"], "bob@example.test")
    row = listed(sipserver, "--kind", "peer_error", "--no-names")[0]
    assert "party_address" not in row
    line = sipserver("errors", "list", "--kind", "peer_error").stdout.splitlines()[1]
    assert "alice@example.test  bob@example.test" in line
    assert line.endswith("call-with-a-long-i")


@pytest.mark.usefixtures("errors")
def test_list_speaks_neither_to_a_terminal_nor_to_a_spreadsheet(sipserver: Sipserver) -> None:
    assert "\x1b" not in sipserver("errors", "list").stdout
    rows = list(csv.DictReader(io.StringIO(sipserver("errors", "list", "--csv").stdout)))
    assert rows[-1]["agent"] == "'=HYPERLINK(1)\\x1b[2J"


@pytest.mark.usefixtures("errors")
def test_rates_are_by_product_and_version(sipserver: Sipserver, data_dir: Path) -> None:
    rows = json.loads(sipserver("errors", "rates", "--json").stdout)
    assert [tuple(row.values()) for row in rows[1:]] == [
        ("Acme-Phone", "5.1.2", 3, 1, 2, 50.0), ("baresip", "1.0.0", 0, 1, 1, 100.0),
    ]  # fmt: skip
    assert (rows[0]["errors"], rows[0]["errors_per_100"]) == (7, None)
    by_day = json.loads(sipserver("errors", "rates", "--by-day", "--since", "2026-11-24", "--json").stdout)
    assert by_day == [
        {"day": "2026-11-24", "product": "Acme-Phone", "version": "5.1.2", "sign_ins": 0, "calls": 0, "errors": 2,
         "errors_per_100": None}
    ]  # fmt: skip
    with closing(open_store(data_dir / "calls.db", MIGRATIONS, readonly=True)) as store:
        view = store.execute("SELECT * FROM v_error_rates ORDER BY errors DESC, product, version").fetchall()
        assert view == [tuple(row.values()) for row in rows]
        assert len(store.execute("SELECT * FROM v_error_rates_by_day").fetchall()) == 4


@pytest.mark.parametrize(
    ("agent", "product", "version"),
    [
        ("Acme-Phone/5.1.2 (x; y)", "Acme-Phone", "5.1.2"),
        ("baresip v1.0.0 (x86_64/linux)", "baresip", "1.0.0"),
        ("JsSIP 3.10.0", "JsSIP", "3.10.0"),
        ("Yealink SIP-T46S 66.84.0.15", "Yealink SIP-T46S", "66.84.0.15"),
        ("Linphone Desktop/4.2.5 (Debian)", "Linphone Desktop", "4.2.5"),
        ("Foo/v1.2", "Foo", "1.2"),
        ("Foo/Vega build 7", "Foo", "Vega"),
        ("test endpoint", "test endpoint", None),
        ("Box (linux)", "Box", None),
        ("/1.0", "/1.0", "1.0"),
        ("Foo/", "Foo", None),
        ("'; DROP TABLE calls; --", "'; DROP TABLE calls; --", None),
    ],
)
def test_agent_is_taken_apart(
    sipserver: Sipserver, data_dir: Path, agent: str, product: str, version: str | None
) -> None:
    with closing(new_store(data_dir / "calls.db", MIGRATIONS)) as store:
        store.execute(
            """INSERT INTO errors (id, at, kind, agent, count, last_at)
            VALUES ('e', '2026-11-23T21:00:00.000Z', 'stray', ?, 1, '2026-11-23T21:00:00.000Z')""",
            (agent,),
        )
    (row,) = json.loads(sipserver("errors", "rates", "--json").stdout)
    assert (row["product"], row["version"]) == (product, version)


def test_kinds_are_told_with_what_they_mean(sipserver: Sipserver) -> None:
    rows = json.loads(sipserver("errors", "kinds", "--json").stdout)
    assert {row["kind"]: row["meaning"] for row in rows} == KINDS


def test_nothing_is_told_as_nothing(sipserver: Sipserver, data_dir: Path) -> None:
    new_store(data_dir / "calls.db", MIGRATIONS).close()
    assert sipserver("errors", "list").stdout == "No errors.\n"
    assert sipserver("errors", "rates").stdout == "Nothing happened.\n"


def test_the_readme_has_the_commands() -> None:
    text = README.read_text("utf-8")
    for command in ("errors list", "errors rates", "errors kinds", "calls show", "check --data-dir"):
        assert f"sipserver {command}" in text, command
