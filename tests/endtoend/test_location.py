"""A running server writes down where people are: sites, databases that are replaced, what devices and peers tell."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.pen import DOMAIN
from support.phone import Phone
from support.places import city, located, pidf, write_database
from support.server import Row, ServerProcess

from .conftest import StartServer

CALL_PLACE = "country", "region", "city", "site", "location_source"


def place_of(row: Row, side: str = "") -> tuple[Any, ...]:
    return tuple(row[side + name] for name in CALL_PLACE)


def calls(server: ServerProcess, caller: Phone, callee: Phone, *lines: str, body: bytes = b"") -> Row:
    """One answered call from end to end; its row."""
    known = len(server.rows("SELECT * FROM calls WHERE ended_at IS NOT NULL"))
    call_id = f"c{caller.user}{known}"
    caller.exchange(
        "INVITE", f"sip:{callee.user}@{DOMAIN}", f"Contact: <{caller.contact}>", *lines, call_id=call_id, body=body
    )
    caller.expect(100)
    invite = callee.expect("INVITE")
    callee.respond(invite, 200)
    answer = caller.expect(200)
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    callee.expect("ACK")
    caller.send(caller.in_dialog("BYE", answer, cseq=answer.cseq[0] + 5))
    callee.respond(callee.expect("BYE"), 200)
    caller.expect(200)
    rows = server.wait_for_rows(
        "SELECT * FROM calls WHERE ended_at IS NOT NULL ORDER BY started_at", lambda rows: len(rows) > known
    )
    return rows[-1]


@pytest.fixture
def phones() -> Any:
    with ExitStack() as stack:

        def make(server: ServerProcess, *users: str) -> list[Phone]:
            return [stack.enter_context(Phone(server.port, user)) for user in users]

        yield make


def test_sites_stand_in_calls_sign_ins_views_and_what_is_shown(start_server: StartServer, phones: Any) -> None:
    site = '{ network = "127.0.0.0/8", site = "Vienna office", country = "at", region = "Wien", city = "Wien Mitte" }'
    server = start_server("alice", "bob", config=f'[location]\nprecision = "city"\nsites = [{site}]\n')
    alice, bob = phones(server, "alice", "bob")
    bob.register()
    row = calls(server, alice, bob)
    there = "AT", "Wien", "Wien Mitte", "Vienna office", "site"
    assert place_of(row, "caller_") == place_of(row, "callee_") == there
    (sign_in,) = server.wait_for_rows("SELECT * FROM sign_ins", lambda rows: len(rows) == 1)
    assert place_of(sign_in) == there
    assert place_of(server.rows("SELECT * FROM v_calls")[0], "callee_") == there
    assert place_of(server.rows("SELECT * FROM v_sign_ins")[0]) == there
