"""What an endpoint answers, and what the record then says of the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.endpoint import Endpoint
from support.server import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize(
    ("status", "reason", "rings", "outcome"),
    [
        (603, "Decline", True, "declined"),
        (486, "Busy Here", False, "busy"),
        (486, "Busy Here", True, "declined"),
        (480, "Temporarily Unavailable", True, "no_answer"),
        (404, "Not Found", True, "not_found"),
        (500, "Server Internal Error", True, "failed"),
    ],
)
async def test_refusal_by_the_callee_is_on_record(
    start_server: StartServer, transport: str, status: int, reason: str, rings: bool, outcome: str
) -> None:
    server = start_server("alice", "bob")
    async with Endpoint(server.port, transport=transport) as endpoint:
        await endpoint.register("bob")
        endpoint.final, endpoint.rings = (status, reason), rings
        final, _ = await endpoint.invite("alice", "bob")
        assert final.status == status
    (row,) = server.ended_calls()
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == (outcome, status, "callee")
    assert (row["answered_at"], row["talk_ms"], row["devices"]) == (None, None, 1)
    assert (row["ringing_at"] is not None) == rings


async def test_call_to_nobody_is_on_record(start_server: StartServer) -> None:
    server = start_server("alice")
    async with Endpoint(server.port) as endpoint:
        final, _ = await endpoint.invite("alice", "nobody")
        assert final.status == 404
    (row,) = server.ended_calls()
    assert (row["outcome"], row["ended_by"], row["devices"]) == ("not_found", "server", 0)
