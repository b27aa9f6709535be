"""``sipserver bindings``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from sipserver.location.rows import to_row
from sipserver.location.schema import MIGRATIONS, UPSERT
from sipserver.registrar.binding import Binding
from support.stores import new_store

Sipserver = Callable[..., Result]


def binding(aor: str, contact: str, expires_at: float) -> Binding:
    return Binding(
        aor=aor, contact=contact, q=500, expires_at=expires_at, call_id="c", cseq=1, instance=f"<urn:uuid:{aor}>",
        reg_id=None, path=("<sip:edge;lr>",), user_agent="phone\x1b[2J", params="", transport="UDP",
        host="2001:db8::7", port=5060, connection=0, registered_at=0.0,
    )  # fmt: skip


@pytest.fixture
def location(data_dir: Path) -> None:
    now = time.time()
    rows = [
        to_row(binding("alice@example.test", "sip:a@192.0.2.1", now + 100.4)),
        to_row(binding("bob@example.test", "sip:b@192.0.2.2", now + 50)),
        to_row(binding("carol@example.test", "sip:c@192.0.2.3", now - 50)),
    ]
    with closing(new_store(data_dir / "location.db", MIGRATIONS)) as store:
        store.executemany(UPSERT, rows)


@pytest.mark.usefixtures("location")
def test_list_shows_what_has_not_expired(sipserver: Sipserver) -> None:
    lines = sipserver("bindings", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ADDRESS", "alice@example.test", "bob@example.test"]
    assert "[2001:db8::7]:5060" in lines[1]
    assert "phone\\x1b[2J" in lines[1]


@pytest.mark.usefixtures("location")
def test_list_of_one_address_has_every_value_in_json(sipserver: Sipserver) -> None:
    (row,) = json.loads(sipserver("bindings", "list", "sip:alice@EXAMPLE.test", "--json").stdout)
    assert row["contact"] == "sip:a@192.0.2.1"
    assert row["q"] == 0.5
    assert row["path"] == ["<sip:edge;lr>"]
    assert (row["reached_by"], row["nat"], row["instance"]) == ("path", False, "<urn:uuid:alice@example.test>")
    assert row["registered_at"] == "1970-01-01T00:00:00.000Z"
    assert 90 < row["expires_in"] <= 100


def test_list_shows_which_way_an_endpoint_is_reached(sipserver: Sipserver, data_dir: Path) -> None:
    with closing(new_store(data_dir / "location.db", MIGRATIONS)) as store:
        behind = binding("alice@example.test", "sip:a@10.0.0.5", time.time() + 100)
        behind.path, behind.flow_only, behind.natted, behind.reg_id, behind.local = (), True, True, 2, "192.0.2.1:5060"
        store.execute(UPSERT, to_row(behind))
    (row,) = json.loads(sipserver("bindings", "list", "--json").stdout)
    assert (row["reached_by"], row["nat"], row["reg_id"], row["to"]) == ("flow", True, 2, "192.0.2.1:5060")


@pytest.mark.usefixtures("location")
def test_removed_binding_is_listed_no_more(sipserver: Sipserver) -> None:
    result = sipserver("bindings", "remove", "alice@example.test")
    assert (result.exit_code, result.stdout) == (0, "sip:a@192.0.2.1 removed\n")
    assert sipserver("bindings", "list", "alice@example.test").stdout == "No bindings.\n"


@pytest.mark.usefixtures("location")
def test_one_contact_is_removed(sipserver: Sipserver) -> None:
    wrong = sipserver("bindings", "remove", "bob@example.test", "--contact", "sip:x@192.0.2.2")
    assert (wrong.exit_code, wrong.stderr) == (1, "sipserver: bob@example.test has no such binding\n")
    right = sipserver("bindings", "remove", "bob@example.test", "--contact", "sip:b@192.0.2.2")
    assert (right.exit_code, right.stdout) == (0, "sip:b@192.0.2.2 removed\n")
    again = sipserver("bindings", "remove", "bob@example.test")
    assert (again.exit_code, again.stderr) == (1, "sipserver: bob@example.test has no binding\n")


@pytest.mark.usefixtures("location")
def test_contact_that_is_no_uri_is_wrong_use(sipserver: Sipserver) -> None:
    result = sipserver("bindings", "remove", "bob@example.test", "--contact", "sip:")
    assert (result.exit_code, result.stderr) == (2, "sipserver: --contact: 'sip:' is no SIP URI\n")


def test_missing_store_is_told(sipserver: Sipserver, data_dir: Path) -> None:
    for arguments in (("list",), ("remove", "a@b")):
        result = sipserver("bindings", *arguments)
        assert (result.exit_code, result.stderr) == (1, f"sipserver: {data_dir}/location.db does not exist yet\n")


@pytest.mark.usefixtures("location")
@pytest.mark.parametrize("command", [("disable", "alice@example.test"), ("remove", "alice@example.test", "--yes")])
def test_endpoints_of_somebody_who_may_not_register_any_more_are_put_out(
    sipserver: Sipserver, command: tuple[str, ...]
) -> None:
    sipserver("subscribers", "add", "alice@example.test", "--password-stdin", text="secret\n")
    assert sipserver("subscribers", *command).exit_code == 0
    lines = sipserver("bindings", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ADDRESS", "bob@example.test"]
