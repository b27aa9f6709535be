"""What the server has acknowledged is on disk, whenever it is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from sipserver.accounts.credentials import Keyring
from support.endpoint import Endpoint, NoResponseError
from support.phone import Phone
from support.server import DOMAIN, Row, ServerProcess, sipserver

KILLS = 12
USERS = 20
"""Of each round; the next one has others, so that no binding of an earlier one stands in for a lost one."""

StartServer = Callable[..., ServerProcess]


@dataclass(slots=True)
class Acknowledged:
    """What the server said it had done."""

    registered: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    """Call-IDs."""
    ended: set[str] = field(default_factory=set)


async def keep_busy(endpoint: Endpoint, users: list[str], dice: random.Random, seen: Acknowledged) -> None:
    """Register, and call each other, until cancelled."""
    while True:
        caller, callee = dice.sample(users, 2)
        try:
            for user in (caller, callee):
                if (await endpoint.register(user)).status == 200:
                    seen.registered.add(user)
            final, dialog = await endpoint.invite(caller, callee)
            if final.status != 200:
                continue
            seen.answered.add(dialog.call_id)
            await asyncio.sleep(dice.random() / 5)
            if (await endpoint.bye(dialog)).status == 200:
                seen.ended.add(dialog.call_id)
        except NoResponseError:
            continue


async def one_round(server: ServerProcess, endpoint: Endpoint, users: list[str], seed: int, seen: Acknowledged) -> None:
    """Traffic from several sides, and SIGKILL in the middle of it."""
    dice = random.Random(seed)
    busy = [asyncio.create_task(keep_busy(endpoint, users, random.Random(seed + i), seen)) for i in range(1, 7)]
    await asyncio.sleep(0.1 + dice.random())
    # In a thread: what the server sends until its last moment is to be seen here.
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(0.02)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_what_was_acknowledged_survives_sigkill(start_server: StartServer) -> None:
    rounds = [[f"r{number}u{i}" for i in range(USERS)] for number in range(KILLS)]
    server = start_server(*(user for users in rounds for user in users))
    seen = Acknowledged()
    async with Endpoint(server.port) as endpoint:
        for number, users in enumerate(rounds):
            await one_round(server, endpoint, users, 1000 * number, seen)
            await asyncio.to_thread(server.start)
    assert len(seen.registered) > KILLS
    assert len(seen.ended) > KILLS

    bound = {row["aor"] for row in server.rows("SELECT aor FROM bindings", store="location.db")}
    assert {f"{user}@{DOMAIN}" for user in seen.registered} <= bound

    keyring = Keyring.load(server.data_dir, {})
    assert keyring is not None
    key = keyring.derive("call-id")
    rows = server.rows("SELECT * FROM calls")
    by_hash: dict[str, Row] = {row["call_id"]: row for row in rows}
    assert len(by_hash) == len(rows), "a call has two rows"
    calls = {
        call_id: by_hash[blake2b(call_id.encode(), digest_size=16, key=key).hexdigest()]
        for call_id in seen.answered | seen.ended
    }
    for call_id, row in calls.items():
        assert row["answered_at"] is not None
        assert row["outcome"] == "answered"
        if call_id in seen.ended:
            assert (row["end_cause"], row["end_uncertainty_ms"]) == ("bye", None)
        else:
            # A BYE may have been accepted in the last moment, without its answer arriving.
            assert row["end_cause"] in ("bye", "server_restart")
    assert all(row["ended_at"] is not None for row in rows)
    cut_short = [row for row in rows if row["end_cause"] == "server_restart"]
    assert cut_short, "no kill hit a call: the test shows nothing"
    assert all(row["end_uncertainty_ms"] is not None for row in cut_short)


def test_devices_that_are_tried_or_ring_survive_sigkill(start_server: StartServer) -> None:
    server = start_server("alice", "bob")
    with (
        Phone(server.port, "alice") as alice,
        Phone(server.port, "bob") as desk,
        Phone(server.port, "bob", "TCP") as mobile,
    ):
        desk.register(f"Contact: <{desk.contact}>", "User-Agent: Desk/1")
        mobile.register(f"Contact: <{mobile.contact}>", "User-Agent: Mobile/2")
        alice.exchange("INVITE", f"sip:bob@{DOMAIN}", f"Contact: <{alice.contact}>")
        alice.expect(100)
        desk.respond(desk.expect("INVITE"), 180)
        mobile.expect("INVITE")
        alice.expect(180)
        server.wait_for_rows(
            "SELECT ringing_at FROM call_branches ORDER BY agent", lambda rows: any(row["ringing_at"] for row in rows)
        )
        server.kill()
    server.start()
    (call,) = server.ended_calls()
    assert (call["outcome"], call["end_cause"], call["devices"]) == ("failed", "server_restart", 2)
    first, second = server.rows("SELECT * FROM call_branches ORDER BY agent")
    assert [(each["agent"], each["transport"], each["outcome"]) for each in (first, second)] == [
        ("Desk/1", "UDP", "cut_short"), ("Mobile/2", "TCP", "cut_short")
    ]  # fmt: skip
    assert first["ringing_at"] == call["ringing_at"] == call["ended_at"]
    assert (second["ringing_at"], second["answered_at"]) == (None, None)
    assert call["started_at"] <= second["tried_at"] <= second["ended_at"] == call["ended_at"]
    sipserver("check", "--data-dir", server.data_dir, "--no-ports")
    assert "what became of device" in sipserver("calls", "show", call["id"], "--data-dir", server.data_dir)
